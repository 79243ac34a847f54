"""From an image file, of any kind and in any state, to an upright picture in sRGB, or to one line that says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cclight.data.formats import FORMATS, SUFFIXES
from cclight.data.pixels import JPEGFile, Stored, read_stored
from cclight.errors import one_line

__all__ = ["FORMATS", "SUFFIXES", "JPEGFile", "Picture", "UnreadableImage", "decode", "over_white", "read_picture"]


class UnreadableImage(ValueError):
    """A photograph that cannot be read; the message names it."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright, sRGB.

    Attributes:
        pixels: (H, W, C) with C 1 or 3, uint8, or uint16 (white is 65535) for what has more than 8 bits.
        grey: stored as grey, or as RGB with equal channels.
        alpha: (H, W) in [0, 1], float32; None where all is opaque. The pixels are not multiplied by it.
        jpeg: for JPEG files, how they were compressed.
        notes: what was done or passed over that people should know, each a clause.
    """

    pixels: np.ndarray
    grey: bool
    alpha: np.ndarray | None = None
    jpeg: JPEGFile | None = None
    notes: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Bits a channel, 8 or 16."""
        return 8 * self.pixels.itemsize

    def image(self) -> Image.Image:
        """In RGB with 8 bits a channel, without alpha."""
        pixels = self.pixels if self.depth == 8 else ((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def read_picture(path: str | Path) -> Picture:
    """The picture in a file.

    Raises:
        UnreadableImage: naming the file.
    """
    return decode(str(path), lambda: read_content(path))


def read_content(path: str | Path) -> bytes:
    """A file's bytes.

    Raises:
        ValueError: for a folder, a pipe or a device, which might never end.
        OSError: where there is no such file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    return path.read_bytes()


def decode(place: str, read: Callable[[], bytes]) -> Picture:
    """The picture that `read` gives the encoded bytes of.

    Args:
        place: where it is, for messages.
        read: gives the bytes of an image file.

    Raises:
        UnreadableImage: naming the place.
    """
    try:
        return _picture(read_stored(read()))
    except Exception as error:  # Pillow meets broken files with OSError, SyntaxError, ValueError, struct.error and more
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise UnreadableImage(f"{place} cannot be read as an image ({kind}{one_line(error)})") from error


def over_white(picture: Picture) -> Picture:
    """The picture without transparency: laid over white, as most programs show it, and a note that says so."""
    if picture.alpha is None:
        return picture
    alpha, white = picture.alpha[..., None], np.iinfo(picture.pixels.dtype).max
    pixels = np.rint(picture.pixels * alpha + white * (1 - alpha)).astype(picture.pixels.dtype)
    return replace(picture, pixels=pixels, alpha=None, notes=(*picture.notes, "its transparent pixels are laid over white"))


def _picture(stored: Stored) -> Picture:
    pixels, notes = _levels(stored)
    pixels, profile = _to_srgb(pixels, stored.icc)
    grey = pixels.shape[2] == 1 or bool((pixels[..., :1] == pixels).all())
    return Picture(np.array(pixels, order="C"), grey, stored.alpha, stored.jpeg, (*stored.notes, *notes, *profile))


def _levels(stored: Stored) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values as uint8 with white at 255, or as uint16 with white at 65535."""
    values, top = stored.values, stored.top
    notes: tuple[str, ...] = ()
    if (values.dtype, top) in ((np.uint8, 255), (np.uint16, 65535)):
        return values, notes
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not -0.01 <= low <= high <= 1.01:  # a little beyond is what resizing leaves; NaN fails as well
            raise ValueError(
                f"its floats reach from {low:g} to {high:g}: they are read where they lie from 0 to 1; else save 8 or 16 bits"
            )
        top = 1.0
    elif low < 0:
        raise ValueError(f"its integers reach from {low:.0f} to {high:.0f}: save them with 8 or 16 bits from 0 up")
    elif top is None:
        top = next(float(w) for w in (255, 4095, 65535, np.iinfo(values.dtype).max) if high <= w <= np.iinfo(values.dtype).max)
        notes = (f"its {8 * values.itemsize}-bit integers hold no more than {high:.0f} and are taken as 0 to {top:.0f}",)
    return np.rint(np.clip(values / np.float64(top), 0, 1) * 65535).astype(np.uint16), notes


def _to_srgb(pixels: np.ndarray, icc: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels converted from a colour profile to sRGB; untouched where the profile is sRGB already."""
    space = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}.get(icc[16:20])
    channels = pixels.shape[2]
    if not icc:
        return pixels, ()
    import imagecodecs

    srgb = imagecodecs.cms_profile("srgb")

    def convert(values: np.ndarray) -> np.ndarray:
        return imagecodecs.cms_transform(np.ascontiguousarray(values), icc, srgb, colorspace=space, outcolorspace="rgb")

    try:
        if space == "cmyk" and channels == 4:
            return convert(pixels), ()
        if space == "rgb" and channels in (1, 3):
            steps = np.arange(0, 256, 17, dtype=np.uint8)
            cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
            if np.abs(convert(cube).astype(int) - cube).max() <= 2:
                return pixels, ()
            return convert(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))[..., :channels], ()
        if space == "gray" and channels == 1:
            return convert(pixels[..., 0])[..., :1], ()
    except (RuntimeError, ValueError):
        space = None
    if channels == 4:
        raise ValueError("its CMYK has a colour profile that cannot be used: save it as RGB")
    return pixels, ("its colour profile cannot be used: the colours are taken as sRGB",)
