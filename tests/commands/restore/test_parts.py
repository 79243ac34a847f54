"""Parts of a picture: they cover it, their weights add up, they share their noise, and holes bring their neighbourhood."""

import numpy as np
import pytest
import torch

from cclight.commands.restore.parts import CELL, around, noise_at, parts


@pytest.mark.parametrize(("height", "width"), [(40, 50), (200, 130), (129, 400)])
def test_parts_cover_a_picture_and_their_weights_add_up(height, width):
    total = torch.zeros(height, width)
    for part in parts(height, width, 64, 16, grid=16):
        assert part.rows.start % 16 == part.columns.start % 16 == 0
        total[part.rows, part.columns] += part.down[:, None] * part.across
    assert (total > 0).all()


def test_a_small_picture_is_one_part():
    (part,) = parts(64, 40, 64, 16)
    assert (part.rows, part.columns) == (slice(0, 64), slice(0, 40))
    assert (part.down == 1).all()


def test_holes_bring_their_neighbourhood_and_no_more():
    missing = np.zeros((1200, 1600), dtype=bool)
    missing[500:560, 700:760] = True
    missing[0, 0] = True
    missing[1100:1110, 1590:] = True
    found = around(missing, 512, 64)
    seen = np.zeros_like(missing)
    for part in found:
        seen[part.rows, part.columns] = True
    assert len(found) == 3
    assert (seen | ~missing).all()
    assert seen.mean() < 0.08
    (row, column) = next((part.rows, part.columns) for part in found if part.rows.start > 0 and part.columns.stop < 1600)
    assert row.start <= 500 - CELL
    assert row.stop >= 560 + CELL
    assert column.start <= 700 - CELL


def test_a_large_hole_is_made_in_parts_and_scattered_ones_as_a_whole():
    missing = np.zeros((400, 400), dtype=bool)
    missing[50:350, 50:350] = True
    assert len(around(missing, 256, 32)) == 4
    scattered = np.random.default_rng(0).random((400, 400)) < 0.3
    (part,) = around(scattered, 512, 64)
    assert (part.rows, part.columns) == (slice(0, 400), slice(0, 400))


def test_the_noise_of_a_place_is_the_same_in_every_part():
    whole = noise_at(3, 3, -20, -7, 300, 200)
    assert whole.shape == (1, 3, 300, 200)
    assert torch.equal(noise_at(3, 3, 50, 60, 90, 80), whole[..., 70:160, 67:147])
    assert not torch.equal(noise_at(4, 3, -20, -7, 300, 200), whole)
    assert abs(float(whole.std()) - 1) < 0.01
