r"""`cclight compare`: is one run better than another? Paired differences over the images that both restored.

With d_i = b_i - a_i over n images, a metric's row holds the mean d̄, its 95 % bootstrap interval over images, and the two-sided p of
the sign-flip permutation test: if neither run were better, every d_i could as well have had the other sign, so

    p = P( |Σ ε_i d_i| >= |Σ d_i| ),      ε_i = ±1, independent, each with probability 1/2.

All 2ⁿ signs are tried for n up to 16. For more, m random ones give p = (1 + how many) / (1 + m).

References:
    Fisher, The Design of Experiments, 1935 (section 21). Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cclight.cli import UsageError
from cclight.workbench.arguments import Parser
from cclight.workbench.results import Result, differences, read_all

EXACT = 16
FLIPS = 100_000
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """One metric in two runs.

    Attributes:
        title: the metric, with its unit.
        direction: which way is better.
        digits: decimals to print.
        means: of the first and the second run, over the images that both have.
        difference: the mean of second less first.
        interval: its 95 % bootstrap interval; None for a single image.
        p: of the sign-flip test.
        images: how many.
    """

    title: str
    direction: str
    digits: int
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float] | None
    p: float
    images: int

    @property
    def verdict(self) -> str:
        """`first` or `second`, whichever is better with p < 0.05, else `undecided`."""
        if self.p >= LEVEL or self.difference == 0:
            return "undecided"
        return "second" if (self.difference > 0) == (self.direction == "higher") else "first"


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "compare",
        "Test whether the second run is better than the first: for each metric the mean of the paired differences, its 95 %% "
        "bootstrap interval, and the p of a sign-flip permutation test.",
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a run folder, such as runs/sr")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight compare`: test the paired difference of two runs."""
    from rich.console import Console
    from rich.table import Table

    first, second = read_all(parser().parse_args(arguments).runs)
    console = Console(highlight=False)
    rows = compare(first, second)
    table = Table(title=f"{second.name} less {first.name}, {rows[0].images} images")
    for column in ("metric", "better", first.name, second.name, "difference", "95 % interval", "p", "better run"):
        table.add_column(column, justify="left" if column in ("metric", "better run") else "right")
    arrows, winners = {"higher": "↑", "lower": "↓"}, {"first": first.name, "second": second.name}
    for row in rows:
        numbers = [f"{mean:.{row.digits}f}" for mean in row.means]
        between = "" if row.interval is None else " ... ".join(f"{bound:+.{row.digits}f}" for bound in row.interval)
        p = f"{row.p:.2g}" if row.p >= 1e-4 else "< 0.0001"
        winner = winners.get(row.verdict, row.verdict)
        table.add_row(
            row.title, arrows[row.direction], *numbers, f"{row.difference:+.{row.digits}f}", between, p, winner
        )
    console.print(table)
    changes = differences(first, second)
    print("The runs differ in" if changes else "The runs' settings are the same.", end="\n" if not changes else ":\n")
    for change in changes:
        print(f"  {change}")


def compare(first: Result, second: Result) -> list[Difference]:
    """The paired differences, second less first, of every per-image metric that both runs have.

    Raises:
        UsageError: where the runs share no images.
    """
    from cclight.metrics import bootstrap_interval

    shared = _shared(first, second)
    rows = []
    for name, metric in first.metrics.items():
        other = second.metrics.get(name, {})
        pairs = [
            (first.records[i][name], second.records[i][name])
            for i in shared
            if name in first.records[i] and name in second.records[i]
        ]
        if not pairs or other.get("title") != metric["title"]:
            continue
        a, b = np.array(pairs, dtype=np.float64).T
        rows.append(
            Difference(
                title=metric["title"],
                direction=metric["direction"],
                digits=max(metric["digits"], 1),
                means=(float(a.mean()), float(b.mean())),
                difference=float((b - a).mean()),
                interval=bootstrap_interval((b - a).tolist()),
                p=sign_flip_p((b - a).tolist()),
                images=len(pairs),
            )
        )
    return rows


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """The two-sided p of the sign-flip test: exact for up to 16 differences, from random flips for more.

    Args:
        differences: d_i, of each image.
        seed: of the random flips.
    """
    d = np.asarray(differences, dtype=np.float64)
    # Sums that are equal but for rounding count as equal.
    least = abs(d.sum()) * (1 - 1e-12) - 1e-300
    if len(d) <= EXACT:
        flips = 1 - 2 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
        return float((np.abs(flips @ d) >= least).mean())
    rng, count, block = np.random.default_rng(seed), 0, 1000
    for _ in range(FLIPS // block):
        flips = 1 - 2 * rng.integers(0, 2, size=(block, len(d)), dtype=np.int8)
        count += int((np.abs(flips @ d) >= least).sum())
    return (1 + count) / (1 + FLIPS)


def _shared(first: Result, second: Result) -> list[int]:
    """The images that both runs restored.

    Raises:
        UsageError: where there are none, or where one index stands for different photographs.
    """
    shared = [i for i in first.records if i in second.records]
    if not shared:
        raise UsageError(f"{first.name} and {second.name} share no image: compare runs on the same data")
    other = next((i for i in shared if first.records[i]["name"] != second.records[i]["name"]), None)
    if other is not None:
        names = f"{first.records[other]['name']} in {first.name} and {second.records[other]['name']} in {second.name}"
        raise UsageError(f"image {other} is {names}: compare runs on the same data")
    return shared
