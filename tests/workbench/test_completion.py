"""The completion script: bash itself sources it and completes a word."""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip("shtab")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "cclight", "completion", "bash"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
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


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_other_shells_get_a_script(shell):
    result = subprocess.run(
        [sys.executable, "-m", "cclight", "completion", shell], capture_output=True, text=True, timeout=60, check=True
    )
    assert "predict" in result.stdout
