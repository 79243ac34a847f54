"""Files that are there whole or not at all, and pictures as PNG."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cclight.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1], any shape, as the nearest of the 256 levels that a PNG holds (uint8)."""
    import torch

    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, it is there whole or not at all.

    Raises:
        RunError: when the disk is full, the folder unwritable or the like; no partial file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def encode_png(image: Tensor) -> bytes:
    """A picture as PNG.

    Args:
        image: (C, H, W), uint8 or in [-1, 1]. One channel gives a grey picture, three a coloured one, others grey ones side by
            side.
    """
    import torch
    from PIL import Image

    image = (image if image.dtype == torch.uint8 else to_uint8(image)).cpu()
    if image.shape[0] not in (1, 3):
        image = torch.cat(list(image), dim=-1)[None]
    array = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def read_png(path: Path) -> Tensor:
    """A picture as (3, H, W) uint8, or (1, H, W) when it is grey."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as picture:
        array = np.array(picture if picture.mode == "L" else picture.convert("RGB"))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)


def write_error(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written, with the remedy."""
    return RunError(
        f"Could not write {path} ({error.strerror}): finished images are kept; mend the cause and run the same command again."
    )
