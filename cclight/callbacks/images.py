"""ImageWriter: pictures of every image, restored, measured and clean, maps of differences, and one grid to look at."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cclight.callbacks.sink import Sink
from cclight.metrics.perceptual import PerceptualMap, heat
from cclight.metrics.quantity import Unavailable
from cclight.operators.base import Operator
from cclight.runs.folder import RunFolder
from cclight.runs.grid import row_of, write_grid
from cclight.runs.nodes import enter
from cclight.runs.pictures import middle, read_png, to_image
from cclight.runs.spread import deviation, read_deviation

if TYPE_CHECKING:
    from cclight.data.datamodule import Batch
    from cclight.data.units import Units
    from cclight.restorer import Restored
    from cclight.runs.results import Run


class ImageWriter(Sink):
    """Writes each image's pictures into the run folder as soon as it is restored, and grid.png at the end.

    A restoration with NaN or infinity gets no picture. Of several samples the grid shows the first two, with their mean and
    standard deviation, which `MetricsCallback` makes of the pictures. Of volumes the slice in the middle is shown.

    Args:
        run: the run folder.
        grid: how many images, those of the lowest indices, the grid shows; 0 makes none.
        maps: makes a map of where each restoration differs from the clean image to the eye; None makes none. Where there is
            none to be had, a warning says why.
    """

    def __init__(self, run: RunFolder, grid: int = 8, maps: PerceptualMap | None = None) -> None:
        if grid < 0:
            raise ValueError(f"grid is a number of images, got {grid}: give 0 or more.")
        self.run = run
        self.grid = grid
        self.maps = maps
        self._rows = 0
        self._samples = 1
        self._mapping = False  # whether maps are made, in this run and so far
        self._tells = True  # whether this process says what all of them meet

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            enter(self.run, trainer.global_rank)
            self.run.make("restored")  # from now on a record without its picture is of no finished image
            self._rows = 0
            self._tells = trainer.is_global_zero
            self._samples = getattr(getattr(trainer, "datamodule", None), "samples", 1)
            self._mapping = self.maps is not None
            if self.maps is not None:
                try:
                    self.maps.prepare(trainer.strategy.root_device)
                except Unavailable as error:
                    self._without_maps(str(error))

    def _without_maps(self, reason: str) -> None:
        self._mapping = False
        if self._tells:
            warnings.warn(f"There are no maps of differences: {reason}.", stacklevel=2)

    @torch.inference_mode(False)  # what an operator keeps from here must not forbid the sampler's gradients
    @torch.no_grad()
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Restored,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        operator = pl_module.operator if batch.operator is None else batch.operator
        assert isinstance(operator, Operator)
        is_shown = batch.units is None or _is_shown(outputs.image)
        # Here and not on a thread: the sampler uses the operator as well, and nobody's operator is asked to bear two at once.
        measurement = picture_of_measurement(batch.measurement, operator) if is_shown else None
        measured = None if batch.units is None else batch.units.measured(batch.measurement, operator)
        pseudoinverses: dict[int, Tensor] = {}
        if is_shown and self._samples == 1 and self._rows < self.grid:
            # A rank meets its images in order: its first ones hold the lowest of all.
            for place in outputs.finite.nonzero().flatten().tolist()[: self.grid - self._rows]:
                pseudoinverses[place] = operator.pinv(batch.measurement[place : place + 1])
            self._rows += len(pseudoinverses)
        held = (outputs.image, batch.clean, measurement, measured, *pseudoinverses.values())
        size = sum(tensor.nbytes for tensor in held if tensor is not None)
        self.run.prepare(size, partial(self._write, outputs, batch, measurement, measured, pseudoinverses))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _write(
        self,
        outputs: Restored,
        batch: Batch,
        measurement: Tensor | None,
        measured: Tensor | None,
        pseudoinverses: dict[int, Tensor],
    ) -> None:
        """A batch's files, on the thread that prepares them; the restored ones last, as they tell of the others."""
        if measurement is not None:
            self._write_pictures(outputs, batch, measurement, pseudoinverses)
        if measured is not None and batch.units is not None:
            self._write_arrays(outputs, batch, measured, batch.units)

    def _write_pictures(self, outputs: Restored, batch: Batch, measurement: Tensor, pseudoinverses: dict[int, Tensor]) -> None:
        units = batch.units

        def shown(images: Tensor) -> Tensor:
            return images if units is None else units.picture(middle(images, pictures=4))

        clean = None if batch.clean is None else shown(batch.clean)
        restored = shown(outputs.image)
        measurement = shown(measurement)
        maps: dict[int, Tensor] = {}
        if self.maps is not None and self._mapping:
            try:
                maps = _maps(self.maps, outputs.finite, restored, clean)
            except Unavailable as error:
                self._without_maps(str(error))
        kept = zip(outputs.index, outputs.name, batch.depth, batch.grey, outputs.sample, strict=True)
        for place, (index, name, depth, grey, sample) in enumerate(kept):
            channels = slice(1) if grey else slice(None)
            if sample == 0:
                self.run.write_image("measurement", index, name, measurement[place, channels], depth)
                if clean is not None:
                    self.run.write_image("clean", index, name, clean[place], depth)
            if not outputs.finite[place]:
                continue
            if place in pseudoinverses:
                columns = [measurement[place], shown(pseudoinverses[place])[0], restored[place]]
                row = row_of(columns if clean is None else [*columns, clean[place]])
                self.run.write_image("rows", index, name, row)
            if place in maps and sample == 0:
                self.run.write_image("maps", index, name, heat(maps[place]))
            self.run.write_image("restored", index, name, restored[place, channels], depth, sample)

    def _write_arrays(self, outputs: Restored, batch: Batch, measured: Tensor, units: Units) -> None:
        """Arrays in the units that they came in, and with their axes."""
        # Axes of its own that a measurement has, such as a vector's, are no image's.
        laid_out = batch.clean is None or measured.ndim == batch.clean.ndim
        for place, (index, name, sample) in enumerate(zip(outputs.index, outputs.name, outputs.sample, strict=True)):
            if sample == 0:
                self.run.write_array("measurement", index, name, units.stored(measured[place]) if laid_out else measured[place])
                if batch.clean is not None:
                    self.run.write_array("clean", index, name, units.stored(units.values(batch.clean[place])))
            if outputs.finite[place]:
                self.run.write_array("restored", index, name, units.stored(units.values(outputs.image[place])), sample)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict" or self.grid == 0 or self._samples > 1:
            return
        trainer.strategy.barrier("grid")
        if self.run.leads:
            write_grid(self.run.path, self.grid, self._samples)

    def receive(self, results: Run) -> None:
        """Make what is made of saved pictures: the grid of several samples, and the maps that nobody had asked for before."""
        if self._samples > 1:
            self._write_grid_of_samples(results)
        for index, record in results.records.items():
            saved = results.picture("restored", index), results.picture("clean", index)
            if self.maps is None or not self._mapping or None in saved or results.picture("maps", index) is not None:
                continue
            restored, clean = (to_image(read_png(path))[None] for path in saved if path is not None)
            self.run.write_image("maps", index, record["name"], heat(self.maps(restored, clean)[0]))
        self.run.flush()

    def _write_grid_of_samples(self, results: Run) -> None:
        rows = 0
        for index, record in results.records.items():
            tiles = [results.picture(kind, index) for kind in ("measurement", "mean", "restored", "restored")]
            tiles[-1] = next((p for k in range(1, results.samples) if (p := results.picture("restored", index, k))), None)
            std, clean = results.array("std", index), results.picture("clean", index)
            if rows == self.grid or std is None or None in tiles:
                continue
            images = [to_image(read_png(path)) for path in tiles if path is not None]
            images.insert(2, deviation(read_deviation(std, record))[0])
            if clean is not None:
                images.append(to_image(read_png(clean)))
            self.run.write_image("rows", index, record["name"], row_of(images))
            rows += 1
        self.run.flush()
        write_grid(self.run.path, self.grid, self._samples)


def _is_shown(images: Tensor) -> bool:
    """Whether arrays, (B, C, ...), are pictures or volumes of such."""
    return images.ndim in (4, 5) and images.shape[1] in (1, 3)


def _maps(maps: PerceptualMap, are_finite: Tensor, restored: Tensor, clean: Tensor | None) -> dict[int, Tensor]:
    """The maps, (H, W), of the images of a batch that are finite, by their places."""
    if clean is None:
        raise Unavailable("the data holds no clean images to compare with")
    finite = are_finite.nonzero().flatten()
    if not len(finite):
        return {}
    made = maps(restored[finite], clean.to(restored.device)[finite])
    return dict(zip(finite.tolist(), made, strict=True))


def picture_of_measurement(y: Tensor, operator: Operator) -> Tensor:
    """A measurement one can look at, (B, C, H, W): y itself where it has the form of a picture, else H⁺y."""
    return y if y.ndim == 4 and y.shape[1] in (1, 3) and not y.is_complex() else operator.pinv(y)
