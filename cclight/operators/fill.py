"""A smooth continuation of the pixels that are there into those that are missing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad


def harmonic_fill(image: Tensor, kept: Tensor, relaxations: int = 8) -> Tensor:
    """Continue the kept pixels smoothly into the holes: nearly the solution of Laplace's equation with them as boundary values.

    From coarse to fine: on each level of a pyramid the holes begin with the coarser level's values and relax toward the mean
    of their four neighbours. The same number of operations whatever the mask.

    Args:
        image: (B, C, H, W), anything in the holes.
        kept: 1 where a pixel is kept, 0 in the holes; broadcasts to the image. Without any kept pixel the fill is zero.
        relaxations: sweeps on each level.
    """
    kept = kept.to(image).expand(image.shape)
    height, width = image.shape[-2:]
    if min(height, width) > 1:
        padding = (0, width % 2, 0, height % 2)
        weight = avg_pool2d(pad(kept, padding), 2)
        coarse = avg_pool2d(pad(image * kept, padding), 2) / weight.clamp_min(1e-6)
        coarse = harmonic_fill(coarse, (weight > 0).to(image), relaxations)
        guess = interpolate(coarse, scale_factor=2.0, mode="bilinear")[..., :height, :width]
    else:
        weight = kept.sum(dim=(-2, -1), keepdim=True)
        guess = ((image * kept).sum(dim=(-2, -1), keepdim=True) / weight.clamp_min(1e-6)).expand(image.shape)
    filled = torch.lerp(guess, image, kept)
    for _ in range(relaxations):
        around = pad(filled, (1, 1, 1, 1), mode="replicate")
        mean = (around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]) / 4
        filled = torch.lerp(mean, image, kept)
    return filled
