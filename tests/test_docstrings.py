"""Every public class and method says what it is, in its own docstring or an inherited one; no room imports too much."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cclight

MODULES = [module.name for module in pkgutil.walk_packages(cclight.__path__, "cclight.")]


@pytest.mark.parametrize("name", cclight.__all__)
def test_public_names_are_documented(name):
    item = getattr(cclight, name)
    assert inspect.getdoc(item), name
    for key, member in vars(item).items():
        if not key.startswith("_") and inspect.isfunction(member):
            assert inspect.getdoc(getattr(item, key)), f"{name}.{key}"


@pytest.mark.parametrize("name", [n for n in cclight.__all__ if "__init__" in vars(getattr(cclight, n))])
def test_constructor_arguments_are_documented(name):
    """YAML is written from these: jsonargparse shows them in --help."""
    item = getattr(cclight, name)
    doc = "\n".join(inspect.getdoc(base) or "" for base in item.__mro__[:-1])  # a field's own class documents it
    for argument in list(inspect.signature(item.__init__).parameters.values())[1:]:
        assert re.search(rf"^\s+[\w, ]*\b{argument.name}\b[\w, ]*:", doc, re.MULTILINE), f"{name}({argument.name})"


@pytest.mark.parametrize("module", MODULES)
def test_modules_open_with_a_docstring(module):
    source = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), module


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_imports_no_torch():
    assert not {"torch", "numpy", "lightning", "jsonargparse"} & modules_after("import cclight")


def test_help_and_version_import_nothing_slow():
    for word in ("--help", "--version"):
        loaded = modules_after(f"import cclight.cli; cclight.cli.main(['{word}'])")
        assert not {"torch", "numpy", "lightning", "jsonargparse", "rich"} & loaded


def test_operators_and_samplers_do_without_the_slow_packages():
    loaded = modules_after("from cclight import Conjugate, BicubicDownsampling, Inpainting, SmallPrior")
    assert not {"lightning", "torchmetrics", "datasets", "torchvision", "jsonargparse"} & loaded
