"""What an image's samples say together: their mean, how far they are apart, and how far both can be believed.

Everything is made of the files that the run has saved, so that a run that was interrupted, or went on with more samples, ends
with the numbers of one that was not. Pictures hold 8 or 16 bits: their rounding, 0.3 levels, is in the spread.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cclight.data.units import Units
from cclight.metrics.perceptual import heat
from cclight.metrics.quantity import Quantity
from cclight.runs.files import encode_array, write_whole
from cclight.runs.layout import Kind, picture_of
from cclight.runs.pictures import encode_picture, read_png, to_image, to_levels, to_uint8
from cclight.runs.records import Record, key_of

_LEAST_SIDE = 256  # of a picture of deviations, so that its scale can be read


def together(root: Path, samples: Sequence[Record], quantities: Sequence[Quantity]) -> Record | None:
    """Write the mean and the standard deviation of an image's samples, and measure the samples together.

    Args:
        root: the run folder, which holds what the samples' records tell of.
        samples: the image's records, one of each sample.
        quantities: what each was measured by.

    Returns:
        The record of all of them; None where fewer than two were restored and saved.

    Raises:
        RunError: when a file cannot be written.
        OSError, ValueError: when one cannot be read.
    """
    whole = [record for record in samples if "failed" not in record and saved(root, "restored", record) is not None]
    if len(whole) < 2:
        return None
    first = whole[0]
    units = units_of(first)
    mean, std = moments(read_saved(root, "restored", one) for one in whole)
    paths = {kind: picture_of(root, kind, first["index"], first["name"]) for kind in ("mean", "std")}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    picture = _place(root, "restored", first)
    if picture.is_file():
        shown, depth = mean if units is None else units.picture(mean), 16 if read_png(picture).dtype == torch.uint16 else 8
        write_whole(paths["mean"], encode_picture(to_levels(shown, depth)))
        write_whole(paths["std"], encode_deviation(std if units is None else std * units.scale))
    if units is not None:
        write_whole(paths["mean"].with_suffix(".npy"), encode_array(units.stored(units.values(mean)).float()))
    stored = std if units is None else units.stored(std * units.scale)
    write_whole(paths["std"].with_suffix(".npy"), encode_array(stored.float()))  # last: it tells that all of it is there
    record: Record = {key: first[key] for key in ("index", "name", "content", "units") if key in first}
    record |= {"samples": len(samples), "restored": len(whole)}
    return record


def together_quantities(quantities: Sequence[Quantity], records: Iterable[Record]) -> list[Quantity]:
    """What of images is measured of their samples together."""
    return []


def saved(root: Path, kind: Kind, record: Record) -> Path | None:
    """The file that an image, or a sample of it, is saved as; None where it is not."""
    path = _place(root, kind, record).with_suffix(".npy" if "units" in record else ".png")
    return path if path.is_file() else None


def read_saved(root: Path, kind: Kind, record: Record) -> Tensor:
    """A saved image, or sample of it, (C, ...), as the prior knows images.

    Raises:
        OSError, ValueError: when it cannot be read.
    """
    path, units = _place(root, kind, record), units_of(record)
    if units is None:
        return to_image(read_png(path))
    values = torch.from_numpy(np.load(path.with_suffix(".npy"), allow_pickle=False))
    return units.image(units.channels_first(values))


def units_of(record: Record) -> Units | None:
    """What the numbers of an array mean; None for a photograph."""
    return Units(**record["units"]) if "units" in record else None


def _place(root: Path, kind: Kind, record: Record) -> Path:
    index, sample = key_of(record)
    return picture_of(root, kind, index, record["name"], sample if kind == "restored" else 0)


def moments(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation, float64, of two or more images, each seen once (Welford 1962)."""
    mean = squares = torch.zeros((), dtype=torch.float64)
    count = 0
    for image in images:
        count += 1
        difference = image.double() - mean
        mean = mean + difference / count
        squares = squares + difference * (image.double() - mean)
    return mean, (squares / (count - 1)).sqrt()


def read_deviation(path: Path, record: Record) -> Tensor:
    """The saved standard deviation of an image's samples, (C, ...), in the units of the data."""
    values = torch.from_numpy(np.load(path, allow_pickle=False))
    units = units_of(record)
    return values if units is None else units.channels_first(values)


def deviation(std: Tensor) -> tuple[Tensor, float]:
    """Standard deviations, (C, H, W), as a picture, (3, H, W) in [-1, 1], and the value that is white in it, the largest one.

    Channels are one in it, by their root mean square.
    """
    level = std.double().square().mean(0).sqrt()
    largest = float(level.amax())
    return heat(level.float(), largest or 1.0), largest


def encode_deviation(std: Tensor) -> bytes:
    """Standard deviations, (C, H, W), as a PNG with a colour bar, which names the largest one and its half."""
    from PIL import Image, ImageDraw, ImageFont

    factor = -(-_LEAST_SIDE // min(std.shape[-2:]))
    shown, largest = deviation(std)
    picture = interpolate(to_uint8(shown)[None], scale_factor=max(factor, 1), mode="nearest-exact")[0]
    height, width = picture.shape[-2:]
    size = max(14, height // 24)
    canvas = Image.new("RGB", (width + 6 * size, height), "white")
    canvas.paste(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=size)
    left, top, bottom = width + size, size, height - size
    bar = to_uint8(heat(torch.linspace(1, 0, bottom - top)[:, None].expand(-1, size), 1.0))
    canvas.paste(Image.fromarray(bar.permute(1, 2, 0).contiguous().numpy()), (left, top))
    draw.rectangle((left - 1, top - 1, left + size, bottom), outline="black")
    for share in (0, 0.5, 1):
        place = (left + size + size // 2, bottom - share * (bottom - top))
        draw.text(place, f"{share * largest:.2g}", fill="black", font=font, anchor="lm")
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()
