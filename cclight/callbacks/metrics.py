"""MetricsCallback: measures every restoration where it was made, and merges the ranks' numbers once, at the end.

Numbers travel as records keyed by image index, never as metric states: ranks may hold different numbers of images or none. The
merge is in `teardown`, the one hook that a rank without images runs as well.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cclight.data.datamodule import RestorationDataModule
from cclight.errors import RunError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.gather import gather
from cclight.metrics.image import ImageMetric, default_metrics
from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS, Unavailable
from cclight.metrics.summary import Summary
from cclight.runs.folder import Record, RunFolder

if TYPE_CHECKING:
    from cclight.data.datamodule import Batch
    from cclight.restorer import Restored
from cclight.metrics.summary import per_image_quantities, summarize_records
from cclight.runs.results import write_results

FAILURE = "the restoration holds NaN or infinity"


NOT_APPLICABLE = "not applicable: the data holds no clean images to compare with"


class MetricsCallback(Callback):
    """Measures each restored image, notes it as finished in the run folder, and writes metrics.json and metrics.csv at the end.

    Place it after `ImageWriter`: an image counts as finished when its record is written.

    Args:
        run: the run folder.
        per_image: the metrics against the clean image; None for PSNR, SSIM, MS-SSIM and LPIPS (squeeze). Consistency, NFE and
            seconds are always measured.
        distances: FID and KID between the saved restored and clean images, or a reference; None for neither.
        seed: of the bootstrap behind the intervals.

    Attributes:
        quantities: the per-image numbers, in the order of the table.
        records: after the run, on every rank: the record of each image of the whole run by index.
        summaries: after the run, on every rank: each metric over the whole run by name.
    """

    def __init__(
        self,
        run: RunFolder,
        per_image: list[ImageMetric] | None = None,
        distances: FeatureDistances | None = None,
        seed: int = 0,
    ) -> None:
        self.run = run
        self.per_image = default_metrics() if per_image is None else per_image
        self.distances = distances
        self.seed = seed
        self.records: dict[int, Record] = {}
        self.summaries: dict[str, Summary] = {}
        self._resumed: dict[int, Record] = {}
        self._reasons: dict[str, str] = {}
        self.quantities = per_image_quantities(self.per_image)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        self.run.join(trainer.global_rank)
        self.records, self.summaries, self._reasons = {}, {}, {}
        self._resumed = self.run.finished()
        for metric in self.per_image:
            self._prepare(metric, trainer)
        if self.distances is not None:
            # Every rank, whether it will have images or not: what it finds decides which collectives are run.
            self.distances.prepare(trainer.strategy.root_device)

    def _prepare(self, metric: ImageMetric, trainer: Trainer) -> None:
        try:
            metric.prepare(trainer.strategy.root_device)
        except Unavailable as reason:
            self._reasons[metric.quantity.name] = str(reason)
            if trainer.is_global_zero:
                warnings.warn(f"{metric.quantity.title} is unavailable: {reason}.", stacklevel=2)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Restored,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        finite = outputs.finite.tolist()
        values: dict[str, Sequence[float]] = {
            CONSISTENCY.name: outputs.consistency.tolist(),
            NFE.name: [outputs.nfe] * len(finite),
            SECONDS.name: [outputs.seconds] * len(finite),
        }
        if batch.clean is not None and any(finite):
            # A NaN must not meet the finite images' metrics; the clean image stands in for it.
            keep = outputs.finite.to(outputs.image.device)[:, None, None, None]
            restored = torch.where(keep, outputs.image, batch.clean.to(outputs.image))
            for metric in self.per_image:
                values.update(self._measure(metric, restored, batch.clean))
        records: list[Record] = []
        for place, (index, name) in enumerate(zip(outputs.index, outputs.name, strict=True)):
            record: Record = {"index": index, "name": name}
            if finite[place]:
                record.update({key: value[place] for key, value in values.items()})
            else:
                record["failed"] = FAILURE
                warnings.warn(
                    f"Image {index} ({name}) is left out: {FAILURE}; try weaker guidance or more steps.", stacklevel=2
                )
            records.append(record)
        self.run.append(records)
        self.records.update({record["index"]: record for record in records})
        if batch.clean is None:
            self._reasons.update({metric.quantity.name: NOT_APPLICABLE for metric in self.per_image})

    def _measure(self, metric: ImageMetric, restored: torch.Tensor, clean: torch.Tensor) -> dict[str, list[float]]:
        name = metric.quantity.name
        if name in self._reasons:
            return {}
        try:
            return {name: metric(restored, clean.to(restored.device)).tolist()}
        except Unavailable as reason:
            self._reasons[name] = str(reason)
            return {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        left_out = dict(data.left_out) if isinstance(data, RestorationDataModule) else {}
        gathered = gather((self.records, self._reasons, left_out))
        times = Counter(index for records, *_ in gathered for index in records)
        twice = sorted(index for index, count in times.items() if count > 1)
        if twice and trainer.is_global_zero:
            warnings.warn(
                f"{len(twice)} images, image {twice[0]} among them, were restored by several ranks: the data is not split.",
                stacklevel=2,
            )
        self.records = dict(self._resumed)
        reasons: dict[str, str] = {}
        for records, why, elsewhere in gathered:
            self.records.update(records)
            reasons = {**why, **reasons}
            left_out.update(elsewhere)
        self.records = dict(sorted(self.records.items()))
        if left_out and not self.records:  # every rank knows the same by now, so that all stop together
            first = left_out[min(left_out)].rstrip(".")
            raise RunError(
                f"None of the {len(left_out)} photographs could be used; the first: {first}. Give others as data.source."
            )
        self.summaries = {
            summary.quantity.name: summary for summary in summarize_records(self.quantities, self.records, reasons, self.seed)
        }
        if self.distances is not None:
            names = {index: record["name"] for index, record in self.records.items() if "failed" not in record}
            restored = [self.run.file("restored", index, name) for index, name in names.items()]
            clean = [self.run.file("clean", index, name) for index, name in names.items()]
            self.summaries.update({s.quantity.name: s for s in self.distances.compute(restored, clean)})
        if trainer.is_global_zero:
            write_results(self.run, self.records, self.summaries, left_out)
