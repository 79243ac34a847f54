"""`cclight evaluate`: the numbers of the pictures that lie there, and those of sampling kept."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from cclight.commands.evaluate import main
from cclight.errors import RunError, UsageError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import PSNR
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import read_png
from cclight.runs.results import Run
from tests import processes


class Means(torch.nn.Module):
    """Three features: the mean of each colour."""

    def forward(self, images):
        return images.double().mean((-2, -1)).float()


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
    assert Run.read(run.path).values("psnr") == pytest.approx(dict(enumerate(values)))  # what `compare` and `report` read
    (run.path / "metrics.json").unlink()
    again = RunFolder("run", root=str(run.path.parent))
    again.open("seed: 0")  # resumed: the numbers of sampling are back
    again.close()
    assert [record["psnr"] for record in again.finished().values()] == [99.0] * 3


def test_what_cannot_be_measured_is_said(run):
    """An image without its clean picture, and one that failed: nothing is invented, and the failed one stays so."""
    run.file("clean", 1, "p1").unlink()
    with open(run.path / "records" / "00000.jsonl", "a") as file:
        file.write(json.dumps({"index": 3, "name": "p3", "failed": "the restoration holds NaN or infinity"}) + "\n")
    main([str(run.path), "--metrics.per_image", "[PSNR]"])
    results = json.loads((run.path / "metrics.json").read_text())
    assert "1 clean pictures are not saved" in results["metrics"]["psnr"]["unavailable"]
    assert (results["metrics"]["nfe"]["mean"], results["metrics"]["nfe"]["images"]) == (5, 3)
    assert [record["index"] for record in results["failed"]] == [3]


def test_distances_against_a_folder(run):
    """The network and the reference as on the command line of `cclight predict`; the numbers are FeatureDistances' own."""
    network, reference = f"{__name__}.Means", str(run.path / "clean")
    options = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", network]
    main([str(run.path), "--metrics.per_image", "[PSNR]", *options, "--metrics.distances.reference", reference])
    metrics = json.loads((run.path / "metrics.json").read_text())["metrics"]
    distances = FeatureDistances(Means(), reference)
    distances.prepare(torch.device("cpu"))
    expected, _ = distances.compute([run.file("restored", i, f"p{i}") for i in range(3)], [])
    assert metrics["fid"]["mean"] == pytest.approx(expected.mean)
    assert metrics["fid"]["images"] == 3


def test_a_metric_of_ones_own_lies_in_the_current_folder(run, tmp_path, monkeypatch):
    """As `cclight predict` finds it: a run that measured it is evaluated in the same way."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_evaluated_metric.py").write_text("from cclight import PSNR\n\n\nclass Mine(PSNR):\n    pass\n")
    main([str(run.path), "--metrics.per_image", "[my_evaluated_metric.Mine]"])
    assert json.loads((run.path / "metrics.json").read_text())["metrics"]["psnr"]["images"] == 3


@pytest.mark.slow
def test_the_command_measures_what_the_run_did(runs, tmp_path):
    """Of a real run: its own metrics again, near those before rounding, and a source as reference of FID."""
    shutil.copytree(runs / "conjugate", tmp_path / "run")
    before = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    options = ["--metrics.distances.network", f"{__name__}.Means", "--metrics.distances.reference", "SamplePhotographs"]
    command = [sys.executable, "-m", "cclight", "evaluate", str(tmp_path / "run"), "--metrics.distances", "FeatureDistances"]
    result = processes.run([*command, *options])
    assert result.returncode == 0, result.stderr
    after = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert list(after) == [*before, "fid", "kid"]
    assert after["psnr"]["mean"] == pytest.approx(before["psnr"]["mean"], abs=0.02)
    assert after["consistency"] == before["consistency"]
    assert after["fid"]["mean"] >= 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics.per_image", "[PSRN]"], "did you mean PSNR"),
        (["--metrics.per_image", "PSNR"], r"'\[PSNR, LPIPS\]'"),
        (["--metrics.distances", "FeatureDistances", "--metrics.distances.reference", "absent"], "absent does not exist"),
        (["--metrics.per_image", "[PSNR, PSNR]"], "Two metrics of one name"),
        (["--device", "abacus"], "no device abacus"),
    ],
)
def test_a_mistake_is_named(run, arguments, words):
    with pytest.raises(UsageError, match=words):
        main([str(run.path), *arguments])


def test_a_run_in_use_is_refused(run):
    held = RunFolder("run", root=str(run.path.parent), resume=True)
    held.acquire()
    try:
        with pytest.raises(RunError, match="is in use"):
            main([str(run.path)])
    finally:
        held.close()
