r"""`cclight table`: runs in the paper's layout, a row for each: data, task, network evaluations and sampler, then the numbers.

In bold stands the best of all runs that share data, prior, task and number of network evaluations, as in the paper; of fewer than
two, none. The paper's own number stands beside ours in the run of a cell of its tables, which is known by its name,

    <data set>-<task>-<sampler>-<network evaluations>,      e.g. imagenet-sr-c_pigdm-5,

as benchmarks/paper.py names it, and by having spent that many evaluations. A difference is relative to the paper's number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from cclight.runs import write_whole
from cclight.workbench.arguments import Parser
from cclight.workbench.results import Result, read_all

# The paper's columns first, then what it leaves out. The factor is that of print: KID is printed times a thousand.
PRINTED = ("lpips", "kid", "fid", "psnr", "ssim", "seconds", "nfe")
SCALES = {"kid": 1000.0}
DIGITS = {"kid": 1}
TITLES = {"kid": "KID × 10³", "seconds": "s / image"}
ARROWS = {"higher": "↑", "lower": "↓"}
PAPERS_COLUMNS = ("lpips", "kid", "fid")


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        value: ours, None where it could not be had.
        digits: decimals to print.
        best: whether it is the best of its group.
        paper: the paper's number, where it has one.
    """

    value: float | None
    digits: int
    best: bool = False
    paper: float | None = None

    def text(self, bold: Callable[[str], str] = str) -> str:
        """The number as it is printed: ours, and in brackets the paper's with the difference."""
        if self.value is None:
            ours = "–"
        else:
            ours = f"{self.value:.{self.digits}f}"
            ours = bold(ours) if self.best else ours
        if self.paper is None:
            return ours
        difference = "" if self.value is None else f", {100 * (self.value / self.paper - 1):+.0f} %"
        return f"{ours} (paper {self.paper:g}{difference})"


@dataclass(frozen=True)
class Table:
    """A table: its header, its rows, and what is to be said under it.

    Attributes:
        labels: titles of the columns that name a run.
        quantities: titles of the columns of numbers.
        rows: of each run, its names and its numbers.
        notes: sentences.
    """

    labels: list[str]
    quantities: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    notes: list[str]


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("table", "Collect finished runs in the paper's layout: task, network evaluations, sampler and the metrics.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, such as runs/sr")
    parser.add_argument("--format", choices=list(FORMATS), default="markdown", help="how to write it (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it into this file instead of printing it")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight table`: collect runs in the paper's layout."""
    options = parser().parse_args(arguments)
    text = FORMATS[options.format](tabulate(read_all(options.runs)))
    if options.output is None:
        print(text, end="")
    else:
        write_whole(options.output, text.encode())


def tabulate(runs: list[Result]) -> Table:
    """The table of runs, ordered by data, prior, task, network evaluations and sampler."""
    metrics = [name for name in _ordered({name: None for run in runs for name in run.metrics}) if name != "consistency"]
    published, notes = papers_results()
    runs = sorted(runs, key=lambda run: (run.data, run.prior, run.task, run.nfe or 0, run.sampler, run.name))
    best = _best(runs, metrics)
    rows = []
    for run in runs:
        paper = published.get(run.name, {}) if _spent(run) else {}
        cells = [
            Cell(
                None if run.mean(name) is None else run.mean(name) * SCALES.get(name, 1.0),  # type: ignore[operator]
                DIGITS.get(name, run.metrics.get(name, {}).get("digits", 3)),
                run.name in best[name],
                paper.get(name) if _papers_metric(run, name) else None,
            )
            for name in metrics
        ]
        rows.append(([run.data, run.prior, run.task, str(run.images), run.sampler, run.name], cells))
    labels = ["data", "prior", "task", "images", "sampler", "run"]
    # What all rows share is said once, under the table.
    shared = [place for place in (0, 1, 2, 3) if len({names[place] for names, _ in rows}) == 1]
    notes = [*(f"{labels[place].capitalize()}: {rows[0][0][place]}." for place in shared), *notes]
    kept = [place for place in range(len(labels)) if place not in shared]
    rows = [([names[place] for place in kept], cells) for names, cells in rows]
    if any(cell.best for _, cells in rows for cell in cells):
        notes.append("Bold: the best at the same task and number of network evaluations.")
    if any(cell.paper is not None for _, cells in rows for cell in cells):
        notes.append("In brackets the paper's number and how far ours is from it; the paper's are lower-is-better.")
    for name in metrics:
        notes += [
            f"{_title(runs, name)} of {run.name}: {run.metrics[name]['unavailable']}."
            for run in runs
            if "unavailable" in run.metrics.get(name, {})
        ]
    return Table([labels[place] for place in kept], [_header(runs, name) for name in metrics], rows, notes)


def papers_results() -> tuple[dict[str, dict[str, float]], list[str]]:
    """The paper's numbers by the name of the run and the metric, and a note where the file of them is not to be found."""
    here = Path(__file__).resolve()
    for file in (here.parent / "paper_results.yaml", here.parents[2] / "benchmarks" / "paper_results.yaml"):
        if file.is_file():
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            return {
                f"{data}-{task}-{sampler}-{nfe}": dict(zip(PAPERS_COLUMNS, numbers, strict=True))
                for data, tasks in tree.items()
                for task, samplers in tasks.items()
                for sampler, budgets in samplers.items()
                for nfe, numbers in budgets.items()
            }, []
    return {}, ["The paper's numbers (benchmarks/paper_results.yaml) did not travel with this installation and are left out."]


def markdown(table: Table) -> str:
    """The table in Markdown, its notes as a paragraph."""

    def line(words: Iterable[str]) -> str:
        return f"| {' | '.join(word.replace('|', chr(92) + '|') for word in words)} |\n"

    text = line([*table.labels, *table.quantities])
    text += line(["---"] * len(table.labels) + ["---:"] * len(table.quantities))
    for names, cells in table.rows:
        text += line([*names, *(cell.text(lambda number: f"**{number}**") for cell in cells)])
    return text + ("\n" + "\n".join(table.notes) + "\n" if table.notes else "")


def comma_separated(table: Table) -> str:
    """The table as CSV, with full precision: a column for our number and, where there is any, one for the paper's."""
    papers = [any(cells[place].paper is not None for _, cells in table.rows) for place in range(len(table.quantities))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = [[name, f"{name} (paper)"] if paper else [name] for name, paper in zip(table.quantities, papers, strict=True)]
    writer.writerow([*table.labels, *(name for names in header for name in names)])
    for names, cells in table.rows:
        numbers = [[c.value, c.paper] if paper else [c.value] for c, paper in zip(cells, papers, strict=True)]
        writer.writerow([*names, *("" if n is None else n for pair in numbers for n in pair)])
    return file.getvalue()


def latex(table: Table) -> str:
    """The table as a LaTeX tabular with booktabs' rules, its notes as comments."""

    def line(words: Iterable[str]) -> str:
        return f"{' & '.join(words)} \\\\\n"

    text = "".join(f"% {note}\n" for note in table.notes)
    text += f"\\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * len(table.quantities)}}}\n\\toprule\n"
    text += line([*map(_escape, table.labels), *map(_escape, table.quantities)]) + "\\midrule\n"
    for names, cells in table.rows:
        numbers = [_escape(cell.text(lambda number: f"\0{number}\1")) for cell in cells]
        text += line([*map(_escape, names), *(n.replace("\0", "\\textbf{").replace("\1", "}") for n in numbers)])
    return text + "\\bottomrule\n\\end{tabular}\n"


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "³": r"$^3$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "σ": r"$\sigma$",
}


def _escape(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _ordered(names: Iterable[str]) -> list[str]:
    """Metrics in the order of print, any others behind them."""
    names = list(names)
    return [name for name in PRINTED if name in names] + [name for name in names if name not in PRINTED]


def _title(runs: list[Result], metric: str) -> str:
    titles = [run.metrics[metric]["title"] for run in runs if metric in run.metrics]
    return TITLES.get(metric, titles[0] if len(set(titles)) == 1 else metric.upper())


def _header(runs: list[Result], metric: str) -> str:
    directions = {run.metrics[metric]["direction"] for run in runs if metric in run.metrics}
    return f"{_title(runs, metric)} {'/'.join(ARROWS[direction] for direction in sorted(directions))}"


def _spent(run: Result) -> bool:
    return run.nfe is not None and run.name.endswith(f"-{run.nfe:g}")


def _papers_metric(run: Result, metric: str) -> bool:
    """Whether a metric is measured as in the paper: LPIPS of another network does not compare."""
    return metric != "lpips" or "alex" in run.metrics.get(metric, {}).get("title", "")


def _best(runs: list[Result], metrics: list[str]) -> dict[str, set[str]]:
    """The names of the best runs by metric: in each group of two or more, all that share the best printed number."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for run in runs:
        groups.setdefault((run.data, run.prior, run.task, run.nfe), []).append(run)
    best: dict[str, set[str]] = {name: set() for name in metrics}
    for group in groups.values():
        for metric in metrics:
            numbers = {
                run.name: round(value * SCALES.get(metric, 1.0), DIGITS.get(metric, run.metrics[metric]["digits"]))
                for run in group
                if (value := run.mean(metric)) is not None
            }
            titles = {run.metrics[metric]["title"] for run in group if run.name in numbers}
            if len(numbers) > 1 and len(titles) == 1 and metric != "nfe":
                higher = group[0].metrics[metric]["direction"] == "higher"
                winner = (max if higher else min)(numbers.values())
                best[metric] |= {name for name, number in numbers.items() if number == winner}
    return best
