r"""Inpainting: some pixels are missing.

    y = m x,      H = Hᵀ = H⁺ = P = diag(m),      m in {0, 1}, 1 where the pixel is kept.

A mask is an object of its own that knows how to draw itself at any image size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclight.operators.base import SpectralOperator
from cclight.operators.drawn import read_kept, tensor_of
from cclight.operators.fill import harmonic_fill
from cclight.operators.tables import Table

if TYPE_CHECKING:
    import numpy as np


class Mask(ABC):
    """Which pixels are kept. To add one, subclass and write `__call__`.

    Attributes:
        per_image: whether each image has a mask of its own, which `of` gives.
    """

    per_image: bool = False

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> Mask:
        """The mask of the image of this name in its source, which may bring it along; here the same for all."""
        return self

    @abstractmethod
    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        """The mask for images of shape (C, H, W), or (C, ...) of signals and volumes.

        Returns:
            True where a pixel is kept, (1, H, W), or (C, H, W) where the channels differ; as many sides as the images have.

        Raises:
            ValueError: where the mask cannot be drawn at this size.
        """


# Hidden from jsonargparse, which reads blocks for type checkers and would offer tensors in configurations.
if not TYPE_CHECKING:  # noqa: SIM108
    MaskLike = Mask
else:
    MaskLike = Mask | Tensor | np.ndarray


class Box(Mask):
    """A square of missing pixels; of signals a gap, of volumes a cube.

    Args:
        size: side of the square in pixels, >= 1.
        centre: (row, column) of its centre in pixels, a number for each of the images' sides; None is the image's centre.
    """

    def __init__(self, size: int = 128, centre: tuple[int, ...] | None = None) -> None:
        if size < 1:
            raise ValueError(f"Box needs a size >= 1 pixel, got {size}.")
        self.size = size
        self.centre = centre

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        sides = image_shape[1:]
        centre = self.centre or tuple(side // 2 for side in sides)
        if len(centre) != len(sides):
            raise ValueError(f"The centre of a Box is a number for each of {len(sides)} sides, got {list(centre)}.")
        first = [middle - self.size // 2 for middle in centre]
        inside = all(0 <= start <= side - self.size for start, side in zip(first, sides, strict=True))
        if not inside or set(sides) == {self.size}:  # of such an image nothing would be left to restore it from
            missing, image = ("×".join(map(str, lengths)) for lengths in ([self.size] * len(sides), sides))
            raise ValueError(
                f"A box of {missing} pixels centred on ({', '.join(map(str, centre))}) does not fit into images of {image}: "
                "choose a smaller size or another centre."
            )
        kept = torch.ones(1, *sides, dtype=torch.bool)
        box: tuple[int | slice, ...] = (0, *(slice(start, start + self.size) for start in first))
        kept[box] = False
        return kept


class RandomPixels(Mask):
    """Pixels missing at random, the same in all channels.

    Args:
        missing: the fraction of missing pixels, in (0, 1).
        seed: which mask.
    """

    def __init__(self, missing: float = 0.7, seed: int = 0) -> None:
        if not 0 < missing < 1:
            raise ValueError(f"RandomPixels needs a fraction of missing pixels between 0 and 1, got {missing}.")
        self.missing = missing
        self.seed = seed

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        sides = image_shape[1:]
        pixels = math.prod(sides)
        order = torch.randperm(pixels, generator=torch.Generator().manual_seed(self.seed))
        kept = torch.ones(pixels, dtype=torch.bool)
        kept[order[: round(self.missing * pixels)]] = False
        return kept.view(1, *sides)


class FreeForm(Mask):
    """Brush strokes around the image's centre, drawn in units of its sides: the same picture at any size.

    Args:
        missing: the fraction of missing pixels, in (0, 0.4]; met to about 0.02.
        seed: which strokes.
    """

    def __init__(self, missing: float = 0.2, seed: int = 0) -> None:
        if not 0 < missing <= 0.4:
            raise ValueError(f"FreeForm needs a fraction of missing pixels in (0, 0.4], got {missing}.")
        self.missing = missing
        self.seed = seed

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        if len(image_shape) != 3:
            raise ValueError(
                f"FreeForm draws on pictures, (C, H, W), and these images have the shape {tuple(image_shape)}: take the mask "
                "Box or RandomPixels, or one of your own (FixedMask, OwnMask)."
            )
        height, width = image_shape[1:]
        # The strokes are decided on a coarse grid of their own, so that they do not depend on the image's size.
        coarse = torch.zeros(64, 64, dtype=torch.bool)
        fine = torch.zeros(height, width, dtype=torch.bool)
        generator = torch.Generator().manual_seed(self.seed)
        while coarse.float().mean() < self.missing:
            row, column, angle, bend, length, radius = torch.rand(6, generator=generator).tolist()
            start = torch.tensor([0.3 + 0.4 * row, 0.3 + 0.4 * column])
            for heading in (2 * math.pi * angle, 2 * math.pi * angle + (bend - 0.5) * math.pi):
                direction = torch.tensor([math.sin(heading), math.cos(heading)])
                end = (start + (0.05 + 0.1 * length) * direction).clamp(0.2, 0.8)
                for canvas in (coarse, fine):
                    canvas |= _distance(start, end, canvas.shape) < 0.02 + 0.03 * radius
                start = end
        return ~fine[None]


class FixedMask(Mask):
    """A mask given as a tensor or an array.

    Args:
        kept: nonzero where a pixel is kept, (H, W), (1, H, W) or (C, H, W), or with the sides of signals or volumes instead;
            no negative values.
    """

    def __init__(self, kept: Tensor | np.ndarray) -> None:
        values = tensor_of(kept, "A mask")
        if values.dim() < 1 or not (values >= 0).all():
            shape = "×".join(map(str, values.shape)) or "one number"
            raise ValueError(
                f"A mask is 0 where a pixel is missing and 1 where it is kept, (H, W) or (C, H, W): got {shape} from "
                f"{values.min():g} to {values.max():g}."
            )
        self.kept = values.bool()

    @property
    def missing(self) -> float:
        """The share of the pixels that are missing, in [0, 1]."""
        return 1 - float(self.kept.double().mean())

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        channels, *sides = image_shape
        kept = self.kept if self.kept.dim() > len(sides) else self.kept[None]
        if list(kept.shape[1:]) != sides or kept.shape[0] not in (1, channels):
            given, images = ("×".join(map(str, shape)) for shape in (kept.shape, image_shape))
            layout = "channels×height×width" if len(sides) == 2 else "channels×sides"
            raise ValueError(
                f"{self} is {given} ({layout}), the images are {images}: give a mask of the "
                f"images' size (in a run's configuration, data.image_size is theirs)."
            )
        return kept

    def __str__(self) -> str:
        return "The mask"


class MaskFile(FixedMask):
    """A mask from a file, as people draw one: white is kept, black is missing.

    Pictures of any depth, with transparency or without, and arrays: `cclight.operators.drawn.read_kept` says what counts.

    Args:
        path: a picture such as a PNG, or an array file (.npy, .mat and others).
        invert: black is kept, white is missing.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no mask, or keeps all or nothing.
    """

    def __init__(self, path: str, invert: bool = False) -> None:
        super().__init__(read_kept(path, invert))
        self.path = path
        self.invert = invert

    @property
    def told(self) -> str:
        """What people should see before they trust it, a clause."""
        doubt = f"; if it means the reverse, invert: {'false' if self.invert else 'true'}" if self.missing > 0.5 else ""
        return f"the mask {self.path} leaves {100 * self.missing:.2g} % to fill in{doubt}"

    def __str__(self) -> str:
        return f"The mask {self.path}"


class Inpainting(SpectralOperator):
    """Missing pixels, set to zero; y has the image's shape.

    Args:
        mask: which pixels are kept, a `Mask` or what `FixedMask` takes; None is `FreeForm()`, the paper's kind of task.
        fill: let samplers start from a smooth continuation of the kept pixels (`harmonic_fill`) where they would start from
            H⁺y, in which the hole is grey. H and H⁺ stay what they are. Few steps from a late start keep much of the start.
    """

    def __init__(self, mask: MaskLike | None = None, fill: bool = False) -> None:
        super().__init__()
        self.mask = FreeForm() if mask is None else mask if isinstance(mask, Mask) else FixedMask(mask)
        self.fill = fill
        self.per_image = self.mask.per_image
        self._kept = Table(self._draw)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> Inpainting:
        return Inpainting(self.mask.of(name, parameters), self.fill) if self.per_image else self

    def forward(self, x: Tensor) -> Tensor:
        (kept,) = self._kept.like(tuple(x.shape[1:]), x)
        return x * kept

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self(y)

    def project(self, x: Tensor) -> Tensor:
        return self(x)

    def first_guess(self, pinv_y: Tensor) -> Tensor:
        if not self.fill:
            return pinv_y
        (kept,) = self._kept.like(tuple(pinv_y.shape[1:]), pinv_y)
        return harmonic_fill(pinv_y, kept)

    def spectral(self, x: Tensor) -> Tensor:
        return x

    def from_spectral(self, z: Tensor) -> Tensor:
        return z

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        return self._kept.exact(tuple(image_shape))[0]

    def check_images(self, shape: tuple[int, ...]) -> None:
        if not self.per_image:
            self._kept.exact(tuple(shape))

    def _draw(self, image_shape: tuple[int, ...]) -> tuple[Tensor]:
        return (self.mask(image_shape).double(),)


def _distance(start: Tensor, end: Tensor, grid: torch.Size) -> Tensor:
    """Distance of each pixel's centre from the line between two points, all in units of the grid's sides."""
    rows = (torch.arange(grid[0]) + 0.5) / grid[0]
    columns = (torch.arange(grid[1]) + 0.5) / grid[1]
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    along = end - start
    place = ((pixels - start) @ along / along.dot(along).clamp_min(1e-12)).clamp(0, 1)
    return (pixels - start - place[..., None] * along).norm(dim=-1)
