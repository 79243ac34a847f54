"""Restorer: the LightningModule that restores batches of measurements with a sampler."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from torch import Tensor

from cclight.data.datamodule import Batch
from cclight.data.fitting import Fitted, OutOfMemory
from cclight.data.noise_map import NoiseLike, noise_std_of
from cclight.operators.base import Operator
from cclight.priors.base import Prior, per_image
from cclight.samplers.base import Sampler


@dataclass
class Restored:
    """What a Restorer makes of a batch. Not frozen: Lightning moves what it returns to the CPU field by field.

    Attributes:
        image: restored, (B, C, H, W), clamped to [-1, 1] unless the units have no ends; NaN where the sampler gave NaN.
        nfe: network evaluations spent on each image.
        seconds: wall-clock time of the batch divided by its images.
        consistency: the root mean square of H x̂ - y of each image, (B,).
        finite: whether each restoration is free of NaN and infinity, (B,).
        index: the images' numbers in their source.
        name: the images' names.
        sample: which of its image's samples each restoration is; all the first ones where nothing is said.
    """

    image: Tensor
    nfe: int
    seconds: float
    consistency: Tensor
    finite: Tensor
    index: list[int]
    name: list[str]
    sample: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sample = self.sample or [0] * len(self.index)


class Restorer(pl.LightningModule):
    """Restores measurements with a pretrained prior; nothing is trained.

    Args:
        prior: the denoiser.
        sampler: turns measurements into images with a few calls of the prior.
        operator: the degradation H that made the measurements.
        noise_std: σ_y, the standard deviation of their noise, in units of [-1, 1] images; an array file gives each measured
            number its own.
        compile: compile the prior with `torch.compile`, which pays off for many images.
        channels_last: keep the prior's weights in the channels-last memory format, faster on GPUs with half precision.

    Raises:
        FileNotFoundError, ValueError: for a noise_std that is no standard deviation and no file of such.
    """

    def __init__(
        self,
        prior: Prior,
        sampler: Sampler,
        operator: Operator,
        noise_std: NoiseLike = 0.0,
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior.eval().requires_grad_(False)
        self.sampler = sampler
        self.operator = operator
        self.noise_std = noise_std_of(noise_std)
        if channels_last:
            self.prior.to(memory_format=torch.channels_last)
        if compile:
            self.prior.compile()

    @torch.inference_mode(False)  # Lightning's default would forbid the gradients that guidance needs
    @torch.no_grad()
    def predict_step(self, batch: Batch, batch_idx: int) -> Restored:
        """Restore a batch.

        Raises:
            RuntimeError: when the memory is not enough; names the remedies.
        """
        begin = time.perf_counter()
        y, noise = (part.clone() if part.is_inference() else part for part in (batch.measurement, batch.noise))
        operator = self.operator if batch.operator is None else batch.operator
        fitted = batch.fitted or Fitted(y, operator, tuple(noise.shape[1:]), slice(None), slice(None))
        ends = batch.units is None or batch.units.ends
        try:
            solved = fitted.solve(self.sampler, self.prior, noise, self.noise_std, batch.generators, batch.label, ends)
        except OutOfMemory as error:
            raise OutOfMemory(
                f"{error}: set data.batch_size or data.image_size to less, or make the prior a Tiled one, which looks at an "
                "image in pieces"
            ) from error
        seconds = (time.perf_counter() - begin) / len(batch.index)
        image = solved.image
        if any(batch.grey):
            grey = per_image(torch.tensor(batch.grey, device=image.device), image)
            image = torch.where(grey, image.mean(1, keepdim=True), image)
        with torch.autocast(image.device.type, enabled=False):
            consistency = fitted.residual(image).cpu()
        numbers = batch.index, batch.name, batch.sample
        return Restored(fitted.cut(image), solved.nfe, seconds, consistency, solved.finite, *numbers)
