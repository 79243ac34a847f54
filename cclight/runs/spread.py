"""What an image's samples say together: their mean, how far they are apart, and how far both can be believed.

Everything is made of the files that the run has saved, so that a run that was interrupted, or went on with more samples, ends
with the numbers of one that was not. Pictures hold 8 or 16 bits: their rounding, 0.3 levels, is in the spread.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cclight.data.units import Units
from cclight.metrics.perceptual import heat
from cclight.metrics.posterior import LEVELS, POSTERIOR, Evidence, Reliability, best_and_mean, evidence
from cclight.metrics.quantity import Quantity
from cclight.metrics.summary import Summary, summarize
from cclight.runs.files import encode_array, write_whole
from cclight.runs.layout import Kind, picture_of
from cclight.runs.pictures import encode_picture, middle, read_png, to_image, to_levels, to_uint8
from cclight.runs.records import Record, key_of

BEST = "_best"
_HELD = 2**26  # numbers of samples, at once
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
        shown = mean if units is None else units.picture(middle(mean, pictures=3))
        depth = 16 if read_png(picture).dtype == torch.uint16 else 8
        write_whole(paths["mean"], encode_picture(to_levels(shown, depth)))
        write_whole(paths["std"], encode_deviation(std if units is None else std * units.scale))
    if units is not None:
        write_whole(paths["mean"].with_suffix(".npy"), encode_array(units.stored(units.values(mean)).float()))
    stored = std if units is None else units.stored(std * units.scale)
    write_whole(paths["std"].with_suffix(".npy"), encode_array(stored.float()))  # last: it tells that all of it is there
    record: Record = {key: first[key] for key in ("index", "name", "content", "units") if key in first}
    record |= {"samples": len(samples), "whole": len(whole)}
    for quantity in quantities:
        if quantity.direction != "none" and all(quantity.name in one for one in whole):
            values = [one[quantity.name] for one in whole]
            record[f"{quantity.name}{BEST}"] = best_and_mean(values, quantity.direction).best
    clean = None if saved(root, "clean", first) is None else read_saved(root, "clean", first)
    span = 2.0 if units is None or units.ranged else 0.0 if clean is None else float(clean.amax() - clean.amin())
    if clean is not None and clean.shape == mean.shape and span:
        found = _evidence(root, whole, clean, span)
        record |= {name: value for name, value in found.as_dict().items() if math.isfinite(value)}
        record |= {"variance": found.variance / found.pixels, "error": found.error / found.pixels}
        record["coverage"] = list(found.reliability().actual)
    elif span:
        record["diversity"] = float((2 * std.square().mean()).sqrt()) / span
    return record


def _evidence(root: Path, samples: Sequence[Record], clean: Tensor, span: float) -> Evidence:
    """What all samples say, of as many pixels at a time as memory likes."""
    truth = clean.flatten()
    step = max(_HELD // len(samples), 1)
    parts = []
    for begin in range(0, len(truth), step):
        part = slice(begin, begin + step)
        stacked = torch.stack([read_saved(root, "restored", one).flatten()[part] for one in samples])
        parts.append(evidence(stacked, truth[part], span))
    return sum(parts[1:], parts[0])


def summarize_together(
    quantities: Sequence[Quantity], records: Mapping[int, Record], reason: str | None = None, seed: int = 0
) -> list[Summary]:
    """What samples say together, over the images of a run; nothing where each image has one sample.

    Args:
        quantities: what each sample was measured by.
        records: of each image, by index.
        reason: why what needs clean images is missing, where it is known.
        seed: of the bootstrap.
    """
    kept = {index: record for index, record in records.items() if "samples" in record and "failed" not in record}
    if not kept:
        return []
    most = max(record["samples"] for record in kept.values())
    wanted = [
        replace(q, name=f"{q.name}{BEST}", title=f"{q.title}, best of {most}", measures=f"{q.measures}; the best sample's")
        for q in quantities
        if any(f"{q.name}{BEST}" in record for record in kept.values())
    ]
    summaries = []
    for quantity in (*wanted, *POSTERIOR):
        values = {index: record[quantity.name] for index, record in kept.items() if quantity.name in record}
        summary = summarize(quantity, values, len(values), reason, seed)
        # A mean of ratios would not be 1 for ideal samples, nor one of the errors of single images' curves 0.
        if quantity.name == "spread_error" and values:
            errors = math.fsum(kept[index]["error"] for index in values)
            variances = math.fsum((1 + 1 / kept[index]["whole"]) * kept[index]["variance"] for index in values)
            summary = Summary(quantity, variances / errors, None, len(values))
        elif quantity.name == "calibration_error" and values and (curve := reliability(kept)):
            error = Reliability(tuple(curve["nominal"]), tuple(curve["actual"])).calibration_error
            summary = Summary(quantity, error, None, len(values))
        summaries.append(summary)
    return summaries


def reliability(records: Mapping[int, Record]) -> dict[str, list[float]] | None:
    """The reliability curve of a run, the mean of its images': nominal levels and actual coverage; None without one."""
    curves = [record["coverage"] for record in records.values() if all(map(math.isfinite, record.get("coverage", [math.nan])))]
    if not curves:
        return None
    return {"nominal": list(LEVELS), "actual": [math.fsum(level) / len(curves) for level in zip(*curves, strict=True)]}


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
    if "units" not in record:
        return None
    try:
        return Units.read(record["units"])
    except ValueError as error:
        raise ValueError(f"the record of image {record['index']} is damaged, {error}") from error


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

    Channels are one in it, by their root mean square; of volumes it is the slice in the middle.
    """
    level = middle(std, pictures=3).double().square().mean(0).sqrt()
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
