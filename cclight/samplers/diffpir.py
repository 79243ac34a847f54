r"""DiffPIR: plug-and-play half-quadratic splitting inside a diffusion sampler.

At every time the denoised estimate is moved to the solution of the data subproblem, and the state drawn anew around it. From t
to s, with ρ_t = λ σ_y² α_t²/σ_t²,

    x̃_0 = argmin_x ‖y - H x‖² + ρ_t ‖x - x̂_0‖² = x̂_0 + D (H⁺y - P x̂_0),     D = V diag( s_i²/(s_i² + ρ_t) ) Vᵀ
    x_s = α_s x̃_0 + σ_s [ √(1 - η²) ε̂ + η z ],                              ε̂ = (x_t - α_t x̃_0)/σ_t,   z ~ N(0, I).

D is the gain of `cclight.samplers.spectrum` at the variance r² = σ_t²/(λ α_t²). Noiseless measurements (ρ_t = 0) are met
exactly by x̃_0 = x̂_0 + H⁺y - P x̂_0; under a nonlinear operator that is a heuristic, x̂_0 + h†(y) - h†(h(x̂_0)).

Reference:
    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPRW 2023
    (algorithm 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.problem import Problem
from cclight.samplers.base import FromNoise, renoise
from cclight.samplers.grid import Spacing
from cclight.samplers.spectrum import Gains


@lru_cache(maxsize=64)
def gain_rows(path: GaussianPath, times: tuple[float, ...], gains: Gains, prior_weight: float) -> Tensor:
    """s_i²/(s_i² + ρ_t) at the time that each step begins, (steps, K), float64 on the CPU."""
    t = torch.tensor(times[:-1], dtype=torch.float64)
    return gains(path.sigma(t) ** 2 / (prior_weight * path.alpha(t).clamp_min(1e-6) ** 2))


@dataclass(frozen=True)
class DiffPIR(FromNoise):
    """DiffPIR (Zhu et al. 2023). One network evaluation a step, no gradient.

    Args:
        steps: network evaluations; the paper runs 20 or 100.
        prior_weight: λ > 0, how much the denoised estimate weighs against a noisy measurement. The published code's λ = 1 takes
            σ_y in units of [0, 1] images, which is 0.25 here.
        eta: η in [0, 1], how much fresh noise a step draws. The published code has η² = ζ = 0.1 for super-resolution and
            deblurring and 1 for inpainting; with exact denoisers 1 is much nearer to the posterior, above all under noise: kept
            noise ε̂ holds what the data step has removed.
    """

    steps: int = 100
    prior_weight: float = 1.0
    eta: float = 1.0
    timesteps: Spacing = field(default="quadratic", kw_only=True)

    reference = """@inproceedings{zhu2023denoising,
  title = {Denoising Diffusion Models for Plug-and-Play Image Restoration},
  author = {Zhu, Yuanzhi and Zhang, Kai and Liang, Jingyun and Cao, Jiezhang and Wen, Bihan and Timofte, Radu and
            Van Gool, Luc},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  year = {2023}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_weight <= 0:
            raise ValueError(f"prior_weight weighs the denoised estimate and is positive, got {self.prior_weight}.")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta lies between 0 (no fresh noise) and 1 (nothing else), got {self.eta}.")

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        spectrum, now = problem.spectrum, problem.at(n)
        gain = spectrum.prepare(gain_rows(problem.prior.path, tuple(problem.times), spectrum.gains, self.prior_weight))[n]
        x_0 = problem.denoise(state, now.t)
        x_0 = x_0 + spectrum.damp(gain, spectrum.measured(problem) - spectrum.seen(problem, x_0))
        return renoise(problem, n, x_0, now.epsilon(state, x_0), math.sqrt(1 - self.eta**2))
