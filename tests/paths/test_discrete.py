"""cclight/discrete_path.py: against the table it goes through, the VP-SDE and finite differences."""

import math
from itertools import pairwise

import pytest
import torch

from cclight.paths.discrete import BETA_MAX, DiscretePath
from cclight.paths.gaussian import VPPath

STEPS = 1000
LINEAR = tuple(torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64).tolist())


def cosine(steps):
    signal = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    return tuple(min(1 - after / before, 1.0) for before, after in pairwise(signal))


TABLES = {"linear": LINEAR, "cosine": cosine(STEPS), "short": (0.1, 0.5, 0.2, 0.9), "no signal left": (0.01, 0.3, 1.0)}


@pytest.fixture(params=TABLES)
def path(request):
    return DiscretePath(TABLES[request.param])


def test_the_path_goes_through_the_table(path):
    steps = len(path.betas)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.tensor([1.0, *(1 - min(beta, BETA_MAX) for beta in path.betas)], dtype=torch.float64)
    signal = kept.cumprod(0)
    assert torch.allclose(path.alpha(t) ** 2, signal, rtol=1e-9)
    assert torch.allclose(path.sigma(t) ** 2, 1 - signal, rtol=1e-9)
    assert torch.allclose(path.index(t), torch.cat([torch.zeros(1), torch.arange(float(steps))]).double(), atol=1e-9)


def test_noise_grows_monotonically_and_smoothly(path):
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    assert (path.sigma(t).diff() >= 0).all()
    assert (path.alpha(t).diff() <= 0).all()


def test_the_derivatives_are_those_of_alpha_and_sigma(path):
    t = torch.linspace(0.002, 0.999, 3001, dtype=torch.float64) + 1e-5
    h = 1e-7
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        difference = (value(t + h) - value(t - h)) / (2 * h)
        assert torch.allclose(derivative(t), difference, rtol=1e-4, atol=1e-6)


def test_time_at_ratio_inverts_the_ratio(path):
    t = torch.linspace(0.001, 1, 500, dtype=torch.float64)
    again = path.time_at_ratio(path.ratio(t))
    assert torch.allclose(path.ratio(again), path.ratio(t), rtol=1e-6)
    assert path.time_at_ratio(torch.tensor([0.0, torch.inf], dtype=torch.float64)).tolist() == [0, 1]


def test_a_thousand_linear_rates_are_nearly_the_vp_sde():
    t = torch.linspace(0.001, 1, 300, dtype=torch.float64)
    table, sde = DiscretePath(LINEAR), VPPath()
    assert (table.alpha(t) - sde.alpha(t)).abs().max() < 2e-3
    assert (table.sigma(t) - sde.sigma(t)).abs().max() < 2e-3


def test_equal_tables_are_equal_paths_and_print_short():
    assert DiscretePath(LINEAR) == DiscretePath(LINEAR)
    assert hash(DiscretePath(LINEAR)) == hash(DiscretePath(LINEAR))
    assert DiscretePath(LINEAR) != DiscretePath(LINEAR[:-1])
    assert repr(DiscretePath(LINEAR)) == "DiscretePath(1000 steps from β=0.0001 to β=0.02)"


def test_float32_times_give_float32():
    t = torch.tensor([0.0, 0.3, 1.0])
    path = DiscretePath(LINEAR)
    assert path.alpha(t).dtype == torch.float32
    assert torch.allclose(path.alpha(t).double(), path.alpha(t.double()), rtol=1e-4)


@pytest.mark.parametrize("betas", [(), (0.1,), (0.1, 0.0), (0.1, 1.5)])
def test_impossible_rates_are_refused(betas):
    with pytest.raises(ValueError, match=r"two or more noise rates in \(0, 1\], got"):
        DiscretePath(betas)
