"""Which pictures are restored, and where the results go."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from cclight.errors import UsageError

TASKS = ("sr", "deblur", "inpaint", "colorize", "jpeg")


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
        names = _names(pictures, apart=output is None)
        jobs = [(picture, (output or picture.parent) / f"{names[picture]}_{task}.png") for picture in pictures]
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


def beside(output: Path, what: str) -> Path:
    """What is written beside a restoration: photo_sr_mean.png of photo_sr.png."""
    return output.with_stem(f"{output.stem}_{what}")


def sample_of(output: Path, sample: int) -> Path:
    """Where a sample goes: the first one is the restoration, photo_sr.png, the next one photo_sr_1.png."""
    return beside(output, str(sample)) if sample else output


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
    # A folder may well be called results.v2, and hardly result.xyz.
    if output.suffix[1:].isalpha() and not output.exists():
        raise UsageError(
            f"--output writes {', '.join(sorted(WRITTEN))}, not {output.suffix}: got {output} "
            f"(for a folder of that name, make it)"
        )
    return None


def _names(pictures: list[Path], apart: bool) -> dict[Path, str]:
    """What each picture's result begins with: its stem; with its ending or its folder too where pictures share it.

    Args:
        pictures: the pictures.
        apart: results of different folders go to different folders.
    """
    spellings = (
        lambda picture: picture.stem,
        lambda picture: f"{picture.stem}_{picture.suffix[1:]}",
        lambda picture: f"{picture.parent.name}_{picture.stem}",
        lambda picture: f"{picture.parent.name}_{picture.stem}_{picture.suffix[1:]}",
    )

    def place(picture: Path) -> tuple[Path | None, str]:
        return (picture.parent if apart else None, picture.stem.lower())

    groups: dict[tuple[Path | None, str], list[Path]] = {}
    for picture in pictures:
        groups.setdefault(place(picture), []).append(picture)
    names: dict[Path, str] = {}
    for group in groups.values():
        # Disks that do not tell upper from lower case would take two such for one.
        spelt = next((s for s in spellings if len({s(picture).lower() for picture in group}) == len(group)), spellings[0])
        names |= {picture: spelt(picture) for picture in group}
    return names


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
    known = {(p.parent, name) for p in pictures for name in (p.stem, f"{p.stem}_{p.suffix[1:]}")}

    def made(picture: Path) -> bool:
        result = re.sub(r"_(\d+|mean|std)$", "", picture.stem)
        stem, _, ending = (picture.stem if picture.stem.endswith(tuple(endings)) else result).rpartition("_")
        return ending in endings and (picture.parent, stem) in known

    results = [picture for picture in pictures if made(picture)]
    if results:
        named = f"{results[0].name} and {len(results) - 1} more" if len(results) > 1 else results[0].name
        print(f"left out, as results of earlier calls: {named} (restore one by naming it alone)", file=sys.stderr)
    return [picture for picture in pictures if not made(picture)]
