r"""Sana: the denoiser of latents of Sana, in the layout of diffusers.

A transformer with linear attention, which is fed 1000 σ and predicts ε - z_0 on z = (1 - σ) z_0 + σ ε: with t = 1 - σ, `OTPath`
and the negative of its velocity. Its autoencoder makes 32×32 pixels one latent. The prompt is read by a language model (Gemma).
The scheduler's shifts only choose the times of diffusers' own sampling.

Reference:
    Xie et al., SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers, ICLR 2025.
"""

from __future__ import annotations

from torch import Tensor

from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Velocity
from cclight.priors.base import Prior
from cclight.priors.hf_files import flow_transformer, refusal
from cclight.priors.prompts import check_width, encoded, stored

_WORDS = 300
_WANTED = "a pipeline of Sana (SanaPipeline)"


class Sana(Prior):
    """The denoiser of latents of a Sana pipeline, to be wrapped in Latent.

    Of the pipeline only settings and weights are read: no Python file of it runs.

    Args:
        repo: a repository on the Hugging Face hub (Efficient-Large-Model/Sana_1600M_1024px_diffusers) or a folder made by
            `save_pretrained`.
        prompt: what the images show; empty for nothing in particular. It is read as it stands, without the pipeline's
            instructions to embellish it. Reading it needs the package transformers.
        prompt_embeds: instead, a torch or safetensors file of a dictionary with `prompt_embeds`, (1, L, D), and
            `prompt_attention_mask`, (1, L), as the pipeline's encode_prompt gives them.

    Raises:
        ImportError: where diffusers, or for a prompt transformers, is not installed.
        CheckpointError: for a pipeline that cannot be had or is of another kind.
    """

    reference = """@inproceedings{xie2025sana,
  title = {{SANA}: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers},
  author = {Xie, Enze and Chen, Junsong and Chen, Junyu and Cai, Han and Tang, Haotian and Lin, Yujun and Zhang, Zhekai and
            Li, Muyang and Zhu, Ligeng and Lu, Yao and Han, Song},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
}"""

    embeds: Tensor
    mask: Tensor

    def __init__(self, repo: str, prompt: str = "", prompt_embeds: str | None = None) -> None:
        super().__init__(OTPath(), Velocity())
        self.network, steps = flow_transformer(repo, "Sana", "SanaTransformer2DModel", _WANTED)
        config = self.network.config
        if config.get("guidance_embeds"):
            raise refusal(repo, "its network is Sana-Sprint's, which knows other times", _WANTED)
        self.channels, self.stride = config["in_channels"], config["patch_size"]
        self.steps = steps * config.get("timestep_scale", 1.0)
        if config.get("interpolation_scale") is not None:  # positions are a table of one size
            self.image_shape = (self.channels, config["sample_size"], config["sample_size"])
        if prompt_embeds is None:
            output, mask = encoded(repo, prompt.lower().strip(), "GemmaTokenizerFast", "Gemma2Model", length=_WORDS)
            embeds = output.last_hidden_state
        else:
            embeds, mask = stored(prompt_embeds, "prompt_embeds", "prompt_attention_mask")
        check_width("prompt_embeds", embeds, (1, "L", config["caption_channels"]), repo)
        check_width("prompt_attention_mask", mask, (1, embeds.shape[1]), repo)
        self.register_buffer("embeds", embeds.float())
        self.register_buffer("mask", mask.float())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        batch, dtype = x_t.shape[0], x_t.dtype
        output = self.network(
            x_t,
            encoder_hidden_states=self.embeds.expand(batch, -1, -1).to(dtype),
            encoder_attention_mask=self.mask.expand(batch, -1).to(dtype),
            timestep=self.steps * (1 - t),
        ).sample
        # A learned variance lies behind the latents' channels.
        return -output[:, : self.channels]
