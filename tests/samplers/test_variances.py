"""S of images whose variance along each direction is known, from what is measured of them."""

from __future__ import annotations

import pytest
import torch

from cclight.samplers.variances import Hats, at, quantiles
from tests.samplers.baselines import normal

N, NOISE = 40_000, 0.1


def told(eigenvalues: torch.Tensor, variance: torch.Tensor, nodes: torch.Tensor, noise_std: float = NOISE, seed: int = 0):
    """S at the eigenvalues, of one image of these variances."""
    measured = (eigenvalues * variance + noise_std**2).sqrt() * normal(1, N, seed=seed)
    hats = Hats(nodes, noise_std, eigenvalues)
    places = hats.places(eigenvalues[None])
    sums = [hats.sums(places, values) for values in (measured**2, torch.ones(1, N).double(), eigenvalues[None])]
    return at(places, hats.variances(*sums))[0]


def test_a_power_law_is_found_where_it_stands_out_of_the_noise():
    s = torch.linspace(1e-3, 1, N, dtype=torch.float64)
    variance = 0.5 * s**3  # as of images and blurs: least where least is seen
    found = told(s**2, variance, quantiles(s, N) ** 2)
    clear = s**2 * variance > NOISE**2 / 2
    assert 0.2 < clear.double().mean() < 0.9
    assert ((found / variance)[clear].log().abs() < 0.35).all()
    assert ((found / variance)[clear].log().mean()).abs() < 0.05


def test_it_never_grows_toward_what_is_seen_less():
    s = torch.linspace(1e-3, 1, N, dtype=torch.float64)
    for variance in (0.5 * s**3, torch.full_like(s, 0.2), torch.zeros_like(s)):
        found = told(s**2, variance, quantiles(s, N) ** 2)
        assert (found.diff() >= -1e-12).all()
        assert (found >= 0).all()


def test_noise_alone_is_no_image():
    s = torch.linspace(1e-3, 1, N, dtype=torch.float64)
    found = told(s**2, torch.zeros_like(s), quantiles(s, N) ** 2)
    assert (found * s**2).max() < 0.2 * NOISE**2  # a hundredth of it would be chance for all directions in one


def test_few_directions_share_what_is_learned():
    """Nodes at every tenth of the directions that are enough: still no less than those in an estimate."""
    s = torch.linspace(0.5, 1, N, dtype=torch.float64)
    fine, coarse = s[::25], quantiles(s, N)
    spread = [float(told(s**2, torch.full_like(s, 0.2), nodes**2).std()) for nodes in (fine, coarse)]
    assert spread[0] < 2 * spread[1]


@pytest.mark.parametrize("values", [torch.ones(7), torch.tensor([1.0]), torch.tensor([0.0, 0.5, 0.5, 0.0])])
def test_equal_values_are_one_node(values):
    nodes = quantiles(values.double(), len(values))
    hats = Hats(nodes, 0.1, nodes)
    before, share = hats.places(nodes[None] ** 2 * 1e3)
    assert len(hats.nodes) == 2
    assert (before == 0).all()
    assert (share == 0).all()


def test_quantiles_hold_as_many_of_the_values_each():
    values = normal(300_000).abs().clamp_min(1e-3)
    nodes = quantiles(values, len(values))
    counts = torch.histogram(values, nodes.unique())[0]
    assert len(nodes) < 300
    assert counts.min() > 0.8 * counts.mean()
    assert nodes[0] < values.quantile(0.001)


def test_few_directions_are_not_all_one():
    """A strong blur of a small picture leaves a thousand: coarse structure must not speak for the rest."""
    s = torch.linspace(1e-3, 1, 1200, dtype=torch.float64)
    assert 15 < len(quantiles(torch.cat([s, s.new_zeros(11_000)]), 12_200)) < 80
    assert len(quantiles(torch.cat([s, s.new_zeros(11_000)]), 3 * 12_200)) > 50  # as many for each of three channels
