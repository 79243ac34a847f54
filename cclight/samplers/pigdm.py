r"""PiGDM: pseudoinverse guidance as a black box, ΠGDM (diffusion) and ΠGFM (flows).

The baseline that the conjugate integrators are compared with. The same guided ODE,

    ẋ = p x + q N + γ G,     G = s r + o Jᵀ r,   r = D_t (H⁺y - P x̂_0)   (D = P when σ_y = 0),

with G frozen over a step. "exponential" integrates the unconditional part through x̄ = e^{a} x, a = ∫ (λ - p) from t_n (DDIM for
λ = 0),

    x_{n+1} = e^{-Δa} [ (1 + λ Δt) x_n + (∫ e^{a} q dt) N + Δt γ(t_n) G ],

"euler" takes x_{n+1} = x_n + Δt (p x_n + q N + γ G), which is what ΠGFM does.

References:
    Song, Vahdat, Mardani, Kautz, Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023 (equations 7-8).
    Pokle, Muckley, Chen, Karrer, Training-free Linear Image Inversion via Flows, 2023 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.paths.parameterization import Parameterization
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.coefficients import NODES, quadrature
from cclight.samplers.conjugate import check_guidance
from cclight.samplers.spectrum import Spectrum, spectrum_of, weighted
from cclight.samplers.timesteps import Spacing, check_grid, timesteps

Integrator = Literal["exponential", "euler"]


@lru_cache(maxsize=64)
def _steps(
    path: GaussianPath,
    parameterization: Parameterization,
    times: tuple[float, ...],
    schedule: Schedule,
    guidance: float,
    lam: float,
    integrator: Integrator,
) -> list[tuple[float, float, float]]:
    """What multiplies x_n, N and G in each step."""
    nodes, weights, cumulative = quadrature(NODES)
    rows = []
    for start, end in pairwise(times):
        dt = end - start
        first = torch.tensor(start, dtype=torch.float64)
        pull = float(gamma(schedule, guidance, path, first)) * dt
        if integrator == "euler":
            p, q = parameterization.drift(path, first)
            rows.append((1 + dt * float(p), dt * float(q), pull))
            continue
        p, q = parameterization.drift(path, start + dt * nodes)
        growth = float(dt * (weights @ (lam - p)))
        transform = (dt * (cumulative @ (lam - p)) - growth).exp()
        shrink = float(torch.tensor(-growth).exp())
        rows.append((shrink * (1 + lam * dt), float(dt * (weights @ (transform * q))), shrink * pull))
    return rows


class PiGDM(Sampler):
    """ΠGDM and ΠGFM (Song et al. 2023, Pokle et al. 2023).

    Args:
        steps: network evaluations.
        guidance: the static guidance weight w, >= 0.
        lam: λ of the exponential integrator; 0 is DDIM.
        t_start: progress from noise (0) to data (1) at which sampling begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None ends at 0.999 on the VP path and 1 on the OT path.
        schedule: how the guidance varies with time, see `cclight.paths.guidance`: "constant" is ΠGDM, "inverse_variance" ΠGFM.
        integrator: "exponential" (ΠGDM) or "euler" (ΠGFM).
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@inproceedings{song2023pseudoinverse,
  title = {Pseudoinverse-Guided Diffusion Models for Inverse Problems},
  author = {Song, Jiaming and Vahdat, Arash and Mardani, Morteza and Kautz, Jan},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""

    def __init__(
        self,
        steps: int = 20,
        guidance: float = 1.0,
        lam: float = 0.0,
        t_start: float = 0.6,
        t_end: float | None = None,
        schedule: Schedule = "constant",
        integrator: Integrator = "exponential",
        timesteps: Spacing = "uniform",
    ) -> None:
        check_grid(steps, t_start, t_end, timesteps)
        check_guidance(guidance, schedule)
        if integrator not in ("exponential", "euler"):
            raise ValueError(f"Unknown integrator {integrator!r}: choose exponential or euler.")
        self.steps = steps
        self.guidance = guidance
        self.lam = lam
        self.t_start = t_start
        self.t_end = t_end
        self.schedule: Schedule = schedule
        self.integrator: Integrator = integrator
        self.timesteps: Spacing = timesteps

    def check(self, problem: Problem) -> None:
        super().check(problem)
        spectrum_of(problem.operator, problem.noise_std, problem.noise)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        path = problem.prior.path
        grid = timesteps(path, self.steps, self.t_start, self.t_end, self.timesteps)
        times = grid.tolist()
        rows = _steps(
            path,
            problem.prior.parameterization,
            tuple(times),
            self.schedule,
            self.guidance,
            self.lam,
            self.integrator,
        )
        spectrum = spectrum_of(problem.operator, problem.noise_std, problem.noise)
        gains = spectrum.prepare(spectrum.gain(posterior_variance(path, grid[:-1])))
        pinv_y = problem.operator.pinv(problem.y)
        x = problem.start(times[0], pinv_y)
        for n, t in enumerate(times[:-1]):
            x = step(problem, spectrum, gains[n], rows[n], pinv_y, x, t)
            yield x


def step(
    problem: Problem,
    spectrum: Spectrum,
    gain: Any,
    row: tuple[float, float, float],
    pinv_y: Tensor,
    x: Tensor,
    t: float,
) -> Tensor:
    """The next state, (B, C, H, W). A function of its own, so that nothing of a step lies beside the next one's graph.

    Args:
        problem: the problem.
        spectrum: the directions of its operator.
        gain: the prepared row ρ_i(t), for D.
        row: what multiplies x, N and G.
        pinv_y: H⁺y, (B, C, H, W).
        x: the state, (B, C, H, W).
        t: its time.
    """
    s, o = problem.linear(t)
    residual = x

    def cotangent(network: Tensor) -> Tensor:
        nonlocal residual
        residual = spectrum.damp(gain, pinv_y - problem.operator.project(weighted([(s, x), (o, network)])))
        return residual

    network, vjp = problem.network_and_vjp(x, t, cotangent)
    of_x, of_network, of_guidance = row
    return weighted([(of_x, x), (of_network, network), (of_guidance * s, residual), (of_guidance * o, vjp)])
