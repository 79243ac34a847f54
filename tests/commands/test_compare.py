"""A paired comparison: against numbers worked out by hand, and on two real runs."""

import json
import shutil

import numpy as np
import pytest

from cclight.commands.compare import difference, main, verdict
from cclight.errors import UsageError
from cclight.runs.results import Run


def made_up(metric, values, direction="lower"):
    records = {(index, 0): {"index": index, "name": f"{index}", metric: value} for index, value in enumerate(values)}
    summary = {"metrics": {metric: {"title": metric, "direction": direction, "digits": 3, "mean": float(np.mean(values))}}}
    return Run(None, {}, summary, records)


def test_the_permutation_test_is_exact_for_few_images():
    """All six differences have one sign: 2 of the 2⁶ sign patterns are as extreme."""
    one = made_up("lpips", [0.5, 0.6, 0.7, 0.4, 0.9, 0.3])
    two = made_up("lpips", [0.4, 0.4, 0.6, 0.3, 0.85, 0.1])
    row = difference(one, two, "lpips")
    assert row.mean == pytest.approx(-0.75 / 6)
    assert row.p_value == pytest.approx(2 / 64)
    assert (row.wins, row.losses, row.images) == (6, 0, 6)
    assert row.interval[0] < row.mean < row.interval[1] < 0
    assert verdict(row, "lower", "one", "two") == "two is better"
    assert verdict(difference(two, one, "lpips"), "lower", "two", "one") == "two is better"


def test_equal_runs_do_not_differ():
    run = made_up("psnr", [20.0, 21.0, 22.0], "higher")
    row = difference(run, run, "psnr")
    assert (row.mean, row.p_value, row.interval, row.wins, row.losses) == (0.0, 1.0, None, 0, 0)
    assert verdict(row, "higher", "a", "b") == "no clear difference"


def test_two_runs(run, other_run, capsys):
    main([str(run), str(other_run)])
    printed = capsys.readouterr().out
    assert "pigdm minus conjugate: 4 images" in printed
    assert "model.sampler.class_path is" in printed


def test_what_cannot_be_compared_is_refused(run, other_run, tmp_path):
    with pytest.raises(UsageError, match="fid was not measured in both"):
        main([str(run), str(other_run), "--metric", "fid"])
    other = shutil.copytree(other_run, tmp_path / "other")
    records = next((other / "records").glob("*.jsonl"))
    lines = [json.loads(line) | {"name": "somebody-else"} for line in records.read_text().splitlines()]
    for line in lines:
        stem = f"{line['index']:05d}"
        next((other / "restored").glob(f"{stem}_*")).rename(other / "restored" / f"{stem}_somebody-else.png")
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match="not the same data"):
        main([str(run), str(other)])


def changed(run, folder, change):
    """A copy of a run with other records and metrics."""
    shutil.copytree(run, folder)
    path = folder / "records" / "00000.jsonl"
    results = json.loads((folder / "metrics.json").read_text())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line, results)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "metrics.json").write_text(json.dumps(results))
    return folder


def test_photographs_of_one_name_and_another_content_are_not_the_same(run, other_run, tmp_path, capsys):
    """A hash is kept by newer runs; an older one is compared by names."""
    one = changed(run, tmp_path / "one", lambda line, _: line.update(content=f"{line['index']}"))
    two = changed(other_run, tmp_path / "two", lambda line, _: line.update(content=f"{line['index'] % 3}"))
    old = changed(other_run, tmp_path / "old", lambda line, _: line.pop("content"))
    main([str(one), str(old)])
    main([str(one), str(one)])
    assert "4 images" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"image 3, \w+, is not the same photograph in .*one and .*two"):
        main([str(one), str(two)])


def test_metrics_of_different_networks_do_not_compare(run, other_run, tmp_path, capsys):
    def lpips(net):
        def change(line, results):
            line["lpips"] = 0.1 * line["index"]
            results["metrics"]["lpips"] = {"title": f"LPIPS ({net})", "direction": "lower", "digits": 3, "mean": 0.15}

        return change

    one, two = changed(run, tmp_path / "one", lpips("alex")), changed(other_run, tmp_path / "two", lpips("squeeze"))
    main([str(one), str(two)])
    printed = capsys.readouterr()
    assert "LPIPS" not in printed.out
    assert "lpips is LPIPS (alex) in one and LPIPS (squeeze) in two, which do not compare" in printed.err
    with pytest.raises(UsageError, match="which do not compare"):
        main([str(one), str(two), "--metric", "lpips"])


def test_a_metric_without_common_images_is_refused(run, other_run, tmp_path):
    one = changed(run, tmp_path / "one", lambda line, _: line.pop("psnr") if line["index"] < 2 else None)
    two = changed(other_run, tmp_path / "two", lambda line, _: line.pop("psnr") if line["index"] >= 2 else None)
    with pytest.raises(UsageError, match="psnr was not measured in both"):
        main([str(one), str(two), "--metric", "psnr"])
    with pytest.raises(UsageError, match="did you mean ssim"):
        main([str(run), str(other_run), "--metric", "sim"])
