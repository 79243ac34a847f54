"""Quantity: what a reported number means, and Unavailable: why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


class Unavailable(Exception):
    """A metric that cannot be had here; the message is one line: the reason and, where there is one, the remedy."""


@dataclass(frozen=True)
class Quantity:
    """What a reported number means.

    Attributes:
        name: the key in metrics.json and the column in metrics.csv.
        title: how tables call it, with the unit.
        direction: which way is better; none where the best value lies between.
        range: the least and the greatest value it can have.
        measures: its input and what it aggregates.
        digits: decimals that tables show.
    """

    name: str
    title: str
    direction: Literal["higher", "lower", "none"]
    range: tuple[float, float]
    measures: str
    digits: int = 3


CONSISTENCY = Quantity(
    "consistency", "||H x̂ - y|| (RMS)", "lower", (0, math.inf), "mean over images; root mean square of H x̂ - y, x̂ in [-1, 1]", 4
)


NFE = Quantity("nfe", "NFE", "lower", (0, math.inf), "mean over images; network evaluations", 0)


SECONDS = Quantity("seconds", "seconds per image", "lower", (0, math.inf), "mean over images; a batch's time over its size")
