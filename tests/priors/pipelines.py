"""A tiny Stable Diffusion pipeline with seeded weights, saved as diffusers saves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.priors.tiny import seeded

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 6,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 3}


def stable_diffusion(folder: Path, prediction="epsilon", **changes):
    """Save the pipeline without a text encoder, and one prompt's embeddings beside it.

    Returns:
        The folder, the embeddings' file, and the autoencoder and network themselves.
    """
    diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[diffusers]")
    vae, unet = seeded(diffusers.AutoencoderKL(**VAE)), seeded(diffusers.UNet2DConditionModel(**UNET, **changes))
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", prediction_type=prediction, clip_sample=False)
    kinds = {}
    for name, part in (("vae", vae), ("unet", unet), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
        kinds[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **kinds}))
    embeds = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.save({"prompt_embeds": embeds, "pooled_prompt_embeds": embeds[:, 0, :3]}, folder / "embeds.pt")
    return str(folder), str(folder / "embeds.pt"), vae, unet, scheduler, embeds


FLUX_VAE = VAE | {"use_quant_conv": False, "use_post_quant_conv": False}
FLUX = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 6,
    "pooled_projection_dim": 3,
    "axes_dims_rope": (4, 2, 2),
}
SANA_VAE = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_out_channels": (8, 16),
    "decoder_block_out_channels": (8, 16),
    "encoder_layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
    "encoder_qkv_multiscales": ((), ()),
    "decoder_qkv_multiscales": ((), ()),
    "scaling_factor": 0.4,
}
SANA = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_layers": 1,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": 6,
    "sample_size": 8,
}


def flow_pipeline(folder: Path, kind: str, **changes):
    """Save a flow-matching pipeline of latents, "flux" or "sana", as `stable_diffusion` does."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[latent]")
    if kind == "flux":
        vae, network = diffusers.AutoencoderKL(**FLUX_VAE), diffusers.FluxTransformer2DModel(**FLUX, **changes)
    else:
        vae, network = diffusers.AutoencoderDC(**SANA_VAE), diffusers.SanaTransformer2DModel(**SANA, **changes)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    kinds = {}
    for name, part in (("vae", seeded(vae)), ("transformer", seeded(network)), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
        kinds[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"{kind.title()}Pipeline", **kinds}))
    embeds = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    stored = {"prompt_embeds": embeds, "pooled_prompt_embeds": embeds[:, 0, :3], "prompt_attention_mask": mask}
    torch.save({name: value.contiguous() for name, value in stored.items()}, folder / "embeds.pt")
    return str(folder), str(folder / "embeds.pt"), vae, network, scheduler, stored
