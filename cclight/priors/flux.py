r"""Flux: the denoiser of latents of FLUX.1, in the layout of diffusers.

A transformer of patches of 2×2 latents, which is fed σ and predicts ε - z_0 on z = (1 - σ) z_0 + σ ε: with t = 1 - σ, `OTPath`
and the negative of its velocity. It is told a prompt by two text encoders, the embeddings of one (T5) and the summary of the
other (CLIP), and, where it was distilled so (FLUX.1-dev), a weight of guidance. The scheduler's shifts only choose the times of
diffusers' own sampling.

References:
    Black Forest Labs, FLUX.1, 2024, https://github.com/black-forest-labs/flux.
    Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, ICML 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Velocity
from cclight.priors.base import Prior
from cclight.priors.hf_files import flow_transformer
from cclight.priors.prompts import check_width, encoded, stored

_SIDE = 2  # of a patch, in latents
_WORDS = 512


class Flux(Prior):
    """The denoiser of latents of a FLUX.1 pipeline, to be wrapped in Latent.

    Of the pipeline only settings and weights are read: no Python file of it runs. In float32 the published network takes 48 GB.

    Args:
        repo: a repository on the Hugging Face hub (black-forest-labs/FLUX.1-schnell) or a folder made by `save_pretrained`.
        prompt: what the images show; empty for nothing in particular. Reading it needs the package transformers.
        prompt_embeds: instead, a torch or safetensors file of a dictionary with `prompt_embeds`, (1, L, D), and
            `pooled_prompt_embeds`, (1, P), as the pipeline's encode_prompt gives them.
        guidance: for a network distilled with guidance, its weight: 1 for the plain prior; images from noise are made with 3.5.

    Raises:
        ImportError: where diffusers, or for a prompt transformers, is not installed.
        CheckpointError: for a pipeline that cannot be had or is of another kind.
    """

    reference = """@misc{flux2024,
  title = {{FLUX.1}},
  author = {{Black Forest Labs}},
  howpublished = {https://github.com/black-forest-labs/flux},
  year = {2024},
}"""

    stride = _SIDE
    embeds: Tensor
    pooled: Tensor

    def __init__(self, repo: str, prompt: str = "", prompt_embeds: str | None = None, guidance: float = 1.0) -> None:
        super().__init__(OTPath(), Velocity())
        wanted = "a pipeline of FLUX.1"
        self.network, _ = flow_transformer(repo, "Flux", "FluxTransformer2DModel", wanted)
        config = self.network.config
        self.channels = config["in_channels"] // _SIDE**2
        self.guidance = guidance if config["guidance_embeds"] else None
        if prompt_embeds is None:
            embeds = encoded(repo, prompt, "T5TokenizerFast", "T5EncoderModel", "_2", _WORDS)[0].last_hidden_state
            pooled = encoded(repo, prompt, "CLIPTokenizer", "CLIPTextModel")[0].pooler_output
        else:
            embeds, pooled = stored(prompt_embeds, "prompt_embeds", "pooled_prompt_embeds")
        check_width("prompt_embeds", embeds, (1, "L", config["joint_attention_dim"]), repo)
        check_width("pooled_prompt_embeds", pooled, (1, config["pooled_projection_dim"]), repo)
        self.register_buffer("embeds", embeds.float())
        self.register_buffer("pooled", pooled.float())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        batch, dtype, device = x_t.shape[0], x_t.dtype, x_t.device
        rows, columns = (side // _SIDE for side in x_t.shape[-2:])
        places = torch.zeros(rows, columns, 3, dtype=dtype, device=device)
        places[..., 1] = torch.arange(rows, dtype=dtype, device=device)[:, None]
        places[..., 2] = torch.arange(columns, dtype=dtype, device=device)
        output = self.network(
            pixel_unshuffle(x_t, _SIDE).flatten(2).transpose(1, 2),
            encoder_hidden_states=self.embeds.expand(batch, -1, -1).to(dtype),
            pooled_projections=self.pooled.expand(batch, -1).to(dtype),
            timestep=1 - t,
            img_ids=places.flatten(0, 1),
            txt_ids=torch.zeros(self.embeds.shape[1], 3, dtype=dtype, device=device),
            guidance=None if self.guidance is None else torch.full_like(t, self.guidance),
        ).sample
        return -pixel_shuffle(output.transpose(1, 2).unflatten(2, (rows, columns)), _SIDE)
