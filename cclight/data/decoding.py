"""From an image file, of any kind and in any state, to upright RGB with 8 bits a channel, or to one line that says why not."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageOps

from cclight.errors import one_line


class UnreadableImage(ValueError):
    """A photograph that cannot be read; the message names it."""


def decode(place: str, read: Callable[[], Image.Image]) -> Image.Image:
    """What `read` opens, upright and in RGB with 8 bits a channel.

    Raises:
        UnreadableImage: naming the place.
    """
    try:
        with read() as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow meets broken files with OSError, SyntaxError, ValueError, struct.error and more
        raise UnreadableImage(f"{place} cannot be read as an image ({type(error).__name__}: {one_line(error)})") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range, save them with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Sixteen bits; Pillow's own conversion would clip them at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
