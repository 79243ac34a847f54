"""`cclight compare RUN RUN`: is one run better than the other, image by image?

Both restored the same photographs, so that differences are paired: the interval is a bootstrap over images, the p-value that of
a permutation test which flips the signs of the differences (exact up to 13 images). Fewer than 6 images cannot reach 5 %.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from cclight.commands.arguments import PlainParser
from cclight.commands.outputs import console
from cclight.errors import UsageError, suggestion
from cclight.runs.inputs import differences
from cclight.runs.results import Run


@dataclass(frozen=True)
class Difference:
    """A paired comparison in one metric.

    Attributes:
        metric: its name in metrics.json.
        images: how many images both runs measured.
        mean: the mean of second - first.
        interval: of the mean, 95 %; None for fewer than 2 images or equal differences.
        p_value: two-sided, of no difference; 1 where all differences are zero.
        wins: images on which the second run is better.
        losses: images on which it is worse.
    """

    metric: str
    images: int
    mean: float
    interval: tuple[float, float] | None
    p_value: float
    wins: int
    losses: int


def parser() -> argparse.ArgumentParser:
    """The options of `cclight compare`."""
    parser = PlainParser("cclight compare", description="Test paired differences between two runs.")
    parser.add_argument("first", metavar="RUN", help="a run folder")
    parser.add_argument("second", metavar="RUN", help="another one, on the same photographs")
    parser.add_argument("--metric", action="append", help="only this metric; may be repeated")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight compare`.

    Raises:
        UsageError: when a folder is no finished run, or the two cannot be compared.
    """
    options = parser().parse_args(arguments)
    first, second = Run.read(options.first), Run.read(options.second)
    common = check_same_photographs(first, second)
    metrics = [name for name in first.metrics if _why_not(first, second, name) is None]
    better = [name for name in metrics if first.metrics[name]["direction"] != "none"]
    for name in options.metric or []:
        if reason := _why_not(first, second, name):
            raise UsageError(f"{reason}{suggestion(name, metrics) or ': there are ' + ', '.join(metrics)}")
    metrics = options.metric or better
    for name in first.metrics.keys() & second.metrics.keys():
        if first.values(name) and second.values(name) and (reason := _why_not(first, second, name)):
            print(f"cclight compare: left out: {reason}", file=sys.stderr)
    rows = [difference(first, second, metric) for metric in metrics if not _constant(first, second, metric)]

    from rich.table import Table

    out = console()
    table = Table(title=f"{second.name} minus {first.name}: {len(common)} images")
    for column in ("metric", "difference", "95 % interval", "p", "better : worse", "in words"):
        table.add_column(column, justify="left" if column in ("metric", "in words") else "right")
    for row in rows:
        kind = first.metrics[row.metric]
        digits = kind["digits"] + 1
        interval = "" if row.interval is None else f"{row.interval[0]:+.{digits}f} ... {row.interval[1]:+.{digits}f}"
        counts = "" if kind["direction"] == "none" else f"{row.wins} : {row.losses}"
        words = verdict(row, kind["direction"], first.name, second.name)
        table.add_row(kind["title"], f"{row.mean:+.{digits}f}", interval, f"{row.p_value:.3g}", counts, words)
    out.print(table)
    texts = [(run.path / "config.yaml").read_text(encoding="utf-8") for run in (first, second)]
    for line in differences(*texts, kept_files=first.files, files=second.files) or ["the same configuration"]:
        out.print(line.replace(" there, ", f" in {first.name}, ").replace(" here", f" in {second.name}"), markup=False)


def check_same_photographs(first: Run, second: Run) -> list[int]:
    """The indices that both runs finished.

    Raises:
        UsageError: when there are none, or when an index is not the same photograph in both.
    """
    common = [index for index in first.records if index in second.records]
    if not common:
        raise UsageError(f"{first.path} and {second.path} have no image in common: compare runs on the same photographs")
    for index in common:
        one, two = first.records[index], second.records[index]
        if one["name"] != two["name"]:
            raise UsageError(
                f"image {index} is {one['name']} in {first.path} and {two['name']} in {second.path}: not the same data"
            )
        contents = one.get("content"), two.get("content")
        if None not in contents and contents[0] != contents[1]:
            raise UsageError(
                f"image {index}, {one['name']}, is not the same photograph in {first.path} and {second.path}: not the same data"
            )
    return common


def difference(first: Run, second: Run, metric: str, seed: int = 0) -> Difference:
    """The paired difference of two runs in one metric.

    Args:
        first: a run.
        second: another one on the same photographs.
        metric: a metric that both measured on common images.
        seed: of the bootstrap and of the permutations, where they are not enumerated.
    """
    import numpy as np
    from scipy import stats

    one, two = first.values(metric), second.values(metric)
    gaps = np.array([two[index] - one[index] for index in sorted(one.keys() & two.keys())])
    sign = 1 if first.metrics[metric]["direction"] == "higher" else -1
    interval, p_value = None, 1.0
    if len(gaps) > 1 and np.ptp(gaps) > 0:
        bootstrap = stats.bootstrap((gaps,), np.mean, method="percentile", rng=np.random.default_rng(seed))
        interval = (float(bootstrap.confidence_interval.low), float(bootstrap.confidence_interval.high))
    if len(gaps) > 1 and np.any(gaps):
        permutations: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 9999, "vectorized": True}
        p_value = float(stats.permutation_test((gaps,), np.mean, rng=np.random.default_rng(seed), **permutations).pvalue)
    wins, losses = int((sign * gaps > 0).sum()), int((sign * gaps < 0).sum())
    return Difference(metric, len(gaps), float(gaps.mean()), interval, p_value, wins, losses)


def verdict(row: Difference, direction: str, first: str, second: str) -> str:
    """A difference in words, at the 5 % level."""
    if row.p_value >= 0.05:
        return "no clear difference"
    if direction == "none":
        return "a clear difference, and no better side"
    return f"{second if (row.mean > 0) == (direction == 'higher') else first} is better"


def _why_not(first: Run, second: Run, metric: str) -> str | None:
    """Why two runs cannot be compared in a metric, if they cannot."""
    if not first.values(metric).keys() & second.values(metric).keys():
        return f"{metric} was not measured in both runs"
    titles = [run.metrics.get(metric, {}).get("title") for run in (first, second)]
    if titles[0] != titles[1]:
        return f"{metric} is {titles[0]} in {first.name} and {titles[1]} in {second.name}, which do not compare"
    return None


def _constant(first: Run, second: Run, metric: str) -> bool:
    """Whether a metric has one value in both runs, as NFE often has: nothing to test."""
    return len({*first.values(metric).values(), *second.values(metric).values()}) == 1
