"""`cclight table RUN...`: runs in the paper's layout, the paper's number beside ours where it has one."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from cclight.errors import UsageError
from cclight.runs.files import write_whole
from cclight.runs.results import Run

# Columns in the order of the paper's tables, and what a printed number is multiplied with: the paper prints KID × 10³.
COLUMNS = {"lpips": 1.0, "kid": 1000.0, "fid": 1.0, "psnr": 1.0, "ssim": 1.0, "seconds": 1.0}
_PAPER_COLUMNS = ("lpips", "kid", "fid")  # as paper_results.yaml lists them
_TASKS = {"BicubicDownsampling": "sr", "AveragePooling": "sr", "GaussianBlur": "deblurring", "Inpainting": "inpainting"}
_METHODS = {"DPS": "dps", "DDRM": "ddrm"}
_DATASETS = {"imagenet": "imagenet", "celeba": "celeba_hq", "afhq": "afhq_cat", "lsun": "lsun_bedroom", "ffhq": "ffhq"}


@dataclass(frozen=True)
class Row:
    """One run in the table.

    Attributes:
        data: the data set.
        task: the operator with its settings.
        nfe: network evaluations.
        method: the sampler and, where several runs share it, the run's name.
        images: how many images were measured.
        values: each metric as printed, None where it was not measured.
        paper: the paper's numbers of the same cell, as printed there.
    """

    data: str
    task: str
    nfe: int
    method: str
    images: int
    values: dict[str, float | None]
    paper: dict[str, float] = field(default_factory=dict)


def main(arguments: list[str]) -> None:
    """`cclight table`."""
    parser = argparse.ArgumentParser("cclight table", description="Collect finished runs in the paper's layout.")
    parser.add_argument("runs", nargs="+", help="run folders, or folders that hold some")
    parser.add_argument("--format", choices=tuple(FORMATS), default="markdown")
    parser.add_argument("--metrics", nargs="+", choices=tuple(COLUMNS), help="columns; all that were measured without it")
    parser.add_argument("--output", type=Path, help="write the table there instead of printing it")
    options = parser.parse_args(arguments)
    rows = [row_of(run) for run in find_runs(options.runs)]
    rows.sort(key=lambda row: (row.data, row.task, row.nfe, row.method))
    columns = options.metrics or [name for name in COLUMNS if any(row.values[name] is not None for row in rows)]
    text = FORMATS[options.format](rows, columns)
    if options.output:
        write_whole(options.output, text.encode())
        print(options.output)
    else:
        print(text, end="")


def find_runs(paths: list[str]) -> list[Run]:
    """The runs in the given folders: each is one, or holds some.

    Raises:
        UsageError: for a folder that is no finished run and holds none.
    """
    runs = []
    for path in map(Path, paths):
        inside = [] if (path / "config.yaml").is_file() else sorted(file.parent for file in path.glob("*/metrics.json"))
        runs += [Run.read(folder) for folder in inside or [path]]
    return runs


def row_of(run: Run) -> Row:
    """A run as a row of the table."""
    scaled = {name: _times(run.mean(name), factor) for name, factor in COLUMNS.items()}
    nfe = round(run.mean("nfe") or 0)
    source = run.part("data.source")
    where = str((source.get("init_args") or {}).get("path") or run.class_name("data.source"))
    settings = {k: v for k, v in (run.part("operator").get("init_args") or {}).items() if isinstance(v, int | float | str)}
    task = run.class_name("operator") + "".join(f" {key}={value}" for key, value in settings.items())
    noise = run.config.get("noise_std") or 0
    data = where.rstrip("/").rpartition("/")[2]
    sampler = run.class_name("model.sampler")
    method = sampler if run.name in (sampler, "") else f"{sampler} ({run.name})"
    paper = {} if noise else published(run, where, nfe)
    images = int(run.summary["images"])
    return Row(data, task + (f" σ_y={noise}" if noise else ""), nfe, method, images, scaled, paper)


def published(run: Run, data: str, nfe: int) -> dict[str, float]:
    """The paper's LPIPS (AlexNet), KID × 10³ and FID of the cell that a run belongs to; empty where it has none.

    Args:
        run: the run.
        data: its data set's name or folder.
        nfe: its network evaluations.
    """
    dataset = next((name for word, name in _DATASETS.items() if word in data.lower()), "")
    sampler = run.class_name("model.sampler")
    kind = "gfm" if run.class_name("model.prior") == "RectifiedFlow" else "gdm"
    method = _METHODS.get(sampler) or {"Conjugate": f"c_pi{kind}", "PiGDM": f"pi{kind}"}.get(sampler, "")
    cell: Any = paper_results().get(dataset, {}).get(_TASKS.get(run.class_name("operator"), ""), {})
    return dict(zip(_PAPER_COLUMNS, cell.get(method, {}).get(nfe, ()), strict=False))


def paper_results() -> dict[str, Any]:
    """The numbers of the paper's tables: inside an installed package, in benchmarks/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for path in (package / "paper_results.yaml", package.parent / "benchmarks" / "paper_results.yaml"):
        if path.is_file():
            return yaml.safe_load(path.read_text(encoding="utf-8"))
    raise UsageError("paper_results.yaml is missing from the installation: install cclight again")


def best(rows: list[Row], column: str) -> float | None:
    """The best value of a column among rows of one task and budget; None where fewer than two have one."""
    values = [value for row in rows if (value := row.values[column]) is not None]
    return None if len(values) < 2 else (max if column in ("psnr", "ssim") else min)(values)


def _cells(rows: list[Row], columns: list[str], bold: Callable[[str], str], plain: Callable[[str], str]) -> list[list[str]]:
    table = []
    for _, members in groupby(rows, key=lambda row: (row.data, row.task, row.nfe)):
        group = list(members)
        for row in group:
            cells = [plain(row.data), plain(row.task), str(row.nfe), plain(row.method), str(row.images)]
            for column in columns:
                value = row.values[column]
                text = "–" if value is None else f"{value:.{2 if column in ('fid', 'psnr', 'seconds') else 3}f}"
                if value is not None and value == best(group, column):
                    text = bold(text)
                if column in row.paper:
                    gap = "" if value is None else f", {value - row.paper[column]:+.3g}"
                    text += f" (paper {row.paper[column]:g}{gap})"
                cells.append(text)
            table.append(cells)
    return table


_HEAD = ["data", "task", "NFE", "sampler", "images"]
_TITLES = {
    "lpips": "LPIPS ↓",
    "kid": "KID × 10³ ↓",
    "fid": "FID ↓",
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "seconds": "s/image ↓",
}


def markdown(rows: list[Row], columns: list[str]) -> str:
    """The table as GitHub's Markdown, the best of each task and budget in bold."""
    lines = [[*_HEAD, *(_TITLES[column] for column in columns)], ["---"] * (len(_HEAD) + len(columns))]
    lines += _cells(rows, columns, lambda text: f"**{text}**", lambda text: text.replace("|", "\\|"))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def latex(rows: list[Row], columns: list[str]) -> str:
    """The table as a LaTeX tabular for the package booktabs."""

    def plain(text: str) -> str:
        for mark in "_%&#$":
            text = text.replace(mark, "\\" + mark)
        return text.replace("σ", r"$\sigma$")

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
    writer.writerow([*_HEAD, *columns, *(f"paper_{column}" for column in _PAPER_COLUMNS)])
    for row in rows:
        numbers = [row.values[column] for column in columns] + [row.paper.get(column) for column in _PAPER_COLUMNS]
        fields = [row.data, row.task, row.nfe, row.method, row.images]
        writer.writerow([*fields, *("" if number is None else json.dumps(number) for number in numbers)])
    return text.getvalue()


FORMATS = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
