"""StableDiffusion: the denoiser of latents of Stable Diffusion 1.x and 2.x, in the layout of diffusers.

A UNet2DConditionModel, conditioned on the text encoder's embeddings of a prompt, that was trained on a table of noise rates.
The prompt is encoded once, when the prior is made; the text encoder is not kept.

References:
    Rombach, Blattmann, Lorenz, Esser, Ommer, High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.paths.discrete import DiscretePath
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError, fill, load_state
from cclight.priors.hf_diffusers import PREDICTIONS, _file, _settings


class StableDiffusion(Prior):
    """The denoiser of latents of a Stable Diffusion 1.x or 2.x pipeline, to be wrapped in Latent.

    Of the pipeline only settings and weights are read: no Python file of it runs.

    Args:
        repo: a repository on the Hugging Face hub (stable-diffusion-v1-5/stable-diffusion-v1-5) or a folder made by
            `save_pretrained`.
        prompt: what the images show; empty for nothing in particular. Reading it needs the package transformers.
        prompt_embeds: a torch or safetensors file with the embeddings of a prompt, one tensor (L, D) or (1, L, D), instead.

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

    def __init__(self, repo: str, prompt: str = "", prompt_embeds: str | None = None) -> None:
        network, scheduler = _parts(repo)
        super().__init__(
            DiscretePath(tuple(scheduler.betas.double().tolist())), PREDICTIONS[scheduler.config.prediction_type]()
        )
        self.channels = network.config["in_channels"]
        self.stride = 2 ** (len(network.config["block_out_channels"]) - 1)
        self.network = network
        embeds = _encoded(repo, prompt) if prompt_embeds is None else _stored(Path(prompt_embeds))
        wanted = network.config["cross_attention_dim"]
        if embeds.ndim != 3 or len(embeds) != 1 or embeds.shape[2] != wanted:
            raise CheckpointError(
                f"The prompt's embeddings have the shape {tuple(embeds.shape)}, and the network of {repo} takes "
                f"(1, L, {wanted}): take embeddings of its own text encoder."
            )
        self.register_buffer("embeds", embeds.float())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        embeds = self.embeds.expand(x_t.shape[0], -1, -1).to(x_t.dtype)
        return self.network(x_t, self.path.index(t), encoder_hidden_states=embeds).sample


def _parts(repo: str) -> tuple[Any, Any]:
    """The network, with its weights and frozen, and the scheduler; see `hf_diffusers` for why no pipeline is loaded."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("StableDiffusion needs the package diffusers: pip install 'cclight[latent]'.") from error
    index = _settings(_file(repo, "model_index.json"))
    if index.get("unet") != ["diffusers", "UNet2DConditionModel"] or index.get("text_encoder_2", [None])[0] is not None:
        raise _refusal(repo, "its network is not Stable Diffusion's UNet2DConditionModel with one text encoder")
    kind = getattr(diffusers, str(index.get("scheduler", [None, None])[1]), None)
    if index["scheduler"][0] != "diffusers" or not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise _refusal(repo, "its scheduler is none of diffusers")
    names = (f"unet/diffusion_pytorch_model.{end}" for end in ("safetensors", "fp16.safetensors", "bin"))
    weights = _file(repo, *names)
    try:
        scheduler = kind.from_config(_settings(_file(repo, "scheduler/scheduler_config.json")))
        with torch.device("meta"):
            network = diffusers.UNet2DConditionModel.from_config(_settings(_file(repo, "unet/config.json")))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a wrong setting leads to
        raise _refusal(repo, f"its settings make no network and scheduler ({one_line(error)})") from error
    if getattr(scheduler, "betas", None) is None or scheduler.config.prediction_type not in PREDICTIONS:
        raise _refusal(repo, "its scheduler has no table of noise rates, or another prediction")
    fill(network, load_state(weights), weights)
    return network, scheduler


def _encoded(repo: str, prompt: str) -> Tensor:
    """The text encoder's embeddings of a prompt, (1, L, D)."""
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ImportError(
            "StableDiffusion reads a prompt with transformers: pip install 'cclight[latent]', or give prompt_embeds."
        ) from error
    try:
        tokenizer = CLIPTokenizer.from_pretrained(repo, subfolder="tokenizer")
        encoder = CLIPTextModel.from_pretrained(repo, subfolder="text_encoder", use_safetensors=True).float().eval()
        length = tokenizer.model_max_length
        tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            return encoder(tokens).last_hidden_state
    except Exception as error:  # the hub, the file system and transformers raise classes of their own
        raise _refusal(repo, f"its text encoder cannot read the prompt ({one_line(error)})") from error


def _stored(file: Path) -> Tensor:
    if not file.is_file():
        raise CheckpointError(f"No embeddings at {file}: give the file of a tensor (L, D), or leave prompt_embeds out.")
    tensors = [value for value in load_state(file).values() if isinstance(value, Tensor)]
    if len(tensors) != 1:
        raise CheckpointError(f"{file} holds {len(tensors)} tensors, not one: save {{'prompt_embeds': tensor}}.")
    return tensors[0] if tensors[0].ndim == 3 else tensors[0][None]


def _refusal(repo: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{repo} cannot be used: {reason}. Choose a pipeline of Stable Diffusion 1.x or 2.x.")
