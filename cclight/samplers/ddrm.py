r"""DDRM: ancestral sampling separately in every singular direction of the operator.

In the basis of H = U S Vᵀ (a bar is Vᵀ) the measurement says of x̄_0,i that it is ȳ_i = (S⁺Uᵀy)_i = (Vᵀ H⁺ y)_i, up to noise of
standard deviation σ_y/s_i. From t to s, with ε̂ = (x_t - α_t x̂_0)/σ_t and z ~ N(0, I),

    σ_s/α_s > σ_y/s_i:  x̄_s = α_s [ (1 - η_b) x̂_0 + η_b ȳ ] + √(σ_s² - (α_s η_b σ_y/s_i)²) z      noisier than the measurement
    σ_s/α_s < σ_y/s_i:  x̄_s = α_s x̂_0 + σ_s [ √(1 - η²) (ȳ - x̂_0) s_i/σ_y + η z ]                 cleaner
    s_i = 0:            x̄_s = α_s x̂_0 + σ_s [ √(1 - η²) ε̂ + η z ]                                 not measured

It starts from x̄ = α ȳ + √(σ² - (α σ_y/s_i)²) z where the measurement is cleaner than the start, and from σ z elsewhere. The
last state, σ_s = 0, is x̂_0 itself when σ_y = 0.

Reference:
    Kawar, Elad, Ermon, Song, Denoising Diffusion Restoration Models, NeurIPS 2022 (equations 7-8 and appendix B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cclight.operators.base import SpectralOperator
from cclight.problem import Level, Problem
from cclight.samplers.base import FromNoise, renoise


class State(NamedTuple):
    """The image; ȳ, s/σ_y, and what each time asks of the singular directions, all of them in the spectrum."""

    x: Tensor
    y: Tensor
    pull: Tensor
    rows: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DDRM(FromNoise):
    """DDRM (Kawar et al. 2022), noiseless and noisy. One network evaluation a step, no gradient.

    Args:
        steps: network evaluations.
        eta: η in [0, 1], how much fresh noise a step draws in directions that are not measured, or measured less well than
            they are known.
        eta_b: η_b in [0, 1], how much of the measurement replaces the estimate in the others.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    requires = SpectralOperator
    reference = """@inproceedings{kawar2022denoising,
  title = {Denoising Diffusion Restoration Models},
  author = {Kawar, Bahjat and Elad, Michael and Ermon, Stefano and Song, Jiaming},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(f"eta and eta_b lie between 0 and 1, got {self.eta} and {self.eta_b}.")

    def begin(self, problem: Problem) -> State:
        operator, noise_std, like = problem.operator, problem.noise_std, problem.noise
        assert isinstance(operator, SpectralOperator)  # by `requires`
        s = operator.singular_values(tuple(like.shape[1:]))
        level = torch.where(s > 0, noise_std / s, torch.inf)  # σ_y/s_i; infinite where nothing is measured
        pull = (s / noise_std if noise_std > 0 else torch.zeros_like(s)).to(like)
        y = operator.spectral(problem.pinv_y)
        # All of them before the first step: they are computed in float64 on the CPU.
        rows = [_noisier(problem.at(n), level, self.eta_b if n else 1.0, like) for n in range(len(problem.times))]
        first = problem.at(0)
        noisier, spread = rows[0]
        x = operator.from_spectral(torch.where(noisier, first.alpha * y + spread * like, first.sigma * like))
        return State(x, y, pull, rows)

    def step(self, problem: Problem, n: int, state: State) -> State:
        operator, now = problem.operator, problem.at(n)
        assert isinstance(operator, SpectralOperator)
        x, y, pull, rows = state
        estimate = problem.denoise(x, now.t)
        x_0, epsilon = operator.spectral(torch.cat([estimate, now.epsilon(x, estimate)])).chunk(2)
        z = problem.randn()
        noisier, spread = rows[n + 1]
        direction = torch.where(pull > 0, (y - x_0) * pull, epsilon)
        cleaner_or_unmeasured = renoise(problem, n, x_0, direction, math.sqrt(1 - self.eta**2), z)
        toward_y = problem.at(n + 1).alpha * ((1 - self.eta_b) * x_0 + self.eta_b * y) + spread * z
        return State(operator.from_spectral(torch.where(noisier, toward_y, cleaner_or_unmeasured)), y, pull, rows)


def _noisier(time: Level, level: Tensor, eta_b: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the state is noisier than the measurement, and there the noise √(σ² - (α η_b σ_y/s_i)²) that is left to draw."""
    noisier = time.sigma > time.alpha * level
    spread = torch.where(noisier, (time.sigma**2 - (time.alpha * eta_b * level) ** 2).clamp_min(0).sqrt(), 0)
    return noisier.to(like.device), spread.to(like)
