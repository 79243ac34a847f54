"""cclight/samplers/ddnm.py: the paper's equations by dense matrices, where its noise goes, and a posterior it must meet."""

import math
from itertools import pairwise

import pytest
import torch

from cclight.operators.base import SpectralOperator
from cclight.operators.iterative import RandomProjection
from cclight.operators.masks import Box, Inpainting
from cclight.operators.separable import BicubicDownsampling, GaussianBlur
from cclight.paths.gaussian import OTPath, VPPath
from cclight.problem import Problem
from cclight.samplers.ddnm import DDNM
from cclight.samplers.ddrm import DDRM
from cclight.samplers.diffpir import DiffPIR
from tests.samplers.baselines import PATHS, assert_images_do_not_meet, cell, distances, normal, one_gaussian, small_mixture
from tests.samplers.test_diffpir import Rounding

STEPS = 4


class Given(Problem):
    """Draws the noise that it is given."""

    z = torch.zeros(1, 1, 4, 4, dtype=torch.float64)

    def randn(self):
        return self.z.expand_as(self.noise)


def dense(operator):
    return operator(torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)).flatten(1).T


def after(sampler, operator, y, x, noise_std, n, z=Given.z):
    """The state after step n from the given one, as vectors, (B, 16), and the problem."""
    problem = Given(small_mixture(VPPath()), operator, y.expand(len(x), *y.shape[1:]), x, noise_std)
    problem.z = z
    problem.times = sampler.grid.times(problem.prior.path).tolist()
    with torch.no_grad():
        state = sampler.begin(problem)
        state = sampler.step(problem, n, state._replace(x=x) if noise_std else x)
    return (state.x if noise_std else state).flatten(1), problem


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize(
    "operator", [BicubicDownsampling(2), GaussianBlur(1.0, 3), Inpainting(Box(2)), RandomProjection(5, (1, 4, 4))]
)
def test_a_step_replaces_the_range_and_keeps_the_networks_noise(operator, eta):
    """Equations 12 and 13 by dense linear algebra, with ε as the network says it."""
    x, z = normal(2, 1, 4, 4, seed=3), normal(2, 1, 4, 4, seed=4)
    y = operator(0.5 * normal(1, 1, 4, 4, seed=5))
    ours, problem = after(DDNM(STEPS, eta), operator, y, x, 0.0, 2, z)
    now, later = problem.at(2), problem.at(3)
    matrix = dense(operator)
    epsilon = problem.prior(x, torch.full((2,), now.t, dtype=torch.float64)).flatten(1)
    x_0 = (x.flatten(1) - now.sigma * epsilon) / now.alpha
    x_0 = x_0 - (x_0 @ matrix.T - y.flatten(1)) @ torch.linalg.pinv(matrix).T
    expected = later.alpha * x_0 + later.sigma * (math.sqrt(1 - eta**2) * epsilon + eta * z.flatten(1))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", range(STEPS))
@pytest.mark.parametrize("noise_std", [0.03, 0.3, 2.0])
@pytest.mark.parametrize("operator", [BicubicDownsampling(2), GaussianBlur(1.0, 3), Inpainting(Box(2))], ids=repr)
def test_noise_is_corrected_and_drawn_as_the_paper_says_and_adds_up(operator, noise_std, n):
    """Equations 17 and 51 by dense linear algebra; the noise of measurement, draw and network together is that of the path."""
    eta, x, y = 0.85, normal(1, 1, 4, 4, seed=3), operator(0.5 * normal(1, 1, 4, 4, seed=5))
    matrix = dense(operator)
    _, s, vt = torch.linalg.svd(matrix, full_matrices=True)
    s = torch.cat([s, s.new_zeros(16 - len(s))])
    s = torch.where(s > 1e-9, s, 0)
    mean, problem = after(DDNM(STEPS, eta), operator, y, x, noise_std, n)
    now, later = problem.at(n), problem.at(n + 1)

    alpha, sigma, level = later.alpha, later.sigma, noise_std / s
    cleaner = (s > 0) & (sigma < alpha * level)
    noisier = (s > 0) & ~cleaner
    lam = torch.where(cleaner, math.sqrt(1 - eta**2) * sigma * s / (alpha * noise_std), 1.0)
    phi = torch.where(noisier, sigma**2 - (alpha * level) ** 2, (eta * sigma) ** 2)
    kept = torch.where(s > 0, 0.0, math.sqrt(1 - eta**2) * sigma)

    epsilon = problem.prior(x, torch.full((1,), now.t, dtype=torch.float64)).flatten(1)
    x_0 = (x.flatten(1) - now.sigma * epsilon) / now.alpha
    pinv = torch.linalg.pinv(matrix)
    correction = (y.flatten(1) - x_0 @ matrix.T) @ pinv.T @ vt.T
    expected = alpha * (x_0 + (lam * correction) @ vt) + (kept * (epsilon @ vt.T)) @ vt
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)

    many = x.expand(16, -1, -1, -1)
    drawn = after(DDNM(STEPS, eta), operator, y, many, noise_std, n, torch.eye(16, dtype=x.dtype).view(16, 1, 4, 4))[0] - mean
    torch.testing.assert_close(drawn.T @ drawn, vt.T @ (phi[:, None] * vt), rtol=1e-5, atol=1e-6)

    numbers = y[0].numel()
    moved = y + torch.eye(numbers, dtype=x.dtype).view(numbers, *y.shape[1:])
    measured = torch.cat([after(DDNM(STEPS, eta), operator, one[None], x, noise_std, n)[0] - mean for one in moved])
    total = drawn.T @ drawn + noise_std**2 * measured.T @ measured + vt.T @ (kept[:, None] ** 2 * vt)
    torch.testing.assert_close(total, sigma**2 * torch.eye(16, dtype=x.dtype), rtol=1e-5, atol=1e-6)


def test_under_noise_it_is_ddrm_with_the_whole_measurement():
    problem = cell(small_mixture(PATHS[0]), BicubicDownsampling(2), 0.1)
    ours, theirs, others = (
        problem.restore(one, 4) for one in (DDNM(5, 0.7), DDRM(5, 0.7, t_start=0.5), DDRM(5, 0.7, 0.5, t_start=0.5))
    )
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, others)


def test_vanishing_noise_changes_the_range_alone():
    """Without noise the range holds on to the network's noise; with the least of it, it is drawn anew."""
    operator, x = BicubicDownsampling(2), normal(2, 1, 4, 4, seed=3)
    y = operator(0.5 * normal(1, 1, 4, 4, seed=5))
    (exact, problem), (nearly, _) = (after(DDNM(STEPS, 0.0), operator, y, x, noise_std, 2) for noise_std in (0.0, 1e-9))
    epsilon = problem.prior(x, torch.full((2,), problem.at(2).t, dtype=torch.float64))
    expected = problem.at(3).sigma * operator.project(epsilon).flatten(1)
    torch.testing.assert_close(exact - nearly, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize(
    "operator", [BicubicDownsampling(2), Inpainting(Box(2)), RandomProjection(5, (1, 4, 4))], ids=["bicubic", "box", "random"]
)
def test_noiseless_measurements_are_met(path, operator):
    problem = cell(small_mixture(path), operator, 0.0)
    misfit = float((problem.operator(problem.restore(DDNM(5), 8)) - problem.y).abs().max())
    assert misfit < (1e-9 if isinstance(operator, SpectralOperator) else 1e-4)  # conjugate gradients to their tolerance


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_without_fresh_noise_it_samples_the_posterior_of_an_isotropic_gaussian(path):
    """What is measured is fixed; the rest is independent of it and sampled by DDIM."""
    problem = cell(one_gaussian(path, 0.5), BicubicDownsampling(2), 0.0)
    exact = float(problem.posterior.covariance[0].trace())
    deficits = []
    for steps in (10, 30, 100):
        x = problem.restore(DDNM(steps, eta=0.0, t_start=0.0))
        deficits.append(abs(1 - float(x.flatten(1).T.cov().trace()) / exact))
    assert deficits[0] > deficits[1] > deficits[2]
    assert deficits[2] < 0.07
    assert float((x.mean(0) - problem.posterior.mean[0]).abs().max()) < 0.15  # standard error 0.04


@pytest.mark.parametrize("eta", [0.5, 0.85, 1.0])
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_its_spread_under_fresh_noise_is_that_of_the_recursion(path, eta):
    """Of an isotropic Gaussian the null space's variance obeys a recursion of numbers: below the posterior's, and as small."""
    variance, steps = 0.5, 10
    problem = cell(one_gaussian(path, variance), BicubicDownsampling(2), 0.0)
    sampler = DDNM(steps, eta, t_start=0.0)
    times = sampler.grid.times(path)
    spread = 1.0
    for (alpha, sigma), (alpha_s, sigma_s) in pairwise(zip(path.alpha(times), path.sigma(times), strict=True)):
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        factor = alpha_s * gain + sigma_s * math.sqrt(1 - eta**2) * (1 - alpha * gain) / sigma
        spread = factor**2 * spread + (eta * sigma_s) ** 2
    covariance = problem.restore(sampler, 512).flatten(1).T.cov()
    null = torch.eye(16, dtype=torch.float64) - torch.linalg.pinv(dense(problem.operator)) @ dense(problem.operator)
    measured = float((null @ covariance).trace() / null.trace())
    assert measured == pytest.approx(float(spread), rel=0.08)  # standard error 0.02
    assert float(spread) < 0.9 * variance


@pytest.mark.parametrize(("path", "noise_std"), [(VPPath(), 0.1), (OTPath(), 0.0)], ids=str)
def test_more_steps_come_closer_to_the_posterior(path, noise_std):
    problem = cell(small_mixture(path), BicubicDownsampling(2), noise_std)
    coarse, middle, fine = distances(problem, [DDNM(3), DDNM(10), DDNM(80)])
    assert coarse > middle > fine
    assert fine < 0.6


def test_it_is_not_diffpir_which_takes_the_noise_of_the_corrected_estimate():
    problem = cell(small_mixture(PATHS[0]), BicubicDownsampling(2), 0.0)
    settings = {"t_start": 0.3, "timesteps": "uniform", "eta": 0.5}
    ours, theirs = (problem.restore(kind(5, **settings), 4) for kind in (DDNM, DiffPIR))
    assert float((ours - theirs).abs().max()) > 0.01
    ours, theirs = (problem.restore(kind(5, **settings | {"eta": 1.0}), 4) for kind in (DDNM, DiffPIR))
    torch.testing.assert_close(ours, theirs)


def test_nonlinear_operators_run_and_noise_on_them_is_refused():
    prior, operator = small_mixture(PATHS[0]), Rounding()
    x = prior.sample(4, torch.Generator().manual_seed(0))
    y = operator(x)
    restored = DDNM(20).sample(prior, operator, y, normal(4, 1, 4, 4))
    assert restored.nfe == 20
    assert float((restored.image - x).abs().max()) <= 0.25  # x̂_0 + h†(y) - h†(h(x̂_0)): within two roundings of the truth
    with pytest.raises(TypeError, match=r"DDNM with noise_std=0.1 needs a SpectralOperator, and Rounding .* Conjugate\."):
        DDNM().sample(prior, operator, y, normal(4, 1, 4, 4), noise_std=0.1)
    operator = RandomProjection(5, (1, 4, 4))
    with pytest.raises(TypeError, match=r"and RandomProjection is none: .* choose ConjugateMoments\."):
        DDNM().sample(prior, operator, operator(x), normal(4, 1, 4, 4), noise_std=0.1)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_images_do_not_meet(noise_std):
    assert_images_do_not_meet(DDNM(5), BicubicDownsampling(2), noise_std)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"eta": 1.1}, {"eta": -0.1}, {"timesteps": "even"}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=r"steps|eta|spacing"):
        DDNM(**arguments)
