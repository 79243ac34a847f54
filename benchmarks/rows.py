"""The rows that benchmarks keep while they run: a JSON file, so that the same command goes on where it stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read(kind: type[T], path: Path, counts: Sequence[int], parser: argparse.ArgumentParser) -> list[T]:
    """The rows of an earlier run, none where there is none; refused where it had other measurements and samples."""
    if not path.exists():
        return []
    saved: dict[str, Any] = json.loads(path.read_text())
    if saved["counts"] != list(counts):
        parser.error(f"{path} holds {saved['counts']} measurements and samples, not {list(counts)}: choose another --output.")
    return [kind(**row) for row in saved["rows"]]


def write(path: Path, counts: Sequence[int], rows: Sequence[Any]) -> None:
    """Keep the rows, dataclasses, the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps({"counts": list(counts), "rows": [asdict(row) for row in rows]}, indent=1))
    part.replace(path)
