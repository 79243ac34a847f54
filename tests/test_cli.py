"""The command line as a user runs it: in a process of its own, in a folder of their own."""

from __future__ import annotations

import csv
import json
import os
import shutil
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
from cclight.commands.predict import PredictCLI
from cclight.configs import find_config, packaged_configs
from cclight.priors.small import load, save
from cclight.runs.folder import RunFolder
from tests import processes
from tests.priors.test_small import random_network

CCLIGHT = (sys.executable, "-m", "cclight")


def cclight(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*CCLIGHT, *arguments]
    return processes.run(command, cwd=cwd, env={**os.environ, **environment})


@pytest.fixture
def folder(tmp_path) -> Path:
    """A user's folder: three photographs, one broken file, a tiny prior, and a configuration."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((40, 36), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"photo{i}.png")
    (tmp_path / "photos" / "broken.png").write_bytes((tmp_path / "photos" / "photo0.png").read_bytes()[:200])
    save(random_network(), tmp_path / "tiny.safetensors")
    config = {
        "operator": {"class_path": "BicubicDownsampling", "init_args": {"factor": 4}},
        "model": {
            "prior": {"class_path": "SmallPrior", "init_args": {"weights": "tiny.safetensors"}},
            "sampler": {"class_path": "Conjugate", "init_args": {"steps": 2}},
        },
        "data": {
            "source": {"class_path": "ImageFolder", "init_args": {"path": "photos"}},
            "image_size": 32,
            "batch_size": 2,
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_predict_restores_measures_and_writes(folder):
    """Everything a run leaves behind, an unreadable file passed over, and a second run refused."""
    result = cclight("predict", "--config", "mine.yaml", "--trainer.accelerator", "cpu", cwd=folder, TORCH_HOME=str(folder))
    assert result.returncode == 0, result.stderr
    run = folder / "runs" / "mine"
    names = {f"{i:05d}_photo{i - 1}.png" for i in (1, 2, 3)}
    for kind in ("restored", "measurement", "clean"):
        assert {path.name for path in (run / kind).iterdir()} == names
    assert Image.open(run / "restored" / "00001_photo0.png").size == (32, 32)
    assert Image.open(run / "measurement" / "00001_photo0.png").size == (8, 8)
    assert (run / "grid.png").is_file()
    assert not list(run.rglob("*.tmp"))
    # Nothing else in the current folder, no config.yaml either; hub is TORCH_HOME's.
    assert {path.name for path in folder.iterdir()} == {"photos", "tiny.safetensors", "mine.yaml", "runs", "hub"}
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert metrics["psnr"]["images"] == 3
    assert metrics["nfe"]["mean"] == 2
    assert "weights could not be loaded" in metrics["lpips"]["unavailable"]
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["photo0", "photo1", "photo2"]
    mean = sum(float(row["psnr"]) for row in rows) / 3
    assert metrics["psnr"]["mean"] == pytest.approx(mean)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["sampler"]["init_args"]["guidance"] == 15.0  # the defaults are resolved
    assert "broken.png" in result.stderr
    assert result.stderr.count("LPIPS (squeeze) is unavailable") == 1
    assert "PSNR (dB)" in result.stdout

    again = cclight("predict", "--config", "mine.yaml", "--trainer.accelerator", "cpu", cwd=folder)
    assert again.returncode == 1
    assert "already holds a finished run" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_a_killed_command_is_finished_by_the_same_command(folder, monkeypatch):
    """The configuration that the first one kept does not stand in the second one's way."""
    monkeypatch.chdir(folder)
    many_steps = [
        "--model.sampler.init_args.steps",
        "100",
        "--metrics.per_image",
        "[PSNR,SSIM]",
        "--trainer.accelerator",
        "cpu",
    ]
    command = ["predict", "--config", "mine.yaml", "--data.batch_size", "1", *many_steps]
    run = RunFolder("mine")
    process = subprocess.Popen([*CCLIGHT, *command], stdout=-1, stderr=-1, text=True)
    while not run.finished():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run.path / "metrics.json").exists()
    pictures = [run.file("restored", index, record["name"]) for index, record in run.finished().items()]
    finished = {path: path.stat().st_mtime_ns for path in pictures}
    assert main(command) == 0
    assert main([*command, "--run.root", "whole"]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for path in (folder / "whole").rglob("*.png"):
        assert (folder / "runs" / path.relative_to(folder / "whole")).read_bytes() == path.read_bytes(), path
    one, two = (
        json.loads((root / "mine" / "metrics.json").read_text())["metrics"] for root in (folder / "runs", folder / "whole")
    )
    assert one.pop("seconds")["images"] == two.pop("seconds")["images"] == 3
    assert one == two


def test_predict_keeps_no_images_and_lets_autograd_work(folder, monkeypatch):
    """Lightning's defaults would gather all images in memory, and break the sampler's derivative on one device."""
    monkeypatch.chdir(folder)
    cli = PredictCLI.build(["--config", "mine.yaml", "--metrics.per_image", "[PSNR]", "--trainer.accelerator", "cpu"])
    cli.go()
    assert cli.trainer.predict_loop.predictions == []
    metrics = json.loads((folder / "runs" / "mine" / "metrics.json").read_text())["metrics"]
    assert metrics["psnr"]["images"] == 3


def test_a_folder_that_cannot_be_written_is_told_before_any_work(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["predict", "--config", "mine.yaml", "--run.root", "mine.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "error: Could not make the folder mine.yaml/mine (Not a directory): set run.root to a folder you can write to" in line
    )


def test_configurations_stack_and_a_part_may_be_a_file(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "more.yaml").write_text("{noise_std: 0.1, data: {batch_size: 1}}")
    (folder / "dps.yaml").write_text("{class_path: DPS, init_args: {steps: 7}}")
    stacked = ["--config", "mine.yaml", "--config", "more.yaml", "--model.sampler", "dps.yaml"]
    with pytest.raises(SystemExit, match="0"):
        main(["predict", *stacked, "--print_config=skip_default"])
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["model"]["sampler"] == {"class_path": "cclight.DPS", "init_args": {"steps": 7}}
    assert (config["noise_std"], config["data"]["batch_size"], config["data"]["image_size"]) == (0.1, 1, 32)
    assert text.count("\n") < 40  # skip_default keeps it readable


def test_predict_takes_a_users_own_measurements(folder):
    arguments = ["--data.measurements", "true", "--data.batch_size", "1", "--run.name", "own", "--data.limit", "2"]
    result = cclight("predict", "--config", "mine.yaml", *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    run = folder / "runs" / "own"
    assert Image.open(run / "restored" / "00001_photo0.png").size == (160, 144)
    assert not (run / "clean").exists()
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert "not applicable" in metrics["psnr"]["unavailable"]
    assert metrics["consistency"]["images"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.sampler.class_path", "Conjugat"], "did you mean Conjugate or Conjugate"),
        (
            ["--model.sampler.init_args.step", "3"],
            "model.sampler.step is no setting of Conjugate: did you mean steps or timesteps?",
        ),
        (["--data.sauce", "x"], "data.sauce"),
        (["--data.limit", "x"], "data.limit is x: give a whole number"),
        (["--metrics.per_image", "PSNR"], "metrics.per_image is PSNR: give a list, as '[PSNR, LPIPS]'"),
        (["--model.sampler.init_args.steps", "0"], "steps must be at least 1, got 0"),
        (["--data.image_size", "30"], "divisible by its factor 4, got 30×30: set data.image_size to a multiple of 4"),
        (["--data.source.init_args.path", "nowhere"], "nowhere"),
        (["--model.prior.init_args.weights", "none.safetensors"], "No weights at none.safetensors"),
        (["--data.channels", "1"], "takes images of 3 channels, got 1"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, arguments, message, monkeypatch, capsys):
    """In this process, behind the command's name: Lightning's import takes ten times as long as all the rest."""
    monkeypatch.chdir(folder)
    assert main(["predict", "--config", "mine.yaml", "--trainer.accelerator", "cpu", *arguments]) in (1, 2)
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("cclight predict: error: ")
    assert message in errors


def test_a_mistake_ends_the_command_with_a_code_and_one_line(folder):
    result = cclight("predict", "--config", "mine.yaml", "--model.sampler.init_args.steps", "0", cwd=folder)
    assert result.returncode == 2
    (error,) = (line for line in result.stderr.splitlines() if "error: " in line)
    assert "steps must be at least 1, got 0" in error
    assert "Traceback" not in result.stderr


def test_an_empty_folder_is_refused_before_any_work(folder):
    (folder / "empty").mkdir()
    result = cclight("predict", "--config", "mine.yaml", "--data.source.init_args.path", "empty", cwd=folder)
    assert result.returncode == 1
    assert "empty" in result.stderr
    assert not (folder / "runs" / "mine" / "metrics.json").exists()


def test_fit_and_export_work_from_the_command_line(folder):
    arguments = ["--model.warm_start", "tiny.safetensors", "--trainer.max_steps", "3", "--data.patch_size", "32"]
    source = ["--data.source", "ImageFolder", "--data.source.init_args.path", "photos"]
    result = cclight("fit", "--config", "fit_small.yaml", *source, *arguments, "--trainer.accelerator", "cpu", cwd=folder)
    assert result.returncode == 0, result.stderr
    result = cclight("export", "runs/fit_small/last.ckpt", "trained.safetensors", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert load(str(folder / "trained.safetensors")).widths == load(str(folder / "tiny.safetensors")).widths


def test_help_version_and_unknown_commands(tmp_path):
    def start(*arguments):
        return subprocess.run([*CCLIGHT, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert "predict" in start("--help").stdout
    assert start("--version").stdout.startswith("cclight 0.")
    result = start("predikt")
    assert (result.returncode, result.stderr.strip()) == (2, "cclight: error: unknown command 'predikt': did you mean predict?")
    result = start("predict", "--config", "st.yaml")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "did you mean sr.yaml" in result.stderr


@pytest.mark.parametrize("begun", [0.3, 1.5])
def test_an_interrupt_during_imports_is_told_in_a_line(tmp_path, begun):
    process = subprocess.Popen([*CCLIGHT, "predict", "--config", "sr.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(begun)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert error == "cclight predict: error: interrupted\n"
    # Where it meets C code that runs Python, the interpreter ends itself by the signal: 130 to a shell, too.
    assert process.returncode in (130, -signal.SIGINT)


def test_an_interrupt_of_which_a_library_made_an_error_is_one(monkeypatch, capsys):
    def broken(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("torch is broken") from error

    monkeypatch.setattr("cclight.commands.list.main", broken)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "cclight list: error: interrupted\n"


def test_an_error_that_nobody_foresaw_is_one_line_too(monkeypatch, capsys):
    def broken(arguments):
        raise KeyError("a\nb")

    monkeypatch.setattr("cclight.commands.list.main", broken)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "cclight list: error: KeyError: 'a\\nb' (CCLIGHT_TRACEBACK=1 shows where)\n"
    monkeypatch.setenv("CCLIGHT_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["list"])


def test_runs_of_one_configuration_and_another_setting_do_not_meet(folder, monkeypatch, capsys):
    """The first commands of the README: each gets a folder of its own, and finds it again."""
    monkeypatch.chdir(folder)
    command = ["predict", "--config", "mine.yaml", "--metrics.per_image", "[]", "--data.limit", "2"]
    assert main(command) == 0
    for _ in range(2):
        code = main([*command, "--operator.factor", "2", "--model.sampler", "PiGDM", "--model.sampler.steps", "1"])
        assert "runs/mine holds another configuration, this run is runs/mine-factor2-PiGDM" in capsys.readouterr().err
    assert code == 1  # it is finished
    assert main([*command, "--noise_std", "0.1", "--run.overwrite", "true"]) == 0
    assert {path.name for path in (folder / "runs").iterdir()} == {"mine", "mine-factor2-PiGDM"}
    assert yaml.safe_load((folder / "runs" / "mine" / "config.yaml").read_text())["noise_std"] == 0.1


def test_a_logger_without_a_folder_writes_into_the_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    logger = ["--trainer.logger", "CSVLogger", "--metrics.per_image", "[PSNR]"]
    assert main(["predict", "--config", "mine.yaml", *logger]) == 0
    (numbers,) = (folder / "runs" / "mine").rglob("lightning_logs/version_0/metrics.csv")
    assert "psnr" in numbers.read_text()


def test_packaged_configs_are_found_by_name_unless_a_file_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("sr.yaml") == packaged_configs() / "sr.yaml" == find_config("configs/sr.yaml")
    shutil.copy(packaged_configs() / "sr.yaml", tmp_path / "sr.yaml")
    assert find_config("sr.yaml") == Path("sr.yaml")


_PAGES = ("table", "compare", "cite", "report")
_SLOW = ("torch", "lightning", "datasets", "optuna", "numpy", "rich")


@pytest.mark.parametrize("arguments", ["--help", "--version", "list", "list samplers", *(f"{page} --help" for page in _PAGES)])
def test_the_front_door_imports_no_torch_and_little_else(tmp_path, arguments):
    """A shell's prompt should not wait for Lightning: what answers from the source alone imports neither, nor much besides."""
    code = f"""
import contextlib, io, sys
from cclight.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main({arguments.split()!r})
print(len(sys.modules), *(name for name in {_SLOW} if name in sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    count, *slow = result.stdout.split()
    assert slow == []
    assert int(count) < 350  # Python itself brings about 60, argparse and the site's own hooks more; torch over 1500


def test_a_package_in_a_zip_is_refused_before_any_work(tmp_path):
    root = Path(sys.modules["cclight"].__file__).parent
    shutil.make_archive(str(tmp_path / "wheel"), "zip", root.parent, root.name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "wheel.zip"), "PYTHONSAFEPATH": "1"}
    line = (
        sys.executable,
        "-c",
        "import sys, cclight.cli; sys.exit(cclight.cli.main(sys.argv[1:]))",
        "predict",
        "--config",
        "sr.yaml",
    )
    told = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    expected = f"{tmp_path / 'wheel.zip'} is no folder, and weights and configurations are read as files: unpack or install it"
    assert (told.returncode, told.stderr) == (1, f"cclight predict: error: {expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["wheel.zip"]
