"""cclight/commands/arguments.py: options are written out, and an error is one line."""

import pytest

from cclight.cli import main

PLAIN = {
    "restore": (["a.png", "--task", "sr"], "--overwrite"),
    "tune": (["--search", "conjugate"], "--trials"),
    "table": (["runs"], "--output"),
    "compare": (["a", "b"], "--metric"),
    "report": (["runs/sr"], "--images"),
    "export": (["last.ckpt", "a.safetensors"], "--overwrite"),
}


@pytest.mark.parametrize("command", PLAIN)
def test_abbreviations_are_not_completed(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, option = PLAIN[command]
    assert main([command, *arguments, option[:-1], "3"]) == 2
    error = capsys.readouterr().err
    if command == "tune":  # whose further options are those of predict
        assert error.startswith("cclight tune: error: ")
    else:
        assert error == f"cclight {command}: error: there is no option {option[:-1]}: did you mean {option}?\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cite"], "the following arguments are required: RUN, `--help` says more"),
        (["cite", "--banana", "runs/sr"], "there is no option --banana, `--help` lists them"),
        (["restore", "--tsk", "sr", "a.png"], "there is no option --tsk: did you mean --task"),
        (
            ["restore", "a.png", "--task", "sr", "--factor", "two"],
            "argument --factor: invalid int value: 'two', `--help` says more",
        ),
        (["restore", "a.png", "--task", "sr", "-x"], "there is no option -x, `--help` lists them"),
        (["list", "-5"], "argument kind: invalid choice: '-5'"),
        (["models", "more"], "unrecognized arguments: more, `--help` says more"),
        (["report", "runs/sr", "--", "--images"], "runs/sr is no run folder"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cclight {arguments[0]}: error: {expected}")
    assert error.count("\n") == 1


def test_numbers_below_zero_are_values(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ("--sigma", "--noise_std"):
        assert main(["restore", "a.png", "--task", "deblur", option, "-1e3"]) == 2
        assert "there is no option" not in capsys.readouterr().err
