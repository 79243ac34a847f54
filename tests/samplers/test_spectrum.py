"""Noisy measurements: the gains against a dense solve, and the guided ODE of a single Gaussian, which is linear."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from cclight import JPEG, Conjugate, GaussianBlur, GaussianMixture, OTPath, PiGDM, RandomProjection, VPPath
from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.samplers.grid import Grid
from cclight.samplers.spectrum import Krylov, Projector, Singular, Whole, spectrum_of
from tests.samplers.baselines import NETWORKS, normal
from tests.samplers.golden import relative

SHAPE = (1, 6, 6)
OPERATOR = GaussianBlur(1.0, 5)
LEVELS = [0.01, 0.05, 0.2]


def gaussian(path) -> tuple[GaussianMixture, Tensor, Tensor]:
    factor = 0.3 * normal(36, 8)
    covariance = factor @ factor.T + 0.1 * torch.eye(36, dtype=torch.float64)
    mean = 0.4 * normal(36, seed=1)
    return GaussianMixture(mean[None], covariance[None], None, path, NETWORKS[path], SHAPE), mean, covariance


def dense() -> Tensor:
    return OPERATOR(torch.eye(36, dtype=torch.float64).view(36, *SHAPE)).flatten(1).T


def measurement(prior: GaussianMixture, noise_std: float) -> tuple[Tensor, Tensor]:
    y = OPERATOR(prior.sample(2, torch.Generator().manual_seed(3)))
    return y + noise_std * normal(*y.shape, seed=4), normal(2, *SHAPE, seed=5)


@cache
def linear_ode(path: GaussianPath, schedule: Schedule, weight: float, noise_std: float) -> Tensor:
    """ẋ = M(t) x + c(t) from the Gaussian's formulas and a dense H, integrated to 1e-10; no sampler, prior or SVD in it.

    From progress 0.4 to 0.95, for the `measurement`.
    """
    prior, mean, covariance = gaussian(path)
    y, noise = measurement(prior, noise_std)
    times = Grid(1, 0.4, 0.95).times(path)
    matrix, eye = dense(), torch.eye(36, dtype=torch.float64)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        rate = path.sigma_dot(t) / sigma
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * eye)  # ∂x̂_0/∂x
        x_0 = mean + (x - alpha * mean) @ gain.T
        variance = posterior_variance(path, t)
        weights = variance * matrix @ matrix.T + noise_std**2 * eye
        pulled = variance * torch.linalg.solve(weights, (y.flatten(1) - x_0 @ matrix.T).T).T @ matrix  # D (H⁺y - P x̂_0)
        return rate * x + (path.alpha_dot(t) - alpha * rate) * x_0 + gamma(schedule, weight, path, t) * pulled @ gain

    damped = torch.linalg.solve(matrix.T @ matrix + 4 * noise_std**2 * eye, matrix.T @ y.flatten(1).T).T.view_as(noise)
    start = path.alpha(times[0]) * damped + path.sigma(times[0]) * noise
    return odeint(velocity, start.flatten(1), times, rtol=1e-10, atol=1e-10)[-1].view(-1, *SHAPE)


@pytest.mark.parametrize("path", [VPPath(), OTPath()])
@pytest.mark.parametrize("noise_std", LEVELS)
def test_conjugate_meets_the_linear_ode_of_a_gaussian(path, noise_std):
    prior = gaussian(path)[0]
    y, noise = measurement(prior, noise_std)
    exact = linear_ode(path, "alpha2", 6.0, noise_std)
    for order, bound in ((1, 3), (2, 10)):  # eight and sixteen times better are the orders; the grid is still coarse
        errors = [
            relative(
                Conjugate(n, 6.0, 0.2, 0.4, 0.95, order=order).sample(prior, OPERATOR, y, noise, noise_std=noise_std).image,
                exact,
            )
            for n in (25, 100)
        ]
        assert errors[1] < (0.02 if order == 1 else 2e-3)
        assert errors[1] < errors[0] / bound


@pytest.mark.parametrize("path", [VPPath(), OTPath()])
@pytest.mark.parametrize("noise_std", LEVELS)
def test_pigdm_meets_the_linear_ode_of_a_gaussian(path, noise_std):
    prior = gaussian(path)[0]
    y, noise = measurement(prior, noise_std)
    exact = linear_ode(path, "constant", 1.0, noise_std)
    errors = [
        relative(PiGDM(n, 1.0, 0.2, 0.4, 0.95).sample(prior, OPERATOR, y, noise, noise_std=noise_std).image, exact)
        for n in (50, 200)
    ]
    assert errors[1] < 0.01
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("sampler", [Conjugate(5), PiGDM(5)])
def test_vanishing_noise_meets_the_noiseless_sampler(sampler):
    prior = gaussian(VPPath())[0]
    y, noise = measurement(prior, 0.0)
    noiseless = sampler.sample(prior, OPERATOR, y, noise).image
    gaps = [relative(sampler.sample(prior, OPERATOR, y, noise, noise_std=std).image, noiseless) for std in (1e-2, 1e-3, 1e-5)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 2e-4


def test_every_operator_has_its_case():
    images = torch.zeros(1, *SHAPE)
    cases = [
        (RandomProjection(4), 0.1, Krylov),
        (RandomProjection(4), 0.0, Projector),
        (OPERATOR, 0.1, Singular),
        (JPEG(), 0.1, Whole),
    ]
    for operator, noise_std, case in cases:
        assert type(spectrum_of(operator, noise_std, images)) is case
