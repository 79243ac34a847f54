"""The U-Net of ADM, in the layout of the published checkpoints (state_dict keys and shapes are OpenAI's).

A U-Net of residual blocks that the time embedding e modulates. A block computes, with N a group norm,

    h = conv(silu(N(x))),   h = conv(silu((1 + a) N(h) + b)),   (a, b) = linear(silu(e)),   output = skip(x) + h

(or silu(N(h + b)) without scale-shift norm); a resampling block halves or doubles the side before its first convolution.

References:
    Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021, https://arxiv.org/abs/2105.05233.
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
class ADMArchitecture:
    """What fixes ADM's layers; the names are those of guided-diffusion's flags, the defaults its ImageNet 256×256 model.

    Args:
        image_size: side of the training images in pixels.
        num_channels: width of the first level.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        channel_mult: width of each level in units of num_channels; every further level halves the side.
        attention_resolutions: sides, in pixels at the training size, at which attention follows a residual block.
        num_heads: attention heads where num_head_channels is -1.
        num_head_channels: channels per attention head, or -1 to fix num_heads instead.
        use_scale_shift_norm: let the time embedding scale and shift the norm; else it is added before the norm.
        resblock_updown: resample by residual blocks; else by a strided convolution and a convolution after enlarging.
        learn_sigma: six output channels, of which the last three are the variance that sampling here has no use for.
        class_cond: conditioned on one of num_classes labels.
        num_classes: number of labels.
        use_new_attention_order: split queries, keys and values before the heads instead of within each head.
    """

    image_size: int = 256
    num_channels: int = 256
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    num_heads: int = 4
    num_head_channels: int = 64
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    learn_sigma: bool = True
    class_cond: bool = False
    num_classes: int = 1000
    use_new_attention_order: bool = False

    def heads(self, channels: int) -> int:
        """The number of attention heads of a layer of that width."""
        return self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels


def time_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the step index at geometrically falling frequencies from 1 to 1/10000.

    Args:
        timesteps: indices, fractional ones too, (B,).
        channels: an even number.

    Returns:
        (B, channels).
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=timesteps.dtype, device=timesteps.device))
    angles = timesteps[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class _Upsample(nn.Module):
    """Twice the side by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class _Downsample(nn.Module):
    """Half the side by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class _ResBlock(nn.Module):
    """Two convolutions around a residual, modulated by the time embedding; module docstring, first formula."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_channels: int,
        scale_shift: bool,
        resample: Literal["up", "down", None] = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample
        self.in_layers = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (2 if scale_shift else 1) * out_channels))
        # The checkpoints count a dropout layer, which does nothing at sampling: place 2 stays empty so that the names fit.
        self.out_layers = nn.Sequential(
            _norm(out_channels), nn.SiLU(), nn.Identity(), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = convolution(self._resampled(activation(norm(x))))
        modulation = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + modulation)
        return self.skip_connection(self._resampled(x)) + h


class _Attention(nn.Module):
    """Self-attention over the pixels, with a residual."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads = heads
        self.new_order = new_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        pixels = x.flatten(2)
        qkv = self.qkv(self.norm(pixels))
        thirds_first, heads_first = (3, self.heads, -1), (self.heads, 3, -1)
        qkv = qkv.unflatten(1, thirds_first) if self.new_order else qkv.unflatten(1, heads_first).transpose(1, 2)
        # (B, 3, heads, channels, pixels) -> three of (B, heads, pixels, channels)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)
        return (pixels + self.proj_out(h)).view_as(x)


class _Conv(nn.Conv2d):
    """The first convolution, which takes no notice of the time embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class _Stage(nn.Sequential):
    """Layers that each take the features and the time embedding, optionally recomputed in the backward pass."""

    recompute = False

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._run, x, emb, use_reentrant=False)
        return self._run(x, emb)

    def _run(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb)
        return x


class ADMUNet(nn.Module):
    """ADM's network.

    Args:
        architecture: what fixes the layers.
        activation_checkpointing: keep only each stage's input for the backward pass and recompute the rest: less memory
            for one more forward pass.
    """

    def __init__(self, architecture: ADMArchitecture, activation_checkpointing: bool = False) -> None:
        super().__init__()
        a = self.architecture = architecture
        emb_channels = 4 * a.num_channels
        self.time_embed = nn.Sequential(
            nn.Linear(a.num_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if a.class_cond:
            self.label_emb = nn.Embedding(a.num_classes, emb_channels)

        def block(channels: int, out: int, resample: Literal["up", "down", None] = None) -> _ResBlock:
            return _ResBlock(channels, out, emb_channels, a.use_scale_shift_norm, resample)

        def attention(channels: int) -> _Attention:
            return _Attention(channels, a.heads(channels), a.use_new_attention_order)

        channels = a.channel_mult[0] * a.num_channels
        side, last = a.image_size, len(a.channel_mult) - 1
        widths = [channels]
        self.input_blocks = nn.ModuleList([_Stage(_Conv(3, channels, 3, padding=1))])
        for level, multiplier in enumerate(a.channel_mult):
            for _ in range(a.num_res_blocks):
                layers: list[nn.Module] = [block(channels, multiplier * a.num_channels)]
                channels = multiplier * a.num_channels
                if side in a.attention_resolutions:
                    layers.append(attention(channels))
                self.input_blocks.append(_Stage(*layers))
                widths.append(channels)
            if level != last:
                down = block(channels, channels, "down") if a.resblock_updown else _Downsample(channels)
                self.input_blocks.append(_Stage(down))
                widths.append(channels)
                side //= 2

        self.middle_block = _Stage(block(channels, channels), attention(channels), block(channels, channels))

        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(a.channel_mult))):
            for place in range(a.num_res_blocks + 1):
                layers = [block(channels + widths.pop(), multiplier * a.num_channels)]
                channels = multiplier * a.num_channels
                if side in a.attention_resolutions:
                    layers.append(attention(channels))
                if level > 0 and place == a.num_res_blocks:
                    layers.append(block(channels, channels, "up") if a.resblock_updown else _Upsample(channels))
                    side *= 2
                self.output_blocks.append(_Stage(*layers))

        self.out = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, 6 if a.learn_sigma else 3, 3, padding=1))
        for module in self.modules():
            if isinstance(module, _Stage):
                module.recompute = activation_checkpointing

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's output.

        Args:
            x: noisy images, (B, 3, H, W).
            timesteps: step indices in [0, 999], fractional ones too, (B,).
            labels: class of each image, (B,); for a class-conditional network alone.

        Returns:
            ε, (B, 3, H, W), or (B, 6, H, W) with the learned variance behind it.
        """
        emb = self.time_embed(time_embedding(timesteps, self.architecture.num_channels).to(x.dtype))
        if labels is not None:
            emb = emb + self.label_emb(labels)
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h)
