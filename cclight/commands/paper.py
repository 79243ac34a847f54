"""The cells of the paper's tables as configurations, and the cell that a run fills.

A number of the paper stands beside a run's where the run is what `configs/paper` says, setting by setting: the operator, the
prior and its checkpoint, the sampler, the noise, the size and number of the photographs, and what each metric is measured with.
A setting that the configurations leave out has its class's default. Free is what the authors searched for each cell and do not
print, and what changes no pixel.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cclight.configs import packaged_configs
from cclight.errors import UsageError
from cclight.runs.results import Run

# Columns in the order of paper_results.yaml; the paper prints KID × 1000.
COLUMNS = ("lpips", "kid", "fid")
# How many photographs the paper measured, and the words by which a copy of a data set names itself.
_PHOTOGRAPHS = {"imagenet": 1000, "celeba_hq": 2000, "afhq_cat": 500, "lsun_bedroom": 300, "ffhq": 1000}
_WORDS = {"celeba_hq": ("celeba",), "afhq_cat": ("afhq", "cat"), "lsun_bedroom": ("lsun", "bedroom")}
_SEARCHED = {"guidance", "lam", "t_start", "zeta"}
_NO_EFFECT = {"activation_checkpointing"}
_DATA = {"image_size": 256, "resize": True, "multiple": 1, "channels": 3, "measurements": False}
_PRECISIONS = (None, 32, "32", "32-true")


@dataclass(frozen=True)
class Cell:
    """One cell of the paper's tables.

    Attributes:
        dataset: the data set and its network, a file of configs/paper.
        task: the degradation, a file of configs/paper.
        sampler: the sampler, a file of configs/paper.
        nfe: network evaluations.
        published: the paper's LPIPS (AlexNet), KID × 1000 and FID.
    """

    dataset: str
    task: str
    sampler: str
    nfe: int
    published: tuple[float, float, float]

    @property
    def name(self) -> str:
        """What its run is called."""
        return f"{self.dataset}-{self.task}-{self.sampler}-{self.nfe}"

    def configs(self) -> list[Path]:
        """The configurations that make it, each on top of those before: the task may set what the sampler leaves open."""
        budget = [f"nfe_{self.nfe}"] if self.sampler not in ("dps", "ddrm") else []
        folder = packaged_configs() / "paper"
        return [folder / f"{name}.yaml" for name in (self.dataset, self.sampler, *budget, self.task, "metrics")]


@cache
def cells() -> tuple[Cell, ...]:
    """Every cell that the paper fills."""
    return tuple(
        Cell(dataset, task, sampler, nfe, tuple(numbers))
        for dataset, tasks in paper_results().items()
        for task, samplers in tasks.items()
        for sampler, budgets in samplers.items()
        for nfe, numbers in budgets.items()
    )


@cache
def paper_results() -> dict[str, Any]:
    """The numbers of the paper's tables: inside an installed package, in benchmarks/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for path in (package / "paper_results.yaml", package.parent / "benchmarks" / "paper_results.yaml"):
        if path.is_file():
            return yaml.safe_load(path.read_text(encoding="utf-8"))
    raise UsageError("paper_results.yaml is missing from the installation: install cclight again")


@cache
def settings(cell: Cell) -> dict[str, Any]:
    """A cell's configurations as one."""
    stack: dict[str, Any] = {}
    for path in cell.configs():
        stack = _merged(stack, _read(path))
    return stack


def published(run: Run) -> dict[str, float]:
    """The paper's LPIPS (AlexNet), KID × 10³ and FID beside which a run's stand; without those that it measured otherwise.

    Args:
        run: a finished run.

    Returns:
        By the metric's name; empty where the paper has no such run.
    """
    cell = cell_of(run)
    numbers = dict(zip(COLUMNS, cell.published, strict=True)) if cell else {}
    if run.metrics.get("lpips", {}).get("title") != "LPIPS (alex)":
        numbers.pop("lpips", None)
    if numbers and not _default_distances(run.distances):
        numbers.pop("kid", None)
        numbers.pop("fid", None)
    return numbers


def cell_of(run: Run) -> Cell | None:
    """The cell of the paper that a run fills, or None."""
    source = str(run.part("data.source")).lower()
    data, precision = run.part("data"), run.part("trainer").get("precision")
    if any(data.get(key, value) != value for key, value in _DATA.items()) or precision not in _PRECISIONS:
        return None
    for cell in cells():
        words = _WORDS.get(cell.dataset, (cell.dataset,))
        if all(word in source for word in words) and run.measured == _PHOTOGRAPHS[cell.dataset] and _fills(run, cell):
            return cell
    return None


def _fills(run: Run, cell: Cell) -> bool:
    if round(run.mean("nfe") or 0) != cell.nfe:
        return False
    wanted = settings(cell)
    if (run.config.get("noise_std") or 0) != (wanted.get("noise_std") or 0):
        return False
    # What costs torch to know, the classes' defaults, comes last.
    parts = [(run.part(name), _part(wanted, name)) for name in ("operator", "model.prior", "model.sampler")]
    return all(_class(ours) == _class(theirs) for ours, theirs in parts) and all(
        _comparable(ours) == _comparable(_with_defaults(theirs)) for ours, theirs in parts
    )


def _default_distances(given: Any) -> bool:
    return _comparable(given) == _comparable(_with_defaults({"class_path": "cclight.FeatureDistances"}))


def _comparable(node: Any) -> Any:
    """A part as what can be compared: classes by their names, without what is None, was searched or changes nothing."""
    if isinstance(node, (list, tuple)):
        return [_comparable(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "class_path" in node:
        return {"class_path": _class(node), **(_comparable(node.get("init_args") or {}) or {})}
    free = _SEARCHED | _NO_EFFECT
    return {str(key): _comparable(value) for key, value in node.items() if value is not None and key not in free}


def _with_defaults(node: Any) -> Any:
    """A part of a configuration with the defaults of its classes, as `cclight predict` resolves it."""
    if not isinstance(node, Mapping) or "class_path" not in node:
        return node
    given = {key: _with_defaults(value) for key, value in (node.get("init_args") or {}).items()}
    return {"class_path": node["class_path"], "init_args": {**_defaults(_class(node)), **given}}


@cache
def _defaults(name: str) -> dict[str, Any]:
    import cclight

    parameters = inspect.signature(getattr(cclight, name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _class(node: Mapping[str, Any]) -> str:
    """A class of cclight by its short name, another by its whole one."""
    path = str(node.get("class_path", ""))
    return path.rpartition(".")[2] if path.startswith("cclight.") else path


def _part(tree: Any, name: str) -> dict[str, Any]:
    for key in name.split("."):
        tree = tree.get(key, {})
    return tree


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


@cache
def _read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: _read(path.parent / value) if key == "data" else value for key, value in content.items()}
