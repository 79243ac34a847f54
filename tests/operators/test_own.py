"""Masks, maps and kernels that images bring along reach their operators, on one process and on two."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cclight import CircularBlur, FourierSampling, Inpainting, MotionBlur, MultiCoil, OwnKernel, OwnMask
from tests.processes import run
from tests.samplers.baselines import normal

MASK = torch.eye(8)
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.7, 0.3], [0.0, 0.2, 0.1]])
MAPS = torch.complex(normal(2, 8, 8), normal(2, 8, 8, seed=1))
CASES = {
    "Inpainting": (Inpainting(OwnMask()), Inpainting(MASK), 3),
    "FourierSampling": (FourierSampling(OwnMask(), complex_images=True), FourierSampling(MASK, complex_images=True), 2),
    "MultiCoil": (MultiCoil(None, OwnMask()), MultiCoil(MAPS, MASK), 2),
    "CircularBlur": (CircularBlur(OwnKernel()), CircularBlur(KERNEL), 3),
    "MotionBlur": (MotionBlur(OwnKernel()), MotionBlur(KERNEL), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_of_each_image_is_the_one_made_of_its_arrays(name):
    own, given, channels = CASES[name]
    assert own.per_image
    own.check_images((channels, 8, 8))  # nothing is known yet
    made = own.of("one", {"mask": MASK, "kernel": KERNEL, "maps": MAPS})
    assert not made.per_image
    x = normal(2, channels, 8, 8)
    torch.testing.assert_close(made(x), given(x))
    with pytest.raises(ValueError, match=r"Each image has .* of its own"):
        own(x)
    with pytest.raises(ValueError, match=r"one has no array \w+ for its operator, it brings other"):
        own.of("one", {"other": MASK})
    with pytest.raises(ValueError, match="it brings none: take a source of array files, and name it in"):
        own.of("one")


PICTURES = """
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np
import torch
from cclight import ImageFolder

def with_mask(load, path):
    return replace(load(), parameters={"mask": torch.from_numpy(np.load(path))})

class Masked(ImageFolder):
    def __iter__(self):
        for entry in super().__iter__():
            yield replace(entry, load=partial(with_mask, entry.load, Path(entry.place).with_suffix(".npy")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_predict_gives_each_image_its_mask_and_resumes(ranks, tmp_path):
    (tmp_path / "masked_pictures.py").write_text(PICTURES)
    (tmp_path / "in").mkdir()
    for k in range(5):
        picture = np.random.default_rng(k).integers(1, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "in" / f"{k}.png")
        mask = np.ones((16, 16))
        mask[: k + 2, : k + 2] = 0
        if k == 3:
            mask = mask[1:]  # which fits no picture
        np.save(tmp_path / "in" / f"{k}.npy", mask)
    config = {
        "operator": {"class_path": "Inpainting", "init_args": {"mask": {"class_path": "OwnMask"}}},
        "model": {"prior": {"class_path": "SmallPrior"}, "sampler": {"class_path": "DDRM", "init_args": {"steps": 2}}},
        "data": {
            "source": {"class_path": "masked_pictures.Masked", "init_args": {"path": "in"}},
            "image_size": 16,
            "batch_size": 4,
        },
        "metrics": {"per_image": []},
        "images": {"grid": 0},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "cclight", "predict", "--config", "own.yaml"]
    if ranks == 2:
        command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = run(command, tmp_path, ranks=ranks)
    assert done.returncode in (0, 1), done.stderr
    assert "3 (number 3)" in done.stderr
    assert "1×15×16" in done.stderr
    folder = tmp_path / "runs" / "own"
    for k in (0, 1, 2, 4):
        measured = np.array(Image.open(next((folder / "measurement").glob(f"0000{k}_*.png"))))
        grey = (measured == 128).all(axis=2) | (measured == 127).all(axis=2)
        assert grey[: k + 2, : k + 2].all()
        assert grey.sum() == pytest.approx((k + 2) ** 2, abs=1)
    next((folder / "restored").glob("00002_*.png")).unlink()
    for record in (folder / "records").glob("*"):
        kept = [line for line in record.read_text().splitlines() if json.loads(line).get("index") != 2]
        record.write_text("".join(f"{line}\n" for line in kept))
    again = run([*command, "--run.resume", "true"], tmp_path, ranks=ranks)
    assert next((folder / "restored").glob("00002_*.png")).is_file(), again.stderr
