r"""Circular convolution: a blur with any kernel whose singular value decomposition is exact and cheap.

With F the Fourier transform and k̂ the kernel's,

    H x = F⁻¹ (k̂ · F x),      s = |k̂|,      V z = Vᵀ z = Re F z - Im F z,

V being Hartley's transform, which is real, orthonormal and its own inverse; H = U S Vᵀ with the phases of k̂ in U.
Singular values under 3e-2 are set to zero in H itself, as in `cclight.operators.separable`.

What leaves the image on one side comes back on the other. Photographs are not like that: `cclight.data.fitting` continues a
given measurement so that it is.

Reference:
    Bracewell, Discrete Hartley Transform, Journal of the Optical Society of America 73, 1983.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cclight.operators.base import SpectralOperator
from cclight.operators.kernels import KernelLike, kernel_from
from cclight.operators.separable import SMALLEST_SINGULAR_VALUE
from cclight.operators.tables import Table


class CircularBlur(SpectralOperator):
    """Convolution of each channel with any kernel, around the border; y has the image's shape.

    Args:
        kernel: how the camera moved, a `Kernel` or a (k, k) tensor with k odd; None is `LineKernel()`.
    """

    least_sides = 2

    def __init__(self, kernel: KernelLike | None = None) -> None:
        super().__init__()
        self.drawn = kernel_from(kernel)
        self.per_image = self.drawn.per_image
        self.kernel = torch.ones(1, 1) if self.per_image else self.drawn()
        self.reach = self.kernel.shape[0] // 2
        self._transfer = Table(self._transform)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> CircularBlur:
        return CircularBlur(self.drawn.of(name, parameters)) if self.per_image else self

    def forward(self, x: Tensor) -> Tensor:
        return self._multiply(x, lambda real, imaginary: torch.complex(real, imaginary))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._multiply(y, lambda real, imaginary: torch.complex(real, -imaginary))

    def pinv(self, y: Tensor) -> Tensor:
        def inverse(real: Tensor, imaginary: Tensor) -> Tensor:
            squared = real.square() + imaginary.square()
            return torch.complex(real, -imaginary) / squared.masked_fill(squared == 0, torch.inf)

        return self._multiply(y, inverse)

    def project(self, x: Tensor) -> Tensor:
        return self._multiply(x, lambda real, imaginary: ((real != 0) | (imaginary != 0)).to(real))

    def spectral(self, x: Tensor) -> Tensor:
        transformed = torch.fft.fft2(_wide(x), norm="ortho")
        return (transformed.real - transformed.imag).to(x.dtype)

    def from_spectral(self, z: Tensor) -> Tensor:
        return self.spectral(z)

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        real, imaginary = self._transfer.exact(tuple(image_shape[-2:]))
        return torch.complex(real, imaginary).abs()[None]

    def _multiply(self, x: Tensor, factor: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        wide = _wide(x)
        sides = tuple(x.shape[-2:])
        real, imaginary = (half[:, : sides[1] // 2 + 1] for half in self._transfer.like(sides, wide))
        return torch.fft.irfft2(torch.fft.rfft2(wide) * factor(real, imaginary), sides).to(x.dtype)

    def _transform(self, sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if self.per_image:
            self.drawn()  # which tells where each has its own
        size = self.kernel.shape[0]
        rows, columns = ((torch.arange(size) - size // 2) % side for side in sides)
        canvas = torch.zeros(sides, dtype=torch.float64)
        canvas.index_put_((rows[:, None], columns), self.kernel, accumulate=True)
        transfer = torch.fft.fft2(canvas)
        transfer[transfer.abs() < SMALLEST_SINGULAR_VALUE] = 0
        return transfer.real.clone(), transfer.imag.clone()


def _wide(x: Tensor) -> Tensor:
    """Fourier transforms know no half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
