"""A prior along another path: the same images, the same estimates."""

from __future__ import annotations

import pytest
import torch

from cclight import AveragePooling, Conjugate, OTPath, Velocity, VPPath
from cclight.priors.retimed import Retimed
from tests.samplers.baselines import NETWORKS, normal, small_mixture

PAIRS = [(VPPath(), OTPath()), (OTPath(), VPPath())]


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_it_is_the_mixture_of_the_other_path(own, other):
    """The analytic mixture knows every path: one trained on `own` and seen along `other` is the one built on `other`."""
    retimed, exact = Retimed(small_mixture(own), other, NETWORKS[other]), small_mixture(other)
    for progress in (0.05, 0.3, 0.6, 0.9, 0.999):
        t = other.time(torch.full((3,), progress, dtype=torch.float64))
        x = normal(3, 1, 4, 4, seed=int(1000 * progress))
        torch.testing.assert_close(retimed(x, t), exact(x, t), rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(retimed.denoise(x, t), exact.denoise(x, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_samplers_restore_alike_through_it(own, other):
    exact, operator = small_mixture(other), AveragePooling(2)
    y, noise = operator(exact.sample(2, torch.Generator().manual_seed(0))), normal(2, 1, 4, 4)
    sampler = Conjugate(4, 6.0, t_start=0.3)
    ours = sampler.sample(Retimed(small_mixture(own), other, NETWORKS[other]), operator, y, noise).image
    torch.testing.assert_close(ours, sampler.sample(exact, operator, y, noise).image, rtol=1e-7, atol=1e-7)


def test_pure_noise_is_shown_as_the_noisiest_image_that_the_prior_knows():
    retimed = Retimed(small_mixture(VPPath()), OTPath(), Velocity())
    x = normal(2, 1, 4, 4)
    at_noise = retimed(x, torch.zeros(2, dtype=torch.float64))
    assert at_noise.isfinite().all()
    torch.testing.assert_close(at_noise, retimed(x, torch.full((2,), 1e-4, dtype=torch.float64)), rtol=0.02, atol=0.02)


def test_it_speaks_for_the_prior_within():
    prior = small_mixture(VPPath())
    retimed = Retimed(prior, OTPath())
    assert retimed.image_shape == prior.image_shape
    assert (retimed.channels, retimed.stride) == (prior.channels, prior.stride)
    assert retimed.parameterization == prior.parameterization
