"""What lies where in a run folder: the names of the files that a run writes. Nothing else in it is ever deleted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Literal

from cclight.data.formats import SUFFIXES
from cclight.errors import RunError

Kind = Literal["restored", "measurement", "clean", "samples", "mean", "std", "rows", "maps"]

KINDS: tuple[Kind, ...] = ("restored", "measurement", "clean", "samples", "mean", "std", "rows", "maps")
PICTURE = re.compile(r"(\d{5,})(_.*)?\.(png|npy)")
RECORDS = re.compile(r"(\d{5,}|evaluated)\.jsonl|files\.json")
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_WHOLE = ("metrics.json", "metrics.csv", "grid.png", "config.yaml")  # the configuration last


def picture_of(root: Path, kind: Kind, index: int, name: str, sample: int = 0) -> Path:
    """The path of an image's picture, named by its index and its source's name: restored/00007_astronaut.png.

    Args:
        root: the run folder.
        kind: what it shows.
        index: the image's number.
        name: the source's name for it.
        sample: which restoration; further ones lie elsewhere, samples/00007_astronaut_001.png.
    """
    stem = PurePath(name).stem if PurePath(name).suffix.lower() in SUFFIXES else PurePath(name).name
    slug = re.sub(r"[^\w.-]+", "_", stem).strip("_.")[:60]
    parts = [f"{index:05d}", slug, f"{sample:03d}" if sample else ""]
    return root / ("samples" if sample else kind) / ("_".join(part for part in parts if part) + ".png")


def index_of(picture: Path) -> int:
    """The number of the image whose picture or array a file is."""
    return int(picture.name.partition(".")[0].partition("_")[0])


def written(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """The files in one of a run's folders that the run itself has written."""
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if pattern.fullmatch(file.name) and file.is_file():
                yield file


def check_strangers(root: Path) -> None:
    """Refuse a folder that holds anything and is no run, with a RunError: it is somebody's."""
    if not root.is_dir() or ((root / "config.yaml").is_file() and (root / "records").is_dir()):
        return
    for entry in sorted(root.iterdir()):
        if not entry.name.startswith(".") and not (entry.is_dir() and next(entry.iterdir(), None) is None):
            raise RunError(
                f"{root} is no run of cclight and holds other files ({entry.name}), which stay untouched: choose another "
                f"run.name."
            )


def clear(root: Path) -> None:
    """Delete what a run writes and nothing else, the configuration last. Raises RunError when it cannot be deleted."""
    try:
        for folder, pattern in [*((kind, PICTURE) for kind in KINDS), ("records", RECORDS)]:
            for file in written(root / folder, pattern):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody's files are in it, or it is not there
                (root / folder).rmdir()
        for part in _WHOLE:
            (root / part).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"Could not delete the old results in {root} ({error.strerror}): delete the folder.") from error
