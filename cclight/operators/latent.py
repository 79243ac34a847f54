r"""LatentDecoding: measuring images through their latents, H ∘ D with a decoder D.

For samplers of latents that take any differentiable operator; `InLatents` composes it by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from cclight.operators.base import Operator

if TYPE_CHECKING:
    from cclight.priors.latent import Autoencoder


class LatentDecoding(Operator):
    """The measurement of latents: their image's. H(D(z)), which is differentiable and not linear.

    Args:
        operator: the degradation H of images.
        autoencoder: images to latents and back.
    """

    def __init__(self, operator: Operator, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.operator = operator
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(self.autoencoder.decode(x))

    def pinv(self, y: Tensor) -> Tensor:
        return self.autoencoder.encode(self.operator.first_guess(self.operator.pinv(y)))
