"""A mixture of Gaussians as a file keeps it: means and covariances, and where wanted weights and classes, by these names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

# Hidden from jsonargparse, which reads blocks for type checkers and would offer tensors in configurations.
if not TYPE_CHECKING:
    MeansLike = str
    NumbersLike = list[float]
else:
    MeansLike = str | Tensor
    NumbersLike = list[float] | Tensor

_WANTED = "give an array file (.npz, .pt, .mat, .h5 or .safetensors) that holds means, (K, C, ...), and covariances"


class Parts(NamedTuple):
    """A mixture's numbers: see `cclight.priors.mixture.GaussianMixture`."""

    means: Tensor
    covariances: Tensor
    weights: Tensor | None = None
    classes: Tensor | None = None


def parts_of(
    means: MeansLike, covariances: NumbersLike | None, weights: NumbersLike | None, classes: NumbersLike | None
) -> Parts:
    """A mixture's numbers as tensors; what is None is its file's, where means is one.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read or holds no mixture, or there are no covariances.
    """
    found = _read(means) if isinstance(means, str) else {"means": means}
    for name, given in (("covariances", covariances), ("weights", weights), ("classes", classes)):
        if given is not None:
            found[name] = given if isinstance(given, Tensor) else torch.tensor(given)
    if "covariances" not in found:
        raise ValueError(f"GaussianMixture has no covariances: {_WANTED}.")
    if "classes" in found:
        found["classes"] = found["classes"].long()
    return Parts(**found)


def _read(path: str) -> dict[str, Tensor]:
    from cclight.data.array_files import SUFFIXES, listed, open_arrays, tensor_of

    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no mixture {path}: {_WANTED}.")
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"The mixture {path} is no array file: {_WANTED}.")
    held = open_arrays(file)
    if "means" not in held:
        raise ValueError(f"{path} holds no means{listed(held)}: {_WANTED}.")
    found = {name: tensor_of(held[name]) for name in Parts._fields if name in held}
    for name, tensor in found.items():
        if tensor.is_complex() or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} of the mixture {path} hold what is no finite real number.")
    # MATLAB knows no array of one side.
    return {name: tensor.flatten() if name in ("weights", "classes") else tensor for name, tensor in found.items()}
