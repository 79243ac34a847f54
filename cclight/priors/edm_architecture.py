"""What fixes the layers of EDM's U-Nets, read off the keys and shapes of a state_dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class UNetArchitecture:
    """What fixes the layers of both U-Nets; names as in EDM's code.

    Args:
        img_resolution: side of the images in pixels.
        img_channels: channels of the images.
        label_dim: number of classes; 0 for an unconditional network.
        augment_dim: width of the augmentation's embedding, which is silent at sampling; SongUNet alone.
        model_channels: width of a level whose multiplier is 1.
        channel_mult: width of each level in units of model_channels; every further level halves the side.
        channel_mult_emb: width of the embedding in the same units.
        num_blocks: residual blocks per level on the way down; one more on the way up.
        attn_resolutions: sides at which blocks carry attention.
        channel_mult_noise: width of the noise level's sines and cosines in units of model_channels.
        fourier: random instead of geometric frequencies of the noise level (NCSN++).
        residual: the shrinking input image joins the features at each level (NCSN++).
        taps: length of the resampling filter: 2 for (1, 1), 4 for (1, 3, 3, 1).
    """

    img_resolution: int
    img_channels: int
    label_dim: int
    augment_dim: int
    model_channels: int
    channel_mult: tuple[int, ...]
    channel_mult_emb: int
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    channel_mult_noise: int = 1
    fourier: bool = False
    residual: bool = False
    taps: int = 2

    @property
    def widths(self) -> list[tuple[int, int]]:
        """Side and channels of each level, from the whole image downwards."""
        return [(self.img_resolution >> n, m * self.model_channels) for n, m in enumerate(self.channel_mult)]


def architecture_of_state(state: Mapping[str, Any]) -> UNetArchitecture | None:
    """The architecture that a state_dict of either U-Net (without a prefix) was made by; None where it is of neither.

    What contradicts itself in a damaged state_dict shows when it is filled into the network.
    """
    shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    sides = [int(match[1]) for key in shapes if (match := re.fullmatch(r"enc\.(\d+)x\1_conv\.weight", key))]
    if len(sides) != 1 or len(shapes.get("map_layer0.weight", ())) != 2:
        return None
    first = shapes[f"enc.{sides[0]}x{sides[0]}_conv.weight"]
    embedding, noise = shapes["map_layer0.weight"]
    song = any(key.endswith("_aux_conv.weight") for key in shapes)
    base = first[0] if song else noise
    if len(first) != 4 or not base:
        return None
    widths, attended, blocks = [], [], 0
    side = sides[0]
    while side and (name := f"enc.{side}x{side}_block0.conv1.weight") in shapes:
        widths.append(shapes[name][0])
        if f"enc.{side}x{side}_block0.qkv.weight" in shapes:
            attended.append(side)
        while f"enc.{side}x{side}_block{blocks}.conv1.weight" in shapes:
            blocks += 1
        side //= 2
    taps = [shape[-1] for key, shape in shapes.items() if key.endswith("resample_filter")]
    return UNetArchitecture(
        img_resolution=sides[0],
        img_channels=first[1],
        label_dim=shapes.get("map_label.weight", (0, 0))[1],
        augment_dim=shapes.get("map_augment.weight", (0, 0))[1],
        model_channels=base,
        channel_mult=tuple(width // base for width in widths),
        channel_mult_emb=embedding // base,
        num_blocks=blocks,
        attn_resolutions=tuple(attended),
        channel_mult_noise=noise // base,
        fourier="map_noise.freqs" in shapes,
        residual=any("_aux_residual." in key for key in shapes),
        taps=taps[0] if taps else 2,
    )


def is_song(state: Mapping[str, Any]) -> bool:
    """Whether a state_dict that `architecture_of_state` reads is of SongUNet; else it is of DhariwalUNet."""
    return any(key.endswith("_aux_conv.weight") for key in state)
