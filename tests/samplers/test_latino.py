"""cclight/samplers/latino.py: with an autoencoder that is a permutation, everything is known."""

from __future__ import annotations

import pytest
import torch

from cclight import (
    DDRM,
    DPS,
    LATINO,
    Autoencoder,
    AveragePooling,
    BicubicDownsampling,
    DiffPIR,
    DiffusersAutoencoder,
    GaussianMixture,
    InLatents,
    Latent,
    Quantization,
    REDDiff,
    StableDiffusion,
)
from cclight.data.noise import generator, standard_normal
from tests.priors.pipelines import stable_diffusion


class Rows(Autoencoder):
    """Latents are the pixels themselves, in their order: two rows make a channel."""

    channels, latent_channels, factor = 1, 4, 2

    def encode(self, x):
        return x.reshape(-1, 4, 4, 4)

    def decode(self, z):
        return z.reshape(-1, 1, 8, 8)


MEANS = 0.6 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VARIANCES = torch.full((4,), 0.02, dtype=torch.float64)


def pixels():
    return GaussianMixture(MEANS, VARIANCES)


def latent():
    return Latent(GaussianMixture(MEANS.reshape(4, 4, 4, 4), VARIANCES), Rows())


def draws(n=3):
    return pixels().sample(n, torch.Generator().manual_seed(1))


def keyed(n=3):
    return [generator(0, place, "sampler") for place in range(n)]


@pytest.mark.parametrize("within", [DPS(10, zeta=0.3), REDDiff(10)], ids=lambda sampler: type(sampler).__name__)
def test_in_latents_is_the_sampler_in_pixels(within):
    operator = AveragePooling(2)
    y, unused = operator(draws()), torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    ours = InLatents(within).sample(latent(), operator, y, unused)
    generators = keyed()
    for _ in range(2):  # the check before the first step draws as well
        noise = standard_normal((1, 8, 8), generators, torch.float64)
    theirs = within.sample(pixels(), operator, y, noise, generators=generators)
    torch.testing.assert_close(ours.image, theirs.image)
    assert ours.nfe == theirs.nfe == within.steps


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_latino_is_diffpir_with_fresh_noise_where_latents_are_pixels(noise_std):
    operator, generators = BicubicDownsampling(2), keyed()
    y = operator(draws())
    y = y + noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    times = {"steps": 8, "t_start": 0.1, "t_end": 1.0, "timesteps": "uniform"}
    ours = LATINO(**times).sample(latent(), operator, y, torch.zeros(3, 1, 8, 8, dtype=y.dtype), noise_std=noise_std)
    noise = standard_normal((1, 8, 8), generators, torch.float64)
    theirs = DiffPIR(**times, eta=1.0).sample(pixels(), operator, y, noise, noise_std=noise_std, generators=generators)
    torch.testing.assert_close(ours.image, theirs.image)
    assert ours.nfe == theirs.nfe == 8


def test_latino_meets_a_noiseless_measurement():
    operator, clean = AveragePooling(2), draws(50)
    y = operator(clean)
    restored = LATINO().sample(latent(), operator, y, torch.zeros_like(clean))
    torch.testing.assert_close(operator(restored.image), y)


def test_each_image_has_its_own_noise():
    operator = AveragePooling(2)
    y, noise = operator(draws()), torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    for sampler in (LATINO(3), InLatents(DPS(3))):
        together = sampler.sample(latent(), operator, y, noise, generators=keyed()).image
        alone = sampler.sample(latent(), operator, y[2:], noise[2:], generators=keyed()[2:]).image
        torch.testing.assert_close(together[2:], alone)


@pytest.mark.parametrize("sampler", [LATINO(2), InLatents(DPS(2)), InLatents(REDDiff(2))], ids=repr)
@pytest.mark.parametrize("operator", [AveragePooling(2), Quantization(4)], ids=lambda operator: type(operator).__name__)
def test_a_tiny_stable_diffusion_restores(tmp_path, sampler, operator):
    repo, embeds, *_ = stable_diffusion(tmp_path)
    prior = Latent(StableDiffusion(repo, prompt_embeds=embeds), DiffusersAutoencoder(repo))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    restored = sampler.sample(prior, operator, operator(x), torch.zeros_like(x))
    assert restored.image.shape == x.shape
    assert restored.image.isfinite().all()
    assert restored.nfe == 2


def test_what_makes_no_sense_is_one_line():
    operator = AveragePooling(2)
    for sampler in (LATINO(), InLatents(DPS(2))):
        with pytest.raises(TypeError, match="needs a Latent prior, and GaussianMixture denoises images"):
            sampler.sample(pixels(), operator, operator(draws()), torch.zeros(3, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="takes any operator, and DDRM needs a SpectralOperator"):
        InLatents(DDRM())
    with pytest.raises(ValueError, match="prior_weight"):
        LATINO(prior_weight=0.0)
