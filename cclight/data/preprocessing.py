"""From a photograph to a tensor: resize, centre crop, [-1, 1].

Resizing follows guided-diffusion's data sets (Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS
2021), on which the published models were trained: halve with a box filter while the image is at least twice too large, then
bicubic with antialiasing until it just covers the wanted size, then cut the centre out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cclight.data.decoding import Picture
from cclight.data.sources import Photograph, Values


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a photograph before it becomes a tensor.

    Attributes:
        size: (height, width) of the result; None keeps the photograph's own.
        resize: scale the photograph until it just covers `size`; else only cut.
        multiple: without `size`, cut each side to a multiple of it.
        channels: 3 for RGB, 1 for grey.
        opaque: refuse what has transparent pixels, which measure nothing.
    """

    size: tuple[int, int] | None = None
    resize: bool = True
    multiple: int = 1
    channels: Literal[1, 3] = 3
    opaque: bool = False

    def enlarges(self, photograph: Photograph | Values) -> bool:
        """Whether the photograph has fewer pixels than are asked for, and will be scaled up; arrays never are."""
        if isinstance(photograph, Values):
            return False
        height, width = self._size(photograph.image)
        return self.resize and (photograph.image.height < height or photograph.image.width < width)

    def __call__(self, photograph: Photograph | Values) -> Tensor:
        """The photograph as float32 in [-1, 1], (C, H, W); an array as it is, (C, ...).

        Raises:
            ValueError: naming a photograph that is smaller than what was to be cut out of it, or transparent.
        """
        if isinstance(photograph, Values):
            return photograph.values
        if self.opaque and photograph.transparent:
            raise ValueError(
                f"{photograph.name} (number {photograph.index}) has transparent pixels, which are no measurement: save it "
                "without transparency (an alpha channel), and what is missing as the operator's mask"
            )
        size = self._size(photograph.image)
        height, width = photograph.image.height, photograph.image.width
        scaled = self.resize and self.size is not None
        if not scaled and (height < size[0] or width < size[1]):
            remedy = "set data.resize to true, or data.image_size" if self.size is not None else "set data.multiple"
            raise ValueError(
                f"{photograph.name} (number {photograph.index}) has {height}×{width} pixels, fewer than the "
                f"{size[0]}×{size[1]} to be cut out of it: {remedy} to a smaller number"
            )

        def fit(image: Image.Image) -> Image.Image:
            return centre_crop(cover(image, size) if scaled else image, size)

        if photograph.pixels is not None:
            return self._deep(photograph.pixels, fit)
        return to_tensor(fit(photograph.image if self.channels == 3 else photograph.image.convert("L")))

    def _deep(self, pixels: np.ndarray, fit: Callable[[Image.Image], Image.Image]) -> Tensor:
        """Pixels of 16 bits, resized as floats so that none of their depth is lost."""
        levels = pixels.astype(np.float32)
        if self.channels == 1 and levels.shape[2] == 3:
            levels = levels @ np.array([[0.299], [0.587], [0.114]], np.float32)  # as Pillow turns colour into grey
        planes = [torch.from_numpy(np.array(fit(Image.fromarray(levels[..., c])))) for c in range(levels.shape[2])]
        return (torch.stack(planes).clamp(0, 65535) / 32767.5 - 1).expand(self.channels, -1, -1).contiguous()

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        height, width = (max(side // self.multiple, 1) * self.multiple for side in (image.height, image.width))
        return height, width


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image scaled, up or down, until it just covers (height, width)."""
    height, width = size
    while image.height >= 2 * height and image.width >= 2 * width:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(height / image.height, width / image.width)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The central (height, width) of the image, which must not be smaller."""
    height, width = size
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def to_tensor(picture: Picture | Image.Image) -> Tensor:
    """A picture as float32 in [-1, 1] at its own depth, (C, H, W).

    Args:
        picture: decoded, C as its pixels have; or 8 bits in RGB or grey. Transparency is left aside.
    """
    pixels = picture.pixels if isinstance(picture, Picture) else np.array(picture)
    half = np.iinfo(pixels.dtype).max / 2
    levels = torch.from_numpy(np.atleast_3d(pixels).astype(np.float32))
    return levels.permute(2, 0, 1).div(half).sub(1).contiguous()
