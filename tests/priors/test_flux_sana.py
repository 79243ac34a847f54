"""cclight/priors/flux.py and sana.py, with the autoencoders of each: tiny pipelines saved here, against those of diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cclight import LATINO, AveragePooling, DiffusersAutoencoder, Flux, InLatents, Latent, REDDiff, Sana
from cclight.priors.checkpoints import CheckpointError
from tests.priors.pipelines import flow_pipeline
from tests.priors.test_latent import edit, noise, relative, text_encoder
from tests.priors.tiny import seeded

diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[latent]")
PRIORS = {"flux": Flux, "sana": Sana}
CHANGES = [("flux", {}), ("flux", {"guidance_embeds": True}), ("sana", {}), ("sana", {"timestep_scale": 0.001})]
CHANGES += [("sana", {"interpolation_scale": 1})]


def pipeline_of(kind, vae, network, scheduler):
    """The pipeline of diffusers itself, with no text encoder."""
    pytest.importorskip("transformers", reason="needs the package transformers")
    parts = {"vae": vae, "transformer": network, "scheduler": scheduler, "tokenizer": None, "text_encoder": None}
    if kind == "flux":
        return diffusers.FluxPipeline(**parts, tokenizer_2=None, text_encoder_2=None)
    return diffusers.SanaPipeline(**parts)


@pytest.mark.parametrize(("kind", "changes"), CHANGES, ids=str)
def test_one_step_of_diffusers_own_pipeline_is_ours(tmp_path, kind, changes):
    """From pure noise, σ = 1, one Euler step of the pipeline to σ = 0 ends in its estimate of z_0, decoded."""
    repo, file, vae, network, scheduler, stored = flow_pipeline(tmp_path, kind, **changes)
    guided = "guidance_embeds" in changes
    prior = PRIORS[kind](repo, prompt_embeds=file, **({"guidance": 3.5} if guided else {}))
    autoencoder = DiffusersAutoencoder(repo)
    z, whole = noise(2, 4, 8, 8), pipeline_of(kind, vae, network, scheduler)
    whole.set_progress_bar_config(disable=True)
    given = {"prompt_embeds": stored["prompt_embeds"].expand(2, -1, -1), "num_inference_steps": 1, "output_type": "latent"}
    given |= {"height": 16, "width": 16}
    if kind == "flux":
        whole.vae_scale_factor = 2  # it takes the published autoencoder's for a tiny one
        packed = whole._pack_latents(z, 2, 4, 8, 8)
        given |= {"pooled_prompt_embeds": stored["pooled_prompt_embeds"].expand(2, -1), "guidance_scale": 3.5}
        expected = whole(latents=packed, **given).images
        expected = whole._unpack_latents(expected, 16, 16, 2)
    else:
        mask = stored["prompt_attention_mask"].expand(2, -1)
        given |= {"prompt_attention_mask": mask, "guidance_scale": 1.0, "use_resolution_binning": False}
        # It takes sizes of the published autoencoder alone.
        whole.check_inputs = lambda *_, **__: None
        expected = whole(latents=z, **given).images
    with torch.no_grad():
        found = prior.denoise(z, torch.zeros(2))
        assert relative(found, expected) < 1e-5
        assert relative(autoencoder.decode(found), vae.decode(expected / autoencoder.scale + autoencoder.shift).sample) < 1e-5


@pytest.mark.parametrize(("kind", "changes"), CHANGES, ids=str)
def test_the_time_between_is_diffusers_own(tmp_path, kind, changes):
    """z - σ N(z, σ) with the network called as diffusers calls it, at σ = 0.3, for latents that are no square."""
    repo, file, _, network, _, stored = flow_pipeline(tmp_path, kind, **changes)
    prior = PRIORS[kind](repo, prompt_embeds=file)
    z, embeds = noise(2, 4, 4, 8) if "interpolation_scale" not in changes else noise(2, 4, 8, 8), stored["prompt_embeds"]
    height, width = z.shape[-2:]
    with torch.no_grad():
        if kind == "flux":
            ids = torch.tensor([[0.0, row, column] for row in range(height // 2) for column in range(width // 2)])
            patches = z.view(2, 4, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, -1, 16)
            output = network(
                patches,
                encoder_hidden_states=embeds.expand(2, -1, -1),
                pooled_projections=stored["pooled_prompt_embeds"].expand(2, -1),
                timestep=torch.full((2,), 0.3),
                img_ids=ids,
                txt_ids=torch.zeros(5, 3),
                guidance=torch.ones(2) if changes else None,
            ).sample
            output = output.view(2, height // 2, width // 2, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(z.shape)
        else:
            mask = stored["prompt_attention_mask"].expand(2, -1)
            time = torch.full((2,), 300.0) * changes.get("timestep_scale", 1.0)
            output = network(z, embeds.expand(2, -1, -1), time, encoder_attention_mask=mask).sample
        assert relative(prior.denoise(z, torch.full((2,), 0.7)), z - 0.3 * output) < 1e-5


def test_sana_s_autoencoder_is_diffusers_own_in_float32(tmp_path):
    repo, _, vae, *_ = flow_pipeline(tmp_path, "sana")
    ours = DiffusersAutoencoder(repo)
    assert (ours.channels, ours.latent_channels, ours.factor) == (3, 4, 2)
    x = noise(2, 3, 16, 12)
    with torch.no_grad():
        latent = vae.encode(x).latent
        assert relative(ours.encode(x), 0.4 * latent) < 1e-6
        assert relative(ours.decode(ours.encode(x)), vae.decode(latent).sample) < 1e-5
    expected, kept = ours.encode(x), ours.network.encoder.conv_in.weight.clone()
    assert torch.equal(ours.half().network.encoder.conv_in.weight, kept)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.encode(x), expected)


def test_sana_s_tiles_decode_nearly_alike(tmp_path):
    repo = flow_pipeline(tmp_path, "sana")[0]
    whole, tiled = DiffusersAutoencoder(repo), DiffusersAutoencoder(repo, tiles=True)
    assert tiled.network.use_tiling
    tiled.network.enable_tiling(32, 32, 24, 24)
    tiled.network.tile_latent_min_height = tiled.network.tile_latent_min_width = 16
    z = noise(1, 4, 32, 32)
    assert 0 < float((tiled.decode(z) - whole.decode(z)).norm() / whole.decode(z).norm()) < 0.5


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("sampler", [LATINO(steps=2), InLatents(REDDiff(steps=2))], ids=lambda s: type(s).__name__)
def test_latents_restore(tmp_path, kind, sampler):
    repo, file, *_ = flow_pipeline(tmp_path, kind)
    latent = Latent(PRIORS[kind](repo, prompt_embeds=file), DiffusersAutoencoder(repo))
    stride = {"flux": 4, "sana": 2}[kind]
    assert (latent.stride, latent.channels) == (stride, 3)
    with pytest.raises(ValueError, match=f"divisible by {stride}.*set data.image_size to a multiple of {stride}"):
        latent.check_images((3, 16, 17))
    y = noise(2, 3, 8, 4).clamp(-1, 1)
    restored = sampler.sample(latent, AveragePooling(2), y, noise(2, 3, 16, 8, seed=1))
    assert restored.image.shape == (2, 3, 16, 8)
    assert restored.image.isfinite().all()
    if isinstance(sampler, LATINO):  # noiseless: met exactly
        assert (AveragePooling(2)(restored.image) - y).abs().max() < 1e-4


def test_weights_in_several_files_are_one_network(tmp_path):
    repo, file, _, network, *_ = flow_pipeline(tmp_path, "flux")
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    network.save_pretrained(tmp_path / "transformer", max_shard_size="4KB")
    index = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 1
    ours, theirs = Flux(repo, prompt_embeds=file).network.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    next(tmp_path.glob("transformer/*-00002-of-*")).unlink()
    with pytest.raises(CheckpointError, match="it has no transformer/diffusion_pytorch_model-00002-of"):
        Flux(repo, prompt_embeds=file)


def t5(folder: Path):
    """Save a tiny T5 as the pipeline's second text encoder; returns it with its tokenizer."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁cat", -1.0)]
    tokenizer = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)
    tokenizer.save_pretrained(folder / "tokenizer_2")
    size = {"vocab_size": 8, "d_model": 6, "d_kv": 3, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    encoder = seeded(transformers.T5EncoderModel(transformers.T5Config(**size)))
    encoder.save_pretrained(folder / "text_encoder_2")
    return tokenizer, encoder


def test_a_prompt_of_flux_is_what_the_pipeline_of_diffusers_makes_of_it(tmp_path):
    repo, _, vae, network, scheduler, _ = flow_pipeline(tmp_path, "flux")
    (tokenizer, first), (tokenizer_2, second) = text_encoder(tmp_path, width=3), t5(tmp_path)
    parts = {"tokenizer": tokenizer, "tokenizer_2": tokenizer_2, "text_encoder": first, "text_encoder_2": second}
    whole = diffusers.FluxPipeline(vae=vae, transformer=network, scheduler=scheduler, **parts)
    with torch.no_grad():
        embeds, pooled, _ = whole.encode_prompt("a cat", None, device="cpu")
    prior = Flux(repo, prompt="a cat")
    assert relative(prior.embeds, embeds) < 1e-5
    assert relative(prior.pooled, pooled) < 1e-5
    assert not torch.allclose(Flux(repo).embeds, prior.embeds)


def gemma(folder: Path):
    """Save a tiny Gemma as the pipeline's text encoder; returns it with its tokenizer."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "a": 4, "▁": 5, "c": 6, "t": 7}
    tokenizer = transformers.GemmaTokenizerFast(vocab=words, merges=[])
    tokenizer.save_pretrained(folder / "tokenizer")
    size = {"vocab_size": 8, "hidden_size": 6, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "head_dim": 4, "pad_token_id": 0}
    encoder = seeded(transformers.Gemma2Model(transformers.Gemma2Config(**size, **more)))
    encoder.save_pretrained(folder / "text_encoder")
    return tokenizer, encoder


def test_a_prompt_of_sana_is_what_the_pipeline_of_diffusers_makes_of_it(tmp_path):
    repo, _, vae, network, scheduler, _ = flow_pipeline(tmp_path, "sana")
    tokenizer, encoder = gemma(tmp_path)
    whole = diffusers.SanaPipeline(tokenizer, encoder, vae, network, scheduler)
    with torch.no_grad():
        embeds, mask, *_ = whole.encode_prompt("A cat", do_classifier_free_guidance=False, device="cpu")
    prior = Sana(repo, prompt="A cat")
    assert torch.equal(prior.mask, mask.float())
    assert 0 < mask.sum() < mask.numel()
    assert relative(prior.embeds, embeds) < 1e-5
    assert not torch.allclose(Sana(repo).mask, prior.mask)


@pytest.mark.parametrize("kind", PRIORS)
def test_other_pipelines_are_refused_in_one_line(tmp_path, kind):
    repo, file, *_ = flow_pipeline(tmp_path, kind)
    prior = PRIORS[kind]

    def refused(file=file):
        with pytest.raises((CheckpointError, ImportError)) as error:
            prior(repo, prompt_embeds=file)
        assert "\n" not in str(error.value)
        return str(error.value)

    torch.save({"prompt_embeds": torch.zeros(1, 5, 7)}, tmp_path / "less.pt")
    second = {"flux": "pooled_prompt_embeds", "sana": "prompt_attention_mask"}[kind]
    assert f"holds no {second}" in refused(str(tmp_path / "less.pt"))
    torch.save({"prompt_embeds": torch.zeros(1, 5, 7), second: torch.zeros(1, 5)}, tmp_path / "wrong.pt")
    assert "shape (1, 5, 7)" in refused(str(tmp_path / "wrong.pt"))
    assert "prompt" in refused(None)  # no text encoder is there, or no transformers
    edit(tmp_path / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    assert "DDIMScheduler does no flow matching" in refused()
    edit(tmp_path / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    edit(tmp_path / "transformer" / "config.json", num_layers=2)
    assert "keys missing" in refused()
    edit(tmp_path / "model_index.json", transformer=["my_code", "SanaTransformer2DModel"])
    assert "its transformer is SanaTransformer2DModel of my_code" in refused()
