"""σ_y as a user gives it: one number, or a map from an array file with a standard deviation for each measured number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclight.errors import one_line

# Hidden from jsonargparse, which reads blocks for type checkers and would offer tensors in configurations.
if not TYPE_CHECKING:  # noqa: SIM108
    NoiseLike = float | str
else:
    NoiseLike = float | str | Tensor


def noise_std_of(given: NoiseLike) -> float | Tensor:
    """σ_y as `Sampler.sample` takes it, from a number, a tensor or the path of an array file.

    Args:
        given: a number >= 0, or numbers > 0 that broadcast to measurements.

    Returns:
        A number, or a floating tensor on the CPU where a file was given.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds no standard deviations, or the number is none.
    """
    if isinstance(given, str):
        given = _read(given)
    if isinstance(given, Tensor):
        if given.numel() and given.isfinite().all() and (given > 0).all():
            return given
        raise ValueError("noise_std holds numbers that are no standard deviations: all are finite and above 0.")
    if not 0 <= given < math.inf:  # NaN is neither
        raise ValueError(f"noise_std is a standard deviation, got {given}: give a number >= 0.")
    return given


def _read(path: str) -> Tensor:
    import numpy as np

    from cclight.data.array_files import read_array

    file, wanted = (
        Path(path).expanduser(),
        "an array file (.npy, .mat and others) of standard deviations above 0 in the measurement's shape",
    )
    if not file.is_file():
        raise FileNotFoundError(f"noise_std {path} is neither a number nor a file: give a number >= 0, or {wanted}.")
    try:
        values = read_array(file, "noise_std")
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{file} holds {values.dtype}")
    except ValueError as error:
        raise ValueError(f"noise_std {one_line(error)}: give {wanted}.") from error
    bad = int((~(np.isfinite(values) & (values > 0))).sum())
    if bad or not values.size:
        raise ValueError(f"noise_std {path}: {bad} of {values.size} numbers are no standard deviations: give {wanted}.")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
