r"""Retimed: a prior on another path than the one it was trained on.

Two Gaussian paths with equal noise-to-signal ratio are the same up to scale. With t' the time at which the prior's own path B
has the ratio that path A has at t,

    σ_B/α_B (t') = σ_A/α_A (t),      x on A at t  =  (α_A/α_B) · x' on B at t',

the prior's denoised estimate of x' is the estimate of x, and N follows from it. So a diffusion model is sampled along straight
paths, and a flow along the path of diffusion; neither is trained anew.

Reference:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (section 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.base import Prior, per_image


class Retimed(Prior):
    """A prior seen along another path, under another parameterization.

    Noisier images than the prior's own path knows are shown to it as the noisiest that it does know.

    Args:
        prior: the prior.
        path: the path to sample along.
        parameterization: what N is to be, such as `Velocity()` on the OT path; None keeps the prior's.
    """

    def __init__(self, prior: Prior, path: GaussianPath, parameterization: Parameterization | None = None) -> None:
        super().__init__(path, parameterization or prior.parameterization)
        self.prior = prior
        self.image_shape = prior.image_shape
        self.speak_for(prior)
        self.reference = prior.reference

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        own = self.prior.path
        # In float64: near data the ratio decides between times that float32 cannot tell apart.
        time = t.double()
        noisiest = own.ratio(torch.tensor(own.t_noise, dtype=time.dtype, device=time.device))
        own_time = own.time_at_ratio(torch.minimum(self.path.ratio(time), noisiest))
        scale = self._norm(own, own_time) / self._norm(self.path, time)
        x_0 = self.prior.denoise(per_image(scale.to(x_t), x_t) * x_t, own_time.to(x_t.dtype), label)
        s, o = self.parameterization.coefficients(self.path, per_image(time, x_t))
        return (x_0 - s.to(x_t) * x_t) / o.to(x_t)

    @staticmethod
    def _norm(path: GaussianPath, t: Tensor) -> Tensor:
        """√(α² + σ²): at equal ratios as good as α to compare two paths by, and not 0 at pure noise."""
        return torch.hypot(path.alpha(t), path.sigma(t))
