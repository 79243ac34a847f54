"""Heun's method in the conjugate space against the guided ODE."""

from __future__ import annotations

import math

import pytest
import torch

from cclight import BicubicDownsampling, Conjugate
from cclight.samplers.heun import ConjugateHeun
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import BICUBIC, SETTINGS, Counting, guided_ode, problem, smooth_mixture


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS[:4])
def test_it_converges_at_second_order(path, parameterization):
    prior, exact = smooth_mixture(path, parameterization), guided_ode(path, BICUBIC, "alpha2", 2.0)
    y, noise = problem(prior, BICUBIC)
    errors = [
        relative(ConjugateHeun(steps, 2.0, 0.4, 0.95).sample(prior, BICUBIC, y, noise).image, exact) for steps in (20, 80)
    ]
    assert errors[1] < 2e-3
    assert math.log(errors[0] / errors[1]) / math.log(4) > 1.8


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS[:4])
def test_two_network_calls_a_step_and_one_in_the_last(path, parameterization):
    prior, operator = Counting(smooth_mixture(path, parameterization)), BicubicDownsampling(4)
    y, noise = problem(prior.prior, operator)
    result = ConjugateHeun(steps=4, t_start=0.4).sample(prior, operator, y, noise, noise_std=0.05)
    assert (prior.calls, prior.backward, result.nfe) == (7, 7, 7)
    assert result.image.isfinite().all()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ConjugateHeun(steps=0)
    with pytest.raises(ValueError, match="guidance is a weight >= 0"):
        ConjugateHeun(guidance=-1)


def test_one_step_is_eulers():
    path, parameterization = SETTINGS[0]
    prior, operator = smooth_mixture(path, parameterization), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    ours = ConjugateHeun(1, 2.0).sample(prior, operator, y, noise).image
    torch.testing.assert_close(ours, Conjugate(1, 2.0).sample(prior, operator, y, noise).image)
