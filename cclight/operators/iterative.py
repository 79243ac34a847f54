"""Linear operators without a cheap singular value decomposition: H⁺ and P come from conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.operators.kernels import KernelLike, kernel_from
from cclight.operators.tables import Table

LARGEST_MATRIX = 2**27  # entries: one gibibyte in float64


class MotionBlur(LinearOperator):
    """Convolution of each channel with any kernel; y has the image's shape.

    Beyond its border an image counts as 0, which is grey: within the kernel's reach of the border, measurements fade towards
    it. No photograph does, so that measurements which are given are first continued beyond their border
    (`cclight.data.fitting`), and the restoration is cut back.

    Cut off at the border, the convolution is diagonal in no Fourier basis: noise is taken by Lanczos' method, and a warning
    says where that falls short, as with wide kernels at little noise. `CircularBlur`, which goes on at the other side instead
    of fading, is exact for every kernel and noise.

    Such blurs hardly pass some frequencies: H⁺ restores them only as far as the tolerance lets it, which keeps it stable.

    Args:
        kernel: how the camera moved, a `Kernel` or what `FixedKernel` takes; None is `LineKernel()`.
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.
    """

    least_sides = 2

    def __init__(self, kernel: KernelLike | None = None, tolerance: float = 1e-3, max_iterations: int = 200) -> None:
        super().__init__()
        self.drawn = kernel_from(kernel)
        self.per_image = self.drawn.per_image
        self.kernel = torch.ones(1, 1) if self.per_image else self.drawn()
        self.reach = self.kernel.shape[0] // 2
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self._spectrum = Table(self._transform)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> MotionBlur:
        return MotionBlur(self.drawn.of(name, parameters), self.tolerance, self.max_iterations) if self.per_image else self

    def forward(self, x: Tensor) -> Tensor:
        return self._filter(x, conjugate=False)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, conjugate=True)

    def _filter(self, x: Tensor, conjugate: bool) -> Tensor:
        # Fourier transforms know no half precision.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        height, width = x.shape[-2:]
        real, imaginary = self._spectrum.like((height, width), wide)
        spectrum = torch.complex(real, -imaginary if conjugate else imaginary)
        size = self._padded(height, width)
        return torch.fft.irfft2(torch.fft.rfft2(wide, size) * spectrum, size)[..., :height, :width].to(x.dtype)

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """So large that what leaves the image on one side does not come back on the other, and quick to transform."""
        reach = self.kernel.shape[0] // 2
        return _quick(height + reach), _quick(width + reach)

    def _transform(self, sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
        padded = self._padded(*sides)
        if self.per_image:
            self.drawn()  # which tells where each has its own
        size = self.kernel.shape[0]
        # Of a kernel wider than the image, taps wrap around onto others that reach no pixel either.
        rows = (torch.arange(size) - size // 2) % padded[0]
        columns = (torch.arange(size) - size // 2) % padded[1]
        canvas = torch.zeros(padded, dtype=torch.float64)
        canvas.index_put_((rows[:, None], columns), self.kernel, accumulate=True)
        spectrum = torch.fft.rfft2(canvas)
        return spectrum.real.clone(), spectrum.imag.clone()


class RandomProjection(LinearOperator):
    """Compressed sensing: y = A x, (B, m), A a matrix of independent normal numbers over the whole image.

    Args:
        measurements: m, the number of values measured of each image, >= 1.
        shape: (C, H, W) of the images, or (C, ...) of signals and volumes, which y does not tell.
        seed: which matrix.

    Raises:
        ValueError: where the matrix would have more than 2²⁷ entries.
    """

    def __init__(self, measurements: int = 768, shape: tuple[int, ...] = (3, 32, 32), seed: int = 0) -> None:
        super().__init__()
        pixels = math.prod(shape)
        if measurements < 1:
            raise ValueError(f"RandomProjection needs at least one measurement, got {measurements}.")
        if measurements * pixels > LARGEST_MATRIX:
            raise ValueError(
                f"RandomProjection from {pixels} pixels to {measurements} values needs a matrix of more than {LARGEST_MATRIX} "
                "entries: choose fewer measurements or smaller images."
            )
        self.measurements = measurements
        self.shape = shape
        self.seed = seed
        self._matrix = Table(self._draw)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.shape

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape))
        return x.flatten(1) @ self._matrix.like(self.seed, x)[0].T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self._matrix.like(self.seed, y)[0]).unflatten(1, self.shape)

    def check_images(self, shape: tuple[int, ...]) -> None:
        found = tuple(shape[-len(self.shape) :])
        if found != tuple(self.shape):
            expected, given = ("×".join(map(str, sides)) for sides in (self.shape, found))
            raise ValueError(f"RandomProjection was made for images of {expected}, got {given}: set its shape.")

    def _draw(self, seed: int) -> tuple[Tensor]:
        """Rows of length about one."""
        pixels = math.prod(self.shape)
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(self.measurements, pixels, generator=generator, dtype=torch.float64) / math.sqrt(pixels),)


def _quick(length: int) -> int:
    """The next length with no prime factor above 5, which a fast Fourier transform likes."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
