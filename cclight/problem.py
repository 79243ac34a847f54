"""What travels through a sampler: the Problem it is given, and the Restoration it returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cclight.data.noise import Source, generator, standard_normal
from cclight.operators.base import LinearOperator, Operator
from cclight.operators.whitened import Whitened
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.base import Prior

if TYPE_CHECKING:
    from cclight.samplers.spectrum import Spectrum

IMAGE_STD = 0.5  # σ_x, the standard deviation of images in [-1, 1]


@dataclass(frozen=True)
class Restoration:
    """What a sampler returns.

    Attributes:
        image: the restored images, (B, C, H, W), nominally in [-1, 1] and not clamped; where a number of samples was asked for,
            (K, B, C, H, W).
        nfe: network evaluations spent on each image, or on each sample of it.
        trajectory: the state after each step, each of the form of `image`, where it was asked for; else None.
    """

    image: Tensor
    nfe: int
    trajectory: list[Tensor] | None = None


class Level(NamedTuple):
    """A time of the grid with what belongs to it, as plain numbers computed in float64.

    Attributes:
        t: the path's time.
        alpha: α(t).
        sigma: σ(t).
        s: of x̂_0 = s x + o N.
        o: of the same.
    """

    t: float
    alpha: float
    sigma: float
    s: float
    o: float

    def epsilon(self, x: Tensor, x_0: Tensor) -> Tensor:
        """The noise ε of a state x = α x_0 + σ ε, where the image is x_0; both (B, C, H, W)."""
        return (x - self.alpha * x_0).div_(self.sigma)


class Problem:
    """One inverse problem for a batch of images: what a sampler's steps may ask of the world.

    Args:
        prior: the denoiser.
        operator: the degradation H.
        y: measurements, (B, ...).
        noise: initial standard normal noise, (B, C, H, W); its dtype and device are the sampler's.
        noise_std: σ_y, the standard deviation of the noise of each real number that y holds, in units of [-1, 1] images:
            a complex number holds two.
        generators: one random generator per image, on the CPU or the noise's device, or what gives its noise
            (`cclight.data.noise.standard_normal`); None makes one of each image's place.
        label: the class of each image, (B,), -1 for none; None where no image has one.
        rounded: whether σ_y stands for the rounding of y, which is no noise that is drawn independently of the image.

    Attributes:
        times: the path's times between a sampler's steps, from noise toward data; the sampler sets them.
        nfe: network evaluations so far.
    """

    def __init__(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        noise: Tensor,
        noise_std: float = 0.0,
        generators: Sequence[Source] | None = None,
        label: Tensor | None = None,
        rounded: bool = False,
    ) -> None:
        self.prior = prior
        self.rounded = rounded
        self.label = label
        self.operator = operator
        self.y = y
        self.noise = noise
        self.noise_std = noise_std
        self.generators = generators
        self.times: list[float] = []
        self.nfe = 0
        # Mixed precision is for the network alone: a projector rounded to bfloat16 would show in the image.
        device = noise.device.type
        self._autocast = torch.is_autocast_enabled(device)
        self._autocast_dtype = torch.get_autocast_dtype(device)

    def network(self, x: Tensor, t: float) -> Tensor:
        """The prior's raw output N(x, t), (B, C, H, W), in x's dtype. Counts the evaluations that a call costs."""
        self.nfe += self.prior.evaluations
        times = torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)
        mixed = torch.autocast(x.device.type, self._autocast_dtype) if self._autocast else contextlib.nullcontext()
        with mixed:
            return (self.prior(x, times) if self.label is None else self.prior(x, times, self.label)).to(x.dtype)

    def network_and_vjp(self, x: Tensor, t: float, cotangent: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """N(x, t) and Jᵀ v with J = ∂N/∂x, from one evaluation and one backward pass.

        Args:
            x: the state, (B, C, H, W).
            t: the path's time.
            cotangent: gives v, (B, C, H, W), from N.

        Returns:
            N and Jᵀ v, both (B, C, H, W) and detached: nothing of the graph outlives the call.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            output = self.network(x, t)
        value = output.detach()
        v = cotangent(value)
        if not (self._autocast and self._autocast_dtype == torch.float16):
            return value, torch.autograd.grad(output, x, v)[0]
        # Residuals shrink toward the end, and float16 has nothing below 6e-8: at 1e-5 one part in ten of Jᵀv would be lost.
        size = v.flatten(1).abs().amax(1).clamp_min(torch.finfo(v.dtype).tiny).view(-1, *[1] * (v.ndim - 1))
        return value, torch.autograd.grad(output, x, v / size)[0] * size

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """x̂_0(x, t), (B, C, H, W). Counts one evaluation."""
        level = self.level(t)
        return level.s * x + level.o * self.network(x, t)

    def level(self, t: float) -> Level:
        """α, σ, s and o at a time of the prior's path."""
        return _level(self.prior.path, self.prior.parameterization, t)

    def at(self, n: int) -> Level:
        """The level of the nth time of the grid."""
        return self.level(self.times[n])

    @cached_property
    def pinv_y(self) -> Tensor:
        """H⁺y, (B, C, H, W); for a nonlinear operator the decoder's h†(y)."""
        return self.operator.pinv(self.y)

    @cached_property
    def adjoint_y(self) -> Tensor:
        """Hᵀy, (B, C, H, W), of a linear operator."""
        assert isinstance(self.operator, LinearOperator)
        return self.operator.adjoint(self.y)

    @cached_property
    def spectrum(self) -> Spectrum:
        """How functions of HᵀH act on the images, with the measurement's noise."""
        from cclight.samplers.spectrum import spectrum_of

        return spectrum_of(self.operator, self.noise_std, self.noise)

    def guess(self) -> Tensor:
        """The image that sampling begins from, (B, C, H, W): H⁺y, damped where the measurement is noisy.

        H⁺ divides the noise by singular values down to 3e-2, V diag(s/(s² + σ_y²/σ_x²)) Uᵀ does not; h† counts as an operator
        of singular values 1. What the measurement says nothing of is the operator's to fill (`Operator.first_guess`): it alone
        knows which pixels it has not seen and what lies beside them.
        """
        damping = (self.noise_std / IMAGE_STD) ** 2
        if damping == 0:
            image = self.pinv_y
        elif isinstance(self.operator, LinearOperator):
            image = self.operator.damped_inverse(self.y, damping)
        else:
            image = self.pinv_y / (1 + damping)
        return self.operator.first_guess(image)

    def start(self, t: float, guess: Tensor | None = None) -> Tensor:
        """The state α(t) · guess + σ(t) · noise, (B, C, H, W); None takes `guess()`."""
        level = self.level(t)
        return level.alpha * (self.guess() if guess is None else guess) + level.sigma * self.noise

    def image(self, place: int) -> Problem:
        """The problem of one image of the batch."""
        part = slice(place, place + 1)
        generators = None if self.generators is None else self.generators[part]
        label = None if self.label is None else self.label[part]
        operator = self.operator.part(part) if isinstance(self.operator, Whitened) else self.operator
        one = Problem(self.prior, operator, self.y[part], self.noise[part], self.noise_std, generators, label, self.rounded)
        one.times, one._autocast, one._autocast_dtype = self.times, self._autocast, self._autocast_dtype
        return one

    def randn(self) -> Tensor:
        """Fresh standard normal noise, (B, C, H, W), each image from its own generator; the same numbers in every dtype."""
        if self.generators is None:
            self.generators = [generator(0, place, "sampler") for place in range(self.noise.shape[0])]
        return standard_normal(tuple(self.noise.shape[1:]), self.generators, self.noise.dtype, self.noise.device)


# Every batch asks for the same few times: the numbers are kept, so that a step computes nothing in float64.
@lru_cache(maxsize=8192)
def _level(path: GaussianPath, parameterization: Parameterization, t: float) -> Level:
    time = torch.tensor(t, dtype=torch.float64)
    s, o = parameterization.coefficients(path, time)
    return Level(t, *(float(number) for number in (path.alpha(time), path.sigma(time), s, o)))
