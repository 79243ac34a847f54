"""Gaussian paths against autograd, finite ends, and each other."""

from __future__ import annotations

import pytest
import torch

from cclight import OTPath, VPPath

PATHS = [VPPath(), VPPath(0.05, 12.0), OTPath()]


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_derivatives_are_those_of_autograd(path):
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        (expected,) = torch.autograd.grad(value(t).sum(), t)
        torch.testing.assert_close(derivative(t), expected)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_ends_are_noise_and_data(path):
    noise, data = path.time(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert path.alpha(noise) < 0.06
    assert path.sigma(noise) > 0.99
    assert (path.alpha(data), path.sigma(data)) == (1, 0)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_time_at_ratio_inverts_the_ratio(path):
    t = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    torch.testing.assert_close(path.time_at_ratio(path.ratio(t)), t)


def test_vp_keeps_the_variance():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(VPPath().alpha(t) ** 2 + VPPath().sigma(t) ** 2, torch.ones_like(t))


def test_sigma_is_accurate_near_data_in_float32():
    t = torch.tensor([1e-6])
    exact = VPPath().sigma(t.double())
    torch.testing.assert_close(VPPath().sigma(t).double(), exact, rtol=1e-6, atol=0)


def test_equality_is_by_value():
    assert VPPath() == VPPath(0.1, 20.0) != VPPath(0.1, 19.0)
    assert OTPath() != VPPath()
    assert len({OTPath(), OTPath(), VPPath()}) == 2


def test_impossible_rates_are_refused():
    with pytest.raises(ValueError, match="0 < beta_min < beta_max, got beta_min=3 and beta_max=1"):
        VPPath(3, 1)
