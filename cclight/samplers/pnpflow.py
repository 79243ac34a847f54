r"""PnP-Flow: a gradient step on the misfit, noise back onto the path, and the flow's denoiser, in turn.

At each time, with θ = σ/(α + σ) (1 - t on the OT path),

    z = x - γ Hᵀ(H x - y)/‖H‖²,                 γ = θ^a
    x = mean over ε of x̂_0(α z + σ ε, t),       ε ~ N(0, I), `samples` draws.

The gradient is measured in units of 1/‖H‖² (a power iteration finds ‖H‖), which changes nothing for the paper's operators of
norm 1 and lets the same setting serve operators of small norm, as averaging is. σ_y does not enter: how closely the restoration
follows a noisy measurement is up to a.

Reference:
    Martin, Gagneux, Hagemann, Steidl, PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, ICLR 2025 (algorithm 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.problem import Problem
from cclight.samplers.base import FromNoise
from cclight.samplers.grid import MOST_STEPS

POWER_ITERATIONS = 100


class State(NamedTuple):
    """The image, and ‖H‖², (B, 1, ...)."""

    x: Tensor
    norm2: Tensor


@dataclass(frozen=True)
class PnPFlow(FromNoise):
    """PnP-Flow (Martin et al. 2025). `steps` × `samples` network evaluations, no gradient.

    Args:
        steps: times at which the flow is asked.
        samples: draws of noise that each denoised estimate is averaged over.
        exponent: a >= 0, how fast the gradient steps shrink toward data; the paper tunes it between 0.01 and 1 for each task.
        lr: the gradient step at noise, in (0, 2), 1 being the longest that cannot overshoot.
    """

    steps: int = 100
    samples: int = 5
    exponent: float = 0.5
    lr: float = 1.0

    requires = LinearOperator
    reference = """@inproceedings{martin2025pnpflow,
  title = {{PnP-Flow}: Plug-and-Play Image Restoration with Flow Matching},
  author = {Martin, S\\'egol\\`ene and Gagneux, Anne and Hagemann, Paul and Steidl, Gabriele},
  booktitle = {International Conference on Learning Representations},
  year = {2025}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}.")
        if self.steps * self.samples > MOST_STEPS:
            raise ValueError(f"steps × samples must be at most {MOST_STEPS}, got {self.steps} × {self.samples}.")
        if self.exponent < 0 or not 0 < self.lr < 2:
            raise ValueError(f"exponent is >= 0 and lr between 0 and 2, got {self.exponent} and {self.lr}.")

    def begin(self, problem: Problem) -> State:
        operator = problem.operator
        assert isinstance(operator, LinearOperator)  # by `requires`
        return State(problem.guess(), _squared_norm(operator, problem.noise))

    def step(self, problem: Problem, n: int, state: State) -> State:
        operator, now = problem.operator, problem.at(n)
        assert isinstance(operator, LinearOperator)
        x, norm2 = state
        length = self.lr * (now.sigma / (now.alpha + now.sigma)) ** self.exponent
        z = x - length * operator.adjoint(operator(x) - problem.y) / norm2
        draws = [problem.denoise(now.alpha * z + now.sigma * problem.randn(), now.t) for _ in range(self.samples)]
        return State(torch.stack(draws).mean(0), norm2)


def _squared_norm(operator: LinearOperator, start: Tensor) -> Tensor:
    """‖H‖², the largest eigenvalue of HᵀH, by power iteration from each image's own start, (B, 1, ...)."""
    v, size, shape = start, torch.ones(()), (-1, *[1] * (start.ndim - 1))
    for _ in range(POWER_ITERATIONS):
        v = operator.adjoint(operator(v / v.flatten(1).norm(dim=1).view(shape)))
        size = v.flatten(1).norm(dim=1).view(shape)
    return size
