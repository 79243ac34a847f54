"""Blur kernels: how the camera moved while the shutter was open. Each draws itself as a small square that adds up to one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclight.operators.drawn import read_drawn, tensor_of

if TYPE_CHECKING:
    import numpy as np

SUBSTEPS = 16  # points a pixel of the path: enough for a smooth line
LARGEST = 1000  # pixels that a movement may reach: memory and time grow with the square


class Kernel(ABC):
    """A blur kernel. To add one, subclass and write `__call__`.

    Attributes:
        per_image: whether each image has a kernel of its own, which `of` gives.
    """

    per_image: bool = False

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> Kernel:
        """The kernel of the image of this name, which may bring it along; here the same for all."""
        return self

    @abstractmethod
    def __call__(self) -> Tensor:
        """The kernel, (k, k) with k odd, nonnegative and of sum 1, float64 on the CPU; its centre pixel stays in place."""


# Hidden from jsonargparse, which reads blocks for type checkers and would offer tensors in configurations.
if not TYPE_CHECKING:  # noqa: SIM108
    KernelLike = Kernel
else:
    KernelLike = Kernel | Tensor | np.ndarray


class LineKernel(Kernel):
    """A straight movement at constant speed.

    Args:
        length: of the movement in pixels, > 0 and <= 1000.
        angle: its direction in degrees, 0 to the right, 90 upward.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(self, length: float = 15.0, angle: float = 30.0) -> None:
        if not 0 < length <= LARGEST:
            raise ValueError(f"LineKernel needs a length > 0 and at most {LARGEST} pixels, got {length}.")
        if not math.isfinite(angle):
            raise ValueError(f"LineKernel needs an angle in degrees, got {angle}.")
        self.length = length
        self.angle = angle

    def __call__(self) -> Tensor:
        along = torch.linspace(-0.5, 0.5, math.ceil(self.length * SUBSTEPS) + 1, dtype=torch.float64) * self.length
        angle = math.radians(self.angle)
        return _splat(torch.stack([-math.sin(angle) * along, math.cos(angle) * along], dim=1))


class ShakeKernel(Kernel):
    """A shaking hand: a smooth random path.

    Args:
        extent: the distance from the kernel's centre to its border in pixels, 1 to 1000.
        seed: which path.

    Raises:
        ValueError: for an extent outside this range.
    """

    def __init__(self, extent: int = 10, seed: int = 0) -> None:
        if not 1 <= extent <= LARGEST:
            raise ValueError(f"ShakeKernel needs an extent of at least 1 pixel and at most {LARGEST}, got {extent}.")
        self.extent = extent
        self.seed = seed

    def __call__(self) -> Tensor:
        # A few random frequencies for each direction, the slow ones strong.
        generator = torch.Generator().manual_seed(self.seed)
        cosines, sines = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
        time = torch.linspace(0, math.pi, 8 * self.extent * SUBSTEPS, dtype=torch.float64)[:, None, None]
        frequency = torch.arange(1, 5, dtype=torch.float64)[:, None]
        path = ((cosines * torch.cos(frequency * time) + sines * torch.sin(frequency * time)) / frequency).sum(1)
        path = path - path.mean(0)
        return _splat(path * (self.extent / path.abs().max()))


class FixedKernel(Kernel):
    """A kernel given as a tensor or an array.

    Args:
        values: (k, k) with k odd, nonnegative, not all zero; scaled to a sum of 1.

    Raises:
        ValueError: where the values are not such.
    """

    def __init__(self, values: Tensor | np.ndarray) -> None:
        given = tensor_of(values, str(self))
        if given.dim() != 2 or given.shape[0] != given.shape[1] or given.shape[0] % 2 == 0:
            size, mend = "×".join(map(str, given.shape)), ""
            if given.dim() == 2:
                side = max(given.shape) // 2 * 2 + 1
                mend = f" (pad it with zeros to {side}×{side}, around the pixel that is to stay in place)"
            raise ValueError(f"{self} is {size}: give a square with an odd side, so that it has a centre pixel{mend}.")
        if not (given >= 0).all() or not given.sum() > 0:
            low = f"{float(given.min()):g}"
            raise ValueError(f"{self} has negative values or none but zeros (the least is {low}): give nonnegative ones.")
        self.values = given / given.sum()

    def __call__(self) -> Tensor:
        return self.values

    def __str__(self) -> str:
        return "The blur kernel"


class KernelFile(FixedKernel):
    """A kernel from a file: a picture, whose brightness is the kernel's values, or an array.

    Args:
        path: a square picture with an odd side, of 8, 16 or 32 bits or of floats, or an array file (.npy, .mat and others).
            Transparent pixels count as black.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file holds no such kernel.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        drawn = read_drawn(path, "kernel")
        super().__init__(drawn.values if drawn.alpha is None else drawn.values * drawn.alpha)

    def __str__(self) -> str:
        return f"The blur kernel {self.path}"


def kernel_from(kernel: KernelLike | None) -> Kernel:
    """A `Kernel`, given as such or as `FixedKernel` takes it; None is `LineKernel()`."""
    return LineKernel() if kernel is None else kernel if isinstance(kernel, Kernel) else FixedKernel(kernel)


def _splat(points: Tensor) -> Tensor:
    """Points (n, 2), rows and columns from the centre, each spread over its four nearest pixels, in a square that holds all."""
    radius = max(1, math.ceil(float(points.abs().max()) - 1e-9))
    size = 2 * radius + 1
    kernel = torch.zeros(size * size, dtype=torch.float64)
    base = torch.floor(points).clamp(-radius, radius - 1)
    part = points - base
    for down in (0, 1):
        for right in (0, 1):
            weight = (part[:, 0] if down else 1 - part[:, 0]) * (part[:, 1] if right else 1 - part[:, 1])
            place = (base + torch.tensor([down, right]) + radius).long()
            kernel.index_add_(0, place[:, 0] * size + place[:, 1], weight)
    return (kernel / kernel.sum()).view(size, size)
