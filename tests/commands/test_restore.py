"""`cclight restore`: a person's one picture, as the command itself is called."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import processes

WEIGHTS = Path(__file__).parents[1] / "assets" / "tiny.safetensors"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder with a small coloured PNG of an odd size, a grey one, a JPEG and a mask."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((19, 13), Image.Resampling.BICUBIC)
    colour.save(tmp_path / "small.png")
    colour.convert("L").save(tmp_path / "grey.png")
    colour.resize((40, 24)).save(tmp_path / "photo.jpg", quality=23)
    mask = np.full((13, 19), 255, dtype=np.uint8)
    mask[4:9, 5:12] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def restore(folder, *arguments):
    command = [sys.executable, "-m", "cclight", "restore", *arguments, "--prior", str(WEIGHTS), "--steps", "2"]
    return processes.run(command, cwd=folder)


def test_a_picture_becomes_four_times_larger_beside_itself(pictures):
    result = restore(pictures, "small.png", "--task", "sr")
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / "small_sr.png").size == (76, 52)
    (line,) = result.stdout.splitlines()
    assert "small.png 19×13 -> small_sr.png 76×52: Conjugate, 2 network calls" in line
    before = (pictures / "small_sr.png").read_bytes()
    again = restore(pictures, "small.png", "--task", "sr")
    assert again.returncode == 1
    assert "--overwrite replaces it" in again.stderr
    assert (pictures / "small_sr.png").read_bytes() == before
    assert restore(pictures, "small.png", "--task", "sr", "--overwrite").returncode == 0
    assert (pictures / "small_sr.png").read_bytes() == before  # the same seed, the same picture


def test_the_other_tasks(pictures):
    """Each leaves a picture of the input's size; what a mask keeps stays as it is; a grey picture gets channels."""
    for arguments in (["small.png", "--task", "deblur", "--sigma", "1"], ["photo.jpg", "--task", "jpeg"]):
        result = restore(pictures, *arguments)
        assert result.returncode == 0, result.stderr
    result = restore(pictures, "small.png", "--task", "inpaint", "--mask", "mask.png")
    assert result.returncode == 0, result.stderr
    restored, given = (np.asarray(Image.open(pictures / name)).astype(int) for name in ("small_inpaint.png", "small.png"))
    kept = np.asarray(Image.open(pictures / "mask.png")) == 255
    assert np.abs(restored - given)[kept].max() == 0
    result = restore(pictures, "grey.png", "--task", "colorize")
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / "grey_colorize.png").mode == "RGB"
    assert Image.open(pictures / "photo_jpeg.png").size == (40, 24)


def test_tiles_give_nearly_the_same_picture(pictures):
    """In tiles of 32 pixels: what the tiny prior sees across their borders is all that is missing."""
    for name, tile in (("whole.png", []), ("tiled.png", ["--tile", "32"])):
        result = restore(pictures, "photo.jpg", "--task", "sr", "--output", name, *tile)
        assert result.returncode == 0, result.stderr
    whole, tiled = (np.asarray(Image.open(pictures / name)).astype(int) for name in ("whole.png", "tiled.png"))
    assert whole.shape == tiled.shape == (96, 160, 3)
    assert 0 < np.abs(whole - tiled).mean() < 4


def test_a_folder_goes_on_past_what_cannot_be_read(pictures):
    folder = pictures / "album"
    folder.mkdir()
    (folder / "broken.png").write_bytes((pictures / "small.png").read_bytes()[:60])
    (pictures / "small.png").rename(folder / "small.png")
    result = restore(pictures, "album", "--task", "sr", "--output", "out")
    assert result.returncode == 1
    assert [path.name for path in (pictures / "out").iterdir()] == ["small_sr.png"]
    assert "broken.png" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.png", "--task", "sr"], "there is no picture missing.png"),
        (["small.png", "--task", "jpeg"], "--quality"),
        (["small.png", "--task", "inpaint"], "--mask"),
        (["small.png", "--task", "sr", "--sigma", "2"], "sigma"),
    ],
)
def test_a_mistake_is_one_line(pictures, arguments, words):
    result = restore(pictures, *arguments)
    assert result.returncode != 0
    assert words in result.stderr
    assert "Traceback" not in result.stderr
