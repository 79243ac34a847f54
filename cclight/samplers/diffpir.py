r"""DiffPIR: plug-and-play half-quadratic splitting inside a diffusion sampler.

At every time the denoised estimate is moved to the solution of the data subproblem, and the state drawn anew around it. From t
to s, with ρ_t = λ σ_y² α_t²/σ_t²,

    x̃_0 = argmin_x ‖y - H x‖² + ρ_t ‖x - x̂_0‖² = x̂_0 + D (H⁺y - P x̂_0),     D = V diag( s_i²/(s_i² + ρ_t) ) Vᵀ
    x_s = α_s x̃_0 + σ_s [ √(1 - ζ) ε̂ + √ζ z ],                              ε̂ = (x_t - α_t x̃_0)/σ_t,   z ~ N(0, I).

D is the gain of `cclight.samplers.spectrum` at the variance r² = σ_t²/(λ α_t²). Noiseless measurements (ρ_t = 0) are met
exactly by x̃_0 = x̂_0 + H⁺y - P x̂_0; under a nonlinear operator that is a heuristic, x̂_0 + h†(y) - h†(h(x̂_0)).

Reference:
    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPRW 2023
    (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from cclight.samplers.base import Problem, Sampler
from cclight.samplers.spectrum import spectrum_of
from cclight.samplers.timesteps import Spacing, check_grid, timesteps


class DiffPIR(Sampler):
    """DiffPIR (Zhu et al. 2023). One network evaluation a step, no gradient. Noisy measurements need a SpectralOperator.

    Args:
        steps: network evaluations; the paper runs 20 or 100.
        lam: λ > 0, how much the denoised estimate weighs against a noisy measurement. The published code's λ = 1 takes σ_y in
            units of [0, 1] images, which is 0.25 here.
        zeta: ζ in [0, 1], the share of fresh noise; the published code has 0.1 for super-resolution and deblurring and 1 for
            inpainting.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@inproceedings{zhu2023denoising,
  title = {Denoising Diffusion Models for Plug-and-Play Image Restoration},
  author = {Zhu, Yuanzhi and Zhang, Kai and Liang, Jingyun and Cao, Jiezhang and Wen, Bihan and Timofte, Radu and
            Van Gool, Luc},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  year = {2023}
}"""

    def __init__(self, steps: int = 100, lam: float = 1.0, zeta: float = 0.1, timesteps: Spacing = "quadratic") -> None:
        check_grid(steps, 0.0, 1.0, timesteps)
        if lam <= 0:
            raise ValueError(f"lam weighs the denoised estimate and is positive, got {lam}.")
        if not 0 <= zeta <= 1:
            raise ValueError(f"zeta is the share of fresh noise, between 0 and 1, got {zeta}.")
        self.steps = steps
        self.lam = lam
        self.zeta = zeta
        self.timesteps: Spacing = timesteps

    def check(self, problem: Problem) -> None:
        super().check(problem)
        spectrum_of(problem.operator, problem.noise_std, problem.noise)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        path, operator = problem.prior.path, problem.operator
        grid = timesteps(path, self.steps, 0.0, 1.0, self.timesteps)
        spectrum = spectrum_of(operator, problem.noise_std, problem.noise)
        variance = path.sigma(grid[:-1]) ** 2 / (self.lam * path.alpha(grid[:-1]).clamp_min(1e-6) ** 2)
        gains = spectrum.prepare(spectrum.gain(variance))
        pinv_y = operator.pinv(problem.y)
        x = problem.noise
        for n, (t, t_next) in enumerate(pairwise(grid.tolist())):
            x_0 = problem.denoise(x, t)
            x_0 = x_0 + spectrum.damp(gains[n], pinv_y - operator.project(x_0))
            alpha, sigma = problem.alpha_sigma(t)
            alpha_next, sigma_next = problem.alpha_sigma(t_next)
            epsilon = (x - alpha * x_0) / sigma
            direction = (1 - self.zeta) ** 0.5 * epsilon + self.zeta**0.5 * problem.randn()
            x = alpha_next * x_0 + sigma_next * direction
            yield x
