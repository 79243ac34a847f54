"""Weights by the golden folder's recipe: the same numbers wherever they are made."""

import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import held


def weight(key, shape):
    u = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) - 1
    if len(shape) >= 2:
        # In this order: another rounds now and then to the next float16, which shows as 2e-5 in a full-size network's output.
        value = u * (1.7 / torch.Size(shape[1:]).numel() ** 0.5)
    else:
        value = 1 + 0.1 * u if key.endswith("weight") else 0.1 * u
    return value.half()


@pytest.fixture(scope="session")
def networks(golden: Path) -> Path:
    """Weights, inputs and outputs of the original networks."""
    return held(golden / "networks")


@pytest.fixture(scope="session")
def recipe_weights():
    """A function of a network that gives its state_dict by the recipe, in float16 (which the recipe's numbers are exact in)."""

    def fill(network: nn.Module) -> dict[str, torch.Tensor]:
        return {key: weight(key, tuple(value.shape)) for key, value in network.state_dict().items()}

    return fill
