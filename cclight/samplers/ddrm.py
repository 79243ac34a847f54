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

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cclight.operators.base import SpectralOperator
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.timesteps import Spacing, check_grid, timesteps


class DDRM(Sampler):
    """DDRM (Kawar et al. 2022), noiseless and noisy. One network evaluation a step, no gradient.

    Args:
        steps: network evaluations.
        eta: η in [0, 1], how much fresh noise a step draws in directions that are not measured, or measured less well than
            they are known.
        eta_b: η_b in [0, 1], how much of the measurement replaces the estimate in the others.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    requires = SpectralOperator
    reference = """@inproceedings{kawar2022denoising,
  title = {Denoising Diffusion Restoration Models},
  author = {Kawar, Bahjat and Elad, Michael and Ermon, Stefano and Song, Jiaming},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}"""

    def __init__(self, steps: int = 20, eta: float = 0.85, eta_b: float = 1.0, timesteps: Spacing = "uniform") -> None:
        check_grid(steps, 0.0, 1.0, timesteps)
        if not (0 <= eta <= 1 and 0 <= eta_b <= 1):
            raise ValueError(f"eta and eta_b lie between 0 and 1, got {eta} and {eta_b}.")
        self.steps = steps
        self.eta = eta
        self.eta_b = eta_b
        self.timesteps: Spacing = timesteps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        operator, noise_std, like = problem.operator, problem.noise_std, problem.noise
        assert isinstance(operator, SpectralOperator)  # by `requires`
        s = operator.singular_values(tuple(like.shape[1:]))
        # σ_y/s_i; infinite where nothing is measured.
        level = torch.where(s > 0, noise_std / s, torch.inf)
        y = operator.spectral(operator.pinv(problem.y))
        times = timesteps(problem.prior.path, self.steps, 0.0, 1.0, self.timesteps).tolist()
        alpha, sigma = problem.alpha_sigma(times[0])
        noisier, spread = _noisier(alpha, sigma, level, 1.0, like)
        x = operator.from_spectral(torch.where(noisier, alpha * y + spread * like, sigma * like))
        pull = (s / noise_std if noise_std > 0 else torch.zeros_like(s)).to(like)
        keep = (1 - self.eta**2) ** 0.5
        # All of them before the first step: they are computed in float64 on the CPU.
        rows = [_noisier(*problem.alpha_sigma(t), level, self.eta_b, like) for t in times[1:]]
        for (t, t_next), (noisier, spread) in zip(pairwise(times), rows, strict=True):
            estimate = problem.denoise(x, t)
            alpha, sigma = problem.alpha_sigma(t)
            x_0, epsilon = operator.spectral(torch.cat([estimate, (x - alpha * estimate) / sigma])).chunk(2)
            alpha, sigma = problem.alpha_sigma(t_next)
            z = problem.randn()
            direction = torch.where(pull > 0, (y - x_0) * pull, epsilon)
            cleaner_or_unmeasured = alpha * x_0 + sigma * (keep * direction + self.eta * z)
            toward_y = alpha * ((1 - self.eta_b) * x_0 + self.eta_b * y) + spread * z
            x = operator.from_spectral(torch.where(noisier, toward_y, cleaner_or_unmeasured))
            yield x


def _noisier(alpha: float, sigma: float, level: Tensor, eta_b: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the state is noisier than the measurement, and there the noise √(σ² - (α η_b σ_y/s_i)²) that is left to draw."""
    noisier = sigma > alpha * level
    spread = torch.where(noisier, (sigma**2 - (alpha * eta_b * level) ** 2).clamp_min(0).sqrt(), 0)
    return noisier.to(like.device), spread.to(like)
