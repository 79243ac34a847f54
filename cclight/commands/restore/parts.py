"""A large picture in parts: where they lie, how they are joined, and the noise that they share.

Parts overlap and are mixed with weights that fade towards their edges. Both sides of a seam begin from the same noise, so that
they come to nearly the same pixels there. A picture with holes is restored around its holes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

CELL = 64  # pixels
_OFFSET = 4096  # so far the noise reaches above and to the left of a picture


@dataclass(frozen=True)
class Part:
    """A rectangle of a picture: its rows and columns, and the weights of its pixels along each, within (0, 1]."""

    rows: slice
    columns: slice
    down: Tensor
    across: Tensor


def parts(height: int, width: int, tile: int, overlap: int, grid: int = 1) -> list[Part]:
    """Parts that cover a picture, all of one size.

    Args:
        height: of the picture.
        width: of the picture.
        tile: the side of a part, at most; a multiple of `grid`.
        overlap: of neighbours, at least; under tile / 2.
        grid: parts begin at multiples of so many pixels.
    """
    rows, columns = (_along(side, tile, overlap, grid) for side in (height, width))
    return [Part(row, column, down, across) for row, down in rows for column, across in columns]


def _along(side: int, tile: int, overlap: int, grid: int) -> list[tuple[slice, Tensor]]:
    if side <= tile:
        return [(slice(0, side), torch.ones(side))]
    count = -(-(side - overlap) // (tile - overlap))
    starts = [(side - tile) * number // (count - 1) // grid * grid for number in range(count)]
    ends = [*(start + tile for start in starts[:-1]), side]
    places = []
    for start, end in zip(starts, ends, strict=True):
        weight = torch.ones(end - start)
        rising = (torch.arange(overlap) + 1) / (overlap + 1)
        if start > 0:
            weight[:overlap] = rising
        if end < side:
            weight[-overlap:] = rising.flip(0)
        places.append((slice(start, end), weight))
    return places


def around(missing: np.ndarray, tile: int, overlap: int) -> list[Part]:
    """Parts around the holes of a picture, with a cell of context or more on every side.

    Args:
        missing: (H, W) bool.
        tile: the side of a part of a large hole, at most.
        overlap: of such parts.
    """
    import numpy as np
    from scipy import ndimage

    height, width = missing.shape
    cells = np.zeros((-(-height // CELL) * CELL, -(-width // CELL) * CELL), dtype=bool)
    cells[:height, :width] = missing
    coarse = np.asarray(cells.reshape(cells.shape[0] // CELL, CELL, -1, CELL).any(axis=(1, 3)))
    boxes = ndimage.find_objects(ndimage.label(ndimage.binary_dilation(coarse, np.ones((3, 3))))[0])
    found: list[Part] = []
    for rows, columns in _merged(boxes):
        top, left = rows.start * CELL, columns.start * CELL
        bottom, right = min(rows.stop * CELL, height), min(columns.stop * CELL, width)
        for part in parts(bottom - top, right - left, tile, overlap):
            row, column = (
                slice(start + place.start, start + place.stop) for start, place in ((top, part.rows), (left, part.columns))
            )
            if missing[row, column].any():
                found.append(Part(row, column, part.down, part.across))
    return found


def _merged(boxes: list[tuple[slice, slice]]) -> list[tuple[slice, slice]]:
    """Boxes that overlap become one, until none do."""
    left = list(boxes)
    merged: list[tuple[slice, slice]] = []
    while left:
        rows, columns = left.pop()
        for place, (other, across) in enumerate(left):
            if max(rows.start, other.start) < min(rows.stop, other.stop) and max(columns.start, across.start) < min(
                columns.stop, across.stop
            ):
                left[place] = (
                    slice(min(rows.start, other.start), max(rows.stop, other.stop)),
                    slice(min(columns.start, across.start), max(columns.stop, across.stop)),
                )
                left, merged = left + merged, []  # what has grown may reach others
                break
        else:
            merged.append((rows, columns))
    return sorted(merged, key=lambda box: (box[0].start, box[1].start))


def noise_at(seed: int | str, channels: int, top: int, left: int, height: int, width: int) -> Tensor:
    """A rectangle, (1, C, height, width), of a field of standard normal noise without end, the same in every part.

    Args:
        seed: which field.
        channels: C.
        top: its first row in the picture, from -4096.
        left: its first column, likewise.
        height: of the rectangle.
        width: of the rectangle.
    """
    from cclight.data.noise import generator, standard_normal

    top, left = top + _OFFSET, left + _OFFSET
    rows, columns = (range(start // CELL, -(-(start + side) // CELL)) for start, side in ((top, height), (left, width)))
    lines = []
    for row in rows:
        sources = [generator(seed, (row << 14) + column, "initial") for column in columns]
        lines.append(torch.cat(list(standard_normal((channels, CELL, CELL), sources)), dim=2))
    field = torch.cat(lines, dim=1)
    top, left = top - rows.start * CELL, left - columns.start * CELL
    return field[None, :, top : top + height, left : left + width]
