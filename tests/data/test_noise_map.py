"""σ_y from a file: what is read and refused, the noise that it draws, and a whole run with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cclight import Denoising, ImageFolder, RestorationDataModule
from cclight.cli import main
from cclight.data.fitting import fit
from cclight.data.noise_map import noise_std_of
from cclight.runs.results import read_config, read_records
from tests.data.test_arrays import write
from tests.data.test_datamodule import batches
from tests.data.test_fitting import PRIOR, photograph
from tests.test_cli import folder as folder


@pytest.fixture
def ramp(folder):
    """Noise that grows to the right, for images of 32 × 32."""
    std = np.linspace(0.05, 0.8, 32) * np.ones((32, 1))
    np.save(folder / "sigma.npy", std)
    return torch.from_numpy(std)


def test_numbers_stay_and_maps_are_read(tmp_path):
    np.save(tmp_path / "map.npy", np.full((3, 4), 0.1, dtype=np.float32))
    assert noise_std_of(0.05) == 0.05
    assert torch.equal(noise_std_of(str(tmp_path / "map.npy")), torch.full((3, 4), np.float32(0.1), dtype=torch.float64))


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".mat", ".h5", ".safetensors"])
def test_maps_come_from_every_array_file(tmp_path, suffix):
    std = np.random.default_rng(0).uniform(0.1, 0.2, (3, 4))
    for names in (["anything"], ["noise_std", "other"]):
        file = write(tmp_path / f"map{suffix}", **dict.fromkeys(names, std))
        np.testing.assert_array_equal(noise_std_of(str(file)).numpy(), std)
    file = write(tmp_path / f"two{suffix}", a=std, b=std)
    with pytest.raises(ValueError, match=r"holds 2 arrays \(it holds a, b\): give a file of one"):
        noise_std_of(str(file))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (np.zeros((2, 2)), "4 of 4 numbers are no standard deviations: give an array file"),
        (np.array([0.1, np.nan, np.inf]), "2 of 3 numbers"),
        (np.array([0.1, -0.1]), "1 of 2 numbers"),
        (np.zeros(0), "0 of 0 numbers"),
        (np.array([0.1j]), "map.npy holds complex128"),
        (np.array([{}], dtype=object), r"map.npy cannot be read \(it holds Python objects, which are never unpickled"),
        (b"not an array", "cannot be read"),
        (None, "is neither a number nor a file: give a number >= 0, or an array file"),
    ],
)
def test_what_is_no_map_is_refused_in_one_line(tmp_path, content, line):
    path = tmp_path / "map.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises((ValueError, FileNotFoundError), match=line) as told:
        noise_std_of(str(path))
    assert "\n" not in str(told.value)


def test_the_noise_is_as_strong_as_the_map_says(folder, ramp):
    source = ImageFolder(
        str(folder / "photos"),
    )
    made = {}
    for noise in (str(folder / "sigma.npy"), 1.0):
        with pytest.warns(UserWarning, match="broken"):
            (batch, *_) = batches(RestorationDataModule(source, Denoising(), noise, image_size=32, batch_size=3))
        made[noise] = batch.measurement - batch.clean
    weighted, whole = made.values()
    torch.testing.assert_close(weighted, whole * ramp.float(), rtol=1e-5, atol=1e-5)


def test_a_map_of_another_shape_is_refused_before_any_call(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    np.save("sigma.npy", np.ones((16, 16)))
    assert main(["predict", "--config", "mine.yaml", "--trainer.accelerator", "cpu", "--noise_std", "sigma.npy"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "noise_std has the shape (16, 16), which does not broadcast to y's" in told


def test_a_picture_on_a_canvas_takes_its_map_along():
    y = photograph(37, 29)
    std = torch.linspace(0.05, 0.4, 29, dtype=torch.float64).expand(37, 29)
    fitted = fit(Denoising(), y, PRIOR, std)
    assert fitted.y.shape[-2:] != y.shape[-2:]
    canvas = fitted._on_canvas(std)
    assert canvas.shape == (1, *fitted.y.shape[1:])
    assert torch.equal(canvas[(0, 0, *fitted.inside)], std)
    assert (canvas[..., -1] == std.max()).all()


def test_a_run_with_a_map(folder, ramp, capsys, monkeypatch):
    """From the command line: recorded as its path, told in the table, and refused where there is no such file."""
    monkeypatch.chdir(folder)
    options = ["--trainer.accelerator", "cpu", "--operator", "Denoising", "--metrics.per_image", "[PSNR]"]
    assert main(["predict", "--config", "mine.yaml", *options, "--noise_std", "sigma.npy", "--run.name", "map"]) == 0
    run = next(folder.rglob("metrics.json")).parent
    assert read_config(run)["noise_std"] == "sigma.npy"
    assert len(read_records(run)) == 3
    capsys.readouterr()
    assert main(["table", str(run)]) == 0
    assert "sigma.npy" in capsys.readouterr().out
    assert main(["predict", "--config", "mine.yaml", *options, "--noise_std", "nowhere.npy"]) == 1
    assert "noise_std nowhere.npy is neither a number nor a file" in capsys.readouterr().err
