"""What a finished run left behind, read back: its configuration, its numbers and its pictures. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cclight.errors import UsageError
from cclight.runs.files import write_whole
from cclight.runs.folder import KINDS, Kind, RunFolder
from cclight.runs.records import Record

if TYPE_CHECKING:
    from cclight.metrics.summary import Summary


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: the resolved configuration, config.yaml.
        summary: the content of metrics.json: images, failed, left_out and metrics by name.
        records: each image's numbers by index, as `cclight.runs.folder` keeps them; a failed one holds `failed`.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    records: dict[int, Record]

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a run folder.

        Raises:
            UsageError: when it is none, or when the run is not finished; names the remedy.
        """
        folder = Path(path)
        if not (folder / "config.yaml").is_file():
            raise UsageError(f"{folder} is no run folder: give one that `cclight predict` has written, as runs/sr")
        if not (folder / "metrics.json").is_file():
            raise UsageError(f"{folder} holds an unfinished run: run its `cclight predict` again, it computes what is missing")
        return cls(
            folder,
            yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) or {},
            json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
            RunFolder(folder.name, str(folder.parent)).finished(),
        )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Each metric of metrics.json by name: title, direction, digits, and mean with interval or `unavailable`."""
        return self.summary["metrics"]

    def mean(self, metric: str) -> float | None:
        """A metric over the whole run; None where it was not measured or is unavailable."""
        return self.metrics.get(metric, {}).get("mean")

    def values(self, metric: str) -> dict[int, float]:
        """A metric of each image by index, without the failed ones."""
        return {index: record[metric] for index, record in self.records.items() if metric in record}

    def part(self, name: str) -> dict[str, Any]:
        """A part of the configuration with its class_path and init_args: operator, model.prior, model.sampler, data.source.

        Returns:
            The part, or an empty dictionary where the run has none.
        """
        node: Any = self.config
        for key in name.split("."):
            node = (node or {}).get(key) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def class_name(self, name: str) -> str:
        """The short name of the class of a part: `Conjugate` for cclight.samplers.conjugate.Conjugate."""
        return str(self.part(name).get("class_path", "")).rpartition(".")[2]

    def picture(self, kind: Kind, index: int) -> Path | None:
        """An image's saved picture, or None where it was not saved."""
        assert kind in KINDS
        folder = RunFolder(self.path.name, str(self.path.parent))
        path = folder.file(kind, index, self.records[index]["name"])
        return path if path.is_file() else None


def write_results(
    run: RunFolder, records: dict[int, Record], summaries: dict[str, Summary], left_out: dict[int, str] | None = None
) -> Run:
    """Write metrics.csv, one line per image, and then metrics.json, which marks the run as finished.

    Args:
        run: where to.
        records: by image index.
        summaries: by the metric's name.
        left_out: photographs that could not be used, and why, by index.

    Returns:
        The run as a reader of the folder would find it.

    Raises:
        RunError: when they cannot be written.
    """
    failed = [{key: record[key] for key in ("index", "name", "failed")} for record in records.values() if "failed" in record]
    columns = ["index", "name", *(name for name in summaries if any(name in record for record in records.values()))]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "failed"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records.values())
    write_whole(run.path / "metrics.csv", text.getvalue().encode())
    results = {
        "images": len(records),
        "failed": failed,
        "left_out": [{"index": index, "reason": reason} for index, reason in sorted((left_out or {}).items())],
        "metrics": {name: summary.as_json() for name, summary in summaries.items()},
        "versions": {package: _version(package) for package in ("cclight", "torch", "lightning", "torchmetrics")},
    }
    content = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(run.path / "metrics.json", content.encode())
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8")) or {}
    return Run(run.path, config, json.loads(content), records)


def _version(package: str) -> str:
    """A package's version, also of one that is imported from a checkout and was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
