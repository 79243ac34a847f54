r"""Tiled: a prior on images larger than it takes, or larger than memory allows.

Overlapping tiles T_i cover the image; the network sees each by itself, and where tiles overlap their outputs are mixed with
weights that fade towards a tile's edges:

    N(x, t) = Σ_i W_i N_i(T_i x, t),        Σ_i W_i = 1

x̂_0 = s x + o N with numbers s and o, so that the denoised estimates are mixed in the same way. Vector-Jacobian products go
through all tiles, but only one tile's graph is in memory at a time: for the backward pass the network is evaluated again.

References:
    Jiménez, Mixture of Diffusers for scene composition and high resolution image generation, 2023.
    Bar-Tal, Yariv, Lipman, Dekel, MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation, ICML 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cclight.priors.base import Prior


class Tiled(Prior):
    """A prior evaluated in overlapping square tiles.

    An image no larger than a tile is given to the prior as it is. Structure wider than a tile is beyond it.

    Args:
        prior: the prior.
        tile: side of a tile in pixels; None for the prior's own image size, or 256 where it takes any.
        overlap: by how many pixels neighbours overlap, at least; None for a quarter of a tile.

    Raises:
        ValueError: for a tile that the prior cannot take, or an overlap of more than half a tile.
    """

    reference = """@inproceedings{bartal2023multidiffusion,
  title = {MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation},
  author = {Bar-Tal, Omer and Yariv, Lior and Lipman, Yaron and Dekel, Tali},
  booktitle = {International Conference on Machine Learning},
  year = {2023}
}"""

    def __init__(self, prior: Prior, tile: int | None = None, overlap: int | None = None) -> None:
        super().__init__(prior.path, prior.parameterization)
        if prior.sides_of_images not in (None, 2):
            raise ValueError(f"Tiles are of pictures, (C, H, W), and {type(prior).__name__} takes {prior.layout()}.")
        own = prior.image_shape
        if own is not None and own[1] != own[2]:
            raise ValueError(f"Tiles are square, and {type(prior).__name__} takes images of {own[1]}×{own[2]}.")
        tile = (256 if own is None else own[1]) if tile is None else tile
        if tile < 1 or tile % prior.stride or (own is not None and tile != own[1]):
            wanted = f"a multiple of {prior.stride}" if own is None else str(own[1])
            raise ValueError(f"tile must be {wanted} for {type(prior).__name__}, got {tile}.")
        overlap = tile // 4 if overlap is None else overlap
        if not 0 <= overlap <= tile // 2:
            raise ValueError(f"overlap must be from 0 to half a tile ({tile // 2}), got {overlap}.")
        self.prior = prior
        self.tile = tile
        self.overlap = overlap
        self.speak_for(prior)
        self.sides = 2

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        labels = () if label is None else (label,)
        rows, columns = (self._tiles(side, x_t) for side in x_t.shape[-2:])
        if len(rows) == len(columns) == 1:
            return self.prior(x_t, t, *labels)
        mixed = torch.zeros_like(x_t, requires_grad=False)
        for row, down in rows:
            for column, across in columns:
                output = checkpoint(
                    self.prior, x_t[..., row, column], t, *labels, use_reentrant=False, preserve_rng_state=False
                )
                mixed[..., row, column] += down[:, None] * across * output
        return mixed

    def check_images(self, shape: tuple[int, ...]) -> None:
        """As of any prior; where the prior insists on a size, the sides must also be a tile's or more."""
        super().check_images(shape)
        if self.prior.image_shape is not None and min(shape[-2:]) < self.tile:
            raise ValueError(
                f"Tiles of {type(self.prior).__name__} are {self.tile}×{self.tile}, larger than images of "
                f"{shape[-2]}×{shape[-1]}: set data.image_size to {self.tile} or more."
            )

    def _tiles(self, side: int, like: Tensor) -> list[tuple[slice, Tensor]]:
        """Where the tiles lie along a side, and their weights, which sum to 1 in every pixel."""
        tile = min(self.tile, side)
        count = 1 if tile == side else -(-(side - self.overlap) // (tile - self.overlap))
        last = (side - tile) // self.stride
        starts = [self.stride * (last * number // max(count - 1, 1)) for number in range(count)]
        rising = torch.arange(1, tile + 1, dtype=like.dtype, device=like.device)
        fading = torch.minimum(rising, rising.flip(0)).clamp(max=self.overlap + 1)
        total = torch.zeros(side, dtype=like.dtype, device=like.device)
        for start in starts:
            total[start : start + tile] += fading
        places = [slice(start, start + tile) for start in starts]
        return [(place, fading / total[place]) for place in places]
