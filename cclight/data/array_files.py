"""Files of arrays, each read by the library that does it, and without running anything that they hold.

| suffix             | read by                                        | holds                       |
|--------------------|------------------------------------------------|-----------------------------|
| .npy               | numpy, without unpickling                      | one array                   |
| .npz               | numpy, without unpickling                      | arrays by name              |
| .pt, .pth          | torch, weights_only                            | one tensor, or tensors by name |
| .safetensors       | safetensors                         | tensors by name             |
| .mat               | scipy; from MATLAB's version 7.3 on, h5py      | arrays by name              |
| .h5, .hdf5         | h5py (pip install 'cclight[hdf5]')             | arrays by path              |
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cclight.errors import one_line

ONLY = "array"  # the name of an array in a file that names none
_DAMAGED = (EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)


def tensor_of(array: Any) -> Tensor:
    """A copy of an array, or of a part of a file, as a tensor."""
    if isinstance(array, Tensor):
        return array.detach().to(torch.float32 if array.dtype == torch.bfloat16 else array.dtype).clone()
    read = np.asarray(array[()])
    return torch.from_numpy(np.array(read, dtype=read.dtype.newbyteorder("="), order="C"))


def listed(held: Mapping[str, Any]) -> str:
    """What a file holds, for a message."""
    return f" (it holds {', '.join(held)})" if held else " (it holds none)"


def open_arrays(file: Path) -> Mapping[str, Any]:
    """A file's arrays by name, as far as possible without reading them.

    Raises:
        ValueError: naming a file that is none, and the reason.
        ImportError: where h5py is not installed.
    """
    try:
        if file.stat().st_size == 0:
            raise ValueError("it is empty")
        return _READERS[file.suffix.lower()](file)
    except ImportError:
        raise
    except (OSError, LookupError, RuntimeError, TypeError, *_DAMAGED) as error:
        raise ValueError(f"{file} cannot be read ({one_line(error)})") from error
    except ValueError as error:
        objects = "Object arrays" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects, which are never unpickled: save numbers" if objects else one_line(error)
        raise ValueError(f"{file} cannot be read ({reason})") from error


def read_array(file: Path, name: str) -> np.ndarray:
    """The one array of a file, or of several that of a name.

    Raises:
        ValueError: naming a file that is none, or holds neither, and the reason.
        ImportError: where h5py is not installed.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file} is no array file: arrays are read from {', '.join(sorted(SUFFIXES))} files")
    held = open_arrays(file)
    if len(held) != 1 and name not in held:
        raise ValueError(f"{file} holds {len(held)} arrays{listed(held)}: give a file of one, or call it {name}")
    array = held[name] if name in held else next(iter(held.values()))
    kind = str(array.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat", "complex", "int", "uint", "bool")):
        raise ValueError(f"{file} holds objects of type {kind}, and no numbers: nothing is unpickled, save it as numbers")
    return tensor_of(array).numpy()


def _npy(file: Path) -> Mapping[str, Any]:
    return {ONLY: np.load(file, mmap_mode="r", allow_pickle=False)}


class _Member:
    """An array inside an .npz file: its header is read at once, its numbers when they are wanted."""

    def __init__(self, file: Path, name: str) -> None:
        self.file, self.name = file, name
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, _, self.dtype = read(member)

    @cached_property
    def _array(self) -> np.ndarray:
        with np.load(self.file, allow_pickle=False) as archive:
            return archive[self.name]

    def __getitem__(self, place: Any) -> Any:
        return self._array[place]


def _npz(file: Path) -> Mapping[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: _Member(file, name) for name in archive.files}


def _torch(file: Path) -> Mapping[str, Any]:
    held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if isinstance(held, Tensor):
        return {ONLY: held}
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, and no tensors")
    return {str(name): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


def _safetensors(file: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(one_line(error)) from error


def _mat(file: Path) -> Mapping[str, Any]:
    import scipy.io

    try:
        held = scipy.io.whosmat(file)
    except NotImplementedError:  # version 7.3 is HDF5
        return {name: _Transposed(array) for name, array in _hdf5(file).items()}
    return {name: _Variable(file, name, tuple(shape), np.dtype(_MATLAB[kind])) for name, shape, kind in held if kind in _MATLAB}


_MATLAB = {"double": "f8", "single": "f4", "logical": "u1"}
_MATLAB |= {f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


@dataclass(frozen=True)
class _Variable:
    """An array inside a MATLAB file: its shape and type are read at once (complex numbers count as real), the numbers later."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @cached_property
    def _array(self) -> np.ndarray:
        import scipy.io

        return scipy.io.loadmat(self.file, variable_names=[self.name])[self.name]

    def __getitem__(self, place: Any) -> Any:
        return self._array[place]


class _Transposed:
    """MATLAB counts the first axis fastest, HDF5 the last."""

    def __init__(self, array: _Dataset) -> None:
        self._array, self.shape, self.dtype = array, array.shape[::-1], array.dtype

    def __getitem__(self, place: Any) -> Any:
        return self._array[()].T[place]


def _hdf5(file: Path) -> Mapping[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Reading {file} needs the package h5py: pip install 'cclight[hdf5]'.") from error

    held: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        numbers = isinstance(item, h5py.Dataset) and (item.dtype.kind in "biufc" or item.dtype.names == ("real", "imag"))
        if numbers and not name.startswith("#"):
            held[name] = _Dataset(file, name, tuple(item.shape), item.dtype)

    with h5py.File(file, "r") as opened:
        opened.visititems(note)
    return held


@dataclass(frozen=True)
class _Dataset:
    """An array inside an HDF5 file, which is open while something is read, and no longer."""

    file: Path
    name: str
    shape: tuple[int, ...]
    stored: np.dtype

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.complex128) if self.stored.names else self.stored  # pairs, as MATLAB writes them

    def __getitem__(self, place: Any) -> Any:
        import h5py

        with h5py.File(self.file, "r") as opened:
            read = opened[self.name][place]
        return read["real"] + 1j * read["imag"] if self.stored.names else read


_READERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".safetensors": _safetensors,
    ".mat": _mat,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
SUFFIXES = frozenset(_READERS)
