"""From an image file to its pixels as they are stored: every format of one list, any depth, upright.

Pillow reads eight bits a channel. What it would shorten to that goes through imagecodecs and tifffile: 16 bits in colour (PNG,
TIFF, PPM, JPEG 2000), and TIFF of 12 or 32 bits or of floats. What the numbers mean is decided in `cclight.data.decoding`.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cclight.data.formats import FORMATS

LARGEST = 178_956_970  # pixels: where Pillow, too, believes in an attack on the memory
_TOO_LARGE = f"it has more than {LARGEST:,} pixels: cut it or scale it down first"
# The subsampling of the chroma, by how many luminance samples there are to one of it, across and down.
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


@dataclass(frozen=True)
class JPEGFile:
    """How a JPEG file was compressed.

    Attributes:
        quantization: its tables of 64 numbers, row by row, by their number in the file (0 is luminance's).
        subsampling: of the chroma: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", "grey" where there is none, else "other".
        orientation: EXIF's, 1 to 8; already applied to the pixels. The grid of 8×8 blocks begins at the top left of the
            picture as stored, before it was applied.
    """

    quantization: dict[int, list[int]]
    subsampling: str
    orientation: int


@dataclass(frozen=True)
class Stored:
    """The pixels of a file.

    Attributes:
        values: (H, W, C), upright: C is 1 (grey), 3 (RGB), or 4 (CMYK, 255 is full ink); of any numeric type.
        top: the value of white, where the format tells it; None for integers of 32 bits and for floats.
        alpha: (H, W) in [0, 1], float32; None where there is none or nothing is transparent.
        icc: the colour profile, empty where there is none.
        jpeg: for JPEG files, how they were compressed.
        notes: what people should know, such as frames that were passed over.
    """

    values: np.ndarray
    top: float | None
    alpha: np.ndarray | None = None
    icc: bytes = b""
    jpeg: JPEGFile | None = None
    notes: tuple[str, ...] = ()


def read_stored(content: bytes) -> Stored:
    """The pixels of an image file.

    Args:
        content: the file's bytes.

    Raises:
        ValueError: and whatever Pillow, tifffile and imagecodecs meet a broken file with.
    """
    if not content:
        raise ValueError("the file is empty")
    if (depth := _jpeg2000_depth(content)) > 8:
        return _deep_jpeg2000(content, depth)
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and (stored := _deep_tiff(content)) is not None:
        return stored
    if (header := re.match(rb"P6\s(?:\s*#[^\n]*\n)*\s*(\d+)\s+(\d+)\s+(\d+)\s", content[:1000])) and int(header[3]) > 255:
        return _deep_ppm(content, header)
    with open_image(content) as image:
        return _deep_png(content, image) if image.format == "PNG" and content[24] == 16 else _shallow(image)


def open_image(content: bytes) -> Image.Image:
    """An image file as Pillow opens it: the only call of Image.open in cclight.

    Raises:
        ValueError: for a format that is not in FORMATS, and for more than LARGEST pixels.
    """
    _allow_large()
    try:
        return Image.open(io.BytesIO(content), formats=_formats())
    except UnidentifiedImageError:
        raise ValueError(_unknown(content)) from None
    except Image.DecompressionBombError:
        raise ValueError(_TOO_LARGE) from None


def _allow_large() -> None:
    """Pillow warns at half of LARGEST. For good: threads decode, and `catch_warnings` belongs to one thread alone."""
    quiet = ("ignore", None, Image.DecompressionBombWarning, None, 0)
    if quiet not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads, with the plug-in for HEIF where it is installed."""
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _unknown(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "it is HEIF, which needs a plug-in: pip install 'cclight[heif]'"
    if content[4:8] == b"ftyp" and content[8:12] in (b"avif", b"avis"):
        return "it is AVIF, which needs a newer Pillow: pip install -U pillow"
    return f"it is none of {', '.join(_formats())}, whatever its name says"


def _shallow(image: Image.Image) -> Stored:
    """What Pillow reads without loss."""
    notes = _frames(getattr(image, "n_frames", 1) if image.format != "MPO" else 1)  # a phone's second frame is no other picture
    jpeg = _jpeg(image)
    image.load()
    orientation = image.getexif().get(0x0112, 1)  # after loading: Pillow turns TIFF by itself
    icc = image.info.get("icc_profile") or b""
    top: float | None = 255.0
    if image.mode.startswith("I") or image.mode == "F":
        top = 65535.0 if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I") else None
        return Stored(upright(np.asarray(image)[..., None], orientation), top, None, icc, jpeg, notes)
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        pixels = upright(np.asarray(image), orientation)
        return Stored(pixels[..., :-1], top, _transparent(pixels[..., -1], 255), icc, jpeg, notes)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB") and not (image.mode == "CMYK" and icc):
        image, icc = image.convert("RGB"), b"" if image.mode == "LAB" else icc
    return Stored(upright(np.atleast_3d(np.asarray(image)), orientation), top, None, icc, jpeg, notes)


def _deep_png(content: bytes, image: Image.Image) -> Stored:
    import imagecodecs

    values = np.atleast_3d(imagecodecs.png_decode(content))
    values = upright(values, image.getexif().get(0x0112, 1))
    alpha = None
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], _transparent(values[..., -1], 65535)
    return Stored(values, 65535.0, alpha, image.info.get("icc_profile") or b"", notes=_frames(getattr(image, "n_frames", 1)))


def _deep_ppm(content: bytes, header: re.Match[bytes]) -> Stored:
    width, height, top = (int(number) for number in header.groups())
    if width * height > LARGEST:
        raise ValueError(_TOO_LARGE)
    values = np.frombuffer(content, ">u2", 3 * width * height, header.end()).reshape(height, width, 3)
    return Stored(values.astype(np.uint16), float(top))


def _jpeg2000_depth(content: bytes) -> int:
    """Bits a channel of a JPEG 2000 file, from its first marker SIZ (ITU-T T.800, A.5.1); 0 for other files."""
    if content[:4] != b"\xff\x4f\xff\x51" and content[4:8] != b"jP  ":
        return 0
    start = content.find(b"\xff\x4f\xff\x51")
    return (content[start + 42] & 127) + 1 if 0 <= start < len(content) - 42 else 0


def _deep_jpeg2000(content: bytes, depth: int) -> Stored:
    import imagecodecs

    with open_image(content) as image:  # checks its size, and knows its profile
        icc = image.info.get("icc_profile") or b""
    values = np.atleast_3d(imagecodecs.jpeg2k_decode(content))
    top, alpha = 2.0**depth - 1, None
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], _transparent(values[..., -1], top)
    return Stored(values, top, alpha, icc)


def _deep_tiff(content: bytes) -> Stored | None:
    """TIFF of more than eight bits; None for the others, which are Pillow's."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its remarks on broken files reach the terminal
    try:
        file = tifffile.TiffFile(io.BytesIO(content))
        page: Any = file.pages[0]
        bits = int(page.bitspersample)
    except (tifffile.TiffFileError, IndexError, TypeError, ValueError):
        return None
    with file:
        if bits <= 8 or page.photometric not in (0, 1, 2):
            return None
        if page.imagewidth * page.imagelength > LARGEST:
            raise ValueError(_TOO_LARGE)
        values = page.asarray()
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ValueError(f"it holds a volume ({page.axes}) and no picture: save one layer")
        values = upright(np.atleast_3d(values), _tag(page, 274) or 1)
        notes = _frames(sum(not getattr(other, "is_reduced", False) for other in file.pages))
        icc = _tag(page, 34675) or b""
        declared = _tag(page, 281)
        kind = int(page.sampleformat)
        extra = tuple(int(sample) for sample in page.extrasamples)
        inverted = page.photometric == 0
    top: float | None = None
    if kind == 1 and bits <= 16:
        top = 2.0**bits - 1
        declared = max(declared) if isinstance(declared, tuple) else declared
        if bits == 16 and (declared not in (1023, 4095, 16383) or values.max() > declared):
            # Cameras and microscopes leave 12 bits in 16: a picture that is nowhere brighter than 6 % of white is one of them.
            largest = int(values.max())
            top = 4095.0 if 255 < largest <= 4095 else 255.0 if 0 < largest <= 255 else top
            notes += (f"its 16 bits hold no more than {largest} and are taken as 0 to {top:.0f}",) if top < 65535 else ()
        elif bits == 16:
            top = float(declared)
    colours = 3 if page.photometric == 2 else 1
    alpha = None
    if extra and extra[0] in (1, 2) and values.shape[2] == colours + len(extra):
        white = top or (1.0 if kind == 3 else float(np.iinfo(values.dtype).max))
        alpha = _transparent(values[..., colours], white)
        if extra[0] == 1 and alpha is not None:  # colours that were multiplied by it
            straight = values[..., :colours] / np.maximum(alpha, 1e-6)[..., None]
            values = np.minimum(straight, white).astype(values.dtype)
    values = values[..., :colours]
    if inverted:
        if top is None:
            raise ValueError("its zero is white and its white unknown: save it with zero as black")
        values = (top - values).astype(values.dtype)
    return Stored(values, top, alpha, bytes(icc), notes=notes)


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _transparent(alpha: np.ndarray, white: float) -> np.ndarray | None:
    return None if (alpha >= white).all() else (alpha / np.float32(white)).astype(np.float32)


def _frames(count: int) -> tuple[str, ...]:
    return (f"the first of its {count} frames is taken",) if count > 1 else ()


def _jpeg(image: Image.Image) -> JPEGFile | None:
    if image.format not in ("JPEG", "MPO"):
        return None
    layers = image.layer  # type: ignore[attr-defined]
    across, down = ((layers[0][side] / layers[1][side] if len(layers) > 1 else 0) for side in (1, 2))
    sampling = "grey" if len(layers) == 1 else _SUBSAMPLING.get((across, down), "other")
    tables = {number: list(table) for number, table in image.quantization.items()}  # type: ignore[attr-defined]
    return JPEGFile(tables, sampling, image.getexif().get(0x0112, 1))


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) turned and mirrored as EXIF's orientation (1 to 8) asks for."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
