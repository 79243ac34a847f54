"""What a network predicts: identities between x_0, ε and the velocity on a known image and noise."""

from __future__ import annotations

import pytest
import torch

from cclight import Epsilon, OTPath, Sample, Velocity, VPPath

T = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)


def state(path):
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    outputs = {
        Epsilon(): noise,
        Velocity(): path.alpha_dot(T) * x_0 + path.sigma_dot(T) * noise,
        Sample(): x_0,
    }
    return x_0, noise, path.alpha(T) * x_0 + path.sigma(T) * noise, outputs


@pytest.mark.parametrize("path", [VPPath(), OTPath()], ids=repr)
@pytest.mark.parametrize("parameterization", [Epsilon(), Velocity(), Sample()], ids=repr)
def test_output_and_denoised_estimate_determine_each_other(path, parameterization):
    x_0, _, x_t, outputs = state(path)
    s, o = parameterization.coefficients(path, T)
    torch.testing.assert_close(s * x_t + o * outputs[parameterization], x_0)
    torch.testing.assert_close(parameterization.output(path, T, x_t, x_0), outputs[parameterization])


@pytest.mark.parametrize("path", [VPPath(), OTPath()], ids=repr)
@pytest.mark.parametrize("parameterization", [Epsilon(), Velocity(), Sample()], ids=repr)
def test_drift_is_the_velocity_of_the_path(path, parameterization):
    x_0, noise, x_t, outputs = state(path)
    p, q = parameterization.drift(path, T)
    expected = path.alpha_dot(T) * x_0 + path.sigma_dot(T) * noise
    torch.testing.assert_close(p * x_t + q * outputs[parameterization], expected)


def test_known_drifts():
    path = VPPath()
    p, q = Epsilon().drift(path, T)
    torch.testing.assert_close(p, -path.beta(T) / 2)
    torch.testing.assert_close(q, path.beta(T) / (2 * path.sigma(T)))
    p, q = Velocity().drift(OTPath(), T)
    torch.testing.assert_close(p, torch.zeros_like(T), atol=1e-14, rtol=0)
    torch.testing.assert_close(q, torch.ones_like(T))
