r"""JPEG compression, differentiable, as the encoder and decoder in Pillow (libjpeg) do it.

    x -> grey levels -> Y'CbCr -> chroma halved -> DCT of 8×8 blocks C -> Q · round(C / Q) -> and all the way back.

Chroma is halved in both directions (4:2:0, Pillow's default), along rows (4:2:2) or not at all (4:4:4).

What makes it agree with libjpeg rather than only look like it: integers after every stage, the encoder's alternating bias
when it halves the chroma, the decoder's triangle filter (1/4, 3/4) when it doubles it, and edges continued by their last
pixel. Every rounding passes the gradient through as if it were the identity.

References:
    ITU-T Recommendation T.81 (1992), annex K: the tables, and annex A: the transform. JFIF 1.02 (1992): the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from cclight.operators.base import LinearOperator, Operator
from cclight.operators.jpeg_levels import JPEGLevels, Subsampling, check_picture
from cclight.operators.tables import Table

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# The DCT times 2¹³ √8, in the 13-bit integers of libjpeg's accurate transform (Loeffler, Ligtenberg and Moschytz 1989): the
# left halves of its even and odd rows. The right halves are their mirror images.
DCT_EVEN = ((8192, 8192, 8192, 8192), (10703, 4433, -4433, -10703), (8192, -8192, -8192, 8192), (4433, -10704, 10704, -4433))
DCT_ODD = ((11363, 9633, 6437, 2260), (9633, -2259, -11362, -6436), (6437, -11362, 2261, 9633), (2260, -6436, 9633, -11363))


class JPEG(Operator):
    """Compressed and decompressed: y is the decoded image, and so its own best estimate, h† y = y.

    Args:
        quality: Pillow's setting, 1 (worst) to 100. Not used where tables are given.
        subsampling: of the chroma; grey images have none.
        tables: a file's own quantization tables, 64 numbers from 1 to 65535 each, row by row: the luminance's, and the
            chrominance's where it has another.

    Raises:
        ValueError: for a quality, a subsampling or tables that are not such.
    """

    def __init__(
        self,
        quality: int = 10,
        subsampling: Subsampling = "4:2:0",
        tables: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if tables is None and not 1 <= quality <= 100:
            raise ValueError(f"JPEG needs a quality from 1 to 100, got {quality}.")
        if subsampling not in get_args(Subsampling):
            raise ValueError(f"JPEG knows the subsamplings {', '.join(get_args(Subsampling))}, got {subsampling!r}.")
        if tables is not None and not (0 < len(tables) <= 2 and all(_is_table(table) for table in tables)):
            raise ValueError("JPEG takes one or two quantization tables of 64 numbers from 1 to 65535 each, row by row.")
        self.quality = quality
        self.subsampling = subsampling
        self.tables = tables
        self._tables = Table(self._make_tables)

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        # Half precision cannot count to 2047, the largest coefficient.
        levels = _nearest((x.to(torch.promote_types(x.dtype, torch.float32)).clamp(-1, 1) + 1) * 127.5)
        decoded = self._grey(levels) if x.shape[1] == 1 else self._colour(levels)
        return (decoded / 127.5 - 1).to(x.dtype)

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def linear_problem(self, y: Tensor, noise_std: float) -> tuple[LinearOperator, Tensor, float]:
        self.check_images(tuple(y.shape[1:]))
        levels = _levels(tuple(map(tuple, self._quantization())), self.subsampling, noise_std)
        return levels, levels.measured(y), levels.noise_std(y.shape[1])

    def check_images(self, shape: tuple[int, ...]) -> None:
        check_picture(shape)

    def _grey(self, levels: Tensor) -> Tensor:
        _, luminance, _ = self._tables.like("", levels)
        return self._code(levels, luminance)

    def _colour(self, levels: Tensor) -> Tensor:
        _, luminance, chrominance = self._tables.like("", levels)
        height, width = levels.shape[2:]
        ycc = _to_ycc(levels)
        luma = self._code(ycc[:, :1], luminance)
        down, across = self.subsampling == "4:2:0", self.subsampling != "4:4:4"
        chroma = self._code(_halve(ycc[:, 1:], down, across), chrominance)
        chroma = chroma[..., : _half(height, down), : _half(width, across)]
        return _to_rgb(torch.cat([luma, _double(chroma, down, across)[..., :height, :width]], dim=1))

    def _code(self, plane: Tensor, table: Tensor) -> Tensor:
        """A plane of grey levels (B, C, H, W) through the quantized DCT and back."""
        dct, _, _ = self._tables.like("", plane)
        height, width = plane.shape[2:]
        blocks = _continue(plane, -width % 8, -height % 8) - 128
        table = 8 * table.repeat(blocks.shape[2] // 8, blocks.shape[3] // 8)
        coefficients = _step(_columns(dct, _step(_rows(dct, blocks) / 2**11)) / 2**15)
        quantized = _nearest(coefficients / table) * table
        blocks = _step(_rows(dct.T, _step(_columns(dct.T, quantized) / 2**14)) / 2**18)
        return (blocks + 128).clamp(0, 255)[..., :height, :width]

    def _make_tables(self, _: str) -> tuple[Tensor, Tensor, Tensor]:
        """The transform of eight pixels and the two quantization tables, each (8, 8)."""
        dct = torch.zeros(8, 8, dtype=torch.float64)
        for rows, half, mirror in ((slice(0, 8, 2), DCT_EVEN, 1), (slice(1, 8, 2), DCT_ODD, -1)):
            dct[rows, :4] = torch.tensor(half, dtype=torch.float64)
            dct[rows, 4:] = mirror * dct[rows, :4].flip(1)
        tables = self._quantization()
        luminance, chrominance = (torch.tensor(tables[k], dtype=torch.float64).view(8, 8) for k in (0, -1))
        return dct, luminance, chrominance

    def _quantization(self) -> Sequence[Sequence[int]]:
        return quantization_tables(self.quality) if self.tables is None else self.tables


@lru_cache(maxsize=8)
def _levels(tables: tuple[tuple[int, ...], ...], subsampling: Subsampling, added: float) -> JPEGLevels:
    return JPEGLevels(tables, subsampling, added)  # kept: every batch asks for the same one, with its decompositions


def quantization_tables(quality: int) -> tuple[list[int], list[int]]:
    """Pillow's tables of a quality from 1 to 100: luminance and chrominance, 64 numbers each, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luminance, chrominance = (
        [min(max((entry * scale + 50) // 100, 1), 255) for row in base for entry in row] for base in (LUMINANCE, CHROMINANCE)
    )
    return luminance, chrominance


def _is_table(table: Sequence[int]) -> bool:
    return len(table) == 64 and all(1 <= entry <= 65535 for entry in table)


def _step(x: Tensor, bias: float | Tensor = 0.5) -> Tensor:
    """⌊x + bias⌋, with the gradient of the identity."""
    return x + (torch.floor(x + bias) - x).detach()


def _nearest(x: Tensor) -> Tensor:
    """The nearest integer, halves away from zero, with the gradient of the identity."""
    return x + (torch.sign(x) * torch.floor(x.abs() + 0.5) - x).detach()


def _continue(plane: Tensor, right: int, bottom: int) -> Tensor:
    """More columns on the right and rows at the bottom, copies of the last."""
    return functional.pad(plane, (0, right, 0, bottom), mode="replicate")


def _rows(matrix: Tensor, plane: Tensor) -> Tensor:
    """The matrix (8, 8) times each row of each block of 8×8 pixels, (B, C, H, W) -> (B, C, H, W)."""
    return (plane.unflatten(3, (-1, 8)) @ matrix.T).flatten(3)


def _columns(matrix: Tensor, plane: Tensor) -> Tensor:
    """The matrix (8, 8) times each column of each block of 8×8 pixels, (B, C, H, W) -> (B, C, H, W)."""
    return (matrix @ plane.unflatten(2, (-1, 8))).flatten(2, 3)


# The colour transforms in libjpeg's fixed point, in units of 2⁻¹⁶: every sum below is an integer under 2²⁴, exact in float32.
def _to_ycc(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.unbind(1)
    luma = _step((19595 * red + 38470 * green + 7471 * blue) / 65536)
    # Halves go down here: libjpeg adds a unit less than a half.
    below_half = 0.5 - 1 / 65536
    blueness = _step((-11058 * red - 21710 * green + 32768 * blue) / 65536, below_half) + 128
    redness = _step((32768 * red - 27439 * green - 5329 * blue) / 65536, below_half) + 128
    return torch.stack([luma, blueness, redness], dim=1)


def _to_rgb(ycc: Tensor) -> Tensor:
    luma, blueness, redness = ycc[:, 0], ycc[:, 1] - 128, ycc[:, 2] - 128
    red = luma + _step(91881 * redness / 65536)
    green = luma + _step((-22554 * blueness - 46802 * redness) / 65536)
    blue = luma + _step(116130 * blueness / 65536)
    return torch.stack([red, green, blue], dim=1).clamp(0, 255)


def _half(side: int, halved: bool) -> int:
    return (side + 1) // 2 if halved else side


def _halve(chroma: Tensor, down: bool, across: bool) -> Tensor:
    """The mean of the pixels that become one; halves go down in even columns and up in odd ones."""
    if not across:
        return chroma
    height, width = chroma.shape[2:]
    # libjpeg continues columns to whole blocks before the halving, rows after it.
    mean = functional.avg_pool2d(_continue(chroma, -width % 16, height % 2 if down else 0), (1 + down, 2))
    bias = torch.tensor([0.25 if down else 0.0, 0.5], dtype=mean.dtype, device=mean.device)
    return _step(mean, bias.repeat(mean.shape[3] // 2))


def _double(chroma: Tensor, down: bool, across: bool) -> Tensor:
    """Twice as large: each new pixel is 3/4 of the nearest old one and 1/4 of the next, in the directions that were halved."""
    if not across:
        return chroma
    if chroma.shape[3] <= 2:  # libjpeg finds these too narrow for its filter
        return chroma.repeat_interleave(1 + down, dim=2).repeat_interleave(2, dim=3)
    padded = functional.pad(chroma, (1, 1, down, down), mode="replicate")
    if down:
        above, below = 3 * padded[:, :, 1:-1] + padded[:, :, :-2], 3 * padded[:, :, 1:-1] + padded[:, :, 2:]
        padded = torch.stack([above, below], dim=3).flatten(2, 3)
    # Halves: up and down in turn; libjpeg's two routines differ in which comes first.
    unit = 16 if down else 4
    first, second = (0.5, 0.5 - 1 / 16) if down else (0.25, 0.5)
    left = _step((3 * padded[..., 1:-1] + padded[..., :-2]) / unit, first)
    right = _step((3 * padded[..., 1:-1] + padded[..., 2:]) / unit, second)
    return torch.stack([left, right], dim=4).flatten(3)
