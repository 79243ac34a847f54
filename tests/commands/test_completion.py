"""The completion script: the shells themselves take it and complete a word."""

import re
import shutil
import subprocess
import sys

import pytest

from cclight.commands.completion import front_door
from tests import processes

pytest.importorskip("shtab")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(tmp_path):
    script = script_for("bash")
    (tmp_path / "cclight.bash").write_text(script)

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        name = next(text.split()[4] for text in script.splitlines() if text.startswith("complete -o") and " -F " in text)
        commands = f"""
        source cclight.bash
        COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        {name}
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        result = subprocess.run(["bash", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        return result.stdout.split()

    assert complete("cclight", "pred") == ["predict"]
    assert {"--task", "--factor"} <= set(complete("cclight", "restore", "--"))
    assert complete("cclight", "list", "sam") == ["samplers"]


# zsh completes at a terminal alone: it is driven through one of its own.
_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'fpath=($PWD $fpath); autoload -U compinit; compinit -u -d dump; bindkey "^I" complete-word; echo REA""DY'
zpty -r -m shell shown '*READY*'
zpty -n -w shell 'cclight restore --task j'$'\t'
zpty -r -m shell shown '*jpeg*' && echo completed
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_a_choice(tmp_path):
    (tmp_path / "_cclight").write_text(script_for("zsh"))
    result = subprocess.run(["zsh", "-f", "-c", _ZSH], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.strip() == "completed", result.stderr


@pytest.mark.skipif(shutil.which("tcsh") is None, reason="tcsh is not installed")
def test_tcsh_takes_the_script(tmp_path):
    (tmp_path / "cclight.csh").write_text(script_for("tcsh"))
    commands = "source cclight.csh; complete cclight"
    result = subprocess.run(
        ["tcsh", "-f", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "predict restore evaluate" in result.stdout


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_other_shells_get_a_script(shell):
    assert "predict" in script_for(shell)


@pytest.mark.parametrize(
    "command", ["restore", "tune", "table", "compare", "report", "evaluate", "check-operator", "export", "cite", "models"]
)
def test_every_option_is_completed(command):
    """Those that the command's own help lists; predict and fit have thousands, of which the common ones are."""
    text = processes.run([sys.executable, "-m", "cclight", command, "--help"]).stdout
    told = set(re.findall(r"^ +(?:-\w, )?(--[\w.]+)", text, flags=re.MULTILINE)) - {"--help", "--operator"}
    parsers = front_door({}, {})._subparsers._group_actions[0].choices
    assert {option for option in told if not option.endswith((".help", "+"))} <= set(parsers[command]._option_string_actions)


def test_files_and_folders_are_completed_as_such():
    parsers = front_door("a file", "a folder")._subparsers._group_actions[0].choices

    def completed(command, name):
        return next(getattr(action, "complete", None) for action in parsers[command]._actions if action.dest == name)

    assert completed("predict", "config") == completed("tune", "search") == completed("export", "checkpoint") == "a file"
    assert completed("report", "runs") == completed("tune", "output") == completed("evaluate", "run") == "a folder"
    assert completed("report", "jpeg") is None


def script_for(shell):
    command = [sys.executable, "-m", "cclight", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
