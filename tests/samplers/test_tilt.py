"""The tilt: exact on Gaussians, closer to a mixture's posterior than moment matching, second order, one call a step."""

from __future__ import annotations

import pytest
import torch

from cclight import HDR, AveragePooling, BicubicDownsampling, GaussianMixture, Inpainting
from cclight.operators.masks import Box
from cclight.samplers.moments import ConjugateMoments
from cclight.samplers.tilt import ConjugateTilt
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


def gaussian_problem(path, noise_std, variance=0.3):
    """Measurements of an isotropic Gaussian, noise, and what the conditional ODE maps the start to."""
    kept, prior = Inpainting(Box(2)), one_gaussian(path, variance)
    y = kept(prior.sample(3, torch.Generator().manual_seed(0)))
    y = y + noise_std * kept(normal(*y.shape, seed=1))
    noise = normal(3, 1, 4, 4, seed=2)
    posterior = prior.posterior(kept, y, noise_std)
    mean, spread = posterior.mean, torch.diagonal(posterior.covariance[0]).view(1, 4, 4)
    t = path.time(torch.tensor(0.1, dtype=torch.float64))
    alpha, sigma = path.alpha(t), path.sigma(t)
    start = alpha * y + sigma * noise
    expected = mean + spread.clamp_min(0).sqrt() * (start - alpha * mean) / (alpha**2 * spread + sigma**2).sqrt()
    return prior, kept, y, noise, expected


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("noise_std", [0.0, 0.2])
@pytest.mark.parametrize("order", [1, 2])
def test_an_isotropic_gaussian_is_restored_by_a_closed_form(path, noise_std, order):
    prior, kept, y, noise, expected = gaussian_problem(path, noise_std)
    image = ConjugateTilt(400, t_start=0.1, order=order).sample(prior, kept, y, noise, noise_std=noise_std).image
    assert relative(image, expected) < 0.02


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_the_second_order_is_closer_with_few_steps(noise_std):
    prior, kept, y, noise, _ = gaussian_problem(PATHS[0], noise_std)

    def restore(steps: int, order: int):
        return ConjugateTilt(steps, t_start=0.1, order=order).sample(prior, kept, y, noise, noise_std=noise_std).image

    converged = restore(800, 2)
    errors = {order: [float((restore(n, order) - converged).norm()) for n in (20, 40)] for order in (1, 2)}
    assert errors[1][0] / errors[1][1] == pytest.approx(2, abs=0.4)
    assert errors[2][0] / errors[2][1] > 3.2
    assert errors[2][0] < errors[1][0]


@pytest.mark.parametrize("path", PATHS)
def test_the_noiseless_range_is_exact_in_one_step(path):
    prior, operator = small_mixture(path), AveragePooling(2)
    y = operator(prior.sample(2, torch.Generator().manual_seed(0)))
    noise = normal(2, 1, 4, 4)
    image = ConjugateTilt(1).sample(prior, operator, y, noise).image
    end = path.time(torch.tensor(path.last_progress, dtype=torch.float64))
    expected = path.alpha(end) * operator.pinv(y) + path.sigma(end) * operator.project(noise)
    torch.testing.assert_close(operator.project(image), expected, rtol=1e-9, atol=1e-9)


def modes(path) -> GaussianMixture:
    """Four narrow, correlated components: the measurement tells which, a Gaussian of the same covariance does not."""
    factors = 0.3 * normal(4, 16, 4)
    covariances = factors @ factors.mT + 0.02 * torch.eye(16, dtype=torch.float64)
    return GaussianMixture(normal(4, 16, seed=1), covariances, None, path, NETWORKS[path], (1, 4, 4))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_it_is_closer_to_the_posterior_than_moment_matching(path, noise_std):
    ours, theirs = distances(
        cell(modes(path), AveragePooling(2), noise_std),
        [ConjugateTilt(10, t_start=0.2), ConjugateMoments(10, t_start=0.2)],
    )
    assert ours < 0.7 * theirs


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_one_network_call_and_one_vjp_a_step(path, parameterization, noise_std):
    prior, operator = Counting(smooth_mixture(path, parameterization)), BicubicDownsampling(4)
    y, noise = problem(prior.prior, operator)
    result = ConjugateTilt(6).sample(prior, operator, y, noise, noise_std=noise_std)
    assert (prior.calls, prior.backward, result.nfe) == (6, 6, 6)
    assert result.image.isfinite().all()
    assert not result.image.requires_grad


def test_float32_agrees_with_float64():
    prior, operator = smooth_mixture(*SETTINGS[0]), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    for noise_std in (0.0, 0.1):
        exact = ConjugateTilt(5).sample(prior, operator, y, noise, noise_std=noise_std).image
        single = ConjugateTilt(5).sample(prior, operator, y.float(), noise.float(), noise_std=noise_std).image
        assert single.dtype == torch.float32
        assert relative(single, exact) < 1e-4


@pytest.mark.parametrize("renewal", [0.0, 2.0])
def test_images_do_not_meet(renewal):
    assert_images_do_not_meet(ConjugateTilt(4, renewal=renewal), AveragePooling(2), 0.1)


@pytest.mark.parametrize("path", PATHS)
def test_renewal_samples_a_gaussian_posterior(path):
    """With many steps the stochastic equation has the posterior for its marginal, as the deterministic one has."""
    kept, prior = Inpainting(Box(2)), one_gaussian(path, 0.3)
    y = kept(prior.sample(1, torch.Generator().manual_seed(0)))
    posterior = prior.posterior(kept, y, 0.2)
    sampler = ConjugateTilt(100, t_start=0.1, renewal=1.0)
    seeds = [torch.Generator().manual_seed(i) for i in range(800)]
    noise = normal(800, 1, 4, 4, seed=2)
    image = sampler.sample(prior, kept, y.expand(800, 1, 4, 4), noise, noise_std=0.2, generators=seeds).image
    assert relative(image.mean(0), posterior.mean[0]) < 0.1
    variance = torch.diagonal(posterior.covariance[0]).view(1, 4, 4)
    assert relative(image.var(0), variance) < 0.1


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="t_start is above 0"):
        ConjugateTilt(t_start=0.0)
    with pytest.raises(ValueError, match="order is 1"):
        ConjugateTilt(order=3)
    with pytest.raises(ValueError, match="renewal is a number >= 0"):
        ConjugateTilt(renewal=-1.0)
    with pytest.raises(TypeError, match="ConjugateTilt needs a LinearOperator, and HDR is none"):
        ConjugateTilt().sample(small_mixture(PATHS[0]), HDR(), normal(1, 1, 4, 4), normal(1, 1, 4, 4))
