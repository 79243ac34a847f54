"""MetricsCallback: measures every restoration where it was made, and merges the ranks' numbers once, at the end.

Numbers travel as records keyed by image index, never as metric states: ranks may hold different numbers of images or none. The
merge is in `teardown`, the one hook that a rank without images runs as well.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer

from cclight.callbacks.sink import Sink
from cclight.data.datamodule import RestorationDataModule
from cclight.errors import RunError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.gather import gather
from cclight.metrics.image import ImageMetric, array_metrics
from cclight.metrics.measuring import Measuring
from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS
from cclight.metrics.summary import Summary, summarize_records
from cclight.priors.base import per_image
from cclight.runs.folder import RunFolder
from cclight.runs.records import Record
from cclight.runs.results import Run, write_results

if TYPE_CHECKING:
    from cclight.data.datamodule import Batch
    from cclight.restorer import Restored

FAILURE = "the restoration holds NaN or infinity"


NOT_APPLICABLE = "not applicable: the data holds no clean images to compare with"


class NothingRestored(RunError):
    """Not one image of a run could be restored."""


class MetricsCallback(Sink):
    """Measures each restored image, notes it as finished in the run folder, and writes metrics.json and metrics.csv at the end.

    What the folder already holds is not restored again: the data module is told so in `setup`, which Lightning encloses in two
    barriers, so that every rank reads the same records before any is added. An image whose photograph has changed since is
    restored again, and what no longer belongs to the source is deleted.

    Args:
        run: the run folder.
        per_image: the metrics against the clean image; None for PSNR, SSIM, MS-SSIM and LPIPS (squeeze), or for arrays PSNR,
            NRMSE and SSIM. Consistency, NFE and seconds are always measured.
        distances: FID and KID between the saved restored and clean images, or a reference; None for neither.
        seed: of the bootstrap behind the intervals.

    Attributes:
        measuring: the per-image metrics.
        records: after the run, on every rank: the record of each image of the whole run by index.
        summaries: after the run, on every rank: each metric over the whole run by name.
        results: after the run, on rank 0: what was written.
    """

    def __init__(
        self,
        run: RunFolder,
        per_image: list[ImageMetric] | None = None,
        distances: FeatureDistances | None = None,
        seed: int = 0,
    ) -> None:
        self.run = run
        self.measuring = Measuring(per_image)
        self._chosen = per_image is not None
        self.distances = distances
        self.seed = seed
        self.records: dict[int, Record] = {}
        self.summaries: dict[str, Summary] = {}
        self.results: Run | None = None
        self._resumed: dict[int, Record] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        limit = trainer.limit_predict_batches  # an integer also under trainer.fast_dev_run
        if limit != 1.0 or isinstance(limit, int):
            raise RunError(
                f"trainer.limit_predict_batches is {limit}, which would make a part look like a finished run: leave it (and "
                f"trainer.fast_dev_run) out, and set data.limit to restore the first so many photographs."
            )
        self.run.join(trainer.global_rank)
        self.records, self.summaries, self.results = {}, {}, None
        self._resume(trainer)
        data = getattr(trainer, "datamodule", None)
        if not self._chosen and isinstance(data, RestorationDataModule) and data.source.units is not None:
            self.measuring = Measuring(array_metrics())
        # Without clean images nothing is measured against them, and no weights are fetched in vain.
        blind = getattr(data, "measurements", False)
        missing = {} if blind else self.measuring.prepare(trainer.strategy.root_device)
        if self.distances is not None and not (blind and self.distances.reference is None):
            # Every rank, whether it will have images or not: what it finds decides which collectives are run.
            self.distances.prepare(trainer.strategy.root_device)
        if trainer.is_global_zero:
            for title, reason in missing.items():
                warnings.warn(f"{title} is unavailable: {reason}.", stacklevel=2)

    def _resume(self, trainer: Trainer) -> None:
        """Take over what the folder holds, as far as it was made of what the source holds now."""
        self._resumed = self.run.finished(evaluated=False)
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, RestorationDataModule):
            return
        shares = gather(data.unchanged({index: record.get("content") for index, record in self._resumed.items()}))
        unchanged = set().union(*shares)
        stale = [record for index, record in self._resumed.items() if index not in unchanged]
        if trainer.is_global_zero:
            if stale:
                warnings.warn(
                    f"{len(stale)} of {len(self._resumed)} finished images were made of other photographs than the source "
                    f"holds in their places now, {stale[0]['name']} (number {stale[0]['index']}) among them: they are dropped, "
                    f"and what is there now is restored.",
                    stacklevel=2,
                )
            self.run.keep(unchanged)
        self._resumed = {index: record for index, record in self._resumed.items() if index in unchanged}
        data.skip = frozenset(unchanged)

    @torch.inference_mode(False)
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
        finite = outputs.finite.tolist()
        values: dict[str, Sequence[float]] = {
            CONSISTENCY.name: outputs.consistency.tolist(),
            NFE.name: [outputs.nfe] * len(finite),
            SECONDS.name: [outputs.seconds] * len(finite),
        }
        if batch.clean is None:
            self.measuring.lack(NOT_APPLICABLE)
        elif any(finite):
            # A NaN must not meet the finite images' metrics; the clean image stands in for it.
            keep = per_image(outputs.finite.to(outputs.image.device), outputs.image)
            restored = torch.where(keep, outputs.image, batch.clean.to(outputs.image))
            values.update(self.measuring(restored, batch.clean, batch.units))
        records: list[Record] = []
        for place, (index, name) in enumerate(zip(outputs.index, outputs.name, strict=True)):
            record: Record = {"index": index, "name": name}
            if batch.content:
                record["content"] = batch.content[place]
            if batch.units is not None:
                record["units"] = asdict(batch.units)
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

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        left_out = dict(data.left_out) if isinstance(data, RestorationDataModule) else {}
        gathered = gather((self.records, self.measuring.reasons, left_out))
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
        self._check_something_was_restored(left_out)
        self.summaries = {
            s.quantity.name: s for s in summarize_records(self.measuring.quantities, self.records, reasons, self.seed)
        }
        if self.distances is not None:
            names = {index: record["name"] for index, record in self.records.items() if "failed" not in record}
            restored = [self.run.file("restored", index, name) for index, name in names.items()]
            clean = [self.run.file("clean", index, name) for index, name in names.items()]
            self.summaries.update({s.quantity.name: s for s in self.distances.compute(restored, clean)})
        if trainer.is_global_zero:
            self.run.reopen()  # what `cclight evaluate` measured goes with the old metrics.json
            self.results = write_results(self.run, self.records, self.summaries, left_out)

    def _check_something_was_restored(self, left_out: dict[int, str]) -> None:
        """Every rank knows the same by now, so that all stop together."""
        if left_out and not self.records:
            first = left_out[min(left_out)].rstrip(".")
            raise NothingRestored(
                f"None of the {len(left_out)} photographs could be used; the first: {first}. Give others as data.source."
            )
        failed = [record for record in self.records.values() if "failed" in record]
        if failed and len(failed) == len(self.records):
            raise NothingRestored(
                f"None of the {len(failed)} images could be restored ({failed[0]['name']}: {failed[0]['failed']}): look for "
                f"NaN in the prior's weights and the sampler's settings, or try weaker guidance and more steps."
            )
