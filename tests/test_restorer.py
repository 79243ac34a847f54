"""The LightningModule: what it returns, what it keeps from the network's precision, and that it trains nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

import cclight
from cclight import Batch, BicubicDownsampling, Conjugate, GaussianMixture, ImageFolder, RestorationDataModule, Restorer
from cclight.priors.base import Prior
from cclight.problem import Problem
from cclight.samplers.base import Sampler


@pytest.fixture
def prior() -> GaussianMixture:
    means = 0.3 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return GaussianMixture(means, torch.tensor([0.2, 0.3]) ** 2)


def batch_of(prior: GaussianMixture, operator: BicubicDownsampling, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    clean = prior.sample(count, generator).float()
    noise = torch.randn(clean.shape, generator=generator)
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    return Batch(clean, operator(clean), noise, generators, list(range(5, 5 + count)), [f"image{i}" for i in range(count)])


def test_it_restores_a_batch(prior):
    operator, sampler = BicubicDownsampling(4), Conjugate(steps=4)
    restorer, batch = Restorer(prior, sampler, operator), batch_of(prior, operator)
    restored = restorer.predict_step(batch, 0)
    expected = sampler.sample(prior, operator, batch.measurement, batch.noise).image.clamp(-1, 1)
    torch.testing.assert_close(restored.image, expected)
    assert (restored.nfe, restored.index, restored.name) == (4, [5, 6], ["image0", "image1"])
    assert restored.finite.tolist() == [True, True]
    assert restored.seconds > 0
    residual = (operator(expected) - batch.measurement).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(restored.consistency, residual)


def test_the_prior_is_frozen(prior):
    linear = torch.nn.Linear(2, 2)
    prior.extra = linear
    Restorer(prior, Conjugate(), BicubicDownsampling(4))
    assert not prior.training
    assert not any(parameter.requires_grad for parameter in prior.parameters())


@dataclass(frozen=True)
class SpoilsTheSecond(Sampler):
    """A sampler that fails on one image of the batch."""

    steps: int = 1

    def step(self, problem: Problem, n: int, state: torch.Tensor) -> torch.Tensor:
        image = problem.pinv_y.clone()
        image[1] = torch.nan
        return image


def test_one_bad_image_is_told_from_the_others(prior):
    operator = BicubicDownsampling(4)
    restored = Restorer(prior, SpoilsTheSecond(), operator).predict_step(batch_of(prior, operator, 3), 0)
    assert restored.finite.tolist() == [True, False, True]
    assert restored.image[[0, 2]].isfinite().all()


class Sees(Prior):
    """Notes the autocast state at each call."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.path, prior.parameterization)
        self.prior, self.seen = prior, []

    def forward(self, x_t, t):
        self.seen.append((x_t.dtype, torch.is_autocast_enabled("cpu")))
        return self.prior(x_t, t).bfloat16() if self.seen[-1][1] else self.prior(x_t, t)


def test_mixed_precision_is_for_the_network_alone(prior):
    operator = BicubicDownsampling(4)
    seeing = Sees(prior)
    batch = batch_of(prior, operator)
    with torch.autocast("cpu", torch.bfloat16):
        restored = Restorer(seeing, Conjugate(steps=3), operator).predict_step(batch, 0)
    assert seeing.seen == [(torch.float32, True)] * 3
    assert restored.image.dtype == torch.float32
    full = Restorer(prior, Conjugate(steps=3), operator).predict_step(batch, 0)
    assert 0 < (restored.image - full.image).abs().max() < 0.1
    # The measured part stays consistent to float32's precision of the state, not bfloat16's.
    assert restored.consistency.max() < full.consistency.max() + 0.01


@pytest.mark.slow
def test_a_compiled_prior_gives_the_same(prior):
    operator = BicubicDownsampling(4)
    batch = batch_of(prior, operator)
    plain = Restorer(prior, Conjugate(steps=2), operator).predict_step(batch, 0)
    compiled = Restorer(prior, Conjugate(steps=2), operator, compile=True).predict_step(batch, 0)
    torch.testing.assert_close(compiled.image, plain.image, rtol=1e-4, atol=1e-4)


def is_sampler(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, Sampler) and not inspect.isabstract(part)


LATENT = {"LATINO", "InLatents"}  # they take latent priors alone: tests/samplers/test_latino.py
SAMPLERS = sorted(name for name in cclight.__all__ if is_sampler(getattr(cclight, name)) and name not in LATENT)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_plain_trainer_restores_and_returns(prior, tmp_path, name):
    """With Lightning's defaults: inference mode on, which forbids gradients, and predictions returned."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{number}.png")
    operator = BicubicDownsampling(4)

    settings = {"steps": 4} if "steps" in inspect.signature(getattr(cclight, name)).parameters else {}

    def parts():
        sampler = getattr(cclight, name)(**settings)
        data = RestorationDataModule(ImageFolder(tmp_path), operator, noise_std=0.05, image_size=16, batch_size=2)
        return Restorer(prior, sampler, operator, noise_std=0.05), data

    model, data = parts()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    first, second = trainer.predict(model, data)
    assert (first.index, second.index, second.name) == ([0, 1], [2], ["p2"])
    assert first.image.shape == (2, 3, 16, 16)
    assert first.finite.all()
    model, data = parts()
    expected = [model.predict_step(data.on_after_batch_transfer(batch, 0), 0) for batch in data.predict_dataloader()]
    torch.testing.assert_close(first.image, expected[0].image, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.image, expected[1].image, rtol=0, atol=1e-5)


class NeedsTooMuch(Prior):
    def forward(self, x_t, t):
        return torch.empty(2**60)


def test_out_of_memory_is_told_with_the_remedies(prior):
    operator = BicubicDownsampling(4)
    with pytest.raises(RuntimeError, match=r"out of memory on cpu with 2 images of 16×16 pixels.*data\.batch_size.*Tiled"):
        Restorer(NeedsTooMuch(prior.path, prior.parameterization), Conjugate(), operator).predict_step(
            batch_of(prior, operator), 0
        )


@pytest.mark.parametrize("noise_std", [-0.1, float("nan"), float("inf")])
def test_a_noise_level_that_is_none_is_refused(prior, noise_std):
    with pytest.raises(ValueError, match=f"noise_std is a standard deviation, got {noise_std}"):
        Restorer(prior, Conjugate(), BicubicDownsampling(4), noise_std)
