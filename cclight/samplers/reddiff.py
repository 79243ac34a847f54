r"""RED-diff: variational inference, a descent on the image itself with the denoiser's error as the regularizer.

The posterior is approximated by a point μ, found by Adam on

    ½ mean(‖y - H μ‖²) + λ (σ_t/α_t) · mean( sg[ε̂(α_t μ + σ_t ε, t) - ε] · μ ),     ε ~ N(0, I) anew in every step,

sg[·] without gradient, t running from noise to data, one Adam step at each t. The means are over an image's real numbers (a
complex one is two), so that λ does not depend on its size. It starts from H⁺y, damped where y is noisy. Times are the midpoints
of the grid's steps, since σ_t/α_t is infinite at the noise end of the OT path. σ_y does not enter further: how closely the
restoration follows a noisy measurement is up to λ.

Reference:
    Mardani, Song, Kautz, Vahdat, A Variational Perspective on Solving Inverse Problems with Diffusion Models, ICLR 2024
    (algorithm 1; weights of the published code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cclight.problem import Problem
from cclight.samplers.base import FromNoise
from cclight.samplers.dps import as_real, check_differentiable

BETA_MEAN, BETA_SQUARE = 0.9, 0.99  # Adam's, as in the published code


class State(NamedTuple):
    """μ, and Adam's mean and mean square of its gradients."""

    x: Tensor
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class REDDiff(FromNoise):
    """RED-diff (Mardani et al. 2024), for every differentiable operator. One network evaluation a step, none differentiated.

    Args:
        steps: network evaluations.
        prior_weight: λ >= 0, the weight of the prior.
        lr: Adam's step size; the published code goes up to 0.5.
    """

    steps: int = 100
    prior_weight: float = 0.25
    lr: float = 0.1

    reference = """@inproceedings{mardani2024variational,
  title = {A Variational Perspective on Solving Inverse Problems with Diffusion Models},
  author = {Mardani, Morteza and Song, Jiaming and Kautz, Jan and Vahdat, Arash},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_weight < 0 or self.lr <= 0:
            raise ValueError(f"prior_weight is >= 0 and lr positive, got {self.prior_weight} and {self.lr}.")

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_differentiable(type(self).__name__, problem)

    def begin(self, problem: Problem) -> State:
        mu = problem.guess()
        return State(mu, torch.zeros_like(mu), torch.zeros_like(mu))

    def step(self, problem: Problem, n: int, state: State) -> State:
        mu, mean, square = state
        level = problem.level(0.5 * (problem.times[n] + problem.times[n + 1]))
        noise = problem.randn()
        x = level.alpha * mu + level.sigma * noise
        epsilon = level.epsilon(x, problem.denoise(x, level.t))
        weight = self.prior_weight * level.sigma / level.alpha / noise[0].numel()
        slope = _misfit_slope(problem, mu) + weight * (epsilon - noise)
        # Adam written out: torch's reads its step count off a tensor and needs the image to stay in place.
        mean = BETA_MEAN * mean + (1 - BETA_MEAN) * slope
        square = BETA_SQUARE * square + (1 - BETA_SQUARE) * slope.square()
        scale = (square / (1 - BETA_SQUARE ** (n + 1))).sqrt() + 1e-8
        return State(mu - self.lr / (1 - BETA_MEAN ** (n + 1)) * mean / scale, mean, square)


def _misfit_slope(problem: Problem, mu: Tensor) -> Tensor:
    """The gradient of ½ mean(‖y - H μ‖²), each image's own, (B, C, H, W)."""
    with torch.enable_grad():
        mu = mu.detach().requires_grad_()
        misfit = as_real(problem.y - problem.operator(mu)).flatten(1)
        (slope,) = torch.autograd.grad(0.5 * misfit.square().mean(dim=1).sum(), mu)
    return slope
