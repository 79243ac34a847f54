"""`cclight compare`: is one run better than another, image by image?

Both restored the same photographs, so each image gives one difference d_i = a_i - b_i. Reported are its mean, a 95 % bootstrap
interval of the mean (resampling images), and the two-sided p-value of a sign-flip test: were the runs equally good, each d_i
would have either sign with equal chance. All 2ⁿ sign patterns are tried where there are few images, else 10,000 random ones.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cclight.cli import UsageError
from cclight.runs import _flatten
from cclight.workbench.results import Run

_FREE = ("run.", "trainer.", "images.", "config")  # settings that say nothing about the result
_RESAMPLES = 10_000
_EXACT = 12


@dataclass(frozen=True)
class Difference:
    """A paired difference of two runs in one metric.

    Attributes:
        mean: of first minus second.
        interval: the 95 % bootstrap interval of the mean.
        p: the p-value of the sign-flip test.
        wins: images on which the first run is better, by the metric's direction.
        losses: images on which the second is.
        images: how many were compared.
    """

    mean: float
    interval: tuple[float, float]
    p: float
    wins: int
    losses: int
    images: int


def paired(first: np.ndarray, second: np.ndarray, higher: bool, seed: int = 0) -> Difference:
    """Compare two runs image by image.

    Args:
        first: a metric of each image, (N,).
        second: the other run's, (N,), in the same order.
        higher: whether more is better.
        seed: of the resampling.
    """
    from scipy.stats import bootstrap, permutation_test

    difference = np.asarray(first, float) - np.asarray(second, float)
    mean, images = float(difference.mean()), len(difference)
    better = difference if higher else -difference
    wins, losses = int((better > 0).sum()), int((better < 0).sum())
    if np.ptp(difference) == 0 or images == 1:  # nothing to resample
        return Difference(mean, (mean, mean), 1.0 if mean == 0 or images == 1 else 2.0 ** (1 - images), wins, losses, images)
    rng = np.random.default_rng(seed)
    interval = bootstrap((difference,), np.mean, method="percentile", n_resamples=_RESAMPLES, rng=rng).confidence_interval
    resamples = np.inf if images <= _EXACT else _RESAMPLES
    test = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=resamples, rng=rng)
    return Difference(mean, (float(interval.low), float(interval.high)), float(test.pvalue), wins, losses, images)


def common(first: Run, second: Run) -> list[int]:
    """The indices that both runs restored.

    Raises:
        UsageError: when there are none, or when an index names different photographs.
    """
    indices = [
        i
        for i, record in first.records.items()
        if "failed" not in record and "failed" not in second.records.get(i, {"failed": 1})
    ]
    if not indices:
        raise UsageError(
            f"{first.path} and {second.path} have no restored image in common: compare runs on the same photographs"
        )
    for i in indices:
        a, b = first.records[i]["name"], second.records[i]["name"]
        if a != b:
            raise UsageError(f"image {i} is {a} in {first.path} and {b} in {second.path}: compare runs on the same photographs")
    return indices


def differing(first: Run, second: Run) -> dict[str, tuple[object, object]]:
    """The settings in which two configurations differ, without those that say nothing about the result."""
    a, b = _flatten(first.config), _flatten(second.config)
    keys = [key for key in sorted({*a, *b}) if not key.startswith(_FREE) and a.get(key) != b.get(key)]
    return {key: (a.get(key, "-"), b.get(key, "-")) for key in keys}


def main(arguments: list[str]) -> None:
    """`cclight compare RUN RUN [--metric NAME ...]`."""
    parser = argparse.ArgumentParser(prog="cclight compare", description="Test whether one run is better than another.")
    parser.add_argument("first", metavar="RUN", help="a run folder, as runs/sr")
    parser.add_argument("second", metavar="RUN", help="another, on the same photographs")
    parser.add_argument("--metric", nargs="+", metavar="NAME", help="as lpips psnr; none given compares all that both measured")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    options = parser.parse_args(arguments)
    a, b = Run.read(options.first), Run.read(options.second)
    indices = common(a, b)
    measured = [m for m in a.metrics if all(m in run.records[i] for run in (a, b) for i in indices)]
    unknown = [m for m in options.metric or [] if m not in measured]
    if unknown:
        raise UsageError(f"not measured on each image of both runs: {', '.join(unknown)}; there are {', '.join(measured)}")
    one, two = (a.name, b.name) if a.name != b.name else (str(a.path), str(b.path))
    print(f"{one} against {two}: {len(indices)} images")
    left = len({*a.records, *b.records}) - len(indices)
    if left:
        print(f"{left} images that one of them lacks or failed on are left out")
    for name in options.metric or measured:
        values = [np.array([run.records[i][name] for i in indices]) for run in (a, b)]
        info = a.metrics[name]
        print(in_words(paired(*values, info["direction"] == "higher", options.seed), info, one, two))
    for key, (left_value, right_value) in differing(a, b).items():
        print(f"  {key}: {left_value} | {right_value}")


def in_words(d: Difference, info: dict, one: str, two: str) -> str:
    """A difference as one line.

    Args:
        d: the difference.
        info: the metric's entry of metrics.json.
        one: the first run's name.
        two: the second's.
    """
    digits = info["digits"] + 1
    if d.mean == 0:
        verdict = "no difference"
    else:
        winner = one if (d.mean > 0) == (info["direction"] == "higher") else two
        verdict = f"{winner} is better" if d.p < 0.05 else f"{winner} is ahead, within chance"
    low, high = d.interval
    return (
        f"{info['title']}: {d.mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], p = {d.p:.2g}, "
        f"{d.wins} won, {d.losses} lost: {verdict}"
    )
