"""cclight/samplers/reddiff.py: the posterior mean of a Gaussian, and the posterior of a mixture."""

import pytest
import torch

from cclight.operators.base import Operator
from cclight.operators.separable import BicubicDownsampling
from cclight.paths.gaussian import OTPath, VPPath
from cclight.problem import Problem
from cclight.samplers.reddiff import REDDiff
from tests.samplers.baselines import (
    PATHS,
    assert_images_do_not_meet,
    cell,
    mean_errors,
    normal,
    one_gaussian,
    seeded,
    small_mixture,
)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_finds_the_mean_of_a_gaussian_posterior(path):
    """The regularizer's mean slope is a multiple of μ - mean: without noise its minimum on H μ = y is the posterior mean."""
    problem = cell(one_gaussian(path, 0.2), BicubicDownsampling(2), 0.0)
    mean = problem.posterior.mean
    errors = [float((problem.restore(REDDiff(n), 64).mean(0) - mean[0]).norm()) for n in (10, 50, 250)]
    start = float((problem.operator.pinv(problem.y) - mean).norm())
    assert start > errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1 * start


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    """It looks for a mode: its points gain posterior density with the steps, and their mean comes closer to the posterior's."""
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)

    def log_posterior(x):
        misfit = (problem.operator(x) - problem.y).square().flatten(1).sum(1)
        return float((problem.prior.log_density(x) - 0.5 * misfit / 0.1**2).mean())

    densities = [log_posterior(problem.restore(REDDiff(n), 64)) for n in (30, 100, 250)]
    assert densities[0] < densities[1] < densities[2]
    assert densities[1] > log_posterior(problem.operator.pinv(problem.y))
    coarse, fine = mean_errors(problem, [REDDiff(10), REDDiff(250)])
    assert fine < 0.7 * coarse


def test_the_first_step_goes_down_both_slopes():
    """Adam's first step is -lr · sign(gradient), the gradient here by automatic differentiation of the published loss."""
    path = PATHS[0]
    prior, operator = small_mixture(path), BicubicDownsampling(2)
    y, lam, lr = operator(normal(2, 1, 4, 4)) + 0.5, 0.25, 0.1
    problem = Problem(prior, operator, y, normal(2, 1, 4, 4, seed=1), generators=seeded(0, 1))
    with torch.no_grad():
        (ours,) = REDDiff(steps=1, prior_weight=lam, lr=lr).iterate(problem)
    mu = operator.pinv(y).requires_grad_()
    epsilon = torch.stack([torch.randn(1, 4, 4, generator=g).double() for g in seeded(0, 1)])
    time = torch.full((2,), 0.5, dtype=torch.float64)
    alpha, sigma = path.alpha(time[0]), path.sigma(time[0])
    error = (prior((alpha * mu + sigma * epsilon).detach(), time) - epsilon).detach()
    observed = 0.5 * (y - operator(mu)).square().flatten(1).mean(1)
    loss = observed + lam * sigma / alpha * (error * mu).flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(loss.sum(), mu)
    torch.testing.assert_close(ours, (mu - lr * gradient.sign()).detach(), rtol=0, atol=1e-5)


def test_nonlinear_operators_run():
    class Squash(Operator):
        def forward(self, x):
            return torch.tanh(x)

        def pinv(self, y):
            return torch.atanh(y)

    prior, operator = small_mixture(PATHS[0]), Squash()
    x = prior.sample(4, torch.Generator().manual_seed(0))
    image = REDDiff(100, lr=0.1).sample(prior, operator, operator(x), normal(4, 1, 4, 4)).image
    assert float((operator(image) - operator(x)).abs().mean()) < 0.1


def test_states_are_copies():
    prior, operator = small_mixture(PATHS[0]), BicubicDownsampling(2)
    run = REDDiff(3).sample(prior, operator, normal(1, 1, 2, 2), normal(1, 1, 4, 4), keep_trajectory=True)
    assert run.nfe == 3
    assert not torch.equal(run.trajectory[0], run.trajectory[1])


def test_images_do_not_meet():
    assert_images_do_not_meet(REDDiff(5), BicubicDownsampling(2))


def test_needs_a_gradient():
    class Blind(BicubicDownsampling):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(TypeError, match="REDDiff takes the gradient of the misfit, and Blind lets none through"):
        REDDiff().sample(small_mixture(PATHS[0]), Blind(2), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"prior_weight": -1.0}, {"lr": 0.0}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|prior_weight|lr|spacing"):
        REDDiff(**arguments)
