"""`cclight predict` on a person's own measurements: a mask for each, depth and grey, what stands where it is unread."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from cclight.commands.predict import PredictCLI
from cclight.configs import packaged_configs
from cclight.errors import UsageError

QUICK = [
    *("--model.sampler.steps", "1", "--metrics.per_image", "[]", "--images.grid", "0", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--data.source", "ImageFolder", "--data.measurements", "true"),
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "pictures").mkdir()

    def launch(*arguments):
        own = ["--data.source.path", str(tmp_path / "pictures"), "--run.root", str(tmp_path), "--run.name", "own"]
        PredictCLI.launch([*arguments, *QUICK, *own])
        return tmp_path / "own" / "restored"

    return launch


def pixels():
    return np.random.default_rng(0).integers(0, 65536, (16, 16, 3), dtype=np.uint16)


def test_sixteen_bits_and_grey_stay_what_they_are(run, tmp_path):
    (tmp_path / "pictures" / "deep.png").write_bytes(imagecodecs.png_encode(pixels()))
    grey = (pixels()[..., :1] // 257).astype(np.uint8).repeat(3, axis=2)
    Image.fromarray(grey).save(tmp_path / "pictures" / "grey.png")
    restored = run("--config", str(packaged_configs() / "sr.yaml"))
    assert imagecodecs.png_decode((restored / "00000_deep.png").read_bytes()).dtype == np.uint16
    assert Image.open(restored / "00001_grey.png").mode == "L"


def test_each_picture_has_the_mask_of_its_name(run, tmp_path):
    (tmp_path / "masks").mkdir()
    for name, hole in (("a", slice(0, 4)), ("b b", slice(8, 12)), ("none", None)):
        picture = (pixels() // 257).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{name}.png")
        if hole is not None:
            mask = np.full((16, 16), 255, np.uint8)
            mask[hole] = 0
            Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.tif")
    masks = ("--operator.mask", "MaskFolder", "--operator.mask.path", str(tmp_path / "masks"))
    with pytest.warns(UserWarning, match=r"\w") as told:
        restored = run("--config", str(packaged_configs() / "inpaint.yaml"), *masks)
    text = " ".join(str(warning.message) for warning in told)
    assert "leaves 25 % to fill in" in text
    assert "There is no mask for none" in text
    given = (pixels() // 257).astype(int)
    for name, hole in (("00000_a", slice(0, 4)), ("00001_b_b", slice(8, 12))):
        off = np.abs(np.asarray(Image.open(restored / f"{name}.png")).astype(int) - given).max(axis=(1, 2))
        assert off[hole].max() > 1
        assert np.delete(off, np.r_[hole]).max() <= 1
    assert len(list(restored.iterdir())) == 2


def test_an_operator_inside_the_model_is_not_passed_over(run, tmp_path):
    config = tmp_path / "inside.yaml"
    config.write_text("operator: {class_path: Denoising}\nmodel: {operator: {class_path: GaussianBlur}}\n")
    with pytest.raises(UsageError, match=r"model.operator is given, and the operator stands at the top"):
        run("--config", str(packaged_configs() / "sr.yaml"), "--config", str(config))


@pytest.mark.parametrize("part", ["model", "data"])
@pytest.mark.parametrize("key", ["operator", "operator.width", "noise_std", "samples"])
@pytest.mark.parametrize("join", ["=", " "])
def test_an_option_of_what_stands_at_the_top_is_told_its_place(run, part, key, join):
    words = f"--{part}.{key}{join}3".split(" ")
    with pytest.raises(UsageError, match=rf"there is no option --{part}\.{key}: write --{key}, which"):
        run("--config", str(packaged_configs() / "sr.yaml"), *words)
