"""A console that knows few characters, as Windows' code pages do, ends no command: what it cannot show is a question mark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from tests import processes
from tests.commands.conftest import config

COMMANDS = [
    ["predict", "--config", "new.yaml"],
    ["table", "runs"],
    ["compare", "runs/conjugate", "runs/pigdm"],
    ["report", "runs/conjugate"],
    ["cite", "runs/conjugate"],
    ["evaluate", "runs/conjugate", "--metrics.per_image", "[PSNR]"],
    ["list"],
    ["models"],
    ["completion", "bash"],
    ["check-operator", "Colorization"],
    ["restore", "photo.png", "--task", "sr", "--factor", "2", "--steps", "1"],
    ["predict", "--help"],
    ["--help"],
    ["predict", "--config", "nothing–here.yaml"],
]


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    shutil.copytree(runs, folder / "runs")
    (folder / "new.yaml").write_text(yaml.safe_dump({**config("Conjugate", steps=1), "metrics": {"per_image": []}}))
    Image.linear_gradient("L").resize((24, 24)).convert("RGB").save(folder / "photo.png")
    return folder


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_every_command_shows_what_the_console_can(arguments, folder):
    if arguments[0] == "completion":
        pytest.importorskip("shtab")
    for encoding in ("ascii", "cp437", "cp1252") if arguments[0] in ("list", "models") else ("ascii",):
        command = [sys.executable, "-m", "cclight", *arguments]
        result = processes.run(command, cwd=folder, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert result.returncode == (2 if "nothing" in arguments[-1] else 0), result.stderr
        assert "Error" not in result.stderr
        assert (result.stdout or result.stderr).isascii() or encoding != "ascii"


def test_a_warning_is_one_line_that_names_the_command(tmp_path):
    """For the process of a command; whoever calls `main` from Python keeps Python's warnings."""
    (tmp_path / "m.py").write_text("import warnings\ndef main(rest):\n    warnings.warn('a mask\\nis odd', stacklevel=1)\n")
    code = "import sys, m, cclight.cli as c; c.COMMANDS['list'] = ('', 'm:main'); sys.argv[1:] = ['list']; {}"
    ends = {}
    for call in ("c.main()", "c.main(['list'])"):
        command = [sys.executable, "-c", code.format(call)]
        ends[call] = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stderr
    assert ends["c.main()"] == "cclight list: warning: a mask is odd\n"
    assert "m.py:3: UserWarning: a mask" in ends["c.main(['list'])"]
