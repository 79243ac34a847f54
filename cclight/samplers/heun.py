r"""ConjugateHeun: Heun's method in the conjugate space, two network evaluations a step.

The Euler step of `Conjugate` (see `cclight.samplers.coefficients`) predicts x̃_{n+1}. Then N, H⁺y and g are taken to be linear
in t between their values v_n at x_n and ṽ_{n+1} at x̃_{n+1}, which makes the same integrals second order,

    x_{n+1} = E x_n + E Σ_v [ (Φ_v - Φ'_v) v_n + Φ'_v ṽ_{n+1} ],      Φ'_v = ∫ A (its factor) (t - t_n)/Δt dt.

The last step stays at Euler's, as in Karras et al.: the network is not asked about images without noise.

Reference:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from torch import Tensor

from cclight.paths.guidance import Schedule
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.conjugate import Conjugate, check_guidance, evaluate
from cclight.samplers.spectrum import spectrum_of
from cclight.samplers.timesteps import Spacing, check_grid, timesteps


class ConjugateHeun(Sampler):
    """C-ΠGDM and C-ΠGFM with Heun's steps: 2 · steps - 1 network evaluations, each with one vector-Jacobian product.

    Args:
        steps: steps.
        guidance: the static guidance weight w, >= 0.
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        schedule: how the guidance varies with time, see `cclight.paths.guidance`.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = Conjugate.reference

    def __init__(
        self,
        steps: int = 3,
        guidance: float = 15.0,
        t_start: float = 0.6,
        t_end: float | None = None,
        schedule: Schedule = "alpha2",
        timesteps: Spacing = "uniform",
    ) -> None:
        check_grid(steps, t_start, t_end, timesteps)
        check_guidance(guidance, schedule)
        self.steps = steps
        self.guidance = guidance
        self.t_start = t_start
        self.t_end = t_end
        self.schedule: Schedule = schedule
        self.timesteps: Spacing = timesteps

    def check(self, problem: Problem) -> None:
        super().check(problem)
        spectrum_of(problem.operator, problem.noise_std, problem.noise)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        prior = problem.prior
        spectrum = spectrum_of(problem.operator, problem.noise_std, problem.noise)
        grid = timesteps(prior.path, self.steps, self.t_start, self.t_end, self.timesteps)
        table = conjugate_table(
            prior.path,
            prior.parameterization,
            grid,
            spectrum.gain,
            self.schedule,
            self.guidance,
            0.0,
            2,
            ahead=True,
        )
        columns = {field.name: getattr(table, field.name) for field in fields(table)}
        columns |= {f"{name}_euler": columns[name] + columns[f"{name}_before"] for name in ("x", "network", "target", "vjp")}
        row = {name: spectrum.prepare(column) for name, column in columns.items()}
        times = grid.tolist()
        pinv_y = problem.operator.pinv(problem.y)
        x = problem.start(times[0], pinv_y)
        for n, t in enumerate(times[:-1]):
            now = evaluate(problem, spectrum, row["gain"][n], pinv_y, x, t)
            x = spectrum.combine([(row[f"{name}_euler"][n], value) for name, value in now.items()])
            if n < self.steps - 1:
                ahead = evaluate(problem, spectrum, row["gain"][n + 1], pinv_y, x, times[n + 1])
                terms = [(row[name][n], value) for name, value in now.items()]
                x = spectrum.combine(terms + [(row[f"{name}_before"][n], value) for name, value in ahead.items()])
                del ahead, terms  # and `now` below: their images would lie beside the next step's graph
            del now
            yield x
