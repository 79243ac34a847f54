r"""The step of samplers that freeze an estimate of the clean image: its order, and how fast its noise is renewed.

Frozen over a step, x̂ leaves x' = (σ'/σ) x + (α' - α σ'/σ) x̂, exponential Euler in λ = ln(α/σ): the estimate put back on the
path with the noise ε̂ = (x - α x̂)/σ that the state carries.

**Order 2** extrapolates x̂ from the last two steps at no extra network call. Linear in λ, its mean over a step of length h'
after one of length h is

    x̂_n + (h'/2h) (x̂_n - x̂_{n-1}).

With few steps that is what the spread of samples depends on. Of a Gaussian of standard deviation c a first-order step keeps

    cos φ,      φ the angle between (α c, σ) and (α' c, σ'),

of the standard deviation that it should: N equal angles from noise to data leave cos²ᴺ(π/2N) of the variance, 0.61 of it for 5
and 0.88 for 20. The first step alone has nothing to extrapolate from.

**Renewal** replaces part of the noise, so that later steps, which know more, mend early ones:

    x' = α' x̂ + σ' ( k ε̂ + √(1 - k²) ξ ),     k = ((1 - r_t²) / (1 - r_t'²))^renewal,     ξ ~ N(0, I),

as fast as the state comes to know the image: of one of unit variance, x_t tells 1 - r_t² = α²/(α² + σ²). Near data that
hardly grows, and the noise stays: detail that is settled there has few steps left to mend it (Karras et al. add noise between
two levels alone). In the last step all of it stays, for no call of the network would take new noise away.

References:
    Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022 (2M).
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (algorithm 2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from cclight.problem import Problem


class Past(NamedTuple):
    """The estimate of the step before, (B, C, H, W), and the step's length in ln(α/σ)."""

    estimate: Tensor
    span: float


def check_step(order: int, renewal: float) -> None:
    """Refuse settings that make no sense.

    Raises:
        ValueError: naming the value and the expectation.
    """
    if order not in (1, 2):
        raise ValueError(f"order is 1 (Euler) or 2 (Adams-Bashforth), got {order}.")
    if renewal < 0:
        raise ValueError(f"renewal is a number >= 0, got {renewal}.")


def extrapolated(problem: Problem, n: int, estimate: Tensor, past: Past | None, order: int) -> tuple[Tensor, Past | None]:
    """What x̂ is taken for over the step from n to n + 1, (B, C, H, W), and what the next step wants to know of this one.

    Args:
        problem: the problem.
        n: the step.
        estimate: x̂ at time n, (B, C, H, W).
        past: what the step before handed on; None at the first one.
        order: 1 or 2.
    """
    now, after = problem.at(n), problem.at(n + 1)
    if order == 1 or after.sigma == 0:  # a step of infinite length has no middle
        return estimate, None
    known = Past(estimate, math.log(after.alpha / after.sigma * now.sigma / now.alpha))
    if past is None:
        return estimate, known
    return estimate + (estimate - past.estimate) * (0.5 * known.span / past.span), known


def kept_of(problem: Problem, n: int, renewal: float) -> float:
    """K, how much of ε̂ stays from time n to n + 1; `renewal` says how fast the noise is renewed, >= 0."""
    if n + 2 == len(problem.times):
        return 1.0
    known, later = (level.alpha**2 / (level.alpha**2 + level.sigma**2) for level in (problem.at(n), problem.at(n + 1)))
    return (known / later) ** renewal
