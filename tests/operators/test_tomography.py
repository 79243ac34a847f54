"""Tomography against integrals known in closed form, scikit-image's Radon transform and dense matrices."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from cclight import ConjugateMoments, Tomography, VPPath
from cclight.operators.check import check_operator
from tests.samplers.baselines import normal, small_mixture


@pytest.mark.parametrize("sides", [(6, 6), (5, 8)])
def test_the_adjoint_and_the_pseudoinverse_are_those_of_the_dense_matrix(sides, dense):
    operator = Tomography(sides, [0.0, 33.0, 45.0, 90.0, 120.0], tolerance=1e-12)
    h = dense(operator, (1, *sides))
    y = normal(2, 1, 5, operator.detectors)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ h)
    y = operator(normal(2, 1, *sides))
    expected = y.flatten(1) @ torch.linalg.pinv(h, rtol=1e-9).T
    torch.testing.assert_close(operator.pinv(y).flatten(1), expected, atol=1e-6, rtol=1e-6)


def test_upright_rays_add_up_columns_and_level_ones_rows():
    operator = Tomography(7, [0.0, 90.0])
    x = normal(1, 2, 7, 7)
    y = operator(x) * math.sqrt(2 * 7)
    assert operator.detectors == 10  # the pixels' centres lie between the middles of cells
    columns, rows = x.sum(2), x.sum(3).flip(2)  # d goes right at 0° and up at 90°
    for sums, row in ((columns, y[:, :, 0]), (rows, y[:, :, 1])):
        padded = torch.nn.functional.pad(sums, (2, 2))
        torch.testing.assert_close(row, (padded[..., :-1] + padded[..., 1:]) / 2)


def test_a_disc_casts_the_shadow_of_its_chords():
    side, radius = 65, 20.0
    place = torch.arange(side, dtype=torch.float64) - 32
    down, right = place[:, None] + 5, place - 7  # its centre lies 7 right and 5 up
    disc = ((down**2 + right**2).sqrt() < radius).double()[None, None]
    operator = Tomography(side, 12)
    y = operator(disc) * math.sqrt(12 * side)
    angles = torch.deg2rad(torch.tensor(operator.angles, dtype=torch.float64))[:, None]
    d = torch.arange(operator.detectors, dtype=torch.float64) - (operator.detectors - 1) / 2
    chord = 2 * (radius**2 - (d - 7 * angles.cos() - 5 * angles.sin()) ** 2).clamp_min(0).sqrt()
    assert float((y[0, 0] - chord).abs().mean()) < 0.5
    assert float((y[0, 0] - chord).norm() / chord.norm()) < 0.03


def test_it_agrees_with_scikit_image():
    from skimage.data import shepp_logan_phantom
    from skimage.transform import radon, resize

    side = 64  # even, whose rotation centre there is half a pixel off
    x = resize(shepp_logan_phantom(), (side, side), anti_aliasing=True)
    operator = Tomography(side, 8)
    ours = operator(torch.from_numpy(x)[None, None])[0, 0].numpy() * math.sqrt(8 * side)
    theirs = radon(x, operator.angles, circle=False).T
    cells = np.arange(ours.shape[1]) - (ours.shape[1] - 1) / 2
    for k, degrees in enumerate(operator.angles):
        off = 0.5 * (math.cos(math.radians(degrees)) - math.sin(math.radians(degrees)))
        places = np.arange(theirs.shape[1]) - theirs.shape[1] // 2
        moved = min(np.linalg.norm(np.interp(cells + sign * off, places, theirs[k]) - ours[k]) for sign in (-1, 1))
        assert moved < 0.04 * np.linalg.norm(ours[k]), degrees


def test_its_largest_singular_value_is_about_one():
    operator, x = Tomography(32, 30), torch.ones(1, 1, 32, 32, dtype=torch.float64)
    for _ in range(20):
        x = operator.adjoint(operator(x / x.norm()))
    assert 0.8 < float(x.norm().sqrt()) < 1.2


def test_it_keeps_its_promises_and_travels():
    operator = Tomography(32, 20)
    assert not [check for check in check_operator(operator, (1, 32, 32)) if not check.passed]
    x = normal(1, 1, 32, 32)
    for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert torch.equal(other(x), operator(x))
    assert operator.double()(x).dtype == torch.float64
    half = operator(x.half())
    assert half.dtype == torch.float16


def test_samplers_take_it_with_noise():
    prior, operator = small_mixture(VPPath()), Tomography(4, 3)
    y = operator(prior.sample(2, torch.Generator().manual_seed(0))) + 0.05 * normal(2, 1, 3, operator.detectors)
    restored = ConjugateMoments(5).sample(prior, operator, y, normal(2, 1, 4, 4), noise_std=0.05)
    assert restored.image.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "at least one pixel"),
        ((8, []), "at least one angle"),
        ((8, 0), "at least one angle"),
        ((8192, 60), "fewer angles"),
    ],
)
def test_what_cannot_be_is_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        Tomography(*arguments)
    with pytest.raises(ValueError, match=r"made for images of 8×8, got 8×9: set its side"):
        Tomography(8).check_images((1, 8, 9))
