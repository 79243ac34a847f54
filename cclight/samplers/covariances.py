r"""What the denoiser's error is like before its Jacobian is asked: how moment matching goes about its equation.

Moment matching, `cclight.samplers.moments`, wants the u of

    (P V P + Σ) u = H⁺y - P x̂_0,      V = Cov[x_0 | x_t],    Σ = σ_y² (HᵀH)⁺,

and takes the best multiple of a direction d that would be exact if V were as presumed:

| presumed      | V in the direction of an eigenvalue λ of HᵀH | for                                                 |
|---------------|----------------------------------------------|-----------------------------------------------------|
| `Isotropic`   | r_t² = σ²/(σ² + α²)                          | what has no noise, or its own rounding in its place |
| `Empirical`   | v(λ) = S σ²/(S α² + σ²)                      | noise, S(λ) from the measurement itself             |

Of Gaussian images with the variance S along a direction, v is what x_t leaves of it. With noise it matters: whoever takes fine
detail for as uncertain as coarse structure lets in the noise that H⁺ has lifted there. The start comes from the same S, the
Wiener filter S (S HᵀH + σ_y²)⁻¹ Hᵀy.

Reference:
    Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.operators.krylov import KrylovSpace
from cclight.problem import Problem
from cclight.samplers import filters
from cclight.samplers.base import renoise
from cclight.samplers.grid import Grid
from cclight.samplers.pigdm import gain_rows
from cclight.samplers.variances import Hats, at, quantiles

Function = Callable[[Tensor, Tensor], Tensor]  # of eigenvalues λ and S there

TOLERANCE = 1e-2  # of a function of HᵀH: what is presumed of V is no more exact


class Covariance(Protocol):
    """What V is presumed to be for the images of a batch; one serves all steps of a sampler.

    A residual is what x̂_0 leaves of the measurement, in a form that is the presumption's own.
    """

    def guess(self) -> Tensor:
        """The image that sampling begins from, (B, C, H, W)."""

    def residual(self, x_0: Tensor) -> Tensor:
        """What an estimate, (B, C, H, W), leaves of the measurement."""

    def direction(self, n: int, residual: Tensor) -> tuple[Tensor, ...]:
        """The direction d at step n, (B, C, H, W), and what else comes with it."""

    def condition(
        self, n: int, x_0: Tensor, spread: Tensor, residual: Tensor, direction: tuple[Tensor, ...], guidance: float
    ) -> Tensor:
        """x̂_y, (B, C, H, W).

        Args:
            n: the step.
            x_0: the network's estimate, (B, C, H, W); used up.
            spread: V d, (B, C, H, W); used up.
            residual: of x̂_0.
            direction: what `direction` gave.
            guidance: the weight of what the measured part says of the rest; 1 for the posterior's mean.
        """

    def advance(self, n: int, x: Tensor, estimate: Tensor, kept: float) -> Tensor:
        """The state at the grid's time n + 1, (B, C, H, W).

        Args:
            n: the step.
            x: the state at time n, (B, C, H, W).
            estimate: x̂_y, the same shape.
            kept: how much of ε̂ stays.
        """


class Isotropic:
    """V = r_t² I, for any linear operator: D are the gains of `cclight.samplers.spectrum`, and d = D r.

    Args:
        problem: the problem.
        grid: the times.
    """

    def __init__(self, problem: Problem, grid: Grid) -> None:
        self.problem, self.spectrum = problem, problem.spectrum
        self.rows = self.spectrum.prepare(gain_rows(problem.prior.path, grid, self.spectrum.gains))

    def guess(self) -> Tensor:
        return self.problem.guess()

    def residual(self, x_0: Tensor) -> Tensor:
        return self.spectrum.measured(self.problem) - self.spectrum.seen(self.problem, x_0)

    def direction(self, n: int, residual: Tensor) -> tuple[Tensor, ...]:
        return (self.spectrum.damp(self.rows[n], residual),)

    def condition(
        self, n: int, x_0: Tensor, spread: Tensor, residual: Tensor, direction: tuple[Tensor, ...], guidance: float
    ) -> Tensor:
        level = self.problem.at(n)
        v = level.sigma**2 / (level.sigma**2 + level.alpha**2)
        excess = spread.sub_(direction[0], alpha=v)  # (V - v I) d
        seen = self.spectrum.seen(self.problem, excess)
        # (P V P + Σ) d = P (V - v I) d + v r.
        made = self.spectrum.lifted(seen.add(residual, alpha=v))
        length = guidance * quotient(made, self.spectrum.lifted(residual), made)
        gap = residual.addcmul(length.view(-1, *[1] * (residual.ndim - 1)), seen, value=-1)  # H⁺y - P (x̂_0 + e)
        return x_0.addcmul_(length.view(-1, *[1] * (x_0.ndim - 1)), excess).add_(self.spectrum.damp(self.rows[n], gap))

    def advance(self, n: int, x: Tensor, estimate: Tensor, kept: float) -> Tensor:
        noise, after = self.problem.at(n).epsilon(x, estimate), self.problem.at(n + 1)
        if n + 2 == len(self.problem.times) and after.sigma > 0:  # what is measured ends as x̂_y, without noise
            other = torch.sub(noise, estimate, alpha=(1 - after.alpha) / after.sigma)
            noise = noise.sub_(self.spectrum.damp(self.rows[n], self.spectrum.seen(self.problem, other)))
        return renoise(self.problem, n, estimate, noise, kept)


class Empirical(ABC):
    """V = S σ²/(S α² + σ²) in each singular direction, S as the measurement has it (`cclight.samplers.variances`).

    Residuals are q = Hᵀ(y - H x̂_0): what y says outside the range of H is noise. With f = 1/(v λ + σ_y²) of the eigenvalues λ,
    d = f(HᵀH) q is the u of the presumed V, and v d is D of the residual. The equation makes ω = HᵀH (V - v) d + q of d in the
    place of q, and κ is least squares in units of the variance that is presumed, κ = <q, g ω>/<ω, g ω> with g = f/λ.

    Args:
        problem: the problem: linear, with σ_y > 0.

    Attributes:
        filter: makes functions of HᵀH of an image in the range of Hᵀ, each (B, C, H, W).
    """

    filter: Callable[[Sequence[filters.Function], Tensor], list[Tensor]]

    def __init__(self, problem: Problem) -> None:
        assert isinstance(problem.operator, LinearOperator)
        self.problem, self.operator = problem, problem.operator
        self.noise_var = max(problem.noise_std**2, torch.finfo(problem.noise.dtype).tiny)

    @abstractmethod
    def variances(self, eigenvalues: Tensor) -> Tensor:
        """S at the eigenvalues that `filter` gives."""

    def functions(self, functions: Sequence[Function], image: Tensor) -> list[Tensor]:
        """`filter`, of λ and S."""
        return self.filter([lambda one, f=f: f(one, self.variances(one)) for f in functions], image)  # type: ignore[misc]

    def guess(self) -> Tensor:
        (filtered,) = self.functions([lambda eigenvalue, s: s / (s * eigenvalue + self.noise_var)], self.problem.adjoint_y)
        return self.operator.first_guess(filtered)

    def residual(self, x_0: Tensor) -> Tensor:
        return self.problem.adjoint_y - self._seen(x_0)

    def direction(self, n: int, residual: Tensor) -> tuple[Tensor, ...]:
        v = self._left(n)
        return tuple(
            self.functions(
                [
                    lambda eigenvalue, s: 1 / (v(s) * eigenvalue + self.noise_var),
                    lambda eigenvalue, s: v(s) / (v(s) * eigenvalue + self.noise_var),
                ],
                residual,
            )
        )

    def condition(
        self, n: int, x_0: Tensor, spread: Tensor, residual: Tensor, direction: tuple[Tensor, ...], guidance: float
    ) -> Tensor:
        v, damped = self._left(n), direction[1]  # v d
        excess = spread.sub_(damped)
        made = self._seen(excess) + residual
        made_damped, made_weighed = self.functions(
            [
                lambda eigenvalue, s: v(s) / (v(s) * eigenvalue + self.noise_var),
                lambda eigenvalue, s: 1 / (v(s) * eigenvalue + self.noise_var) / eigenvalue.where(eigenvalue > 0, torch.inf),
            ],
            made,
        )
        length = guidance * quotient(made_weighed, residual, made).view(-1, *[1] * (x_0.ndim - 1))
        # D (r - κ P (V - v) d), for P (V - v) d is what was made less r.
        return x_0.addcmul_(length, excess).addcmul_(1 + length, damped).addcmul_(length, made_damped, value=-1)

    def advance(self, n: int, x: Tensor, estimate: Tensor, kept: float) -> Tensor:
        return renoise(self.problem, n, estimate, self.problem.at(n).epsilon(x, estimate), kept)

    def _left(self, n: int) -> Callable[[Tensor], Tensor]:
        """What x_t leaves of S."""
        level = self.problem.at(n)
        return lambda s: s * level.sigma**2 / (s * level.alpha**2 + level.sigma**2)

    def _seen(self, image: Tensor) -> Tensor:
        return self.operator.adjoint(self.operator(image))


class Spectral(Empirical):
    """By the singular value decomposition of a `SpectralOperator`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        operator, like = self.operator, problem.noise
        assert isinstance(operator, SpectralOperator)
        self.filter = by = filters.SpectralFilters(operator, like)
        s, self.eigenvalues = by.singular, by.eigenvalues
        values = operator.singular_values(tuple(like.shape[1:]))
        hats = Hats(quantiles(values, like[0].numel()).square(), problem.noise_std, like)
        # Hᵀy is s m; the null space has no part in any sum.
        measured = operator.spectral(problem.adjoint_y) / s.where(s > 0, torch.inf)
        places = hats.places(self.eigenvalues.flatten(1))
        power, directions, sizes = (
            hats.sums(places, values.flatten(1)) for values in (measured.square(), (s > 0).to(like), self.eigenvalues)
        )
        self.s = at(places, hats.variances(power, directions, sizes)).view_as(like)

    def variances(self, eigenvalues: Tensor) -> Tensor:
        return self.s


class Lanczos(Empirical):
    """By Lanczos' method, where nothing but H and Hᵀ is known, to 1e-2 (`KrylovFilters`).

    Five steps on a (3, 32, 32) image apply H (and as often Hᵀ) 411 times for `MotionBlur` at σ_y = 0.05 and 319 times at 0.2,
    175 and 239 times for `RandomProjection` of 768 numbers.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._filters = filters.KrylovFilters(self.operator, problem.y, TOLERANCE)
        self._of_y = self._filters.space(problem.adjoint_y)
        self._of_y.grow(filters.PROBED)
        self.filter = self._filter
        (values, weights), (of_probes, sizes) = self._measure(self._of_y), self._measure(self._filters.probe)
        self.told = [
            self._told(*(one[image : image + 1] for one in (values, weights, of_probes, sizes))) for image in range(len(values))
        ]

    def _told(self, values: Tensor, weights: Tensor, of_probes: Tensor, sizes: Tensor) -> tuple[Hats, Tensor]:
        """Where an image's S is known, and S there: the eigenvalues that the probe has met are the nodes."""
        hats = Hats(of_probes[of_probes > 0], self.problem.noise_std, values)
        power = hats.sums(hats.places(values), weights / values.where(values > 0, torch.inf))
        places = hats.places(of_probes)
        directions = hats.sums(places, sizes / of_probes.where(of_probes > 0, torch.inf))
        return hats, hats.variances(power, directions, hats.sums(places, sizes.where(of_probes > 0, 0.0)))

    @staticmethod
    def _measure(space: KrylovSpace) -> tuple[Tensor, Tensor]:
        """Eigenvalues, and the part of the start's squared length that each of them has, (B, K)."""
        ritz = space.ritz()
        return ritz.values, (space.length.cpu().double()[:, None] * ritz.vectors[:, 0]).square()

    def variances(self, eigenvalues: Tensor) -> Tensor:
        return torch.cat([at(hats.places(one[None]), s) for one, (hats, s) in zip(eigenvalues, self.told, strict=True)])

    def _filter(self, functions: Sequence[filters.Function], image: Tensor) -> list[Tensor]:
        space = self._of_y if image is self.problem.adjoint_y else self._filters.space(image)
        return self._filters.of(space, functions)


def covariance_of(problem: Problem, grid: Grid) -> Covariance:
    """The presumption that fits a problem."""
    if problem.noise_std == 0 or problem.rounded:
        return Isotropic(problem, grid)
    return Spectral(problem) if isinstance(problem.operator, SpectralOperator) else Lanczos(problem)


def quotient(weighed: Tensor, wanted: Tensor, made: Tensor) -> Tensor:
    """<weighed, wanted>/<weighed, made> of each image, (B,); 0 where nothing is made."""
    above, below = ((weighed * one).flatten(1).sum(1) for one in (wanted, made))
    return above / below.clamp_min(torch.finfo(made.dtype).tiny)
