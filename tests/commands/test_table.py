"""The table of runs: layouts, the best of a group, and the paper's number beside ours."""

import csv
import json
import shutil

import pytest
import yaml

from cclight.commands.table import best, find_runs, main, paper_results, row_of
from cclight.errors import UsageError
from cclight.runs.results import Run


@pytest.fixture
def published(run, tmp_path):
    """A run dressed as a cell of the paper's table: FFHQ, deblurring, C-ΠGDM, 5 evaluations, with an FID of 40."""
    folder = shutil.copytree(run, tmp_path / "mine")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["operator"] = {"class_path": "cclight.operators.separable.GaussianBlur", "init_args": {"sigma": 3.0}}
    config["data"]["source"] = {"class_path": "cclight.data.sources.HFDataset", "init_args": {"path": "merkol/ffhq-256"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = json.loads((folder / "metrics.json").read_text())
    results["metrics"]["nfe"]["mean"] = 5.0
    results["metrics"]["fid"] = {"title": "FID", "direction": "lower", "digits": 2, "mean": 40.0}
    results["metrics"]["kid"] = {"title": "KID", "direction": "lower", "digits": 5, "mean": 0.0123}
    (folder / "metrics.json").write_text(json.dumps(results))
    return folder


def test_the_papers_number_stands_beside_ours(published, capsys):
    assert paper_results()["ffhq"]["deblurring"]["c_pigdm"][5] == [0.127, 7.3, 31.18]
    main([str(published)])
    printed = capsys.readouterr().out
    assert "40.00 (paper 31.18, +8.82)" in printed
    assert "12.300 (paper 7.3, +5)" in printed
    main([str(published), "--format", "csv"])
    (line,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (line["fid"], line["paper_fid"], line["paper_lpips"]) == ("40.0", "31.18", "0.127")


def test_a_noisy_run_has_no_number_in_the_paper(published):
    config = yaml.safe_load((published / "config.yaml").read_text()) | {"noise_std": 0.05}
    (published / "config.yaml").write_text(yaml.safe_dump(config))
    row = row_of(Run.read(published))
    assert row.paper == {}
    assert row.task.endswith("σ_y=0.05")


def test_markdown_marks_the_best_of_each_task_and_budget(runs, tmp_path, capsys):
    """Two runs of 3 and 5 evaluations are no rivals; brought to one budget they are."""
    main([str(runs)])
    assert "**" not in capsys.readouterr().out
    folder = shutil.copytree(runs, tmp_path / "runs")
    for path in folder.glob("*/metrics.json"):
        results = json.loads(path.read_text())
        results["metrics"]["nfe"]["mean"] = 5.0
        path.write_text(json.dumps(results))
    rows = [row_of(found) for found in find_runs([str(folder)])]
    main([str(folder), "--metrics", "psnr"])
    assert f"**{max(row.values['psnr'] for row in rows):.2f}**" in capsys.readouterr().out
    assert best(rows, "psnr") == max(row.values["psnr"] for row in rows)
    assert best(rows, "fid") is None


def test_latex_and_files(runs, tmp_path, capsys):
    main([str(runs), "--format", "latex", "--output", str(tmp_path / "table.tex")])
    text = (tmp_path / "table.tex").read_text()
    assert text.startswith("\\begin{tabular}")
    assert text.count("\\\\") == 3  # a head and two runs
    assert str(tmp_path / "table.tex") in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run folder"):
        main([str(tmp_path)])
