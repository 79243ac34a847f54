"""cclight/samplers/otode.py: the paper's formula with dense matrices, and the posterior where the method is exact."""

import pytest
import torch

from cclight.operators.separable import BicubicDownsampling
from cclight.paths.gaussian import OTPath
from cclight.priors.mixture import GaussianMixture
from cclight.samplers.otode import OTODE
from tests.samplers.baselines import NETWORKS, PATHS, assert_images_do_not_meet, cell, distances, normal, small_mixture


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_takes_the_papers_steps(noise_std):
    """Algorithm 1 by dense matrices and automatic differentiation."""
    problem = cell(small_mixture(OTPath()), BicubicDownsampling(2), noise_std)
    prior, operator, y = problem.prior, problem.operator, problem.y.flatten()
    noise, steps, start = normal(1, 1, 4, 4, seed=6), 4, 0.2
    ours = OTODE(steps).sample(prior, operator, problem.y, noise, noise_std=noise_std).image
    matrix = operator(torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)).flatten(1).T
    damped = torch.linalg.solve(matrix.T @ matrix + (2 * noise_std) ** 2 * torch.eye(16), matrix.T @ y) if noise_std else None
    guess = operator.pinv(problem.y) if damped is None else damped.view(1, 1, 4, 4)
    x = start * guess + (1 - start) * noise
    for t in torch.linspace(start, 1, steps + 1, dtype=torch.float64)[:-1]:
        x = x.detach().requires_grad_()
        velocity = prior(x, t[None])
        x_0 = x + (1 - t) * velocity
        variance = (1 - t) ** 2 / ((1 - t) ** 2 + t**2)
        system = variance * matrix @ matrix.T + noise_std**2 * torch.eye(4, dtype=torch.float64)
        pull = matrix.T @ torch.linalg.solve(system, y - matrix @ x_0.flatten().detach())
        (g,) = torch.autograd.grad(x_0, x, pull.view_as(x_0))
        x = x + (velocity + (1 - t) / t * g) * (1 - start) / steps
    torch.testing.assert_close(ours, x.detach(), rtol=1e-9, atol=1e-9)


def unit_gaussian(path):
    return GaussianMixture(torch.zeros(1, 1, 4, 4), torch.ones(1), None, path, NETWORKS[path])


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_samples_the_posterior_of_a_unit_gaussian(path, noise_std):
    """There r² is the true variance and the guidance exact. The flow is affine in the noise: its moments are known exactly."""
    problem = cell(unit_gaussian(path), BicubicDownsampling(2), noise_std)
    noise = torch.cat([torch.zeros(1, 1, 4, 4), torch.eye(16).view(16, 1, 4, 4)]).double()
    errors = []
    for steps in (20, 80, 320):
        sampler = OTODE(steps, t_start=0.01)
        x = sampler.sample(problem.prior, problem.operator, problem.y.expand(17, -1, -1, -1), noise, noise_std=noise_std).image
        mean, factor = x[0].flatten(), (x[1:] - x[0]).flatten(1)
        reference = problem.posterior.covariance[0]
        errors.append(float((factor.T @ factor - reference).norm() / reference.norm()))
        errors[-1] += float((mean - problem.posterior.mean[0].flatten()).norm())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_more_steps_come_closer_to_the_posterior():
    problem = cell(small_mixture(PATHS[0]), BicubicDownsampling(2), 0.1)
    coarse, middle, fine = distances(problem, [OTODE(n) for n in (1, 2, 10)])
    assert coarse > middle > fine
    assert fine < 0.5


def test_images_do_not_meet():
    assert_images_do_not_meet(OTODE(5), BicubicDownsampling(2), 0.1)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"guidance": -1.0}, {"t_start": 1.0}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|guidance|t_start|spacing"):
        OTODE(**arguments)
