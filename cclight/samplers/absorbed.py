r"""A measurement's noise as part of the path's own: who restores one image, and does not draw from the posterior.

Where H has the singular value s, y says y/s = x̄_0 + τ n with τ = σ_y/s. That is what the path shows at the ratio σ/α = τ, so
that while σ/α > τ a state needs of y and of fresh noise z just so much,

    x_t = α y/s + √(σ² - α² τ²) z,

to be what the network has been trained on, with y's noise among its own; from there on y's noise is all there is, and the
network takes it away as it takes any. With c = min(1, σ'/(α' τ)), and ε̂ where nothing is measured, the estimate x̂_y goes on by

    x' = α' x̂_y + α' c (y/s - x̂_y) + √(σ'² - α'² τ²)₊ z          on the range of H,
    x' = α' x̂_y + σ' ε̂                                           on the null space.

The first call is where σ/α is three times the τ of s's root mean square, if that is earlier than asked for: with less noise
than y's own a state tells nothing that y does not (super-resolution with σ_y = 0.5 gains 3 dB, benchmarks/README.md). The last
call is where the least noisy direction is left with its own noise, σ/α = min τ: there is nothing to know beyond.

x_t has y's part in it, so x̂_y asks y for no more than x_t has not said. Beside x_t, of precision α²/σ², what y adds has the
precision p = (1/τ² - α²/σ²)₊, and moment matching (`cclight.samplers.moments`) with V presumed r_t² I solves

    (p P V P + 1) d = p (ŷ - P x̂_0),         p (ŷ - P x̂_0) = p (y/s - P x̂_0) - √(σ² - α² τ²)₊ (α/σ²) z.

Of the null space's noise half as much is renewed as without noise in y (√k is kept): fewer steps are left to mend it before the
last call, and at k pictures are smoother for little (benchmarks/README.md).

A picture that is restored so is nearer to the truth, and sharper, than one drawn from the posterior, whose errors are two
pictures' (Blau and Michaeli): the noise of y is taken for what it is once, and not put back. It is no such sample, for where
y's noise reaches the state there is nothing left to chance: several restorations agree too well.

The steps on the range are DDNM+'s and DDRM's (η_b = 1), for any linear operator.

References:
    Kawar et al., Denoising Diffusion Restoration Models, NeurIPS 2022.
    Wang, Yu, Zhang, Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, ICLR 2023.
    Blau, Michaeli, The Perception-Distortion Tradeoff, CVPR 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.problem import Level, Problem
from cclight.samplers.covariances import quotient
from cclight.samplers.filters import Filters, Function, filters_of
from cclight.samplers.grid import Grid

ROOM = 3.0  # the first state has at least so many times the noise of a typical direction
UNMEASURED = 3.0  # a direction whose noise is so many times the first state's counts half as unmeasured
TOLERANCE = 1e-3  # of functions of HᵀH: at 1e-2 the state has less noise than the network is told, and pictures are smooth


class Absorbed:
    """V = r_t² I, and y's noise part of the state's: a `Covariance`, and the steps that it makes.

    Of operators without a decomposition five steps on a (3, 128, 128) image apply H (and as often Hᵀ) some 1600 times for
    `MotionBlur` at σ_y = 0.05, three times as often as `cclight.samplers.covariances` does.

    Args:
        problem: the problem: linear, with σ_y > 0.
        grid: the times that were asked for.
    """

    def __init__(self, problem: Problem, grid: Grid) -> None:
        assert isinstance(problem.operator, LinearOperator)
        self.problem, self.operator = problem, problem.operator
        self.noise_std = max(problem.noise_std, math.sqrt(torch.finfo(problem.noise.dtype).tiny))
        self.filters: Filters = filters_of(self.operator, problem.y, problem.noise, TOLERANCE)
        s = math.sqrt(self.filters.largest())
        self._least = self.noise_std / s if s else math.inf  # τ
        typical = math.sqrt(self.filters.mean())
        room = ROOM * self.noise_std / typical if typical else 0.0
        problem.times = grid.times_from_to(room, self._least, problem.prior.path).tolist()
        first = problem.at(0)
        self._half = (self.noise_std * first.alpha / (UNMEASURED * first.sigma)) ** 2  # λ
        self._shift = torch.zeros_like(problem.noise)  # what z has of p (ŷ - P x̂_0), over 1 + v p

    def begin(self) -> Tensor:
        """The state at the first time, (B, C, H, W)."""
        first = self.problem.at(0)
        return self._along(0, self.guess(), first.sigma * self.problem.noise, self.problem.noise)

    def guess(self) -> Tensor:
        """The image that sampling begins from, (B, C, H, W)."""
        return self.problem.guess()

    def residual(self, x_0: Tensor) -> Tensor:
        """Hᵀ(y - H x̂_0), (B, C, H, W)."""
        return self.problem.adjoint_y - self.operator.adjoint(self.operator(x_0))

    def direction(self, n: int, residual: Tensor) -> tuple[Tensor, ...]:
        """The direction d at step n."""
        known = self._known(self.problem.at(n))
        v = _presumed(self.problem.at(n))
        (of_y,) = self.filters([lambda one: known(one) / (1 + v * known(one)) / _above(one)], residual)
        return (of_y.add_(self._shift),)

    def condition(
        self, n: int, x_0: Tensor, spread: Tensor, residual: Tensor, direction: tuple[Tensor, ...], guidance: float
    ) -> Tensor:
        """x̂_y, as `Covariance.condition`."""
        known, v, (d,) = self._known(self.problem.at(n)), _presumed(self.problem.at(n)), direction
        excess = spread.sub_(d, alpha=v)
        (damped,) = self.filters([lambda one: v * known(one) / (1 + v * known(one))], excess)
        made = torch.add(d, damped, alpha=1 / v)  # of d, where d itself is wanted
        length = guidance * quotient(made, d, made).view(-1, *[1] * (d.ndim - 1))
        return x_0.add_(d, alpha=v).addcmul_(length, excess.sub_(damped))

    def advance(self, n: int, x: Tensor, estimate: Tensor, kept: float) -> Tensor:
        """The state at the grid's time n + 1, as `Covariance.advance`."""
        now, after = self.problem.at(n), self.problem.at(n + 1)
        kept = math.sqrt(kept)
        wanted = kept < 1 or self._has_room(after)
        z = self.problem.randn() if wanted else torch.zeros_like(x)
        carried = (x - now.alpha * estimate).mul_(after.sigma / now.sigma * kept)
        if kept < 1:
            carried.add_(z, alpha=after.sigma * math.sqrt(1 - kept**2))
        return self._along(n + 1, estimate, carried, z)

    def _along(self, n: int, estimate: Tensor, carried: Tensor, z: Tensor) -> Tensor:
        """An estimate at the grid's time n, with y's noise and z where something is measured, and what is carried elsewhere."""
        level, half, noise_var = self.problem.at(n), self._half, self.noise_std**2
        (of_y,) = self.filters(
            [lambda one: (level.sigma / self.noise_std * one.sqrt()).clamp_max(level.alpha) / (one + half)],
            self.residual(estimate),
        )
        (within,) = self.filters([lambda one: one / (one + half)], carried)
        x = (level.alpha * estimate).add_(of_y).add_(carried).sub_(within)
        if not self._has_room(level):
            return x

        def room(one: Tensor) -> Tensor:
            tau_squared = noise_var / one.clamp_min(torch.finfo(one.dtype).tiny)
            return (level.sigma**2 - level.alpha**2 * tau_squared).clamp_min(0).sqrt()

        known, v = self._known(level), _presumed(level)
        added, self._shift = self.filters(
            [
                lambda one: room(one) * one / (one + half),
                lambda one: room(one) / (1 + v * known(one)) * (-level.alpha / level.sigma**2),
            ],
            z,
        )
        return x.add_(added)

    def _has_room(self, level: Level) -> bool:
        """Whether any direction has less noise of y's than the state is to have."""
        return level.sigma > level.alpha * self._least

    def _known(self, level: Level) -> Function:
        """p, by λ."""
        return lambda one: (one / self.noise_std**2 - (level.alpha / level.sigma) ** 2).clamp_min(0)


def _presumed(level: Level) -> float:
    """R_t²."""
    return level.sigma**2 / (level.sigma**2 + level.alpha**2)


def _above(eigenvalues: Tensor) -> Tensor:
    """The eigenvalues, infinite where they are 0: what is divided by them is 0 there."""
    return eigenvalues.where(eigenvalues > 0, torch.inf)
