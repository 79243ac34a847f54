"""What the tests of several operators share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cclight.operators.base import LinearOperator
from tests.conftest import held


@pytest.fixture(scope="session")
def dense() -> Callable[[LinearOperator, tuple[int, int, int]], Tensor]:
    """The brute-force matrix of an operator, its columns the images of the unit vectors."""

    def matrix(operator: LinearOperator, shape: tuple[int, int, int]) -> Tensor:
        size = shape[0] * shape[1] * shape[2]
        return operator(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1).T

    return matrix


@pytest.fixture(scope="session")
def load(golden: Path) -> Callable[[str], dict[str, Any]]:
    """Golden numbers of one operator, as tensors."""

    def numbers(name: str) -> dict[str, Any]:
        with np.load(held(golden / "operators" / f"{name}__16.npz")) as file:
            return {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}

    return numbers


@pytest.fixture(scope="session")
def distance() -> Callable[[Tensor, Tensor], float]:
    """The relative distance ||ours - theirs|| / ||theirs||, whatever their shapes."""

    def relative(ours: Tensor, theirs: Tensor) -> float:
        ours, theirs = ours.double().flatten(), theirs.double().flatten()
        return float((ours - theirs).norm() / theirs.norm())

    return relative
