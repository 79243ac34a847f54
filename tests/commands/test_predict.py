"""`cclight predict` as a user runs it: stopped on the way, resumed after edits, and refused where it could do harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cclight.cli import main
from cclight.priors.small import save
from cclight.runs.folder import RunFolder
from tests import processes
from tests.priors.test_small import random_network

COMMAND = (sys.executable, "-m", "cclight", "predict", "--config", "mine.yaml")
# So many steps take long enough to be stopped on the way.
SLOWLY = ("--model.sampler.init_args.steps", "100", "--data.batch_size", "1")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, a user's: four photographs, a mask, a tiny prior, and a configuration that needs them."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"photo{i}.png")
    save(random_network(), tmp_path / "tiny.safetensors")
    draw_mask(tmp_path, 8)
    mask = {"class_path": "MaskFile", "init_args": {"path": "mask.png"}}
    config = {
        "operator": {"class_path": "Inpainting", "init_args": {"mask": mask}},
        "model": {
            "prior": {"class_path": "SmallPrior", "init_args": {"weights": "tiny.safetensors"}},
            "sampler": {"class_path": "Conjugate", "init_args": {"steps": 2}},
        },
        "data": {"source": {"class_path": "ImageFolder", "init_args": {"path": "photos"}}, "image_size": 32, "batch_size": 2},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "metrics": {"per_image": ["PSNR"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw_mask(folder: Path, side: int) -> None:
    mask = np.full((32, 32), 255, np.uint8)
    mask[4 : 4 + side, 4 : 4 + side] = 0
    Image.fromarray(mask).save(folder / "mask.png")


def alive(group: int) -> list[str]:
    """The processes of a group that have not ended, those that nobody has waited for aside."""
    listed = subprocess.run(["ps", "-eo", "pgid=,state=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and line.split()[1] != "Z"]


def wait_for_an_image(folder: Path, alive) -> RunFolder:
    run = RunFolder("mine", root=str(folder / "runs"))
    deadline = time.monotonic() + 120
    while not run.path.is_dir() or not run.finished():
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_stops_it_and_the_same_command_goes_on(folder, number, code, workers):
    command = [*COMMAND, *SLOWLY, "--data.num_workers", str(workers)]
    process = processes.start(command, cwd=folder)
    run = wait_for_an_image(folder, lambda: process.poll() is None)
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert time.monotonic() - began < 3  # two seconds, and one that a busy machine may take
    done = run.finished()
    assert f"stopped; {len(done)} images are finished in runs/mine, and the same command goes on with the others" in errors
    assert "Traceback" not in errors
    assert 0 < len(done) < 4
    assert not (run.path / "metrics.json").exists()
    files = {index: run.file("restored", index, record["name"]).stat().st_ino for index, record in done.items()}
    again = processes.run(command, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert list(run.finished()) == [0, 1, 2, 3]
    assert files == {i: run.file("restored", i, run.finished()[i]["name"]).stat().st_ino for i in files}
    assert not list(run.path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["one", "all"])
def test_a_signal_stops_all_ranks(folder, to):
    """Lightning starts the second rank: a scheduler tells all of them, a person the one whose number is known."""
    command = [*COMMAND, *SLOWLY, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    process = subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True, start_new_session=True)
    run = wait_for_an_image(folder, lambda: process.poll() is None)
    began = time.monotonic()
    if to == "one":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert time.monotonic() - began < 3  # two seconds, and one that a busy machine may take
    assert errors.count("stopped; ") == 1
    time.sleep(1)
    assert alive(process.pid) == []
    assert 0 < len(run.finished()) < 4


@pytest.mark.parametrize("waits", ["for another rank", "in a handler"])
def test_a_process_that_runs_no_python_is_stopped_too(tmp_path, waits):
    code = f"""
import ctypes, signal, sys, time
from cclight.interruption import Interruption
libc = ctypes.CDLL(None)
with Interruption(lambda: "two images are done", lambda number: None):
    if {waits == "in a handler"}:
        signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
    print("ready", flush=True)
    while True:
        libc.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 3  # two seconds, and one that a busy machine may take
    assert (process.returncode, errors.strip()) == (143, "two images are done")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (["--data.source.init_args.path", "nowhere"], "nowhere"),
        (["--model.prior.init_args.weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data.image_size", "48"], "32"),
        (["--metrics.per_image", "[PSNR, PSNR]"], "Two metrics of one name"),
        (["--trainer.limit_predict_batches", "1"], "set data.limit"),
    ],
)
def test_a_mistake_claims_no_name(folder, capsys, mistake, words):
    assert main([*COMMAND[3:], *mistake]) in (1, 2)
    assert words in capsys.readouterr().err
    assert list((folder / "runs").iterdir()) == []


def test_a_mask_that_was_edited_is_refused_and_the_old_results_stay(folder, capsys):
    assert main([*COMMAND[3:], "--data.limit", "4"]) == 0
    run = RunFolder("mine", root="runs")
    (run.path / "metrics.json").unlink()
    run.file("restored", 3, "photo3").unlink()
    draw_mask(folder, 20)
    capsys.readouterr()
    assert main([*COMMAND[3:], "--data.limit", "4"]) == 1
    errors = capsys.readouterr().err
    assert "mask.png (operator.init_args.mask.init_args.path) is no longer what it was there" in errors
    assert "run.overwrite" in errors
    assert list(run.finished()) == [0, 1, 2]
    assert main([*COMMAND[3:], "--data.limit", "4", "--run.overwrite", "true"]) == 0
    assert list(run.finished()) == [0, 1, 2, 3]


def test_overwrite_leaves_a_persons_folder_alone(folder, capsys):
    wedding = folder / "mine" / "clean" / "wedding.jpg"
    wedding.parent.mkdir(parents=True)
    wedding.write_bytes(b"dear")
    assert main([*COMMAND[3:], "--run.root", ".", "--run.overwrite", "true"]) == 1
    assert "mine is no run of cclight and holds other files (clean), which stay untouched" in capsys.readouterr().err
    assert [path for path in (folder / "mine").rglob("*") if path.is_file()] == [wedding]


def test_a_run_that_restores_nothing_is_an_error(folder, capsys):
    code = "from cclight import SmallPrior\n\n\nclass Broken(SmallPrior):\n    def forward(self, x_t, t):\n"
    (folder / "my_broken_prior.py").write_text(f"{code}        return super().forward(x_t, t) * float('nan')\n")
    broken = ["--model.prior", "my_broken_prior.Broken"]
    with pytest.warns(UserWarning, match="left out"):
        assert main([*COMMAND[3:], *broken]) == 1
    assert "None of the 4 images could be restored" in capsys.readouterr().err
    assert not (folder / "runs" / "mine" / "metrics.json").exists()
    assert main([*COMMAND[3:]]) == 0  # the name is free


def test_samples(folder, capsys):
    assert main(["predict", "--config", "mine.yaml", "--samples", "3", "--model.sampler.t_start", "0.5"]) == 0
    assert "PSNR (dB), best of 3" in capsys.readouterr().out
    run = folder / "runs" / "mine"
    assert len(list((run / "samples").iterdir())) == 8
    assert {path.suffix for path in (run / "std").iterdir()} == {".png", ".npy"}
    assert yaml.safe_load((run / "config.yaml").read_text())["samples"] == 3
    # Its own configuration goes on with it, and with more.
    own = ["predict", "--config", "runs/mine/config.yaml", "--run.resume", "true"]
    assert main(own) == 0
    assert main([*own, "--samples", "4"]) == 0
    assert len(list((run / "samples").iterdir())) == 12
    assert main(["report", "runs/mine"]) == 0


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [([], False), (["--samples", "2"], True), (["--samples", "2", "--config", "samplers/posterior.yaml"], False)],
)
def test_samples_whose_spread_is_too_small_are_told_of_before_the_work(folder, capsys, arguments, is_told):
    sampler = {"class_path": "ConjugateMoments", "init_args": {"steps": 2, "absorb_noise": True}}
    (folder / "one.yaml").write_text(yaml.safe_dump({"model": {"sampler": sampler}, "data": {"limit": 1}}))
    assert main(["predict", "--config", "mine.yaml", "--config", "one.yaml", *arguments]) == 0
    told = "2 samples differ by less than they are wrong (absorb_noise: true)" in capsys.readouterr().err
    assert told == is_told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--samples", "0"], "from 1 to 1024 times, got 0"),
        (["--samples", "1025"], "got 1025"),
        (["--data.samples", "3"], "there is no option --data.samples: write --samples"),
    ],
)
def test_a_number_of_samples_that_does_not_exist(folder, capsys, arguments, words):
    assert main(["predict", "--config", "mine.yaml", *arguments]) != 0
    assert words in capsys.readouterr().err
    assert not list((folder / "runs").rglob("config.yaml")) if (folder / "runs").exists() else True


DEAF = """
from dataclasses import dataclass
from cclight import Sampler

@dataclass(frozen=True)
class Deaf(Sampler):
    steps: int = 1

    def begin(self, problem):
        return problem.pinv_y

    def step(self, problem, n, state):
        return problem.denoise(state, problem.times[n])
"""


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_samples_that_are_copies_are_told_of_once(folder, recwarn, batch_size):
    (folder / "deaf_sampler.py").write_text(DEAF)
    arguments = ["--samples", "3", "--model.sampler", "deaf_sampler.Deaf", "--data.limit", "2", "--data.batch_size", batch_size]
    assert main(["predict", "--config", "mine.yaml", *arguments]) == 0
    told = [str(w.message) for w in recwarn if "its samples are copies" in str(w.message)]
    assert len(told) == 1
    assert told[0].startswith("Deaf makes the same restoration of every noise")
