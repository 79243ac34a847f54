"""`cclight evaluate`: the numbers of the pictures that lie there, and those of sampling kept."""

from __future__ import annotations

import json

import pytest
import torch

from cclight.metrics import PSNR
from cclight.runs import RunError, RunFolder, read_png
from cclight.workbench.evaluate import main


@pytest.fixture
def run(tmp_path):
    folder = RunFolder("run", root=str(tmp_path))
    folder.open("seed: 0")
    g = torch.Generator().manual_seed(0)
    for index, side in enumerate((16, 16, 20)):
        for kind in ("restored", "clean"):
            folder.write_image(kind, index, f"p{index}", torch.rand(3, side, side, generator=g) * 2 - 1)
        folder.append([{"index": index, "name": f"p{index}", "nfe": 5, "seconds": 0.5, "consistency": 0.1, "psnr": 99.0}])
    (folder.path / "metrics.json").write_text("{}")
    folder.close()
    return folder


def test_it_measures_the_saved_pictures_and_keeps_what_sampling_measured(run):
    main([str(run.path)])
    metrics = json.loads((run.path / "metrics.json").read_text())["metrics"]
    values = []
    for index in range(3):
        a, b = (read_png(run.file(k, index, f"p{index}"))[None].float() / 127.5 - 1 for k in ("restored", "clean"))
        values.append(PSNR()(a, b).item())
    assert metrics["psnr"]["mean"] == pytest.approx(sum(values) / 3, abs=1e-6)
    assert (metrics["nfe"]["mean"], metrics["seconds"]["mean"]) == (5, 0.5)
    assert "176 pixels" in metrics["ms_ssim"]["unavailable"]
    assert len((run.path / "metrics.csv").read_text().splitlines()) == 4


def test_a_run_in_use_is_refused(run):
    held = RunFolder("run", root=str(run.path.parent), resume=True)
    held.acquire()
    try:
        with pytest.raises(RunError, match="is in use"):
            main([str(run.path)])
    finally:
        held.close()
