"""Photographs and data sets that the tests write themselves."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cclight.data.decoding import Picture, decode
from cclight.data.sources import Photograph


def picture(number: int, height: int = 24, width: int = 32) -> Image.Image:
    """A small picture of noise whose number can be read from its first pixel's red."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[0, 0, 0] = number
    return Image.fromarray(pixels)


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def pillow(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def read(content: bytes) -> Picture:
    return decode("it", lambda: content)


def numbers(photographs: Iterable[Photograph]) -> list[tuple[int, int]]:
    """Index and the number that the picture itself carries."""
    return [(photograph.index, photograph.image.getpixel((0, 0))[0]) for photograph in photographs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photographs, p0.png to p6.png."""
    path = tmp_path / "photographs"
    path.mkdir()
    for number in range(7):
        picture(number).save(path / f"p{number}.png")
    return path


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photographs as data sets: folders parquet (three shards), bytes, imagefolder, saved, saved_alone."""
    import datasets

    root = tmp_path_factory.mktemp("datasets")
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()

    features = datasets.Features({"label": datasets.Value("int64"), "photo": datasets.Image()})
    rows = {"label": list(range(7)), "photo": [picture(number) for number in range(7)]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    (root / "parquet").mkdir()
    for shard in range(3):
        part = dataset.shard(3, shard, contiguous=True)
        part.to_parquet(root / "parquet" / f"validation-{shard:05d}-of-00003.parquet")
    dataset.save_to_disk(root / "saved_alone")
    datasets.DatasetDict(validation=dataset).save_to_disk(root / "saved")

    images = root / "imagefolder" / "validation"
    images.mkdir(parents=True)
    for number in range(7):
        picture(number).save(images / f"p{number}.png")
    (root / "bytes").mkdir()
    encoded = datasets.Dataset.from_dict({"jpeg": [(images / f"p{number}.png").read_bytes() for number in range(7)]})
    encoded.to_parquet(root / "bytes" / "validation.parquet")
    yield root
    patch.undo()
