"""The table of runs: layouts, labels, who competes, the paper's number beside ours, and what is damaged or not ours."""

import csv
import json
import shutil
from copy import deepcopy

import pytest
import yaml

from cclight.cli import main as cclight
from cclight.commands.paper import _with_defaults, cell_of, cells, paper_results, settings
from cclight.commands.table import find_runs, main, rows_of
from cclight.errors import UsageError
from cclight.runs.results import Run


def changed(run, folder, config=None, metrics=None, records=None):
    """A copy of a run; `config` maps dotted keys to values, `metrics` names to means or entries, `records` changes each one."""
    shutil.copytree(run, folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in (config or {}).items():
        node = settings
        for part in key.split(".")[:-1]:
            node = node.setdefault(part, {})
        node[key.rpartition(".")[2]] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    results = json.loads((folder / "metrics.json").read_text())
    for name, value in (metrics or {}).items():
        if name == "images":
            results["images"] = value
            continue
        entry = {"title": name.upper(), "direction": "lower", "digits": 3, **results["metrics"].get(name, {})}
        entry.pop("unavailable", None)
        results["metrics"][name] = {**entry, **(value if isinstance(value, dict) else {"mean": value})}
    (folder / "metrics.json").write_text(json.dumps(results))
    if records is not None:
        path = folder / "records" / "00000.jsonl"
        lines = [records(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines if line))
    return folder


def as_resolved(part):
    """A part of configs/paper as `cclight predict` writes it into config.yaml: with defaults, without what is None."""
    part = _with_defaults(part)
    args = {key: value for key, value in part["init_args"].items() if value is not None}
    return {"class_path": f"cclight.{part['class_path'].removeprefix('cclight.')}", "init_args": args}


@pytest.fixture
def published(run, tmp_path):
    """Makes a run dressed as a cell of the paper's table: FFHQ, deblurring, C-ΠGDM, 5 evaluations, with an FID of 40."""

    def dressed(name, config=None, metrics=None):
        stack = deepcopy(settings(next(cell for cell in cells() if cell.name == "ffhq-deblurring-c_pigdm-5")))
        parts = {"operator": stack["operator"], **{f"model.{k}": v for k, v in stack["model"].items()}}
        parts["metrics.distances"] = {"class_path": "FeatureDistances"}
        parts = {name: as_resolved(part) for name, part in parts.items()}
        data = {f"data.{key}": value for key, value in stack["data"].items()}
        numbers = {"nfe": 5.0, "fid": 40.0, "kid": 0.0123, "lpips": {"mean": 0.13, "title": "LPIPS (alex)"}, "images": 1000}
        folder = changed(run, tmp_path / name, {**parts, **data, **(config or {})}, {**numbers, **(metrics or {})})
        line = json.loads((folder / "records" / "00000.jsonl").read_text().splitlines()[0])
        lines = [json.dumps(line | {"index": index, "name": f"{index}"}) + "\n" for index in range(1100)]
        images = json.loads((folder / "metrics.json").read_text())["images"]
        (folder / "records" / "00000.jsonl").write_text("".join(lines[:images]))
        return folder

    return dressed


def table(capsys, *arguments):
    main([*map(str, arguments), "--format", "csv"])
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


# The paper's number


def test_the_papers_number_stands_beside_ours(published, capsys):
    mine = published("mine")
    assert paper_results()["ffhq"]["deblurring"]["c_pigdm"][5] == [0.127, 7.3, 31.18]
    main([str(mine)])
    printed = capsys.readouterr().out
    assert "40.00 (paper 31.18, +8.82)" in printed
    assert "12.300 (paper 7.3, +5)" in printed
    (line,) = table(capsys, mine)
    assert (line["fid"], line["paper_fid"], line["paper_lpips"]) == ("40.0", "31.18", "0.127")


@pytest.mark.parametrize(
    "config",
    [
        {"operator.init_args.sigma": 1.0},
        {"operator.init_args.width": 31},
        {"operator": {"class_path": "cclight.UniformBlur", "init_args": {"size": 3}}},
        {"noise_std": 0.05},
        {"model.prior.init_args.checkpoint": "imagenet256"},
        {"model.prior": {"class_path": "cclight.SmallPrior", "init_args": {}}},
        {"model.prior.init_args.class_label": 3},
        {"model.sampler.init_args.order": 2},
        {"model.sampler.init_args.churn": 0.3},
        {"model.sampler.init_args.schedule": "inverse_variance"},
        {"model.sampler.class_path": "cclight.ConjugateTilt"},
        {"data.image_size": 128},
        {"data.source.init_args.path": "merkol/photographs"},
        {"trainer.precision": "16-mixed"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_differs_in_one_thing_has_no_number_in_the_paper(published, config):
    assert cell_of(Run.read(published("other", config))) is None


def test_other_budgets_and_counts_have_no_number_in_the_paper(published):
    assert cell_of(Run.read(published("nfe", metrics={"nfe": 10.0}))) is None
    assert cell_of(Run.read(published("images", metrics={"images": 200}))) is None


@pytest.mark.parametrize("key", ["guidance", "lam", "t_start"])
def test_what_the_authors_searched_and_do_not_print_is_free(published, key):
    run = Run.read(published("tuned", {f"model.sampler.init_args.{key}": 0.7}))
    assert cell_of(run).name == "ffhq-deblurring-c_pigdm-5"


def test_a_metric_measured_otherwise_has_no_number_in_the_paper(published, capsys):
    squeeze = published("squeeze", metrics={"lpips": {"mean": 0.1, "title": "LPIPS (squeeze)"}})
    (line,) = table(capsys, squeeze)
    assert (line["paper_lpips"], line["paper_fid"]) == ("", "31.18")
    other = published("network", {"metrics.distances.init_args.reference": "photographs/real"})
    (line,) = table(capsys, other)
    assert (line["paper_lpips"], line["paper_kid"], line["paper_fid"]) == ("0.127", "", "")


@pytest.mark.parametrize("factor", [4, 8])
def test_super_resolution_by_another_factor_is_another_task(published, factor):
    operator = {"class_path": "cclight.BicubicDownsampling", "init_args": {"factor": factor}}
    cell = cell_of(Run.read(published("sr", {"operator": operator})))
    assert (cell and cell.name) == ("ffhq-sr-c_pigdm-5" if factor == 4 else None)


@pytest.mark.parametrize(("key", "value"), [(None, None), ("missing", 0.3), ("seed", 1)])
def test_another_mask_is_another_task(published, key, value):
    stack = settings(next(cell for cell in cells() if cell.name == "celeba_hq-inpainting-c_pigfm-5"))
    mask = {"class_path": "cclight.FreeForm", "init_args": {"missing": 0.2, "seed": 0} | ({key: value} if key else {})}
    config = {
        "operator": {"class_path": "cclight.Inpainting", "init_args": {"mask": mask, "fill": False}},
        "model.prior": {"class_path": "cclight.RectifiedFlow", "init_args": {"checkpoint": "celeba_hq"}},
        "model.sampler": as_resolved(stack["model"]["sampler"]),
        "data.source.init_args.path": "mattymchen/celeba-hq",
    }
    folder = published("masked", config)
    lines = (folder / "records" / "00000.jsonl").read_text().splitlines()[0]
    names = [json.dumps(json.loads(lines) | {"index": index}) + "\n" for index in range(2000)]
    (folder / "records" / "00000.jsonl").write_text("".join(names))
    results = json.loads((folder / "metrics.json").read_text()) | {"images": 2000}
    (folder / "metrics.json").write_text(json.dumps(results))
    cell = cell_of(Run.read(folder))
    assert (cell and cell.name) == (None if key else "celeba_hq-inpainting-c_pigfm-5")


@pytest.mark.slow
def test_runs_of_the_papers_configurations_are_recognized(tmp_path):
    """What `cclight predict` resolves from each cell's stack is the cell: no default is forgotten on either side."""
    from cclight.commands.predict import PredictCLI
    from tests.commands.conftest import resolved

    for cell in cells():
        config = resolved(PredictCLI, [f"--config={path}" for path in cell.configs()], tmp_path)
        count = {"imagenet": 1000, "celeba_hq": 2000, "afhq_cat": 500, "lsun_bedroom": 300, "ffhq": 1000}[cell.dataset]
        metrics = {"nfe": {"mean": cell.nfe}, "lpips": {"title": "LPIPS (alex)"}}
        assert cell_of(Run(tmp_path, config, {"images": count, "failed": [], "metrics": metrics}, {})) == cell


# Labels and rivals


def test_runs_that_differ_in_one_thing_say_so_and_do_not_compete(run, tmp_path, capsys):
    """Each differs from the first in one thing: another task, data or noise is no rival; the best of a table is not bold."""
    sampler = Run.read(run).part("model.sampler")
    box = {"class_path": "cclight.Inpainting", "init_args": {"mask": {"class_path": "cclight.Box", "init_args": {"size": 16}}}}
    free = {
        "class_path": "cclight.Inpainting",
        "init_args": {"mask": {"class_path": "cclight.FreeForm", "init_args": {"missing": 0.4, "seed": 0}}},
    }
    runs = {
        "first": {"model.sampler": sampler},
        "factor": {"operator.init_args.factor": 8},
        "box": {"operator": box},
        "free": {"operator": free},
        "noise": {"noise_std": 0.05},
        "size": {"data.image_size": 64},
    }
    for place, (name, config) in enumerate(runs.items()):
        changed(run, tmp_path / "runs" / name, config, {"psnr": 20.0 + place})
    main([str(tmp_path / "runs"), "--metrics", "psnr"])
    printed = capsys.readouterr().out
    assert "**" not in printed
    rows = {line.split(" | ")[3].split("(")[-1].rstrip(")"): line for line in printed.splitlines()[2:]}
    assert "factor=4 |" in rows["first"]
    assert "factor=8 |" in rows["factor"]
    assert "mask=Box(size=16)" in rows["box"]
    assert "mask=FreeForm(missing=0.4, seed=0)" in rows["free"]
    assert "σ_y=0.05" in rows["noise"]
    assert "image_size=64" in rows["size"]
    assert "image_size=48" in rows["first"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model.sampler.init_args.guidance": 7.5}, "guidance=7.5"),
        ({"model.sampler.init_args.jacobian": "identity"}, "jacobian=identity"),
        (
            {"model.prior": {"class_path": "cclight.ADM", "init_args": {"checkpoint": "ffhq256"}}},
            "prior=ADM(checkpoint=ffhq256)",
        ),
        ({"trainer.precision": "16-mixed"}, "precision=16-mixed"),
        ({"data.seed": 3}, "seed=3"),
    ],
)
def test_rivals_say_in_what_they_differ(run, tmp_path, capsys, config, words):
    changed(run, tmp_path / "runs" / "one", {}, {"psnr": 20.0})
    changed(run, tmp_path / "runs" / "two", config, {"psnr": 21.0})
    main([str(tmp_path / "runs"), "--metrics", "psnr"])
    (bold,) = [line for line in capsys.readouterr().out.splitlines() if "**21.00**" in line]
    assert words in bold


@pytest.mark.parametrize("change", ["net", "images", "photographs", "content", "mask"])
def test_what_was_measured_otherwise_does_not_compete(run, tmp_path, capsys, change):
    def records(record):
        if change == "images" and record["index"] == 3:
            return None
        other = {"photographs": {"name": f"other-{record['name']}"}, "content": {"content": "0f"}}
        return record | {"content": "ab"} | other.get(change, {})

    lpips = {"mean": 0.2, "title": "LPIPS (alex)"}
    for name, value in (("one", 0.2), ("two", 0.1)):
        other = name == "two"
        metrics = {"lpips": lpips | {"mean": value} | ({"title": "LPIPS (squeeze)"} if other and change == "net" else {})}
        metrics |= {"images": 3} if other and change == "images" else {}
        folder = changed(run, tmp_path / "runs" / name, {}, metrics, records if other else lambda r: r | {"content": "ab"})
        if change == "mask":  # of one path, edited between the runs
            files = {"operator.init_args.mask.init_args.path": "dd" if other else "ee"}
            (folder / "records" / "files.json").write_text(json.dumps(files))
    main([str(tmp_path / "runs"), "--metrics", "lpips"])
    printed = capsys.readouterr().out
    assert "**" not in printed
    if change == "mask":
        assert "operator.mask.path=dd" in printed
    if change == "net":
        assert "LPIPS=alex" in printed
        assert "LPIPS=squeeze" in printed


def test_markdown_marks_the_best_of_each_task_and_budget(runs, tmp_path, capsys):
    """Two runs of 3 and 5 evaluations are no rivals; brought to one budget they are."""
    main([str(runs)])
    assert "**" not in capsys.readouterr().out
    for run in runs.iterdir():
        changed(run, tmp_path / "runs" / run.name, {}, {"nfe": 5.0})
    rows = rows_of(find_runs([str(tmp_path / "runs")]))
    main([str(tmp_path / "runs"), "--metrics", "psnr"])
    assert capsys.readouterr().out.count(f"**{max(row.values['psnr'] for row in rows):.2f}**") == 1


def test_failed_images_are_not_counted(run, tmp_path, capsys):
    folder = changed(run, tmp_path / "failed")
    results = json.loads((folder / "metrics.json").read_text())
    results["failed"] = [{"index": 1, "name": "chelsea", "failed": "NaN"}]
    (folder / "metrics.json").write_text(json.dumps(results))
    (line,) = table(capsys, folder)
    assert line["images"] == "3"


# Layouts and files


def test_latex_and_files(runs, tmp_path, capsys):
    odd = changed(runs / "pigdm", tmp_path / "a_b^c~{d}%")
    main([str(runs), str(odd), "--format", "latex", "--output", str(tmp_path / "new" / "table.tex")])
    text = (tmp_path / "new" / "table.tex").read_text()
    assert text.startswith("\\begin{tabular}")
    assert text.count("\\\\\n") == 4  # a head and three runs
    assert r"a\_b\textasciicircum{}c\textasciitilde{}\{d\}\%" in text
    assert str(tmp_path / "new" / "table.tex") in capsys.readouterr().out


def test_only_its_own_table_is_written_over(runs, tmp_path):
    output = tmp_path / "table.md"
    main([str(runs), "--output", str(output)])
    first = output.read_text()
    main([str(runs), "--output", str(output)])
    assert output.read_text() == first
    output.write_text("# My notes\n")
    with pytest.raises(UsageError, match=r"table\.md is there and is not a table of cclight: give another --output"):
        main([str(runs), "--output", str(output)])
    assert output.read_text() == "# My notes\n"
    with pytest.raises(UsageError, match="is a folder"):
        main([str(runs), "--output", str(tmp_path)])
    with pytest.raises(UsageError, match="is a file"):
        main([str(runs), "--output", str(output / "table.md")])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run folder"):
        main([str(tmp_path)])


def test_one_bad_run_does_not_stop_the_others(runs, tmp_path, capsys):
    folder = shutil.copytree(runs, tmp_path / "runs")
    (shutil.copytree(runs / "pigdm", folder / "unfinished") / "metrics.json").unlink()
    (shutil.copytree(runs / "pigdm", folder / "truncated") / "metrics.json").write_text('{"images": 4, "met')
    (shutil.copytree(runs / "pigdm", folder / "tagged") / "config.yaml").write_text("operator: !tag x\n")
    assert cclight(["table", str(folder), str(folder / "pigdm")]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2 + 2
    assert len(printed.err.splitlines()) == 3
    for name in ("unfinished", "truncated", "tagged"):
        assert str(folder / name) in printed.err
    assert cclight(["table", str(folder / "truncated")]) == 2
