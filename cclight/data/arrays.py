"""Arrays: the source of data that are no 8-bit pictures: signals (C, L), images (C, H, W), volumes (C, D, H, W) and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cclight.data.array_files import ONLY, SUFFIXES, listed, open_arrays, tensor_of
from cclight.data.sources import Entry, Source, Values, safe_name
from cclight.data.units import Units
from cclight.errors import suggestion


class Arrays(Source):
    """Arrays of any number of channels and dimensions: the files of a folder, an array each, or one file with a stack of them.

    Read are .npy, .npz, .pt, .safetensors, .mat and .h5. Shapes may differ from file to file, the number of dimensions may not.
    Say what the numbers mean by `value_range` or by `mean` and `std`; without either they are the prior's own, in [-1, 1].

    All of them are read once before any is restored, so that NaN, shapes that do not fit and values far outside of the range
    are told beforehand; networks take far longer than that.

    Args:
        path: a folder of files, or one file whose array's first axis counts images.
        key: which array of a file is the image, where it holds several.
        value_range: the values that are -1 and 1 to the prior.
        mean: instead, the value that is 0 to the prior.
        std: with `mean`, the difference that is 1 to the prior.
        ends: values end at `value_range`, as light does: restorations are clamped there. Else nothing is.
        channel_axis: the axis of an image's array that counts channels, -1 for the last; null where it has none.
        parameters: further arrays of the same file that belong to the image, for an operator that takes them. In a stack, those
            whose first axis is as long as the stack's have one part for each image, others are for all.

    Raises:
        ValueError: for units that are none.
    """

    def __init__(
        self,
        path: str | Path,
        key: str | None = None,
        value_range: tuple[float, float] | None = None,
        mean: float | None = None,
        std: float | None = None,
        ends: bool = False,
        channel_axis: int | None = 0,
        parameters: list[str] | None = None,
    ) -> None:
        if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
            raise ValueError(f"value_range of Arrays is a lower and a higher number, got {list(value_range)}.")
        if (mean is None) != (std is None) or (mean is not None and value_range is not None):
            raise ValueError("Arrays takes value_range, or mean and std together: give one of the two.")
        if std is not None and not (0 < std < np.inf and np.isfinite(mean or 0)):
            raise ValueError(f"mean and std of Arrays are finite numbers, std above 0, got {mean} and {std}.")
        if ends and value_range is None:
            raise ValueError("ends of Arrays says that values end at value_range: give that too.")
        self.path = path
        self.key = key
        self.value_range = value_range
        self.mean = mean
        self.std = std
        self.ends = ends
        self.channel_axis = channel_axis
        self.parameters = parameters
        if std is not None:
            self.units: Units = Units(mean or 0.0, std, False, False, channel_axis)
        else:
            low, high = value_range or (-1.0, 1.0)
            self.units = Units((low + high) / 2, (high - low) / 2, True, ends, channel_axis)

    def __repr__(self) -> str:
        return f"Arrays(path={str(self.path)!r})"

    @cached_property
    def _files(self) -> list[Path]:
        """The files, every one looked into: what cannot be used is refused here, before any work."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"Arrays finds no {self.path}: give a folder of arrays, or a file with a stack of them.")
        if path.is_file():
            files = [path]
        else:
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and f.name[0] != ".")
        if not files or files[0].suffix.lower() not in SUFFIXES:
            raise ValueError(f"Arrays finds no {'/'.join(sorted(s[1:] for s in SUFFIXES))} file in {self.path}.")
        dimensions = {}
        for file in files:
            dimensions[file] = len(self._look(file))
            if dimensions[file] != dimensions[files[0]]:
                raise ValueError(
                    f"{file} has {dimensions[file]} dimensions and {files[0].name} {dimensions[files[0]]}: arrays of a folder "
                    "may differ in size, not in the number of dimensions; put them into folders of their own."
                )
        return files

    def _look(self, file: Path) -> tuple[int, ...]:
        """The shape of a file's image, or the reason why it has none."""
        held = open_arrays(file)
        image = held[self._key(file, held)]
        for name in self.parameters or ():
            if name not in held:
                raise ValueError(f"{file} holds no array {name!r} for parameters{suggestion(name, held) or listed(held)}.")
        kind, shape = str(image.dtype).removeprefix("torch."), tuple(image.shape)
        whole = kind.startswith(("int", "uint", "bool"))
        if whole and self.value_range is None and self.std is None:
            raise ValueError(
                f"{file} holds numbers of type {kind}, and nothing says what they mean: set data.source.value_range, as "
                f"[0, {255 if kind == 'uint8' else 65535 if kind == 'uint16' else 1}], or mean and std."
            )
        if not whole and not kind.startswith(("float", "bfloat", "complex")):
            raise ValueError(f"{file} holds objects of type {kind}, and no numbers: nothing is unpickled, save it as numbers.")
        if not shape or 0 in shape:
            raise ValueError(f"{file} holds an empty array, of shape {shape}.")
        if self._stack and len(shape) < 2:
            raise ValueError(f"{file} holds an array of shape {shape}, and a stack has an axis of images before theirs.")
        if self.channel_axis is not None and not -len(shape) + self._stack <= self.channel_axis < len(shape) - self._stack:
            found = len(shape) - self._stack
            raise ValueError(f"{file} holds images of {found} dimensions, and channel_axis is {self.channel_axis}: give one.")
        return shape

    def _key(self, file: Path, held: Mapping[str, Any]) -> str:
        """Which of a file's arrays is the image."""
        if self.key is not None and ONLY not in held:
            if self.key not in held:
                raise ValueError(f"{file} holds no array {self.key!r}{suggestion(self.key, held) or listed(held)}.")
            return self.key
        others = [name for name in held if name not in (self.parameters or ())]
        if len(others) != 1:
            found = f"{file} holds {len(others)} arrays that may be the image{listed(held)}"
            raise ValueError(f"{found}: set data.source.key to the image's.")
        return others[0]

    @property
    def _stack(self) -> bool:
        return Path(self.path).expanduser().is_file()

    @cached_property
    def _count(self) -> int:
        return self._look(self._files[0])[0] if self._stack else len(self._files)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for index in range(len(self)):
            file = self._files[0 if self._stack else index]
            place = f"{file}[{index}]" if self._stack else str(file)
            yield Entry(index, place, partial(self._load, index, place), partial(self._content, index, place))

    def _read(self, index: int) -> tuple[str, Tensor, dict[str, Tensor]]:
        """Name, array and parameters of an image, as they are stored."""
        file = self._files[0 if self._stack else index]
        held = self._held(file)
        image = held[self._key(file, held)]
        further = {name: held[name] for name in self.parameters or ()}
        if not self._stack:
            return safe_name(file.stem), tensor_of(image), {name: tensor_of(array) for name, array in further.items()}
        count = len(self)
        parts = {n: tensor_of(a[index] if a.shape and a.shape[0] == count else a) for n, a in further.items()}
        return f"{safe_name(file.stem)}_{index}", tensor_of(image[index]), parts

    def _held(self, file: Path) -> Mapping[str, Any]:
        """A file's arrays; a stack's are kept."""
        return self._kept if self._stack else open_arrays(file)

    @cached_property
    def _kept(self) -> Mapping[str, Any]:
        held = open_arrays(self._files[0])
        return {name: held[name] for name in (self._key(self._files[0], held), *(self.parameters or ()))}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_kept"}  # a copy for another process reads anew

    def _load(self, index: int, place: str) -> Values:
        name, image, parameters = self._read(index)
        for what, array in {"": image, **parameters}.items():
            if not bool(array.isfinite().all()):
                raise ValueError(f"{place} holds NaN or infinity{what and ' in ' + what}")
        values = self.units.channels_first(image)
        return Values(
            values.to(torch.complex64 if values.is_complex() else torch.float32).contiguous(), index, name, parameters
        )

    def _content(self, index: int, place: str) -> bytes:
        name, image, parameters = self._read(index)
        arrays = [(name, image), *parameters.items()]
        return b"\0".join(f"{n} {a.dtype} {tuple(a.shape)}".encode() + a.numpy().tobytes() for n, a in arrays)
