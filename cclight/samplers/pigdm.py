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

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.paths.parameterization import Parameterization
from cclight.problem import Problem
from cclight.samplers.base import Sampler, check_guidance
from cclight.samplers.coefficients import NODES, quadrature
from cclight.samplers.grid import Grid, Spacing
from cclight.samplers.spectrum import Gains, weighted

Integrator = Literal["exponential", "euler"]


@lru_cache(maxsize=64)
def _rows(
    path: GaussianPath,
    parameterization: Parameterization,
    grid: Grid,
    schedule: Schedule,
    guidance: float,
    lam: float,
    integrator: Integrator,
) -> list[tuple[float, float, float]]:
    """What multiplies x_n, N and G in each step."""
    nodes, weights, cumulative = quadrature(NODES)
    rows = []
    for start, end in pairwise(grid.times(path, path.first_progress)):
        dt = float(end - start)
        pull = float(gamma(schedule, guidance, path, start)) * dt
        if integrator == "euler":
            p, q = parameterization.drift(path, start)
            rows.append((1 + dt * float(p), dt * float(q), pull))
            continue
        p, q = parameterization.drift(path, start + dt * nodes)
        growth = float(dt * (weights @ (lam - p)))
        transform = (dt * (cumulative @ (lam - p)) - growth).exp()
        shrink = float(torch.tensor(-growth).exp())
        rows.append((shrink * (1 + lam * dt), float(dt * (weights @ (transform * q))), shrink * pull))
    return rows


@lru_cache(maxsize=64)
def gain_rows(path: GaussianPath, grid: Grid, gains: Gains) -> Tensor:
    """ρ_i at the time that each step begins, (steps, K), float64 on the CPU."""
    return gains(posterior_variance(path, grid.times(path, path.first_progress)[:-1]))


class Guidance(NamedTuple):
    """N, r = D (H⁺y - P x̂_0) and Jᵀ r at a state, each (B, C, H, W)."""

    network: Tensor
    residual: Tensor
    vjp: Tensor


def guide(problem: Problem, gain: Any, x: Tensor, t: float) -> Guidance:
    """The network and the guidance at a state, from one evaluation and one vector-Jacobian product.

    Args:
        problem: the problem.
        gain: the prepared ρ_i(t), for D.
        x: the state, (B, C, H, W).
        t: its time.
    """
    level, spectrum = problem.level(t), problem.spectrum
    residual = x

    def cotangent(network: Tensor) -> Tensor:
        nonlocal residual
        x_0 = weighted([(level.s, x), (level.o, network)])
        residual = spectrum.damp(gain, spectrum.measured(problem) - spectrum.seen(problem, x_0))
        return residual

    network, vjp = problem.network_and_vjp(x, t, cotangent)
    return Guidance(network, residual, vjp)


@dataclass(frozen=True)
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
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
    """

    steps: int = 20
    guidance: float = 1.0
    lam: float = 0.0
    t_start: float = 0.6
    t_end: float | None = None
    schedule: Schedule = "constant"
    integrator: Integrator = "exponential"
    timesteps: Spacing = "uniform"

    reference = """@inproceedings{song2023pseudoinverse,
  title = {Pseudoinverse-Guided Diffusion Models for Inverse Problems},
  author = {Song, Jiaming and Vahdat, Arash and Mardani, Morteza and Kautz, Jan},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guidance(self.guidance, self.schedule)
        if self.integrator not in ("exponential", "euler"):
            raise ValueError(f"Unknown integrator {self.integrator!r}: choose exponential or euler.")

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        path, spectrum, level = problem.prior.path, problem.spectrum, problem.at(n)
        settings = self.schedule, self.guidance, self.lam, self.integrator
        of_x, of_network, of_guidance = _rows(path, problem.prior.parameterization, self.grid, *settings)[n]
        gain = spectrum.prepare(gain_rows(path, self.grid, spectrum.gains))[n]
        network, residual, vjp = guide(problem, gain, state, level.t)
        of_residual, of_vjp = of_guidance * level.s, of_guidance * level.o
        return weighted([(of_x, state), (of_network, network), (of_residual, residual), (of_vjp, vjp)])
