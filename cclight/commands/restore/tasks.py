"""What each task makes of a picture: its measurement, and the operator of any part of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cclight.data.decoding import Picture
from cclight.data.noise_level import compression
from cclight.data.pixels import LARGEST, upright
from cclight.operators.base import LinearOperator, Operator
from cclight.operators.circular import CircularBlur
from cclight.operators.compose import Compose
from cclight.operators.jpeg import JPEG, quantization_tables
from cclight.operators.kernels import KernelFile
from cclight.operators.mask_folder import mask_for
from cclight.operators.masks import FixedMask, Inpainting
from cclight.operators.pixelwise import Colorization
from cclight.operators.separable import BicubicDownsampling, GaussianBlur

# Of ConjugateMoments, for small pictures in JPEG files: LPIPS 0.30 -> 0.27 at quality 40, at 0.4 dB more.
COMPRESSED = {"t_start": 0.6, "renewal": 0.0}

# EXIF's orientations, each with the one that undoes it.
_UNDOES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@dataclass(frozen=True)
class Measured:
    """A picture as a measurement.

    Attributes:
        y: (1, C, H, W) in [-1, 1].
        operator: what made the part of it in these rows and columns.
        scale: a side of the restored picture has so many pixels for each of y's.
        grid: parts may begin at multiples of so many of y's pixels.
        compressed: what JPEG added, σ in units of [-1, 1].
        blurred: whether σ_y is to be told from everything that the picture shows, not only from how it was stored.
        exact: pixels are as the operator left them: no noise, whatever they were stored in.
        whole: what the operator does depends on the place, so that the picture is one part.
        coloured: the operator took the colours.
        missing: (H, W) bool, the pixels to fill in; None where all are to be restored.
        orientation: EXIF's, which is still to be applied to the result.
        notes: what people should know, each a clause.
        settings: of the packaged sampler, which suit it better.
        cost: how many times the network's own time a restoration takes, about.
    """

    y: Tensor
    operator: Callable[[slice, slice], Operator]
    scale: int = 1
    grid: int = 1
    compressed: float = 0.0
    blurred: bool = False
    exact: bool = False
    whole: bool = False
    coloured: bool = False
    missing: np.ndarray | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.2


def measure(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    """The measurement that a picture is under the task.

    Args:
        picture: the picture.
        path: its file, for a mask of the same name.
        options: the command line.

    Raises:
        ValueError: where the picture is none of this task.
    """
    return _TASKS[options.task](picture, path, options)


def measure_by(operator: Operator, picture: Picture, channels: int) -> Measured:
    """The measurement that a picture is of an operator that a configuration names.

    Args:
        operator: the operator.
        picture: the picture.
        channels: of the images that are looked for.

    Raises:
        ValueError: where the operator makes no pictures.
    """
    name, side = type(operator).__name__, 96
    y, coloured, scale = to_y(picture.pixels), False, 1
    if not isinstance(operator, Inpainting):  # whose mask may have one size
        made = operator(torch.zeros(1, channels, side, side))
        if made.ndim != 4 or made.is_complex() or made.shape[1] not in (1, 3) or side % made.shape[3]:
            raise ValueError(f"{name} makes no pictures, of which this could be one: choose an operator that does")
        scale, coloured = side // made.shape[3], channels == 3 and made.shape[1] == 1
        if coloured:
            y = Colorization()(y)
    _check_size(picture, scale, "choose another operator")
    linear = isinstance(operator, LinearOperator)
    return Measured(
        y, lambda *_: operator, scale=scale, compressed=_compressed(picture), blurred=linear and operator.reach > 0,
        exact=not linear or isinstance(operator, Inpainting), whole=True, coloured=coloured,
    )  # fmt: skip


def _check_size(picture: Picture, factor: int, remedy: str) -> None:
    height, width = (factor * side for side in picture.pixels.shape[:2])
    if height * width > LARGEST:
        raise ValueError(f"it would become {width}×{height}, more than {LARGEST:,} pixels: cut it, or {remedy}")


def to_y(pixels: np.ndarray) -> Tensor:
    """Pixels (H, W, 1 or 3), uint8 or uint16, as a colour image (1, 3, H, W) in [-1, 1]."""
    image = torch.from_numpy(pixels / np.float32(np.iinfo(pixels.dtype).max / 2) - 1)
    return image.permute(2, 0, 1).expand(3, -1, -1)[None].float().contiguous()


def _sr(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    factor = 4 if options.factor is None else options.factor
    _check_size(picture, factor, "give a smaller --factor")
    operator: Operator = BicubicDownsampling(factor)
    if picture.jpeg is None:
        return Measured(to_y(picture.pixels), lambda *_: operator, scale=factor)
    stored = _stored(picture)
    operator = Compose([operator, stored.operator(slice(None), slice(None))])
    notes = (*stored.notes, "its JPEG compression undone too")
    return replace(stored, operator=lambda *_: operator, scale=factor, notes=notes, settings=COMPRESSED, cost=3.0)


def _deblur(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    sigma = 3.0 if options.sigma is None else options.sigma
    operator: Operator
    if options.kernel is not None:
        operator = CircularBlur(KernelFile(str(options.kernel)))
    else:
        operator = GaussianBlur(sigma, 2 * int(np.ceil(4 * sigma)) + 1)
    if operator.reach > min(picture.pixels.shape[:2]):
        size = f"{picture.pixels.shape[1]}×{picture.pixels.shape[0]}"
        remedy = f"give a smaller --{'sigma' if options.kernel is None else 'kernel'}"
        raise ValueError(f"the blur reaches {operator.reach} pixels far, beyond a picture of {size}: {remedy}")
    return Measured(to_y(picture.pixels), lambda *_: operator, compressed=_compressed(picture), blurred=True)


def _colorize(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    operator = Colorization()
    return Measured(operator(to_y(picture.pixels)), lambda *_: operator, compressed=_compressed(picture), coloured=True)


def _jpeg(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    if picture.jpeg is None and options.quality is None:
        raise ValueError("it is no JPEG file, whose compression could be read: give --quality (1 to 100)")
    return _stored(picture, None if options.quality is None else [list(t) for t in quantization_tables(options.quality)])


def _stored(picture: Picture, tables: list[list[int]] | None = None) -> Measured:
    """A picture as its file stores it: JPEG's blocks begin at a corner there.

    Args:
        picture: of a JPEG file, where no tables are given.
        tables: of quantization, in the place of the file's.
    """
    stored = picture.jpeg
    orientation = 1 if stored is None else stored.orientation
    pixels = np.ascontiguousarray(upright(picture.pixels, _UNDOES.get(orientation, 1)))
    notes: tuple[str, ...] = ()
    subsampling = "4:2:0" if stored is None else stored.subsampling
    if subsampling == "grey" or pixels.shape[2] == 1:
        subsampling = "4:4:4"
    if subsampling not in ("4:4:4", "4:2:2", "4:2:0"):
        notes, subsampling = (f"its chroma subsampling ({subsampling}) is taken for 4:2:0",), "4:2:0"
    if tables is None:
        assert stored is not None
        tables = _tables(stored.quantization)
    operator = JPEG(subsampling=subsampling, tables=tables)  # type: ignore[arg-type]
    lost = compression(_levels(pixels), tables, subsampling)
    return Measured(
        to_y(pixels), lambda *_: operator, grid=16, compressed=lost, exact=True, orientation=orientation, notes=notes
    )


def _inpaint(picture: Picture, path: Path, options: argparse.Namespace) -> Measured:
    mask = mask_for(path, options.mask, options.invert_mask)
    kept = mask.kept
    if tuple(kept.shape) != picture.pixels.shape[:2]:
        given, wanted = ("×".join(map(str, reversed(sides))) for sides in (kept.shape, picture.pixels.shape[:2]))
        raise ValueError(f"the mask {mask.path} is {given} and the picture {wanted}: draw the mask on the picture itself")
    missing = ~kept.numpy()
    share = 100 * missing.mean()
    notes: tuple[str, ...] = (f"{share:.2g} % of it missing",)
    if share > 50:
        other = "leave --invert-mask out" if options.invert_mask else "--invert-mask"
        notes = (f"{share:.0f} % of it missing; if the mask means the reverse, {other}",)

    def operator(rows: slice, columns: slice) -> Operator:
        return Inpainting(FixedMask(kept[rows, columns]), fill=True)

    return Measured(to_y(picture.pixels), operator, exact=True, missing=missing, notes=notes)


_TASKS = {"sr": _sr, "deblur": _deblur, "colorize": _colorize, "jpeg": _jpeg, "inpaint": _inpaint}


def _compressed(picture: Picture) -> float:
    if picture.jpeg is None:
        return 0.0
    pixels = upright(picture.pixels, _UNDOES.get(picture.jpeg.orientation, 1))
    return compression(_levels(pixels), _tables(picture.jpeg.quantization), picture.jpeg.subsampling)


def _tables(quantization: dict[int, list[int]]) -> list[list[int]]:
    """The luminance's table and the chrominance's, where there is one."""
    return [quantization[number] for number in sorted(quantization)[:2]]


def _levels(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32) * (255 / np.iinfo(pixels.dtype).max))
