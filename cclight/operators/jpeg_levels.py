r"""JPEG as the linear map that it is up to its rounding, with the rounding for noise.

A file holds k = round(C / q), the DCT coefficients C of the Y'CbCr planes in steps q. So q k = C + e with |e| <= q/2, and C is
linear in the image: a linear inverse problem whose noise differs from coefficient to coefficient. Weighted by their standard
deviation τ all have the same, the smallest one,

    y = (σ/τ) q k = H x + σ n,       τ = ROUNDING · q,       σ = min τ.

e is no uniform number, of standard deviation q/√12 = 0.29 q: most coefficients of photographs lie in the step around zero, near
its middle. On photographs the root mean square of e is 0.13 q at quality 10 and 0.21 q at quality 90.

Blocks that share their chroma (16×16 pixels at 4:2:0) are independent of each other and alike, so that one small singular value
decomposition B = U S Vᵀ, of 384 coefficients of 768 numbers, serves the whole image. At the right and the lower border, where
the image ends inside a block, the encoder goes on with its last pixels, and such blocks have decompositions of their own. The
measurement here is Uᵀ y, a number for each of the image's, 0 where S has none.

References:
    ITU-T Recommendation T.81 (1992), annexes A and K. JFIF 1.02 (1992): the colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cclight.operators.base import SpectralOperator
from cclight.operators.tables import Table

ROUNDING = 0.18  # the standard deviation of rounding errors, in steps
CERTAIN = 6.0  # of further noise: so many standard deviations in a step, and the step can be told in spite of it
LEVELS = 127.5  # grey levels in a unit of the images
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
HALVED = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}  # how many rows and columns of pixels share their chroma


class _Region(NamedTuple):
    """A part of the image whose blocks are alike: its rows and columns, and the sides of a block."""

    rows: slice
    columns: slice
    height: int
    width: int


class JPEGLevels(SpectralOperator):
    """The DCT coefficients that a JPEG file holds, before their rounding, weighted so that all are as noisy.

    `JPEG.linear_problem` makes it, with the measurement that a decoded picture is. Images are (B, 1 or 3, H, W).

    Args:
        tables: of quantization, 64 numbers each, row by row: the luminance's, and the chrominance's where it has another.
        subsampling: of the chroma.
        added: σ of noise that was added to the decoded picture, in units of [-1, 1] images.
    """

    def __init__(self, tables: Sequence[Sequence[int]], subsampling: Subsampling, added: float = 0.0) -> None:
        super().__init__()
        self.tables = tables
        self.subsampling = subsampling
        self.added = added
        self._coefficients = Table(self._tabulate)
        self._blocks = Table(self._decompose)
        self._values = Table(self._assemble)

    def forward(self, x: Tensor) -> Tensor:
        return self._values.like(tuple(x.shape[1:]), x)[0] * self.spectral(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.from_spectral(self._values.like(tuple(y.shape[1:]), y)[0] * y)

    def spectral(self, x: Tensor) -> Tensor:
        z = torch.empty_like(x)
        for region in self._regions(tuple(x.shape[1:])):
            basis, *_ = self._blocks.like((x.shape[1], region.height, region.width), x)
            _paste(z, region, _cut(x[..., region.rows, region.columns], region.height, region.width) @ basis)
        return z

    def from_spectral(self, z: Tensor) -> Tensor:
        x = torch.empty_like(z)
        for region in self._regions(tuple(z.shape[1:])):
            basis, *_ = self._blocks.like((z.shape[1], region.height, region.width), z)
            _paste(x, region, _cut(z[..., region.rows, region.columns], region.height, region.width) @ basis.T)
        return x

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        return self._values.exact(image_shape)[0]

    def check_images(self, shape: tuple[int, ...]) -> None:
        check_picture(shape)

    def first_guess(self, pinv_y: Tensor) -> Tensor:
        if self._block(pinv_y.shape[1]) == (8, 8):
            return pinv_y
        # As decoders do: chroma goes over from pixel to pixel.
        luma, chroma = self._planes(pinv_y)
        mixing = torch.tensor(YCC, dtype=torch.float64).inverse().to(pinv_y)
        return _mixed(mixing, torch.cat([luma, self._doubled(chroma, luma)], dim=1))

    def measured(self, decoded: Tensor) -> Tensor:
        """The measurement that a decoded picture is, (B, C, H, W) -> (B, C, H, W)."""
        y = torch.empty_like(decoded)
        channels, (height, width) = decoded.shape[1], self._block(decoded.shape[1])
        told = self._told(decoded)
        for region in self._regions(tuple(decoded.shape[1:])):
            _, left, _ = self._blocks.like((channels, region.height, region.width), decoded)
            rows, columns = (
                slice(part.start // side, -(-part.stop // side))
                for part, side in ((region.rows, height), (region.columns, width))
            )
            _paste(y, region, told[:, rows, columns] @ left)
        return y

    def noise_std(self, channels: int) -> float:
        """σ, the standard deviation of the measurement's noise, in units of [-1, 1] images."""
        return float(self._coefficients.exact(channels)[1].min())

    def _told(self, decoded: Tensor) -> Tensor:
        """(σ/τ) q k of every block, (B, down, across, coefficients); where noise hides k, what is left of the coefficient."""
        planes = self._planes(decoded)
        if len(planes) > 1:
            # The decoder's filter and the halving blur the chroma, by at most 4: undone by Richardson's iteration.
            luma, shown = planes
            for _ in range(12):
                planes[1] = planes[1] + 1.6 * (shown - self._halved(self._doubled(planes[1], luma)))
        coefficients = self._transformed(planes)
        q, tau, offset, certain = self._coefficients.like(decoded.shape[1], decoded)
        steps = torch.round((coefficients - offset) / q) * q + offset
        return torch.where(certain > 0, steps, coefficients) * (tau.min() / tau)

    def _tabulate(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each coefficient of a block: q and τ in units of the images, the offset, and whether k can be told.

        Grey levels are counted from 128 and images from 127.5, which the mean of a luminance block shows.
        """
        height, width = self._block(channels)
        offset = torch.zeros(height, width, dtype=torch.float64)
        offset[::8, ::8] = 8 * 0.5 / LEVELS
        luminance, chrominance = (torch.tensor(self.tables[k], dtype=torch.float64) for k in (0, -1))
        q = [luminance.view(8, 8).repeat(height // 8, width // 8).flatten()]
        shown = [torch.ones(height * width, dtype=torch.float64)]
        if channels == 3:
            size = torch.tensor(YCC, dtype=torch.float64).norm(dim=1)
            q += [chrominance, chrominance]
            # The mean of a few pixels lowers their noise, and undoing the decoder's filter lifts it again.
            shown = [size[0] * shown[0], size[1].repeat(64), size[2].repeat(64)]
        steps = torch.cat(q) / LEVELS
        noise = torch.cat(shown) * math.hypot(self.added, 1 / LEVELS / math.sqrt(12))  # and that of whole grey levels
        certain = noise * CERTAIN < steps
        tau = torch.where(certain, ROUNDING * steps, torch.hypot(ROUNDING * steps, noise))
        offset = functional.pad(offset.flatten(), (0, len(steps) - offset.numel()))
        return steps, tau, offset, certain.double()

    def _decompose(self, block: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """V, U and the singular values of a block (C, h, w), U and these with zeros for what is not measured."""
        numbers = math.prod(block)
        basis = torch.eye(numbers, dtype=torch.float64).view(-1, *block)
        _, tau, *_ = self._coefficients.exact(block[0])
        right, values, left = torch.linalg.svd(self._transformed(self._planes(basis)).flatten(1) * (tau.min() / tau))
        left = functional.pad(left.T[:, :numbers], (0, max(numbers - len(left), 0)))
        values = functional.pad(values, (0, numbers - len(values)))
        told = values > 1e-9 * values.max()
        return right, left * told, values * told

    def _assemble(self, shape: tuple[int, ...]) -> tuple[Tensor]:
        values = torch.empty(1, *shape, dtype=torch.float64)
        for region in self._regions(shape):
            *_, own = self._blocks.exact((shape[0], region.height, region.width))
            _paste(values, region, own)
        return (values[0],)

    def _block(self, channels: int) -> tuple[int, int]:
        """The sides of a block."""
        down, across = HALVED[self.subsampling] if channels == 3 else (1, 1)
        return 8 * down, 8 * across

    def _regions(self, shape: tuple[int, ...]) -> Iterator[_Region]:
        """The whole blocks, and those at the right and the lower border that are not."""
        height, width = self._block(shape[0])
        for rows, tall in _ranges(shape[1], height):
            for columns, wide in _ranges(shape[2], width):
                yield _Region(rows, columns, tall, wide)

    def _planes(self, x: Tensor) -> list[Tensor]:
        """Luma (B, 1, H, W), and for colour images the chroma, halved: (B, 2, ...)."""
        if x.shape[1] == 1:
            return [x]
        ycc = _mixed(torch.tensor(YCC, dtype=torch.float64).to(x), x)
        return [ycc[:, :1], self._halved(ycc[:, 1:])]

    def _halved(self, chroma: Tensor) -> Tensor:
        factors = HALVED[self.subsampling]
        return functional.avg_pool2d(_continued(chroma, *factors), factors)

    def _doubled(self, chroma: Tensor, luma: Tensor) -> Tensor:
        """Chroma of the luma's size, by the decoder's triangle filter."""
        factors = tuple(map(float, HALVED[self.subsampling]))
        doubled = functional.interpolate(chroma, scale_factor=factors, mode="bilinear")
        return doubled[..., : luma.shape[2], : luma.shape[3]]

    def _transformed(self, planes: list[Tensor]) -> Tensor:
        """The coefficients of each block, (B, down, across, coefficients)."""
        height, width = self._block(3 if len(planes) > 1 else 1)
        sides = [(height, width), (8, 8)]
        return torch.cat([_cut(_dct(_continued(p, *side)), *side) for p, side in zip(planes, sides, strict=False)], dim=-1)


def check_picture(shape: tuple[int, ...]) -> None:
    """Refuse what JPEG does not know.

    Raises:
        ValueError: for shapes other than (1, H, W) and (3, H, W).
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        given = shape[0] if len(shape) == 3 else f"the shape {tuple(shape)}"
        raise ValueError(f"JPEG takes grey or colour images, 1 or 3 channels, got {given}.")


def _ranges(side: int, block: int) -> Iterator[tuple[slice, int]]:
    """The range of whole blocks on a side, and that of the one that the image's border cuts."""
    whole = side - side % block
    if whole:
        yield slice(0, whole), block
    if whole < side:
        yield slice(whole, side), side - whole


def _continued(plane: Tensor, height: int, width: int) -> Tensor:
    """To multiples of two sides, by copies of the last column and the last row."""
    return functional.pad(plane, (0, -plane.shape[3] % width, 0, -plane.shape[2] % height), mode="replicate")


def dct_matrix() -> Tensor:
    """The orthonormal DCT of eight numbers, (8, 8), float64."""
    frequency, place = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64) + 0.5
    matrix = torch.cos(frequency * place * math.pi / 8) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _dct(plane: Tensor) -> Tensor:
    """The orthonormal DCT of each block of 8×8 pixels, (B, C, H, W) -> (B, C, H, W)."""
    matrix = dct_matrix().to(plane)
    rows = (plane.unflatten(3, (-1, 8)) @ matrix.T).flatten(3)
    return (matrix @ rows.unflatten(2, (-1, 8))).flatten(2, 3)


def _mixed(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (3, 3) times the colours of each pixel."""
    return torch.einsum("dc,bchw->bdhw", matrix, x)


def _cut(x: Tensor, height: int, width: int) -> Tensor:
    """Blocks as rows, (B, C, H, W) -> (B, H / height, W / width, C · height · width)."""
    return x.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)


def _paste(x: Tensor, region: _Region, rows: Tensor) -> None:
    """The reverse, into a region of x; one row fills every block."""
    height, width = region.height, region.width
    blocks = x[..., region.rows, region.columns].unflatten(3, (-1, width)).unflatten(2, (-1, height))
    blocks = blocks.permute(0, 2, 4, 1, 3, 5)  # a view of x still
    blocks.copy_(rows.unflatten(-1, (x.shape[1], height, width)).expand_as(blocks))
