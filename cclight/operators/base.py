r"""Operators: what was done to the clean image. y = H x_0 + σ_y n.

Capability is a type. A sampler names the least it needs, and the error names it too:

| type               | gives                                                              |
|--------------------|--------------------------------------------------------------------|
| `Operator`         | H, a pseudoinverse H⁺ (or a heuristic h†) and P = H⁺H               |
| `LinearOperator`   | also the adjoint Hᵀ                                                 |
| `SpectralOperator` | also the singular value decomposition H = U S Vᵀ, through Vᵀx and V z |
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Operator(nn.Module, ABC):
    """A degradation: the only thing to subclass in order to add one.

    Operators take any batch, any device and any floating dtype; images are (B, C, H, W), nominally in [-1, 1].

    Attributes:
        reference: BibTeX of the paper to cite, or an empty string.
    """

    reference: str = ""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The noiseless measurement H x.

        Args:
            x: images, (B, C, H, W).

        Returns:
            y, (B, ...).
        """

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """The pseudoinverse H⁺ y, back in image shape (B, C, H, W); for a nonlinear operator the decoder h†."""

    def project(self, x: Tensor) -> Tensor:
        """P x = H⁺ H x, the part of the images that the measurement determines; override where a direct way is faster."""
        return self.pinv(self(x))

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Refuse images that the operator cannot take, before any work.

        Args:
            shape: (C, H, W) or (B, C, H, W).

        Raises:
            ValueError: naming the shape, the expectation and the remedy.
        """


class LinearOperator(Operator):
    """An operator with H(a x + b z) = a H x + b H z."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Hᵀ y, (B, C, H, W): <H x, y> = <x, Hᵀ y>."""


class SpectralOperator(LinearOperator):
    """A linear operator whose singular value decomposition H = U S Vᵀ is cheap to apply.

    V is a full orthonormal basis of image space, so the spectrum z = Vᵀ x has the image's shape (B, C, H, W).
    """

    @abstractmethod
    def spectral(self, x: Tensor) -> Tensor:
        """Vᵀ x, (B, C, H, W) -> (B, C, H, W)."""

    @abstractmethod
    def from_spectral(self, z: Tensor) -> Tensor:
        """V z, (B, C, H, W) -> (B, C, H, W)."""

    @abstractmethod
    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        """The singular values s >= 0 of an image of shape (C, H, W), 0 on the null space.

        Returns:
            s in float64 on the CPU, broadcastable against `spectral(x)` of such images: three dimensions, without the batch.
        """
