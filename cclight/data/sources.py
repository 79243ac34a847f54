"""Sources: numbered collections of photographs.

A source knows its photographs by number, and a photograph's number is the same however many processes share the work:

    share of rank k of n = { i : i mod n = k },  less what is already done

so nothing is lost or taken twice, whatever each process knows of the others. What belongs to others, or is done, is passed by
undecoded. To add a source, subclass `Source` and write `__iter__` and `__len__`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cclight.data.decoding import SUFFIXES, Picture, UnreadableImage, decode, over_white, read_content
from cclight.errors import one_line

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph.

    Attributes:
        image: upright, in RGB with 8 bits a channel.
        index: its number in the source.
        name: what people call it: safe in a file name, and not necessarily unique (the index is).
        pixels: (H, W, C) with C 1 or 3, uint16, where it has more than 8 bits a channel; None where `image` is all there is.
        notes: what was done to it that people should know, each a clause.
    """

    image: Image.Image
    index: int
    name: str
    pixels: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(picture: Picture, index: int, name: str) -> Photograph:
        """A decoded picture as a photograph; one with transparency lies on white."""
        picture = over_white(picture)
        return Photograph(picture.image(), index, name, picture.pixels if picture.depth > 8 else None, picture.notes)


@dataclass(frozen=True)
class Entry:
    """A photograph that is not decoded yet.

    Attributes:
        index: its number in the source.
        place: where it is, for messages.
        load: decodes it; raises UnreadableImage.
        content: gives its bytes as they are stored, with its name before them; None where only the pixels can be had.
    """

    index: int
    place: str
    load: Callable[[], Photograph]
    content: Callable[[], bytes] | None = None

    def fingerprint(self) -> str:
        """A hash of the photograph and its name, whatever its number and place; empty where it cannot be read."""
        try:
            if self.content is not None:
                held = self.content()
            else:
                photograph = self.load()
                held = (
                    f"{photograph.name} {photograph.image.size} {photograph.image.mode}\0".encode() + photograph.image.tobytes()
                )
        except (OSError, ValueError):
            return ""
        return hashlib.blake2b(held, digest_size=16).hexdigest()


class Source(ABC):
    """A numbered collection of photographs. Nothing is opened before the first use, and opening twice costs once."""

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]:
        """All photographs in order, numbered from 0, undecoded.

        Raises:
            FileNotFoundError: where there is no such folder or data set.
            ValueError: where it does not hold what was asked of it.
        """

    @abstractmethod
    def __len__(self) -> int:
        """The number of photographs.

        Raises:
            TypeError: where only reading to the end would tell.
        """

    def entries(
        self, rank: int = 0, world_size: int = 1, skip: Collection[int] = frozenset(), limit: int | None = None
    ) -> Iterator[Entry]:
        """One process' share of the photographs, undecoded: those with index mod world_size = rank.

        Args:
            rank: which share, 0 <= rank < world_size.
            world_size: the number of shares: processes times their workers.
            skip: indices that are done; a set is quickest.
            limit: look at the first so many photographs of the source only; None looks at all.
        """
        for entry in itertools.islice(self, limit):
            if entry.index % world_size == rank and entry.index not in skip:
                yield entry

    def shard(
        self, rank: int = 0, world_size: int = 1, skip: Collection[int] = frozenset(), limit: int | None = None
    ) -> Iterator[Photograph]:
        """As `entries`, decoded; what cannot be read is named in a warning and left out."""
        for entry in self.entries(rank, world_size, skip, limit):
            try:
                photograph = entry.load()
            except UnreadableImage as error:
                warnings.warn(f"{error}: left out.", stacklevel=2)
                continue
            for note in photograph.notes:
                warnings.warn(f"{entry.place}: {note}.", stacklevel=2)
            yield photograph

    def __repr__(self) -> str:
        public = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({public})"


class _Files(Source):
    """Image files. A subclass finds them."""

    @abstractmethod
    def _find(self) -> list[tuple[str, Path]]:
        """Names and files, in order."""

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        return self._find()

    def __iter__(self) -> Iterator[Entry]:
        for index, (name, file) in enumerate(self._files):
            yield Entry(index, str(file), partial(self._load, index, name, file), partial(_named, name, file))

    def __len__(self) -> int:
        return len(self._files)

    @staticmethod
    def _load(index: int, name: str, file: Path) -> Photograph:
        return Photograph.of(decode(str(file), partial(read_content, file)), index, name)


class ImageFolder(_Files):
    """The image files of a folder, sorted by name: those with a suffix of `cclight.data.decoding.SUFFIXES`.

    Hidden files are left out, and so are pipes and devices; a warning counts the other files.

    Args:
        path: the folder.
        recursive: look into its subfolders as well.
    """

    def __init__(self, path: str | Path, recursive: bool = False) -> None:
        self.path = path
        self.recursive = recursive

    def _find(self) -> list[tuple[str, Path]]:
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"ImageFolder finds no folder {self.path}: give the path of a folder of images.")
        found = [path.relative_to(folder) for path in folder.glob("**/*" if self.recursive else "*") if path.is_file()]
        found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
        files = sorted((path for path in found if path.suffix.lower() in SUFFIXES), key=Path.as_posix)
        if not files:
            deeper = "" if self.recursive else " (recursive: true looks into subfolders)"
            raise ValueError(f"ImageFolder finds no {'/'.join(sorted(s[1:] for s in SUFFIXES))} file in {self.path}{deeper}.")
        passed = Counter(path.suffix.lower() or "no suffix" for path in found if path.suffix.lower() not in SUFFIXES)
        if passed:
            counts = ", ".join(f"{suffix} ({count})" for suffix, count in sorted(passed.items()))
            warnings.warn(
                f"ImageFolder passes over files in {self.path} that are no pictures it reads: {counts}.", stacklevel=2
            )
        return [(_safe(path.with_suffix("").as_posix()), folder / path) for path in files]


class SamplePhotographs(_Files):
    """Six photographs that ship inside scikit-image's wheel, four of them in colour: no network, no download.

    All are in the public domain or CC0, and the two without colour are given as grey RGB.
    """

    FILES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "coins.png")

    def _find(self) -> list[tuple[str, Path]]:
        # Found without importing scikit-image, which is slow and would fetch what is missing from the network.
        spec = find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("SamplePhotographs needs scikit-image: pip install scikit-image.")
        folder = Path(spec.submodule_search_locations[0]) / "data"
        files = [folder / name for name in self.FILES]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(f"scikit-image lacks {', '.join(missing)}: pip install --force-reinstall scikit-image.")
        return [(file.stem, file) for file in files]


class HFDataset(Source):
    """A split of a Hugging Face data set: on the hub, or a folder of parquet, arrow or image files, or made by `save_to_disk`.

    Streaming reads the rows in order and keeps no copy on disk. Only counting numbers the rows of a stream, so every worker of
    every process reads all of it and decodes its own share: n processes of m workers download it n · m times. Where that
    matters, set a limit or do without streaming. A folder made by `save_to_disk` is memory-mapped and needs no streaming.

    Args:
        path: the data set's name on the hub ("owner/name"), or a folder.
        split: the name of the split, such as "validation"; without streaming also "validation[:100]".
        streaming: read rows as they come instead of preparing a copy on disk first.
        image_column: the column of images; None takes the only one there is.
        name: the data set's configuration, where it has several.
    """

    def __init__(
        self,
        path: str | Path,
        split: str,
        streaming: bool = False,
        image_column: str | None = None,
        name: str | None = None,
    ) -> None:
        self.path = path
        self.split = split
        self.streaming = streaming
        self.image_column = image_column
        self.name = name

    @cached_property
    def _rows(self) -> Any:
        """The data set with the column of images alone, left encoded."""
        from datasets import Image as ImageFeature

        dataset = self._open()
        column = self._column(dataset.features)
        return dataset.select_columns([column]).cast_column(column, ImageFeature(decode=False))

    def _open(self) -> Any:
        import datasets

        folder = Path(self.path).expanduser()
        if not folder.is_dir() and (str(self.path).startswith((".", "/", "~")) or str(self.path).count("/") > 1):
            raise FileNotFoundError(f"HFDataset finds no folder {self.path}: give a folder, or a name on the hub (owner/name).")
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                return self._saved(datasets.load_from_disk(folder))
            return datasets.load_dataset(folder.as_posix(), self.name, split=self.split, streaming=self.streaming)
        except FileNotFoundError as error:  # datasets' own errors of this kind are subclasses, too
            wanted = "file that datasets reads" if folder.is_dir() else "data set of that name, here or on the hub,"
            raise FileNotFoundError(f"HFDataset finds no {wanted} at {self.path} ({one_line(error)}).") from error
        except ValueError as error:
            raise ValueError(f"HFDataset cannot open split {self.split!r} of {self.path}: {one_line(error)}") from error
        except ConnectionError as error:
            raise ConnectionError(
                f"HFDataset finds no folder {self.path} and no hub ({one_line(error)}): give a folder, or connect."
            ) from error

    def _saved(self, saved: Any) -> Any:
        if isinstance(saved, dict):
            if self.split not in saved:
                raise ValueError(f"it holds {', '.join(saved)}.")
            return saved[self.split]
        # A data set saved alone may have lost its split's name: then any name will do, but not a slice, which it cannot give.
        held = str(saved.split or self.split.partition("[")[0])
        if held != self.split:
            raise ValueError(f"it holds {held}.")
        return saved

    def _column(self, features: Any) -> str:
        from datasets import Image as ImageFeature

        if features is None:
            raise ValueError(f"{self.path} does not tell its columns while streaming: set streaming to false.")
        images = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        # Encoded files that nobody marked as images: bare bytes, or the pair {bytes, path}.
        encoded = [
            name
            for name, feature in features.items()
            if (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", "") in ("binary", "large_binary")
        ]
        if self.image_column is not None and self.image_column in (*images, *encoded):
            return self.image_column
        if self.image_column is None and len(images) == 1:
            return images[0]
        asked = "image_column is not set" if self.image_column is None else f"{self.image_column!r} is no column of images"
        raise ValueError(
            f"{asked}; {self.path} has the columns {', '.join(features)}, images in: {', '.join(images) or 'none'}. "
            "Set image_column to one of these."
        )

    @property
    def _counted(self) -> bool:
        from datasets import Dataset

        return isinstance(self._rows, Dataset)

    def _cells(self) -> Iterator[Callable[[], Any]]:
        """How to get each row's encoded image."""
        if self._counted:
            for index in range(len(self._rows)):
                yield partial(self._cell, index)
        else:
            # `iter(batch_size)`, not `iter()`: the latter gives each DataLoader worker other shards, and who would number them?
            for batch in self._rows.iter(batch_size=16):
                (column,) = batch.values()
                for cell in column:
                    yield partial(_same, cell)

    def _cell(self, index: int) -> Any:
        (cell,) = self._rows[index].values()
        return cell

    def __iter__(self) -> Iterator[Entry]:
        for index, cell in enumerate(self._cells()):
            place = f"row {index} of {self.path} (split {self.split})"
            yield Entry(index, place, partial(self._load, index, place, cell), partial(_encoded, cell))

    def __len__(self) -> int:
        if not self._counted:
            raise TypeError(f"{self!r} is streamed: only its end tells its length.")
        return len(self._rows)

    @staticmethod
    def _load(index: int, place: str, cell: Callable[[], Any]) -> Photograph:
        name = f"{index:06d}"

        def read() -> bytes:
            nonlocal name
            encoded = cell()
            if encoded is None:
                raise ValueError("the row has none")
            name = _safe(Path((encoded["path"] or "").partition("::")[0]).stem) or name  # a.png::archive.zip
            return encoded["bytes"] if encoded["bytes"] is not None else _fetch(encoded["path"])

        return Photograph.of(decode(place, read), index, name)


def _fetch(path: str) -> bytes:
    """A file that a row names: here, inside an archive, or on the hub."""
    if Path(path).exists():
        return read_content(path)
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        return file.read()


def _named(name: str, file: Path) -> bytes:
    return name.encode() + b"\0" + file.read_bytes()


def _encoded(cell: Callable[[], Any]) -> bytes:
    """The bytes of a row's image with its path before them; of a row that holds a path alone, those of the file."""
    encoded = cell() or {}
    path, held = str(encoded.get("path") or ""), encoded.get("bytes")
    return Path(path).name.encode() + b"\0" + (Path(path).read_bytes() if held is None and path else held or b"")


def _same(value: Any) -> Any:
    return value


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
