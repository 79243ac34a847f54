"""cclight/samplers/diffpir.py: the data subproblem's exact solution, and the posterior of a mixture."""

import pytest
import torch

from cclight.operators.base import LinearOperator, Operator
from cclight.operators.masks import Box, Inpainting
from cclight.operators.pixelwise import Denoising
from cclight.operators.separable import BicubicDownsampling, GaussianBlur
from cclight.paths.gaussian import OTPath, VPPath
from cclight.samplers.diffpir import DiffPIR
from tests.samplers.baselines import PATHS, assert_images_do_not_meet, cell, distances, normal, small_mixture


class Rounding(Operator):
    """A nonlinear operator: 8 levels."""

    def forward(self, x):
        return torch.round(4 * x) / 4

    def pinv(self, y):
        return y


def test_the_data_step_solves_its_subproblem():
    """One step ends at argmin ‖y - H x‖² + ρ ‖x - x̂_0‖², here by dense linear algebra."""
    path, noise_std, lam = PATHS[0], 0.3, 2e4
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    noise = normal(1, 1, 4, 4, seed=6)
    ours = (
        DiffPIR(steps=1, prior_weight=lam).sample(problem.prior, problem.operator, problem.y, noise, noise_std=noise_std).image
    )
    time = torch.tensor([path.t_noise], dtype=torch.float64)
    x_0 = problem.prior.denoise(noise, time).flatten()
    matrix = problem.operator(torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)).flatten(1).T
    rho = lam * noise_std**2 * float(path.alpha(time) / path.sigma(time)) ** 2
    assert 0.01 < rho < 1  # neither term of the subproblem is idle
    system = matrix.T @ matrix + rho * torch.eye(16, dtype=torch.float64)
    expected = torch.linalg.solve(system, matrix.T @ problem.y.flatten() + rho * x_0)
    torch.testing.assert_close(ours.flatten(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    coarse, middle, fine = distances(problem, [DiffPIR(n, eta=1.0) for n in (3, 10, 80)])
    assert coarse > middle > fine
    assert fine < 0.6


@pytest.mark.parametrize("noise_std", [0.05, 0.2])
@pytest.mark.parametrize("operator", [BicubicDownsampling(2), GaussianBlur(1.0, 3), Inpainting(Box(2)), Denoising()], ids=repr)
def test_the_defaults_suit_noisy_measurements(operator, noise_std):
    """Of weights four times as large and small and of the published η none is much nearer to the posterior, most farther."""
    problem = cell(small_mixture(VPPath()), operator, noise_std)
    ours, *others = distances(problem, [DiffPIR(30), *(DiffPIR(30, w) for w in (0.25, 4.0)), DiffPIR(30, eta=0.1**0.5)])
    assert ours < 0.52
    assert ours < min(others) + 0.05
    assert ours < sum(others) / len(others) + 0.01


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_noiseless_measurements_are_met(path):
    problem = cell(small_mixture(path), BicubicDownsampling(2), 0.0)
    assert float((problem.operator(problem.restore(DiffPIR(10))) - problem.y).abs().max()) < 1e-9


def test_nonlinear_operators_run():
    prior = small_mixture(PATHS[0])
    x = prior.sample(4, torch.Generator().manual_seed(0))
    operator = Rounding()
    image = DiffPIR(20).sample(prior, operator, operator(x), normal(4, 1, 4, 4)).image
    # The last step puts x̂_0 + y - h(x̂_0) out, which is within two roundings of the truth.
    assert float((image - x).abs().max()) <= 0.25


def test_images_do_not_meet():
    assert_images_do_not_meet(DiffPIR(5), BicubicDownsampling(2), 0.1)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_an_operator_without_singular_values_serves(noise_std):
    class Half(LinearOperator):
        def forward(self, x):
            return 0.5 * x

        def pinv(self, y):
            return 2 * y

        def adjoint(self, y):
            return 0.5 * y

    y = normal(2, 1, 4, 4, seed=1)
    image, twice = (
        DiffPIR(3).sample(small_mixture(PATHS[0]), operator, scale * y, normal(2, 1, 4, 4), noise_std=scale * noise_std).image
        for operator, scale in ((Half(), 0.5), (Denoising(), 1.0))
    )
    torch.testing.assert_close(image, twice, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"prior_weight": 0.0}, {"eta": 1.1}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|prior_weight|eta|spacing"):
        DiffPIR(**arguments)
