r"""NoiseConditioned: priors whose network is told the noise level itself, and so serve every path.

On a Gaussian path x_t = α x_0 + σ ε, z = x_t / α is the clean image plus noise of standard deviation ρ = σ/α. A network D(z, ρ)
that removes such noise gives

    x̂_0(x_t, t) = D(x_t / α, σ / α)

whatever path it was trained on, and the output N that samplers see follows from x̂_0 by the parameterization. Networks know a
range of ρ: nearer to the data N is that of the least of it, more noise than the most of it is scaled down to that.

Reference:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (section 2).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath, OTPath, VPPath
from cclight.paths.parameterization import Epsilon, Parameterization, Velocity
from cclight.priors.base import Prior, per_image


class NoiseConditioned(Prior):
    """A denoiser of x_0 + ρ ε, on any path. A subclass writes `estimate`.

    Attributes:
        rho_min: the least noise level that it knows.
        rho_max: the greatest.

    Args:
        path: the path to sample along; None is the VP path.
        parameterization: the output N that samplers see; None is ε, and the velocity on the OT path.
    """

    rho_min: float = 2e-3
    rho_max: float = 80.0

    def __init__(self, path: GaussianPath | None = None, parameterization: Parameterization | None = None) -> None:
        path = path or VPPath()
        super().__init__(path, parameterization or (Velocity() if isinstance(path, OTPath) else Epsilon()))

    @abstractmethod
    def estimate(self, z: Tensor, rho: Tensor, label: Tensor | None) -> Tensor:
        """D(z, ρ), the estimate of x_0 from z = x_0 + ρ ε.

        Args:
            z: noisy images, (B, C, H, W).
            rho: the noise's standard deviation in each, (B,), in [rho_min, rho_max].
            label: the class of each image, (B,), -1 for none; None where no image has one.

        Returns:
            x̂_0 in the dtype of z, (B, C, H, W), nominally in [-1, 1]; differentiable with respect to z.
        """

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        # Nearer to the data than the least noise the output is that of the least, where N still follows from x̂_0.
        nearest = self.path.time_at_ratio(torch.full_like(t, self.rho_min))
        t = torch.minimum(t, nearest) if self.path.t_data > self.path.t_noise else torch.maximum(t, nearest)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        # α where the ratio is known; at pure noise (α = 0) what scales σ to the greatest level.
        scale = torch.maximum(alpha, sigma / self.rho_max)
        x_0 = self.estimate(x_t / per_image(scale, x_t), sigma / scale, label)
        return self.parameterization.output(self.path, per_image(t, x_t), x_t, x_0)
