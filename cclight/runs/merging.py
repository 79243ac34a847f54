"""Runs put together: parts of one source that several jobs have restored, each into a folder of its own.

An image's restoration depends on its number alone, so that the parts make the run that one job would have made: the same
pictures and records, and means over all of them. FID and its like are of all pictures and are measured anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cclight.errors import UsageError
from cclight.runs.files import write_whole
from cclight.runs.folder import RunFolder
from cclight.runs.grid import write_grid
from cclight.runs.inputs import differences
from cclight.runs.layout import KINDS, PICTURE, index_of, written
from cclight.runs.records import Key, Record, merge
from cclight.runs.results import Run, write_results

ANEW = "it is of all pictures together: `cclight evaluate` measures it on the merged run, with --metrics.distances"


def put_together(runs: Sequence[Run], into: Path) -> Run:
    """Copy finished runs into a new one, as if one job had made it; they stay as they are.

    Args:
        runs: of one configuration, on different images. An image that several of them hold is taken from the first.
        into: the new run's folder, which must not be there.

    Raises:
        UsageError: when the folder is there, the runs' settings differ, or a number stands for different images.
        RunError: when the folder cannot be written to.
    """
    from cclight.metrics.summary import summarize
    from cclight.runs.spread import BEST, summarize_together

    if into.exists():
        raise UsageError(f"{into} is there already: give --into a folder that is to be made, as runs/sr-whole")
    config = _common_config(runs)
    lines, owners = _common_lines(runs)
    config["run"] = {**(config.get("run") or {}), "name": into.name, "root": str(into.parent)}
    folder = RunFolder(into.name, str(into.parent))
    folder.open(_text(config))
    try:
        write_whole(into / "records" / "files.json", json.dumps(runs[0].files, indent=2).encode())
        for run in runs:
            for kind in KINDS:
                for file in written(run.path / kind, PICTURE):
                    if owners.get(index_of(file)) is run:
                        folder.make(kind)
                        write_whole(into / kind / file.name, file.read_bytes())
        folder.append(lines.values())
        folder.flush()
        records = merge(lines)
        kept = {index: record for index, record in records.items() if "failed" not in record}
        known = {name: s for run in reversed(runs) for name, s in run.summaries().items()}
        summaries = {}
        for name, summary in known.items():
            values = {index: record[name] for index, record in kept.items() if name in record}
            summaries[name] = summarize(summary.quantity, values, len(kept), None if values else summary.unavailable or ANEW)
        compared = [summary.quantity for name, summary in known.items() if f"{name}{BEST}" in known]
        summaries.update({s.quantity.name: s for s in summarize_together(compared, records)})
        left_out = {item["index"]: item["reason"] for run in runs for item in run.summary["left_out"]}
        whole = write_results(folder, lines, summaries, {i: why for i, why in left_out.items() if i not in records})
        write_grid(into, (config.get("images") or {}).get("grid", 8), whole.samples)
        return whole
    except BaseException:
        folder.abandon()
        raise
    finally:
        folder.close()


def missing(runs: Sequence[Run], whole: Run) -> list[str]:
    """What is not in a run that was put together, in words: images below the highest number, and parts that were not given."""
    there = whole.records.keys() | {item["index"] for item in whole.summary["left_out"]}
    absent = [index for index in range(max(there, default=0)) if index not in there]
    words = [f"{len(absent)} images are in none of the runs, number {absent[0]} the first"] if absent else []
    parts = [str(run.part("data").get("part") or "1/1").partition("/") for run in runs]
    numbers = {int(number) for number, *_ in parts}
    counts = {int(count) for *_, count in parts}
    if len(counts) == 1 and (lacking := [f"{k}/{max(counts)}" for k in range(1, max(counts) + 1) if k not in numbers]):
        words.append(f"of the parts {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not among them")
    return words


def _common_config(runs: Sequence[Run]) -> dict[str, Any]:
    """The configuration of all runs, which take parts of one source."""
    first, *others = [{**run.config, "data": {**(run.config.get("data") or {}), "part": None}} for run in runs]
    for run, config in zip(runs[1:], others, strict=True):
        if differing := differences(_text(first), _text(config), kept_files=runs[0].files, files=run.files):
            raise UsageError(
                f"{runs[0].path} and {run.path} are of different settings ({'; '.join(differing)}): only runs of one "
                f"configuration go together"
            )
    return first


def _common_lines(runs: Sequence[Run]) -> tuple[dict[Key, Record], dict[int, Run]]:
    """The records of all runs, and whose each image is."""
    owners: dict[int, Run] = {}
    for run in runs:
        for index, record in run.records.items():
            owner = owners.setdefault(index, run)
            other = owner.records[index]
            if any(record.get(key) != other.get(key) for key in ("name", "content")):
                raise UsageError(
                    f"image {index} is {other['name']} in {owner.path} and {record['name']} in {run.path}, or another picture "
                    f"of that name: only runs on one source go together"
                )
    lines = {key: record for run in runs for key, record in run.lines.items() if owners.get(key[0]) is run}
    return dict(sorted(lines.items())), owners


def _text(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
