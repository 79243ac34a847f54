"""Restores one picture after the other with the prior loaded once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cclight.commands.outputs import tell_of_samples
from cclight.commands.restore.model import Model
from cclight.commands.restore.outputs import beside, sample_of
from cclight.commands.restore.parts import Part, around, noise_at, parts
from cclight.commands.restore.tasks import Measured, measure, measure_by
from cclight.data.decoding import Picture, read_picture
from cclight.data.fitting import OutOfMemory, fit
from cclight.data.noise import check_samples
from cclight.data.noise_level import noise_level, rounding
from cclight.data.pixels import upright
from cclight.errors import UsageError
from cclight.operators.base import Operator
from cclight.priors.base import Prior
from cclight.priors.tiled import Tiled
from cclight.recipes import build
from cclight.runs.files import write_whole
from cclight.runs.pictures import encode_picture
from cclight.runs.spread import encode_deviation, moments
from cclight.samplers.base import Sampler, alike

LARGE, TILE = 1024 * 1024, 512  # results of more pixels are made in parts of this side
# So far from the measurement, in σ_y and in any case, a restoration must at least be nearer than the picture itself.
ALLOWED, ALLOWED_ANYHOW = 4.0, 0.05
# What JPEG of quality 10 takes from photographs, σ: the configuration of `jpeg` was tuned there.
TUNED = 0.088


@dataclass(frozen=True)
class _Restored:
    """A picture that was restored: (C, H, W), the network calls of a part, and the parts that were given up."""

    image: Tensor
    nfe: int
    given_up: int


class PictureRestorer:
    """Restores pictures under the options of the command line."""

    def __init__(self, options: argparse.Namespace, model: Model) -> None:
        self.options = options
        self.sampler: Sampler = build(model.sampler)
        self.operator: Operator | None = build(model.operator)
        self.noise_std = model.noise_std if options.noise_std is None else options.noise_std
        self.samples = options.samples or model.samples or 1
        check_samples(self.samples)
        tell_of_samples("cclight restore", self.sampler, self.samples)
        packaged = None if model.packaged is None else build(model.packaged)
        # A person's own settings are taken as they are.
        self.tuned = packaged is not None and replace(self.sampler, steps=packaged.steps) == packaged
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prior: Prior = build(model.prior)
        if prior.channels not in (1, 3):
            raise UsageError(f"{type(prior).__name__} takes images of {prior.channels} channels, and pictures have 1 or 3")
        if prior.image_shape is not None:
            prior = Tiled(prior)  # pictures have any size
        self.prior = prior.eval().requires_grad_(False).to(self.device)

    def __call__(self, path: Path, output: Path) -> str:
        """Restore a picture, write it, and say so in a line.

        Args:
            path: the picture.
            output: where its restoration goes; the suffix says in which format.
        """
        begin = time.perf_counter()
        std_path = beside(output, "std").with_suffix(".png")
        further = [sample_of(output, sample) for sample in range(1, self.samples)]
        further += [beside(output, "mean"), std_path] if further else []
        if not self.options.overwrite and (there := [file for file in further if file.exists()]):
            raise ValueError(f"{there[0]} is there already: --overwrite replaces it, another --output keeps it")
        picture = read_picture(path)
        depth, notes = self._format(picture, output)
        measured = self._measured(picture, path)
        std, witness = self._noise_std(measured, picture.depth)
        sampler = self._sampler(measured)
        nfe, given_up = 0, False

        def write(target: Path, image: Tensor) -> None:
            write_whole(target, encode_picture(image.float(), output.suffix, depth, _larger(picture.alpha, image)))

        def samples() -> Iterator[Tensor]:
            nonlocal nfe, given_up
            for sample in range(self.samples):
                restored = self._restore(measured, sampler, std, path, sample)
                nfe, given_up = restored.nfe, given_up or restored.given_up > 0
                image = restored.image if not picture.grey or measured.coloured else restored.image.mean(0, keepdim=True)
                pixels = np.ascontiguousarray(upright(image.permute(1, 2, 0).numpy(), measured.orientation))
                image = torch.from_numpy(pixels).permute(2, 0, 1)
                if sample:
                    write(sample_of(output, sample), image)
                yield image

        calls = []
        try:
            every = samples()
            image = next(every)
            if further:
                mean, deviation = moments(chain([image], every))
                write(beside(output, "mean"), mean)
                write_whole(std_path, encode_deviation(deviation))
                calls.append(f"{self.samples} samples with their mean and standard deviation")
                if not deviation.any():
                    calls.append(alike(sampler))
            write(output, image)  # last: where it is, the picture is done
        except BaseException:
            for file in further:
                file.unlink(missing_ok=True)
            raise
        size = f"{image.shape[2]}×{image.shape[1]}"
        calls.insert(0, f"{type(sampler).__name__}, {nfe} network calls")
        said = [*calls, *witness, *picture.notes, *measured.notes, *notes]
        if given_up:
            said.append("left as it was where the restoration disagreed with it; was this done to it?")
        line = f"{path} {picture.pixels.shape[1]}×{picture.pixels.shape[0]} -> {output} {size}: {'; '.join(said)}"
        return f"{line}; {time.perf_counter() - begin:.1f} s"

    def _format(self, picture: Picture, output: Path) -> tuple[Literal[8, 16], list[str]]:
        """The bits a channel of the result, and what the format cannot hold. Known before the work."""
        suffix = output.suffix.lower()
        if picture.alpha is not None and suffix in (".jpg", ".jpeg"):
            raise ValueError("it is partly transparent, which JPEG cannot hold: give --output a .png, .tif or .webp")
        if picture.depth == 16 and suffix not in (".png", ".tif", ".tiff"):
            return 8, [f"16 bits a channel became 8, which is what {suffix} holds"]
        return (16 if picture.depth == 16 else 8), []

    def _measured(self, picture: Picture, path: Path) -> Measured:
        grey = self.prior.channels == 1
        if grey and not picture.grey:
            raise ValueError(f"it is coloured, and {type(self.prior).__name__} takes grey images: make it grey")
        if self.operator is not None:
            measured = measure_by(self.operator, picture, self.prior.channels)
        else:
            measured = measure(picture, path, self.options)
        return replace(measured, y=measured.y[:, :1]) if grey else measured

    def _sampler(self, measured: Measured) -> Sampler:
        """The sampler; the packaged one begins and ends with less noise where a picture was compressed less than in tuning."""
        if not self.tuned:
            return self.sampler
        if self.options.task != "jpeg" or measured.compressed >= TUNED:
            return replace(self.sampler, **measured.settings)  # type: ignore[type-var]
        path, share = self.prior.path, measured.compressed / TUNED
        asked = self.sampler.grid.times(path)[[0, -1]]
        times = path.time_at_ratio(share * path.ratio(asked))
        start, end = ((times - path.t_noise) / (path.t_data - path.t_noise)).tolist()
        return replace(self.sampler, t_start=start, t_end=end)  # type: ignore[type-var]

    def _noise_std(self, measured: Measured, depth: int) -> tuple[float, list[str]]:
        """σ_y, and where it comes from."""
        if self.noise_std is not None:
            return self.noise_std, []
        if measured.exact:
            return 0.0, []
        stored = max(rounding(depth), measured.compressed)
        if not measured.blurred:
            return stored, [f"noise {stored:.4f} (JPEG compression)"] if stored > rounding(depth) else []
        height, width = measured.y.shape[-2:]
        rows, columns = (slice(max((side - TILE) // 2, 0), max((side - TILE) // 2, 0) + TILE) for side in (height, width))
        y = measured.y[..., rows, columns].to(self.device)
        found = noise_level(fit(measured.operator(rows, columns), y, self.prior, stored), depth, measured.compressed)
        if found.contradicted:
            smaller = "--sigma" if self.options.kernel is None else "--kernel"
            smaller = smaller if self.operator is None else type(self.operator).__name__
            raise ValueError(
                f"it holds more detail than such a blur lets through ({found.std:.3f}, of which noise explains "
                f"{found.explained:.3f}): give a smaller {smaller}, or insist with --noise_std {found.std:.2g}"
            )
        return found.std, [f"noise {found.std:.4f} ({found.witness})"]

    def _restore(self, measured: Measured, sampler: Sampler, std: float, path: Path, sample: int) -> _Restored:
        """Part by part, mixed where parts overlap."""
        # The noise of a picture's parts takes all numbers of its seed: another sample has another seed.
        seed = f"{self.options.seed} sample {sample}" if sample else self.options.seed
        scale = measured.scale
        height, width = (side * scale for side in measured.y.shape[-2:])
        places = self._places(measured)
        if sample == 0:
            self._announce(path, places, scale, (height, width), measured.cost)
        total, weights = torch.zeros(self.prior.channels, height, width), torch.zeros(height, width)
        if measured.missing is not None:
            weights = torch.from_numpy(~measured.missing).float()
            total = measured.y[0] * weights
        given_up = nfe = 0
        for part in _shown(places, path):
            image, nfe, agrees = self._part(measured, sampler, part, std, seed)
            given_up += not agrees
            weight = (part.down[:, None] * part.across).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
            rows, columns = (slice(place.start * scale, place.stop * scale) for place in (part.rows, part.columns))
            if measured.missing is not None:
                weight = weight * torch.from_numpy(measured.missing[rows, columns])
            total[:, rows, columns] += weight * image
            weights[rows, columns] += weight
        return _Restored(total / weights, nfe, given_up)

    def _places(self, measured: Measured) -> list[Part]:
        height, width = measured.y.shape[-2:]
        tile = self.options.tile
        if measured.whole:
            return parts(height, width, max(height, width), 0)
        if tile is None:
            large = measured.missing is not None or height * width * measured.scale**2 > LARGE
            tile = TILE if large else max(height, width) * measured.scale
        tile = -(-max(tile // measured.scale, 16) // 16) * 16
        overlap = max(tile // 8, 4) if measured.scale > 1 else tile // 8
        if measured.missing is not None:
            return around(measured.missing, tile, overlap)
        return parts(height, width, tile, overlap, measured.grid)

    def _prior(self, measured: Measured) -> Prior:
        """The prior; where the picture is one part, in tiles if it is large or these are asked for."""
        tile = self.options.tile
        large = measured.y.shape[-2] * measured.y.shape[-1] * measured.scale**2 > LARGE
        if not measured.whole or isinstance(self.prior, Tiled) or not (large or tile):
            return self.prior
        side = TILE if tile is None else tile
        return Tiled(self.prior, side + -side % self.prior.stride)

    def _part(self, measured: Measured, sampler: Sampler, part: Part, std: float, seed: int | str) -> tuple[Tensor, int, bool]:
        """One part's image (C, h, w), the network calls, and whether it agrees with the measurement."""
        y = measured.y[..., part.rows, part.columns].to(self.device)
        fitted = fit(measured.operator(part.rows, part.columns).to(self.device), y, self.prior, std)
        top = part.rows.start * measured.scale - fitted.rows.start
        left = part.columns.start * measured.scale - fitted.columns.start
        draw = count()

        def drawn(shape: tuple[int, ...]) -> Tensor:
            return noise_at(f"{seed} draw {next(draw)}", shape[0], top, left, *shape[1:])[0]

        noise = noise_at(seed, fitted.shape[0], top, left, *fitted.shape[1:]).to(self.device)
        try:
            solved = fitted.solve(sampler, self._prior(measured), noise, std, [drawn])
        except OutOfMemory as error:
            raise OutOfMemory(f"{error}: give --tile {max(64, (self.options.tile or TILE) // 2)}") from error
        if not solved.finite.all():
            raise ValueError("the restoration holds NaN or infinity: try more --steps, or another --noise_std")
        image, agrees = solved.image, True
        if measured.missing is None:
            plain = fitted.y if fitted.y.shape[1:] == fitted.shape else fitted.operator.pinv(fitted.y)
            allowed = max(ALLOWED * max(std, measured.compressed), ALLOWED_ANYHOW)
            residual = float(fitted.residual(image))
            if residual > allowed and residual > float(fitted.residual(plain.clamp(-1, 1))):
                image, agrees = plain, False
        return fitted.cut(image)[0].cpu(), solved.nfe, agrees

    def _announce(self, path: Path, places: list[Part], scale: int, size: tuple[int, int], cost: float) -> None:
        """How long a large picture takes, told before it begins, from one network call here."""
        pixels = sum(len(part.down) * len(part.across) for part in places) * scale**2
        if pixels <= LARGE:
            return
        side = self.prior.tile if isinstance(self.prior, Tiled) else 256
        x = torch.zeros(1, self.prior.channels, side, side, device=self.device)
        t = torch.full((1,), 0.5, device=self.device)
        for _ in range(2):  # the first one is slower
            begin = time.perf_counter()
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                self.prior(x, t).sum().backward()
            seconds = time.perf_counter() - begin
        seconds *= cost * self.samples * self.sampler.steps * pixels / x[0, 0].numel()
        length, unit = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 1.5 * pair[0] or pair[0] == 1)
        about = f"{seconds / length:.0f} {unit}"
        print(f"{path} becomes {size[1]}×{size[0]}, in {len(places)} parts: about {about}", file=sys.stderr, flush=True)


def _larger(alpha: np.ndarray | None, image: Tensor) -> np.ndarray | None:
    """Transparency at the restored picture's size."""
    if alpha is None:
        return None
    size = tuple(image.shape[-2:])
    larger = torch.nn.functional.interpolate(torch.from_numpy(alpha.copy())[None, None], size=size, mode="bicubic")
    return larger[0, 0].clamp(0, 1).numpy() if alpha.shape != size else alpha


def _shown(places: list[Part], path: Path) -> Iterator[Part]:
    """The parts, with a bar on a terminal where there are several."""
    if len(places) < 2 or not sys.stderr.isatty():
        yield from places
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(places, description=path.name, console=Console(stderr=True), transient=True)
