"""The grid of a run: a row of pictures for each of its first images, one below the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from cclight.runs.files import write_whole
from cclight.runs.layout import PICTURE, index_of, written
from cclight.runs.pictures import read_png, to_uint8

COLUMNS = ("measurement", "pseudoinverse", "restored", "clean")
COLUMNS_OF_SAMPLES = ("measurement", "mean", "standard deviation", "sample 0", "sample 1", "clean")
_GAP = 4
_HEADER = 24
_LEAST_SIDE = 128


def write_grid(root: Path, most: int, samples: int) -> None:
    """Write grid.png of the rows in a run folder; where there are none, nothing.

    Args:
        root: the folder.
        most: how many rows it shows, those of the lowest indices.
        samples: restorations of each image.
    """
    rows = sorted(written(root / "rows", PICTURE), key=index_of)[:most]
    if rows:
        columns = COLUMNS if samples == 1 else COLUMNS_OF_SAMPLES
        write_whole(root / "grid.png", grid_of(rows, columns if (root / "clean").is_dir() else columns[:-1]))


def row_of(images: list[Tensor]) -> Tensor:
    """Images side by side, (3, H, W) uint8, each brought to the last one's size (nearest pixels) and enlarged where tiny.

    Args:
        images: each (C, H, W) in [-1, 1].
    """
    height, width = images[-1].shape[-2:]
    factor = -(-_LEAST_SIDE // min(height, width)) if min(height, width) < _LEAST_SIDE else 1
    tiles = []
    for image in images:
        picture = to_uint8(image.float().cpu())
        picture = picture.expand(3, -1, -1) if picture.shape[0] == 1 else picture[:3]
        tile = interpolate(picture[None], size=(height * factor, width * factor), mode="nearest-exact")[0]
        tiles.append(pad(tile, (0, _GAP, 0, _GAP), value=255))
    return torch.cat(tiles, dim=-1)


def grid_of(rows: list[Path], columns: Sequence[str]) -> bytes:
    """The rows below one another under the columns' names, as PNG; each row holds an image for every column."""
    from PIL import Image, ImageDraw, ImageFont

    pictures = [read_png(path) for path in rows]
    width, height = max(p.shape[-1] for p in pictures), sum(p.shape[-2] for p in pictures)
    canvas = Image.new("RGB", (width, height + _HEADER), "white")
    top = _HEADER
    for picture in pictures:
        canvas.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()), (0, top))
        top += picture.shape[-2]
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    tile = pictures[0].shape[-1] // len(columns)
    for place, label in enumerate(columns):
        draw.text((place * tile + (tile - _GAP) / 2, _HEADER / 2), label, fill="black", font=font, anchor="mm")
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()
