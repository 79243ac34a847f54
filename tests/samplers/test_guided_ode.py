"""GuidedODE: what the other samplers approach, to a tolerance, each image by itself."""

from __future__ import annotations

import pytest
import torch

from cclight import BicubicDownsampling, Conjugate, GuidedODE, Quantization, SmallPrior
from tests.samplers.baselines import PATHS, assert_images_do_not_meet, small_mixture
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import BICUBIC, SETTINGS, guided_ode, problem, smooth_mixture
from tests.samplers.test_spectrum import LEVELS, OPERATOR, gaussian, linear_ode, measurement


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS[:4])
def test_it_meets_the_ode_integrated_by_hand(path, parameterization):
    prior = smooth_mixture(path, parameterization)
    sampler = GuidedODE(guidance=2.0, t_start=0.4, t_end=0.95, tolerance=1e-8)
    result = sampler.sample(prior, BICUBIC, *problem(prior, BICUBIC))
    assert relative(result.image, guided_ode(path, BICUBIC, "alpha2", 2.0)) < 1e-6
    assert result.nfe > 20


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("noise_std", LEVELS)
def test_it_meets_the_linear_ode_of_a_noisy_gaussian(path, noise_std):
    prior = gaussian(path)[0]
    y, noise = measurement(prior, noise_std)
    sampler = GuidedODE(guidance=6.0, t_start=0.4, t_end=0.95, tolerance=1e-7)
    exact = linear_ode(path, "alpha2", 6.0, noise_std)
    assert relative(sampler.sample(prior, OPERATOR, y, noise, noise_std=noise_std).image, exact) < 1e-5


def test_many_steps_of_conjugate_approach_it_and_a_tighter_tolerance_costs_more():
    prior, operator = smooth_mixture(*SETTINGS[0]), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    loose, tight = (GuidedODE(guidance=2.0, t_start=0.4, tolerance=t).sample(prior, operator, y, noise) for t in (1e-3, 1e-7))
    assert tight.nfe > loose.nfe
    errors = [
        relative(Conjugate(n, 2.0, t_start=0.4, t_end=0.999).sample(prior, operator, y, noise).image, tight.image)
        for n in (20, 160)
    ]
    assert errors[1] < errors[0] / 5
    assert relative(loose.image, tight.image) < 0.02


def test_images_do_not_meet():
    assert_images_do_not_meet(GuidedODE(guidance=2.0, tolerance=1e-3), BicubicDownsampling(2), 0.1)


def test_parts_show_the_way_and_nonlinear_operators_run():
    prior = small_mixture(PATHS[0])
    y = Quantization(3)(prior.sample(1, torch.Generator().manual_seed(0)))
    result = GuidedODE(3, 1.0, tolerance=1e-2).sample(prior, Quantization(3), y, seed=1, keep_trajectory=True)
    assert len(result.trajectory or []) == 3
    assert result.image.isfinite().all()


@pytest.mark.parametrize("arguments", [{"tolerance": 0.0}, {"guidance": -1.0}, {"steps": 0}, {"tolerance": float("nan")}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GuidedODE(**arguments)


@pytest.mark.parametrize("tolerance", [0.0, 1e-30, float("nan"), 2.0, float("inf")])
def test_a_tolerance_that_no_solver_reaches_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"tolerance (is a number from 1e-12 to 1|of GuidedODE is a finite number), got"):
        GuidedODE(tolerance=tolerance)


def test_a_tolerance_finer_than_the_images_is_refused():
    y = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="tolerance 1e-09 is finer than images of float32 are: give 6e-08 or more"):
        GuidedODE(tolerance=1e-9).sample(SmallPrior(), BicubicDownsampling(2), y)
