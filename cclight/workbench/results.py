"""What a finished run left behind, read back: its configuration, its numbers and its pictures. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cclight.cli import UsageError
from cclight.runs import KINDS, Kind, Record, RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: the resolved configuration, config.yaml.
        summary: the content of metrics.json: images, failed, left_out and metrics by name.
        records: each image's numbers by index, as `cclight.runs` keeps them; a failed one holds `failed`.
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
