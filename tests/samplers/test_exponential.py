"""The step around a frozen estimate: how much of a Gaussian's spread it keeps by order, and renewed noise."""

import math

import pytest
import torch

from cclight import Inpainting, OTPath, VPPath
from cclight.operators.masks import Box
from cclight.problem import Problem
from cclight.samplers.exponential import kept_of
from cclight.samplers.grid import Grid
from cclight.samplers.moments import ConjugateMoments
from tests.samplers.baselines import normal, one_gaussian

PATHS = [VPPath(), OTPath()]


def kept(path, steps, order, t_start=0.1):
    """Of two states, how far apart they end where nothing is measured, over how far apart the exact ODE ends: a number."""
    variance, hole = 0.3, Inpainting(Box(2))
    prior = one_gaussian(path, variance)
    sampler = ConjugateMoments(steps, t_start=t_start, order=order)
    y = hole(normal(1, 1, 4, 4))
    one, other = (sampler.sample(prior, hole, y, noise).image for noise in (torch.zeros_like(y), torch.ones_like(y)))
    times = sampler.grid.times(path, path.first_progress)
    alpha, sigma = path.alpha(times), path.sigma(times)
    angles = torch.atan2(variance**0.5 * alpha, sigma)
    total = (alpha[-1] ** 2 * variance + sigma[-1] ** 2) / (alpha[0] ** 2 * variance + sigma[0] ** 2)
    return float((other - one)[0, 0, 1, 1]) / float(sigma[0] * total.sqrt()), angles


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_first_order_step_keeps_the_cosine_of_its_angle(path, steps):
    found, angles = kept(path, steps, 1)
    assert found == pytest.approx(float(torch.cos(angles.diff()).prod()), rel=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [5, 10])
def test_the_second_order_keeps_the_spread(path, steps):
    (first, _), (second, _) = kept(path, steps, 1), kept(path, steps, 2)
    assert abs(1 - second) < 0.5 * (1 - first)
    assert second == pytest.approx(1, abs=0.08)


def test_equal_angles_leave_what_the_module_says():
    assert [round(math.cos(math.pi / 2 / n) ** (2 * n), 2) for n in (5, 20)] == [0.61, 0.88]


@pytest.mark.parametrize("path", PATHS)
def test_renewed_noise_keeps_the_spread_of_many_steps(path):
    """Of a Gaussian the ODE and the renewed noise leave the same distribution, of other images."""
    prior, hole, y = one_gaussian(path, 0.3), Inpainting(Box(2)), normal(1, 1, 4, 4)
    noise = normal(4000, 1, 4, 4, seed=1)
    sampler = ConjugateMoments(40, order=2, renewal=1.0)
    image = sampler.sample(prior, hole, hole(y).expand(4000, -1, -1, -1), noise).image[:, 0, 1:3, 1:3]
    assert float(image.std(0).mean()) == pytest.approx(0.3**0.5, rel=0.03)
    alone = ConjugateMoments(40, order=2).sample(prior, hole, hole(y).expand(4000, -1, -1, -1), noise).image[:, 0, 1:3, 1:3]
    correlation = torch.corrcoef(torch.stack([image.flatten(), alone.flatten()]))[0, 1]
    assert float(correlation) < 0.9


@pytest.mark.parametrize("path", PATHS)
def test_renewed_noise_is_what_the_state_has_come_to_know(path):
    """A step keeps the share of its noise that its knowledge has of the next one's, to a power; the last one all."""
    problem = Problem(one_gaussian(path, 0.3), Inpainting(Box(2)), normal(1, 1, 4, 4), normal(1, 1, 4, 4))
    problem.times = Grid(3, 0.4, 0.9).times(path).tolist()
    known = [level.alpha**2 / (level.alpha**2 + level.sigma**2) for level in map(problem.at, range(4))]
    assert [kept_of(problem, n, 2.0) for n in range(3)] == pytest.approx([(known[n] / known[n + 1]) ** 2 for n in (0, 1)] + [1])
    assert [kept_of(problem, n, 0.0) for n in range(3)] == [1, 1, 1]


def test_a_single_step_has_no_second_order():
    assert kept(VPPath(), 1, 1)[0] == kept(VPPath(), 1, 2)[0]
