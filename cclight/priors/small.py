r"""SmallPrior: the embedded prior, a small fully convolutional denoiser that ships with the package.

One set of weights serves every path, because a Gaussian path at time t is, up to scale, clean image plus noise of standard
deviation ρ = σ(t)/α(t). The network denoises z = x_t / α = x_0 + ρ ε with the preconditioning of EDM,

    x̂_0 = c_skip z + c_out F(c_in z, ln ρ),
    c_skip = s²/(ρ² + s²),   c_out = ρ s/√(ρ² + s²),   c_in = 1/√(ρ² + s²),   s = 0.5 the images' standard deviation,

and the result is turned into whatever output N the chosen parameterization asks for.

F is a U-Net without attention and without normalization layers, so that a large photograph is treated as its patches are:
a pixel-unshuffle stem, residual blocks modulated by the noise level, additive skips.

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (table 1, preconditioning).
    Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior, 2021 (a plain residual U-Net over all noise levels).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from cclight.errors import RunError
from cclight.paths.gaussian import GaussianPath, VPPath
from cclight.paths.parameterization import Epsilon, Parameterization
from cclight.priors.base import Prior, per_image
from cclight.priors.checkpoints import CheckpointError, assign, check_finite
from cclight.runs.files import write_whole

SIGMA_DATA = 0.5  # standard deviation of photographs in [-1, 1]
RATIO_MIN, RATIO_MAX = 2e-3, 150.0  # the noise levels ρ that training covers
EMBEDDING = 96  # width of the noise level's embedding
FORMAT = "cclight.SmallPrior/1"


class Block(nn.Module):
    """x + conv(silu(modulated conv(x))); starts as the identity."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        return x + self.conv_out(functional.silu(torch.addcmul(shift, self.conv_in(x), scale + 1)))


class SmallUNet(nn.Module):
    """F of the module's docstring: (B, 3, H, W), ln ρ (B,) -> (B, 3, H, W); H and W divisible by `stride`.

    Args:
        widths: channels of each level, from half resolution downward.
        depths: residual blocks of each level, on the way down and again on the way up; the last level has them once.
        image_channels: channels of the image.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], image_channels: int = 3) -> None:
        super().__init__()
        embedding = EMBEDDING
        self.widths, self.depths = widths, depths
        self.stride = 2 ** len(widths)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.linspace(0.25, 4.0, 16, device="cpu"), persistent=False)
        self.embed = nn.Sequential(nn.Linear(33, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = nn.Conv2d(4 * image_channels, widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], 4 * image_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

        def blocks(level: int) -> nn.ModuleList:
            return nn.ModuleList(Block(widths[level], embedding) for _ in range(depths[level]))

        last = len(widths) - 1
        self.down = nn.ModuleList(blocks(level) for level in range(last))
        self.bottom = blocks(last)
        self.up = nn.ModuleList(blocks(level) for level in range(last))
        self.shrink = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in range(last))
        self.grow = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(last))

    def forward(self, x: Tensor, log_ratio: Tensor) -> Tensor:
        phase = log_ratio[:, None] * self.frequencies
        embedding = self.embed(torch.cat([log_ratio[:, None] / 4, phase.sin(), phase.cos()], dim=1))
        h = self.stem(functional.pixel_unshuffle(x, 2))
        skips: list[Tensor] = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for block in level:  # type: ignore[attr-defined]
                h = block(h, embedding)
            skips.append(h)
            h = shrink(h)
        for block in self.bottom:
            h = block(h, embedding)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = skips.pop() + functional.interpolate(grow(h), scale_factor=2.0, mode="nearest")
            for block in level:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return functional.pixel_shuffle(self.head(functional.silu(h)), 2)


def preconditioned(network: nn.Module, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The denoised estimate c_skip z + c_out F(c_in z, ln ρ), written so that α = 0 (pure noise) is as good as any.

    Args:
        network: F.
        x_t: noisy images α x_0 + σ ε, (B, C, H, W).
        alpha: α of each image, (B,).
        sigma: σ of each image, (B,).
    """
    log_ratio = torch.log((sigma / alpha).clamp(RATIO_MIN, RATIO_MAX))
    alpha, sigma = per_image(alpha, x_t), per_image(sigma, x_t)
    total = torch.sqrt(sigma**2 + (alpha * SIGMA_DATA) ** 2)
    output = network(x_t / total, log_ratio).to(x_t.dtype)
    return alpha * (SIGMA_DATA / total) ** 2 * x_t + sigma * SIGMA_DATA / total * output


def save(network: SmallUNet, path: Path, note: str = "") -> None:
    """Write the packaged format: float16 safetensors whose metadata rebuilds the network. Written whole or not at all.

    Args:
        network: the network.
        path: the file to write, `*.safetensors`.
        note: a line for the file's metadata, such as how long it was trained.

    Raises:
        CheckpointError: for weights that are not finite in float16.
        RunError: where the file cannot be written; nothing partial stays behind.
    """
    state = {key: value.detach().half().cpu().contiguous() for key, value in network.state_dict().items()}
    check_finite(state, path)
    metadata = {"format": FORMAT, "widths": str(network.widths)[1:-1], "depths": str(network.depths)[1:-1], "note": note}
    try:
        write_whole(path, safetensors.torch.save(state, metadata))
    except RunError as error:
        raise RunError(
            f"Could not write {path} ({getattr(error.__cause__, 'strerror', error)}): give another place."
        ) from error


def load(weights: str | None = None) -> SmallUNet:
    """The network of a packaged file, in float32; None takes the weights inside the package.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file is no export of a SmallPrior, or its weights are not finite.
    """
    path = Path(weights).expanduser() if weights else Path(str(resources.files("cclight") / "assets" / "small.safetensors"))
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}: give a file that `cclight export` wrote, or leave `weights` out.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except safetensors.SafetensorError as error:
        trained = ", and `cclight export` makes one of a training's checkpoint" if path.suffix == ".ckpt" else ""
        raise ValueError(f"{path} is no readable safetensors file ({error}): give one of `cclight export`{trained}.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no export of a SmallPrior (format {metadata.get('format')!r}): make it with `cclight export`."
        )
    try:
        widths, depths = (tuple(int(n) for n in metadata[key].split(",") if n.strip()) for key in ("widths", "depths"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not say which network it holds ({error}): make it with `cclight export`.") from error
    return network_of(widths, depths, state, path)


def network_of(widths: tuple[int, ...], depths: tuple[int, ...], state: Mapping[str, Any], source: Path) -> SmallUNet:
    """A network with given weights, in float32 and trainable.

    Args:
        widths: as `SmallUNet` takes them.
        depths: as `SmallUNet` takes them.
        state: its state_dict.
        source: the file that they come from, for the error.

    Raises:
        CheckpointError: where they do not fit each other or are not finite.
    """
    # Each block has weights of its own: a file that claims more blocks than that is not to be tried.
    if not 0 < len(widths) == len(depths) or min(widths) < 1 or min(depths) < 0 or sum(depths) > len(state):
        raise CheckpointError(f"{source} describes no network (widths {widths}, depths {depths}): take another checkpoint.")
    with torch.device("meta"):
        network = SmallUNet(widths, depths)
    assign(network, state, source)
    return network


class SmallPrior(Prior):
    """The embedded prior: a small U-Net on photographs of any size, colour or grey, for every path.

    Args:
        weights: a safetensors file made by `cclight export`; None takes the weights inside the package.
        path: the path to sample along; the same weights serve all. None is the VP path.
        parameterization: the output N that samplers see; the same weights serve all. None is ε.

    Raises:
        FileNotFoundError: when the weights file does not exist.
        ValueError: when the file is no export of a SmallPrior, or its weights are not finite.
    """

    def __init__(
        self,
        weights: str | None = None,
        path: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__(path or VPPath(), parameterization or Epsilon())
        self.network = load(weights).to(memory_format=torch.channels_last)
        self.stride = self.network.stride
        self.requires_grad_(False).eval()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = preconditioned(self.network, x_t, self.path.alpha(t), self.path.sigma(t))
        return self.parameterization.output(self.path, per_image(t, x_t), x_t, x_0)
