"""Finished runs, read back: what the commands that tabulate, compare, show and cite have in common. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cclight.runs import Record, RunError, RunFolder


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        path: its folder.
        name: what tables call it: the folder's name.
        config: the resolved configuration.
        metrics: the content of metrics.json under `metrics`: by metric, its mean and what it means.
        records: the per-image numbers by image index.
    """

    path: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    records: dict[int, Record]

    @property
    def images(self) -> int:
        """How many images the means rest on."""
        return sum("failed" not in record for record in self.records.values())

    @property
    def task(self) -> str:
        """The operator with its settings, and the noise where there is any: `BicubicDownsampling(factor=4)`."""
        noise = self.config.get("noise_std") or 0.0
        return called(self.config.get("operator")) + (f" + noise {noise:g}" if noise else "")

    @property
    def sampler(self) -> str:
        """The sampler's class."""
        return class_name(self.config.get("model", {}).get("sampler"))

    @property
    def prior(self) -> str:
        """The prior with its settings."""
        return called(self.config.get("model", {}).get("prior"))

    @property
    def data(self) -> str:
        """Where the photographs came from."""
        return called(self.config.get("data", {}).get("source"))

    @property
    def nfe(self) -> float | None:
        """Network evaluations on each image."""
        return self.mean("nfe")

    def mean(self, metric: str) -> float | None:
        """A metric's mean, or None where it could not be had."""
        return self.metrics.get(metric, {}).get("mean")

    def picture(self, kind: str, index: int) -> Path | None:
        """A picture of an image, where it was kept."""
        path = RunFolder(self.path.name, str(self.path.parent)).file(kind, index, self.records[index]["name"])  # type: ignore[arg-type]
        return path if path.is_file() else None


def read(folder: str | Path) -> Result:
    """A finished run from its folder.

    Raises:
        RunError: for a folder that holds none; names the remedy.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunError(f"There is no run folder {path}: give one that `cclight predict` made, such as runs/sr.")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        results = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        remedy = "run its command again to finish it" if missing == "metrics.json" else "give one that `cclight predict` made"
        raise RunError(f"{path} holds no {missing}, so it is no finished run: {remedy}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({' '.join(str(error).split())}): run its command again.") from error
    records = RunFolder(path.name, str(path.parent)).finished()
    return Result(path, path.resolve().name, config or {}, results["metrics"], records)


def read_all(folders: Iterable[str | Path]) -> list[Result]:
    """Several finished runs; two of one name are told apart by their folders.

    Raises:
        RunError: for a folder that holds none.
    """
    runs = [read(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        Result(run.path, str(run.path), run.config, run.metrics, run.records) if names.count(run.name) > 1 else run for run in runs
    ]


def class_name(part: Any) -> str:
    """The class of a part of a configuration, without its module."""
    return str(part["class_path"]).rpartition(".")[2] if isinstance(part, Mapping) and "class_path" in part else str(part)


def called(part: Any) -> str:
    """A part of a configuration as one would write it in Python: `GaussianBlur(sigma=3.0, width=61)`."""
    if not (isinstance(part, Mapping) and "class_path" in part):
        return f"{part:g}" if isinstance(part, float) else str(part)
    arguments = ", ".join(f"{k}={called(v)}" for k, v in (part.get("init_args") or {}).items() if v is not None)
    return f"{class_name(part)}({arguments})" if arguments else class_name(part)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration's leaves by dotted key, without `class_path` and `init_args` between."""
    if isinstance(tree, Mapping) and tree:
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            inner = prefix if key in ("class_path", "init_args") else f"{prefix}.{key}" if prefix else str(key)
            leaves.update(flatten(value, inner))
        return leaves
    return {prefix: tree}


def differences(one: Result, two: Result, sections: tuple[str, ...] = ("operator", "noise_std", "model", "data")) -> list[str]:
    """The settings in which two runs differ and that results may depend on, one in each line."""
    left, right = (flatten({key: run.config.get(key) for key in sections}) for run in (one, two))
    skip = ("data.noise_std", "model.noise_std", "data.batch_size", "data.num_workers")
    keys = [key for key in [*left, *(key for key in right if key not in left)] if key not in skip]
    return [f"{key}: {left.get(key)} / {right.get(key)}" for key in keys if left.get(key) != right.get(key)]
