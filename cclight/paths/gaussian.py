r"""Gaussian paths: how an image turns into noise.

Every prior is trained on a path

    x_t = α(t) x_0 + σ(t) ε,        ε ~ N(0, I),  x_0 a clean image in [-1, 1].

| path                  | α(t)                                      | σ(t)               | t at noise -> t at data |
|-----------------------|-------------------------------------------|--------------------|-------------------------|
| `VPPath`              | exp(-b/2), b = β_min t + (β_max-β_min) t²/2 | sqrt(-expm1(-b)) | 1 -> 0                  |
| `OTPath`              | t                                         | 1 - t              | 0 -> 1                  |

A dot is d/dt. Samplers speak of *progress* along a path, 0 at noise and 1 at data, so that one setting means the same on
every path; `GaussianPath.time` turns progress into the path's own t.

References:
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, ICLR 2021 (the VP-SDE).
    Liu et al., Flow Straight and Fast, ICLR 2023; Lipman et al., Flow Matching, ICLR 2023 (the OT path).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class GaussianPath(ABC):
    """A path x_t = α(t) x_0 + σ(t) ε. All methods take a tensor t of any shape and return one of the same shape.

    Attributes:
        t_noise: the time at which the path is (nearly) pure noise.
        t_data: the time at which the path is the clean image.
        first_progress: the earliest progress at which samplers begin: later than noise where α is 0 there, which nothing
            can be divided by (ε as a network's output, γ of the guidance).
        last_progress: the progress at which samplers stop unless told otherwise: short of data where σ̇ is infinite there.
    """

    t_noise: float
    t_data: float
    first_progress: float = 0.0
    last_progress: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's scale α(t), in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation σ(t), in [0, 1]."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """dα/dt."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """dσ/dt."""

    @abstractmethod
    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        """The time t at which the noise-to-signal ratio σ(t)/α(t) has the given value, >= 0."""

    def ratio(self, t: Tensor) -> Tensor:
        """The noise-to-signal ratio σ(t)/α(t): 0 at data, growing toward noise."""
        return self.sigma(t) / self.alpha(t)

    def time(self, progress: Tensor) -> Tensor:
        """The path's own time at a progress in [0, 1], where 0 is noise and 1 is data."""
        return self.t_noise + (self.t_data - self.t_noise) * progress

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(vars(self).items()))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class VPPath(GaussianPath):
    """The variance-preserving path of diffusion models, α² + σ² = 1, in continuous time.

    Args:
        beta_min: the noise rate β at t = 0.
        beta_max: the noise rate β at t = 1.

    Raises:
        ValueError: unless 0 < beta_min < beta_max.
    """

    t_noise = 1.0
    t_data = 0.0
    last_progress = 0.999

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min < beta_max:
            raise ValueError(f"VPPath needs 0 < beta_min < beta_max, got beta_min={beta_min} and beta_max={beta_max}.")
        self.beta_min = beta_min
        self.beta_max = beta_max

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate β(t) = db/dt."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _b(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._b(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._b(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self.beta(t) * torch.exp(-self._b(t)) / self.sigma(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        b = torch.log1p(ratio**2)
        slope = self.beta_max - self.beta_min
        # The stable root of slope/2 t² + beta_min t - b = 0: no cancellation as b -> 0.
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))


class OTPath(GaussianPath):
    """The straight path of rectified flows, α = t and σ = 1 - t."""

    t_noise = 0.0
    t_data = 1.0
    first_progress = 1 / 151  # where the noise is 150 times the signal: priors are asked about no more

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        return 1 / (1 + ratio)
