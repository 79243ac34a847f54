"""The NCSN++ U-Net of rectified flow, in the layout of the published checkpoints (state_dict keys and shapes are theirs).

A U-Net of residual blocks that the time embedding e modulates. A block computes, with N a group norm,

    h = conv(silu(N(x))),   h = conv(silu(N(h + linear(silu(e))))),   output = (skip(x) + h) / √2;

a resampling block halves or doubles the side of x and h before its first convolution. Beside it run two image pyramids: the
input, halved again and again, is added on the way down, and the output is a sum of images doubled on the way up. All
resampling is by the binomial filter (1, 3, 3, 1), applied here by plain depthwise convolutions.

The layers lie in one list, `all_modules`, in the order in which they are applied: that is what names the checkpoints' keys.

References:
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, ICLR 2021, appendix H (NCSN++).
    Liu et al., Flow Straight and Fast, ICLR 2023, https://arxiv.org/abs/2209.03003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class NCSNppArchitecture:
    """What fixes NCSN++'s layers; the names are those of the published configurations, the defaults those of all 256×256 flows.

    Args:
        image_size: side of the training images in pixels.
        nf: width of the first level.
        ch_mult: width of each level in units of nf; every further level halves the side.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        attn_resolutions: sides in pixels at which attention follows the residual blocks.
        num_scales: length of the table `sigmas` that the checkpoints carry and nothing reads.
        centered: the training images lie in [-1, 1]; False where they lie in [0, 1] (LSUN).
    """

    image_size: int = 256
    nf: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    num_scales: int = 2000
    centered: bool = True


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def _binomial(x: Tensor) -> Tensor:
    """The separable filter (1, 3, 3, 1) of sum 1, one copy per channel of x: (C, 1, 4, 4)."""
    taps = x.new_tensor([1, 3, 3, 1]) / 8
    return torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)


def downsample(x: Tensor) -> Tensor:
    """Filter, then keep every other pixel: (B, C, H, W) -> (B, C, H/2, W/2). Zero beyond the border."""
    return F.conv2d(x, _binomial(x), stride=2, padding=1, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Put zeros between the pixels, then filter: (B, C, H, W) -> (B, C, 2H, 2W). Zero beyond the border."""
    return F.conv_transpose2d(x, 4 * _binomial(x), stride=2, padding=1, groups=x.shape[1])


class _FourierEmbedding(nn.Module):
    """Sines and cosines of 2π W log t at fixed random frequencies W."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(frequencies), requires_grad=False)

    def forward(self, log_time: Tensor) -> Tensor:
        angles = 2 * math.pi * log_time[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Pointwise(nn.Module):
    """A linear map of the channels, (B, N, C) -> (B, N, C), with the checkpoints' transposed weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class _Attention(nn.Module):
    """Self-attention over the pixels with one head, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (_Pointwise(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        # One head, as a dimension of its own: the fused kernels ask for it.
        q, k, v = (layer(pixels)[:, None] for layer in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = self.NIN_3(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return (x + h.transpose(1, 2).view_as(x)) / math.sqrt(2)


class _ResBlock(nn.Module):
    """Two convolutions around a residual, modulated by the time embedding; module docstring, first formula."""

    def __init__(
        self, channels: int, out_channels: int, emb_channels: int, resample: Literal["up", "down", None] = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.GroupNorm_0 = _norm(channels)
        self.Conv_0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.Dense_0 = nn.Linear(emb_channels, out_channels)
        self.GroupNorm_1 = _norm(out_channels)
        self.Conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = channels == out_channels and resample is None
        self.Conv_2 = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return upsample(x)
        if self.resample == "down":
            return downsample(x)
        return x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.Conv_0(self._resampled(F.silu(self.GroupNorm_0(x))))
        h = h + self.Dense_0(F.silu(emb))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (self.Conv_2(self._resampled(x)) + h) / math.sqrt(2)


class _Combine(nn.Module):
    """Adds the halved input image to the features."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(image_channels, channels, 1)

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return self.Conv_0(image) + h


class NCSNpp(nn.Module):
    """NCSN++ as rectified flow runs it.

    Args:
        architecture: what fixes the layers.
        activation_checkpointing: keep only each residual block's input for the backward pass and recompute the rest: less
            memory for one more forward pass.
    """

    def __init__(self, architecture: NCSNppArchitecture, activation_checkpointing: bool = False) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.activation_checkpointing = activation_checkpointing
        emb_channels = 4 * a.nf
        self.register_buffer("sigmas", torch.zeros(a.num_scales))

        def block(channels: int, out: int, resample: Literal["up", "down", None] = None) -> _ResBlock:
            return _ResBlock(channels, out, emb_channels, resample)

        layers: list[nn.Module] = [
            _FourierEmbedding(a.nf),
            nn.Linear(2 * a.nf, emb_channels),
            nn.Linear(emb_channels, emb_channels),
            nn.Conv2d(3, a.nf, 3, padding=1),
        ]
        channels, side, last = a.nf, a.image_size, len(a.ch_mult) - 1
        widths = [channels]
        for level, multiplier in enumerate(a.ch_mult):
            for _ in range(a.num_res_blocks):
                layers.append(block(channels, multiplier * a.nf))
                channels = multiplier * a.nf
                if side in a.attn_resolutions:
                    layers.append(_Attention(channels))
                widths.append(channels)
            if level != last:
                layers += [block(channels, channels, "down"), _Combine(3, channels)]
                widths.append(channels)
                side //= 2

        layers += [block(channels, channels), _Attention(channels), block(channels, channels)]

        for level, multiplier in reversed(list(enumerate(a.ch_mult))):
            for _ in range(a.num_res_blocks + 1):
                layers.append(block(channels + widths.pop(), multiplier * a.nf))
                channels = multiplier * a.nf
            if side in a.attn_resolutions:
                layers.append(_Attention(channels))
            layers += [_norm(channels), nn.Conv2d(channels, 3, 3, padding=1)]
            if level != 0:
                layers.append(block(channels, channels, "up"))
                side *= 2
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: Tensor, time_cond: Tensor) -> Tensor:
        """The network's output.

        Args:
            x: images on the flow, (B, 3, H, W), in the range it was trained on.
            time_cond: 999 t > 0, (B,).

        Returns:
            The velocity, (B, 3, H, W).
        """
        layers = iter(self.all_modules)
        a, side, last = self.architecture, self.architecture.image_size, len(self.architecture.ch_mult) - 1

        embedding, dense_0, dense_1, first = (next(layers) for _ in range(4))
        emb = embedding(time_cond.log()).to(x.dtype)
        emb = dense_1(F.silu(dense_0(emb)))

        image = x if a.centered else 2 * x - 1
        h = first(image)
        skips = [h]
        for level in range(last + 1):
            for _ in range(a.num_res_blocks):
                h = self._block(next(layers), h, emb)
                if side in a.attn_resolutions:
                    h = next(layers)(h)
                skips.append(h)
            if level != last:
                h = self._block(next(layers), h, emb)
                image = downsample(image)
                h = next(layers)(image, h)
                skips.append(h)
                side //= 2

        h = self._block(next(layers), h, emb)
        h = next(layers)(h)
        h = self._block(next(layers), h, emb)

        output = torch.zeros_like(image)
        for level in reversed(range(last + 1)):
            for _ in range(a.num_res_blocks + 1):
                h = self._block(next(layers), torch.cat([h, skips.pop()], dim=1), emb)
            if side in a.attn_resolutions:
                h = next(layers)(h)
            norm, to_image = next(layers), next(layers)
            output = output + to_image(F.silu(norm(h)))
            if level != 0:
                h = self._block(next(layers), h, emb)
                output = upsample(output)
                side *= 2
        return output / time_cond.to(x.dtype)[:, None, None, None]

    def _block(self, layer: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, h, emb, use_reentrant=False)
        return layer(h, emb)
