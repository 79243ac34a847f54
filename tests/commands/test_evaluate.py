"""`cclight evaluate`: the numbers of the pictures that lie there, and those of sampling kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from cclight.commands.evaluate import main
from cclight.commands.report.page import main as report
from cclight.errors import RunError, UsageError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import PSNR
from cclight.metrics.quantity import Quantity, Unavailable
from cclight.metrics.summary import per_image_quantities, summarize_records
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import read_png
from cclight.runs.results import Run, write_results
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
    folder.flush()
    found = summarize_records(per_image_quantities([PSNR()]), folder.finished(), {}, 0)
    write_results(folder, folder.samples(), {summary.quantity.name: summary for summary in found})
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


def numbers(run):
    """Everything that evaluate may write."""
    return {path.name: path.read_bytes() for path in [*run.path.glob("metrics.*"), *run.path.glob("records/*.jsonl")]}


@pytest.mark.parametrize("kind", ["clean", "restored"])
def test_a_picture_that_is_gone_costs_no_number(run, kind, tmp_path):
    """Nothing can be measured against it, and nothing that was measured is lost."""
    before = numbers(run)
    (run.path / kind).rename(tmp_path / "elsewhere")
    with pytest.raises(
        UsageError, match=f"its numbers stay as they are .*of 3 of 3 images the .*{kind}.* picture is not saved"
    ):
        main([str(run.path), "--metrics.per_image", "[PSNR]"])
    assert numbers(run) == before


def test_what_can_be_measured_yet_is_measured(run, capsys):
    """FID against a folder, where a clean picture is gone: PSNR stays as it was, and that is said."""
    run.file("clean", 1, "p1").unlink()
    options = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", f"{__name__}.Means"]
    options += ["--metrics.distances.reference", str(run.path / "clean"), "--metrics.per_image", "[PSNR]"]
    main([str(run.path), *options])
    metrics = json.loads((run.path / "metrics.json").read_text())["metrics"]
    assert (metrics["psnr"]["mean"], metrics["fid"]["images"]) == (99.0, 3)
    assert "psnr stays as it was: of 1 of 3 images the clean picture is not saved" in capsys.readouterr().err
    assert Run.read(run.path).distances["init_args"]["reference"] == str(run.path / "clean")


def test_one_metric_anew_keeps_the_others(run):
    """SSIM is added and PSNR stays, in the means and for each image; then FID, which keeps both."""
    main([str(run.path), "--metrics.per_image", "[SSIM]"])
    options = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", f"{__name__}.Means"]
    main([str(run.path), *options])
    read = Run.read(run.path)
    assert read.mean("psnr") == 99.0
    assert read.values("psnr") == dict.fromkeys(range(3), 99.0)
    assert len(read.values("ssim")) == 3
    assert read.mean("ssim") == pytest.approx(sum(read.values("ssim").values()) / 3)
    assert read.mean("fid") is not None
    main([str(run.path), "--metrics.per_image", "[PSNR]"])
    again = Run.read(run.path)
    assert again.mean("fid") == read.mean("fid")
    assert again.distances == read.distances
    assert again.mean("psnr") < 99.0


def test_a_metric_of_some_images_is_none(run):
    """It is defined on the first two pictures alone: no image keeps a value that the mean does not hold."""
    main([str(run.path), "--metrics.per_image", f"[PSNR, {__name__}.Small]"])
    read = Run.read(run.path)
    assert "larger than 16" in read.metrics["small"]["unavailable"]
    assert read.values("small") == {}


class Small(PSNR):
    """PSNR of pictures of up to 16 pixels."""

    quantity = Quantity("small", "small", "higher", (0, 100), "mean over images")

    def measure(self, restored, clean):
        if restored.shape[-1] > 16:
            raise Unavailable("a picture is larger than 16 pixels")
        return super().measure(restored, clean)


@pytest.mark.parametrize(
    "content",
    [lambda png: b"", lambda png: png[: len(png) // 2], lambda png: png[:20], lambda png: b"a text, and no picture"],
    ids=["empty", "half", "head", "text"],
)
def test_a_damaged_picture_is_named_and_costs_no_number(run, content):
    before = numbers(run)
    path = run.file("restored", 1, "p1")
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UsageError, match=r"restored/00001_p1\.png is no whole picture .* --run\.resume true"):
        main([str(run.path), "--metrics.per_image", "[PSNR]"])
    assert numbers(run) == before


def test_a_picture_of_another_size_is_named(run):
    run.file("clean", 1, "p1").write_bytes(run.file("clean", 2, "p2").read_bytes())
    with pytest.raises(UsageError, match=r"00001_p1\.png is 3×16×16 and .*00001_p1\.png 3×20×20, not the same picture"):
        main([str(run.path), "--metrics.per_image", "[PSNR]"])


def test_what_a_run_names_from_elsewhere_is_not_imported(run, tmp_path, monkeypatch, capsys):
    """A foreign run beside a module: as a metric, as a network, and in the name of one of the configuration's own words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    metrics = {
        "per_image": [{"class_path": "planted.Metric"}, "planted.Other", {"class_path": "cclight.PSNR"}],
        "distances": {"class_path": "cclight.FeatureDistances", "init_args": {"network": {"class_path": "planted.Network"}}},
    }
    (run.path / "config.yaml").write_text(yaml.safe_dump({"metrics": metrics}))
    command = [sys.executable, "-m", "cclight", "evaluate", str(run.path)]  # with the current folder on the path
    result = processes.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("planted.Metric", "planted.Other", "planted.Network"):
        assert f"{name} is none of cclight's own classes" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert Run.read(run.path).mean("psnr") < 99.0
    metrics["distances"]["init_args"] = {"network": "planted.Network", "reference": "planted.Source"}
    (run.path / "config.yaml").write_text(yaml.safe_dump({"metrics": metrics}))
    processes.run(command, cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


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
    """Where the user names it, as `cclight predict` finds it."""
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


def test_a_read_only_run_is_refused_before_the_work(run, small_disk):
    """And the other readers read it."""
    folder = shutil.copytree(run.path, small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UsageError, match=r"run is read-only, .* copy the folder"):
        main([str(folder), "--metrics.per_image", "[PSNR]"])
    with pytest.raises(UsageError, match=r"report\.html cannot be written, .*run is read-only: give another --output"):
        report([str(folder)])
    assert Run.read(folder).mean("psnr") == 99.0


def test_a_run_that_is_not_named_is_asked_for():
    with pytest.raises(UsageError, match="Give the folder of a finished one, as runs/sr"):
        main([])


def test_a_run_in_use_is_refused(run):
    held = RunFolder("run", root=str(run.path.parent), resume=True)
    held.acquire()
    try:
        with pytest.raises(RunError, match="is in use"):
            main([str(run.path)])
    finally:
        held.close()
