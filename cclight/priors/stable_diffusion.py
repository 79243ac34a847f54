"""StableDiffusion: the denoiser of latents of Stable Diffusion 1.x, 2.x and XL, in the layout of diffusers.

A UNet2DConditionModel, conditioned on the text encoder's embeddings of a prompt, that was trained on a table of noise rates.
XL joins the embeddings of two encoders, and is told the second one's summary of the prompt and the image's size besides. The
prompt is encoded once, when the prior is made; the text encoders are not kept.

References:
    Rombach, Blattmann, Lorenz, Esser, Ommer, High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022.
    Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, ICLR 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.paths.discrete import DiscretePath
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.hf_diffusers import PREDICTIONS
from cclight.priors.hf_files import (
    diffusers_for,
    kinds_of,
    network_of,
    pipeline_file,
    refusal,
    scheduler_class,
    settings_of,
    weights_of,
)
from cclight.priors.prompts import check_width, encoded, stored

PIXELS = 8  # of an image's side that make one of the latents': XL is told the size in pixels


class StableDiffusion(Prior):
    """The denoiser of latents of a Stable Diffusion pipeline (1.x, 2.x, XL), to be wrapped in Latent.

    Of the pipeline only settings and weights are read: no Python file of it runs.

    Args:
        repo: a repository on the Hugging Face hub (stable-diffusion-v1-5/stable-diffusion-v1-5) or a folder made by
            `save_pretrained`.
        prompt: what the images show; empty for nothing in particular. Reading it needs the package transformers.
        prompt_embeds: instead, a torch or safetensors file of a dictionary with the embeddings `prompt_embeds`, (1, L, D), and
            for XL `pooled_prompt_embeds`, (1, P), as the pipeline's encode_prompt gives them.

    Raises:
        ImportError: where diffusers, or for a prompt transformers, is not installed.
        CheckpointError: for a pipeline that cannot be had or is of another kind.
    """

    reference = """@inproceedings{rombach2022high,
  title = {High-Resolution Image Synthesis with Latent Diffusion Models},
  author = {Rombach, Robin and Blattmann, Andreas and Lorenz, Dominik and Esser, Patrick and Ommer, Bj{\\"o}rn},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022},
}"""

    path: DiscretePath
    embeds: Tensor
    pooled: Tensor | None

    def __init__(self, repo: str, prompt: str = "", prompt_embeds: str | None = None) -> None:
        network, scheduler = _parts(repo)
        betas = tuple(scheduler.betas.double().tolist())
        super().__init__(DiscretePath(betas), PREDICTIONS[scheduler.config.prediction_type]())
        self.channels = network.config["in_channels"]
        self.stride = 2 ** (len(network.config["block_out_channels"]) - 1)
        self.network = network
        xl = network.config["addition_embed_type"] == "text_time"
        embeds, pooled = _embeddings(repo, prompt, prompt_embeds, xl)
        check_width("prompt_embeds", embeds, (1, "L", network.config["cross_attention_dim"]), repo)
        self.register_buffer("embeds", embeds.float())
        self.register_buffer("pooled", None if pooled is None else pooled.float())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        batch, dtype = x_t.shape[0], x_t.dtype
        added = None
        if self.pooled is not None:
            height, width = (PIXELS * side for side in x_t.shape[-2:])
            # The size of the image, where it was cut out (nowhere), and the size that is wanted.
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=x_t.device)
            added = {"text_embeds": self.pooled.expand(batch, -1).to(dtype), "time_ids": sizes.expand(batch, -1)}
        embeds = self.embeds.expand(batch, -1, -1).to(dtype)
        return self.network(x_t, self.path.index(t), encoder_hidden_states=embeds, added_cond_kwargs=added).sample


def _parts(repo: str) -> tuple[Any, Any]:
    """The network, with its weights and frozen, and the scheduler; see `hf_files` for why no pipeline is loaded."""
    diffusers = diffusers_for("StableDiffusion", "latent")
    index = kinds_of(repo)
    if index.get("unet") != ("diffusers", "UNet2DConditionModel"):
        raise _refusal(repo, "its network is not a UNet2DConditionModel of diffusers")
    kind = scheduler_class(diffusers, index.get("scheduler", ()))
    if kind is None:
        raise _refusal(repo, "its scheduler is none of diffusers")
    scheduler_settings = settings_of(pipeline_file(repo, "scheduler/scheduler_config.json"))
    settings = settings_of(pipeline_file(repo, "unet/config.json"))
    state, source = weights_of(repo, "unet/")
    try:
        scheduler = kind.from_config(scheduler_settings)
        network = network_of(diffusers.UNet2DConditionModel, settings, state, source)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a wrong setting leads to
        raise _refusal(repo, f"its settings make no network and scheduler ({one_line(error)})") from error
    if getattr(scheduler, "betas", None) is None or scheduler.config.prediction_type not in PREDICTIONS:
        raise _refusal(repo, "its scheduler has no table of noise rates, or another prediction")
    if network.config["addition_embed_type"] not in (None, "text_time"):
        raise _refusal(repo, f"its network asks for {network.config['addition_embed_type']} beside the prompt")
    return network, scheduler


def _embeddings(repo: str, prompt: str, file: str | None, xl: bool) -> tuple[Tensor, Tensor | None]:
    """The text encoders' embeddings of a prompt, (1, L, D), and for XL the second one's summary, (1, P)."""
    if file is not None:
        found = stored(file, "prompt_embeds", *(["pooled_prompt_embeds"] if xl else []))
        return found[0], found[1] if xl else None
    first, _ = encoded(repo, prompt, "CLIPTokenizer", "CLIPTextModel")
    if not xl:
        return first.last_hidden_state, None
    second, _ = encoded(repo, prompt, "CLIPTokenizer", "CLIPTextModelWithProjection", "_2")
    # XL was trained on the layer before the last of both.
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=2), second.text_embeds


def _refusal(repo: str, reason: str) -> CheckpointError:
    return refusal(repo, reason, "a pipeline of Stable Diffusion 1.x, 2.x or XL")
