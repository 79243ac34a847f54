"""Tiny networks with seeded weights, and checkpoints of them: what can be tested without the golden folder."""

from __future__ import annotations

import torch

from cclight.priors.edm_architecture import UNetArchitecture
from cclight.priors.edm_unet import DhariwalUNet, SongUNet
from cclight.priors.pnpflow_unet import VelocityArchitecture, VelocityUNet

TINY = UNetArchitecture(
    img_resolution=16,
    img_channels=3,
    label_dim=0,
    augment_dim=0,
    model_channels=8,
    channel_mult=(1, 2),
    channel_mult_emb=2,
    num_blocks=1,
    attn_resolutions=(8,),
)


def seeded(network, seed=0):
    """The network with weights from a seed, as large as training starts with, and the resampling filters that it runs with."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("resample_filter"):
            taps = torch.tensor({2: [1.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}[value.shape[-1]])
            value.copy_(torch.outer(taps, taps) / taps.sum() ** 2)
        else:
            fan = max(1, value[0].numel()) if value.ndim > 1 else 4
            value.copy_(torch.randn(value.shape, generator=generator) / fan**0.5 + (value.ndim == 1 and "norm" in name))
    return network.eval()


def edm_state(song=True, seed=0, **changes):
    """The state_dict of a tiny SongUNet or DhariwalUNet, under the prefix that checkpoints have."""
    network = (SongUNet if song else DhariwalUNet)(UNetArchitecture(**{**vars(TINY), **changes}))
    return {f"model.{key}": value.clone() for key, value in seeded(network, seed).state_dict().items()}


def pnpflow_state(seed=0):
    """The state_dict of a tiny network of PnP-Flow: 3 channels, two levels, attention at the second."""
    network = VelocityUNet(VelocityArchitecture(channels=3, width=32, widths=(32, 64), blocks=1, attended=(1,)))
    return {key: value.clone() for key, value in seeded(network, seed).state_dict().items()}
