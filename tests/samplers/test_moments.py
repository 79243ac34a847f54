"""Moment matching in the conjugate form: exact on Gaussians, closer to the posterior than ΠGDM's covariance on mixtures."""

from __future__ import annotations

import pytest
import torch

from cclight import (
    HDR,
    AveragePooling,
    BicubicDownsampling,
    Conjugate,
    Denoising,
    Epsilon,
    GaussianMixture,
    Inpainting,
    PiGDM,
    VPPath,
)
from cclight.operators.masks import Box, FixedMask
from cclight.samplers.moments import ConjugateMoments
from tests.samplers.baselines import (
    NETWORKS,
    PATHS,
    assert_images_do_not_meet,
    cell,
    distances,
    normal,
    one_gaussian,
    small_mixture,
)
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import SETTINGS, Counting, problem, smooth_mixture


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_an_isotropic_gaussian_is_restored_by_a_closed_form(path, noise_std):
    """The posterior is Gaussian, direction by direction, and the ODE maps x to m + √var (x - α m)/√(α² var + σ²)."""
    variance, kept = 0.3, Inpainting(Box(2))
    prior = one_gaussian(path, variance)
    y = kept(prior.sample(3, torch.Generator().manual_seed(0)))
    y = y + noise_std * kept(normal(*y.shape, seed=1))
    noise = normal(3, 1, 4, 4, seed=2)
    image = ConjugateMoments(400).sample(prior, kept, y, noise, noise_std=noise_std).image
    posterior = prior.posterior(kept, y, noise_std)
    mean, spread = posterior.mean, torch.diagonal(posterior.covariance[0]).view(1, 4, 4)
    t = path.time(torch.tensor(0.1, dtype=torch.float64))
    alpha, sigma = path.alpha(t), path.sigma(t)
    start = alpha * y + sigma * noise
    expected = mean + spread.clamp_min(0).sqrt() * (start - alpha * mean) / (alpha**2 * spread + sigma**2).sqrt()
    assert relative(image, expected) < 0.02


@pytest.mark.parametrize("path", PATHS)
def test_the_noiseless_range_is_exact_in_one_step(path):
    prior, operator = small_mixture(path), AveragePooling(2)
    y = operator(prior.sample(2, torch.Generator().manual_seed(0)))
    noise = normal(2, 1, 4, 4)
    image = ConjugateMoments(1).sample(prior, operator, y, noise).image
    torch.testing.assert_close(operator(image), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_it_is_closer_to_the_posterior_than_r2_under_no_or_little_extra_weight(path, noise_std):
    factor = 0.5 * normal(16, 3)
    covariance = factor @ factor.T + 0.02 * torch.eye(16, dtype=torch.float64)
    prior = GaussianMixture(0.3 * normal(1, 16, seed=1), covariance[None], None, path, NETWORKS[path], (1, 4, 4))
    ours, *theirs = distances(
        cell(prior, AveragePooling(2), noise_std),
        [ConjugateMoments(10), PiGDM(10, 1.0, t_start=0.1), Conjugate(10, 1.0, t_start=0.1), Conjugate(10, 2.0, t_start=0.1)],
    )
    assert ours < min(theirs)


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_one_network_call_and_one_vjp_a_step(path, parameterization, noise_std):
    prior, operator = Counting(smooth_mixture(path, parameterization)), BicubicDownsampling(4)
    y, noise = problem(prior.prior, operator)
    result = ConjugateMoments(6).sample(prior, operator, y, noise, noise_std=noise_std)
    assert (prior.calls, prior.backward, result.nfe) == (6, 6, 6)
    assert result.image.isfinite().all()
    assert not result.image.requires_grad


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_guidance_weighs_what_the_measured_part_says_of_the_rest(noise_std):
    """Without it one step is that of an estimate replaced in the range; the state is affine in the weight."""
    prior, operator = small_mixture(VPPath()), Inpainting(Box(2))
    y, noise = problem(prior, operator)
    images = [
        ConjugateMoments(1, guidance=weight).sample(prior, operator, y, noise, noise_std=noise_std).image
        for weight in (0.0, 1.0, 2.0, 3.0)
    ]
    torch.testing.assert_close(images[3] - images[2], images[1] - images[0], rtol=1e-9, atol=1e-12)
    assert (images[1] - images[0]).abs().max() > 1e-3
    path, unit = prior.path, torch.tensor(0.1, dtype=torch.float64)
    (t, end) = path.time(unit), path.time(torch.tensor(path.last_progress, dtype=torch.float64))
    seen = operator(torch.ones_like(noise))
    # What is seen varies by S, as its measurement tells of each image; without noise all of that is believed.
    s = ((y**2).sum((1, 2, 3), keepdim=True) / seen.sum((1, 2, 3), keepdim=True) - noise_std**2).clamp_min(0)
    x = path.alpha(t) * operator.first_guess(s / (s + noise_std**2) * y) + path.sigma(t) * noise
    estimate = prior.denoise(x, t.expand(len(x)))
    variance = s * path.sigma(t) ** 2 / (path.sigma(t) ** 2 + s * path.alpha(t) ** 2)
    replaced = estimate + variance / (variance + noise_std**2) * seen * (y - estimate)
    expected = path.alpha(end) * replaced + path.sigma(end) * (x - path.alpha(t) * replaced) / path.sigma(t)
    if not noise_std:  # what is seen ends as it is
        expected = torch.where(seen > 0, y, expected)
    torch.testing.assert_close(images[0], expected, rtol=1e-9, atol=1e-9)


def test_float32_agrees_with_float64():
    prior, operator = smooth_mixture(*SETTINGS[0]), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    for noise_std in (0.0, 0.1):
        exact = ConjugateMoments(5).sample(prior, operator, y, noise, noise_std=noise_std).image
        single = ConjugateMoments(5).sample(prior, operator, y.float(), noise.float(), noise_std=noise_std).image
        assert single.dtype == torch.float32
        assert relative(single, exact) < 1e-4


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_a_projection_that_returns_its_argument_is_left_as_it_is(noise_std):
    """Denoising is the mask that keeps everything: its P gives the image itself back, and nothing may write into that."""
    prior = smooth_mixture(VPPath(), Epsilon())
    everything = Inpainting(FixedMask(torch.ones(prior.image_shape[1:])))
    y, noise = normal(2, *prior.image_shape, seed=1), normal(2, *prior.image_shape, seed=2)
    one, other = (
        ConjugateMoments(3).sample(prior, operator, y, noise, noise_std=noise_std).image
        for operator in (Denoising(), everything)
    )
    assert relative(one, other) < 1e-12


def test_images_do_not_meet():
    assert_images_do_not_meet(ConjugateMoments(4), AveragePooling(2), 0.1)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="t_start is above 0"):
        ConjugateMoments(t_start=0.0)
    with pytest.raises(ValueError, match="guidance is a weight >= 0, got -1"):
        ConjugateMoments(guidance=-1.0)
    with pytest.raises(ValueError, match="order is 1"):
        ConjugateMoments(order=3)
    with pytest.raises(ValueError, match="renewal is a number >= 0, got -1"):
        ConjugateMoments(renewal=-1.0)
    prior = small_mixture(PATHS[0])
    with pytest.raises(TypeError, match="ConjugateMoments needs a LinearOperator, and HDR is none"):
        ConjugateMoments().sample(prior, HDR(), normal(1, 1, 4, 4), normal(1, 1, 4, 4))
