"""Sampler: turns a measurement and a noise image into a restoration with a few calls of a prior.

The base class checks the input, owns the loop and counts network calls; a subclass writes `iterate`, a generator that yields
the state after each step. State that a step hands to the next one is a local variable there.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.base import Prior

IMAGE_STD = 0.5  # σ_x, the standard deviation of images in [-1, 1]


@dataclass(frozen=True)
class Restoration:
    """What a sampler returns.

    Attributes:
        image: the restored images, (B, C, H, W), nominally in [-1, 1] and not clamped.
        nfe: network evaluations spent on each image.
        trajectory: the state after each step, each (B, C, H, W), where it was asked for; else None.
    """

    image: Tensor
    nfe: int
    trajectory: list[Tensor] | None = None


class Problem:
    """One inverse problem for a batch of images: what a sampler's steps may ask of the world.

    Args:
        prior: the denoiser.
        operator: the degradation H.
        y: measurements, (B, ...).
        noise: initial standard normal noise, (B, C, H, W); its dtype and device are the sampler's.
        noise_std: σ_y, the standard deviation of the measurement's noise, in units of [-1, 1] images.
        generators: one random generator per image, on the CPU or the noise's device; None seeds one by each image's place.
    """

    def __init__(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        noise: Tensor,
        noise_std: float = 0.0,
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:
        self.prior = prior
        self.operator = operator
        self.y = y
        self.noise = noise
        self.noise_std = noise_std
        self.generators = generators
        self.nfe = 0
        # Mixed precision is for the network alone: a projector rounded to bfloat16 would show in the image.
        device = noise.device.type
        self._autocast = torch.is_autocast_enabled(device)
        self._autocast_dtype = torch.get_autocast_dtype(device)

    def network(self, x: Tensor, t: float) -> Tensor:
        """The prior's raw output N(x, t), (B, C, H, W), in x's dtype. Counts one evaluation."""
        self.nfe += 1
        times = torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)
        mixed = torch.autocast(x.device.type, self._autocast_dtype) if self._autocast else contextlib.nullcontext()
        with mixed:
            return self.prior(x, times).to(x.dtype)

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
        (product,) = torch.autograd.grad(output, x, cotangent(value))
        return value, product

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """x̂_0(x, t), (B, C, H, W). Counts one evaluation."""
        s, o = self.linear(t)
        return s * x + o * self.network(x, t)

    def linear(self, t: float) -> tuple[float, float]:
        """The s and o of x̂_0 = s x + o N at a time, as plain numbers (computed in float64)."""
        return _linear(self.prior.path, self.prior.parameterization, t)

    def alpha_sigma(self, t: float) -> tuple[float, float]:
        """α and σ of the prior's path at a time, as plain numbers (computed in float64)."""
        return _alpha_sigma(self.prior.path, t)

    def guess(self, pinv_y: Tensor) -> Tensor:
        """The image that sampling begins from, (B, C, H, W): H⁺y, damped where the measurement is noisy (MATH section 4).

        H⁺ divides the noise by singular values down to 3e-2, V diag(s/(s² + σ_y²/σ_x²)) Uᵀ does not; the operator may know
        better still what the measurement says nothing of.

        Args:
            pinv_y: H⁺y, (B, C, H, W).
        """
        if self.noise_std > 0 and isinstance(self.operator, LinearOperator):
            pinv_y = self.operator.damped_inverse(self.y, (self.noise_std / IMAGE_STD) ** 2)
        return self.operator.first_guess(pinv_y)

    def start(self, t: float, pinv_y: Tensor) -> Tensor:
        """The state α(t) · guess + σ(t) · noise, (B, C, H, W)."""
        alpha, sigma = self.alpha_sigma(t)
        return alpha * self.guess(pinv_y) + sigma * self.noise

    def randn(self) -> Tensor:
        """Fresh standard normal noise, (B, C, H, W), each image from its own generator."""
        if self.generators is None:
            self.generators = [torch.Generator().manual_seed(place) for place in range(self.noise.shape[0])]
        shape, dtype = self.noise.shape[1:], self.noise.dtype
        draws = [torch.randn(shape, generator=g, dtype=dtype, device=g.device) for g in self.generators]
        return torch.stack([draw.to(self.noise.device) for draw in draws])


# Every batch asks for the same few times: the numbers are kept, so that a step computes nothing in float64.
@lru_cache(maxsize=8192)
def _linear(path: GaussianPath, parameterization: Parameterization, t: float) -> tuple[float, float]:
    s, o = parameterization.coefficients(path, torch.tensor(t, dtype=torch.float64))
    return float(s), float(o)


@lru_cache(maxsize=8192)
def _alpha_sigma(path: GaussianPath, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha(time)), float(path.sigma(time))


class Sampler(ABC):
    """A training-free posterior sampler. To add one, subclass and write `iterate`.

    Attributes:
        requires: the least capable operator that the sampler can work with.
        reference: BibTeX of the paper to cite, or an empty string.
    """

    requires: type[Operator] = Operator  # type: ignore[type-abstract]
    reference: str = ""

    @abstractmethod
    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """Yield the state (B, C, H, W) after each step; the last one is the restoration. Runs without gradients."""

    def check(self, problem: Problem) -> None:
        """Refuse a problem that the sampler cannot solve; extend it by calling super().check(problem) first.

        Raises:
            TypeError: for an operator of too little capability.
            ValueError: for shapes or values that do not fit.
        """
        operator, name = problem.operator, type(self).__name__
        if not isinstance(operator, self.requires):
            raise TypeError(
                f"{name} needs a {self.requires.__name__}, and {type(operator).__name__} is none: choose a sampler that "
                f"takes any operator (Conjugate, PiGDM, DPS) or give the operator what {self.requires.__name__} asks for."
            )
        if problem.noise_std < 0:
            raise ValueError(f"noise_std is a standard deviation, got {problem.noise_std}: give a number >= 0.")
        if problem.y.shape[0] != problem.noise.shape[0]:
            raise ValueError(f"{problem.y.shape[0]} measurements but noise for {problem.noise.shape[0]} images.")
        if problem.generators is not None and len(problem.generators) != problem.noise.shape[0]:
            raise ValueError(f"{len(problem.generators)} generators for {problem.noise.shape[0]} images: give one each.")
        problem.prior.check_images(tuple(problem.noise.shape))
        operator.check_images(tuple(problem.noise.shape))

    def sample(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        noise: Tensor,
        *,
        noise_std: float = 0.0,
        generators: Sequence[torch.Generator] | None = None,
        keep_trajectory: bool = False,
    ) -> Restoration:
        """Restore a batch of measurements.

        Args:
            prior: the denoiser.
            operator: the degradation H that made the measurements.
            y: measurements, (B, ...), as `operator` returns them.
            noise: initial standard normal noise ε, (B, C, H, W). The same noise gives the same restoration.
            noise_std: σ_y, the standard deviation of the measurement's noise, in units of [-1, 1] images.
            generators: one random generator per image, for samplers that draw more noise; None seeds one by each image's place.
            keep_trajectory: return the state after each step as well.

        Returns:
            The restored images, the network evaluations per image and, where asked for, the trajectory.

        Raises:
            TypeError: for an operator of too little capability.
            ValueError: for shapes or values that do not fit.
        """
        problem = Problem(prior, operator, y, noise, noise_std, generators)
        self.check(problem)
        trajectory: list[Tensor] = []
        image = noise
        with torch.no_grad(), torch.autocast(noise.device.type, enabled=False):
            for image in self.iterate(problem):
                if keep_trajectory:
                    trajectory.append(image)
        return Restoration(image, problem.nfe, trajectory if keep_trajectory else None)
