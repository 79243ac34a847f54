"""cclight/samplers/dps.py: the published code's numbers, the gradient, and the posterior of a mixture."""

import pytest
import torch

from cclight.operators.base import Operator
from cclight.operators.separable import BicubicDownsampling
from cclight.paths.gaussian import OTPath, VPPath
from cclight.problem import Problem
from cclight.samplers.dps import DPS
from tests.samplers.baselines import (
    PATHS,
    assert_images_do_not_meet,
    cell,
    distances,
    golden_run,
    normal,
    one_gaussian,
    seeded,
    small_mixture,
)
from tests.samplers.golden import relative


class Cube(Operator):
    """A smooth nonlinear operator."""

    def forward(self, x):
        return x[:, :, ::2] ** 3

    def pinv(self, y):
        return torch.repeat_interleave(y.sign() * y.abs() ** (1 / 3), 2, dim=2)


@pytest.mark.parametrize(
    "name",
    [
        "dps__bicubic4__grad_term_weight1_sigma_y0_eta0__n5",
        "dps__bicubic4__grad_term_weight1_sigma_y0_eta0__n50",
        "dps__deblur_gauss_fix__grad_term_weight1_sigma_y0_eta0__n50",
        "dps__in2_20ff1__grad_term_weight0.1_sigma_y0_eta0__n5",
        "dps__in2_20ff1__grad_term_weight0.1_sigma_y0_eta0__n50",
    ],
)
def test_meets_the_golden_run(golden, name):
    run = golden_run(golden, f"{name}.npz")
    problem = Problem(**run.problem_arguments)
    # The golden code starts from α H⁺y + σ ε, not from noise, and its weight counts double.
    problem.noise = problem.start(0.0)
    with torch.no_grad():
        *_, x = DPS(run.settings["n_steps"], zeta=2 * run.settings["grad_term_weight"], eta=0.0).iterate(problem)
    assert problem.nfe == run.settings["n_steps"]
    assert relative(x, torch.from_numpy(run.data["x_final"]).double()) < 1e-5


@pytest.mark.parametrize("operator", [BicubicDownsampling(2), Cube()], ids=["linear", "nonlinear"])
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_the_step_follows_the_gradient_of_the_norm(path, operator):
    """One step ends at x̂_0 - ζ ∇‖y - H x̂_0(x_t)‖, here by automatic differentiation of the whole, image by image."""
    prior, zeta = small_mixture(path), 0.7
    noise = normal(3, 1, 4, 4)
    y = operator(normal(3, 1, 4, 4, seed=1))
    ours = DPS(steps=1, zeta=zeta).sample(prior, operator, y, noise).image
    for i in range(3):
        x = noise[i : i + 1].clone().requires_grad_()
        x_0 = prior.denoise(x, torch.tensor([path.t_noise], dtype=torch.float64))
        (gradient,) = torch.autograd.grad((y[i : i + 1] - operator(x_0)).norm(), x)
        torch.testing.assert_close(ours[i : i + 1], (x_0 - zeta * gradient).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_the_step_is_ancestral(path):
    """With ζ = 0 a step from t to s draws from q(x_s | x_t, x̂_0), the product of N(α_s x̂_0, σ_s²) and x_s -> x_t."""
    prior, operator, noise = small_mixture(path), BicubicDownsampling(2), normal(1, 1, 4, 4)

    def second_state(seed):
        run = DPS(4, zeta=0.0).sample(
            prior, operator, operator(0 * noise), noise, generators=seeded(seed), keep_trajectory=True
        )
        return run.trajectory

    t, s = path.time(torch.tensor([0.25, 0.5], dtype=torch.float64)).split(1)
    alpha, alpha_s = path.alpha(t), path.alpha(s)
    # x_t = (α/α_s) x_s + noise of this variance
    step = path.sigma(t) ** 2 - (alpha / alpha_s * path.sigma(s)) ** 2
    variance = 1 / (1 / path.sigma(s) ** 2 + (alpha / alpha_s) ** 2 / step)
    for seed in (1, 2):
        x, ours = second_state(seed)[:2]
        mean = variance * (alpha_s * prior.denoise(x, t) / path.sigma(s) ** 2 + alpha / alpha_s * x / step)
        (generator,) = seeded(seed)
        _, z = (torch.randn(1, 4, 4, generator=generator).double() for _ in range(2))
        torch.testing.assert_close(ours, mean + variance.sqrt() * z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    coarse, middle, fine = distances(problem, [DPS(n, zeta=0.1) for n in (10, 40, 200)])
    assert coarse > middle > fine
    assert fine < 0.6


def test_a_met_measurement_gives_no_gradient():
    """‖·‖ has no slope at 0: the step must not divide by it."""
    prior = one_gaussian(PATHS[0], 0.5)
    operator = BicubicDownsampling(2)
    noise = normal(1, 1, 4, 4)
    x_0 = prior.denoise(noise, torch.tensor([1.0], dtype=torch.float64))
    image = DPS(steps=1).sample(prior, operator, operator(x_0), noise).image
    assert bool(image.isfinite().all())


def test_images_do_not_meet():
    assert_images_do_not_meet(DPS(5), BicubicDownsampling(2))


def test_needs_a_gradient():
    class Blind(Cube):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(TypeError, match="Blind lets none through"):
        DPS().sample(small_mixture(PATHS[0]), Blind(), torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"eta": 1.1}, {"zeta": -0.1}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|eta|zeta|spacing"):
        DPS(**arguments)
