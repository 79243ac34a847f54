"""A label per image travels from `sample` to the prior, and is checked before the first call."""

import pytest
import torch

import cclight
from cclight import AveragePooling, GaussianMixture, Guided
from tests.test_tasks import SAMPLERS

CHECKER = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None].double()  # what the operator cannot see
MEANS = torch.stack([0.5 * CHECKER, -0.5 * CHECKER])


def prior():
    return GaussianMixture(MEANS, torch.full((2,), 0.04).double(), classes=torch.tensor([0, 1]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_image_is_restored_towards_its_own_label(name):
    sampler, operator = getattr(cclight, name)(**SAMPLERS[name]), AveragePooling(2)
    y, noise = torch.zeros(2, 1, 2, 2).double(), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    both = sampler.sample(prior(), operator, y, noise, label=torch.tensor([1, 0])).image
    one = sampler.sample(prior(), operator, y, noise, label=torch.tensor([1, 1])).image
    none = sampler.sample(prior(), operator, y, noise).image
    torch.testing.assert_close(both[:1], one[:1])
    assert not torch.allclose(both[1], one[1])
    torch.testing.assert_close(sampler.sample(prior(), operator, y, noise, label=torch.tensor([-1, -1])).image, none)
    guided = sampler.sample(Guided(prior(), 1.0), operator, y, noise, label=torch.tensor([1, 0]))
    torch.testing.assert_close(guided.image, both)


def test_wrong_labels_are_one_line_before_any_call():
    operator, y, noise = AveragePooling(2), torch.zeros(2, 1, 2, 2).double(), torch.zeros(2, 1, 4, 4).double()
    for label, line in ((torch.tensor([0, 2]), "knows the labels"), (torch.tensor([0]), "1 labels for 2 images")):
        with pytest.raises(ValueError, match=line):
            cclight.Conjugate().sample(prior(), operator, y, noise, label=label)
    with pytest.raises(ValueError, match="takes no labels"):
        cclight.Conjugate().sample(GaussianMixture(MEANS, torch.ones(2)), operator, y, noise, label=torch.tensor([0, 1]))
