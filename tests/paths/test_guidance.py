"""Guidance schedules against the closed forms of the paper's appendix C."""

from __future__ import annotations

import pytest
import torch

from cclight import OTPath, VPPath
from cclight.paths.guidance import SCHEDULES, gamma, omega, posterior_variance

T = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)


def test_alpha2_has_the_papers_factors():
    vp = VPPath()
    torch.testing.assert_close(gamma("alpha2", 3.0, vp, T), -0.5 * 3 * vp.beta(T) * vp.alpha(T) ** 2)
    torch.testing.assert_close(gamma("alpha2", 3.0, OTPath(), T), 3 * T * (1 - T))


def test_weights_of_each_schedule():
    path = OTPath()
    variance = posterior_variance(path, T)
    expected = {"alpha2": 2 * T**2, "constant": 2 * torch.ones_like(T), "inverse_variance": 2 / variance}
    assert set(expected) == set(SCHEDULES)
    for schedule, value in expected.items():
        torch.testing.assert_close(omega(schedule, 2.0, path, T), value)


def test_guidance_points_toward_the_measurement():
    """Toward data, whichever way time runs: γ dt > 0 times the residual."""
    for path in (VPPath(), OTPath()):
        direction = path.t_data - path.t_noise
        for schedule in SCHEDULES:
            assert bool((gamma(schedule, 1.0, path, T) * direction > 0).all())


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="Unknown guidance schedule 'beta'"):
        omega("beta", 1.0, OTPath(), T)
