"""`cclight restore`: the shortest way for a person with a picture. The picture given is the measurement itself.

    cclight restore small.png --task sr              four times larger
    cclight restore blurred.jpg --task deblur --sigma 2
    cclight restore photo.png --task inpaint --mask mask.png        white is kept, black is filled in
    cclight restore grey.png --task colorize
    cclight restore compressed.jpg --task jpeg       the quality is read from the file

The sampler's settings are those of the packaged configurations. Pictures are continued at their borders to a size that the
prior takes, and cut back. Transparency is dropped, and a grey picture stays grey, unless it is to be coloured.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cclight.configs import find_config
from cclight.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from cclight.operators.base import Operator

# Each task's packaged configuration is called as the task; these options belong to one task.
TASKS = {"sr": "factor", "deblur": "sigma", "inpaint": "mask", "colorize": None, "jpeg": "quality"}
# Pictures of more pixels are shown to the prior in tiles of this side, which bounds the memory.
_LARGE, _TILE = 1024 * 1024, 512


def main(arguments: list[str]) -> int:
    """`cclight restore`.

    Args:
        arguments: what follows the command.

    Returns:
        0, or 1 when a picture could not be restored.

    Raises:
        UsageError: for a wrong call.
    """
    parser = argparse.ArgumentParser("cclight restore", description="Restore pictures of your own with the embedded prior.")
    parser.add_argument("pictures", nargs="+", type=Path, help="pictures, or folders of them")
    parser.add_argument("--task", choices=TASKS, required=True, help="what was done to them")
    parser.add_argument("--factor", type=int, help="sr: how many times larger (4)")
    parser.add_argument("--sigma", type=float, help="deblur: standard deviation of the blur in pixels (3)")
    parser.add_argument("--mask", type=Path, help="inpaint: a picture, white where pixels are kept and black where missing")
    parser.add_argument("--quality", type=int, help="jpeg: 1 to 100 (estimated from the file)")
    parser.add_argument("--steps", type=int, help="network calls (the configuration's, 5)")
    parser.add_argument("--noise_std", type=float, help="the pictures' noise, of values in [-1, 1] (deblur: 0.01, else 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that restoration begins with (0)")
    parser.add_argument(
        "--tile", type=int, help=f"show the prior tiles of so many pixels ({_TILE} for pictures over a megapixel)"
    )
    parser.add_argument("--prior", help="weights that `cclight export` wrote (the embedded ones)")
    parser.add_argument("--output", type=Path, help="a folder, or for one picture a .png file (beside the picture)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    for task, name in TASKS.items():
        if name and task != options.task and getattr(options, name) is not None:
            raise UsageError(f"--{name} belongs to --task {task}, got --task {options.task}: leave it out")
    if options.task == "inpaint" and options.mask is None:
        raise UsageError("inpaint needs a mask: --mask FILE, a picture of the same size, black where pixels are missing")
    pairs = _outputs(options)
    restorer = _Restorer(options)
    failures = []
    for picture, output in pairs:
        try:
            print(restorer(picture, output), flush=True)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # noqa: PERF203 - the other pictures go on
            failures.append(picture)
            print(f"cclight restore: {picture}: {' '.join(str(error).split())}", file=sys.stderr)
    if failures and len(pairs) > 1:
        named = ", ".join(map(str, failures))
        print(f"cclight restore: {len(failures)} of {len(pairs)} pictures not restored: {named}", file=sys.stderr)
    return 1 if failures else 0


def _outputs(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Each picture and where its restoration goes."""
    from cclight.data.formats import SUFFIXES

    pictures: list[Path] = []
    for path in options.pictures:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
            stems = {file.stem for file in found}
            ending = f"_{options.task}"  # what an earlier call has left is no picture to restore
            found = [f for f in found if not (f.stem.endswith(ending) and f.stem.removesuffix(ending) in stems)]
            if not found:
                raise UsageError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
            pictures += found
        elif path.is_file():
            pictures.append(path)
        else:
            raise UsageError(f"there is no picture {path}: give a file or a folder of pictures")
    output = options.output
    if output is not None and output.suffix:
        if output.suffix.lower() != ".png" or len(pictures) > 1:
            raise UsageError(f"--output is a folder, or for one picture a .png file, got {output} for {len(pictures)}")
        output.parent.mkdir(parents=True, exist_ok=True)
        return [(pictures[0], output)]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    pairs = [(picture, (output or picture.parent) / f"{picture.stem}_{options.task}.png") for picture in pictures]
    targets = [target for _, target in pairs]
    if twice := [target for target in targets if targets.count(target) > 1]:
        raise UsageError(f"two pictures would both become {twice[0]}: restore them one at a time with --output FILE.png")
    return pairs


@dataclass(frozen=True)
class _Measured:
    """A picture as a measurement: y (1, C, H, W), the operator it came from, and how the result is cut out."""

    y: Tensor
    operator: Operator
    rows: slice
    columns: slice


class _Restorer:
    """Restores one picture after the other with the prior loaded once."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        import cclight
        from cclight.priors.small import SmallPrior

        self.options = options
        part: dict[str, Any] = yaml.safe_load(find_config(f"{options.task}.yaml").read_text(encoding="utf-8"))["model"][
            "sampler"
        ]
        settings = {**part.get("init_args", {}), **({} if options.steps is None else {"steps": options.steps})}
        self.sampler = getattr(cclight, part["class_path"])(**settings)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.prior = SmallPrior(options.prior).to(self.device)
        # A blur's inverse raises the rounding to 8 bits to the size of the picture, unless it is told of noise.
        self.noise_std = {"deblur": 0.01}.get(options.task, 0.0) if options.noise_std is None else options.noise_std

    def __call__(self, picture: Path, output: Path) -> str:
        """Restore a picture, write it, and say so in a line."""
        from cclight.data.decoding import over_white, read_picture
        from cclight.data.noise import generator, standard_normal
        from cclight.priors.tiled import Tiled
        from cclight.runs.files import write_whole
        from cclight.runs.pictures import encode_picture

        begin = time.perf_counter()
        if output.exists() and not self.options.overwrite:
            raise ValueError(f"{output} exists: --overwrite replaces it")
        given = over_white(read_picture(picture))
        image = given.image()
        grey = given.grey and self.options.task != "colorize"
        tables = given.jpeg.quantization if given.jpeg else None
        measured = self._measure(image, tables)
        y, operator = measured.y.to(self.device), measured.operator.to(self.device)
        shape = tuple(operator.pinv(y).shape[1:])
        tile = self.options.tile
        if tile is None and shape[1] * shape[2] > _LARGE:
            tile = _TILE
            print(f"cclight restore: {picture} becomes {shape[2]}×{shape[1]}: this takes minutes on a CPU", file=sys.stderr)
        prior = self.prior if tile is None else Tiled(self.prior, tile)
        noise = standard_normal(shape, [generator(self.options.seed, 0, "initial")]).to(self.device)
        generators = [generator(self.options.seed, 0, "sampler")]
        restoration = self.sampler.sample(prior, operator, y, noise, noise_std=self.noise_std, generators=generators)
        if not restoration.image.isfinite().all():
            raise ValueError("the restoration holds NaN or infinity: try more --steps, or a --noise_std")
        final = restoration.image
        if self.options.task == "inpaint":  # what is known stays as it is, without the last step's trace of noise
            final = final - operator.project(final) + y
        restored = final[0, :, measured.rows, measured.columns]
        restored = restored.mean(0, keepdim=True) if grey else restored
        write_whole(output, encode_picture(restored))
        size = f"{restored.shape[2]}×{restored.shape[1]}"
        return (
            f"{picture} {image.width}×{image.height} -> {output} {size}: {type(self.sampler).__name__}, {restoration.nfe} "
            f"network calls, {time.perf_counter() - begin:.1f} s"
        )

    def _measure(self, image: Any, tables: dict[int, list[int]] | None) -> _Measured:
        """The measurement that a picture (PIL, RGB) is, and the operator of the task."""
        import torch
        from torch.nn.functional import pad

        from cclight.data.preprocessing import to_tensor
        from cclight.operators.jpeg import JPEG
        from cclight.operators.masks import FixedMask, Inpainting, MaskFile
        from cclight.operators.pixelwise import Colorization
        from cclight.operators.separable import BicubicDownsampling, GaussianBlur

        task, options, factor, margin = self.options.task, self.options, 1, 0
        y = to_tensor(image.convert("L") if task == "colorize" else image)[None]
        height, width = y.shape[2:]
        if task == "sr":
            factor = options.factor or 4
        if task == "deblur":  # beyond its border the operator sees zeros, which a picture's surroundings are not
            margin = round(4 * (options.sigma or 3.0))
        multiple = self.prior.stride // math.gcd(self.prior.stride, factor)
        right, bottom = (-(side + 2 * margin) % multiple + margin for side in (width, height))
        y = pad(y, (margin, right, margin, bottom), mode="replicate")
        operator: Operator
        if task == "sr":
            operator = BicubicDownsampling(factor)
        elif task == "deblur":
            operator = GaussianBlur(3.0 if options.sigma is None else options.sigma)
        elif task == "colorize":
            operator = Colorization()
        elif task == "jpeg":
            operator = JPEG(options.quality if options.quality is not None else estimated_quality(tables))
        else:
            kept = MaskFile(str(options.mask))((1, height, width))
            operator = Inpainting(FixedMask(pad(kept[None].to(torch.uint8), (0, right, 0, bottom), value=1)[0]), fill=True)
            y = operator(y)
        rows = slice(margin * factor, (margin + height) * factor)
        return _Measured(y, operator, rows, slice(margin * factor, (margin + width) * factor))


def estimated_quality(tables: dict[int, list[int]] | None) -> int:
    """Pillow's quality whose luminance table comes closest to a file's.

    Args:
        tables: quantization tables by number, as Pillow reads them from a JPEG file; None or empty for another file.

    Raises:
        ValueError: where there are none.
    """
    from cclight.operators.jpeg import LUMINANCE

    if not tables:
        raise ValueError("it is no JPEG file, whose quality could be read: give --quality (1 to 100)")

    def distance(quality: int) -> int:
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        table = sorted(min(max((base * scale + 50) // 100, 1), 255) for base in flat)
        return sum(abs(a - b) for a, b in zip(table, found, strict=True))

    flat = [base for row in LUMINANCE for base in (row if isinstance(row, (tuple, list)) else (row,))]
    found = sorted(tables[min(tables)])  # sorted: files and tables differ in their order
    return min(range(1, 101), key=distance)
