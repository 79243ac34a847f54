r"""Operators on single pixels, their channels or their blocks.

| operator         | y                                        | H⁺ y                                |
|------------------|------------------------------------------|-------------------------------------|
| `Denoising`      | x                                        | y                                   |
| `Colorization`   | w · x over the three channels            | w y / |w|²                          |
| `AveragePooling` | mean over each block of factor × factor  | y repeated over its block           |
"""

from __future__ import annotations

import torch
from torch import Tensor

from cclight.operators.base import SpectralOperator
from cclight.operators.separable import SeparableOperator
from cclight.operators.tables import Table

# As in the code of DDRM and of Pandey et al.: the weights of a mean, rounded so that they add up to one.
GREY_WEIGHTS = (0.3333, 0.3334, 0.3333)


class Denoising(SpectralOperator):
    """The identity: what is left to undo is the measurement's noise. y has the image's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def project(self, x: Tensor) -> Tensor:
        return x

    def spectral(self, x: Tensor) -> Tensor:
        return x

    def from_spectral(self, z: Tensor) -> Tensor:
        return z

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        return torch.ones([1] * len(image_shape), dtype=torch.float64)


class Colorization(SpectralOperator):
    """The grey image y = w · x, (B, 1, H, W), of a colour image, (B, 3, H, W), with weights of a third each."""

    def __init__(self) -> None:
        super().__init__()
        self._basis = Table(self._make_basis)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return 3, *measurement_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        scale, basis = self._basis.like("", x)
        return scale * _mix(basis[:, :1].T, x)

    def adjoint(self, y: Tensor) -> Tensor:
        scale, basis = self._basis.like("", y)
        return scale * basis[:, 0, None, None] * y

    def pinv(self, y: Tensor) -> Tensor:
        scale, basis = self._basis.like("", y)
        return basis[:, 0, None, None] * (y / scale)

    def project(self, x: Tensor) -> Tensor:
        _, basis = self._basis.like("", x)
        return basis[:, 0, None, None] * _mix(basis[:, :1].T, x)

    def spectral(self, x: Tensor) -> Tensor:
        return _mix(self._basis.like("", x)[1].T, x)

    def from_spectral(self, z: Tensor) -> Tensor:
        return _mix(self._basis.like("", z)[1], z)

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        scale, _ = self._basis.exact("")
        return torch.stack([scale, torch.zeros_like(scale), torch.zeros_like(scale)]).view(3, 1, 1)

    def check_images(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[0] != 3:
            given = shape[0] if len(shape) == 3 else f"the shape {tuple(shape)}"
            raise ValueError(f"Colorization takes images of 3 channels, got {given}: give it RGB images.")

    @staticmethod
    def _make_basis(_: str) -> tuple[Tensor, Tensor]:
        """|w| and an orthonormal basis V (3, 3) of colour space whose first column is w / |w|."""
        weights = torch.tensor(GREY_WEIGHTS, dtype=torch.float64)
        scale = weights.norm()
        # The Householder reflection that takes the first axis to w / |w|.
        u = weights / scale
        normal = u - torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        return scale, torch.eye(3, dtype=torch.float64) - 2 * torch.outer(normal, normal) / normal.dot(normal)


class AveragePooling(SeparableOperator):
    """The mean over blocks of factor × factor pixels: the paper's "sr4" on diffusion models is factor 4.

    Args:
        factor: side of a block in pixels, >= 1.
    """

    def __init__(self, factor: int = 4) -> None:
        super().__init__(factor)

    def matrix(self, length: int) -> Tensor:
        identity = torch.eye(length // self.factor, dtype=torch.float64)
        return identity.repeat_interleave(self.factor, dim=1) / self.factor


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix (d, C) times the channels of x, (B, C, H, W) -> (B, d, H, W)."""
    return (matrix @ x.flatten(2)).unflatten(2, x.shape[2:])
