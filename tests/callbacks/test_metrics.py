import csv
import importlib.metadata
import json
import math
import random
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch

import cclight
from cclight.callbacks.metrics import MetricsCallback
from cclight.errors import RunError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import LPIPS, PSNR
from cclight.operators.pixelwise import AveragePooling
from cclight.runs import results
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import read_png
from tests.callbacks import predict_script
from tests.callbacks.predict_script import arguments, predict


def results_of(run):
    return json.loads((run.path / "metrics.json").read_text())


def rows_of(run):
    with open(run.path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_are_those_of_the_images(run_here):
    run, metrics, indices = run_here()
    results, rows = results_of(run), rows_of(run)
    assert indices == list(range(7))
    assert results["images"] == 7
    assert results["failed"] == results["left_out"] == []
    assert [int(row["index"]) for row in rows] == list(range(7))
    assert [row["name"] for row in rows] == [f"photo{index}" for index in range(7)]
    psnr = []
    for index, row in enumerate(rows):
        # Made again from the definition of the stand-in restorer.
        clean = read_png(run.path / "clean" / f"0000{index}_photo{index}.png").float() / 127.5 - 1
        operator = AveragePooling(2)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
        restored = (operator.pinv(operator(clean[None])) + 0.05 * noise).clamp(-1, 1)
        psnr.append(10 * math.log10(4 / float((restored - clean).double().square().mean())))
        assert float(row["psnr"]) == pytest.approx(psnr[-1], abs=1e-4)
        residual = operator(restored) - operator(clean[None])
        assert float(row["consistency"]) == pytest.approx(float(residual.square().mean().sqrt()), rel=1e-4)
        assert (row["nfe"], row["seconds"], row["failed"]) == ("5", "0.25", "")
    assert results["metrics"]["psnr"]["mean"] == pytest.approx(sum(psnr) / 7, abs=1e-4)
    low, high = results["metrics"]["psnr"]["interval"]
    assert min(psnr) < low < sum(psnr) / 7 < high < max(psnr)
    assert results["metrics"]["psnr"]["direction"] == "higher"
    assert metrics.summaries["psnr"].mean == results["metrics"]["psnr"]["mean"]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_changes_nothing(run_here, batch_size):
    expected = results_of(run_here(root="a")[0])["metrics"]
    results = results_of(run_here("--batch-size", batch_size, root="b")[0])["metrics"]
    for name in ("psnr", "ssim", "consistency"):
        assert results[name]["mean"] == pytest.approx(expected[name]["mean"], abs=1e-6)
        assert results[name]["interval"] == pytest.approx(expected[name]["interval"], abs=1e-6)


def test_a_nan_is_reported_and_the_others_kept(run_here):
    whole = rows_of(run_here(root="a")[0])
    with pytest.warns(UserWarning, match=r"Image 4 \(photo4\) is left out: the restoration holds NaN"):
        run, _, _ = run_here("--nan", "[4]", root="b")
    results, rows = results_of(run), rows_of(run)
    assert results["images"] == 7
    assert results["failed"] == [{"index": 4, "name": "photo4", "failed": "the restoration holds NaN or infinity"}]
    assert results["metrics"]["psnr"]["images"] == 6
    for index, row in enumerate(rows):
        if index == 4:
            assert (row["psnr"], row["ssim"], row["consistency"]) == ("", "", "")
        else:
            assert float(row["psnr"]) == pytest.approx(float(whole[index]["psnr"]), abs=1e-6)
            assert float(row["ssim"]) == pytest.approx(float(whole[index]["ssim"]), abs=1e-6)


def test_a_nan_is_no_part_of_fid_and_kid(run_here):
    with pytest.warns(UserWarning, match="left out"):
        run, metrics, _ = run_here("--nan", "[4]", "--distances")
    results = results_of(run)["metrics"]
    assert results["fid"]["images"] == results["kid"]["images"] == 6
    clean = [path for path in sorted((run.path / "clean").iterdir()) if not path.name.startswith("00004")]
    again = metrics.distances.compute(sorted((run.path / "restored").iterdir()), clean)
    assert [results[name]["mean"] for name in ("fid", "kid")] == [summary.mean for summary in again]


def test_fid_of_one_image_is_told_of_at_the_start(run_here):
    with pytest.warns(UserWarning, match="FID is unavailable: a distribution needs 2 images or more, and the data holds one"):
        run, _, _ = run_here("--distances", count=1)
    assert "needs 2 images" in results_of(run)["metrics"]["fid"]["unavailable"]


def global_generators():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_the_global_generators_are_left_alone(run_here):
    """KID and the intervals draw random subsets: from generators of their own, or a metric would change what comes after it."""
    before = global_generators()
    results = [results_of(run_here("--distances", root=root)[0])["metrics"] for root in "ab"]
    assert global_generators() == before
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert results_of(run_here("--distances", root="c")[0])["metrics"] == results[0] == results[1]


def test_a_run_that_restored_nothing_is_an_error_and_not_finished(run_here, tmp_path):
    with pytest.warns(UserWarning, match="left out"), pytest.raises(RunError, match=r"None of the 2 images .*photo0.*NaN") as e:
        run_here("--nan", "[0, 1]", count=2)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "runs" / "run" / "metrics.json").exists()
    run, _, indices = run_here("--config", "seed: 1", count=2)  # it claims nothing
    assert indices == [0, 1]
    assert results_of(run)["failed"] == []


@pytest.mark.parametrize("limit", [0, 1, 0.5])
def test_a_part_of_a_run_does_not_count_as_finished(run_here, tmp_path, limit):
    with pytest.raises(RunError, match=rf"limit_predict_batches is {limit}, .*set data\.limit"):
        run_here("--limit-batches", str(limit))
    assert not (tmp_path / "runs" / "run" / "metrics.json").exists()


class Odd(PSNR):
    """A metric of a user's own that is undefined on the second image of a batch."""

    quantity = replace(PSNR.quantity, name="odd")

    def measure(self, restored, clean):
        value = super().measure(restored, clean)
        return value.index_fill(0, torch.tensor([1]), torch.nan) if len(value) > 1 else value


def test_a_metric_that_is_not_finite_does_not_spoil_the_end(run_here, monkeypatch):
    monkeypatch.setattr(predict_script, "SSIM", Odd)
    found = results_of(run_here()[0])["metrics"]
    assert found["odd"]["unavailable"] == "not finite on 2 of 7 images, image 1 among them"
    assert found["psnr"]["images"] == 7


def test_versions_are_known_of_a_checkout_too(run_here, monkeypatch):
    def not_installed(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(results, "version", not_installed)
    assert results_of(run_here(count=1)[0])["versions"]["cclight"] == cclight.__version__


def test_without_clean_images_reference_metrics_do_not_apply(run_here):
    run, _, _ = run_here("--measurements", "--distances")
    metrics = results_of(run)["metrics"]
    assert metrics["psnr"]["unavailable"].startswith("not applicable")
    assert metrics["ssim"]["unavailable"].startswith("not applicable")
    assert "not saved" in metrics["fid"]["unavailable"]
    assert metrics["consistency"]["images"] == 7
    assert not (run.path / "clean").exists()


def test_without_clean_images_no_weights_are_asked_for(run_here, monkeypatch, recwarn):
    def asked(*_):
        raise AssertionError("weights that nothing will use")

    monkeypatch.setattr(LPIPS, "prepare", asked)
    monkeypatch.setattr(FeatureDistances, "prepare", asked)
    run, _, _ = run_here("--measurements", "--lpips", "--distances")
    metrics = results_of(run)["metrics"]
    assert metrics["lpips"]["unavailable"].startswith("not applicable")
    assert metrics["consistency"]["images"] == 7


def test_missing_weights_are_told_once_and_stay_in_the_results(run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of its first call
    with pytest.warns(UserWarning, match=r"LPIPS \(squeeze\) is unavailable") as caught:
        run, _, _ = run_here("--lpips")
    assert sum("LPIPS" in str(warning.message) for warning in caught) == 1
    lpips = results_of(run)["metrics"]["lpips"]
    assert "mean" not in lpips
    assert f"{tmp_path}/empty/hub/checkpoints" in lpips["unavailable"]
    assert results_of(run)["metrics"]["psnr"]["images"] == 7


def test_fid_and_kid_are_of_the_saved_pictures(run_here):
    run, metrics, _ = run_here("--distances")
    again = metrics.distances.compute(sorted((run.path / "restored").iterdir()), sorted((run.path / "clean").iterdir()))
    assert [summary.mean for summary in again] == [results_of(run)["metrics"][name]["mean"] for name in ("fid", "kid")]
    assert again[0].mean > 0


def test_an_unreadable_photograph_is_listed(run_here, photographs_of):
    folder = photographs_of(3)
    (folder / "photo1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="photo1"):
        run, _, indices = predict(arguments([str(folder), str(folder.parent / "runs")]))
    assert indices == [0, 2]
    (left_out,) = results_of(run)["left_out"]
    assert left_out["index"] == 1
    assert "photo1.png" in left_out["reason"]


def test_two_metrics_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Two metrics of one name"):
        MetricsCallback(RunFolder("a", root=str(tmp_path)), [PSNR(), PSNR()])


def test_a_folder_nobody_opened_is_refused(tmp_path, run_here):
    run = RunFolder("a", root=str(tmp_path))
    with pytest.raises(RunError, match="open the run on rank 0 first"):
        run.join(0)
