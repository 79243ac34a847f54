"""`cclight tune`, as a user calls it: a grid in full, a kill, two processes on one study, constraints, best.yaml, mistakes."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cclight.commands.tune.search import Parameter, read_search
from cclight.errors import UsageError
from tests import processes
from tests.commands.conftest import config

pytest.importorskip("optuna", reason="needs the extra cclight[tune]")
pytest.importorskip("matplotlib", reason="needs the extra cclight[tune]")
from cclight.commands.tune.trial import Evaluation, Unusable

WEIGHTS = Path(__file__).parents[1] / "assets" / "tiny.safetensors"
GUIDANCE, START = "model.sampler.init_args.guidance", "model.sampler.init_args.t_start"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A configuration and a search of a grid of four points."""
    base = config("Conjugate", steps=2)
    base["model"]["prior"]["init_args"] = {"weights": str(WEIGHTS)}
    base["data"] |= {"image_size": 32, "limit": 2}
    base["metrics"]["per_image"] = [{"class_path": "PSNR"}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(base))
    write(tmp_path, sampler="grid", objective="psnr", space={GUIDANCE: {"values": [1.0, 4.0]}, START: {"values": [0.3, 0.8]}})
    return tmp_path


def write(folder, name="search.yaml", **search):
    (folder / name).write_text(yaml.safe_dump(search))


def command(*arguments):
    return [sys.executable, "-m", "cclight", *arguments]


def tune(folder, *arguments):
    line = command("tune", "--config", "mine.yaml", "--search", "search.yaml", "--output", "out", *arguments)
    return processes.run(line, cwd=folder)


def predict(folder, *arguments):
    result = processes.run(command("predict", "--config", "mine.yaml", *arguments), cwd=folder)
    assert result.returncode == 0, result.stderr


def trials(folder):
    with open(folder / "out" / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_search_goes_on_and_best_yaml_is_the_best(folder):
    """SIGKILL in the middle, then two processes at once: every point of the grid once, and the best one wins in predict."""
    process = subprocess.Popen(
        command("tune", "--config", "mine.yaml", "--search", "search.yaml", "--output", "out"),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial 1/4"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    line = command("tune", "--config", "mine.yaml", "--search", "search.yaml", "--output", "out")
    pair = [processes.start(line, cwd=folder) for _ in range(2)]
    for process in pair:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    rows = trials(folder)
    assert sorted((float(row[GUIDANCE]), float(row[START])) for row in rows) == [(1, 0.3), (1, 0.8), (4, 0.3), (4, 0.8)]
    best = max(rows, key=lambda row: float(row["psnr"]))
    settings = yaml.safe_load((folder / "out" / "best.yaml").read_text())["model"]["sampler"]["init_args"]
    assert settings == {"guidance": float(best[GUIDANCE]), "t_start": float(best[START])}
    assert (folder / "out" / "objective.png").read_bytes().startswith(b"\x89PNG")
    left = {path.name for path in (folder / "out").iterdir()}
    assert left == {"best.yaml", "trials.csv", "objective.png", "study.db", "study.db.locks"}  # no run, no picture
    assert not (folder / "runs").exists()

    predict(folder, "--config", "out/best.yaml")
    metrics = yaml.safe_load((folder / "runs" / "mine" / "metrics.json").read_text())["metrics"]
    assert metrics["psnr"]["mean"] == pytest.approx(float(best["psnr"]), rel=1e-6)


@pytest.mark.slow
def test_the_best_keeps_the_constraint(folder):
    """The least consistency error is sought; the bound on PSNR lies between the best and the worst trial."""
    write(folder, sampler="random", trials=5, seed=1, objective="psnr", space={START: {"low": 0.1, "high": 0.95}})
    assert tune(folder).returncode == 0
    values = sorted(float(row["psnr"]) for row in trials(folder))
    middle = (values[1] + values[2]) / 2
    space = {START: {"low": 0.1, "high": 0.95}}
    bound = {"psnr": f">= {middle}"}
    write(folder, sampler="random", trials=5, seed=1, objective="consistency", constraint=bound, space=space)
    result = tune(folder, "--study", "other.log")
    assert result.returncode == 0, result.stderr
    rows = trials(folder)
    kept = [row for row in rows if float(row["psnr"]) >= middle]
    assert len(kept) == 3
    assert [row["feasible"] for row in rows] == [str(row in kept) for row in rows]
    best = min(kept, key=lambda row: float(row["consistency"]))
    settings = yaml.safe_load((folder / "out" / "best.yaml").read_text())["model"]["sampler"]["init_args"]
    assert settings["t_start"] == float(best[START])


@pytest.mark.slow
@pytest.mark.parametrize(("low", "own"), [(0.1, True), (0.7, False)])
def test_the_first_trial_is_the_configuration(folder, low, own):
    """mine.yaml starts at 0.5: that is the first trial where the space holds it, with the metrics of `cclight predict`."""
    base = yaml.safe_load((folder / "mine.yaml").read_text())
    base["model"]["sampler"]["init_args"]["t_start"] = 0.5
    (folder / "mine.yaml").write_text(yaml.safe_dump(base))
    write(folder, trials=2, objective="psnr", space={START: {"low": low, "high": 0.95}})
    assert tune(folder).returncode == 0
    first = trials(folder)[0]
    assert (float(first[START]) == 0.5) == own
    if own:
        predict(folder, "--run.name", "x")
        metrics = yaml.safe_load((folder / "runs" / "x" / "metrics.json").read_text())["metrics"]
        assert metrics["psnr"]["mean"] == pytest.approx(float(first["psnr"]), rel=1e-6)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"objective": "psrn", "space": {START: {"low": 0.1, "high": 0.9}}}, "did you mean psnr"),
        ({"objective": "psnr", "space": {START: {"low": 0.9, "high": 0.1}}}, "0.9"),
        ({"objective": "psnr", "space": {"model.sampler.init_args.t_strat": {"low": 0.1, "high": 0.9}}}, "t_start"),
        ({"objective": "psnr", "trails": 4, "space": {START: {"low": 0.1, "high": 0.9}}}, "trails"),
        ({"objective": "psnr", "space": {}}, "space"),
        ({"objective": "fid", "space": {START: {"low": 0.1, "high": 0.9}}}, "'fid'"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(folder, search, words):
    write(folder, **{"sampler": "random", **search})
    result = tune(folder)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert words in lines[-1]
    assert "Traceback" not in result.stderr
    assert not (folder / "out").exists()


def read(folder, text, trials=None):
    path = folder / "search.yaml"
    path.write_text(text)
    return read_search(path, trials)


HUNDRED = "{low: 0.0, high: 1.0, count: 100}"


def test_a_huge_grid_is_counted_and_not_listed(tmp_path):
    """1e8 points: refused with their number, or, of the first few, taken one by one."""
    space = "sampler: grid\nspace:\n" + "".join(f"  model.{name}: {HUNDRED}\n" for name in "abcd")
    begin = time.perf_counter()
    with pytest.raises(UsageError, match="100,000,000 points, and 10,000 are the most"):
        read(tmp_path, space)
    with pytest.raises(UsageError, match="100,000,000 points"):
        read(tmp_path, space, trials=1_000_000)
    search = read(tmp_path, space, trials=3)
    assert search.size == 10**8
    points = list(itertools.islice(search.grid(), search.trials))
    assert [point["model.d"] for point in points] == [0.0, pytest.approx(1 / 99), pytest.approx(2 / 99)]
    with pytest.raises(UsageError, match=r"model\.a\.count is 100,000,000, and 10,000 are the most"):
        read(tmp_path, "sampler: grid\nspace: {model.a: {low: 0.0, high: 1.0, count: 100000000}}")
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("- a\n", "holds a list"),
        ("space: !tag x\n", "unknown tag"),
        ("space: &a {b: *a}\n", "holds itself"),
        ("objective: psnr\nobjective: lpips\nspace: {a: {values: [1]}}\n", "objective stands twice, in lines 1 and 2"),
        ("space:\n  a: {low: 1, high: 2}\n  a: {low: 1, high: 3}\n", "a stands twice"),
        ("space: {a: {low: .nan, high: 1}}\n", "got low: nan"),
        ("space: {a: {low: 0, high: .inf}}\n", "high: inf"),
        ("space: {a: {values: [1, .nan]}}\n", "finite numbers, words, true, false or null, got nan"),
        ("constraint: {psnr: '>= nan'}\nspace: {a: {values: [1]}}\n", "got '>= nan'"),
    ],
)
def test_a_damaged_search_is_one_line(tmp_path, text, words):
    with pytest.raises(UsageError) as error:
        read(tmp_path, text)
    assert words in str(error.value)
    assert "search.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_many_numbers_are_tried_at_their_ends_alone():
    assert Parameter("a", (3, 1.0, 2, "word", None, True)).ends() == [3, 1.0, "word", None, True]
    assert Parameter("a", ("x", "y")).ends() == ["x", "y"]


def test_a_result_that_is_not_finite_is_a_reason(folder, monkeypatch):
    """A metric that is NaN, and settings that restore nothing: neither is ever the best."""
    monkeypatch.chdir(folder)
    search = read_search(folder / "search.yaml")
    evaluation = Evaluation(["--config=mine.yaml"], search)
    evaluation.check()
    assert evaluation.own is None
    point = next(search.grid())
    assert set(evaluation(point)) == {"psnr", "consistency", "nfe", "seconds"}
    monkeypatch.setattr("cclight.metrics.image.PSNR.measure", lambda self, a, b: a.mean((1, 2, 3)) * float("nan"))
    with pytest.raises(Unusable, match=r"psnr is unavailable: .*not finite"):
        evaluation(point)
    monkeypatch.setattr("cclight.samplers.base.Sampler.iterate", lambda self, problem: iter([problem.noise * float("nan")]))
    with pytest.raises(Unusable, match="None of the 2 images could be restored"):
        evaluation(point)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yaml", "search.yaml"]


def test_a_file_of_ones_own_is_not_written_over(folder):
    (folder / "out").mkdir()
    (folder / "out" / "best.yaml").write_text("model: mine\n")
    result = tune(folder)
    assert result.returncode == 2
    assert "out/best.yaml is there and is not a search's result: give another --output" in result.stderr
    assert (folder / "out" / "best.yaml").read_text() == "model: mine\n"
