"""The paper's perturbation, which benchmarks/noise.py compares with: right for little noise, adrift for much."""

from __future__ import annotations

import torch

from benchmarks.noise import drift, perturbed_gain
from cclight import AveragePooling
from cclight.samplers.spectrum import Gains


def test_the_perturbation_is_the_gain_to_first_order():
    values, _ = AveragePooling(2).distinct_values((1, 6, 6))
    variance = torch.tensor([0.2, 0.7], dtype=torch.float64)
    gaps = []
    for std in (1e-2, 1e-3):
        exact, perturbed = Gains(values, std)(variance), perturbed_gain(values, std, variance)
        assert (perturbed[:, 0] == 0).all() == (exact[:, 0] == 0).all()
        gaps.append(float((exact - perturbed).abs().max()))
    assert gaps[1] < gaps[0] / 5000  # the error is of fourth order in σ_y


def test_the_perturbation_drifts_away_as_the_noise_grows():
    little, more, much = (drift(6.0, std) for std in (0.01, 0.05, 0.2))
    assert little < 0.05
    assert little < more < much
    assert much > 0.1
