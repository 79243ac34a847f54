r"""Conjugate: the conditional conjugate integrators C-ΠGDM (diffusion) and C-ΠGFM (flows), one algorithm for both.

The ΠGDM-guided ODE

    ẋ = p x + q N + γ [ s r + o Jᵀ r ],     r = H⁺y - P x̂_0,   J = ∂N/∂x_t,

is stiff through the part of r that is linear in x, and that part is known in closed form. The integrator moves it, with the
drift p, into a transform x̄ = A_t x in which the network's output is all that is left to integrate numerically, and takes Euler
steps there: see `cclight.samplers.coefficients` for the step and `cclight.samplers.spectrum` for the noisy measurement.

On `VPPath` with ε this is C-ΠGDM, on `OTPath` with the velocity C-ΠGFM; every other path and parameterization works as well.
One network evaluation and one vector-Jacobian product a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal

from torch import Tensor

from cclight.guidance import SCHEDULES, Schedule
from cclight.operators.base import LinearOperator
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.coefficients import Table, conjugate_table
from cclight.samplers.spectrum import Projector, Spectrum, Whole, spectrum_of
from cclight.samplers.timesteps import Spacing, check_grid, timesteps


class Conjugate(Sampler):
    """C-ΠGDM and C-ΠGFM (Pandey, Yang, Mandt, NeurIPS 2024).

    Args:
        steps: network evaluations.
        guidance: the static guidance weight w, >= 0; 0 samples without looking at the measurement (DDIM on the VP path).
        lam: λ, the linear drift left in the transformed space; the paper tunes it in [-1, 1].
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        order: 1 (Euler, the paper's) or 2 (Adams-Bashforth, at no extra network call).
        schedule: how the guidance varies with time, see `cclight.guidance`.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.
        noise_model: how σ_y > 0 is treated: "exact", per singular value.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@inproceedings{pandey2024fast,
  title = {Fast Samplers for Inverse Problems in Iterative Refinement Models},
  author = {Pandey, Kushagra and Yang, Ruihan and Mandt, Stephan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024}
}"""

    def __init__(
        self,
        steps: int = 5,
        guidance: float = 15.0,
        lam: float = 0.0,
        t_start: float = 0.6,
        t_end: float | None = None,
        order: int = 1,
        schedule: Schedule = "alpha2",
        timesteps: Spacing = "uniform",
        noise_model: Literal["exact"] = "exact",
    ) -> None:
        check_grid(steps, t_start, t_end, timesteps)
        check_guidance(guidance, schedule)
        if order not in (1, 2):
            raise ValueError(f"order is 1 (Euler) or 2 (Adams-Bashforth), got {order}.")
        if noise_model != "exact":
            raise ValueError(f"Unknown noise model {noise_model!r}: choose exact.")
        self.steps = steps
        self.guidance = guidance
        self.lam = lam
        self.t_start = t_start
        self.t_end = t_end
        self.order = order
        self.schedule: Schedule = schedule
        self.timesteps: Spacing = timesteps
        self.noise_model = noise_model
        self._tables: dict[Any, tuple[list[float], Table]] = {}

    def check(self, problem: Problem) -> None:
        super().check(problem)
        spectrum_of(problem.operator, problem.noise_std, problem.noise)

    def table(self, problem: Problem, spectrum: Spectrum) -> tuple[list[float], Table]:
        """The times and coefficients, computed once for every (path, parameterization, directions) and kept."""
        prior = problem.prior
        directions: Any = type(spectrum)
        if not isinstance(spectrum, Projector | Whole):
            shape = tuple(problem.noise.shape[1:])
            directions = (problem.operator, shape, problem.noise_std)
        key = (prior.path, prior.parameterization, directions)
        if key not in self._tables:
            times = timesteps(prior.path, self.steps, self.t_start, self.t_end, self.timesteps)
            table = conjugate_table(
                prior.path,
                prior.parameterization,
                times,
                spectrum.gain,
                self.schedule,
                self.guidance,
                self.lam,
                self.order,
            )
            self._tables[key] = times.tolist(), table
        return self._tables[key]

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        operator = problem.operator
        linear = isinstance(operator, LinearOperator)
        spectrum = spectrum_of(operator, problem.noise_std, problem.noise)
        times, table = self.table(problem, spectrum)
        row = {field.name: spectrum.prepare(getattr(table, field.name)) for field in fields(table)}
        pinv_y = operator.pinv(problem.y)
        x = problem.start(times[0], pinv_y)
        before: dict[str, Tensor] = {}
        for n, t in enumerate(times[:-1]):
            s, o = problem.linear(t)
            now = {"x": x, "target": pinv_y}

            def cotangent(network: Tensor, n: int = n, s: float = s, o: float = o, now: dict[str, Tensor] = now) -> Tensor:
                x_0 = s * now["x"] + o * network
                residual = pinv_y - operator.project(x_0)
                if not linear:
                    now["target"] = residual + x_0
                return spectrum.combine([(row["gain"][n], residual)]) if problem.noise_std and linear else residual

            now["network"], now["vjp"] = problem.network_and_vjp(x, t, cotangent)
            terms = [(row[name][n], value) for name, value in now.items()]
            if self.order == 2:
                terms += [(row[f"{name}_before"][n], value) for name, value in before.items()]
                before = now
            x = spectrum.combine(terms)
            yield x


def check_guidance(guidance: float, schedule: str) -> None:
    """Refuse a guidance weight or schedule that does not exist.

    Raises:
        ValueError: naming the value and the expectation.
    """
    if guidance < 0:
        raise ValueError(f"guidance is a weight >= 0, got {guidance}.")
    if schedule not in SCHEDULES:
        raise ValueError(f"Unknown guidance schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}.")
