"""The pictures of a report: those that runs saved, each once, and maps of where restorations differ to the eye."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from cclight.errors import UsageError
from cclight.runs.layout import Kind
from cclight.runs.results import Run

if TYPE_CHECKING:
    from cclight.metrics.perceptual import Net

_KINDS: tuple[Kind, ...] = ("measurement", "clean", "mean", "restored")
_WORDS = {"mean": "mean", "std": "spread", "map": "difference"}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Row = tuple[int, str]  # an image: its index and its source's name for it


class Album:
    """The page's pictures, each held once however many runs share it.

    Args:
        runs: whose pictures.
        labels: what the page calls them.
        jpeg: encode the pictures anew as JPEG of this quality; None keeps the saved PNG files as they are.
        maps: add a map of where each restoration differs from the clean picture to the eye.
        samples: of each image and run, at most so many.

    Attributes:
        pictures: as data URIs.
        notes: in words, which pictures are damaged or have no map.

    Raises:
        UsageError: when maps cannot be made.
    """

    def __init__(self, runs: list[Run], labels: list[str], jpeg: int | None, maps: bool = False, samples: int = 8) -> None:
        self.pictures: list[str] = []
        self.notes: list[str] = []
        self._runs, self._labels, self._jpeg = runs, labels, jpeg
        self._places: dict[bytes, int] = {}
        self._images: list[dict[str, int]] = []
        self._samples = samples
        self._maps = Maps(runs) if maps else None

    @property
    def legend(self) -> dict[str, Any] | None:
        """What the maps measure and their brightest value; None without maps."""
        return self._maps.legend if self._maps else None

    def add(self, row: Row) -> dict[str, Any]:
        """An image's pictures.

        Returns:
            Places in `pictures` by choice (restored-0 is the first run's, restored-0-3 its sample 3), the size that the image
            is shown at, and the largest value of each picture of deviations.
        """
        places: dict[str, int] = {}
        largest: dict[str, float] = {}
        size = (1, 1)
        for kind in _KINDS:
            for number, run in enumerate(self._runs):
                for sample in range(min(run.samples, self._samples) if kind == "restored" else 1):
                    if (path := run.picture(kind, row[0], sample)) is None:
                        continue
                    content = path.read_bytes()
                    try:
                        size = png_size(content)  # the last kind decides
                    except ValueError as error:
                        self._note(f"{path} is damaged ({error})", run, row)
                        continue
                    places[f"{kind}-{number}" + (f"-{sample}" if sample else "")] = self._place(content)
        for number, run in enumerate(self._runs):
            if (path := run.array("std", row[0])) is not None and f"mean-{number}" in places:
                from cclight.runs.pictures import encode_picture
                from cclight.runs.spread import deviation, read_deviation

                std = read_deviation(path, run.records[row[0]])
                picture, largest[f"std-{number}"] = deviation(std)
                places[f"std-{number}"] = self._place(encode_picture(picture))
        for number, run in enumerate(self._runs):
            if self._maps and f"restored-{number}" in places:
                try:
                    places[f"map-{number}"] = self._place(self._maps.png(run, row[0]))
                except ValueError as error:
                    self.notes.append(f"no map of image {row[0]} ({row[1]}) of {self._labels[number]}: {error}")
        self._images.append(places)
        return {"pictures": places, "width": size[0], "height": size[1], "largest": largest}

    def _note(self, words: str, run: Run, row: Row) -> None:
        restored = run.picture("restored", row[0])
        self.notes.append(
            f"{words} and left out: delete {restored or 'it'} and run the run's `cclight predict` with --run.resume true, "
            f"which makes that image's pictures anew"
        )

    def choices(self) -> list[dict[str, Any]]:
        """What can stand on a side of the slider, for all images: a measurement or clean picture common to the runs is one."""
        choices = []
        for kind in (*_KINDS, "std", "map"):
            keys = [f"{kind}-{number}" for number in range(len(self._runs))]
            found = [key for key in keys if any(key in places for places in self._images)]
            own = [self._labels[int(key.rpartition("-")[2])] for key in found]
            if kind == "restored":
                labels = own
            elif kind in _WORDS:
                labels = [f"{_WORDS[kind]} of {label}" for label in own]
            elif all(len({places.get(key) for key in found}) <= 1 for places in self._images):
                found, labels = found[:1], [str(kind)] * len(found[:1])
            else:
                labels = [f"{kind} of {label}" for label in own]
            choices += [{"key": key, "label": label, "kind": kind} for key, label in zip(found, labels, strict=True)]
        return choices

    def _place(self, content: bytes) -> int:
        if content not in self._places:
            self._places[content] = len(self.pictures)
            self.pictures.append(self._uri(content))
        return self._places[content]

    def _uri(self, content: bytes) -> str:
        if self._jpeg is None:
            return "data:image/png;base64," + base64.b64encode(content).decode()
        from PIL import Image

        buffer = io.BytesIO()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            shown: Image.Image = picture
            if picture.mode.startswith("I"):  # 16 bits of grey: JPEG and `convert` know 8
                shown = picture.convert("I").point(lambda value: value / 257).convert("L")
            (shown if shown.mode == "L" else shown.convert("RGB")).save(buffer, format="JPEG", quality=self._jpeg)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


class Maps:
    """Maps of where restorations differ from clean pictures to the eye, with the network of the runs' own LPIPS.

    Args:
        runs: the first one that measured LPIPS says which network; squeeze where none did.

    Raises:
        UsageError: when its weights cannot be had.
    """

    def __init__(self, runs: list[Run]) -> None:
        import torch

        from cclight.metrics.perceptual import BACKBONES, BRIGHTEST, PerceptualMap
        from cclight.metrics.quantity import Unavailable

        titles = [run.metrics["lpips"]["title"] for run in runs if run.mean("lpips") is not None]
        net: Net = next((net for title in titles for net in BACKBONES if f"({net})" in title), "squeeze")
        self.legend = {"net": net, "brightest": BRIGHTEST}
        self._map = PerceptualMap(net)
        try:
            self._map.prepare(torch.device("cpu"))
        except Unavailable as error:
            raise UsageError(f"--maps cannot be made, {error}") from error

    def png(self, run: Run, index: int) -> bytes:
        """The map of an image as a picture.

        Raises:
            ValueError: when there is none; the reason in words.
        """
        from cclight.metrics.perceptual import heat
        from cclight.metrics.quantity import Unavailable
        from cclight.runs.pictures import encode_picture, read_png, to_image

        paths = run.picture("restored", index), run.picture("clean", index)
        if paths[0] is None or paths[1] is None:
            raise ValueError("its clean picture is not saved")
        try:
            restored, clean = (to_image(read_png(path))[None] for path in paths if path is not None)
            if restored.shape != clean.shape:
                raise ValueError("its pictures differ in size")
            return encode_picture(heat(self._map(restored, clean))[0])
        except (Unavailable, OSError, SyntaxError) as error:
            raise ValueError(str(error)) from error


def png_size(content: bytes) -> tuple[int, int]:
    """The width and height of a PNG file, of which every part is there and as it was written.

    Raises:
        ValueError: in words, what is wrong with it.
    """
    if not content:
        raise ValueError("it is empty")
    if not content.startswith(_SIGNATURE):
        raise ValueError("it is no PNG")
    place, kind, size = len(_SIGNATURE), b"", (0, 0)
    while kind != b"IEND":
        head = content[place : place + 8]
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (len(content), b"")
        body, check = content[place + 4 : place + 8 + length], content[place + 8 + length : place + 12 + length]
        if len(check) < 4:
            raise ValueError("its end is missing")
        if zlib.crc32(body) != int.from_bytes(check, "big"):
            raise ValueError("a part of it has changed")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack(">II", body[4:12])
        place += 12 + length
    if 0 in size:
        raise ValueError("it has no size")
    return size
