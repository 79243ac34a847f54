"""cclight/samplers/ddrm.py: the published code's numbers, and the posterior of a mixture."""

import pytest
import torch

from cclight.operators.base import LinearOperator
from cclight.operators.separable import BicubicDownsampling
from cclight.paths.gaussian import OTPath, VPPath
from cclight.problem import Problem
from cclight.samplers.ddrm import DDRM
from tests.samplers.baselines import PATHS, assert_images_do_not_meet, cell, distances, golden_run, one_gaussian, small_mixture
from tests.samplers.golden import SHAPE, relative


class Replay(Problem):
    """Replays the golden run's noise, of which three kinds are drawn in each step, in the order of the singular values."""

    def __init__(self, run):
        super().__init__(**run.problem_arguments, noise_std=2 * run.settings["sigma_y"])
        self.run, self.step = run, 0

    def randn(self):
        self.step += 1
        _, alpha, sigma, *_ = self.level(float(self.step))
        s, batch, first = self.operator.s, len(self.y), 3 * self.step - 2
        every, cleaner_only, measured = (self.run.bank[first + k, :batch] for k in range(3))
        cleaner = (s > 0) & (s * sigma < alpha * self.noise_std)
        noisier = s * sigma > alpha * self.noise_std
        assert self.run.noise_calls[first + 1][1] == [batch, int(cleaner.sum())]
        z = every.clone()
        z[:, cleaner] = cleaner_only[:, : int(cleaner.sum())]
        z[:, noisier] = measured[:, noisier]
        return z.view(-1, *SHAPE)


@pytest.mark.parametrize(
    "name",
    [
        "ddrm__bicubic4__sigma_y0__n5",
        "ddrm__bicubic4__sigma_y0__n20",
        "ddrm__bicubic4__sigma_y0.05__n20",
        "ddrm__deblur_gauss_fix__sigma_y0__n20",
        "ddrm__in2_20ff1__sigma_y0__n5",
        "ddrm__in2_20ff1__sigma_y0__n20",
    ],
)
def test_meets_the_golden_run(golden, name):
    run = golden_run(golden, f"{name}.npz")
    problem = Replay(run)
    with torch.no_grad():
        *_, x = DDRM(run.settings["n_steps"], eta=run.settings["eta"], eta_b=run.settings["eta_b"]).iterate(problem)
    assert problem.nfe == run.settings["n_steps"]
    # Five steps begin at σ = 0.9992, where the golden code divides the state by σ: 3e-5.
    assert relative(x, torch.from_numpy(run.data["x_final"]).double()) < (5e-5 if name.endswith("n5") else 1e-6)


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    coarse, middle, fine = distances(problem, [DDRM(3), DDRM(10), DDRM(80)])
    assert coarse > middle > fine
    assert fine < 0.6


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_samples_the_posterior_of_an_isotropic_gaussian(path):
    """What is measured is fixed; the rest is independent of it and, under η = 0, sampled by DDIM: there DDRM is exact."""
    problem = cell(one_gaussian(path, 0.5), BicubicDownsampling(2), 0.0)
    exact = float(problem.posterior.covariance[0].trace())
    deficits = []
    for steps in (10, 30, 100):
        x = problem.restore(DDRM(steps, eta=0.0))
        deficits.append(abs(1 - float(x.flatten(1).T.cov().trace()) / exact))
    assert deficits[0] > deficits[1] > deficits[2]
    assert deficits[2] < 0.07
    assert float((x.mean(0) - problem.posterior.mean[0]).abs().max()) < 0.15  # standard error 0.04
    assert float((problem.operator(x) - problem.y).abs().max()) < 0.1


def test_vanishing_noise_meets_the_noiseless_sampler():
    problem = cell(small_mixture(PATHS[0]), BicubicDownsampling(2), 0.0)
    exact, nearly = problem.restore(DDRM(20), 4), problem._replace(noise_std=1e-7).restore(DDRM(20), 4)
    # The last state alone differs: without noise it is x̂_0, with the least noise the measurement is put in.
    within = problem.operator.project(exact - nearly)
    torch.testing.assert_close(exact - within, nearly, rtol=0, atol=1e-5)
    assert float(within.abs().max()) < 0.5


def test_partial_measurement_weight_mixes_estimate_and_measurement():
    """η_b = 0 never looks at y after the start; 1 puts it in; in between lies in between."""
    problem = cell(small_mixture(PATHS[0]), BicubicDownsampling(2), 0.0)
    misfits = [
        float((problem.operator(problem.restore(DDRM(20, eta_b=eta_b))) - problem.y).abs().mean()) for eta_b in (0.0, 0.5, 1.0)
    ]
    assert misfits[0] > misfits[1] > misfits[2]


def test_images_do_not_meet():
    assert_images_do_not_meet(DDRM(5), BicubicDownsampling(2), 0.1)


def test_needs_singular_values():
    class Average(LinearOperator):
        def forward(self, x):
            return x.mean(dim=(2, 3))

        def pinv(self, y):
            return y[:, :, None, None].expand(-1, -1, 4, 4)

        def adjoint(self, y):
            return self.pinv(y) / 16

    with pytest.raises(TypeError, match="DDRM needs a SpectralOperator, and Average is none"):
        DDRM().sample(small_mixture(PATHS[0]), Average(), torch.zeros(1, 1), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"eta": 1.1}, {"eta_b": -0.1}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|eta|spacing"):
        DDRM(**arguments)
