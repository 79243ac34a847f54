"""The configurations for a first run: each restores the bundled photographs, here small and few."""

from __future__ import annotations

import json

import pytest

from cclight.commands.predict import PredictCLI
from cclight.configs import packaged_configs, with_packaged_configs

TASKS = sorted(path.stem for path in packaged_configs().glob("*.yaml") if not path.stem.startswith("fit"))


def test_the_tasks_of_the_paper_are_there():
    assert {"sr", "inpaint", "deblur", "colorize"} <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_each_runs_as_it_stands(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(packaged_configs() / f"{task}.yaml")
    side = {"ct": "128"}.get(task, "160")
    quick = ["--data.image_size", side, "--data.limit", "1", "--metrics.per_image", "[PSNR]", "--trainer.accelerator", "cpu"]
    PredictCLI.launch(["--config", config, *quick])
    metrics = json.loads((tmp_path / "runs" / task / "metrics.json").read_text())["metrics"]
    assert metrics["psnr"]["mean"] > 15
    assert metrics["nfe"]["mean"] == 5


@pytest.mark.parametrize("task", ["sr", "mri"])
def test_samples_on_top_of_a_task(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = ["--config", f"{task}.yaml", "--config", "samplers/posterior.yaml"]
    quick = ["--samples", "2", "--data.image_size", "64", "--data.limit", "1", "--metrics.per_image", "[PSNR]"]
    PredictCLI.launch([*with_packaged_configs(configs), *quick, "--trainer.accelerator", "cpu"])
    results = json.loads((tmp_path / "runs" / task / "metrics.json").read_text())
    assert results["samples"] == 2
    assert results["metrics"]["spread_error"]["mean"] > 0.1
