"""The example of extending cclight runs from a user's own folder."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

from tests.test_cli import cclight

HERE = Path(__file__).parent


def test_ones_own_parts_run_from_yaml(tmp_path):
    for name in ("my_parts.py", "mine.yaml"):
        shutil.copy(HERE / name, tmp_path)
    quick = ["--data.image_size", "64", "--data.limit", "2", "--metrics.per_image", "[PSNR]"]
    result = cclight("predict", "--config", "mine.yaml", *quick, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "runs" / "mine" / "metrics.json").read_text())["metrics"]
    assert metrics["psnr"]["mean"] > 15
    assert metrics["nfe"]["mean"] == 5
    assert metrics["consistency"]["mean"] < 0.02
    result = cclight("check-operator", "my_parts.Interlacing", cwd=tmp_path)
    assert result.returncode == 0, result.stdout


def test_each_part_takes_less_than_thirty_lines():
    tree = ast.parse((HERE / "my_parts.py").read_text(encoding="utf-8"))
    sizes = {node.name: node.end_lineno - node.lineno for node in tree.body if isinstance(node, ast.ClassDef)}
    assert set(sizes) == {"Interlacing", "DataProjection", "Smooth"}
    assert max(sizes.values()) < 30


def test_the_page_on_extending_shows_this_file():
    readme = (HERE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in ("my_parts.py", "mine.yaml"):
        text = (HERE / name).read_text(encoding="utf-8")
        start = text.find("class Interlacing") if name.endswith(".py") else 0
        assert text[start:].strip() in readme
