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

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.paths.guidance import SCHEDULES, Schedule
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.coefficients import Table, conjugate_table
from cclight.samplers.spectrum import Directions, Perturbed, Projector, Singular, Spectrum, Whole, spectrum_of, weighted
from cclight.samplers.timesteps import Spacing, check_grid, timesteps

Jacobian = Literal["vjp", "none"]
NOISE_MODELS: dict[str, type[Directions]] = {"exact": Singular, "perturbation": Perturbed}


class Steps(NamedTuple):
    """A time grid with its table.

    Attributes:
        times: (steps + 1), where the steps end; the first is where sampling begins.
        starts: (steps), where they begin: earlier than the time before under churn.
        table: the coefficients of each step.
    """

    times: list[float]
    starts: list[float]
    table: Table


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
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.
        noise_model: how σ_y > 0 is treated: "exact", per singular value, or "perturbation", the paper's first-order expansion.
        jacobian: "vjp", or "none" to drop the terms in Jᵀr: one forward pass a step and no backward one, half the time.
        churn: before each step but the first, fresh noise raises the noise-to-signal ratio by this factor less one, >= 0; for
            order 1. 0 is deterministic (Karras et al., NeurIPS 2022, algorithm 2).
        denoise_last: return the denoised estimate x̂_0 of the last state, for one more forward pass, not the state itself.

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
        noise_model: Literal["exact", "perturbation"] = "exact",
        jacobian: Jacobian = "vjp",
        churn: float = 0.0,
        denoise_last: bool = False,
    ) -> None:
        check_grid(steps, t_start, t_end, timesteps)
        check_guidance(guidance, schedule)
        if order not in (1, 2):
            raise ValueError(f"order is 1 (Euler) or 2 (Adams-Bashforth), got {order}.")
        if noise_model not in NOISE_MODELS:
            raise ValueError(f"Unknown noise model {noise_model!r}: choose one of {', '.join(NOISE_MODELS)}.")
        if jacobian not in ("vjp", "none"):
            raise ValueError(f"jacobian is vjp or none, got {jacobian!r}.")
        if churn < 0 or (churn and order != 1):
            raise ValueError(f"churn is a number >= 0, and 0 unless order is 1; got churn={churn} and order={order}.")
        self.steps = steps
        self.guidance = guidance
        self.lam = lam
        self.t_start = t_start
        self.t_end = t_end
        self.order = order
        self.schedule: Schedule = schedule
        self.timesteps: Spacing = timesteps
        self.noise_model: Literal["exact", "perturbation"] = noise_model
        self.jacobian: Jacobian = jacobian
        self.churn = churn
        self.denoise_last = denoise_last
        self._tables: dict[Any, Steps] = {}

    def check(self, problem: Problem) -> None:
        super().check(problem)
        self.spectrum(problem)

    def spectrum(self, problem: Problem) -> Spectrum:
        """The directions of the problem's operator, under the noise model."""
        return spectrum_of(problem.operator, problem.noise_std, problem.noise, NOISE_MODELS[self.noise_model])

    def table(self, problem: Problem, spectrum: Spectrum) -> Steps:
        """The times and coefficients, computed once for every (path, parameterization, directions) and kept."""
        prior = problem.prior
        directions: Any = type(spectrum)
        if not isinstance(spectrum, Projector | Whole):
            shape = tuple(problem.noise.shape[1:])
            directions = (problem.operator, shape, problem.noise_std)
        key = (prior.path, prior.parameterization, directions)
        if key not in self._tables:
            times = timesteps(prior.path, self.steps, self.t_start, self.t_end, self.timesteps)
            starts = times[:-1].clone()
            if self.churn:
                ratio = (prior.path.ratio(times[1:-1]) * (1 + self.churn)).clamp(max=float(prior.path.ratio(times[0])))
                starts[1:] = prior.path.time_at_ratio(ratio)
            table = conjugate_table(
                prior.path,
                prior.parameterization,
                times,
                spectrum.gain,
                self.schedule,
                self.guidance,
                self.lam,
                self.order,
                starts=starts,
                expand=spectrum.expand,
            )
            self._tables[key] = Steps(times.tolist(), starts.tolist(), table)
        return self._tables[key]

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        spectrum = self.spectrum(problem)
        times, starts, table = self.table(problem, spectrum)
        row = {field.name: spectrum.prepare(getattr(table, field.name)) for field in fields(table)}
        pinv_y = problem.operator.pinv(problem.y)
        x = problem.start(times[0], pinv_y)
        before: dict[str, Tensor] = {}
        for n, t in enumerate(starts):
            if t != times[n]:
                x = raise_noise(problem, x, times[n], t)
            now = evaluate(problem, spectrum, row["gain"][n], pinv_y, x, t, self.jacobian)
            terms = [(row[name][n], value) for name, value in now.items()]
            if self.order == 2:
                terms += [(row[f"{name}_before"][n], value) for name, value in before.items()]
                before = now
            x = spectrum.combine(terms)
            del now, terms  # their images would lie beside the next step's graph
            if self.denoise_last and n == len(starts) - 1 and problem.alpha_sigma(times[-1])[1] > 0:
                x = problem.denoise(x, times[-1])
            yield x


def evaluate(
    problem: Problem,
    spectrum: Spectrum,
    gain: Any,
    pinv_y: Tensor,
    x: Tensor,
    t: float,
    jacobian: Jacobian = "vjp",
) -> dict[str, Tensor]:
    """What a step multiplies with the row of its table, by the names of the table's fields: x, N, H⁺y and g = Jᵀ D r.

    Args:
        problem: the problem.
        spectrum: the directions of its operator.
        gain: the prepared row ρ_i(t), for D.
        pinv_y: H⁺y, (B, C, H, W).
        x: the state, (B, C, H, W).
        t: its time.
        jacobian: "none" leaves g out and makes no graph.
    """
    operator = problem.operator
    linear = isinstance(operator, LinearOperator)
    s, o = problem.linear(t)
    now = {"x": x, "target": pinv_y}

    def cotangent(network: Tensor) -> Tensor:
        x_0 = weighted([(s, x), (o, network)])
        residual = pinv_y - operator.project(x_0)
        if not linear:
            now["target"] = residual + x_0
        return spectrum.damp(gain, residual)

    if jacobian == "vjp":
        now["network"], now["vjp"] = problem.network_and_vjp(x, t, cotangent)
    else:
        now["network"] = problem.network(x, t)
        if not linear:
            cotangent(now["network"])
    return now


def raise_noise(problem: Problem, x: Tensor, t: float, earlier: float) -> Tensor:
    """The state x at time t, with fresh noise added that takes it back to an earlier time of the path, (B, C, H, W)."""
    alpha, sigma = problem.alpha_sigma(t)
    alpha_before, sigma_before = problem.alpha_sigma(earlier)
    scale = alpha_before / alpha
    return scale * x + max(0.0, sigma_before**2 - (scale * sigma) ** 2) ** 0.5 * problem.randn()


def check_guidance(guidance: float, schedule: str) -> None:
    """Refuse a guidance weight or schedule that does not exist.

    Raises:
        ValueError: naming the value and the expectation.
    """
    if guidance < 0:
        raise ValueError(f"guidance is a weight >= 0, got {guidance}.")
    if schedule not in SCHEDULES:
        raise ValueError(f"Unknown guidance schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}.")
