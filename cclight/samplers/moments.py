r"""ConjugateMoments: the conditional conjugate integrator with the posterior covariance that the denoiser itself implies.

ΠGDM takes Cov[x_0 | x_t] for r_t² I and mends what that gets wrong with a guidance weight. Tweedie's second formula gives it,

    V = Cov[x_0 | x_t] = (σ²/α) ∂x̂_0/∂x_t,         V u = (σ²/α) (s u + o Jᵀ u)      (one vector-Jacobian product).

With the residual r = H⁺y - P x̂_0 and Σ = σ_y² (HᵀH)⁺, the covariance of H⁺y, moment matching conditions the denoiser on y,

    x̂_y = E[x_0 | x_t, y] = x̂_0 + V u,          (P V P + Σ) u = r,    u in the range of P,

and the conditional ODE ẋ = (σ̇/σ) x + c x̂_y needs no weight. With V = v I + (V - v I) for any v > 0 and D = v (v P + Σ)⁻¹ on the
range and 0 on the null space (the gains ρ_i of `cclight.samplers.spectrum` for v = r_t²), r - Σu = P V P u turns x̂_y into

    x̂_y = (I - D) ( x̂_0 + e ) + D H⁺y,          e = (V - v I) u.

This is where the conjugate form comes in: of the range, only (I - D) is left to what the network and the solver say, and for
σ_y = 0 nothing is. There the ODE is solved exactly by P x_t = α H⁺y + σ P ε, however few the steps; V u acts on the null space
alone, where it carries what the measured part says of the rest: the term that r_t² I lacks.

A guidance weight w multiplies e. w = 1 is the conditional mean, right for whoever wants the posterior or the least squared
error. Few steps and a mean leave photographs smoother than they are; a w of 2 to 3 makes more of what the measured part says of
the rest, which looks sharper at 0.1 to 0.2 dB less. `renewal` (`cclight.samplers.exponential`) gives as much back. And where
the path is left before its end, smooth parts keep a grain as photographs have it, of the noise ε̂ that the network sees no image
in. Together that is nearer to the truth and sharper, with about the same settings for every task (benchmarks/README.md). Of
what the measurement tells, by D, the last step leaves x̂_y alone, without grain.

MMPS solves for u with a Krylov method, one product an iteration, and takes one more for V u. One iteration in a direction d,
the exact one if V were as presumed, needs one product in all: V is linear, so V d gives the step's length and V u,

    u = κ d,    κ w = r in least squares for each image,    w = (P V P + Σ) d.

`cclight.samplers.covariances` says what is presumed: v = r_t² where there is no noise; where there is, a v for each singular
direction, from the measurement itself.

A step of `cclight.samplers.exponential` with x̂_y costs a network evaluation and a vector-Jacobian product, as Conjugate's does.
Of order 2 its samples of few steps are as far apart as they should be, those of order 1 too close.

References:
    Rozet, Andry, Lanusse, Louppe, Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024 (MMPS).
    Boys et al., Tweedie Moment Projected Diffusions for Inverse Problems, TMLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.problem import Problem
from cclight.samplers.absorbed import Absorbed
from cclight.samplers.base import Sampler, check_guidance
from cclight.samplers.covariances import Covariance, covariance_of
from cclight.samplers.exponential import Past, check_step, extrapolated, kept_of
from cclight.samplers.grid import Spacing
from cclight.samplers.spectrum import weighted


class State(NamedTuple):
    """The image, at second order what the last step hands on, and what V is presumed to be."""

    x: Tensor
    past: Past | None
    covariance: Covariance


@dataclass(frozen=True)
class ConjugateMoments(Sampler):
    """The conjugate form with the denoiser's own covariance, which needs no guidance weight and takes one.

    One network evaluation and one vector-Jacobian product a step, for linear operators.

    Args:
        steps: network evaluations.
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise; above 0.
            With `absorb_noise` y's own noise may ask for an earlier start.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        guidance: w >= 0, the weight of what the measured part says of the rest: 1 for the posterior's mean, 2 to 3 for looks.
        order: 1 (Euler), or 2 (Adams-Bashforth, at no extra network call) for samples whose spread can be believed; it wants
            `timesteps` of "logsnr".
        renewal: how fast the noise is renewed, >= 0; 0 is deterministic. Of restored photographs more is closer and less sharp.
        absorb_noise: whether y's noise counts as the path's own (`cclight.samplers.absorbed`): nearer to the truth and sharper
            for who wants one restoration, and no sample of the posterior. The network is called last where that noise is all.
            It changes nothing where σ_y = 0.
    """

    steps: int = 5
    t_start: float = 0.1
    t_end: float | None = None
    timesteps: Spacing = "logsnr"
    guidance: float = 1.0
    order: int = 1
    renewal: float = 0.0
    absorb_noise: bool = False

    requires = LinearOperator
    reference = """@inproceedings{rozet2024learning,
  title = {Learning Diffusion Priors from Observations by Expectation Maximization},
  author = {Rozet, Fran{\\c{c}}ois and Andry, G{\\'e}r{\\^o}me and Lanusse, Fran{\\c{c}}ois and Louppe, Gilles},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start(self.t_start)
        check_guidance(self.guidance)
        check_step(self.order, self.renewal)

    def begin(self, problem: Problem) -> State:
        covariance: Covariance
        if self.absorb_noise and problem.noise_std > 0 and not problem.rounded:
            covariance = Absorbed(problem, self.grid)
            return State(covariance.begin(), None, covariance)
        covariance = covariance_of(problem, self.grid)
        return State(problem.start(problem.times[0], covariance.guess()), None, covariance)

    def step(self, problem: Problem, n: int, state: State) -> State:
        x, past, covariance = state
        estimate = conditioned(problem, covariance, n, x, self.guidance)
        ahead, known = extrapolated(problem, n, estimate, past, self.order)
        return State(covariance.advance(n, x, ahead, kept_of(problem, n, self.renewal)), known, covariance)


def check_start(t_start: float) -> None:
    """Refuse to begin at pure noise.

    Raises:
        ValueError: for t_start = 0.
    """
    if t_start <= 0:
        raise ValueError(f"t_start is above 0, where the state still says something of the image; got {t_start}.")


def conditioned(problem: Problem, covariance: Covariance, n: int, x: Tensor, guidance: float) -> Tensor:
    """x̂_y = E[x_0 | x_t, y] by moment matching, (B, C, H, W), from one evaluation and one vector-Jacobian product.

    Args:
        problem: the problem.
        covariance: what V is presumed to be.
        n: the step.
        x: the state, (B, C, H, W).
        guidance: the weight of e; 1 for the mean itself.
    """
    level = problem.at(n)
    residual: Tensor = x
    direction: tuple[Tensor, ...] = (x,)

    def cotangent(network: Tensor) -> Tensor:
        nonlocal residual, direction
        residual = covariance.residual(weighted([(level.s, x), (level.o, network)]))
        direction = covariance.direction(n, residual)
        return direction[0]

    network, vjp = problem.network_and_vjp(x, level.t, cotangent)
    lift = level.sigma**2 / level.alpha
    spread = weighted([(lift * level.s, direction[0]), (lift * level.o, vjp)])  # V d
    estimate = weighted([(level.s, x), (level.o, network)])
    return covariance.condition(n, estimate, spread, residual, direction, guidance)
