"""DiscretePath: the path of a diffusion model that was trained on a table of noise rates β_1 ... β_T, in continuous time.

Step i leaves ᾱ_i = Π_{j≤i} (1 - β_j) of the signal's variance. With b = -ln ᾱ,

    α = e^{-b/2},   σ = √(1 - e^{-b}),   b(i/T) = -Σ_{j≤i} ln(1 - β_j),   b(0) = 0,

as on the VP path, and between the steps b is a monotone cubic with a continuous derivative (exact where b is quadratic in t,
which linear β make it to first order), so that α̇ and σ̇ exist at every time.

References:
    Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020.
    Fritsch and Carlson, Monotone Piecewise Cubic Interpolation, SIAM J. Numer. Anal. 17 (1980): the slopes' limits.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath

# A table may end at β = 1 (no signal left), where b is infinite; cosine schedules stop at this value too.
BETA_MAX = 0.999


class DiscretePath(GaussianPath):
    """The variance-preserving path through a table of noise rates.

    Args:
        betas: β_1 ... β_T, each in (0, 1]; those above 0.999 are taken as 0.999.

    Raises:
        ValueError: for fewer than two rates or one outside (0, 1].
    """

    t_noise = 1.0
    t_data = 0.0
    last_progress = 0.999

    def __init__(self, betas: tuple[float, ...]) -> None:
        if len(betas) < 2 or not all(0 < beta <= 1 for beta in betas):
            raise ValueError(f"betas are two or more noise rates in (0, 1], got {len(betas)}: {betas[:3]} ... {betas[-3:]}.")
        self.betas = betas

    def index(self, t: Tensor) -> Tensor:
        """The 0-based training step of a time, fractional between steps: T t - 1, and 0 below the first step."""
        return (len(self.betas) * t - 1).clamp(min=0)

    def _b(self, t: Tensor) -> Tensor:
        (c_0, c_1, c_2, c_3), u = self._cubic(t)
        return c_0 + u * (c_1 + u * (c_2 + u * c_3))

    def _b_dot(self, t: Tensor) -> Tensor:
        (_, c_1, c_2, c_3), u = self._cubic(t)
        return len(self.betas) * (c_1 + u * (2 * c_2 + u * 3 * c_3))

    def _cubic(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of b around t, (4, ...), in powers of u, the place in [0, 1] between two steps."""
        place = len(self.betas) * t
        step = place.detach().floor().clamp(0, len(self.betas) - 1).long()
        return _cubics(self.betas).to(t)[:, step], place - step

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._b(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._b(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self._b_dot(t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self._b_dot(t) * torch.exp(-self._b(t)) / self.sigma(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        b = torch.log1p(ratio**2)
        low, high = torch.zeros_like(b), torch.ones_like(b)
        for _ in range(60):
            middle = (low + high) / 2
            above = self._b(middle) > b
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return low

    def __repr__(self) -> str:
        return f"DiscretePath({len(self.betas)} steps from β={self.betas[0]:g} to β={self.betas[-1]:g})"


@lru_cache(maxsize=8)
def _cubics(betas: tuple[float, ...]) -> Tensor:
    """Between each two steps, the coefficients of b in powers of the place u between them: (4, T), float64."""
    rates = torch.tensor(betas, dtype=torch.float64).clamp(max=BETA_MAX)
    rise = -torch.log1p(-rates)
    b = rise.cumsum(0) - rise
    slope = torch.cat([(3 * rise[:1] - rise[1:2]) / 2, (rise[1:] + rise[:-1]) / 2, (3 * rise[-1:] - rise[-2:-1]) / 2])
    # At most three times either neighbour's rise and not negative: then the cubics are monotone.
    ceiling = 3 * torch.minimum(torch.cat([rise, rise[-1:]]), torch.cat([rise[:1], rise]))
    left, right = slope.clamp(min=0).minimum(ceiling).unfold(0, 2, 1).unbind(1)
    return torch.stack([b, left, 3 * rise - 2 * left - right, left + right - 2 * rise])
