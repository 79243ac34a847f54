"""`cclight fit` and `cclight export`: nothing is lost, whatever ends a training, and every wrong file gets one line."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cclight.callbacks.checkpoints import WholeCheckpoints
from cclight.cli import main
from cclight.errors import RunError
from cclight.priors.small import load, save
from tests import processes
from tests.priors.test_small import random_network

ANEW = ("--model.warm_start", "null")
CCLIGHT = (sys.executable, "-m", "cclight")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder, the current one: photographs, a tiny prior, and a configuration that saves every 2 steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    save(random_network(), tmp_path / "tiny.safetensors")
    checkpoints = {"dirpath": "run", "every_n_train_steps": 2, "save_last": True, "enable_version_counter": False}
    config = {
        "model": {"warm_start": "tiny.safetensors"},
        "data": {
            "source": {"class_path": "ImageFolder", "init_args": {"path": "photos"}},
            "patch_size": 32,
            "batch_size": 2,
        },
        "trainer": {
            "max_steps": 4,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"},
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoints},
            ],
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cclight(*arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run([*CCLIGHT, *arguments])


def steps(checkpoint: str) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"]


def test_the_bar_of_a_training_without_a_last_epoch_names_none(folder):
    result = cclight("fit", "--config", "mine.yaml", "--trainer.enable_progress_bar", "true")
    assert result.returncode == 0, result.stderr
    assert "Epoch 0 " in result.stdout
    assert "/-2" not in result.stdout + result.stderr


def test_a_second_training_is_refused_and_a_resumed_one_replaces_its_own(folder):
    result = cclight("fit", "--config", "mine.yaml")
    assert result.returncode == 0, result.stderr
    before = Path("run/last.ckpt").read_bytes()
    result = cclight("fit", "--config", "mine.yaml")
    assert result.returncode == 1
    (line,) = (line for line in result.stderr.splitlines() if "error: " in line)
    assert "run/last.ckpt is of an earlier training, which this one would replace: go on from it with --ckpt_path last" in line
    assert Path("run/last.ckpt").read_bytes() == before
    os.rename("run", "moved")
    result = cclight("fit", "--config", "mine.yaml", "--ckpt_path", "moved/last.ckpt", "--trainer.max_steps", "6")
    assert result.returncode == 0, result.stderr
    result = cclight("fit", "--config", "mine.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8")
    assert result.returncode == 0, result.stderr
    assert (steps("moved/last.ckpt"), steps("run/last.ckpt")) == (4, 8)
    assert sorted(path.name for path in Path("run").iterdir()) == ["epoch=0-step=8.ckpt", "last.ckpt"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_and_what_was_learnt_is_kept(folder, number, code):
    endless = ["fit", "--config", "mine.yaml", "--trainer.max_steps", "1000000", "--trainer.accumulate_grad_batches", "2"]
    process = processes.start([*CCLIGHT, *endless])
    deadline = time.monotonic() + 60
    while not Path("run/last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert time.monotonic() - sent < 5
    done = steps("run/last.ckpt")
    assert f"stopped after step {done}, saved as run/last.ckpt: the same command with --ckpt_path last goes on" in error
    assert "Traceback" not in error
    result = cclight(*endless, "--ckpt_path", "last", "--trainer.max_steps", str(done + 2))
    assert result.returncode == 0, result.stderr
    assert steps("run/last.ckpt") == done + 2


def test_last_without_a_checkpoint_is_an_error(folder, capsys):
    assert main(["fit", "--config", "mine.yaml", "--ckpt_path", "last"]) == 2
    assert "No checkpoint in run to go on from: leave --ckpt_path out" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_training_without_an_end_is_an_error(folder, capsys):
    assert main(["fit", "--config", "mine.yaml", "--trainer.max_steps", "-1"]) == 1
    assert "set trainer.max_steps, or trainer.max_time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model.warm_start", "none.safetensors"], "No weights at none.safetensors"),
        (["--model.learning_rate", "-1"], "learning_rate must be a finite number above 0, got -1"),
        (["--model.log_ratio_std", "0"], "log_ratio_std must be a finite number above 0, got 0"),
        (["--model.warmup_steps", "-1"], "warmup_steps must be 0 or more, got -1"),
        (
            ["--model.warm_start", "null", "--model.widths", "[8, 12]", "--model.depths", "[1]"],
            "widths (8, 12) and depths (1,)",
        ),
        (["--model.warm_start", "null", "--model.widths", "[0]", "--model.depths", "[1]"], "widths (0,) and depths (1,)"),
        (["--data.patch_size", "30"], "patch_size must be divisible by 4, got 30"),
        (["--data.batch_size", "0"], "data.batch_size is 0: give 1 to 1000000"),
        (["--data.grey", "2"], "grey is a fraction, got 2"),
    ],
)
def test_settings_that_cannot_be_are_named(folder, capsys, arguments, complaint):
    assert main(["fit", "--config", "mine.yaml", *arguments]) in (1, 2)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
    assert complaint in line
    assert not Path("run").exists()


class Malice:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def wrong_file(kind: str) -> str:
    """A file in the current folder that is no checkpoint of a training; its name."""
    file = Path("wrong.ckpt")
    network = random_network()
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    architecture = {"widths": list(network.widths), "depths": list(network.depths)}
    good = {"state_dict": state, "architecture": architecture, "global_step": 3}
    if kind == "empty":
        file.touch()
    elif kind == "page":
        file.write_text("<!doctype html><html></html>")
    elif kind == "folder":
        file.mkdir()
    elif kind == "truncated":
        torch.save(good, file)
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "bomb":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(1 << 26))
    elif kind == "pickle":
        file.write_bytes(pickle.dumps(good | {"extra": Malice()}, protocol=2))
    else:
        changes = {
            "foreign": {"architecture": None},
            "odd": {"architecture": {"widths": "many", "depths": None}},
            "list": {"architecture": [1]},
            "huge": {"architecture": {"widths": [8, 12], "depths": [1, 10**9]}},
            "nan": {"state_dict": state | {"network.stem.bias": state["network.stem.bias"] * torch.nan}},
            "fewer": {"state_dict": {}},
        }[kind]
        content = {key: value for key, value in (good | changes).items() if value is not None}
        torch.save(content, file)
    return str(file)


@pytest.mark.parametrize("command", ["fit", "export"])
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("missing", "No checkpoint at wrong.ckpt: `cclight fit` leaves last.ckpt in its run folder"),
        ("folder", "wrong.ckpt is a folder: name the checkpoint in it, as wrong.ckpt/last.ckpt"),
        ("empty", "is truncated or no checkpoint"),
        ("page", "is a web page"),
        ("truncated", "is truncated or no checkpoint"),
        ("bomb", "is a zip file that unpacks to"),
        ("pickle", "holds Python objects beside tensors and was refused, nothing of it executed"),
        ("foreign", "is no checkpoint of `cclight fit`"),
        ("odd", "is no checkpoint of `cclight fit`"),
        ("list", "is no checkpoint of `cclight fit`"),
        ("huge", "describes no network"),
        ("nan", "holds values that are not finite in 1 of"),
        ("fewer", "describes no network"),
    ],
)
def test_wrong_files_get_one_line_before_any_work(folder, capsys, command, kind, complaint):
    name = "wrong.ckpt" if kind == "missing" else wrong_file(kind)
    arguments = {"fit": ["--config", "mine.yaml", "--ckpt_path", name], "export": [name, "out.safetensors"]}[command]
    assert main([command, *arguments]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
    assert complaint in line
    assert "CCLIGHT_TRACEBACK" not in line
    assert "weights_only" not in line
    assert not any(Path(name).exists() for name in ("executed", "run", "out.safetensors"))


def test_a_checkpoint_of_another_network_names_both(folder, capsys):
    torch.save(torch.load(good(folder), weights_only=True), "other.ckpt")
    assert main(["fit", "--config", "mine.yaml", "--model.warm_start", "embedded", "--ckpt_path", "other.ckpt"]) == 2
    assert "trains a network of widths [8, 12] and depths [1, 1], the configuration one of [64, " in capsys.readouterr().err


def good(folder: Path) -> str:
    network = random_network()
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    architecture = {"widths": list(network.widths), "depths": list(network.depths)}
    torch.save({"state_dict": state, "architecture": architecture, "global_step": 3}, folder / "last.ckpt")
    return str(folder / "last.ckpt")


def test_export_replaces_nothing_unasked(folder, capsys):
    checkpoint = good(folder)
    Path("mine.safetensors").write_bytes(b"precious")
    assert main(["export", checkpoint, "mine.safetensors"]) == 2
    assert "mine.safetensors exists: name another file, or replace it with --overwrite" in capsys.readouterr().err
    assert Path("mine.safetensors").read_bytes() == b"precious"
    assert main(["export", checkpoint, "mine.safetensors", "--overwrite"]) == 0
    assert load("mine.safetensors").widths == (8, 12)
    assert main(["export", checkpoint, "photos"]) == 2
    assert "photos is a folder: name the file to write" in capsys.readouterr().err
    assert main(["export", checkpoint, "nowhere/mine.safetensors"]) == 1
    assert "Could not write nowhere/mine.safetensors (No such file or directory)" in capsys.readouterr().err


def test_export_takes_no_older_checkpoint_for_the_last(folder, capsys):
    checkpoint = Path(good(folder))
    newer = checkpoint.with_name("last-v1.ckpt")
    newer.write_bytes(checkpoint.read_bytes())
    os.utime(checkpoint, (1, 1))
    assert main(["export", str(checkpoint), "out.safetensors"]) == 2
    assert "last.ckpt is older than last-v1.ckpt beside it" in capsys.readouterr().err
    assert main(["export", str(newer), "out.safetensors"]) == 0


def test_a_full_disk_leaves_the_checkpoint_before(small_disk):
    path = small_disk / "run" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, path)
    with pytest.raises(
        RunError, match=r"Could not write .*last\.ckpt \(No space left on device\): the checkpoints before are kept"
    ):
        WholeCheckpoints().save_checkpoint({"step": 2, "large": torch.zeros(1_000_000)}, path)
    assert WholeCheckpoints().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_training_that_diverges_does_not_replace_a_good_checkpoint(folder, capsys):
    assert main(["fit", "--config", "mine.yaml", "--model.learning_rate", "1e15", "--model.warmup_steps", "1"]) == 1
    assert "The training has diverged: after step 2 its weights are not finite" in capsys.readouterr().err
    assert not list(folder.glob("run/*"))
    WholeCheckpoints().save_checkpoint({"state_dict": {"weight": torch.ones(3)}}, "last.ckpt")
    before = Path("last.ckpt").read_bytes()
    with pytest.raises(RunError, match="diverged"):
        WholeCheckpoints().save_checkpoint({"state_dict": {"weight": torch.ones(3) * torch.nan}}, "last.ckpt")
    assert Path("last.ckpt").read_bytes() == before
