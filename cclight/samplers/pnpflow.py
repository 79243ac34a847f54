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

from collections.abc import Iterator

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from cclight.samplers.base import Problem, Sampler
from cclight.samplers.timesteps import Spacing, check_grid, timesteps

POWER_ITERATIONS = 100


class PnPFlow(Sampler):
    """PnP-Flow (Martin et al. 2025). `steps` × `samples` network evaluations, no gradient.

    Args:
        steps: times at which the flow is asked.
        samples: draws of noise that each denoised estimate is averaged over.
        exponent: a >= 0, how fast the gradient steps shrink toward data; the paper tunes it between 0.01 and 1 for each task.
        lr: the gradient step at noise, in (0, 2), 1 being the longest that cannot overshoot.
        timesteps: how the times are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    requires = LinearOperator
    reference = """@inproceedings{martin2025pnpflow,
  title = {{PnP-Flow}: Plug-and-Play Image Restoration with Flow Matching},
  author = {Martin, S\\'egol\\`ene and Gagneux, Anne and Hagemann, Paul and Steidl, Gabriele},
  booktitle = {International Conference on Learning Representations},
  year = {2025}
}"""

    def __init__(
        self,
        steps: int = 100,
        samples: int = 5,
        exponent: float = 0.5,
        lr: float = 1.0,
        timesteps: Spacing = "uniform",
    ) -> None:
        check_grid(steps, 0.0, 1.0, timesteps)
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}.")
        if exponent < 0 or not 0 < lr < 2:
            raise ValueError(f"exponent is >= 0 and lr between 0 and 2, got {exponent} and {lr}.")
        self.steps = steps
        self.samples = samples
        self.exponent = exponent
        self.lr = lr
        self.timesteps: Spacing = timesteps

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        operator = problem.operator
        assert isinstance(operator, LinearOperator)  # by `requires`
        norm2 = _squared_norm(operator, problem.noise)
        x = problem.guess(operator.pinv(problem.y))
        for t in timesteps(problem.prior.path, self.steps, 0.0, 1.0, self.timesteps).tolist()[:-1]:
            alpha, sigma = problem.alpha_sigma(t)
            step = self.lr * (sigma / (alpha + sigma)) ** self.exponent
            z = x - step * operator.adjoint(operator(x) - problem.y) / norm2
            draws = [problem.denoise(alpha * z + sigma * problem.randn(), t) for _ in range(self.samples)]
            x = torch.stack(draws).mean(0)
            yield x


def _squared_norm(operator: LinearOperator, start: Tensor) -> Tensor:
    """‖H‖², the largest eigenvalue of HᵀH, by power iteration from each image's own start, (B, 1, 1, 1)."""
    v, size = start, torch.ones(())
    for _ in range(POWER_ITERATIONS):
        v = operator.adjoint(operator(v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)))
        size = v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return size
