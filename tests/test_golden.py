"""tests/golden is the larger set cut down, not a number changed."""

import numpy as np
import pytest

from tests.conftest import SHARED, SMALL
from tests.samplers.golden import load, noise_bank

FILES = sorted(path.relative_to(SMALL).as_posix() for path in SMALL.rglob("*.npz"))


@pytest.fixture
def larger():
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs the larger set beside the repository (shared/golden)")
    return SHARED / "golden"


def test_it_is_small():
    assert len(FILES) > 30
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) < 400_000


@pytest.mark.parametrize("file", FILES)
def test_its_numbers_are_those_of_the_larger_set(file, larger):
    small, large = load(SMALL / file), load(larger / file)
    for key, values in small.items():
        assert np.array_equal(values, large[key][: len(values)] if values.ndim else large[key]), key


def test_the_noise_is_that_of_its_seed(larger):
    assert np.array_equal(noise_bank().numpy(), load(larger / "samplers" / "noise_bank.npz")["bank"])
