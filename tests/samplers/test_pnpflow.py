"""cclight/samplers/pnpflow.py: the paper's steps, the posterior mean of a Gaussian, and the posterior of a mixture."""

import pytest
import torch

from cclight.operators.base import Operator
from cclight.operators.separable import BicubicDownsampling
from cclight.paths.gaussian import OTPath, VPPath
from cclight.samplers.pnpflow import PnPFlow
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


def test_takes_the_papers_steps():
    """Algorithm 3 on the OT path, with the gradient in units of the largest singular value found by a dense decomposition."""
    prior, operator = small_mixture(OTPath()), BicubicDownsampling(2)
    steps, samples, exponent = 4, 2, 0.3
    y, noise = operator(normal(1, 1, 4, 4)), normal(1, 1, 4, 4, seed=1)
    run = PnPFlow(steps, samples, exponent).sample(prior, operator, y, noise, generators=seeded(7))
    matrix = operator(torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)).flatten(1).T
    norm2 = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
    (generator,) = seeded(7)
    x = operator.pinv(y)
    for n in range(steps):
        t = n / steps
        z = x - (1 - t) ** exponent * operator.adjoint(operator(x) - y) / norm2
        total = torch.zeros_like(x)
        for _ in range(samples):
            mixed = t * z + (1 - t) * torch.randn(1, 4, 4, generator=generator).double()
            total += mixed + (1 - t) * prior(mixed, torch.tensor([t], dtype=torch.float64))
        x = total / samples
    assert run.nfe == steps * samples
    torch.testing.assert_close(run.image, x, rtol=0, atol=1e-4)  # the power iteration's accuracy


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_comes_closer_to_the_mean_of_a_gaussian_posterior(path):
    problem = cell(one_gaussian(path, 0.2), BicubicDownsampling(2), 0.0)
    mean = problem.posterior.mean
    errors = [float((problem.restore(PnPFlow(n), 64).mean(0) - mean[0]).norm()) for n in (4, 20, 100)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5 * errors[0]


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    coarse, middle, fine = mean_errors(problem, [PnPFlow(n) for n in (3, 20, 100)])
    assert coarse > middle > fine
    assert fine < 0.6


def test_images_do_not_meet():
    assert_images_do_not_meet(PnPFlow(5), BicubicDownsampling(2))


def test_needs_an_adjoint():
    class Clip(Operator):
        def forward(self, x):
            return x.clamp(-1, 1)

        def pinv(self, y):
            return y

    with pytest.raises(TypeError, match="PnPFlow needs a LinearOperator, and Clip is none"):
        PnPFlow().sample(small_mixture(PATHS[0]), Clip(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"samples": 0}, {"exponent": -1.0}, {"lr": 2.0}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|samples|exponent|lr|spacing"):
        PnPFlow(**arguments)


def test_more_draws_than_would_ever_end_are_refused():
    with pytest.raises(ValueError, match="steps × samples must be at most 100000"):
        PnPFlow(samples=100_000_000)
