"""Parts of a run, each restored by a job of its own, and put together by `cclight evaluate`: what one job would have made."""

from __future__ import annotations

import shutil
import sys

import pytest
import yaml

from cclight.commands.evaluate import main
from cclight.errors import UsageError
from cclight.runs.results import Run
from tests import processes
from tests.commands.conftest import config

pytestmark = pytest.mark.slow


def predict(folder, *options):
    command = [sys.executable, "-m", "cclight", "predict", "--config", "sr.yaml", "--metrics.per_image", "[PSNR]"]
    # One at a time: in batches of other images the last digits differ.
    result = processes.run([*command, "--data.batch_size", "1", *options], cwd=folder)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Five photographs: the whole, and three parts; of two samples each."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "sr.yaml").write_text(yaml.safe_dump(config("Conjugate", steps=1) | {"samples": 2}))
    predict(folder, "--data.limit", "5", "--run.name", "one-job")
    for number in (1, 2, 3):
        predict(folder, "--data.limit", "5", "--data.part", f"{number}/3", "--run.name", f"part{number}")
    return folder


@pytest.fixture
def here(jobs, tmp_path, monkeypatch):
    """A copy of them, as the current folder."""
    shutil.copytree(jobs, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy" / "runs"


def pictures(run):
    kinds = ("restored", "samples", "measurement", "clean", "mean", "std")
    return {str(p.relative_to(run)): p.read_bytes() for kind in kinds for p in sorted((run / kind).iterdir())}


def test_the_parts_share_the_images(here):
    assert [list(Run.read(here / f"part{number}").records) for number in (1, 2, 3)] == [[0, 3], [1, 4], [2]]


def test_parts_are_what_one_job_makes(here, capsys):
    before = {file: file.read_bytes() for file in here.rglob("part*/**/*") if file.is_file()}
    main([*(f"runs/part{number}" for number in (3, 1, 2)), "--into", "runs/whole"])
    assert capsys.readouterr().err == ""
    one, whole = Run.read(here / "one-job"), Run.read(here / "whole")
    assert pictures(here / "whole") == pictures(here / "one-job")
    assert (here / "whole" / "grid.png").read_bytes() == (here / "one-job" / "grid.png").read_bytes()
    assert whole.lines.keys() == one.lines.keys()
    for name in one.metrics.keys() - {"seconds"}:
        assert whole.metrics[name] == one.metrics[name]
    assert {file: file.read_bytes() for file in before} == before


def test_what_is_missing_is_named_and_made_by_the_command_that_is_told(here, capsys):
    main(["runs/part1", "runs/part3", "--into", "runs/whole"])
    told = capsys.readouterr().err
    assert "1 images are in none of the runs, number 1 the first" in told
    assert "of the parts 2/3 is not among them" in told
    assert "--run.root runs --run.name whole --run.resume true" in told
    assert list(Run.read(here / "whole").records) == [0, 2, 3]
    predict(here.parent, "--data.limit", "5", "--run.root", "runs", "--run.name", "whole", "--run.resume", "true")
    one, whole = Run.read(here / "one-job"), Run.read(here / "whole")
    assert whole.mean("psnr") == one.mean("psnr")
    assert pictures(here / "whole") == pictures(here / "one-job")


def test_distances_are_those_of_all_pictures(here):
    options = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", "tests.commands.test_evaluate.Means"]
    main(["runs/one-job", *options])
    main(["runs/part1", "runs/part2", "runs/part3", "--into", "runs/whole", *options])
    one, whole = Run.read(here / "one-job"), Run.read(here / "whole")
    assert whole.metrics["fid"] == one.metrics["fid"]
    assert whole.values("psnr") == Run.read(here / "part1").values("psnr") | Run.read(here / "part2").values("psnr") | (
        Run.read(here / "part3").values("psnr")
    )


def test_other_settings_are_refused(here):
    path = here / "part2" / "config.yaml"
    path.write_text(path.read_text().replace("steps: 1", "steps: 2"))
    with pytest.raises(UsageError, match=r"part1 and runs/part2 are of different settings \(.*steps is 1 there, 2 here"):
        main(["runs/part1", "runs/part2", "--into", "runs/whole"])
    assert not (here / "whole").exists()


def test_another_picture_of_one_number_is_refused(here):
    path = here / "part2" / "records" / "00000.jsonl"
    path.write_text(path.read_text().replace('"index": 1,', '"index": 0,'))
    (here / "part2" / "records" / "evaluated.jsonl").unlink(missing_ok=True)
    with pytest.raises(UsageError, match=r"image 0 is astronaut in runs/part1 and chelsea in runs/part2"):
        main(["runs/part1", "runs/part2", "--into", "runs/whole"])
    assert not (here / "whole").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs/part1", "runs/part2"], "2 runs are put together into a new one: say where, as --into"),
        (["runs/part1", "--into", "runs/whole"], "--into is for parts of a run"),
        (["runs/part1", "runs/part2", "--into", "runs/part3"], "runs/part3 is there already"),
        (["runs/part1", "runs/nothing", "--into", "runs/whole"], "runs/nothing is no run folder"),
        ([], "which run"),
    ],
)
def test_bad_input_is_one_line(here, arguments, told):
    with pytest.raises(UsageError, match=told) as error:
        main(arguments)
    assert "\n" not in str(error.value)
    assert not (here / "whole").exists()


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "a/b", "1/-2"])
def test_a_part_that_is_none_is_refused(jobs, part):
    command = [sys.executable, "-m", "cclight", "predict", "--config", "sr.yaml", "--data.part", part, "--run.name", "odd"]
    result = processes.run(command, cwd=jobs)
    assert result.returncode == 2
    assert f"part is which of how many jobs restores, from 1/3 to 3/3 of three, got '{part}'" in result.stderr.strip()
    assert not (jobs / "runs" / "odd").exists()
