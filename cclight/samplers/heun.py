r"""ConjugateHeun: Heun's method in the conjugate space, two network evaluations a step.

The Euler step of `Conjugate` (see `cclight.samplers.coefficients`) predicts x̃_{n+1}. Then N, H⁺y and g are taken to be linear
in t between their values v_n at x_n and ṽ_{n+1} at x̃_{n+1}, which makes the same integrals second order,

    x_{n+1} = E x_n + Σ_v [ (Φ_v - Φ'_v) v_n + Φ'_v ṽ_{n+1} ].

The last step stays at Euler's, as in Karras et al.: the network is not asked about images without noise.

Reference:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cclight.paths.guidance import Schedule
from cclight.priors.base import Prior
from cclight.problem import Problem
from cclight.samplers.base import Sampler, check_guidance
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.conjugate import Conjugate, conjugate_grid, evaluate, stiff_in_x, terms
from cclight.samplers.grid import Grid, Spacing


@dataclass(frozen=True)
class ConjugateHeun(Sampler):
    """C-ΠGDM and C-ΠGFM with Heun's steps: 2 · steps - 1 network evaluations, each with one vector-Jacobian product.

    Args:
        steps: steps.
        guidance: the static guidance weight w, >= 0.
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        schedule: how the guidance varies with time, see `cclight.paths.guidance`.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
    """

    steps: int = 3
    guidance: float = 15.0
    t_start: float = 0.6
    t_end: float | None = None
    schedule: Schedule = "alpha2"
    timesteps: Spacing = "uniform"

    reference = Conjugate.reference

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guidance(self.guidance, self.schedule)

    @property
    def grid(self) -> Grid:
        return conjugate_grid(super().grid, self.schedule)

    def along(self, prior: Prior) -> Prior:
        return stiff_in_x(prior)

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        prior, spectrum, times = problem.prior, problem.spectrum, problem.times
        table = conjugate_table(prior.path, prior.parameterization, self.grid, spectrum.gains, self.schedule, self.guidance)
        gain = spectrum.prepare(table.gain)
        now = evaluate(problem, gain[n], state, times[n])
        x = spectrum.combine(terms(spectrum, spectrum.prepare(table.phi)[n], now))
        if n == self.steps - 1:
            return x
        ahead = evaluate(problem, gain[n + 1], x, times[n + 1])
        of_now, of_ahead = (spectrum.prepare(weights)[n] for weights in table.heun)
        return spectrum.combine(terms(spectrum, of_now, now) + terms(spectrum, of_ahead, ahead))
