"""A run's numbers and grid, read back from TensorBoard's event file."""

import json
import sys

import pytest
import yaml

from tests import processes
from tests.commands.conftest import config


@pytest.mark.slow
def test_tensorboard_holds_the_means_and_the_grid(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config("Conjugate", steps=2)))
    logger = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "board"]
    command = [sys.executable, "-m", "cclight", "predict", "--config", "mine.yaml", *logger]
    result = processes.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (file,) = (tmp_path / "board").rglob("events.out.tfevents.*")
    events = event_accumulator.EventAccumulator(str(file)).Reload()
    metrics = json.loads((tmp_path / "runs" / "mine" / "metrics.json").read_text())["metrics"]
    assert events.Scalars("psnr")[0].value == pytest.approx(metrics["psnr"]["mean"], rel=1e-5)
    assert len(events.Scalars("image/psnr")) == 4
    assert len(events.Images("grid")) == 1
