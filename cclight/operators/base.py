r"""Operators: what was done to the clean image. y = H x_0 + σ_y n.

Capability is a type. A sampler names the least it needs, and the error names it too:

| type               | gives                                                              |
|--------------------|--------------------------------------------------------------------|
| `Operator`         | H, a pseudoinverse H⁺ (or a heuristic h†) and P = H⁺H               |
| `LinearOperator`   | also the adjoint Hᵀ                                                 |
| `SpectralOperator` | also the singular value decomposition H = U S Vᵀ, through Vᵀx and V z |
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cclight.operators.conjugate_gradients import least_squares
from cclight.operators.tables import Table


class Operator(nn.Module, ABC):
    """A degradation: the only thing to subclass in order to add one.

    Operators take any batch, any device and any floating dtype; images are (B, C, H, W), nominally in [-1, 1].

    Attributes:
        reference: BibTeX of the paper to cite, or an empty string.
        reach: by how many pixels a measured pixel looks beyond its own place: so far the border of a given measurement depends
            on what lies beyond it. 0 for what stays inside its pixel or block.
        per_image: whether each image has an operator of its own, which `of` gives.
        least_sides: how many sides its images have at least, beside the channels; what looks at rows and columns takes volumes
            slice by slice.
    """

    reference: str = ""
    reach: int = 0
    per_image: bool = False
    least_sides: int = 0

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_") and name != "training":  # a setting has changed, and with it what was computed from it
            for table in vars(self).values():
                if isinstance(table, Table):
                    table.clear()

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

    def first_guess(self, pinv_y: Tensor) -> Tensor:
        """The image that a sampler's start is made from, (B, C, H, W): H⁺y as in the paper, unless an operator knows better.

        Args:
            pinv_y: H⁺y, (B, C, H, W).
        """
        return pinv_y

    def linear_problem(self, y: Tensor, noise_std: float) -> tuple[Operator, Tensor, float]:
        """The linear problem that a measurement also is, for samplers that want one: operator, y and σ_y.

        Override it where H is a linear map with its results rounded, which counts as noise (`JPEG`, `Quantization`). Here it is
        the measurement's own problem.

        Args:
            y: the measurements, (B, ...).
            noise_std: σ_y.
        """
        return self, y, noise_std

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> Operator:
        """The operator of the image of this name in its source; here the same for all.

        Args:
            name: the image's.
            parameters: the further arrays that the source has for this image, by name.

        Raises:
            FileNotFoundError, ValueError: where there is none for it.
        """
        return self

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Refuse images that the operator cannot take, before any work; extend it by calling super().check_images(shape) first.

        Args:
            shape: of one image, (C, H, W), or (C, ...) of signals and volumes.

        Raises:
            ValueError: naming the shape, the expectation and the remedy.
        """
        if len(shape) <= self.least_sides:
            raise ValueError(
                f"{type(self).__name__} looks at rows and columns, and the images here have the shape {tuple(shape)}: take an "
                "operator of any shape, such as Inpainting, Denoising or RandomProjection, or one of your own."
            )


class LinearOperator(Operator):
    """An operator with H(a x + b z) = a H x + b H z. A subclass needs to give `forward` alone.

    Then Hᵀ comes from automatic differentiation, and H⁺ from conjugate gradients, which take one H and one Hᵀ an iteration.
    Where y has another shape than the image, give `image_shape` too.

    Attributes:
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.
    """

    tolerance: float = 1e-5
    max_iterations: int = 200

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (C, H, W) of the image whose measurement has this shape, without the batch; here the same."""
        return measurement_shape

    def adjoint(self, y: Tensor) -> Tensor:
        """Hᵀ y, (B, C, H, W): <H x, y> = <x, Hᵀ y>. Here the gradient of <H x, y>.

        Raises:
            ValueError: where `image_shape` does not lead to measurements of y's shape.
        """
        keep_graph = torch.is_grad_enabled() and y.requires_grad
        shape = (y.shape[0], *self.image_shape(tuple(y.shape[1:])))
        # H is linear: its derivative is the same everywhere, so that zero will do.
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(shape, dtype=y.real.dtype, device=y.device, requires_grad=True)
            hx = self(x)
            if hx.shape != y.shape:
                raise ValueError(
                    f"{type(self).__name__} turns images {shape} into {tuple(hx.shape)}, not into the given {tuple(y.shape)}: "
                    "give it a method image_shape, or an adjoint."
                )
            (product,) = torch.autograd.grad(hx, x, y, create_graph=keep_graph)
        return product

    def pinv(self, y: Tensor) -> Tensor:
        """H⁺ y, back in image shape (B, C, H, W); here by conjugate gradients, from any y, also outside the range of H."""
        return self._least_squares(y, 0.0)

    def damped_inverse(self, y: Tensor, damping: float) -> Tensor:
        """(HᵀH + τ² I)⁻¹ Hᵀ y, back in image shape (B, C, H, W): the Wiener filter of white noise over white images.

        Where H⁺ divides by the small singular values, and so lifts a measurement's noise, this is V diag(s/(s² + τ²)) Uᵀ y.

        Args:
            y: measurements, (B, ...).
            damping: τ² = (σ_y / σ_x)², > 0; toward 0 it gives H⁺ y.
        """
        return self._least_squares(y, damping)

    def _least_squares(self, y: Tensor, damping: float) -> Tensor:
        solution = least_squares(self, self.adjoint, y, self.tolerance, self.max_iterations, damping)
        worst = float(solution.residual.max())
        if not worst <= self.tolerance:
            warnings.warn(
                f"{type(self).__name__}: conjugate gradients stopped after {solution.iterations} iterations at a residual of "
                f"{worst:.1e}, short of the tolerance {self.tolerance:.1e}: raise max_iterations or the tolerance.",
                stacklevel=3,
            )
        return solution.x


class SpectralOperator(LinearOperator):
    """A linear operator whose singular value decomposition H = U S Vᵀ is cheap to apply.

    V is a full orthonormal basis of image space, so the spectrum z = Vᵀ x has the image's shape (B, C, H, W).
    H⁺ = V S⁻² Vᵀ Hᵀ and P = V [S > 0] Vᵀ follow; override them where there is a faster way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._distinct = Table(self._distinguish)

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

    def distinct_values(self, image_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The distinct singular values of images of a shape, and which of them each entry of `singular_values` is.

        Returns:
            The values in ascending order, (K,), and their numbers in the shape of `singular_values`; kept, and so the same
            tensors in every call.
        """
        values, group = self._distinct.exact(image_shape)
        return values, group

    def _distinguish(self, image_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return torch.unique(self.singular_values(image_shape), return_inverse=True)

    def pinv(self, y: Tensor) -> Tensor:
        z = self.spectral(self.adjoint(y))
        s = self.singular_values(tuple(z.shape[1:]))
        return self.from_spectral(s.masked_fill(s == 0, torch.inf).pow(-2).to(z) * z)

    def damped_inverse(self, y: Tensor, damping: float) -> Tensor:
        z = self.spectral(self.adjoint(y))
        s = self.singular_values(tuple(z.shape[1:]))
        # On the null space z is rounding error, which a small τ² would lift out of all bounds.
        return self.from_spectral((s**2 + damping).masked_fill(s == 0, torch.inf).reciprocal().to(z) * z)

    def project(self, x: Tensor) -> Tensor:
        return self.from_spectral((self.singular_values(tuple(x.shape[1:])) > 0).to(x) * self.spectral(x))
