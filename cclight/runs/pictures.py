"""Pictures between tensors and files: the levels that a file holds, written and read at 8 and 16 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# What is written, by suffix: each format's name and how Pillow is to save it. PNG and TIFF hold 16 bits and alpha.
_WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
}
WRITTEN = frozenset(_WRITTEN)


def to_uint8(images: Tensor) -> Tensor:
    """Images as the nearest of the 256 levels that a picture of 8 bits holds.

    Args:
        images: in [-1, 1], or levels (uint8, uint16) already; any shape.
    """
    import torch

    return to_levels(to_image(images) if images.dtype == torch.uint16 else images, 8)


def middle(images: Tensor, pictures: int) -> Tensor:
    """What can be shown of volumes: of images (C, D, H, W) the slice in the middle, (C, H, W); pictures as they are.

    Args:
        images: one image or a batch.
        pictures: how many dimensions pictures have: 3, a batch of them 4.
    """
    return images.select(-3, images.shape[-3] // 2) if images.ndim == pictures + 1 else images


def to_levels(images: Tensor, depth: int) -> Tensor:
    """Images as the nearest levels that a picture of 8 or 16 bits holds.

    Args:
        images: in [-1, 1], or levels (uint8, uint16) already; any shape.
        depth: bits, for images in [-1, 1].
    """
    import torch

    if images.dtype in (torch.uint8, torch.uint16):
        return images
    half = (2**depth - 1) / 2
    return ((images.float().clamp(-1, 1) + 1) * half).round().to(torch.uint8 if depth == 8 else torch.uint16)


def to_image(levels: Tensor) -> Tensor:
    """Levels of 8 or 16 bits (uint8, uint16), any shape, as float32 in [-1, 1]."""
    import torch

    return levels.float() / (torch.iinfo(levels.dtype).max / 2) - 1


def encode_picture(
    image: Tensor,
    suffix: str = ".png",
    depth: Literal[8, 16] = 8,
    alpha: np.ndarray | None = None,
    icc: bytes | None = None,
) -> bytes:
    """A picture as the content of a file.

    Args:
        image: (C, H, W), uint8, uint16, or in [-1, 1]. One channel gives a grey picture, three a coloured one, others grey ones
            side by side.
        suffix: which format: .png, .tif, .webp (lossless), .jpg (quality 95, 4:4:4).
        depth: bits a channel, for an image in [-1, 1].
        alpha: (H, W) in [0, 1]; None is opaque.
        icc: a colour profile to name in the file; None means sRGB.

    Raises:
        ValueError: for a format that is not written, or that holds neither this depth nor alpha.
    """
    import numpy as np
    import torch

    if suffix.lower() not in _WRITTEN:
        raise ValueError(
            f"Pictures are written as {', '.join(sorted(_WRITTEN))}, not as {suffix or 'a file without a suffix'}."
        )
    name, options = _WRITTEN[suffix.lower()]
    levels = to_levels(image, depth)
    if levels.shape[0] not in (1, 3):
        levels = torch.cat(list(levels), dim=-1)[None]
    pixels = levels.cpu().permute(1, 2, 0).numpy()
    deep = pixels.dtype == np.uint16
    if deep and name not in ("PNG", "TIFF"):
        raise ValueError(f"{name} holds 8 bits a channel, not 16: write .png or .tif.")
    if alpha is not None:
        if name == "JPEG":
            raise ValueError("JPEG holds no transparency: write .png, .tif or .webp.")
        white = np.iinfo(pixels.dtype).max
        pixels = np.concatenate(
            [pixels, np.rint(np.clip(np.asarray(alpha), 0, 1) * white).astype(pixels.dtype)[..., None]], axis=-1
        )
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if name == "PNG":
        return _encode_png(pixels, icc)
    if deep:
        return _encode_deep_tiff(pixels, icc)
    from PIL import Image

    buffer = io.BytesIO()
    profile = {"icc_profile": icc} if icc else {}
    Image.fromarray(pixels).save(buffer, format=name, **options, **profile)
    return buffer.getvalue()


def read_png(path: Path) -> Tensor:
    """A picture's levels, (3, H, W), or (1, H, W) when it is grey: uint8, or uint16 where it has more than 8 bits.

    Raises:
        UnreadableImage: naming the file.
    """
    import torch

    from cclight.data.decoding import over_white, read_picture

    return torch.from_numpy(over_white(read_picture(path)).pixels).permute(2, 0, 1)


def _encode_png(pixels: np.ndarray, icc: bytes | None) -> bytes:
    """PNG of 8 or 16 bits a channel (Pillow writes 16 in grey alone).

    Of what Paeth's filter leaves runs of equal bytes alone are searched for: a photograph is as small as by Pillow's default,
    in a fifth of the time. To try every filter for each row takes a third longer for one part in a hundred.
    """
    import imagecodecs

    runs, paeth = 3, 0x80  # Z_RLE of zlib, PNG_FILTER_PAETH of libpng
    return _with_profile(bytes(imagecodecs.png_encode(pixels, strategy=runs, filter=paeth)), icc)


def _encode_deep_tiff(pixels: np.ndarray, icc: bytes | None) -> bytes:
    """TIFF of 16 bits a channel, which Pillow does not write in colour."""
    import tifffile

    buffer = io.BytesIO()
    photometric = "rgb" if pixels.ndim == 3 and pixels.shape[2] >= 3 else "minisblack"
    extra = ["unassalpha"] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None
    tifffile.imwrite(
        buffer, pixels, photometric=photometric, planarconfig="contig" if pixels.ndim == 3 else None, extrasamples=extra,
        compression="zlib", predictor=True, iccprofile=icc, metadata=None,
    )  # fmt: skip
    return buffer.getvalue()


def _with_profile(png: bytes, icc: bytes | None) -> bytes:
    """A PNG with a colour profile after its header (PNG specification, 11.3.2.3), which imagecodecs does not write."""
    if not icc:
        return png
    import zlib

    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(icc)
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]
