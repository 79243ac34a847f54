r"""ConjugateTilt: the network is asked at the state whose denoised estimate agrees with the measurement.

`cclight.samplers.moments` conditions the denoiser on y by one linear correction x̂_y = x̂_0(x_t) + V u. Here the correction goes
into the network's input instead. By the exponential family's identity, moving the state by (σ²/α) η tilts the posterior,

    p(x_0 | x_t + (σ²/α) η)  ∝  p(x_0 | x_t) exp(<η, x_0>),       V = ∂x̂_0/∂η = Cov[x_0 | x_t + (σ²/α) η],

and the multiplier η, in the range of P, is the one whose estimate meets the measurement:

    x̂_y = x̂_0(x_t + (σ²/α) η),        P x̂_y + Σ η = H⁺y,        Σ = σ_y² (HᵀH)⁺.

For a Gaussian prior this is the exact E[x_0 | x_t, y], as moment matching is: V is constant and the first Newton step lands
(the equation becomes (P V P + Σ) η = H⁺y - P x̂_0). For any other prior moment matching stops at that first step, with V at a
state that y says is wrong; the tilt solves the equation, and so lets the measurement choose among the prior's modes.

The multiplier need not be found anew at every noise level. Split it so that the noise which the state happens to carry in the
range of P cancels: with snr = α²/σ² and the gain G = (I + snr Σ)⁻¹ on the range and 0 on the null space,

    η = (α/σ²) G h,     h = α H⁺y - x_t + (σ²/α) ζ,     ζ = (α/σ²) x_t + η - snr P x̂_y.

ζ is -∇ log p(x_0) at x̂_y for a Gaussian: it depends on the image, not on the noise level, and is passed on from step to step.
A step asks the network once, at x_t + G h, and improves on ζ by steepest descent with one vector-Jacobian product: with
q = H⁺y - Σ η - x̂_0, v = r_t² and D = v (v P + Σ)⁻¹ (the gains ρ_i of `cclight.samplers.spectrum`),

    d = D q / v,     κ = <d, q> / (<d, V d> + <d, q - v d>)      (Σ d = (P - D) q; per image)
    e = κ (V - v I) d,     x̂_y = (I - D) (x̂_0 + e) + D (H⁺y - Σ η),     ζ ← ζ + κ d + snr (P - D) (q - e).

(I - D) is the conjugate form of `ConjugateMoments`: for σ_y = 0 the range is exact, however few the steps. Σ η = (I - G) h / α,
so that no small singular value is divided by. ζ starts from 0. `cclight.samplers.exponential` makes the step, with its order
and its renewal of the noise.

References:
    Efron, Tweedie's Formula and Selection Bias, JASA 2011 (the tilt).
    Rozet, Andry, Lanusse, Louppe, Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024 (MMPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.paths.gaussian import GaussianPath
from cclight.problem import Problem
from cclight.samplers.base import Sampler, check_noise_is_spectral, renoise
from cclight.samplers.exponential import Past, check_step, extrapolated, kept_of
from cclight.samplers.grid import Grid, Spacing
from cclight.samplers.moments import ConjugateMoments, check_start
from cclight.samplers.pigdm import gain_rows
from cclight.samplers.spectrum import Gains


class State(NamedTuple):
    """The image, ζ, and at second order what the last step hands on."""

    x: Tensor
    zeta: Tensor
    past: Past | None


@lru_cache(maxsize=64)
def _rows(path: GaussianPath, grid: Grid, gains: Gains) -> Tensor:
    """The gains of G, D and P - D at the time that each step begins, (steps, 3, K), float64 on the CPU."""
    gain = gain_rows(path, grid, gains)
    of_input = gains(path.ratio(grid.times(path, path.first_progress)[:-1]) ** 2)  # G: the gain at 1/snr
    return torch.stack([of_input, gain, torch.where(gain > 0, 1 - gain, 0.0)], dim=1)


@dataclass(frozen=True)
class ConjugateTilt(Sampler):
    """The conjugate form around a network input that agrees with the measurement: no guidance weight to tune.

    One network evaluation and one vector-Jacobian product a step, for linear operators and priors that are
    exact, as GaussianMixture: a trained network is refused. Noisy measurements need a SpectralOperator.

    Args:
        steps: network evaluations.
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise; above 0.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        order: 1 (Euler) or 2 (Adams-Bashforth, at no extra network call).
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        renewal: how fast the noise is renewed, >= 0; 0 is deterministic, large values keep none of it.
    """

    steps: int = 5
    t_start: float = 0.2
    t_end: float | None = None
    order: int = 2
    timesteps: Spacing = "logsnr"
    renewal: float = 0.0

    requires = LinearOperator
    reference = ConjugateMoments.reference

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start(self.t_start)
        check_step(self.order, self.renewal)

    def check(self, problem: Problem) -> None:
        super().check(problem)
        # (P - D) jumps at the singular value 0, where no iteration can tell small values from none.
        check_noise_is_spectral(type(self).__name__, problem)
        if next(problem.prior.parameters(), None) is not None:
            raise TypeError(
                f"ConjugateTilt asks about images that are clean where they are measured, noisy elsewhere; a trained network "
                f"as {type(problem.prior).__name__} has seen none, and its answers leave the range of images: choose "
                f"ConjugateMoments, or GaussianMixture as prior."
            )

    def begin(self, problem: Problem) -> State:
        x = super().begin(problem)
        return State(x, torch.zeros_like(x), None)

    def step(self, problem: Problem, n: int, state: State) -> State:
        spectrum = problem.spectrum
        rows = spectrum.prepare(_rows(problem.prior.path, self.grid, spectrum.gains))[n]
        x, zeta, past = state
        estimate, zeta = _conditioned(problem, rows, problem.at(n).t, x, zeta)
        ahead, past = extrapolated(problem, n, estimate, past, self.order)
        now = problem.at(n)
        x = renoise(problem, n, ahead, now.epsilon(x, ahead), kept_of(problem, n, self.renewal))
        return State(x, zeta, past)


def _conditioned(problem: Problem, rows: Any, t: float, x: Tensor, zeta: Tensor) -> tuple[Tensor, Tensor]:
    """x̂_y of the state x at time t, and ζ improved, both (B, C, H, W); the rows are those of G, D and P - D."""
    of_input, of_residual, of_rest = rows
    level, spectrum, pinv_y = problem.level(t), problem.spectrum, problem.pinv_y
    v = level.sigma**2 / (level.sigma**2 + level.alpha**2)
    lift = level.sigma**2 / level.alpha
    h = level.alpha * pinv_y - x + lift * zeta
    pulled = spectrum.combine([(of_input, h)])
    point = x + pulled
    target = pinv_y - (h - pulled) / level.alpha  # H⁺y - Σ η
    del h, pulled  # they would lie beside the network's graph
    x_0 = direction = x

    def cotangent(network: Tensor) -> Tensor:
        nonlocal x_0, direction
        x_0 = level.s * point + level.o * network
        direction = spectrum.combine([(of_residual, target - x_0)]) / v
        return direction

    _, vjp = problem.network_and_vjp(point, t, cotangent)
    spread = lift * (level.s * direction + level.o * vjp)  # V d
    gap = target - x_0
    length = _quotient(direction, gap, spread + gap - v * direction)
    estimate = x_0 + length * (spread - v * direction)
    gap = target - estimate
    estimate = estimate + spectrum.combine([(of_residual, gap)])
    zeta = zeta + length * direction
    if problem.noise_std:
        zeta = zeta + spectrum.combine([(of_rest, gap)]) * (level.alpha / lift)
    return estimate, zeta


def _quotient(direction: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """<d, a> / <d, b> of each image, at least 0 and 0 where the direction vanishes, (B, 1, ...)."""
    shape = (-1, *[1] * (direction.ndim - 1))
    direction, above, below = direction.flatten(1), above.flatten(1), below.flatten(1)
    tiny = torch.finfo(direction.dtype).tiny
    below = (direction * below).sum(1)
    return torch.where(below > tiny, (direction * above).sum(1).clamp_min(0) / below.clamp_min(tiny), 0.0).view(shape)
