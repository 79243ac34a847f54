"""RestorationDataModule: photographs become measurements, y = H x_0 + σ_y n.

The photographs are decoded on the CPU and the measurements made on the device. All noise comes from generators seeded by
(seed, index of the image), and what restorations begin with by (seed, index, sample), so that an image's problem depends on
these alone: not on the batch it came in, nor on the number of processes, workers, samples or earlier runs.

The data module shares the work among processes and workers itself (cclight.data.sources), where Lightning would repeat or
refuse some of it: `use_distributed_sampler` does not matter, and a process may find itself without work, in which case
Lightning calls none of its predict hooks.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from cclight.data.fitting import Fitted, fit
from cclight.data.loader import Decoded, Loader, Notice, Share, part_of
from cclight.data.noise import check_samples, generator, standard_normal
from cclight.data.noise_map import NoiseLike, noise_std_of
from cclight.data.preprocessing import Preprocessing
from cclight.data.shapes import Shapes
from cclight.data.sources import Entry, Form, SamplePhotographs, Source, Values
from cclight.data.units import Units
from cclight.operators.base import LinearOperator, Operator
from cclight.operators.check import check_adjoint
from cclight.operators.masks import Inpainting, MaskFile
from cclight.priors.base import Prior


@dataclass(frozen=True)
class Batch:
    """What a Restorer gets: some inverse problems, all on its device.

    Attributes:
        clean: x_0, (B, C, H, W) in [-1, 1], or None where nobody knows; of arrays, (B, C, ...), as their units say.
        measurement: y, (B, ...).
        noise: the initial standard normal ε, (B, C, H, W).
        generators: one per image, on the CPU, for what a sampler draws on its way.
        index: the images' numbers in their source.
        name: the images' names: safe in a file name, and not necessarily unique.
        content: the hashes of the photographs, which tell a resumed run what they were; none where nobody took them.
        fitted: a given measurement on the canvas that operator and prior take, for which the noise is; None for photographs.
        label: the class of each image, (B,), -1 for none; None where no image has one.
        operator: what made this batch's measurements, where each image has an operator of its own; else None.
        forms: how the photographs were stored; none where nobody took them.
        units: what the numbers of arrays mean; None for photographs.
        sample: which of its image's samples each problem is for; none where each image has one.
    """

    clean: Tensor | None
    measurement: Tensor
    noise: Tensor
    generators: list[torch.Generator]
    index: list[int]
    name: list[str]
    content: list[str] = field(default_factory=list)
    fitted: Fitted | None = None
    label: Tensor | None = None
    operator: Operator | None = None
    forms: list[Form] = field(default_factory=list)
    units: Units | None = None
    sample: list[int] = field(default_factory=list)

    @property
    def depth(self) -> list[Literal[8, 16]]:
        """The bits a channel that each image is to be written with."""
        return [form.depth for form in self.forms] or [8] * len(self.index)

    @property
    def grey(self) -> list[bool]:
        """Which images stay grey: given measurements that are, under an operator that leaves colour as it is."""
        y, noise = self.measurement, self.noise
        stays = self.clean is None and y.ndim == 4 and y.shape[1] == noise.shape[1]
        return [stays and form.grey for form in self.forms] or [False] * len(self.index)


class RestorationDataModule(pl.LightningDataModule):
    """Inverse problems made of a source's photographs, for `Trainer.predict`.

    Consecutive photographs of one size share a batch; another size begins a new one. Arrays (`Source.units`) keep their shape:
    image_size, resize, multiple and channels are for photographs.

    Args:
        source: where the photographs come from.
        operator: the degradation H.
        noise_std: σ_y, the standard deviation of the measurement's noise, in units of [-1, 1] images; an array file
            that broadcasts to a measurement gives each of its numbers its own.
        image_size: height and width of the clean images, one number or both; None keeps each at its own size. Measurements that
            are given (see `measurements`) keep theirs, whatever it is: they are continued at their borders, results cut back.
        resize: scale the shorter side to image_size before cutting the centre out; false only cuts.
        multiple: where photographs keep their own size, cut each side to a multiple of so many pixels.
        channels: 3 for colour (a grey photograph becomes a grey RGB image), 1 for grey.
        batch_size: restorations in a batch, at most.
        num_workers: processes that decode; 0 decodes in the main one, on a thread beside the network.
        seed: seeds all noise, together with an image's index.
        limit: take the first so many photographs of the source only; None takes all.
        measurements: the photographs are the measurements themselves, made by the operator, and nobody knows the clean images.
            noise_std then says how much noise they are believed to carry; none is added.
        on_error: leave out a photograph that cannot be used ("skip", with a warning that names it) or stop ("raise").
        samples: restorations of each measurement, 1 to 1024, each from a noise of its own. The first one is what a run of one
            sample makes, and the kth is the same whatever their number.
        part: "2/3" restores the second of three parts of the source alone, as one of three jobs; numbers stay those of the
            whole. `cclight evaluate` puts finished parts together.

    Attributes:
        skip: indices that are done, to be left out; set it before prediction begins.
        done: of images that are not, the samples that are done.
        left_out: why a photograph of this process could not be used, by its index; filled during prediction.

    Raises:
        ValueError: for a number out of range, or measurements that are none.
    """

    def __init__(
        self,
        source: Source,
        operator: Operator,
        noise_std: NoiseLike = 0.0,
        image_size: int | tuple[int, int] | None = 256,
        resize: bool = True,
        multiple: int = 1,
        channels: Literal[1, 3] = 3,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
        limit: int | None = None,
        measurements: bool = False,
        on_error: Literal["skip", "raise"] = "skip",
        samples: int = 1,
        part: str | None = None,
    ) -> None:
        super().__init__()
        check_samples(samples)
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        least = 1 if limit is None else limit
        smallest = {"image_size": min(size or (1,)), "multiple": multiple, "batch_size": batch_size, "limit": least}
        for name, value in smallest.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if measurements and isinstance(source, SamplePhotographs):
            raise ValueError(
                "measurements are pictures that the operator has made, and SamplePhotographs are clean: give a source of your "
                "own (--data.source ImageFolder --data.source.path FOLDER)."
            )
        self.source = source
        self.operator = operator
        self.noise_std = noise_std_of(noise_std)
        as_it_is = measurements or source.units is not None
        self.preprocessing = Preprocessing(None if as_it_is else size, resize, multiple, channels, opaque=measurements)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.limit = limit
        self.measurements = measurements
        self.on_error = on_error
        self.samples = samples
        self.part = part
        self._part = part_of(part)
        self.skip: Collection[int] = frozenset()
        self.done: Mapping[int, Collection[int]] = {}
        self.left_out: dict[int, str] = {}
        self._shapes = self._new_shapes()
        self._checked = False
        # A process may have nothing to do; Lightning would refuse that.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def prepare_data(self) -> None:
        self._check()  # Lightning calls this on one process of a machine first: only one downloads

    def setup(self, stage: str) -> None:
        self._check()

    def _check(self) -> None:
        if isinstance(self.noise_std, Tensor) and not isinstance(self.operator, LinearOperator):
            kind = type(self.operator).__name__
            raise ValueError(f"noise_std of many numbers needs a LinearOperator, and {kind} is none: give one number.")
        if self.preprocessing.size is not None:
            self._new_shapes().check((self.preprocessing.channels, *self.preprocessing.size))
        if next(iter(self.source), None) is None:
            raise ValueError(f"{self.source} holds no photographs.")

    def _new_shapes(self) -> Shapes:
        remedy = " Or set data.multiple, which cuts every photograph to fit." if self.preprocessing.size is None else ""
        arrays = self.source.units is not None
        return Shapes(self.operator, self._prior, self.noise_std, self.measurements, arrays, remedy)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape (C, H, W) of all clean images, where it is known beforehand."""
        size = self.preprocessing.size
        return None if size is None else (self.preprocessing.channels, *size)

    @property
    def _prior(self) -> Prior | None:
        """The prior of the model that will restore, where it is known and has one."""
        prior = getattr(getattr(self.trainer, "lightning_module", None), "prior", None)
        return prior if isinstance(prior, Prior) else None

    @property
    def _share(self) -> tuple[int, int]:
        """This process' number among those of all parts, and how many these are."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        number, parts = self._part
        return number + parts * rank, parts * world_size

    def unchanged(self, contents: Mapping[int, str | None]) -> set[int]:
        """Which of some images of this process' share are still made of the photographs that they were made of.

        Args:
            contents: each image's hash of then, by its index; None where it was not taken.
        """
        found: set[int] = set()
        if contents:
            rank, world_size = self._share
            last = max(contents) + 1
            for entry in self.source.entries(rank, world_size, limit=last if self.limit is None else min(last, self.limit)):
                if entry.index in contents and contents[entry.index] == entry.fingerprint() != "":
                    found.add(entry.index)
        return found

    def predict_dataloader(self) -> Loader:
        self.left_out, self._shapes, self._checked = {}, self._new_shapes(), False
        rank, world_size = self._share
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        if self.source.units is not None:
            self._try_arrays(self.source.units)
        share = Share(
            self.source,
            self.preprocessing,
            self.batch_size,
            rank,
            world_size,
            {*self.skip, *self.left_out},
            self.limit,
            self.samples,
            self.done,
            apart=self.operator.per_image,
            seed=None if self.measurements else self.seed,
        )
        return Loader(share, self.num_workers, on_gpu, self._refuse, self._tell)

    def _try_arrays(self, units: Units) -> None:
        """Read all arrays of this process once, so that what cannot be used is known before any work: networks take longer.

        Raises:
            ValueError: where this process has all of them, and none can be used.
        """
        rank, world_size = self._share
        reasons: dict[int, str] = {}
        bounds: list[tuple[float, float]] = []
        for entry in self.source.entries(rank, world_size, self.skip, self.limit):
            try:
                bounds.append(self._bounds_of(entry))
            except ValueError as error:  # noqa: PERF203
                reasons[entry.index] = str(error)
        if reasons and not bounds and not self.skip and world_size == 1:
            raise ValueError(f"None of the {len(reasons)} arrays can be used; the first: {next(iter(reasons.values()))}")
        for index, reason in reasons.items():
            self._tell(Notice(index, reason, left_out=True))
        doubt = units.doubt(min(b[0] for b in bounds), max(b[1] for b in bounds)) if bounds and not self.measurements else ""
        if doubt and rank == self._part[0]:
            warnings.warn(f"{self.source} holds {doubt}.", stacklevel=2)

    def _bounds_of(self, entry: Entry) -> tuple[float, float]:
        """The least and the greatest value of an array; of complex ones, of their parts.

        Raises:
            ValueError: where it cannot be used.
        """
        read = entry.load()
        assert isinstance(read, Values)
        one = Decoded(read.values[None], [entry.index], [read.name], [""], [-1], [read.form], [read.parameters], [0])
        if (reason := self._shapes.first_look(one)) is not None:
            raise ValueError(f"{entry.place}: {reason}")
        low, high = torch.aminmax(torch.view_as_real(read.values) if read.values.is_complex() else read.values)
        return float(low), float(high)

    def _refuse(self, batch: Decoded) -> str | None:
        """Why the operator or the prior cannot take a batch, where the images' size was not known before."""
        shape = self._shapes.of(batch)
        if isinstance(shape, str):
            return shape
        operator = self.operator.of(batch.names[0], batch.parameters[0])
        if self.operator.per_image and isinstance(operator, Inpainting) and isinstance(operator.mask, MaskFile):
            self._tell(Notice(batch.indices[0], f"{batch.names[0]} (number {batch.indices[0]}): {operator.mask.told}", False))
        return None

    def _tell(self, notice: Notice) -> None:
        # File names are bytes, and those that are no UTF-8 could not be written into the results.
        text = notice.text.rstrip(".").encode("utf-8", "backslashreplace").decode()
        if notice.index in self.left_out:
            return  # its samples fill several batches
        if not notice.left_out:
            warnings.warn(f"{text}.", stacklevel=2)
        elif self.on_error == "raise":
            raise ValueError(f"{text}; data.on_error: skip would go on without it.")
        else:
            self.left_out[notice.index] = text
            warnings.warn(f"{text}: left out.", stacklevel=2)

    def teardown(self, stage: str) -> None:
        if self.left_out:
            indices = ", ".join(map(str, sorted(self.left_out)))
            warnings.warn(f"{len(self.left_out)} photographs could not be used and were left out: {indices}.", stacklevel=2)

    @torch.inference_mode(False)  # Lightning's default would forbid the gradients that guidance needs
    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Decoded, dataloader_idx: int) -> Batch:
        images, index, name, content, labels, forms, parameters, samples, noise = batch
        images = images.clone() if images.is_inference() else images
        operator = self.operator.of(name[0], parameters[0]).to(images.device)
        clean, units = None if self.measurements else images, self.source.units
        if clean is not None and units is not None:
            clean = units.image(clean)
        y = images if clean is None else operator(clean)
        if clean is None and units is not None:
            y = units.measurement(y, operator)
        std = self.noise_std
        if isinstance(std, Tensor):
            std = std.to(y.device, y.real.dtype)
        if clean is not None and (isinstance(std, Tensor) or std > 0):
            n = standard_normal(tuple(y.shape[1:]), [generator(self.seed, i, "measurement") for i in index], y.dtype, y.device)
            y = y + std * n
        shape = self._shapes.of(batch) if clean is None else tuple(clean.shape[1:])
        if isinstance(shape, str):
            raise ValueError(f"{name[0]} (number {index[0]}): {shape}.")
        if noise is None:
            initial = [generator(self.seed, i, "initial", k) for i, k in zip(index, samples, strict=True)]
            noise = standard_normal(shape, initial)
        noise = noise.to(images.device, y.real.dtype)
        fitted = fit(operator, y, self._prior, self.noise_std) if clean is None else None
        if not self._checked:
            check_adjoint(operator if fitted is None else fitted.operator, noise)
            self._checked = True
        label = torch.tensor(labels, device=images.device) if max(labels) >= 0 else None
        draws = [generator(self.seed, i, "sampler", k) for i, k in zip(index, samples, strict=True)]
        own = operator if self.operator.per_image else None
        return Batch(clean, y, noise, draws, index, name, content, fitted, label, own, forms, units, samples)
