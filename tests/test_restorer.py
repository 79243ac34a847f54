"""The LightningModule: what it returns, what it keeps from the network's precision, and that it trains nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from cclight import Batch, BicubicDownsampling, Conjugate, GaussianMixture, Restorer
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
