"""`cclight report RUN...`: runs on one page, with a before/after slider for each image.

    $ cclight report runs/sr runs/pigdm
    runs/report.html: 2 runs, 6 of 6 images in pictures, 4.1 MB

The page needs no network and no server: its pictures are data URIs, and a content security policy forbids the rest. Here the
runs become one JSON document (`page_data`); report.js, which the page holds beside report.css, makes everything one sees from
it by `textContent`, so that no name can become markup.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import math
import re
import struct
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from cclight import __version__
from cclight.errors import UsageError, suggestion
from cclight.runs.files import write_whole
from cclight.runs.folder import Kind
from cclight.runs.results import Run

_HERE = Path(__file__).parent
_CHOICES: tuple[Kind, ...] = ("measurement", "clean", "restored")
_PLACE = ("run.name", "run.root")  # these differ always, and change nothing

Row = tuple[int, str]  # an image: its index and its source's name for it


def main(arguments: list[str]) -> None:
    """`cclight report RUN...`: write the page.

    Raises:
        UsageError: when a folder is no finished run or an option has no meaning.
        RunError: when the page cannot be written.
    """
    parser = argparse.ArgumentParser(prog="cclight report", description="Show runs on one page with before and after.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a finished run's folder, as runs/sr")
    parser.add_argument("--output", type=Path, help="the page (RUN/report.html; beside the first run's folder for several)")
    parser.add_argument("--images", type=int, default=24, metavar="N", help="how many images to show in pictures (24)")
    parser.add_argument("--sort", metavar="METRIC", help="show the first run's worst by it, as lpips, not the first")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="a smaller page: pictures as JPEG of quality 1 to 95")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(arguments)
    if options.images < 0:
        raise UsageError(f"--images is a number of images, got {options.images}: give 0 or more")
    if options.jpeg is not None and not 1 <= options.jpeg <= 95:
        raise UsageError(f"--jpeg is a quality from 1 to 95, got {options.jpeg}")
    runs = [Run.read(path) for path in options.runs]
    data = page_data(runs, options.images, options.sort, options.jpeg)
    output = options.output or (runs[0].path if len(runs) == 1 else runs[0].path.parent) / "report.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    page = render(data).encode()
    write_whole(output, page)
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    print(f"{output}: {count}, {len(data['images'])} of {len(data['rows'])} images in pictures, {len(page) / 1e6:.1f} MB")
    if options.open:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def render(data: dict[str, Any]) -> str:
    """The page of what `page_data` returns."""
    # As JSON, `<` has a second spelling: no `</script>` or `<!--` of a name can end the element that holds the data.
    parts = {
        "title": html.escape(", ".join(run["label"] for run in data["runs"])),
        "style": (_HERE / "report.css").read_text(encoding="utf-8"),
        "script": (_HERE / "report.js").read_text(encoding="utf-8"),
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    template = (_HERE / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)  # one pass: what is put in is not looked at


def page_data(runs: list[Run], images: int = 24, sort: str | None = None, jpeg: int | None = None) -> dict[str, Any]:
    """Everything that the page shows, as plain types.

    Args:
        runs: one or more, of different folders.
        images: how many of the images that all runs hold are shown in pictures.
        sort: a per-image metric; the pictures are then the first run's worst by it, else those of the lowest indices.
        jpeg: encode the pictures anew as JPEG of this quality; None keeps the saved PNG files as they are.

    Raises:
        UsageError: when a run is given twice or `sort` is no per-image metric of the first run.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError("a run is given twice: name each once")
    metrics = _metrics(runs)
    rows = sorted({(index, record["name"]) for run in runs for index, record in run.records.items()})
    shared = [row for row in rows if all(_record(run, row) is not None for run in runs)]
    if sort is not None:
        shared = _worst_first(runs[0], shared, sort)
    labels = _labels(runs)
    album = Album(runs, labels, jpeg)
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
                "shared": all(_record(run, row) is not None for run in runs),
            }
            for row in rows
        ],
        "images": [{"row": rows.index(row), **album.add(row)} for row in shown],
        "choices": album.choices(),
        "pictures": album.pictures,
    }


class Album:
    """The page's pictures, each held once however many runs share it.

    Args:
        runs: whose pictures.
        labels: what the page calls them.
        jpeg: as in `page_data`.

    Attributes:
        pictures: as data URIs.
    """

    def __init__(self, runs: list[Run], labels: list[str], jpeg: int | None) -> None:
        self.pictures: list[str] = []
        self._runs, self._labels, self._jpeg = runs, labels, jpeg
        self._places: dict[bytes, int] = {}
        self._images: list[dict[str, int]] = []

    def add(self, row: Row) -> dict[str, Any]:
        """An image's pictures: places in `pictures` by choice (restored-0 is the first run's), and the size it is shown at."""
        places: dict[str, int] = {}
        size = (1, 1)
        for kind in _CHOICES:
            for number, run in enumerate(self._runs):
                path = run.picture(kind, row[0])
                if path is not None:
                    content = path.read_bytes()
                    places[f"{kind}-{number}"] = self._place(content)
                    size = struct.unpack(">II", content[16:24])  # where a PNG holds its size; the last kind decides
        self._images.append(places)
        return {"pictures": places, "width": size[0], "height": size[1]}

    def choices(self) -> list[dict[str, Any]]:
        """What can stand on a side of the slider, for all images: a measurement or clean picture common to the runs is one."""
        choices = []
        for kind in _CHOICES:
            keys = [f"{kind}-{number}" for number in range(len(self._runs))]
            found = [key for key in keys if any(key in places for places in self._images)]
            if kind != "restored" and all(len({places.get(key) for key in found}) <= 1 for places in self._images):
                found = found[:1]
                labels = [str(kind)] * len(found)
            else:
                own = [self._labels[int(key.rpartition("-")[2])] for key in found]
                labels = [label if kind == "restored" else f"{kind} of {label}" for label in own]
            choices += [{"key": key, "label": label, "kind": kind} for key, label in zip(found, labels, strict=True)]
        return choices

    def _place(self, content: bytes) -> int:
        if content not in self._places:
            self._places[content] = len(self.pictures)
            self.pictures.append(self._uri(content))
        return self._places[content]

    def _uri(self, content: bytes) -> str:
        if self._jpeg is None:
            return "data:image/png;base64," + base64.b64encode(content).decode()
        from cclight.data.decoding import decode

        buffer = io.BytesIO()
        picture = decode("a picture of the run", lambda: content)
        picture.image().convert("L" if picture.pixels.shape[2] == 1 else "RGB").save(buffer, "JPEG", quality=self._jpeg)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _record(run: Run, row: Row) -> dict[str, Any] | None:
    """A run's record of an image; None where it has none, or another image under this index."""
    record = run.records.get(row[0])
    return record if record is not None and record["name"] == row[1] else None


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
    }


def _metrics(runs: list[Run]) -> list[dict[str, Any]]:
    """Each metric of any run: what it is, its results in the order of the runs, and which of those are the best."""
    metrics = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        what = next(run.metrics[name] for run in runs if name in run.metrics)
        means = [_number(run.mean(name)) for run in runs]
        known = [mean for mean in means if mean is not None]
        best = (min if what.get("direction") == "lower" else max)(known) if len(set(known)) > 1 else None
        metrics.append(
            {
                "name": name,
                **{key: what.get(key) for key in ("title", "direction", "digits", "measures")},
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
