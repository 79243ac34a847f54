r"""RED-diff: variational inference, a descent on the image itself with the denoiser's error as the regularizer.

The posterior is approximated by a point μ, found by Adam on

    ½ mean(‖y - H μ‖²) + λ (σ_t/α_t) · mean( sg[ε̂(α_t μ + σ_t ε, t) - ε] · μ ),     ε ~ N(0, I) anew in every step,

sg[·] without gradient, t running from noise to data, one Adam step at each t. The means are over an image's numbers, so that
λ does not depend on its size. It starts from H⁺y, damped where y is noisy. Times are the midpoints of the grid's steps, since
σ_t/α_t is infinite at the noise end of the OT path. σ_y does not enter further: how closely the restoration follows a noisy
measurement is up to λ.

Reference:
    Mardani, Song, Kautz, Vahdat, A Variational Perspective on Solving Inverse Problems with Diffusion Models, ICLR 2024
    (algorithm 1; weights of the published code).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cclight.samplers.base import Problem, Sampler
from cclight.samplers.dps import check_differentiable
from cclight.samplers.timesteps import Spacing, check_grid, timesteps

BETA_MEAN, BETA_SQUARE = 0.9, 0.99  # Adam's, as in the published code


class REDDiff(Sampler):
    """RED-diff (Mardani et al. 2024), for every differentiable operator. One network evaluation a step, none differentiated.

    Args:
        steps: network evaluations.
        lam: λ >= 0, the weight of the prior.
        lr: Adam's step size; the published code goes up to 0.5.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@inproceedings{mardani2024variational,
  title = {A Variational Perspective on Solving Inverse Problems with Diffusion Models},
  author = {Mardani, Morteza and Song, Jiaming and Kautz, Jan and Vahdat, Arash},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}"""

    def __init__(self, steps: int = 100, lam: float = 0.25, lr: float = 0.1, timesteps: Spacing = "uniform") -> None:
        check_grid(steps, 0.0, 1.0, timesteps)
        if lam < 0 or lr <= 0:
            raise ValueError(f"lam is >= 0 and lr positive, got {lam} and {lr}.")
        self.steps = steps
        self.lam = lam
        self.lr = lr
        self.timesteps: Spacing = timesteps

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_differentiable(type(self).__name__, problem)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        grid = timesteps(problem.prior.path, self.steps, 0.0, 1.0, self.timesteps).tolist()
        mu = problem.guess(problem.operator.pinv(problem.y))
        # Adam written out: torch's reads its step count off a tensor and needs the image to stay in place.
        mean, square = torch.zeros_like(mu), torch.zeros_like(mu)
        for n, (before, after) in enumerate(pairwise(grid), start=1):
            t = 0.5 * (before + after)
            alpha, sigma = problem.alpha_sigma(t)
            noise = problem.randn()
            x = alpha * mu + sigma * noise
            epsilon = (x - alpha * problem.denoise(x, t)) / sigma
            slope = _misfit_slope(problem, mu) + self.lam * sigma / alpha * (epsilon - noise) / noise[0].numel()
            mean = BETA_MEAN * mean + (1 - BETA_MEAN) * slope
            square = BETA_SQUARE * square + (1 - BETA_SQUARE) * slope.square()
            scale = (square / (1 - BETA_SQUARE**n)).sqrt() + 1e-8
            mu = mu - self.lr / (1 - BETA_MEAN**n) * mean / scale
            yield mu


def _misfit_slope(problem: Problem, mu: Tensor) -> Tensor:
    """The gradient of ½ mean(‖y - H μ‖²), each image's own, (B, C, H, W)."""
    with torch.enable_grad():
        mu = mu.detach().requires_grad_()
        misfit = (problem.y - problem.operator(mu)).flatten(1)
        (slope,) = torch.autograd.grad(0.5 * misfit.square().mean(dim=1).sum(), mu)
    return slope
