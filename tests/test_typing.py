"""Editors and type checkers see the public names: a wrong argument is an error before anything runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cclight

SNIPPET = """
import cclight
from cclight import BicubicDownsampling, Conjugate, SmallPrior

prior: cclight.Prior = SmallPrior()
sampler = Conjugate(steps=5, guidance=2.0)
operator, prior, other, noise_std = cclight.recipe("sr")
reveal_type(other)
image = sampler.sample(prior, BicubicDownsampling(4), operator(None)).image  # error: None is no tensor
wrong = Conjugate(stepz=5)
sampler.steps = 7
"""


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse(Path(cclight.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (str(node.module).removeprefix("cclight."), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(room, name) for room, names in cclight._ROOMS.items() for name in names}
    assert (Path(cclight.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_a_wrong_argument_is_an_error(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    # From the root and with its settings, so that what mypy has found out about the library (CI runs it first) is used again.
    command = [sys.executable, "-m", "mypy", str(tmp_path / "snippet.py")]
    root = Path(cclight.__file__).parents[1]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"MYPYPATH": ".", "PATH": ""}, check=False)
    assert 'Unexpected keyword argument "stepz" for "Conjugate"' in result.stdout
    assert 'Property "steps" defined in "Conjugate" is read-only' in result.stdout
    assert 'Revealed type is "cclight.samplers.base.Sampler"' in result.stdout
    assert len([line for line in result.stdout.splitlines() if ": error:" in line]) == 2, result.stdout
