r"""DDNM: what the measurement says of every estimate is put in its place, and the null space left to the prior.

From t to s, with the network's own ε̂ = (x_t - α_t x̂_0)/σ_t and z ~ N(0, I),

    x_s = α_s (x̂_0 + H⁺y - P x̂_0) + σ_s [ √(1 - η²) ε̂ + η z ].

(With the ε̂ that the corrected estimate leaves it would be `cclight.samplers.diffpir` without noise.) The last state, σ_s = 0,
meets the measurement. Under a nonlinear operator that is a heuristic, x̂_0 + h†(y) - h†(h(x̂_0)).

Noise reaches the singular direction i with standard deviation σ_y/s_i. DDNM+ scales the correction there by λ_i and draws noise
of variance φ_i, so that all noise in x_s together, (α_s λ_i σ_y/s_i)² + φ_i, is σ_s² as the path wants it:

    σ_s/α_s > σ_y/s_i:  λ_i = 1,                              φ_i = σ_s² - (α_s σ_y/s_i)²
    σ_s/α_s < σ_y/s_i:  λ_i = √(1 - η²) σ_s s_i/(α_s σ_y),    φ_i = η² σ_s²
    s_i = 0:            nothing to correct;  σ_s [ √(1 - η²) ε̂ + η z ] as above

Term by term these are DDRM's steps with η_b = 1, and `cclight.samplers.ddrm` makes them.

Reference:
    Wang, Yu, Zhang, Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, ICLR 2023 (equations 12, 13, 17
    and 51).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from cclight.problem import Problem
from cclight.samplers.base import FromNoise, check_noise_is_spectral, renoise
from cclight.samplers.ddrm import DDRM
from cclight.samplers.ddrm import State as NoisyState


@dataclass(frozen=True)
class DDNM(FromNoise):
    """DDNM and, where there is noise, DDNM+ (Wang et al. 2023). One network evaluation a step, no gradient.

    Args:
        steps: network evaluations.
        eta: η in [0, 1], how much fresh noise a step draws where the measurement says nothing better. Photographs come out
            sharper with less (0.5 suits super-resolution and deblurring), closer with more (1 where few pixels are known).
        t_start: progress from noise (0) to data (1) at which sampling begins. The paper begins with noise alone, at 0, where a
            few calls get less far.
    """

    steps: int = 20
    eta: float = 0.85
    t_start: float = field(default=0.5, kw_only=True)

    reference = """@inproceedings{wang2023zero,
  title = {Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model},
  author = {Wang, Yinhuai and Yu, Jiwen and Zhang, Jian},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta lies between 0 (no fresh noise) and 1 (nothing else), got {self.eta}.")

    @property
    def plus(self) -> DDRM:
        """What makes the steps of noisy measurements."""
        return DDRM(self.steps, self.eta, 1.0, timesteps=self.timesteps, t_start=self.t_start, t_end=self.t_end)

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_noise_is_spectral(type(self).__name__, problem)

    def begin(self, problem: Problem) -> Tensor | NoisyState:
        return self.plus.begin(problem) if problem.noise_std else super().begin(problem)

    def step(self, problem: Problem, n: int, state: Tensor | NoisyState) -> Tensor | NoisyState:
        if not isinstance(state, Tensor):
            return self.plus.step(problem, n, state)
        now = problem.at(n)
        x_0 = problem.denoise(state, now.t)
        epsilon = now.epsilon(state, x_0)
        x_0 = x_0 + problem.pinv_y - problem.operator.project(x_0)
        return renoise(problem, n, x_0, epsilon, math.sqrt(1 - self.eta**2))
