r"""The U-Nets of EDM, in the published checkpoints' layout: SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM rewritten).

Both are made of one block. With N a group norm, e the embedding of noise level and label, R a resampling (or nothing),

    h = conv0(R silu(N(x))),     h = conv1(silu(N(h + a))) or conv1(silu((1 + a) N(h) + b)),     (a, b) = affine(e)
    x = g (h + skip(R x)),       x = g (x + proj(attention(N(x)))) where there is attention

with g = 1/√2 in SongUNet, which adds, and g = 1 in DhariwalUNet, which scales and shifts. The state_dict's keys name the
side of the image at each level (`enc.16x16_block0`), so that `architecture_of_state` reads the whole network off them.

References:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022.
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, ICLR 2021 (DDPM++, NCSN++).
    Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021 (ADM).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cclight.priors.edm_architecture import UNetArchitecture

HEAD_CHANNELS = 64  # of DhariwalUNet's attention; a layer of fewer channels has none


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=eps)


class _Conv(nn.Conv2d):
    """A convolution that resamples its input before, or its output after (the auxiliary image of NCSN++)."""

    def __init__(self, inside: int, out: int, kernel: int, resample: str | None = None, taps: int = 2) -> None:
        super().__init__(inside, out, kernel, padding=kernel // 2)
        self.resample = resample
        self.resample_filter: Tensor | None
        self.register_buffer("resample_filter", None if resample is None else torch.zeros(1, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "down after":
            assert self.resample_filter is not None
            assert self.bias is not None
            # The filter's border is the convolution's: one wider padding, and the bias at the end.
            padding = self.kernel_size[0] // 2 + (self.resample_filter.shape[-1] - 1) // 2
            h = F.conv2d(x, self.weight, padding=padding)
            return _resampled(h, self.resample_filter, "down", padding=0) + self.bias[:, None, None]
        return super().forward(_resampled(x, self.resample_filter, self.resample))


class _Resample(nn.Module):
    """A skip connection that only resamples."""

    def __init__(self, resample: str, taps: int) -> None:
        super().__init__()
        self.resample = resample
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", torch.zeros(1, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        return _resampled(x, self.resample_filter, self.resample)


def _resampled(x: Tensor, kernel: Tensor | None, resample: str | None, padding: int | None = None) -> Tensor:
    """Half or twice the side by the filter, the same for every channel; zero beyond the border."""
    if resample is None:
        return x
    assert kernel is not None
    channels = x.shape[1]
    padding = (kernel.shape[-1] - 1) // 2 if padding is None else padding
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    if resample == "up":
        return F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)


class UNetBlock(nn.Module):
    """The residual block of both U-Nets; module docstring.

    Args:
        channels: of the input.
        out: of the output.
        embedding: width of e.
        heads: of the attention; 0 for none.
        song: SongUNet's block, which adds a, scales by 1/√2 and convolves every skip that resamples; else DhariwalUNet's.
        resample: "up", "down" or None.
        taps: length of the resampling filter.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        heads: int,
        song: bool,
        resample: Literal["up", "down", None] = None,
        taps: int = 2,
    ) -> None:
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.song, self.heads = song, heads
        self.gain = math.sqrt(0.5) if song else 1.0
        self.norm0 = _norm(channels, eps)
        self.conv0 = _Conv(channels, out, 3, resample, taps)
        self.affine = nn.Linear(embedding, out if song else 2 * out)
        self.norm1 = _norm(out, eps)
        self.conv1 = _Conv(out, out, 3)
        self.skip: nn.Module | None = None
        if channels != out or (song and resample is not None):
            self.skip = _Conv(channels, out, 1, resample, taps)
        elif resample is not None:
            self.skip = _Resample(resample, taps)
        if heads:
            self.norm2 = _norm(out, eps)
            self.qkv = nn.Conv2d(out, 3 * out, 1)
            self.proj = nn.Conv2d(out, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        modulation = self.affine(emb)[:, :, None, None].to(h.dtype)
        if self.song:
            h = F.silu(self.norm1(h + modulation))
        else:
            scale, shift = modulation.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        x = self.gain * (self.conv1(h) + (x if self.skip is None else self.skip(x)))
        return self.gain * (x + self.proj(self._attention(self.norm2(x)))) if self.heads else x

    def _attention(self, x: Tensor) -> Tensor:
        # Head slowest, then the channel within it, then query, key or value: (B, heads, channels, 3, pixels).
        qkv = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))
        q, k, v = qkv.transpose(2, 4).unbind(3)
        return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)


class _Fourier(nn.Module):
    """Phases 2π f c at fixed random frequencies f."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", torch.zeros(channels // 2))

    def forward(self, noise: Tensor) -> Tensor:
        return noise[:, None] * (2 * math.pi * self.freqs).to(noise.dtype)


def _geometric(noise: Tensor, channels: int, last: int) -> Tensor:
    """Phases at frequencies that fall from 1 towards 1/10000, which they reach after `last` steps: (B, channels / 2)."""
    places = torch.arange(channels // 2, dtype=noise.dtype, device=noise.device)
    return noise[:, None] * (1 / 10000) ** (places / last)


def _layers(a: UNetArchitecture, song: bool) -> tuple[nn.ModuleDict, nn.ModuleDict, int]:
    """Encoder and decoder by the names of their layers, and the channels at the end."""
    embedding = a.channel_mult_emb * a.model_channels

    def block(channels: int, out: int, attention: bool, resample: Literal["up", "down", None] = None) -> UNetBlock:
        heads = 1 if song else out // HEAD_CHANNELS
        return UNetBlock(channels, out, embedding, heads if attention else 0, song, resample, a.taps)

    enc, dec = nn.ModuleDict(), nn.ModuleDict()
    channels, image = a.model_channels if song else a.widths[0][1], a.img_channels
    enc[f"{a.img_resolution}x{a.img_resolution}_conv"] = _Conv(a.img_channels, channels, 3)
    skips = [channels]
    for level, (side, width) in enumerate(a.widths):
        if level:
            enc[f"{side}x{side}_down"] = block(channels, channels, False, "down")
            if a.residual:
                enc[f"{side}x{side}_aux_residual"] = _Conv(image, channels, 3, "down after", a.taps)
                image = channels
            skips.append(channels)
        for number in range(a.num_blocks):
            enc[f"{side}x{side}_block{number}"] = block(channels, width, side in a.attn_resolutions)
            channels = width
            skips.append(channels)
    for level, (side, width) in reversed(list(enumerate(a.widths))):
        if level == len(a.widths) - 1:
            dec[f"{side}x{side}_in0"] = block(channels, channels, True)
            dec[f"{side}x{side}_in1"] = block(channels, channels, False)
        else:
            dec[f"{side}x{side}_up"] = block(channels, channels, False, "up")
        for number in range(a.num_blocks + 1):
            attention = side in a.attn_resolutions and (number == a.num_blocks or not song)
            dec[f"{side}x{side}_block{number}"] = block(channels + skips.pop(), width, attention)
            channels = width
    return enc, dec, channels


def _run(enc: nn.ModuleDict, dec: nn.ModuleDict, x: Tensor, emb: Tensor) -> Tensor:
    """The blocks in their order; `_block`s of the decoder see the encoder's features again, last first."""
    image = x
    skips: list[Tensor] = []
    for name, layer in enc.items():
        if name.endswith("_aux_residual"):
            skips[-1] = image = x = (x + layer(image)) / math.sqrt(2)
            continue
        x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
        skips.append(x)
    for name, layer in dec.items():
        if isinstance(layer, UNetBlock):
            x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
    return x


class SongUNet(nn.Module):
    """DDPM++ and NCSN++ as EDM runs them.

    Args:
        architecture: what fixes the layers.
    """

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        noise, embedding = a.channel_mult_noise * a.model_channels, a.channel_mult_emb * a.model_channels
        self.map_noise = _Fourier(noise) if a.fourier else None
        self.map_label = nn.Linear(a.label_dim, noise) if a.label_dim else None
        if a.augment_dim:
            self.map_augment = nn.Linear(a.augment_dim, noise, bias=False)  # of training alone
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc, self.dec, channels = _layers(a, song=True)
        self.last = f"{a.img_resolution}x{a.img_resolution}_aux"
        self.dec[f"{self.last}_norm"] = _norm(channels, 1e-6)
        self.dec[f"{self.last}_conv"] = _Conv(channels, a.img_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The raw output F.

        Args:
            x: scaled noisy images, (B, C, H, W).
            noise: c_noise of each image, (B,).
            labels: one-hot rows (of zeros where there is no label), (B, label_dim); None for none.

        Returns:
            F, (B, C, H, W).
        """
        width = self.map_layer0.in_features
        phase = self.map_noise(noise) if self.map_noise is not None else _geometric(noise, width, width // 2 - 1)
        emb = torch.cat([phase.sin(), phase.cos()], dim=1).to(x.dtype)
        if self.map_label is not None:
            classes = self.map_label.in_features
            labels = torch.zeros(1, classes, dtype=x.dtype, device=x.device) if labels is None else labels
            emb = emb + self.map_label(labels * math.sqrt(classes))
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        x = _run(self.enc, self.dec, x, emb)
        return self.dec[f"{self.last}_conv"](F.silu(self.dec[f"{self.last}_norm"](x)))


class DhariwalUNet(nn.Module):
    """ADM as EDM rewrote it.

    Args:
        architecture: what fixes the layers.
    """

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        embedding = a.channel_mult_emb * a.model_channels
        self.map_label = nn.Linear(a.label_dim, embedding, bias=False) if a.label_dim else None
        self.map_layer0 = nn.Linear(a.model_channels, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc, self.dec, channels = _layers(a, song=False)
        self.out_norm = _norm(channels, 1e-5)
        self.out_conv = _Conv(channels, a.img_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The raw output F; see `SongUNet.forward`."""
        width = self.map_layer0.in_features
        phase = _geometric(noise, width, width // 2)
        emb = torch.cat([phase.cos(), phase.sin()], dim=1).to(x.dtype)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels)
        x = _run(self.enc, self.dec, x, F.silu(emb))
        return self.out_conv(F.silu(self.out_norm(x)))
