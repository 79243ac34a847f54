"""A smooth continuation of the pixels that are there into those that are missing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d, interpolate, pad

_POOL = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def harmonic_fill(image: Tensor, kept: Tensor, relaxations: int = 8) -> Tensor:
    """Continue the kept pixels smoothly into the holes: nearly the solution of Laplace's equation with them as boundary values.

    From coarse to fine: on each level of a pyramid the holes begin with the coarser level's values and relax toward the mean
    of their nearest neighbours. The same number of operations whatever the mask.

    Args:
        image: (B, C, H, W), or (B, C, ...) of one to three sides, anything in the holes.
        kept: 1 where a pixel is kept, 0 in the holes; broadcasts to the image. Without any kept pixel the fill is zero.
        relaxations: sweeps on each level.
    """
    kept = kept.to(image).expand(image.shape)
    sides = image.shape[2:]
    if min(sides) > 1:
        pool = _POOL[len(sides)]
        padding = [part for side in reversed(sides) for part in (0, side % 2)]
        weight = pool(pad(kept, padding), 2)
        coarse = pool(pad(image * kept, padding), 2) / weight.clamp_min(1e-6)
        coarse = harmonic_fill(coarse, (weight > 0).to(image), relaxations)
        guess = interpolate(coarse, scale_factor=2.0, mode=_LINEAR[len(sides)])
        for dim, side in enumerate(sides, start=2):
            guess = guess.narrow(dim, 0, side)
    else:
        every = tuple(range(2, image.ndim))
        weight = kept.sum(dim=every, keepdim=True)
        guess = ((image * kept).sum(dim=every, keepdim=True) / weight.clamp_min(1e-6)).expand(image.shape)
    filled = torch.lerp(guess, image, kept)
    for _ in range(relaxations):
        around = pad(filled, [1, 1] * len(sides), mode="replicate")
        mean = torch.zeros_like(filled)
        for dim, side in enumerate(sides, start=2):
            for start in (0, 2):
                rows = [slice(None) if other == dim else slice(1, -1) for other in range(2, image.ndim)]
                mean += around.narrow(dim, start, side)[(..., *rows)]
        filled = torch.lerp(mean / (2 * len(sides)), image, kept)
    return filled
