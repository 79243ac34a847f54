"""A prior of colour images on grey ones: the same estimate as a prior of grey images gives."""

import pytest
import torch

from cclight import Conjugate, FourierSampling, GaussianMixture, Grey, OTPath, SmallPrior, Velocity, VPPath
from tests.samplers.baselines import NETWORKS, normal

MEANS = torch.tensor([-0.6, 0.1, 0.7], dtype=torch.float64).view(3, 1, 1, 1) + 0.1 * normal(3, 1, 4, 4, seed=3)
VARIANCES = torch.full((3,), 0.06, dtype=torch.float64)  # of one size, so that noise between channels tells nothing


def pair(path):
    """A mixture of colour images around grey ones, and the one that the means over its channels have."""
    colour = GaussianMixture(MEANS.expand(3, 3, 4, 4), VARIANCES, path=path, parameterization=NETWORKS[path])
    return Grey(colour), GaussianMixture(MEANS, VARIANCES / 3, path=path, parameterization=NETWORKS[path])


@pytest.mark.parametrize("path", [VPPath(), OTPath()])
def test_it_is_the_mixture_of_the_means_over_the_channels(path):
    grey, exact = pair(path)
    assert (grey.channels, grey.image_shape) == (1, (1, 4, 4))
    for progress in (0.1, 0.3, 0.6, 0.9, 0.999):
        t = path.time(torch.full((3,), progress, dtype=torch.float64))
        x = normal(3, 1, 4, 4, seed=int(1000 * progress))
        torch.testing.assert_close(grey.denoise(x, t), exact.denoise(x, t), rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(grey(x, t), exact(x, t), rtol=1e-5, atol=1e-5)


def test_samplers_restore_alike_through_it():
    grey, exact = pair(OTPath())
    operator = FourierSampling(torch.eye(4))
    y, noise = operator(exact.sample(2, torch.Generator().manual_seed(0))), normal(2, 1, 4, 4)
    restored = [Conjugate(4, 2.0, t_start=0.3).sample(p, operator, y, noise, noise_std=0.1).image for p in (grey, exact)]
    torch.testing.assert_close(restored[0], restored[1], rtol=1e-6, atol=1e-6)


def test_pure_noise_is_finite():
    prior = Grey(SmallPrior(path=OTPath(), parameterization=Velocity()))
    assert prior(torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1)).isfinite().all()


def test_a_prior_of_grey_images_needs_none():
    with pytest.raises(ValueError, match="has 1 channels: use it as it is"):
        Grey(pair(OTPath())[1])
