"""What is wrong with a command line is told in one line that names the key, what it takes and what was given."""

from __future__ import annotations

import contextlib

import pytest

from cclight.cli import main
from cclight.commands import explain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.sampler", "JPEG"], "model.sampler takes a sampler, and JPEG is an operator: choose Conjugate, "),
        (["--model.sampler.class_path", "DSP"], "model.sampler takes a sampler, and there is no DSP: did you mean DPS?"),
        (["--operator", "DPS"], "operator takes an operator, and DPS is a sampler: choose AveragePooling, "),
        (["--model.prior", "SmalPrior"], "model.prior takes a prior, and there is no SmalPrior: did you mean SmallPrior"),
        (
            ["--operator", "Inpainting", "--operator.mask", "Boxx"],
            "operator.mask takes a mask, and there is no Boxx: did",
        ),
        (["--model.sampler", "null"], "model.sampler takes a sampler, and there is no None"),
        (["--model.sampler", ""], "model.sampler takes a sampler, and there is no class without a name"),
        (["--model.sampler", "none.yaml"], "model.sampler: there is no file none.yaml"),
        (["--trainer", "none.yaml"], "trainer: there is no file none.yaml"),
        (["--model.prior", "ADM"], "model.prior.checkpoint is missing: give --model.prior.checkpoint"),
        (["--data.source", "HFDataset"], "data.source.path, data.source.split are missing: give --data.source.path"),
        (["--run.nam", "x"], "there is no option --run.nam: did you mean --run.name?"),
        (["--optimizer", "Adam"], "there is no option --optimizer"),
        (["--lr_scheduler", "StepLR"], "there is no option --lr_scheduler"),
        (["--sampler", "DPS"], "there is no option --sampler: did you mean --model.sampler?"),
        (["--steps", "3"], "there is no option --steps: did you mean --model.sampler.steps?"),
        (["--sampler.steps", "3"], "there is no option --sampler.steps: did you mean --model.sampler.steps?"),
        (["--weights", "x"], "there is no option --weights: did you mean --model.prior.weights?"),
        (["--factor", "3"], "there is no option --factor: did you mean --operator.factor?"),
        (["--seed", "3"], "there is no option --seed: did you mean --data.seed?"),
        (["--noise", "0.1"], "there is no option --noise: did you mean --noise_std?"),
        (["--data.noise", "0.1"], "there is no option --data.noise: did you mean --noise_std?"),
        (["--data.path", "x"], "there is no option --data.path: did you mean --data.source ImageFolder --data.source.path?"),
        (["--fp16"], "there is no option --fp16: did you mean --trainer.precision 16-mixed?"),
        (["--trainer.device", "3"], "there is no option --trainer.device: did you mean --trainer.devices?"),
        (
            ["--data.source", "my/photos"],
            "not a place (photographs of a folder: --data.source ImageFolder --data.source.path my",
        ),
        (
            ["--data.source", "./photos"],
            "not a place (photographs of a folder: --data.source ImageFolder --data.source.path ./p",
        ),
        (["--data", "my/photos"], "data: there is no file my/photos (photographs of a folder: --data.source ImageFolder"),
        (["sr.yaml"], "sr.yaml stands without an option: did you mean --config sr.yaml?"),
        (["--operator.mask", "Box"], "operator.mask is no setting of BicubicDownsampling: it takes factor"),
        (
            ["--data.source.path", "x"],
            "data.source.path is no setting of SamplePhotographs: it takes files (--data.source ImageFolder chooses another)",
        ),
        (["--config", "fit_small.yaml"], "model.warm_start is no setting of this command"),
        (["--trainer.accelerator", "gpu"], "(--trainer.accelerator gpu): `auto` takes what is here"),
        (["--trainer.devices", "0"], "(--trainer.devices 0): `auto` takes what is here"),
        (["--trainer.limit_predict_batches", "-1"], "the trainer cannot start: You have passed invalid value -1"),
        (
            ["--operator", "MotionBlur", "--operator.kernel", "LineKernel", "--operator.kernel.length", "1e9"],
            "error: LineKernel needs",
        ),
    ],
)
def test_one_line_says_what_to_do(arguments, message, tmp_path, monkeypatch, capsys):
    if "gpu" in arguments:
        import torch

        if torch.cuda.is_available() or torch.backends.mps.is_available():
            pytest.skip("there is a GPU here")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--config", "sr.yaml", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("option", sorted(explain._ELSEWHERE))
def test_what_others_call_an_option_leads_to_one_that_there_is(option, tmp_path, monkeypatch, capsys):
    """Given as it is told, the option is there, whatever is said of its value."""
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--config", "fit_small.yaml"] if option == "lr" else ["predict", "--config", "sr.yaml"]
    assert main([*command, f"--{option}", "3"]) == 2
    told = capsys.readouterr().err.partition("did you mean ")[2].strip().rstrip("?").split()
    assert told
    value = ["1"] if told[-1].startswith("--") else []
    with contextlib.suppress(SystemExit):  # its end, where it accepts the value
        assert main([*command, *told, *value, "--print_config"]) == 2
    assert "no option" not in capsys.readouterr().err


def test_fit_is_not_told_of_options_that_predict_alone_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in ("--out", "--size", "--steps"):
        assert main(["fit", "--config", "fit_small.yaml", option, "3"]) == 2
        assert f"there is no option {option}, `--help all` lists them" in capsys.readouterr().err


def test_what_is_missing_is_named_with_a_configuration_to_begin_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict"]) == main(["fit"]) == main(["check-operator"]) == 2
    predict, fit, check = capsys.readouterr().err.splitlines()
    assert "model.prior, model.sampler, data.source, operator are missing: name a configuration (--config sr.yaml)" in predict
    assert "data.source is missing: name a configuration (--config fit_small.yaml)" in fit
    assert check == "cclight check-operator: error: operator is missing: give --operator"


def test_check_operator_speaks_of_its_own_options(capsys):
    assert main(["check-operator", "BicubicDownsampling", "--image_shape", "[3, 9, 9]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("got 9×9: set --image_shape to a multiple of 4.")


def test_evaluate_completes_no_option_and_names_no_configuration(run, capsys):
    assert main(["evaluate", str(run), "--metrics.per_imag", "[PSNR]"]) == main(["evaluate"]) == 2
    option, run_missing = capsys.readouterr().err.splitlines()
    assert option.endswith("there is no option --metrics.per_imag: did you mean --metrics.per_image?")
    assert "which run? Give the folder of a finished one" in run_missing


def test_inception_is_ours(tmp_path, monkeypatch, capsys):
    """torchvision has one too, which made the name ambiguous."""
    monkeypatch.chdir(tmp_path)
    network = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", "Inception"]
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--config", "sr.yaml", *network, "--print_config=skip_default"])
    assert "class_path: cclight.Inception" in capsys.readouterr().out
