"""Which pictures are restored, and where the results go."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from cclight.commands.restore.command import TASKS
from cclight.errors import UsageError


def find_jobs(paths: list[Path], task: str, output: Path | None, overwrite: bool) -> list[tuple[Path, Path]]:
    """Each picture that is to be restored and where its restoration goes. What is done already is told and left out.

    Args:
        paths: pictures and folders of them.
        task: or whatever results are called after: picture_task.png.
        output: a file or a folder; None writes beside each picture.
        overwrite: restore again what is done.

    Raises:
        UsageError: where there is no such picture, or results cannot be told apart.
    """
    pictures = _without_results(_pictures(paths), {*TASKS, task})
    if output is not None and not output.is_dir() and (as_file := _file(output)) is not None:
        if len(pictures) > 1:
            raise UsageError(f"--output {output} is one file for {len(pictures)} pictures: give a folder")
        jobs = [(pictures[0], as_file)]
    else:
        jobs = [(picture, (output or picture.parent) / f"{picture.stem}_{task}.png") for picture in pictures]
    targets = [target for _, target in jobs]
    if twice := [target for target in targets if targets.count(target) > 1]:
        raise UsageError(f"two pictures would both become {twice[0]}: restore them one at a time with --output FILE.png")
    for picture, target in jobs:
        if target.exists() and target.resolve() in {path.resolve() for path in pictures}:
            raise UsageError(f"the result of {picture} would replace the picture {target}: choose another --output")
        if target.is_dir():
            raise UsageError(f"the result {target} is a folder: choose another --output")
    left = [(picture, target) for picture, target in jobs if overwrite or not target.exists()]
    for _, target in jobs:
        if not overwrite and target.exists():
            print(f"{target} is there already: left as it is (--overwrite restores it again)")
    return left


def ready(jobs: list[tuple[Path, Path]]) -> None:
    """Make the folders of the results, and see that they take files.

    Raises:
        UsageError: naming a folder that cannot be written.
    """
    for folder in sorted({target.parent for _, target in jobs}):
        _try(folder)


def _try(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder} takes no files ({error.strerror}): choose another folder with --output") from error


def _file(output: Path) -> Path | None:
    from cclight.runs.pictures import WRITTEN

    if output.suffix.lower() in WRITTEN:
        return output
    from cclight.data.formats import SUFFIXES

    if output.suffix.lower() in SUFFIXES:
        raise UsageError(f"--output writes {', '.join(sorted(WRITTEN))}, not {output.suffix}: got {output}")
    return None


def _pictures(paths: list[Path]) -> list[Path]:
    from cclight.data.formats import SUFFIXES

    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
            if not found:
                raise UsageError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
            pictures += found
        elif path.is_file():
            pictures.append(path)
        else:
            raise UsageError(f"there is no picture {path}: give a file or a folder of pictures")
    return list(dict.fromkeys(pictures))


def _without_results(pictures: list[Path], endings: set[str]) -> list[Path]:
    """What earlier calls have made of other pictures here is none to restore."""
    known = {(picture.parent, picture.stem) for picture in pictures}

    def made(picture: Path) -> bool:
        stem, _, ending = picture.stem.rpartition("_")
        return ending in endings and (picture.parent, stem) in known

    results = [picture for picture in pictures if made(picture)]
    if results:
        named = f"{results[0].name} and {len(results) - 1} more" if len(results) > 1 else results[0].name
        print(f"left out, as results of earlier calls: {named} (restore one by naming it alone)", file=sys.stderr)
    return [picture for picture in pictures if not made(picture)]
