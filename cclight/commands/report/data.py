"""What a report shows, read from runs: one document of plain types, which report.js turns into the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import yaml

from cclight import __version__
from cclight.commands.report.album import Album, Row
from cclight.errors import UsageError, suggestion
from cclight.runs.results import Run

_PLACE = ("run.name", "run.root")  # these differ always, and change nothing


def page_data(
    runs: list[Run],
    images: int = 24,
    sort: str | None = None,
    jpeg: int | None = None,
    maps: bool = False,
    samples: int = 8,
) -> dict[str, Any]:
    """Everything that the page shows, as plain types.

    Args:
        runs: one or more, of different folders.
        images: how many of the images that all runs hold are shown in pictures.
        sort: a per-image metric; the pictures are then the first run's worst by it, else those of the lowest indices.
        jpeg: encode the pictures anew as JPEG of this quality; None keeps the saved PNG files as they are.
        maps: add maps of where each restoration differs to the eye.
        samples: how many samples of an image are shown.

    Raises:
        UsageError: when a run is given twice `sort` is no per-image metric of the first run, or maps cannot be
            made.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError("a run is given twice: name each once")
    metrics = _metrics(runs)
    rows = sorted({(index, record["name"]) for run in runs for index, record in run.records.items()})
    shared = [row for row in rows if _shared(runs, row)]
    if sort is not None:
        shared = _worst_first(runs[0], shared, sort)
    labels = _labels(runs)
    album = Album(runs, labels, jpeg, maps, samples)
    shown: list[Row] = []
    for row in shared:
        if len(shown) == images:
            break
        if any(run.picture("restored", row[0]) for run in runs):
            shown.append(row)
    per_image = [metric["name"] for metric in metrics if any(run.values(metric["name"]) for run in runs)]
    return {
        "version": __version__,
        "created": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "runs": [_about(run, label, lines) for run, label, lines in zip(runs, labels, _configs(runs), strict=True)],
        "metrics": metrics,
        "differences": _differences(runs),
        "per_image": per_image,
        "rows": [
            {
                "index": row[0],
                "name": row[1],
                "values": {name: [_number((_record(run, row) or {}).get(name)) for run in runs] for name in per_image},
                "failed": [(_record(run, row) or {}).get("failed") for run in runs],
                "shared": _shared(runs, row),
            }
            for row in rows
        ],
        "images": [{"row": rows.index(row), **album.add(row)} for row in shown],
        "choices": album.choices(),
        "pictures": album.pictures,
        "samples": samples,
        "legend": album.legend,
        "notes": album.notes,
    }


def _record(run: Run, row: Row) -> dict[str, Any] | None:
    """A run's record of an image; None where it has none, or another image under this index."""
    record = run.records.get(row[0])
    return record if record is not None and record["name"] == row[1] else None


def _shared(runs: list[Run], row: Row) -> bool:
    """Whether all runs hold an image, and, as far as they know its content, the same one."""
    records = [_record(run, row) for run in runs]
    contents = {record["content"] for record in records if record is not None and "content" in record}
    return None not in records and len(contents) < 2


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None  # JSON has no word for the others


def _worst_first(run: Run, rows: list[Row], metric: str) -> list[Row]:
    values = run.values(metric)
    if not values:
        known = [name for name in run.metrics if run.values(name)]
        raise UsageError(f"{run.path} measured no {metric} of each image{suggestion(metric, known) or ': ' + ', '.join(known)}")
    sign = -1 if run.metrics.get(metric, {}).get("direction") == "lower" else 1
    return sorted(rows, key=lambda row: sign * values[row[0]] if _number(values.get(row[0])) is not None else math.inf)


def _labels(runs: list[Run]) -> list[str]:
    """The runs' names, or their paths where names are the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for run, name in zip(runs, names, strict=True)]


def _about(run: Run, label: str, lines: list[tuple[str, bool]]) -> dict[str, Any]:
    parts = [run.class_name("model.sampler"), run.class_name("operator"), run.class_name("model.prior")]
    finished = datetime.fromtimestamp((run.path / "metrics.json").stat().st_mtime, timezone.utc)
    return {
        "label": label,
        "path": str(run.path),
        "parts": [part for part in parts if part],
        "finished": f"{finished:%Y-%m-%d %H:%M} UTC",
        "images": run.summary.get("images", len(run.records)),
        "left_out": run.summary.get("left_out", []),
        "config": lines,
        "samples": run.samples,
        "reliability": run.summary.get("reliability"),
    }


def _metrics(runs: list[Run]) -> list[dict[str, Any]]:
    """Each metric of any run: what it is, its results in the order of the runs, and which of those are the best."""
    metrics = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        what = next(run.metrics[name] for run in runs if name in run.metrics)
        means = [_number(run.mean(name)) for run in runs]
        known = [mean for mean in means if mean is not None]
        titles = list(dict.fromkeys(run.metrics[name]["title"] for run in runs if run.mean(name) is not None))
        comparable = len(titles) < 2  # LPIPS of two networks is two metrics
        comparable = comparable and what.get("direction") != "none"
        best = (min if what.get("direction") == "lower" else max)(known) if len(set(known)) > 1 and comparable else None
        metrics.append(
            {
                "name": name,
                **{key: what.get(key) for key in ("title", "direction", "digits", "measures")},
                "titles": titles,
                "comparable": comparable,
                "means": means,
                "intervals": [run.metrics.get(name, {}).get("interval") for run in runs],
                "unavailable": [run.metrics.get(name, {}).get("unavailable") for run in runs],
                "best": [mean is not None and mean == best for mean in means],
            }
        )
    return metrics


def _walk(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """A configuration's lines in order: the dotted key, the line, and what the key holds ("" above further keys)."""
    lines = []
    for key, value in tree.items():
        path, indent = f"{prefix}{key}", "  " * prefix.count(".")
        if isinstance(value, Mapping) and value:
            lines += [(path, f"{indent}{key}:", ""), *_walk(value, f"{path}.")]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
            text = text.removesuffix("...\n").strip()
            lines.append((path, f"{indent}{key}: {text}", text))
    return lines


def _differing(runs: list[Run]) -> dict[str, list[str | None]]:
    """What the runs hold under each key in which they differ; None where a run lacks it."""
    flat = [{path: text for path, _, text in _walk(run.config) if text} for run in runs]
    keys = dict.fromkeys(key for config in flat for key in config)
    values = {key: [config.get(key) for config in flat] for key in keys if key not in _PLACE}
    return {key: texts for key, texts in values.items() if len(set(texts)) > 1}


def _differences(runs: list[Run]) -> list[dict[str, Any]]:
    return [{"key": key, "values": texts} for key, texts in _differing(runs).items()]


def _configs(runs: list[Run]) -> list[list[tuple[str, bool]]]:
    """Each run's configuration as lines of YAML, and whether the line is one in which the runs differ."""
    differing = _differing(runs)
    return [[(line, path in differing) for path, line, _ in _walk(run.config)] for run in runs]
