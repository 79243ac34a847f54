r"""Recast: a prior on its own path, its output turned into another parameterization's.

N' is what stands for the same denoised estimate: x̂_0 = s x + o N = s' x + o' N'. What is sampled does not change, but an
integrator's error does: guidance is stiff through the part of x̂_0 that is linear in x, which a network that predicts x_0
hides.
"""

from __future__ import annotations

from torch import Tensor

from cclight.paths.parameterization import Parameterization
from cclight.priors.base import Prior, per_image


class Recast(Prior):
    """A prior seen under another parameterization.

    Args:
        prior: the prior.
        parameterization: what N is to be.
    """

    def __init__(self, prior: Prior, parameterization: Parameterization) -> None:
        super().__init__(prior.path, parameterization)
        self.prior = prior
        self.image_shape = prior.image_shape
        self.speak_for(prior)
        self.reference = prior.reference

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_0 = self.prior.denoise(x_t, t, label)
        return self.parameterization.output(self.path, per_image(t, x_t), x_t, x_0)
