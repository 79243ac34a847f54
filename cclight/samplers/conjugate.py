r"""Conjugate: the conditional conjugate integrators C-ΠGDM (diffusion) and C-ΠGFM (flows), one algorithm for both.

The ΠGDM-guided ODE

    ẋ = p x + q N + γ [ s r + o Jᵀ r ],     r = H⁺y - P x̂_0,   J = ∂N/∂x_t,

is stiff through the part of r that is linear in x, and that part is known in closed form. The integrator moves it, with the
drift p, into a transform x̄ = A_t x in which the network's output is all that is left to integrate numerically, and takes Euler
steps there: see `cclight.samplers.coefficients` for the step and `cclight.samplers.spectrum` for the noisy measurement.

On `VPPath` with ε this is C-ΠGDM, on `OTPath` with the velocity C-ΠGFM; every other path and parameterization works as well.
One network evaluation and one vector-Jacobian product a step, or no such product with jacobian="none".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.paths.gaussian import OTPath
from cclight.paths.guidance import Schedule
from cclight.paths.parameterization import Epsilon, Velocity
from cclight.priors.base import Prior
from cclight.priors.recast import Recast
from cclight.problem import Problem
from cclight.samplers.base import Sampler, check_guidance
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.grid import Grid, Spacing
from cclight.samplers.spectrum import Spectrum, weighted

Jacobian = Literal["vjp", "none"]
LAST = 0.999  # where integrals that have none up to data end


class Evaluation(NamedTuple):
    """What a step multiplies with the rows of its table: x, N, `Spectrum.target` and g = Jᵀ D r; g None without it."""

    x: Tensor
    network: Tensor
    target: Tensor
    vjp: Tensor | None


class State(NamedTuple):
    """The image, and at second order the evaluation that it comes from."""

    x: Tensor
    before: Evaluation | None = None


@dataclass(frozen=True)
class Conjugate(Sampler):
    """C-ΠGDM and C-ΠGFM (Pandey, Yang, Mandt, NeurIPS 2024).

    Args:
        steps: network evaluations.
        guidance: the static guidance weight w, >= 0; 0 samples without looking at the measurement (DDIM on the VP path).
        lam: λ, the linear drift left in the transformed space; the paper tunes it in [-1, 1].
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        order: 1 (Euler, the paper's) or 2 (Adams-Bashforth, at no extra network call).
        schedule: how the guidance varies with time, see `cclight.paths.guidance`.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        jacobian: "vjp", or "none" to drop the terms in Jᵀr: one forward pass a step and no backward one, half the time.
        churn: before each step but the first, fresh noise raises the noise-to-signal ratio by this factor less one, >= 0; for
            order 1. 0 is deterministic (Karras et al., NeurIPS 2022, algorithm 2).
    """

    steps: int = 5
    guidance: float = 15.0
    lam: float = 0.0
    t_start: float = 0.6
    t_end: float | None = None
    order: int = 1
    schedule: Schedule = "alpha2"
    timesteps: Spacing = "uniform"
    jacobian: Jacobian = "vjp"
    churn: float = 0.0

    reference = """@inproceedings{pandey2024fast,
  title = {Fast Samplers for Inverse Problems in Iterative Refinement Models},
  author = {Pandey, Kushagra and Yang, Ruihan and Mandt, Stephan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guidance(self.guidance, self.schedule)
        if self.order not in (1, 2):
            raise ValueError(f"order is 1 (Euler) or 2 (Adams-Bashforth), got {self.order}.")
        if self.jacobian not in ("vjp", "none"):
            raise ValueError(f"jacobian is vjp or none, got {self.jacobian!r}.")
        if self.churn < 0 or (self.churn and self.order != 1):
            raise ValueError(f"churn is a number >= 0, and 0 unless order is 1; got churn={self.churn} and order={self.order}.")

    @property
    def grid(self) -> Grid:
        return conjugate_grid(super().grid, self.schedule)

    def along(self, prior: Prior) -> Prior:
        return stiff_in_x(prior)

    def begin(self, problem: Problem) -> State:
        return State(super().begin(problem))

    def step(self, problem: Problem, n: int, state: State) -> State:
        prior, spectrum = problem.prior, problem.spectrum
        table = conjugate_table(
            prior.path,
            prior.parameterization,
            self.grid,
            spectrum.gains,
            self.schedule,
            self.guidance,
            self.lam,
            self.churn,
        )
        x, before = state
        if self.churn and n:
            x = raise_noise(problem, x, problem.times[n], table.starts[n])
        now = evaluate(problem, spectrum.prepare(table.gain)[n], x, table.starts[n], self.jacobian)
        if self.order == 1:
            return State(spectrum.combine(terms(spectrum, spectrum.prepare(table.phi)[n], now)))
        of_now, of_before = (spectrum.prepare(weights)[n] for weights in table.adams_bashforth)
        earlier = terms(spectrum, of_before, before) if before else []
        return State(spectrum.combine(terms(spectrum, of_now, now) + earlier), now)


def conjugate_grid(grid: Grid, schedule: Schedule) -> Grid:
    """The grid of a conjugate integrator: ω = w/r² has no integral up to the clean image, where r vanishes.

    Raises:
        ValueError: for such a schedule up to there.
    """
    if schedule != "inverse_variance":
        return grid
    if grid.t_end is not None and grid.t_end > LAST:
        raise ValueError(
            f"schedule inverse_variance grows without bound toward data: t_end is at most {LAST}, got {grid.t_end}."
        )
    return replace(grid, t_end=grid.t_end or LAST)


def stiff_in_x(prior: Prior) -> Prior:
    """The prior under a parameterization that shows the integrator how x̂_0 follows x: ε, or the velocity of a straight path.

    With x_0 as the network's output, s = 0 hides all of the stiffness from the transform; the velocity of the VP path, part.
    """
    straight = isinstance(prior.path, OTPath) and isinstance(prior.parameterization, Velocity)
    return prior if straight or isinstance(prior.parameterization, Epsilon) else Recast(prior, Epsilon())


def terms(spectrum: Spectrum, weights: Any, values: Evaluation) -> list[tuple[Any, Tensor]]:
    """Pairs for `Spectrum.combine`: a step's prepared weights (one of each row), and what they multiply."""
    of_x, of_network, of_target, of_vjp = weights
    pairs = [(of_x, values.x), (of_network, values.network), (spectrum.of_target(of_target), values.target)]
    return pairs if values.vjp is None else [*pairs, (of_vjp, values.vjp)]


def evaluate(problem: Problem, gain: Any, x: Tensor, t: float, jacobian: Jacobian = "vjp") -> Evaluation:
    """The network and its product at a state.

    Args:
        problem: the problem.
        gain: the prepared ρ_i(t), for D.
        x: the state, (B, C, H, W).
        t: its time.
        jacobian: "none" leaves g out and makes no graph.
    """
    spectrum, level = problem.spectrum, problem.level(t)
    linear = isinstance(problem.operator, LinearOperator)
    target = spectrum.target(problem)

    def cotangent(network: Tensor) -> Tensor:
        nonlocal target
        x_0 = weighted([(level.s, x), (level.o, network)])
        residual = spectrum.measured(problem) - spectrum.seen(problem, x_0)
        if not linear:
            target = residual + x_0
        return spectrum.damp(gain, residual)

    if jacobian == "vjp":
        network, vjp = problem.network_and_vjp(x, t, cotangent)
        return Evaluation(x, network, target, vjp)
    network = problem.network(x, t)
    if not linear:
        cotangent(network)
    return Evaluation(x, network, target, None)


def raise_noise(problem: Problem, x: Tensor, t: float, earlier: float) -> Tensor:
    """The state x at time t, with fresh noise added that takes it back to an earlier time of the path, (B, C, H, W)."""
    now, before = problem.level(t), problem.level(earlier)
    scale = before.alpha / now.alpha
    return scale * x + max(0.0, before.sigma**2 - (scale * now.sigma) ** 2) ** 0.5 * problem.randn()
