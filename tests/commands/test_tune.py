"""`cclight tune`, as a user calls it: a grid in full, a kill, two processes on one study, constraints, best.yaml, mistakes."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import processes
from tests.commands.conftest import config

pytest.importorskip("optuna", reason="needs the extra cclight[tune]")
pytest.importorskip("matplotlib", reason="needs the extra cclight[tune]")
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
    assert not (folder / "out" / "trials").exists()  # no run is left behind

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
    ],
)
def test_a_mistake_is_one_line_before_any_work(folder, search, words):
    write(folder, **{"sampler": "random", **search})
    result = tune(folder)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert words in lines[-1]
    assert "Traceback" not in result.stderr
    assert not (folder / "out" / "best.yaml").exists()
