"""What a finished run left behind, read back: its configuration, its numbers and its pictures. Imports no torch.

Whoever shows or compares runs reads them here: this is the one reader of config.yaml, metrics.json and the records. Files are
taken for what they are, other people's: whatever is damaged is named, with the way to mend it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from cclight import configs
from cclight.errors import UsageError, one_line
from cclight.runs.files import write_whole
from cclight.runs.layout import KINDS, Kind, picture_of
from cclight.runs.records import Key, Record, key_of, merge

if TYPE_CHECKING:
    from cclight.metrics.summary import Summary
    from cclight.runs.folder import RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: the resolved configuration, config.yaml.
        summary: the content of metrics.json: images, failed, left_out and metrics by name.
        lines: the records of samples, and of each image's samples together, as `cclight.runs.folder` keeps them.
        records: each image's numbers by index; a failed one holds `failed`.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    lines: dict[Key, Record]

    @cached_property
    def records(self) -> dict[int, Record]:
        """One record of each image."""
        return merge(self.lines)

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a run folder.

        Raises:
            UsageError: when it is none, when the run is not finished, or when a file of it is damaged; names the remedy.
        """
        folder = Path(path)
        if not (folder / "config.yaml").is_file():
            raise UsageError(f"{folder} is no run folder: give one that `cclight predict` has written, as runs/sr")
        if not (folder / "metrics.json").is_file():
            raise UsageError(
                f"{folder} holds an unfinished run: wait for its end, or run its `cclight predict` again, it computes what is "
                f"missing"
            )
        summary = read_summary(folder)
        # A metric without a mean may have been NaN; one with a mean rests on numbers.
        numbers = tuple(name for name, metric in summary["metrics"].items() if metric.get("mean") is not None)
        run = cls(folder, read_config(folder), summary, read_records(folder, numbers))
        if len(run.records) < summary["images"]:
            raise UsageError(
                f"{folder / 'records'} is damaged (it holds {len(run.records)} of the {summary['images']} images of "
                f"metrics.json): run the run's `cclight predict` with --run.resume true, which restores the others anew"
            )
        return run

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
        return {index: record[metric] for index, record in self.records.items() if _is_number(record.get(metric))}

    def part(self, name: str) -> dict[str, Any]:
        """A part of the configuration with its class_path and init_args: operator, model.prior, model.sampler, data.source.

        Returns:
            The part, or an empty dictionary where the run has none.
        """
        node: Any = self.config
        for key in name.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def class_name(self, name: str) -> str:
        """The short name of the class of a part: `Conjugate` for cclight.samplers.conjugate.Conjugate."""
        return str(self.part(name).get("class_path", "")).rpartition(".")[2]

    def summaries(self) -> dict[str, Summary]:
        """The metrics as they are written, to be written again. Imports torch."""
        from cclight.metrics.quantity import Quantity
        from cclight.metrics.summary import Summary

        summaries = {}
        for name, m in self.metrics.items():
            low, high = m.get("range") or (None, None)
            bounds = (-math.inf if low is None else low, math.inf if high is None else high)
            quantity = Quantity(name, m["title"], m["direction"], bounds, str(m.get("measures", "")), m["digits"])
            interval = None if m.get("interval") is None else (m["interval"][0], m["interval"][1])
            summaries[name] = Summary(quantity, m.get("mean"), interval, m.get("images", 0), m.get("unavailable"))
        return summaries

    @property
    def measured(self) -> int:
        """How many images the means rest on: all but the failed ones."""
        return int(self.summary["images"]) - len(self.summary["failed"])

    @property
    def distances(self) -> dict[str, Any]:
        """What FID and KID were measured with, a class_path with its init_args; empty where they were not."""
        return self.summary.get("distances") or self.part("metrics.distances")

    @property
    def files(self) -> dict[str, str]:
        """The hashes of the files that the configuration names, by the key that names each; empty where none were kept."""
        try:
            content = json.loads(_text(self.path / "records" / "files.json"))
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}

    @property
    def samples(self) -> int:
        """The most restorations that an image has."""
        return max((sample + 1 for _, sample in self.lines), default=1)

    def picture(self, kind: Kind, index: int, sample: int = 0) -> Path | None:
        """An image's saved picture, or None where it was not saved."""
        assert kind in KINDS
        path = picture_of(self.path, kind, index, self.records[index]["name"], sample)
        return path if path.is_file() else None

    def array(self, kind: Kind, index: int, sample: int = 0) -> Path | None:
        """An image's saved array, or None where it was not saved: those of photographs are pictures alone."""
        path = picture_of(self.path, kind, index, self.records[index]["name"], sample).with_suffix(".npy")
        return path if path.is_file() else None


def read_config(folder: Path) -> dict[str, Any]:
    """A run's resolved configuration, config.yaml.

    Raises:
        UsageError: when it is damaged.
    """
    path = folder / "config.yaml"

    def damaged(what: str) -> NoReturn:
        raise UsageError(f"{what}; it is a run's own: put back the file that the run wrote, or make the run anew")

    try:
        content = yaml.safe_load(configs.read_config(path))
    except (UsageError, yaml.YAMLError) as error:
        damaged(str(error))
    waiting = [content]
    while waiting:
        node = waiting.pop()
        named = isinstance(node, dict) and "class_path" in node
        if named and not (isinstance(node["class_path"], str) and isinstance(node.get("init_args") or {}, dict)):
            damaged(f"{path}: class_path {one_line(ValueError(node['class_path']))} is no class with init_args")
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for part in ("operator", "model", "model.prior", "model.sampler", "data", "data.source", "metrics", "trainer", "run"):
        *parents, last = part.split(".")
        holder = content.get(parents[0], {}) if parents else content
        if not isinstance(holder.get(last) or {}, dict):
            damaged(f"{path}: {part} holds no settings")
    if not _is_number(content.get("noise_std") or 0) and not isinstance(content["noise_std"], str):
        damaged(f"{path}: noise_std is no number and no file")
    return content


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of metrics.json: `images`, `failed`, `left_out`, and `metrics` with title, direction, digits and mean.

    Raises:
        UsageError: when it is damaged.
    """
    path = folder / "metrics.json"

    def check(true: object, what: str) -> None:
        if not true:
            raise UsageError(
                f"{path} is damaged ({what}): delete it and run the run's `cclight predict` again, which makes it anew from "
                f"the records"
            )

    try:
        content = json.loads(_text(path), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        check(False, one_line(error))
    check(isinstance(content, dict), "it is no table of results")
    content = {"failed": [], "left_out": [], **content}
    for key, kind in {"images": int, "metrics": dict, "failed": list, "left_out": list}.items():
        check(type(content.get(key)) is kind, f"{key} is {'missing' if key not in content else 'of the wrong kind'}")
    for key, inside in {"failed": ("index", "name", "failed"), "left_out": ("index", "reason")}.items():
        check(all(isinstance(item, dict) and set(inside) <= item.keys() for item in content[key]), f"{key} lacks a reason")
    for name, metric in content["metrics"].items():
        check(isinstance(metric, dict), f"{name} is of the wrong kind")
        check(isinstance(metric.get("title"), str), f"{name} has no title")
        check(metric.get("direction") in ("higher", "lower", "none"), f"{name} has no direction")
        check(type(metric.get("digits")) is int and 0 <= metric["digits"] <= 20, f"{name} has no number of digits")
        check(metric.get("mean") is None or _is_number(metric["mean"]), f"the mean of {name} is no number")
        check("mean" in metric or isinstance(metric.get("unavailable"), str), f"{name} has no mean")
        ends = metric.get("interval")
        pair = isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))
        check(ends is None or pair, f"the interval of {name} is no pair of numbers")
    return content


def read_records(folder: Path, numbers: tuple[str, ...] = ()) -> dict[Key, Record]:
    """The records of a run by image and sample, those of `cclight evaluate` before the others.

    Half a line, which a kill leaves, is none.

    Args:
        folder: the run's.
        numbers: which keys hold numbers.

    Raises:
        UsageError: when a line is damaged.
    """
    records: dict[Key, Record] = {}
    for path in sorted((folder / "records").glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if what := _odd(record, numbers):
                raise UsageError(
                    f"{path}, line {number}, is damaged ({what}): delete the line and run the run's `cclight predict` with "
                    f"--run.resume true, which restores that image anew"
                )
            records[key_of(record)] = record
    return dict(sorted(records.items()))


def _text(path: Path) -> str:
    """A file's text. Raises ValueError when it is empty or no UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _odd(record: Any, numbers: tuple[str, ...]) -> str:
    """What is wrong with a record; nothing where it is sound."""
    if not isinstance(record, dict):
        return f"it is no record but {one_line(ValueError(str(record)))}"
    if type(record.get("index")) is not int or not isinstance(record.get("name"), str):
        return f"index is {record.get('index')!r} and name {record.get('name')!r}"
    if type(record.get("sample", 0)) is not int or type(record.get("samples", 1)) is not int:
        return f"sample is {record.get('sample')!r} and samples {record.get('samples')!r}"
    odd = [key for key in numbers if key in record and not _is_number(record[key])]
    return f"{odd[0]} is {record[odd[0]]!r}" if odd else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is no number")


def write_results(
    run: RunFolder,
    lines: dict[Key, Record],
    summaries: dict[str, Summary],
    left_out: dict[int, str] | None = None,
    distances: dict[str, Any] | None = None,
) -> Run:
    """Write metrics.csv, one line per image, and then metrics.json, which marks the run as finished.

    Args:
        run: where to.
        lines: the records of samples, and of each image's samples together.
        summaries: by the metric's name.
        left_out: photographs that could not be used, and why, by index.
        distances: what FID and KID were measured with, where it is not what the configuration says.

    Returns:
        The run as a reader of the folder would find it.

    Raises:
        RunError: when they cannot be written.
    """
    records = merge(lines)
    failed = [{key: record[key] for key in ("index", "name", "failed")} for record in records.values() if "failed" in record]
    columns = ["index", "name", *(name for name in summaries if any(name in record for record in records.values()))]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "failed"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records.values())
    write_whole(run.path / "metrics.csv", text.getvalue().encode())
    from cclight.runs.spread import reliability

    curve, samples = reliability(records), max((record.get("samples", 1) for record in records.values()), default=1)
    results = {
        "images": len(records),
        "failed": failed,
        "left_out": [{"index": index, "reason": reason} for index, reason in sorted((left_out or {}).items())],
        "metrics": {name: summary.as_json() for name, summary in summaries.items()},
        **({"distances": distances} if distances else {}),
        **({"samples": samples} if samples > 1 else {}),
        **({"reliability": curve} if curve else {}),
        "versions": {package: _version(package) for package in ("cclight", "torch", "lightning", "torchmetrics")},
    }
    content = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(run.path / "metrics.json", content.encode())
    return Run(run.path, read_config(run.path), json.loads(content), lines)


def _version(package: str) -> str:
    """A package's version, also of one that is imported from a checkout and was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
