r"""Units: what the numbers of a source of arrays mean, and how they become a prior's.

Priors know images in [-1, 1]. An array of values v is the image x with

    v = c + s x,    c = (low + high)/2, s = (high - low)/2,    or    c = mean, s = std,

and what a linear operator H measured of the array, w = H v, is s H x + H c: y = (w - H c)/s, whatever shape it has. So an FFT
of raw intensities, or pixels beside holes of 0, become measurements of x. A nonlinear operator's measurement is taken as v is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator

_DEVIATIONS = 3  # of values without ends, how many standard deviations a picture shows


@dataclass(frozen=True)
class Units:
    """The units of a source's arrays.

    Attributes:
        centre: c, the value that is 0 to the prior.
        scale: s > 0, the difference that is 1 to the prior.
        ranged: [-1, 1] is the range of the values, as of low and high; else their mean and standard deviation were given.
        ends: values end at -1 and 1, and restorations are clamped there. Needs `ranged`.
        channel_axis: which axis of an array counts its channels; None where it has none.
    """

    centre: float = 0.0
    scale: float = 1.0
    ranged: bool = True
    ends: bool = False
    channel_axis: int | None = 0

    @staticmethod
    def read(written: Mapping[str, Any]) -> Units:
        """The units that a record holds.

        Raises:
            ValueError: where they are none.
        """
        try:
            units = Units(**written)
            numbers = math.isfinite(units.centre) and 0 < units.scale < math.inf
            axis = units.channel_axis is None or type(units.channel_axis) is int
            if numbers and axis and {type(units.ranged), type(units.ends)} == {bool}:
                return units
        except TypeError:
            pass
        raise ValueError(f"its units are {written}")

    def image(self, values: Tensor) -> Tensor:
        """X = (v - c)/s, of any shape."""
        return (values - self.centre) / self.scale

    def values(self, image: Tensor) -> Tensor:
        """V = c + s x, of any shape."""
        return self.centre + self.scale * image

    def measurement(self, measured: Tensor, operator: Operator) -> Tensor:
        """y, (B, ...), of what the operator measured of values."""
        if not isinstance(operator, LinearOperator):
            return self.image(measured)
        return (measured - self._offset(operator, measured)) / self.scale if self.centre else measured / self.scale

    def measured(self, y: Tensor, operator: Operator) -> Tensor:
        """What the operator measures of values, (B, ...), where it measures y of images."""
        if not isinstance(operator, LinearOperator):
            return self.values(y)
        return self.scale * y + self._offset(operator, y) if self.centre else self.scale * y

    def _offset(self, operator: LinearOperator, y: Tensor) -> Tensor:
        shape = (1, *operator.image_shape(tuple(y.shape[1:])))
        return operator(torch.full(shape, self.centre, dtype=y.real.dtype, device=y.device))

    def picture(self, image: Tensor) -> Tensor:
        """An image, of any shape, as a picture shows it in [-1, 1]."""
        return image if self.ranged else image / _DEVIATIONS

    def doubt(self, low: float, high: float) -> str:
        """What is odd about arrays whose values lie between two numbers, what they hold and what helps; empty if nothing is."""
        if not self.ranged or not low <= high:
            return ""
        found = f"values from {low:g} to {high:g}"
        if max(abs(low - self.centre), abs(high - self.centre)) > 2 * self.scale:
            first, last = self.centre - self.scale, self.centre + self.scale
            return f"{found}, far outside of {first:g} to {last:g}: set data.source.value_range, or mean and std"
        if (self.centre, self.scale) == (0, 1) and low >= 0 and 0.5 < high <= 1:
            return f"{found}, and images begin at -1: set data.source.value_range to [0, 1], if these are their ends"
        return ""

    def stored(self, values: Tensor) -> Tensor:
        """An image's values, (C, ...), with the axes as the source has them; of a measurement where it has such axes."""
        if self.channel_axis is None:
            return values[0] if len(values) == 1 else values
        return values.movedim(0, self.channel_axis)

    def channels_first(self, stored: Tensor) -> Tensor:
        """An array of the source, or what `stored` made, as (C, ...).

        Raises:
            ValueError: where it has no such axis.
        """
        if self.channel_axis is None:
            return stored[None]
        if not -stored.ndim <= self.channel_axis < stored.ndim:
            raise ValueError(f"an array of shape {tuple(stored.shape)} has no channel axis {self.channel_axis}")
        return stored.movedim(self.channel_axis, 0)
