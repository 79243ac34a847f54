"""Restorer: the LightningModule that restores batches of measurements with a sampler."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor

from cclight.data.datamodule import Batch
from cclight.data.fitting import Fitted
from cclight.operators.base import Operator
from cclight.priors.base import Prior
from cclight.samplers.base import Sampler


@dataclass
class Restored:
    """What a Restorer makes of a batch. Not frozen: Lightning moves what it returns to the CPU field by field.

    Attributes:
        image: restored images clamped to [-1, 1], (B, C, H, W); NaN where the sampler gave NaN.
        nfe: network evaluations spent on each image.
        seconds: wall-clock time of the batch divided by its images.
        consistency: the root mean square of H x̂ - y of each image, (B,).
        finite: whether each restoration is free of NaN and infinity, (B,).
        index: the images' numbers in their source.
        name: the images' names.
    """

    image: Tensor
    nfe: int
    seconds: float
    consistency: Tensor
    finite: Tensor
    index: list[int]
    name: list[str]


class Restorer(pl.LightningModule):
    """Restores measurements with a pretrained prior; nothing is trained.

    Args:
        prior: the denoiser.
        sampler: turns measurements into images with a few calls of the prior.
        operator: the degradation H that made the measurements.
        noise_std: σ_y, the standard deviation of their noise, in units of [-1, 1] images.
        compile: compile the prior with `torch.compile`, which pays off for many images.
        channels_last: keep the prior's weights in the channels-last memory format, faster on GPUs with half precision.

    Raises:
        ValueError: for a noise_std that is no standard deviation.
    """

    def __init__(
        self,
        prior: Prior,
        sampler: Sampler,
        operator: Operator,
        noise_std: float = 0.0,
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= noise_std < math.inf:  # NaN is neither
            raise ValueError(f"noise_std is a standard deviation, got {noise_std}: give a number >= 0.")
        self.prior = prior.eval().requires_grad_(False)
        self.sampler = sampler
        self.operator = operator
        self.noise_std = noise_std
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
        fitted = batch.fitted or Fitted(y, self.operator, tuple(noise.shape[1:]), slice(None), slice(None))
        try:
            restoration = self.sampler.sample(
                self.prior,
                fitted.operator,
                fitted.y,
                noise,
                noise_std=self.noise_std,
                generators=batch.generators,
                label=batch.label,
            )
            finite = restoration.image.isfinite().flatten(1).all(dim=1).cpu()  # waits for the device, so that the time is true
        except (MemoryError, RuntimeError) as error:
            if _is_out_of_memory(error):
                size = "×".join(map(str, noise.shape[-2:]))
                raise RuntimeError(
                    f"out of memory on {noise.device} with {len(noise)} images of {size} pixels at once: set data.batch_size "
                    f"or data.image_size to less, or make the prior a Tiled one, which looks at an image in pieces"
                ) from error
            raise
        seconds = (time.perf_counter() - begin) / len(batch.index)
        image = restoration.image.clamp(-1, 1)
        with torch.autocast(image.device.type, enabled=False):
            consistency = fitted.residual(image).cpu()
        return Restored(fitted.cut(image), restoration.nfe, seconds, consistency, finite, batch.index, batch.name)


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in words
        or "not enough memory" in words  # torch on the CPU: DefaultCPUAllocator
        or "can't allocate memory" in words
    )
