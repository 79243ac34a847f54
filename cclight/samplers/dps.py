r"""DPS: diffusion posterior sampling, a gradient step on the misfit after every ancestral step.

From t to s, with ε̂ = (x_t - α_t x̂_0)/σ_t,

    x_s = α_s x̂_0 + √(σ_s² - τ²) ε̂ + τ z - ζ ∇_{x_t} ‖y - H x̂_0(x_t)‖₂,     z ~ N(0, I),
    τ = η (σ_s/σ_t) √(σ_t² - (α_t/α_s)² σ_s²)                               (η = 1: the ancestral steps of DDPM; 0: DDIM).

x̂_0 = s x_t + o N makes the gradient s v + o Jᵀ v with v = ∂‖y - H x̂_0‖/∂x̂_0. The norm is each image's own. σ_y does not enter:
how closely the restoration follows a noisy measurement is up to ζ.

Reference:
    Chung, Kim, McCann, Klasky, Ye, Diffusion Posterior Sampling for General Noisy Inverse Problems, ICLR 2023 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cclight.operators.base import Operator
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.timesteps import Spacing, check_grid, timesteps


class DPS(Sampler):
    """DPS (Chung et al. 2023), for every differentiable operator. One network evaluation and one VJP a step.

    Args:
        steps: network evaluations.
        zeta: ζ, the length of the gradient step, >= 0. Tune it for each task: the published code has 0.3 for super-resolution
            and Gaussian deblurring.
        eta: η in [0, 1], how much fresh noise a step draws.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@inproceedings{chung2023diffusion,
  title = {Diffusion Posterior Sampling for General Noisy Inverse Problems},
  author = {Chung, Hyungjin and Kim, Jeongsol and McCann, Michael T. and Klasky, Marc L. and Ye, Jong Chul},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""

    def __init__(self, steps: int = 1000, zeta: float = 1.0, eta: float = 1.0, timesteps: Spacing = "uniform") -> None:
        check_grid(steps, 0.0, 1.0, timesteps)
        if zeta < 0:
            raise ValueError(f"zeta is the length of a step, >= 0, got {zeta}.")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta lies between 0 (DDIM) and 1 (DDPM), got {eta}.")
        self.steps = steps
        self.zeta = zeta
        self.eta = eta
        self.timesteps: Spacing = timesteps

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_differentiable(type(self).__name__, problem)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        times = timesteps(problem.prior.path, self.steps, 0.0, 1.0, self.timesteps).tolist()
        x = problem.noise
        for t, t_next in pairwise(times):
            s, o = problem.linear(t)
            x_0 = slope = x

            def cotangent(network: Tensor, s: float = s, o: float = o, x: Tensor = x) -> Tensor:
                nonlocal x_0, slope
                x_0 = s * x + o * network
                slope = _slope(problem.operator, problem.y, x_0)
                return slope

            _, vjp = problem.network_and_vjp(x, t, cotangent)
            alpha, sigma = problem.alpha_sigma(t)
            alpha_next, sigma_next = problem.alpha_sigma(t_next)
            fresh = self.eta * sigma_next / sigma * max(0.0, sigma**2 - (alpha * sigma_next / alpha_next) ** 2) ** 0.5
            kept = max(0.0, sigma_next**2 - fresh**2) ** 0.5
            x = alpha_next * x_0 + kept * (x - alpha * x_0) / sigma - self.zeta * (s * slope + o * vjp)
            del x_0, slope, vjp  # their images would lie beside the next step's graph
            if fresh:
                x = x + fresh * problem.randn()
            yield x


def _slope(operator: Operator, y: Tensor, x_0: Tensor) -> Tensor:
    """The slope v = ∂‖y - H x̂_0‖/∂x̂_0 of each image, (B, C, H, W); 0 where the misfit vanishes."""
    with torch.enable_grad():
        x_0 = x_0.detach().requires_grad_()
        misfit = (y - operator(x_0)).flatten(1)
        (slope,) = torch.autograd.grad(0.5 * misfit.square().sum(), x_0)
    norm = misfit.detach().norm(dim=1).clamp_min(torch.finfo(x_0.dtype).tiny)
    return slope / norm.view(-1, 1, 1, 1)


def check_differentiable(name: str, problem: Problem) -> None:
    """Refuse an operator through which no gradient flows.

    Args:
        name: the sampler that asks.
        problem: its problem.

    Raises:
        TypeError: naming the operator and the remedy.
    """
    with torch.enable_grad():
        y = problem.operator(problem.noise.detach().requires_grad_())
    if not y.requires_grad:
        raise TypeError(
            f"{name} takes the gradient of the misfit, and {type(problem.operator).__name__} lets none through: "
            "write its forward with differentiable torch functions, or choose a sampler that asks for H⁺ alone (Conjugate)."
        )
