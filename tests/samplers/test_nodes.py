"""cclight/samplers/nodes.py: functions by nodes against the functions, and large images against the exact spectral form."""

from __future__ import annotations

import pytest
import torch

from cclight import AveragePooling, CircularBlur, Conjugate, Epsilon, GaussianBlur, Inpainting, PiGDM, VPPath
from cclight.operators.kernels import FixedKernel
from cclight.operators.masks import RandomPixels
from cclight.samplers import spectrum as spectra
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.grid import Grid
from cclight.samplers.nodes import NODES, Lookup, interpolated, nodes, places
from cclight.samplers.spectrum import Singular, Smooth, spectrum_of
from tests.samplers.baselines import normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture

OPERATORS = {
    "gaussian": GaussianBlur(),
    "circular": CircularBlur(FixedKernel(torch.tensor([[0.0, 0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.1, 0.0]]))),
    "mask": Inpainting(RandomPixels(0.5)),
    "pooling": AveragePooling(2),
}


def test_nodes_hold_their_places_and_ends():
    assert places(nodes(0.05).square(), 0.05).sub(torch.arange(NODES)).abs().max() < 1e-9
    assert places(torch.tensor([0.0, 1e300], dtype=torch.float64), 0.05).tolist() == [0, NODES - 1]


@pytest.mark.parametrize("noise_std", [0.01, 0.05, 0.2])
def test_a_gain_between_the_nodes_is_the_gain(noise_std):
    values = torch.logspace(-4, 1, 997, dtype=torch.float64)
    for variance in (1e-3, 0.1, 1.0):
        gain = variance * nodes(noise_std) ** 2
        exact = variance * values / (variance * values + noise_std**2)
        assert (interpolated(gain / (gain + noise_std**2), places(values, noise_std)) - exact).abs().max() < 1e-7


@pytest.mark.parametrize("noise_std", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_function_is_that_of_the_singular_values_to_a_millionth(name, noise_std):
    operator, x = OPERATORS[name], normal(1, 3, 24, 16).double()
    made = []
    for case in (Singular, Smooth):
        form = case(operator, noise_std, x)
        table = conjugate_table(VPPath(), Epsilon(), Grid(3, 0.1, None), form.gains, "alpha2", 15.0)
        pinv_y = operator.project(x)
        steps = [
            form.combine([(weight, pinv_y if row == 2 else x)]) for f in form.prepare(table.phi) for row, weight in enumerate(f)
        ]
        made.append(torch.stack([*steps, *(form.damp(gain, pinv_y) for gain in form.prepare(table.gain))]))
    exact, ours = made
    assert float(((ours - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max()) < 1e-6


@pytest.mark.parametrize("sampler", [Conjugate(3), PiGDM(3)])
def test_a_large_image_is_restored_as_a_small_one(sampler, monkeypatch):
    operator, prior = OPERATORS["gaussian"], smooth_mixture(VPPath(), Epsilon())
    y = operator(prior.sample(2, torch.Generator().manual_seed(1)))
    y, noise = y + 0.1 * normal(*y.shape, seed=2), normal(2, *prior.image_shape)
    exact = sampler.sample(prior, operator, y, noise, noise_std=0.1).image
    monkeypatch.setattr(spectra, "MANY", 0)
    assert isinstance(spectrum_of(operator, 0.1, noise), Smooth)
    assert relative(sampler.sample(prior, operator, y, noise, noise_std=0.1).image, exact) < 1e-6


def test_a_table_does_not_grow_with_the_image():
    tables = [
        Lookup(torch.linspace(0, 1, count, dtype=torch.float64), 0.01, torch.zeros(1)).ready(torch.zeros(NODES).double())
        for count in (2**10, 2**19)
    ]
    assert max(len(table) for table in tables) <= (NODES + 1) * 100


def test_an_operator_of_nothing_sees_nothing():
    lookup = Lookup(torch.zeros(1, 4, 4, dtype=torch.float64), 0.1, torch.zeros(1))
    assert torch.equal(lookup(lookup.ready(torch.arange(NODES).double())), torch.zeros(1, 4, 4))
