"""The settings that the README shows, from Python."""

import pytest
import torch

import cclight
from cclight.errors import UsageError


@pytest.mark.parametrize("name", ["sr", "deblur", "inpaint", "colorize", "jpeg"])
def test_a_recipe_is_what_the_configuration_says(name):
    operator, prior, sampler, noise_std = cclight.recipe(name)
    assert isinstance(operator, cclight.Operator)
    assert isinstance(prior, cclight.SmallPrior)
    assert sampler.steps == 5
    assert noise_std >= 0


def test_it_restores_without_another_word():
    operator, prior, sampler, noise_std = cclight.recipe("sr")
    y = operator(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    restoration = sampler.sample(prior, operator, y, noise_std=noise_std)
    assert restoration.image.shape == (1, 3, 32, 32)
    assert restoration.nfe == 5


def test_what_is_no_recipe_is_told():
    with pytest.raises(UsageError, match="did you mean"):
        cclight.recipe("srr")
    with pytest.raises(ValueError, match="names no operator"):
        cclight.recipe("paper/nfe_5")
