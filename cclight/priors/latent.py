r"""Latent: a prior of latents and the autoencoder between them and images.

An autoencoder maps images to latents z = (E(x) - shift) · scale, of fewer pixels and standard deviation about 1, and back,
x = D(z/scale + shift). A prior of latents knows nothing of pixels: restoring needs the decoder. Two ways are there: `LATINO`,
which decodes, meets the measurement in pixels and encodes again, and `InLatents`, which composes the decoder with the operator
(`LatentDecoding`) and samples latents with a sampler that takes any differentiable operator.

The autoencoder always runs in float32: in half precision its activations overflow.

References:
    Rombach, Blattmann, Lorenz, Esser, Ommer, High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cclight.errors import one_line
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.hf_files import diffusers_for, network_of, pipeline_file, settings_of, weights_of

_AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC")


class Autoencoder(nn.Module, ABC):
    """Images in [-1, 1] to latents and back.

    Attributes:
        channels: channels of the images.
        latent_channels: channels of the latents.
        factor: how many pixels of a side make one of the latents'.
    """

    channels: int = 3
    latent_channels: int
    factor: int

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The latents of images, (B, C, H, W) -> (B, c, H/f, W/f); the same images give the same latents."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The images of latents, (B, c, h, w) -> (B, C, f h, f w); differentiable."""


class DiffusersAutoencoder(Autoencoder):
    """The AutoencoderKL or AutoencoderDC of a pipeline of diffusers (Stable Diffusion, FLUX; Sana).

    Only settings and weights are read: no Python file of the pipeline runs.

    Args:
        repo: a repository on the Hugging Face hub or a folder made by `save_pretrained`, whose `vae` is taken.
        tiles: encode and decode large images in overlapping tiles, which saves memory and shows faintly.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: for a repository that cannot be had or holds neither.
    """

    def __init__(self, repo: str, tiles: bool = False) -> None:
        super().__init__()
        diffusers = diffusers_for("DiffusersAutoencoder", "latent")
        settings = settings_of(pipeline_file(repo, "vae/config.json"))
        kind = settings.get("_class_name", "AutoencoderKL")
        if kind not in _AUTOENCODERS:
            raise CheckpointError(
                f"The vae of {repo} is a {kind}, not an {' or '.join(_AUTOENCODERS)}: choose another pipeline."
            )
        state, source = weights_of(repo, "vae/")
        try:
            self.network = network_of(getattr(diffusers, kind), settings, state, source)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a wrong setting leads to
            raise CheckpointError(f"The vae of {repo} cannot be made of its settings ({one_line(error)}).") from error
        if tiles:
            self.network.enable_tiling()
        config = self.network.config
        self.scale, self.shift = float(config["scaling_factor"]), float(config.get("shift_factor") or 0.0)
        self.channels, self.latent_channels = config["in_channels"], config["latent_channels"]
        self.factor = 2 ** (len(config.get("block_out_channels") or config["encoder_block_out_channels"]) - 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DiffusersAutoencoder:
        # Moved with its owner, and not rounded with it: a LightningModule of half precision converts all that it holds.
        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    def encode(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            output = self.network.encode(x.float())
        z = output.latent if hasattr(output, "latent") else output.latent_dist.mean
        return (z - self.shift).to(x.dtype) * self.scale

    def decode(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return self.network.decode(z.float() / self.scale + self.shift).sample.to(z.dtype)


class Latent(Prior):
    """A prior of latents with its autoencoder, for the samplers LATINO and InLatents.

    Args:
        prior: the prior of latents.
        autoencoder: images to latents and back.

    Raises:
        ValueError: where the two have different numbers of latent channels.
    """

    def __init__(self, prior: Prior, autoencoder: Autoencoder) -> None:
        super().__init__(prior.path, prior.parameterization)
        if prior.channels != autoencoder.latent_channels:
            raise ValueError(
                f"{type(prior).__name__} denoises {prior.channels} channels and the autoencoder has latents of "
                f"{autoencoder.latent_channels}: take both from one pipeline."
            )
        self.prior = prior
        self.autoencoder = autoencoder
        self.speak_for(prior)
        self.reference = prior.reference
        self.channels = autoencoder.channels
        self.stride = prior.stride * autoencoder.factor
        if prior.image_shape is not None:
            self.image_shape = (self.channels, *(autoencoder.factor * side for side in prior.image_shape[1:]))

    def latent_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape (c, h, w) of the latents of images (C, H, W)."""
        height, width = (side // self.autoencoder.factor for side in image_shape[-2:])
        return (self.autoencoder.latent_channels, height, width)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The raw output N(z_t, t) for noisy latents.

        Args:
            x_t: noisy latents, (B, c, h, w).
            t: the path's time of each, (B,).
            label: the class of each image, (B,); for a prior that knows labels alone.

        Raises:
            ValueError: for images in the place of latents.
        """
        if x_t.shape[1] != self.autoencoder.latent_channels:
            raise ValueError(
                f"Latent denoises latents of {self.autoencoder.latent_channels} channels, not images of {x_t.shape[1]}: choose "
                f"the sampler LATINO, or InLatents with DPS or REDDiff within."
            )
        return self.prior(x_t, t) if label is None else self.prior(x_t, t, label)
