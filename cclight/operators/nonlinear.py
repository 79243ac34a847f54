r"""Nonlinear operators: H and H⁺ are replaced by an encoder h and a decoder h†, P x̂_0 by h†(h(x̂_0)).

| operator         | h(x)                          | h†(y)                                            |
|------------------|-------------------------------|--------------------------------------------------|
| `Quantization`   | the nearest of 2ᵇ levels      | y                                                |
| `HDR`            | gain · x, clipped to [-1, 1]  | y / gain                                         |
| `PhaseRetrieval` | |F pad(x)|                    | |crop(F⁻¹ y)|, the image of phase zero           |
| `NonlinearBlur`  | a user's module               | y                                                |

A heuristic of Pandey et al. (after Song et al., Pseudoinverse-Guided Diffusion Models, ICLR 2023): P is no projector here, and
nothing is exact. `Quantization` and `JPEG` are linear maps and rounding, so linear problems too (`Operator.linear_problem`).
`JPEG` and `CodecCompression` live in files of their own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cclight.operators.base import Operator
from cclight.operators.pixelwise import Denoising


class Quantization(Operator):
    """Each value becomes the nearest of 2ᵇ evenly spaced ones in [-1, 1]; the gradient is that of the clipping alone.

    Args:
        bits: b, from 1 to 16.
    """

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        if not 1 <= bits <= 16:
            raise ValueError(f"Quantization needs from 1 to 16 bits, got {bits}.")
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        steps = 2**self.bits - 1
        level = (x.clamp(-1, 1) + 1) / 2 * steps
        level = level + (level.round() - level).detach()
        return level / steps * 2 - 1

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def linear_problem(self, y: Tensor, noise_std: float) -> tuple[Operator, Tensor, float]:
        step = 2 / (2**self.bits - 1)
        return Denoising(), y, math.hypot(noise_std, step / math.sqrt(12))


class HDR(Operator):
    """Overexposed: gain · x, clipped to [-1, 1].

    Args:
        gain: how much too bright and too contrasty, > 1.
    """

    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        if not gain > 1:
            raise ValueError(f"HDR needs a gain > 1, else nothing is clipped, got {gain}.")
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(-1, 1)

    def pinv(self, y: Tensor) -> Tensor:
        return y / self.gain


class PhaseRetrieval(Operator):
    """The magnitude of the orthonormal Fourier transform of each channel, zero-padded, zero frequency in the middle.

    y is (B, C, H + 2 p_v, W + 2 p_h), each p the whole part of oversampling / 8 times the side.

    Args:
        oversampling: 2 pads each side by a quarter of its length, >= 0.
    """

    least_sides = 2

    def __init__(self, oversampling: float = 2.0) -> None:
        super().__init__()
        if oversampling < 0:
            raise ValueError(f"PhaseRetrieval needs an oversampling >= 0, got {oversampling}.")
        self.oversampling = oversampling

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = (self._padding(side) for side in x.shape[-2:])
        padded = functional.pad(x, (horizontal, horizontal, vertical, vertical))
        return torch.fft.fftshift(torch.fft.fft2(padded, norm="ortho"), dim=(-2, -1)).abs()

    def pinv(self, y: Tensor) -> Tensor:
        image = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(y, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)).abs()
        vertical, horizontal = (self._padding(self._side(side)) for side in y.shape[-2:])
        return image[..., vertical : y.shape[-2] - vertical, horizontal : y.shape[-1] - horizontal]

    def _padding(self, side: int) -> int:
        return int(self.oversampling / 8 * side)

    def _side(self, padded: int) -> int:
        """The image's side whose padded length this is."""
        side = round(padded / (1 + self.oversampling / 4))
        # The padding's whole part moves the quotient by one at most.
        for candidate in (side, side - 1, side + 1):
            if candidate + 2 * self._padding(candidate) == padded:
                return candidate
        raise ValueError(
            f"No image gives a side of {padded} at an oversampling of {self.oversampling}: use its own measurements."
        )


class NonlinearBlur(Operator):
    """A degradation that a network computes, such as a learned blur; h† y = y.

    Args:
        module: maps images in [-1, 1] to degraded images of the same shape. Its weights are frozen.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x)
        if y.shape != x.shape:
            raise ValueError(
                f"NonlinearBlur's module {type(self.module).__name__} turned {tuple(x.shape)} into {tuple(y.shape)}: "
                "it must keep the image's shape; for another one subclass Operator."
            )
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y
