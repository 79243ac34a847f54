r"""Tomography: line integrals of the image along parallel rays, under some angles.

    y_{θ,d} = 1/√(n L) ∫ x along the ray  { p :  p · (cos θ, sin θ) = d },      n angles, L the image's longer side,

with lengths in pixels, p from the image's centre (right, up), and a detector of one cell a pixel, so wide that it sees the
image from corner to corner. The factor brings the largest singular value to about 1; the small ones, of fine detail and of what
lies between the angles, have no cheap decomposition: noise is taken by Lanczos' method, H⁺ by conjugate gradients.

A ray is followed through the rows or columns that it crosses most steeply, with linear interpolation between the two pixels
beside it in each (Joseph's method): a sparse matrix, made once for each size, and its transpose the adjoint.

References:
    Joseph, An Improved Algorithm for Reprojecting Rays through Pixel Images, IEEE Transactions on Medical Imaging 1, 1982.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.operators.tables import Table

LARGEST = 2**26  # entries of the matrix: 1.5 gibibytes with their indices, and as much for its transpose


class Tomography(LinearOperator):
    """Sparse-view computed tomography: y is the sinogram of each channel, (B, C, angles, detectors).

    Args:
        side: height and width of the images, one number or both, which y does not tell.
        angles: how many, spread evenly over [0, 180) degrees; or their list, in degrees.
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.

    Raises:
        ValueError: for no angles or sides, or where the matrix would have more than 2²⁶ entries.
    """

    least_sides = 2

    def __init__(
        self,
        side: int | tuple[int, int] = 256,
        angles: int | list[float] = 60,
        tolerance: float = 1e-2,
        max_iterations: int = 200,
    ) -> None:
        super().__init__()
        self.sides = (side, side) if isinstance(side, int) else (side[0], side[1])
        if min(self.sides) < 1:
            raise ValueError(f"Tomography needs images of at least one pixel, got {self.sides[0]}×{self.sides[1]}.")
        if isinstance(angles, int):
            angles = [180 * k / angles for k in range(angles)]
        if not angles or not all(math.isfinite(angle) for angle in angles):
            raise ValueError(f"Tomography needs at least one angle in degrees, got {angles}.")
        self.detectors = math.ceil(math.hypot(*self.sides))
        if 2 * len(angles) * self.sides[0] * self.sides[1] > LARGEST:
            raise ValueError(
                f"Tomography of {self.sides[0]}×{self.sides[1]} pixels under {len(angles)} angles needs a matrix of more than "
                f"{LARGEST} entries: choose fewer angles or smaller images."
            )
        self.angles = [float(angle) for angle in angles]
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self._matrix = Table(self._trace)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*measurement_shape[:-2], *self.sides)

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        return self._times(0, x, (len(self.angles), self.detectors))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._times(1, y, self.sides)

    def _times(self, which: int, x: Tensor, sides: tuple[int, int]) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # sparse products know no half precision
        matrix, transpose = self._matrix.like(0, wide)
        product = _Product.apply(wide.flatten(-2).flatten(0, -2), *((transpose, matrix) if which else (matrix, transpose)))
        return product.view(*x.shape[:-2], *sides).to(x.dtype)

    def check_images(self, shape: tuple[int, ...]) -> None:
        super().check_images(shape)
        if tuple(shape[-2:]) != self.sides:
            expected, given = ("×".join(map(str, sides)) for sides in (self.sides, shape[-2:]))
            raise ValueError(f"Tomography was made for images of {expected}, got {given}: set its side.")

    def _trace(self, _: int) -> tuple[Tensor, Tensor]:
        height, width = self.sides
        rows, columns, values = [], [], []
        distance = torch.arange(self.detectors, dtype=torch.float64) - (self.detectors - 1) / 2
        for number, degrees in enumerate(self.angles):
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            # p = (right, up): right · cosine + up · sine = d, solved for the coordinate that the ray changes more slowly.
            steep = abs(cosine) >= abs(sine)
            lines, across = (height, width) if steep else (width, height)
            along = torch.arange(lines, dtype=torch.float64) - (lines - 1) / 2  # down the rows, or right along the columns
            if steep:
                place = (distance[:, None] + along * sine) / cosine + (width - 1) / 2
            else:
                place = (height - 1) / 2 - (distance[:, None] - along * cosine) / sine
            first = torch.floor(place)
            for shift, weight in ((0, 1 - (place - first)), (1, place - first)):
                pixel = first.long() + shift
                inside = (pixel >= 0) & (pixel < across) & (weight > 0)
                line = torch.arange(lines).expand_as(pixel)
                ray = (number * self.detectors + torch.arange(self.detectors))[:, None].expand_as(pixel)
                rows.append(ray[inside])
                columns.append((line * width + pixel if steep else pixel * width + line)[inside])
                values.append(weight[inside] / max(abs(cosine), abs(sine)))
        entries = torch.cat(values) / math.sqrt(len(self.angles) * max(self.sides))
        where = torch.stack([torch.cat(rows), torch.cat(columns)])
        size = (len(self.angles) * self.detectors, height * width)
        forward = torch.sparse_coo_tensor(where, entries, size, check_invariants=False).coalesce()
        backward = torch.sparse_coo_tensor(where.flip(0), entries, size[::-1], check_invariants=False).coalesce()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            return forward.to_sparse_csr(), backward.to_sparse_csr()


class _Product(torch.autograd.Function):
    """A sparse matrix times images, whose gradient takes the transpose that is there already."""

    @staticmethod
    def forward(ctx, x, matrix, transpose):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.matrices = matrix, transpose
        return (matrix @ x.T).T

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        matrix, transpose = ctx.matrices
        return _Product.apply(gradient, transpose, matrix), None, None
