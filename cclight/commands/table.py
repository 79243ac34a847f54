"""`cclight table RUN...`: runs in the paper's layout, the paper's number beside ours where it has one.

A row's label says all that differs between the rows. Bold is the best of those that did the same: one degradation, one noise,
one set of photographs, one budget, one way of measuring.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cclight.commands.arguments import PlainParser
from cclight.commands.outputs import check_output
from cclight.commands.paper import COLUMNS as PAPER_COLUMNS
from cclight.commands.paper import published
from cclight.errors import UsageError
from cclight.runs.files import write_whole
from cclight.runs.results import Run

# Columns in the order of the paper's tables, and what a printed number is multiplied with: the paper prints KID × 10³.
COLUMNS = {"lpips": 1.0, "kid": 1000.0, "fid": 1.0, "psnr": 1.0, "ssim": 1.0, "nrmse": 1.0, "seconds": 1.0}
_HEAD = ["data", "task", "NFE", "sampler", "images"]
_TITLES = {
    "lpips": "LPIPS ↓",
    "kid": "KID × 10³ ↓",
    "fid": "FID ↓",
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "nrmse": "NRMSE ↓",
    "seconds": "s/image ↓",
}
# What changes no result, of a run's configuration.
_NO_EFFECT = (
    "batch_size",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "persistent_workers",
    "noise_std",
    "operator",
    "samples",
)


@dataclass(frozen=True)
class Row:
    """One run in the table.

    Attributes:
        data: the data set, with what differs from other rows.
        task: the operator with its settings.
        nfe: network evaluations.
        method: the sampler, with what else differs from other rows, and the run's name.
        images: how many images were measured.
        values: each metric as printed, None where it was not measured.
        paper: the paper's numbers of the same cell, as printed there.
        rivals: by metric, what rows that compete in it have in common.
    """

    data: str
    task: str
    nfe: int
    method: str
    images: int
    values: dict[str, float | None]
    paper: dict[str, float] = field(default_factory=dict)
    rivals: dict[str, Hashable] = field(default_factory=dict)


def parser() -> argparse.ArgumentParser:
    """The options of `cclight table`."""
    parser = PlainParser("cclight table", description="Collect finished runs in the paper's layout.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders that hold some")
    parser.add_argument("--format", choices=tuple(FORMATS), default="markdown")
    parser.add_argument("--metrics", nargs="+", choices=tuple(COLUMNS), help="columns; all that were measured without it")
    parser.add_argument("--output", type=Path, help="write the table there instead of printing it")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight table`.

    Raises:
        UsageError: when no run can be read, or the output is not to be written over.
    """
    options = parser().parse_args(arguments)
    if options.output:
        starts = (f"| {' | '.join(_HEAD)} |", ",".join(_HEAD), f"\\begin{{tabular}}{{{'l' * len(_HEAD)}")
        check_output(options.output, starts, "a table of cclight")
    rows = rows_of(find_runs(options.runs))
    columns = options.metrics or [name for name in COLUMNS if any(row.values[name] is not None for row in rows)]
    text = FORMATS[options.format](rows, columns)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.output, text.encode("utf-8", "replace"))
        print(options.output)
    else:
        print(text, end="")


def find_runs(paths: list[str]) -> list[Run]:
    """The runs in the given folders: each is one, or holds some. What cannot be read is named on stderr and left out.

    Raises:
        UsageError: when nothing remains.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        inside = [] if (path / "config.yaml").is_file() else sorted(file.parent for file in path.glob("*/config.yaml"))
        folders.update({folder.resolve(): folder for folder in inside or [path]})
    runs, reasons = [], []
    for folder in folders.values():
        try:
            runs.append(Run.read(folder))
        except (UsageError, OSError) as error:  # noqa: PERF203
            reasons.append(str(error))
    if not runs:
        raise UsageError("; ".join(reasons))
    for reason in reasons:
        print(f"cclight table: left out: {reason}", file=sys.stderr)
    return runs


def rows_of(runs: list[Run]) -> list[Row]:
    """Runs as the rows of one table, in order: labels say what differs between them."""
    parts = [_parts(run) for run in runs]
    rows = [_row(run, part, _differing(part, parts)) for run, part in zip(runs, parts, strict=True)]
    alike = Counter((row.data, row.task, row.nfe, row.method) for row in rows)
    named = []
    for run, part, row in zip(runs, parts, rows, strict=True):
        twice = alike[row.data, row.task, row.nfe, row.method] > 1
        named.append(row if run.name == part["name"] and not twice else replace(row, method=f"{row.method} ({run.name})"))
    return sorted(named, key=lambda row: (row.data, row.task, row.nfe, row.method))


def _differing(part: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The settings of each part of a row's label in which rows differ; those of a sampler among its own rows alone."""
    differing = {}
    for name in ("data", "prior", "sampler", "files", "other"):
        rows = [other for other in parts if name != "sampler" or other["name"] == part["name"]]
        keys = set().union(*(row[name] for row in rows))
        differing[name] = {key for key in keys if len({row[name].get(key, "none") for row in rows}) > 1}
        if name == "sampler" and len({(row["nfe"], row[name].get("steps")) for row in rows}) == len({r["nfe"] for r in rows}):
            differing[name].discard("steps")  # the column NFE says the same
    return differing


def _parts(run: Run) -> dict[str, Any]:
    """A run's settings that matter to its numbers, as text by key, in the parts that a label has."""
    model, data = run.part("model"), run.part("data")
    other: dict[str, Any] = {"precision": run.part("trainer").get("precision")}
    other |= {"LPIPS": run.metrics.get("lpips", {}).get("title", "").partition("(")[2].rstrip(")") or None}
    other |= {"distances": run.distances if "fid" in run.metrics else None}
    return {
        "name": run.class_name("model.sampler"),
        "nfe": round(run.mean("nfe") or 0),
        "data": _flat({key: value for key, value in data.items() if key not in _NO_EFFECT}),
        "task": {"": _words(run.part("operator"), long=True), "σ_y": str(run.config.get("noise_std") or 0)},
        "prior": {"prior": _words(model.get("prior"))},
        "sampler": _flat(run.part("model.sampler").get("init_args")),
        "files": {key.replace(".init_args", ""): f"{value[:6]}..." for key, value in run.files.items()},
        "other": {key: _words(value) for key, value in other.items() if value is not None},
    }


def _row(run: Run, part: dict[str, Any], differing: dict[str, set[str]]) -> Row:
    source = run.part("data.source")
    where = _path_in(source) or run.class_name("data.source")

    def extra(name: str) -> list[str]:
        return [f"{key}={part[name][key]}" for key in sorted(part[name]) if key in differing[name]]

    data = " ".join([re.split(r"[\\/]", where.rstrip("\\/"))[-1], *(text for text in extra("data") if where not in text)])
    noise = part["task"]["σ_y"]
    task = part["task"][""] + ("" if noise == "0" else f" σ_y={noise}")
    method = " ".join([part["name"], *extra("sampler"), *extra("prior"), *extra("files"), *extra("other")])
    nfe = part["nfe"]
    photographs = frozenset(_photographs(run)) or run.measured
    # The seed of noise draws the same task anew; other settings of the data make it another.
    settings = frozenset((key, value) for key, value in part["data"].items() if key not in ("seed", "limit"))
    files = frozenset(item for item in part["files"].items() if item[0].startswith(("operator", "data")))
    same = (settings, photographs, run.measured, tuple(part["task"].items()), files, nfe)
    rivals: dict[str, Hashable] = {
        name: (same, run.metrics.get(name, {}).get("title"), _words(run.distances) if name in ("fid", "kid") else "")
        for name in COLUMNS
    }
    scaled = {name: _times(run.mean(name), factor) for name, factor in COLUMNS.items()}
    return Row(data, task, nfe, method, run.measured, scaled, published(run), rivals)


def _photographs(run: Run) -> list[tuple[str, str]]:
    """What tells the measured photographs: each one's name and, where the run keeps it, the hash of its content."""
    return [(r["name"], str(r.get("content", ""))) for r in run.records.values() if "failed" not in r]


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Settings as text by their dotted keys, without what is None."""
    flat: dict[str, str] = {}
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        flat.update({} if value is None else {f"{prefix}{key}": _words(value)})
    return flat


def _words(node: Any, long: bool = False) -> str:
    """A part of a configuration as text: `Inpainting mask=Box(size=64) fill=True`, or in brackets inside another."""
    if isinstance(node, list):
        return f"[{', '.join(map(_words, node))}]"
    if not isinstance(node, Mapping):
        return str(node)
    settings = node.get("init_args") or {} if "class_path" in node else node
    inside = [f"{k}={_words(v)}" for k, v in settings.items() if v is not None] if isinstance(settings, Mapping) else []
    name = str(node.get("class_path", "")).rpartition(".")[2]
    if long:
        return " ".join([name, *inside])
    return f"{name}({', '.join(inside)})" if inside else name


def _path_in(node: Any) -> str:
    """The first `path` inside a source."""
    if not isinstance(node, Mapping):
        return ""
    inside = (_path_in(value) for value in node.values())
    return str(node["path"]) if isinstance(node.get("path"), str) else next(filter(None, inside), "")


def best(rows: list[Row], column: str) -> float | None:
    """The best value of a column among rows that compete; None where fewer than two have one."""
    values = [value for row in rows if (value := row.values[column]) is not None]
    return None if len(values) < 2 else (max if column in ("psnr", "ssim") else min)(values)


def _cells(rows: list[Row], columns: list[str], bold: Callable[[str], str], plain: Callable[[str], str]) -> list[list[str]]:
    table = []
    for row in rows:
        cells = [plain(row.data), plain(row.task), str(row.nfe), plain(row.method), str(row.images)]
        for column in columns:
            value = row.values[column]
            digits = {"fid": 2, "psnr": 2, "seconds": 2, "nrmse": 4}.get(column, 3)
            text = "–" if value is None else f"{value:.{digits}f}"
            rivals = [other for other in rows if other.rivals[column] == row.rivals[column]]
            if value is not None and value == best(rivals, column):
                text = bold(text)
            if column in row.paper:
                gap = "" if value is None else f", {value - row.paper[column]:+.3g}"
                text += f" (paper {row.paper[column]:g}{gap})"
            cells.append(text)
        table.append(cells)
    return table


def markdown(rows: list[Row], columns: list[str]) -> str:
    """The table as GitHub's Markdown, the best of those that compete in bold."""

    def plain(text: str) -> str:
        return re.sub(r"([\\|*`<])", r"\\\1", " ".join(text.split()))

    lines = [[*_HEAD, *(_TITLES[column] for column in columns)], ["---"] * (len(_HEAD) + len(columns))]
    lines += _cells(rows, columns, lambda text: f"**{text}**", plain)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "σ": r"$\sigma$"}
_LATEX |= {mark: "\\" + mark for mark in "_%&#${}"}


def latex(rows: list[Row], columns: list[str]) -> str:
    """The table as a LaTeX tabular for the package booktabs."""

    def plain(text: str) -> str:
        return "".join(_LATEX.get(mark, mark) for mark in " ".join(text.split()))

    arrows = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "10³": "$10^3$", "×": r"$\times$", "–": "--"}

    def line(cells: list[str]) -> str:
        text = " & ".join(cells)
        for mark, command in arrows.items():
            text = text.replace(mark, command)
        return f"{text} \\\\\n"

    body = "".join(line(cells) for cells in _cells(rows, columns, lambda text: rf"\textbf{{{text}}}", plain))
    head = line([*_HEAD, *(_TITLES[column] for column in columns)])
    layout = "lllll"[: len(_HEAD)] + "r" * len(columns)
    return f"\\begin{{tabular}}{{{layout}}}\n\\toprule\n{head}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


def comma_separated(rows: list[Row], columns: list[str]) -> str:
    """The table as CSV, with all digits and the paper's numbers in columns of their own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEAD, *columns, *(f"paper_{column}" for column in PAPER_COLUMNS)])
    for row in rows:
        numbers = [row.values[column] for column in columns] + [row.paper.get(column) for column in PAPER_COLUMNS]
        fields = [row.data, row.task, row.nfe, row.method, row.images]
        writer.writerow([*fields, *("" if number is None else json.dumps(number) for number in numbers)])
    return text.getvalue()


FORMATS = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
