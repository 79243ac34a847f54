"""cclight/priors/latent.py and stable_diffusion.py: tiny pipelines saved here, against diffusers' own parts."""

from __future__ import annotations

import json

import pytest
import torch

from cclight import AveragePooling, Conjugate, DiffusersAutoencoder, Latent, LatentDecoding, SmallPrior, StableDiffusion
from cclight.priors.checkpoints import CheckpointError
from tests.priors.pipelines import XL, stable_diffusion
from tests.priors.tiny import seeded

diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[latent]")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture
def pipeline(tmp_path):
    return stable_diffusion(tmp_path)


def test_the_autoencoder_is_diffusers_own_with_shift_and_scale(pipeline):
    repo, _, vae, *_ = pipeline
    ours = DiffusersAutoencoder(repo)
    assert (ours.channels, ours.latent_channels, ours.factor) == (3, 4, 2)
    x = noise(2, 3, 16, 12)
    with torch.no_grad():
        mean = vae.encode(x).latent_dist.mean
        assert relative(ours.encode(x), 0.5 * (mean - 0.1)) < 1e-6
        assert relative(ours.decode(ours.encode(x)), vae.decode(mean).sample) < 1e-5
    assert torch.equal(ours.encode(x), ours.encode(x))


def test_the_autoencoder_stays_in_float32(pipeline):
    ours = DiffusersAutoencoder(pipeline[0])
    x = noise(1, 3, 16, 16)
    assert ours.encode(x.half()).dtype == torch.float16
    assert ours.decode(noise(1, 4, 8, 8).half()).dtype == torch.float16
    assert relative(ours.encode(x.half()).float(), ours.encode(x)) < 5e-3


def test_tiles_decode_nearly_alike(pipeline):
    whole, tiled = DiffusersAutoencoder(pipeline[0]), DiffusersAutoencoder(pipeline[0], tiles=True)
    assert tiled.network.use_tiling
    tiled.network.tile_latent_min_size, tiled.network.tile_sample_min_size = 16, 32
    z = noise(1, 4, 32, 32)
    assert 0 < float((tiled.decode(z) - whole.decode(z)).norm() / whole.decode(z).norm()) < 0.5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_latents_estimate_is_diffusers_own(tmp_path, prediction):
    repo, file, _, unet, scheduler, embeds = stable_diffusion(tmp_path, prediction)
    prior = StableDiffusion(repo, prompt_embeds=file)
    scheduler.set_timesteps(1000)
    z = noise(2, 4, 8, 8)
    for index in (0, 300, 800):
        with torch.no_grad():
            output = unet(z, index, encoder_hidden_states=embeds.expand(2, -1, -1)).sample
            ours = prior.denoise(z, torch.full((2,), (index + 1) / 1000))
        assert relative(ours, scheduler.step(output, index, z).pred_original_sample) < 1e-4


def test_xl_is_told_the_summary_and_the_size_in_pixels(tmp_path):
    repo, file, _, unet, _, embeds = stable_diffusion(tmp_path, **XL)
    prior = StableDiffusion(repo, prompt_embeds=file)
    z = noise(2, 4, 8, 16)
    added = {"text_embeds": embeds[:, 0, :3].expand(2, -1), "time_ids": torch.tensor([[64.0, 128, 0, 0, 64, 128]] * 2)}
    with torch.no_grad():
        expected = unet(z, 300, encoder_hidden_states=embeds.expand(2, -1, -1), added_cond_kwargs=added).sample
        assert relative(prior(z, torch.full((2,), 0.301)), expected) < 1e-4
        other = unet(
            z,
            300,
            encoder_hidden_states=embeds.expand(2, -1, -1),
            added_cond_kwargs=added | {"time_ids": 2 * added["time_ids"]},
        )
    assert relative(other.sample, expected) > 1e-3
    torch.save({"prompt_embeds": embeds}, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match="holds no pooled_prompt_embeds"):
        StableDiffusion(repo, prompt_embeds=str(tmp_path / "less.pt"))


def text_encoder(folder, place="", width=6, pooled=None):
    """Save a tiny tokenizer and CLIP text encoder of a pipeline; returns both."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "c": 3, "a": 4, "t</w>": 5, "ca": 6, "cat</w>": 7}
    tokens = folder / f"tokenizer{place}"
    tokens.mkdir(exist_ok=True)
    (tokens / "vocab.json").write_text(json.dumps(words))
    (tokens / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    files = str(tokens / "vocab.json"), str(tokens / "merges.txt")
    tokenizer = transformers.CLIPTokenizer(*files, model_max_length=5)
    tokenizer.save_pretrained(tokens)
    size = {"vocab_size": 8, "hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "max_position_embeddings": 5}
    kind = transformers.CLIPTextModel if pooled is None else transformers.CLIPTextModelWithProjection
    more = {} if pooled is None else {"projection_dim": pooled}
    encoder = seeded(kind(transformers.CLIPTextConfig(**size, **special, **more)))
    encoder.save_pretrained(folder / f"text_encoder{place}")
    return tokenizer, encoder


def test_a_prompt_is_read_by_the_pipeline_s_own_encoder(pipeline, tmp_path):
    _, encoder = text_encoder(tmp_path)
    prior = StableDiffusion(pipeline[0], prompt="a cat")
    with torch.no_grad():
        expected = encoder(torch.tensor([[0, 2, 7, 1, 1]])).last_hidden_state
    assert relative(prior.embeds, expected) < 1e-5
    assert not torch.allclose(StableDiffusion(pipeline[0]).embeds, prior.embeds)


def test_a_prompt_of_xl_is_what_the_pipeline_of_diffusers_makes_of_it(tmp_path):
    repo, _, vae, unet, scheduler, _ = stable_diffusion(tmp_path, **XL)
    encoders = text_encoder(tmp_path, width=2), text_encoder(tmp_path, "_2", 4, pooled=3)
    (tokenizer, first), (tokenizer_2, second) = encoders
    parts = {"tokenizer": tokenizer, "tokenizer_2": tokenizer_2, "text_encoder": first, "text_encoder_2": second}
    whole = diffusers.StableDiffusionXLPipeline(vae=vae, unet=unet, scheduler=scheduler, **parts)
    with torch.no_grad():
        embeds, _, pooled, _ = whole.encode_prompt("a cat", device="cpu", do_classifier_free_guidance=False)
    prior = StableDiffusion(repo, prompt="a cat")
    assert relative(prior.embeds, embeds) < 1e-5
    assert relative(prior.pooled, pooled) < 1e-5


def latent_of(pipeline):
    return Latent(StableDiffusion(pipeline[0], prompt_embeds=pipeline[1]), DiffusersAutoencoder(pipeline[0]))


def test_latent_speaks_of_images(pipeline):
    latent = latent_of(pipeline)
    assert (latent.channels, latent.stride, latent.latent_shape((3, 16, 24))) == (3, 4, (4, 8, 12))
    latent.check_images((3, 16, 24))
    with pytest.raises(ValueError, match="divisible by 4"):
        latent.check_images((3, 18, 16))
    with pytest.raises(ValueError, match="choose the sampler LATINO, or InLatents"):
        Conjugate().sample(latent, AveragePooling(2), noise(1, 3, 8, 8).clamp(-1, 1), noise(1, 3, 16, 16))
    with pytest.raises(ValueError, match="denoises 3 channels and the autoencoder has latents of 4"):
        Latent(SmallPrior(), latent.autoencoder)


def test_the_decoder_is_composed_with_the_operator(pipeline):
    autoencoder, operator = DiffusersAutoencoder(pipeline[0]), AveragePooling(2)
    within, z = LatentDecoding(operator, autoencoder), noise(2, 4, 8, 8).requires_grad_()
    assert torch.equal(within(z), operator(autoencoder.decode(z)))
    (gradient,) = torch.autograd.grad(within(z).sum(), z)
    assert gradient.abs().max() > 0
    assert within.pinv(within(z).detach()).shape == z.shape


def edit(file, **changes):
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | changes))


def test_other_pipelines_are_refused_in_one_line(pipeline, tmp_path):
    repo, embeds = pipeline[:2]
    lines = []

    def refused(make):
        with pytest.raises((CheckpointError, ImportError)) as error:
            make()
        assert "\n" not in str(error.value)
        lines.append(str(error.value))
        return lines[-1]

    torch.save({"prompt_embeds": torch.zeros(1, 5, 7)}, tmp_path / "wrong.pt")
    assert "shape (1, 5, 7)" in refused(lambda: StableDiffusion(repo, prompt_embeds=str(tmp_path / "wrong.pt")))
    assert "No embeddings at" in refused(lambda: StableDiffusion(repo, prompt_embeds="nowhere.pt"))
    assert "prompt" in refused(lambda: StableDiffusion(repo))  # by transformers, or for want of it
    edit(tmp_path / "model_index.json", scheduler=["my_code", "DDIMScheduler"])
    assert "its scheduler is none of diffusers" in refused(lambda: StableDiffusion(repo, prompt_embeds=embeds))
    edit(tmp_path / "model_index.json", unet=["my_code", "UNet2DConditionModel"])
    assert "not a UNet2DConditionModel of diffusers" in refused(lambda: StableDiffusion(repo, prompt_embeds=embeds))
    edit(tmp_path / "vae" / "config.json", _class_name="VQModel")
    assert "a VQModel, not an AutoencoderKL" in refused(lambda: DiffusersAutoencoder(repo))
    assert "vae/config.json" in refused(lambda: DiffusersAutoencoder(str(tmp_path / "unet")))
