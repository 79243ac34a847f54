"""cclight/priors/base.py: what every prior says of images and labels."""

from __future__ import annotations

import pytest
import torch

from cclight import Epsilon, Prior, Retimed, Tiled, VPPath
from cclight.paths.parameterization import Sample
from cclight.priors.base import one_hot, per_image


class Shrinks(Prior):
    """x̂_0 is half the input, plus the label where there is one."""

    labels = 3

    def __init__(self):
        super().__init__(VPPath(), Sample())

    def forward(self, x_t, t, label=None):
        return x_t / 2 if label is None else x_t / 2 + per_image(label.to(x_t), x_t)


class Unlabelled(Prior):
    def __init__(self):
        super().__init__(VPPath(), Epsilon())

    def forward(self, x_t, t):
        return x_t


@pytest.mark.parametrize("shape", [(2, 1, 7), (2, 3, 4, 4), (2, 1, 3, 4, 5)])
def test_images_have_any_number_of_dimensions(shape):
    x, t = torch.ones(shape), torch.tensor([0.2, 0.9])
    estimate = Unlabelled().denoise(x, t)
    s, o = Epsilon().coefficients(VPPath(), t)
    for place in range(2):
        assert torch.allclose(estimate[place], (s + o)[place] * x[place])


def test_a_label_reaches_the_prior_through_those_that_wrap_it():
    x, t, label = torch.ones(2, 3, 8, 8), torch.full((2,), 0.4), torch.tensor([0, 2])
    prior = Shrinks()
    for wrapped in (Tiled(prior, 4), Retimed(prior, VPPath()), prior):
        assert (wrapped.labels, wrapped.needs_label, wrapped.evaluations) == (3, False, 1)
        without, labelled = wrapped.denoise(x, t), wrapped.denoise(x, t, label)
        assert torch.allclose(labelled - without, per_image(label.float(), x).expand_as(x), atol=1e-5)


def test_volumes_are_checked_by_all_their_sides():
    prior = Unlabelled()
    prior.image_shape, prior.channels = (1, 4, 5, 6), 1
    prior.check_images((1, 4, 5, 6))
    with pytest.raises(ValueError, match=r"takes images of 1×4×5×6 .* got 1×4×5×7"):
        prior.check_images((1, 4, 5, 7))
    prior.image_shape, prior.stride, prior.channels = None, 4, 3
    with pytest.raises(ValueError, match="divisible by 4, got 8×6"):
        prior.check_images((3, 8, 6))


@pytest.mark.parametrize(("sides", "layout"), [(1, "(C, L)"), (2, "(C, H, W)"), (3, "(C, D, H, W)"), (None, "(C, ...)")])
def test_priors_of_any_size_say_how_many_sides_they_see(sides, layout):
    prior = Unlabelled()
    prior.sides = sides
    assert Retimed(prior, VPPath()).layout() == prior.layout() == layout
    for found in (1, 2, 3):
        shape = (3, *[8] * found)
        if sides in (None, found):
            prior.check_images(shape)
        else:
            with pytest.raises(ValueError, match=rf"Unlabelled takes images of {sides} sides, .* got the shape \(3, 8"):
                prior.check_images(shape)
    if sides in (1, 3):
        with pytest.raises(ValueError, match="Tiles are of pictures"):
            Tiled(prior)


@pytest.mark.parametrize(
    ("prior", "label", "line"),
    [
        (Unlabelled(), torch.tensor([0]), r"Unlabelled takes no labels and got \[0\]"),
        (Shrinks(), torch.tensor([0, 3]), r"knows the labels 0 ... 2 \(or -1 for none\), got \[3\]"),
        (Shrinks(), torch.tensor([-2]), r"got \[-2\]"),
        (Shrinks(), torch.tensor([1.0]), "one integer per image"),
        (Shrinks(), torch.tensor([[1]]), "one integer per image"),
    ],
)
def test_labels_that_a_prior_cannot_take_are_refused(prior, label, line):
    with pytest.raises(ValueError, match=line):
        prior.check_label(label)


def test_labels_that_it_can_take_pass():
    Unlabelled().check_label(None)
    Shrinks().check_label(None)
    Shrinks().check_label(torch.tensor([-1, 0, 2]))


def test_a_prior_that_needs_labels_says_so():
    prior = Shrinks()
    prior.needs_label = True
    for label in (None, torch.tensor([0, -1])):
        with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
            prior.check_label(label)


def test_one_hot_rows_are_zero_where_there_is_no_label():
    like = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    rows = one_hot(torch.tensor([1, -1, 0]), 2, like)
    assert rows.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert rows.dtype == torch.float64
    assert one_hot(None, 2, like).tolist() == [[0, 0]] * 3
