"""A run read back: what it left is there, and what is no finished run is told apart."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from cclight.errors import UsageError
from cclight.runs.results import Run


def test_a_run_is_read_as_it_was_written(finished_run):
    read = Run.read(finished_run)
    assert read.name == "conjugate"
    assert read.class_name("model.sampler") == "Conjugate"
    assert read.part("operator")["init_args"]["factor"] == 4
    assert read.part("model.nothing") == {}
    assert read.metrics["psnr"]["direction"] == "higher"
    assert list(read.records) == [0, 1, 2, 3]
    values = read.values("psnr")
    assert read.mean("psnr") == pytest.approx(sum(values.values()) / 4)
    assert "unavailable" in read.metrics["ms_ssim"]
    assert read.mean("ms_ssim") is None
    assert read.values("ms_ssim") == {}
    assert read.mean("nfe") == 3


def test_a_picture_is_found_unless_it_was_not_saved(finished_run, tmp_path):
    picture = Run.read(finished_run).picture("restored", 1)
    assert picture is not None
    assert Image.open(picture).size == (48, 48)
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "clean")
    assert Run.read(copy).picture("clean", 1) is None


def test_what_is_no_finished_run_is_told_with_the_remedy(finished_run, tmp_path):
    with pytest.raises(UsageError, match="is no run folder: give one that"):
        Run.read(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "metrics.json").unlink()
    with pytest.raises(UsageError, match="unfinished run: wait for its end, or run its `cclight predict` again"):
        Run.read(copy)


def damaged(run, folder, name, content):
    shutil.copytree(run, folder)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as error:
        Run.read(folder)
    message = str(error.value)
    assert str(folder / name) in message
    assert "\n" not in message
    assert len(message) < 500
    return message


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# a comment alone\n",
        b"\xff\xfea: 1",
        "- a\n- b\n",
        "operator: !tag x",
        "operator: !!python/object/apply:os.getcwd []",
        "a: &a [*a]",
        "data: &d {source: *d}",
        BOMB,
        "[" * 20000,
        "operator: 3",
        "model: {sampler: [Conjugate]}",
        "model: {prior: {class_path: [1]}}",
        "operator: {class_path: cclight.Box, init_args: [1]}",
        "noise_std: [0.1]",
    ],
    ids=range(15),
)
def test_a_damaged_configuration_is_named(finished_run, tmp_path, content):
    assert "put back the file" in damaged(finished_run, tmp_path / "copy", "config.yaml", content)


def broken(change):
    """metrics.json of the run with one thing changed."""

    def content(run):
        results = json.loads((run / "metrics.json").read_text())
        change(results, results["metrics"]["psnr"])
        return json.dumps(results)

    return content


@pytest.mark.parametrize(
    "content",
    [
        lambda run: "",
        lambda run: (run / "metrics.json").read_text()[:200],
        lambda run: "[1, 2]",
        lambda run: "[" * 100_000,
        lambda run: b"\xff\xfe{}",
        lambda run: "{}",
        broken(lambda results, psnr: psnr.update(mean=float("nan"))),
        broken(lambda results, psnr: psnr.update(interval=[float("inf"), 1])),
        broken(lambda results, psnr: psnr.update(mean="20.1")),
        broken(lambda results, psnr: psnr.update(mean=True)),
        broken(lambda results, psnr: psnr.update(interval=[1.0])),
        broken(lambda results, psnr: psnr.update(direction="up")),
        broken(lambda results, psnr: psnr.update(digits=-1)),
        broken(lambda results, psnr: psnr.pop("mean")),
        broken(lambda results, psnr: psnr.pop("title")),
        broken(lambda results, psnr: results.pop("images")),
        broken(lambda results, psnr: results.update(images="4")),
        broken(lambda results, psnr: results.update(metrics=[])),
        broken(lambda results, psnr: results["metrics"].update(psnr=3)),
        broken(lambda results, psnr: results.update(failed=["x"])),
    ],
    ids=range(20),
)
def test_damaged_metrics_are_named(finished_run, tmp_path, content):
    assert "delete it and run" in damaged(finished_run, tmp_path / "copy", "metrics.json", content(finished_run))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"index": 1', '"index": "1"', "line 2"),
        ('"index": 1', '"index": true', "line 2"),
        ('"index": 1', '"index": [1]', "line 2"),
        ('"name": "chelsea"', '"name": 7', "line 2"),
        ('"psnr": ', '"psnr": NaN, "was": ', "psnr is nan"),
        ('"psnr": ', '"psnr": "abc", "was": ', "psnr is 'abc'"),
        ('{"index": 0', '[1]\n{"index": 0', "line 1"),
    ],
)
def test_a_damaged_record_is_named_with_its_line(finished_run, tmp_path, old, new, words):
    content = (finished_run / "records" / "00000.jsonl").read_text().replace(old, new)
    message = damaged(finished_run, tmp_path / "copy", "records/00000.jsonl", content)
    assert words in message
    assert "delete the line" in message


def test_missing_records_are_told(finished_run, tmp_path):
    """Half a line is none; what metrics.json counts and no record holds is not passed over."""
    folder = shutil.copytree(finished_run, tmp_path / "copy")
    records = folder / "records" / "00000.jsonl"
    content = records.read_text()
    records.write_text(content + '{"index": 4, "na')
    assert list(Run.read(folder).records) == [0, 1, 2, 3]
    records.write_text(content[:-20])
    with pytest.raises(UsageError, match=r"holds 3 of the 4 images of metrics\.json\): run .* --run\.resume true"):
        Run.read(folder)


def test_summaries_are_written_as_they_were_read(finished_run):
    read = Run.read(finished_run)
    again = {name: summary.as_json() for name, summary in read.summaries().items()}
    assert json.loads(json.dumps(again)) == read.metrics


def test_a_metric_that_was_never_finite_does_not_damage_a_run(finished_run, tmp_path):
    """metrics.json says why it has no mean; its values are none, and the others are read."""
    folder = shutil.copytree(finished_run, tmp_path / "copy")
    results = json.loads((folder / "metrics.json").read_text())
    del results["metrics"]["psnr"]["mean"]
    results["metrics"]["psnr"] |= {"unavailable": "not finite on 4 of 4 images", "interval": None}
    (folder / "metrics.json").write_text(json.dumps(results))
    records = folder / "records" / "00000.jsonl"
    records.write_text(records.read_text().replace('"psnr": ', '"psnr": NaN, "was": '))
    read = Run.read(folder)
    assert read.values("psnr") == {}
    assert len(read.values("ssim")) == 4
