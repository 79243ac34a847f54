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
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cclight.data.decoding import SUFFIXES, Picture, UnreadableImage, decode, over_white, read_content

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from cclight.data.units import Units


class Form(NamedTuple):
    """How a photograph was stored, and so how its restoration is: bits a channel, and whether it is grey."""

    depth: Literal[8, 16] = 8
    grey: bool = False


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph.

    Attributes:
        image: upright, in RGB with 8 bits a channel.
        index: its number in the source.
        name: what people call it: safe in a file name, and not necessarily unique (the index is).
        pixels: (H, W, C) with C 1 or 3, uint16, where it has more than 8 bits a channel; None where `image` is all there is.
        notes: what was done to it that people should know, each a clause.
        transparent: whether parts of it were transparent; they lie on white.
        grey: whether it is grey, however it was stored.
        parameters: further arrays that belong to it by name, for `Operator.of`: coil maps, a mask, a kernel.
    """

    image: Image.Image
    index: int
    name: str
    pixels: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    transparent: bool = False
    grey: bool = False
    parameters: dict[str, Tensor] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        """How it was stored."""
        return Form(8 if self.pixels is None else 16, self.grey)

    @staticmethod
    def of(picture: Picture, index: int, name: str) -> Photograph:
        """A decoded picture as a photograph; one with transparency lies on white."""
        laid = over_white(picture)
        deep = laid.pixels if laid.depth > 8 else None
        return Photograph(laid.image(), index, name, deep, laid.notes, picture.alpha is not None, picture.grey)


@dataclass(frozen=True)
class Values:
    """An array that was read: what a photograph is to a source of arrays.

    Attributes:
        values: (C, ...), float32 or complex64, in the source's own units; any number of dimensions.
        index: its number in the source.
        name: what people call it: safe in a file name, and not necessarily unique (the index is).
        parameters: further arrays that belong to it by name, for `Operator.of`: coil maps, a mask, a kernel.
    """

    values: Tensor
    index: int
    name: str
    parameters: dict[str, Tensor] = field(default_factory=dict)

    notes = ()
    form = Form()


@dataclass(frozen=True)
class Entry:
    """A photograph that is not decoded yet.

    Attributes:
        index: its number in the source.
        place: where it is, for messages.
        load: decodes it; raises UnreadableImage.
        content: gives its bytes as they are stored, with its name before them; None where only the pixels can be had.
        label: its class, for priors that know classes; -1 where it has none.
    """

    index: int
    place: str
    load: Callable[[], Photograph | Values]
    content: Callable[[], bytes] | None = None
    label: int = -1

    def fingerprint(self) -> str:
        """A hash of the photograph, its name and label, whatever its number and place; empty where it cannot be read."""
        try:
            if self.content is not None:
                held = self.content()
            else:
                photo = self.load()
                assert isinstance(photo, Photograph)  # arrays have their content
                deep = b"" if photo.pixels is None else photo.pixels.tobytes()
                held = f"{photo.name} {photo.image.size} {photo.image.mode}\0".encode() + photo.image.tobytes() + deep
        except (OSError, ValueError):
            return ""
        return hashlib.blake2b(held if self.label < 0 else held + f"\0{self.label}".encode(), digest_size=16).hexdigest()


class Source(ABC):
    """A numbered collection of photographs. Nothing is opened before the first use, and opening twice costs once.

    Attributes:
        units: what the numbers of its arrays mean; None for a source of photographs.
    """

    units: Units | None = None

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
        """As `entries`, decoded; what cannot be read is named in a warning and left out.

        Raises:
            ValueError: for a source of arrays.
        """
        if self.units is not None:
            raise ValueError(f"{self} holds arrays where photographs are wanted: give a source of photographs.")
        for entry in self.entries(rank, world_size, skip, limit):
            try:
                photograph = entry.load()
            except UnreadableImage as error:
                warnings.warn(f"{error}: left out.", stacklevel=2)
                continue
            assert isinstance(photograph, Photograph)
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
            load, content = partial(self._load, index, name, file), partial(_named, name, file)
            yield Entry(index, str(file), load, content, self._label(file))

    def __len__(self) -> int:
        return len(self._files)

    def _label(self, file: Path) -> int:
        """A file's class, -1 for none."""
        return -1

    @staticmethod
    def _load(index: int, name: str, file: Path) -> Photograph:
        return Photograph.of(decode(str(file), partial(read_content, file)), index, name)


class ImageFolder(_Files):
    """The image files of a folder, sorted by name: those with a suffix of `cclight.data.decoding.SUFFIXES`.

    Hidden files are left out, and so are pipes and devices; a warning counts the other files.

    Args:
        path: the folder.
        recursive: look into its subfolders as well.
        classes: names of subfolders in the order of the prior's labels, 0 first: their pictures have that label, and others
            none. Needs `recursive`.

    Raises:
        ValueError: for classes without `recursive`.
    """

    def __init__(self, path: str | Path, recursive: bool = False, classes: list[str] | None = None) -> None:
        if classes and not recursive:
            raise ValueError("ImageFolder reads labels off its subfolders: set recursive to true, or leave classes out.")
        self.path = path
        self.recursive = recursive
        self.classes = classes

    def _label(self, file: Path) -> int:
        first = file.relative_to(Path(self.path).expanduser()).parts[0]
        return self.classes.index(first) if self.classes and first in self.classes else -1

    def _find(self) -> list[tuple[str, Path]]:
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"ImageFolder finds no folder {self.path}: give the path of a folder of images.")
        absent = [name for name in self.classes or () if not (folder / name).is_dir()]
        if len(absent) == len(self.classes or ("",)):
            raise ValueError(f"{self.path} has no subfolder {' or '.join(absent)}: give the names that it has as classes.")
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
        return [(safe_name(path.with_suffix("").as_posix()), folder / path) for path in files]


class SamplePhotographs(_Files):
    """Six photographs that ship inside scikit-image's wheel, four of them in colour: no network, no download.

    All are in the public domain or CC0, and the two without colour are given as grey RGB.

    Args:
        files: other pictures of the wheel, such as phantom.png, a head as tomographs see it; None takes the six.
    """

    FILES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "coins.png")

    def __init__(self, files: list[str] | None = None) -> None:
        self.files = self.FILES if files is None else tuple(files)
        super().__init__()

    def _find(self) -> list[tuple[str, Path]]:
        # Found without importing scikit-image, which is slow and would fetch what is missing from the network.
        spec = find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("SamplePhotographs needs scikit-image: pip install scikit-image.")
        folder = Path(spec.submodule_search_locations[0]) / "data"
        files = [folder / name for name in self.files]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            remedy = "pip install --force-reinstall scikit-image"
            if not set(missing) <= set(self.FILES):
                remedy = f"its wheel has {', '.join(sorted(path.name for path in folder.glob('*.*g')))}"
            raise FileNotFoundError(f"scikit-image lacks {', '.join(missing)}: {remedy}.")
        return [(file.stem, file) for file in files]


def _named(name: str, file: Path) -> bytes:
    return name.encode() + b"\0" + read_content(file)


def safe_name(name: str) -> str:
    """A name that is safe in a file name."""
    return re.sub(r"[^\w.-]+", "_", name)
