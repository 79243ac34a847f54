r"""The U-Net of PnP-Flow's flows, in the layout of the published checkpoints.

A U-Net of residual blocks to which the time embedding e is added. With N a group norm,

    h = conv1(silu(N(x))),    h = conv2(silu(N(h + linear(silu(e))))),    output = skip(x) + h

followed, at some levels, by attention with one head. The keys of the state_dict count the level, the block within it ("0a",
"1a") and what follows ("b"); the way up begins at the deepest level and keeps the levels' numbers.

References:
    Martin, Gagneux, Hagemann, Steidl, PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, ICLR 2025.
    Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020 (the network).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VelocityArchitecture:
    """What fixes the layers.

    Args:
        channels: channels of the images.
        width: channels of the first layer, and of the time's sines and cosines.
        widths: channels of each level; every further level halves the side.
        blocks: residual blocks per level on the way down; one more on the way up.
        attended: the levels whose blocks are followed by attention.
    """

    channels: int
    width: int
    widths: tuple[int, ...]
    blocks: int
    attended: tuple[int, ...]


def architecture_of_state(state: Mapping[str, Any]) -> VelocityArchitecture | None:
    """The architecture that a state_dict was made by; None where it is of another network."""
    shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    first = shapes.get("begin_conv.weight", ())
    if len(first) != 4 or "temb_net.main.0.weight" not in shapes:
        return None
    widths: list[int] = []
    attended: list[int] = []
    blocks = 0
    while (shape := shapes.get(f"down_modules.{len(widths)}.{len(widths)}a_0a_block.conv1.weight")) is not None:
        level = len(widths)
        widths.append(shape[0])
        if f"down_modules.{level}.{level}a_0b_attn.norm.weight" in shapes:
            attended.append(level)
    while f"down_modules.0.0a_{blocks}a_block.conv1.weight" in shapes:
        blocks += 1
    return VelocityArchitecture(first[1], first[0], tuple(widths), blocks, tuple(attended))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class _ResBlock(nn.Module):
    """Two convolutions around a residual; module docstring."""

    def __init__(self, channels: int, out: int, embedding: int) -> None:
        super().__init__()
        self.temb_proj = nn.Linear(embedding, out)
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = _norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.temb_proj(F.silu(emb))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class _Attention(nn.Module):
    """Self-attention over the pixels with one head, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn_q, self.attn_k, self.attn_v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # One head, as a dimension of its own: the fused kernels ask for it.
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.attn_q, self.attn_k, self.attn_v))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(h.reshape(x.shape))


class _Upsample(nn.Module):
    """Twice the side by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up_conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class _Time(nn.Module):
    """Sines, then cosines, of t (in [0, 1]: not scaled) through two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.main = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.width // 2
        places = torch.arange(half, dtype=t.dtype, device=t.device)
        phase = t[:, None] * torch.exp(-math.log(10000) / (half - 1) * places)
        return self.main(torch.cat([phase.sin(), phase.cos()], dim=1).to(dtype))


class VelocityUNet(nn.Module):
    """PnP-Flow's network.

    Args:
        architecture: what fixes the layers.
    """

    def __init__(self, architecture: VelocityArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        embedding = 4 * a.width
        self.temb_net = _Time(a.width)
        self.begin_conv = nn.Conv2d(a.channels, a.width, 3, padding=1)

        def blocks(level: int, inputs: list[int]) -> dict[str, nn.Module]:
            layers: dict[str, nn.Module] = {}
            for number, channels in enumerate(inputs):
                layers[f"{level}a_{number}a_block"] = _ResBlock(channels, a.widths[level], embedding)
                if level in a.attended:
                    layers[f"{level}a_{number}b_attn"] = _Attention(a.widths[level])
            return layers

        channels, skips, last = a.width, [a.width], len(a.widths) - 1
        self.down_modules = nn.ModuleList()
        for level, width in enumerate(a.widths):
            layers = blocks(level, [channels] + (a.blocks - 1) * [width])
            skips += a.blocks * [width]
            if level != last:
                layers[f"{level}b_downsample"] = nn.Conv2d(width, width, 3, stride=2, padding=1)
                skips.append(width)
            self.down_modules.append(nn.ModuleDict(layers))
            channels = width
        self.mid_modules = nn.ModuleList(
            [_ResBlock(channels, channels, embedding), _Attention(channels), _ResBlock(channels, channels, embedding)]
        )
        self.up_modules = nn.ModuleList()
        for level in reversed(range(last + 1)):
            width = a.widths[level]
            layers = blocks(level, [before + skips.pop() for before in [channels] + a.blocks * [width]])
            if level != 0:
                layers[f"{level}b_upsample"] = _Upsample(width)
            self.up_modules.append(nn.ModuleDict(layers))
            channels = width
        self.end_conv = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, a.channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity x_0 - ε, (B, C, H, W).

        Args:
            x: t x_0 + (1 - t) ε, (B, C, H, W).
            t: 0 at noise and 1 at data, (B,).
        """
        emb = self.temb_net(t, x.dtype)
        h = self.begin_conv(x)
        skips = [h]
        for level in self.down_modules:
            for name, layer in level.items():  # type: ignore[operator]
                h = layer(h, emb) if name.endswith("_block") else layer(h)
                if name.endswith("_attn"):
                    skips[-1] = h
                else:
                    skips.append(h)
        first, attention, second = self.mid_modules
        h = second(attention(first(h, emb)), emb)
        for level in self.up_modules:
            for name, layer in level.items():  # type: ignore[operator]
                h = layer(torch.cat([h, skips.pop()], dim=1), emb) if name.endswith("_block") else layer(h)
        return self.end_conv(h)
