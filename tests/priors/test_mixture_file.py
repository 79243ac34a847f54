"""cclight/priors/mixture_file.py: a mixture from each format of file equals the one of tensors; wrong files get one line."""

import numpy as np
import pytest
import torch

from cclight import GaussianMixture
from tests.data.test_arrays import write

PARTS = {
    "means": np.random.default_rng(0).normal(size=(2, 1, 4, 3)),
    "covariances": np.random.default_rng(1).uniform(0.1, 0.5, (2, 1, 4, 3)),
    "weights": np.array([0.3, 0.7]),
    "classes": np.array([1, 0]),
}


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".mat", ".h5", ".safetensors"])
def test_a_file_holds_what_tensors_do(tmp_path, suffix):
    file = tmp_path / f"mixture{suffix}"
    tensors = {name: torch.from_numpy(array) for name, array in PARTS.items()}
    write(file, **PARTS)
    read, given = GaussianMixture(str(file)), GaussianMixture(**tensors)
    assert read.image_shape == (1, 4, 3)
    assert read.labels == 2
    x, t = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0.3, 0.6])
    assert torch.equal(read(x, t, torch.tensor([0, -1])), given(x, t, torch.tensor([0, -1])))
    # What is given beside the file counts.
    other = GaussianMixture(str(file), weights=[0.5, 0.5], covariances=[0.2, 0.3])
    same = GaussianMixture(tensors["means"], torch.tensor([0.2, 0.3]), classes=tensors["classes"])
    torch.testing.assert_close(other(x, t), same(x, t))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.ones((2, 4))}, r"m.npz holds no means \(it holds image\): give an array file"),
        ({"means": np.ones((2, 1, 4))}, r"GaussianMixture has no covariances: give"),
        (
            {"means": np.full((2, 1, 4), np.nan), "covariances": np.ones(2)},
            r"means of the mixture .*m.npz hold what is no finite",
        ),
        ({"means": np.ones((2, 1, 4)), "covariances": np.ones(3)}, r"covariances of 2 components on 4 numbers are"),
    ],
)
def test_files_that_hold_no_mixture_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        GaussianMixture(str(tmp_path / "m.npz"))


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mixture .*none.npz: give an array file"):
        GaussianMixture(str(tmp_path / "none.npz"))
    (tmp_path / "m.txt").write_text("means")
    with pytest.raises(ValueError, match=r"m.txt is no array file"):
        GaussianMixture(str(tmp_path / "m.txt"))
