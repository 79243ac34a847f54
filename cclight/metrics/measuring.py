"""Measuring: the per-image metrics of a run, whether its images were just restored or are read from its pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from cclight.data.units import Units
from cclight.metrics.image import ImageMetric, default_metrics
from cclight.metrics.quantity import Unavailable
from cclight.metrics.summary import per_image_quantities


class Measuring:
    """Measures batches with several metrics; what cannot be had is noted with its reason and not tried again.

    Args:
        metrics: None for PSNR, SSIM, MS-SSIM and LPIPS (squeeze).

    Attributes:
        metrics: the metrics.
        quantities: the per-image numbers of a run, in the order of the table: theirs, consistency, NFE and seconds.
        reasons: why a metric is missing, by its name.

    Raises:
        ValueError: for two metrics of one name.
    """

    def __init__(self, metrics: list[ImageMetric] | None = None) -> None:
        self.metrics = default_metrics() if metrics is None else metrics
        self.quantities = per_image_quantities(self.metrics)
        self.reasons: dict[str, str] = {}

    def prepare(self, device: torch.device, shape: tuple[int, ...] | None = None) -> dict[str, str]:
        """Load what the metrics need onto the device, before any long work, and try each.

        Args:
            device: where images will be.
            shape: of the photographs, (C, H, W), to try the metrics on noise; None tries nothing.

        Returns:
            Why a metric cannot be had, by its title.
        """
        self.reasons = {}
        missing: dict[str, str] = {}
        for metric in self.metrics:
            try:
                metric.prepare(device)
                if shape is not None:
                    metric(*torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)).to(device))
            except Unavailable as reason:  # noqa: PERF203
                self.reasons[metric.quantity.name] = missing[metric.quantity.title] = str(reason)
        return missing

    def __call__(self, restored: Tensor, clean: Tensor, units: Units | None = None) -> dict[str, list[float]]:
        """The value of each image by the metric's name.

        Args:
            restored: (B, C, H, W) in [-1, 1], finite.
            clean: the same shape and range.
            units: what the numbers of arrays mean; None for photographs.
        """
        values: dict[str, list[float]] = {}
        for metric in self.metrics:
            name = metric.quantity.name
            if name in self.reasons:
                continue
            try:
                values[name] = metric(restored, clean.to(restored.device), units).tolist()
            except Unavailable as reason:
                self.reasons[name] = str(reason)
        return values

    def lack(self, reason: str) -> None:
        """Note that none of the metrics can be had."""
        self.reasons.update({metric.quantity.name: reason for metric in self.metrics})
