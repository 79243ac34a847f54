"""Summaries: the mean of a metric over images, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cclight.metrics.image import ImageMetric
from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS, Quantity
from cclight.runs.folder import Record


@dataclass(frozen=True)
class Summary:
    """A metric over all images of a run.

    Attributes:
        quantity: what it is.
        mean: the mean over images, or a distribution metric's value; None where it is unavailable.
        interval: the 95 % bootstrap interval of the mean; None for a single image and for distribution metrics.
        images: how many images it rests on.
        unavailable: why there is no mean, and the remedy.
    """

    quantity: Quantity
    mean: float | None = None
    interval: tuple[float, float] | None = None
    images: int = 0
    unavailable: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The summary as plain types, without what does not apply and without infinities, which JSON has no word for."""
        range_ = [bound if math.isfinite(bound) else None for bound in self.quantity.range]
        quantity = {k: v for k, v in asdict(self.quantity).items() if k != "name"}
        reason = self.unavailable
        if reason is None and self.mean is not None and not math.isfinite(self.mean):
            reason = "not finite"
        if reason is not None:
            return {**quantity, "range": range_, "unavailable": reason}
        return {"mean": self.mean, "interval": self.interval, "images": self.images, **quantity, "range": range_}


def summarize(
    quantity: Quantity, values: Mapping[int, float], expected: int, reason: str | None = None, seed: int = 0
) -> Summary:
    """The mean of a per-image metric with its interval.

    Args:
        quantity: what the values are.
        values: the metric of each image by the image's index.
        expected: how many images should have a value; a mean over a part of them would not compare.
        reason: why values are missing, where it is known.
        seed: of the bootstrap's own generator.
    """
    if odd := [index for index in sorted(values) if not math.isfinite(values[index])]:
        return Summary(quantity, unavailable=f"not finite on {len(odd)} of {expected} images, image {odd[0]} among them")
    if len(values) == expected > 0:
        ordered = [values[index] for index in sorted(values)]
        return Summary(quantity, math.fsum(ordered) / expected, bootstrap_interval(ordered, seed), expected)
    if reason is None:
        reason = (
            f"{len(values)} of {expected} images have it, perhaps from an earlier run without it" if expected else "no images"
        )
    return Summary(quantity, unavailable=reason)


def bootstrap_interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean under resampling with replacement; None for fewer than two values."""
    import numpy as np

    if len(values) < 2:
        return None
    sample, rng = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    n, at_once = len(sample), max(1, 2**20 // len(sample))
    counts = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = np.concatenate([sample[rng.integers(n, size=(count, n))].mean(axis=1) for count in counts])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def per_image_quantities(metrics: list[ImageMetric]) -> list[Quantity]:
    """The per-image numbers of a run: the metrics', and those that need no clean image.

    Raises:
        ValueError: for two metrics of one name.
    """
    quantities = [*(metric.quantity for metric in metrics), CONSISTENCY, NFE, SECONDS]
    names = [quantity.name for quantity in quantities]
    if len(set(names)) < len(names):
        raise ValueError(f"Two metrics of one name among {', '.join(names)}: give each metric its own quantity.name.")
    return quantities


def summarize_records(
    quantities: list[Quantity], records: dict[int, Record], reasons: dict[str, str], seed: int
) -> list[Summary]:
    """Each per-image metric over the records that hold a restoration.

    Args:
        quantities: what to summarize.
        records: by image index.
        reasons: why a metric is missing, by its name.
        seed: of the bootstrap.
    """
    kept = {index: record for index, record in records.items() if "failed" not in record}

    def values(name: str) -> dict[int, float]:
        return {index: record[name] for index, record in kept.items() if name in record}

    return [summarize(q, values(q.name), len(kept), reasons.get(q.name), seed) for q in quantities]
