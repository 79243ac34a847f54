"""Several samples of each image, through real trainers and run folders."""

import json

import numpy as np
import pytest
import torch

from cclight.commands import evaluate
from cclight.errors import RunError, UsageError
from cclight.metrics.posterior import posterior_metrics
from cclight.runs.pictures import read_png, to_image
from cclight.runs.records import read_lines
from cclight.runs.results import Run
from tests.callbacks.test_resume import contents

COUNT = 3  # images


def pictures(run):
    return {path: content for path, content in contents(run).items() if path.suffix in (".png", ".npy")}


def same_without_records(one, two):
    a, b = ({p: c for p, c in contents(run).items() if p.parts[0] != "records"} for run in (one, two))
    assert a.keys() == b.keys()
    assert [path for path in a if a[path] != b[path]] == []


def saved_samples(run, index, count):
    files = [run.file("restored", index, f"photo{index}", k) for k in range(count)]
    return torch.stack([to_image(read_png(path)) for path in files])


def test_what_is_written(run_here):
    run, metrics, restored = run_here("--samples", 4, count=COUNT)
    assert restored == [[index, sample] for index in range(COUNT) for sample in range(4)]
    for index in range(COUNT):
        name = f"photo{index}"
        samples = saved_samples(run, index, 4)
        assert len({tuple(one.flatten().tolist()) for one in samples}) == 4
        mean = to_image(read_png(run.file("mean", index, name)))
        torch.testing.assert_close(mean, samples.mean(0), rtol=0, atol=0.5 / 127.5 + 1e-6)
        std = np.load(run.array("std", index, name))
        np.testing.assert_allclose(std, samples.double().std(0).numpy(), rtol=1e-5, atol=1e-7)
        picture = read_png(run.file("std", index, name))
        assert picture.shape[2] > picture.shape[1] == 256  # with its colour bar
    grid = read_png(run.path / "grid.png")
    assert grid.shape == (3, 24 + 3 * 132, 6 * 132)
    assert metrics.results is not None
    assert metrics.results.samples == 4


def test_a_run_of_one_sample_has_the_first_of_several(run_here):
    one, _, _ = run_here(count=COUNT, root="one")
    several, _, _ = run_here("--samples", 3, count=COUNT, root="several")
    for kind in ("restored", "measurement", "clean"):
        assert {p.name: p.read_bytes() for p in (one.path / kind).iterdir()} == {
            p.name: p.read_bytes() for p in (several.path / kind).iterdir()
        }
    assert not (one.path / "samples").exists()
    assert not (one.path / "std").exists()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_samples_do_not_depend_on_the_batches(run_here, batch_size):
    one, _, _ = run_here("--samples", 3, count=COUNT, root="one")
    other, _, restored = run_here("--samples", 3, "--batch-size", batch_size, count=COUNT, root="other")
    assert len(restored) == 9
    same_without_records(one, other)


def test_numbers_are_the_means_over_samples_beside_the_best_and_what_they_say_together(run_here):
    run, metrics, _ = run_here("--samples", 4, count=COUNT)
    for index in range(COUNT):
        samples = saved_samples(run, index, 4)
        clean = to_image(read_png(run.file("clean", index, f"photo{index}")))
        record = metrics.records[index]
        psnr = 10 * torch.log10(4 / (samples - clean).double().square().flatten(1).mean(1))
        assert record["psnr"] == pytest.approx(psnr.mean().item(), abs=0.02)  # measured before rounding to 8 bits
        assert record["psnr_best"] == pytest.approx(psnr.max().item(), abs=0.02)
        expected = posterior_metrics(samples, clean, 2.0)
        assert {name: record[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    results = json.loads((run.path / "metrics.json").read_text())
    assert results["samples"] == 4
    assert results["metrics"]["psnr_best"]["title"] == "PSNR (dB), best of 4"
    assert results["metrics"]["mean_psnr"]["mean"] > results["metrics"]["psnr"]["mean"]
    values = list(metrics.records.values())
    ratio = sum(1.25 * r["variance"] for r in values) / sum(r["error"] for r in values)
    assert results["metrics"]["spread_error"]["mean"] == pytest.approx(ratio)
    assert results["reliability"]["nominal"] == [n / 10 for n in range(1, 10)]
    header, *rows = (run.path / "metrics.csv").read_text().splitlines()
    assert len(rows) == COUNT
    assert {"psnr", "psnr_best", "crps", "spread_error"} <= set(header.split(","))


def test_a_run_of_one_sample_has_no_such_numbers(run_here):
    run, _, _ = run_here(count=2)
    results = json.loads((run.path / "metrics.json").read_text())
    assert not {"mean_psnr", "crps", "psnr_best"} & results["metrics"].keys()
    assert "reliability" not in results


def test_more_samples_compute_only_what_is_missing(run_here):
    run, _, _ = run_here("--samples", 2, count=COUNT, root="one")
    before = {
        path: (run.path / path).stat().st_ino for path in pictures(run) if path.parts[0] in ("restored", "samples", "clean")
    }
    _, _, restored = run_here("--samples", 5, "--resume", count=COUNT, root="one")
    assert restored == [[index, sample] for index in range(COUNT) for sample in (2, 3, 4)]
    assert all((run.path / path).stat().st_ino == inode for path, inode in before.items())
    fresh, _, _ = run_here("--samples", 5, count=COUNT, root="fresh")
    same_without_records(run, fresh)


def test_one_sample_grows_into_several(run_here):
    run, _, _ = run_here(count=COUNT, root="one")
    _, _, restored = run_here("--samples", 3, "--resume", count=COUNT, root="one")
    assert restored == [[index, sample] for index in range(COUNT) for sample in (1, 2)]
    fresh, _, _ = run_here("--samples", 3, count=COUNT, root="fresh")
    same_without_records(run, fresh)


def test_fewer_samples_are_another_configuration(run_here):
    run, _, _ = run_here("--samples", 3, count=2)
    whole = contents(run)
    with pytest.raises(RunError, match="samples is 3 there, 2 here"):
        run_here("--samples", 2, "--resume", count=2)
    assert contents(run) == whole


def test_what_was_lost_is_made_again(run_here):
    """A kill may leave any prefix of the records, without the pictures of the later ones."""
    run, _, _ = run_here("--samples", 3, "--batch-size", 2, count=COUNT)
    whole = contents(run)
    records = run.path / "records" / "00000.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    kinds = [("all" if "samples" in json.loads(line) else json.loads(line).get("sample", 0)) for line in lines]
    assert kinds[:4] == [0, 1, 2, 0]
    for kept in (4, 5, len(lines) - 1):  # without, and with, the record of the first image's samples together
        records.write_text("".join(lines[:kept]) + '{"index": 1, "na')
        (run.path / "metrics.json").unlink()
        for path in sorted((run.path / "samples").glob("00002*")):
            if kept < len(lines) - 1:
                path.unlink()
        run_here("--samples", 3, "--batch-size", 2, count=COUNT)
        again = contents(run)
        assert [path for path in whole if path.parts[0] != "records" and again[path] != whole[path]] == []


def test_a_lost_spread_is_measured_again_and_nothing_restored(run_here):
    run, _, _ = run_here("--samples", 3, count=COUNT)
    whole = contents(run)
    run.array("std", 1, "photo1").unlink()
    (run.path / "metrics.json").unlink()
    _, _, restored = run_here("--samples", 3, count=COUNT)
    assert restored == []
    again = contents(run)
    assert [path for path in whole if path.parts[0] != "records" and again[path] != whole[path]] == []


def test_an_image_whose_samples_fail_is_failed(run_here):
    with pytest.warns(UserWarning, match=r"Sample 1 of image 1 \(photo1\) is left out"):
        run, metrics, _ = run_here("--samples", 2, "--nan", "[1]", count=COUNT)
    assert "failed" in metrics.records[1]
    assert metrics.results.summary["failed"][0]["index"] == 1
    assert metrics.results.metrics["crps"]["images"] == 2
    assert not run.array("std", 1, "photo1").exists()


def test_measurements_alone_have_a_spread_and_no_error(run_here):
    run, metrics, _ = run_here("--samples", 3, "--measurements", "--image-size", 16, count=2)
    results = metrics.results.metrics
    assert results["diversity"]["mean"] == pytest.approx(0.05 * 2**0.5 / 2, rel=0.1)  # 0.05 n each, range 2
    assert results["crps"]["unavailable"].startswith("not applicable")
    assert "reliability" not in metrics.results.summary
    assert read_png(run.path / "grid.png").shape[2] == 5 * 132


def test_evaluate_measures_all_samples(run_here):
    run, _, _ = run_here("--samples", 3, count=COUNT)
    was = Run.read(run.path)
    evaluate.main([str(run.path), "--metrics.per_image", '["PSNR", "SSIM"]'])
    now = Run.read(run.path)
    assert now.lines.keys() == was.lines.keys()
    for name in ("psnr", "psnr_best", "ssim", "mean_psnr", "crps", "spread_error", "coverage_50"):
        assert now.mean(name) == pytest.approx(was.mean(name), rel=1e-3), name
    for index in range(COUNT):
        samples = saved_samples(run, index, 3)
        clean = to_image(read_png(run.file("clean", index, f"photo{index}")))
        psnr = 10 * torch.log10(4 / (samples - clean).double().square().flatten(1).mean(1))
        assert [now.lines[index, k]["psnr"] for k in range(3)] == pytest.approx(psnr.tolist(), abs=1e-4)
    lines = list(read_lines(run.path / "records" / "evaluated.jsonl"))
    assert len(lines) == COUNT * 4


def test_a_missing_sample_is_told_by_evaluate(run_here):
    run, _, _ = run_here("--samples", 3, count=2)
    run.file("restored", 1, "photo1", 2).write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"00001_photo1_002.png is no whole picture"):
        evaluate.main([str(run.path), "--metrics.per_image", '["PSNR"]'])
