r"""Grey: a prior of colour images for images of one channel, such as those of scanners.

A grey image g is the colour image (g, g, g), and the mean over the channels of its noisy state z = α' (g, g, g) + σ' ε is
α' g + σ'/√3 · ε̄ with ε̄ standard normal. So a grey state x = α g + σ ε̄ is shown to the prior at the time t' of its path with

    σ'/α' = √3 σ/α,        z = (α'/α) x + σ' (ε - mean ε),

where only the noise ε between the channels is left to draw: once for each size, the same for every image and time. The mean
over the channels of the prior's estimate is that of g. Three equal channels would carry noise as no image did in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cclight.operators.tables import Table
from cclight.priors.base import Prior, per_image


class Grey(Prior):
    """A prior of colour images that takes images of one channel, (B, 1, H, W), on the same path.

    Args:
        prior: of three channels; noisier images than its path knows are shown to it as the noisiest that it does know.

    Raises:
        ValueError: for a prior of another number of channels.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.path, prior.parameterization)
        if prior.channels != 3:
            raise ValueError(
                f"Grey takes a prior of colour images, and {type(prior).__name__} has {prior.channels} channels: use "
                "it as it is."
            )
        self.prior = prior
        self.speak_for(prior)
        self.channels = 1
        self.image_shape = None if prior.image_shape is None else (1, *prior.image_shape[1:])
        self.reference = prior.reference
        self._colour = Table(_between_channels)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        time = t.double()
        alpha, sigma = self.path.alpha(time), self.path.sigma(time)
        noisiest = self.path.ratio(torch.tensor(self.path.t_noise, dtype=time.dtype, device=time.device))
        own_time = self.path.time_at_ratio(torch.minimum(math.sqrt(3) * self.path.ratio(time), noisiest))
        own_alpha, own_sigma = self.path.alpha(own_time), self.path.sigma(own_time)
        # The lengths of the grey parts, as good as α to compare by, and not 0 at pure noise.
        scale = torch.hypot(own_alpha, own_sigma / math.sqrt(3)) / torch.hypot(alpha, sigma)
        (colour,) = self._colour.like(tuple(x_t.shape[2:]), x_t)
        z = per_image(scale.to(x_t), x_t) * x_t + per_image(own_sigma.to(x_t), x_t) * colour
        g = self.prior.denoise(z, own_time.to(x_t.dtype), label).mean(1, keepdim=True)
        return self.parameterization.output(self.path, per_image(t, x_t), x_t, g)


def _between_channels(sides: tuple[int, ...]) -> tuple[Tensor]:
    """Standard normal noise without its mean over the channels, (3, H, W)."""
    noise = torch.randn(3, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (noise - noise.mean(0),)
