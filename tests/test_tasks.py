"""Every sampler on every task that it can take, from YAML with the embedded prior; every other pair is refused in one line.

The table of what works with what in the README is this one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import cclight
from cclight.commands.predict import PredictCLI
from cclight.samplers.base import Sampler

FAST = {"steps": 2}
SAMPLERS: dict[str, dict] = {
    "Conjugate": FAST,
    "ConjugateHeun": FAST,
    "ConjugateMoments": FAST,
    "ConjugateTilt": FAST,
    "PiGDM": FAST,
    "DPS": FAST,
    "DDRM": FAST,
    "DiffPIR": FAST,
    "REDDiff": FAST,
    "OTODE": FAST,
    "PnPFlow": FAST,
}
TASKS: dict[str, dict] = {
    "BicubicDownsampling": {"factor": 4},
    "AveragePooling": {"factor": 4},
    "GaussianBlur": {"sigma": 1.0, "width": 7},
    "UniformBlur": {"width": 3},
    "Inpainting": {"mask": {"class_path": "Box", "init_args": {"size": 12}}},
    "Colorization": {},
    "Denoising": {},
    "MotionBlur": {},
    "JPEG": {"quality": 20},
    "Quantization": {"bits": 3},
    "HDR": {},
    "PhaseRetrieval": {},
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / "one.png")
    return folder


def run(photographs: Path, folder: Path, sampler: str, task: str) -> dict:
    flow = sampler in ("OTODE", "PnPFlow")
    path = {"class_path": "OTPath" if flow else "VPPath"}
    parameterization = {"class_path": "Velocity" if flow else "Epsilon"}
    config = {
        "operator": {"class_path": task, "init_args": TASKS[task]},
        "model": {
            "prior": {"class_path": "SmallPrior", "init_args": {"path": path, "parameterization": parameterization}},
            "sampler": {"class_path": sampler, "init_args": SAMPLERS[sampler]},
        },
        "data": {"source": {"class_path": "ImageFolder", "init_args": {"path": str(photographs)}}, "image_size": 32},
        "metrics": {"per_image": []},
        "images": {"grid": 0},
        "run": {"root": str(folder)},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(config))
    PredictCLI.launch(["--config", str(file)])
    return json.loads((folder / "task" / "metrics.json").read_text())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_pair_that_makes_sense_runs(sampler, task, photographs, tmp_path):
    least = getattr(cclight, sampler).requires
    if not issubclass(getattr(cclight, task), least):
        with pytest.raises(TypeError, match=f"{sampler} needs a {least.__name__}"):
            run(photographs, tmp_path, sampler, task)
        return
    results = run(photographs, tmp_path, sampler, task)
    assert not results["failed"]
    # PnP-Flow averages over five draws a step; Heun corrects all steps but the last.
    assert results["metrics"]["nfe"]["mean"] == {"PnPFlow": 10, "ConjugateHeun": 3}.get(sampler, 2)


def test_every_sampler_is_tried():
    known = {n for n in cclight.__all__ if isinstance(v := getattr(cclight, n), type) and issubclass(v, Sampler)} - {"Sampler"}
    assert known == set(SAMPLERS)
    assert torch.get_num_threads() == 1
