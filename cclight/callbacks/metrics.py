"""MetricsCallback: measures every restoration where it was made, and merges the ranks' numbers once, at the end.

Numbers travel as records keyed by image index, never as metric states: ranks may hold different numbers of images or none. The
merge is in `teardown`, the one hook that a rank without images runs as well.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cclight.callbacks.sink import Sink
from cclight.data.datamodule import RestorationDataModule
from cclight.errors import RunError
from cclight.metrics.fid import FID, KID, FeatureDistances
from cclight.metrics.gather import gather
from cclight.metrics.image import ImageMetric, array_metrics
from cclight.metrics.measuring import Measuring
from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS
from cclight.metrics.summary import Summary, summarize_records
from cclight.priors.base import per_image
from cclight.runs.folder import RunFolder
from cclight.runs.merging import ANEW
from cclight.runs.nodes import enter, place_of, told
from cclight.runs.records import TOGETHER, Key, Record, key_of, merge
from cclight.runs.results import Run, write_results
from cclight.runs.spread import summarize_together, together
from cclight.samplers.base import Sampler, alike

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

    Where nodes share no folder (`cclight.runs.nodes`), what any folder holds is not restored again, each gets the results of
    its own images, and rank 0 says at the end which images lie elsewhere. Nothing claims the means of all of them, nor FID:
    those are `cclight evaluate`'s, of the folders put together.

    Args:
        run: the run folder.
        per_image: the metrics against the clean image; None for PSNR, SSIM, MS-SSIM and LPIPS (squeeze), or for arrays PSNR,
            NRMSE and SSIM. Consistency, NFE and seconds are always measured.
        distances: FID and KID between the saved restored and clean images, or a reference; None for neither.
        seed: of the bootstrap behind the intervals.

    Attributes:
        measuring: the per-image metrics.
        lines: after the run, on every rank: the records of all samples in its run folder, and of each image's samples together.
        records: of these, one record of each image by index.
        summaries: after the run, on every rank: each metric over these by name.
        results: after the run, on rank 0 and whichever else leads a folder: what was written.
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
        self.lines: dict[Key, Record] = {}
        self.summaries: dict[str, Summary] = {}
        self.results: Run | None = None
        self._held: dict[int, dict[Key, Record]] = {}  # what each folder held, by the rank that leads it
        self._samples = 1
        self._first: tuple[int, Tensor] | None = None  # an image and its restoration, to compare its next sample with

    @property
    def records(self) -> dict[int, Record]:
        """One record of each image."""
        return merge(self.lines)

    def suit(self, data: RestorationDataModule) -> None:
        """Measure arrays as such, where nobody chose the metrics."""
        if not self._chosen and data.source.units is not None:
            self.measuring = Measuring(array_metrics())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        limit = trainer.limit_predict_batches  # an integer also under trainer.fast_dev_run
        if limit != 1.0 or isinstance(limit, int):
            raise RunError(
                f"trainer.limit_predict_batches is {limit}, which would make a part look like a finished run: leave it (and "
                f"trainer.fast_dev_run) out, and set data.limit to restore the first so many photographs."
            )
        enter(self.run, trainer.global_rank)
        self.lines, self.summaries, self.results, self._first = {}, {}, None, None
        data = getattr(trainer, "datamodule", None)
        self._samples = data.samples if isinstance(data, RestorationDataModule) else 1
        self._resume(trainer)
        if isinstance(data, RestorationDataModule):
            self.suit(data)
        # Without clean images nothing is measured against them, and no weights are fetched in vain.
        blind = getattr(data, "measurements", False)
        shape = data.shape if self._chosen and isinstance(data, RestorationDataModule) else None
        missing = {} if blind else self.measuring.prepare(trainer.strategy.root_device, shape)
        if self.distances is not None and not self._apart and not (blind and self.distances.reference is None):
            # Every rank, whether it will have images or not: what it finds decides which collectives are run.
            self.distances.prepare(trainer.strategy.root_device)
            if isinstance(data, RestorationDataModule) and len(list(islice(data.source, min(data.limit or 2, 2)))) == 1:
                missing["FID"] = "a distribution needs 2 images or more, and the data holds one"
        if trainer.is_global_zero:
            for title, reason in missing.items():
                warnings.warn(f"{title} is unavailable: {reason}.", stacklevel=2)

    def _resume(self, trainer: Trainer) -> None:
        """Take over what the folders hold, as far as it was made of what the source holds now."""
        homes = self.run.homes
        found = gather(self.run.samples(evaluated=False) if self.run.leads else {})
        self._held = {home: found[home] for home in sorted(set(homes.values()))}
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, RestorationDataModule):
            return
        images = {i: record for lines in reversed(self._held.values()) for i, record in merge(lines).items()}
        shares = gather(data.unchanged({index: record.get("content") for index, record in images.items()}))
        unchanged = {index: rank for rank, share in enumerate(shares) for index in share}
        stale = [record for index, record in sorted(images.items()) if index not in unchanged]
        if stale and trainer.is_global_zero:
            warnings.warn(
                f"{len(stale)} of {len(images)} finished images were made of other photographs than the source "
                f"holds in their places now, {stale[0]['name']} (number {stale[0]['index']}) among them: they are dropped, "
                f"and what is there now is restored.",
                stacklevel=2,
            )
        # One folder holds an image: the first in which it is whole, or else that of the rank which goes on with it.
        kept = {
            index: next((home for home in self._held if len(self._samples_of(index, home)) == self._samples), homes[rank])
            for index, rank in unchanged.items()
        }
        if self.run.leads:
            self.run.keep({index for index, home in kept.items() if home == trainer.global_rank})
        self._held = {
            home: {key: record for key, record in lines.items() if kept.get(key[0]) == home}
            for home, lines in self._held.items()
        }
        done = {key for lines in self._held.values() for key in lines}
        data.done = {index: {k for k in range(self._samples) if (index, k) in done} for index in kept}
        data.skip = frozenset(index for index, samples in data.done.items() if len(samples) == self._samples)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Restored,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._samples > 1:
            self._compare(outputs, pl_module)
        # On the thread of the records: the next batch need not wait for the measures of this one.
        self.run.then(partial(self._take, outputs, batch))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _take(self, outputs: Restored, batch: Batch) -> None:
        """Measure a batch, once its pictures are on disk, and note it as finished."""
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
        for place, (index, name, sample) in enumerate(zip(outputs.index, outputs.name, outputs.sample, strict=True)):
            record: Record = {"index": index, "name": name, **({"sample": sample} if sample else {})}
            if batch.content:
                record["content"] = batch.content[place]
            if batch.units is not None:
                record["units"] = asdict(batch.units)
            if finite[place]:
                record.update({key: value[place] for key, value in values.items()})
            else:
                record["failed"] = FAILURE
                which = f"Image {index} ({name})" if self._samples == 1 else f"Sample {sample} of image {index} ({name})"
                warnings.warn(f"{which} is left out: {FAILURE}; try weaker guidance or more steps.", stacklevel=2)
            records.append(record)
        self.run.note(records)
        self.lines.update({key_of(record): record for record in records})
        for index in dict.fromkeys(outputs.index if self._samples > 1 else ()):
            if len(self._samples_of(index)) == self._samples:
                self._measure_together(index)

    def _samples_of(self, index: int, home: int | None = None) -> list[Record]:
        """The records of an image's samples that this rank has made or a folder, its own if none is named, held before."""
        held = self._resumed if home is None else self._held[home]
        known = (self.lines.get((index, k)) or held.get((index, k)) for k in range(self._samples))
        return [record for record in known if record is not None]

    @property
    def _apart(self) -> bool:
        """Whether nodes share no folder."""
        return len(self._held) > 1

    @property
    def _resumed(self) -> dict[Key, Record]:
        """What this rank's folder held."""
        return self._held[self.run.homes[self.run.rank]]

    def _measure_together(self, index: int) -> None:
        """Once all samples of an image are on disk."""
        record = together(self.run.path, self._samples_of(index), [m.quantity for m in self.measuring.metrics])
        if record is not None:
            self.run.note([record])
            self.lines[key_of(record)] = record

    def _compare(self, outputs: Restored, pl_module: LightningModule) -> None:
        """Say once, of the first image, when its samples are one."""
        for place, index in enumerate(outputs.index):
            image = outputs.image[place]
            if self._first is None:
                self._first = index, image.clone()
            elif self._first[0] == index and outputs.finite[place]:
                if torch.equal(self._first[1], image):
                    assert isinstance(pl_module.sampler, Sampler)
                    warnings.warn(alike(pl_module.sampler), stacklevel=2)
                self._first = -1, image

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        left_out = dict(data.left_out) if isinstance(data, RestorationDataModule) else {}
        self._measure_the_others_together(trainer)
        gathered = gather((self.lines, self.measuring.reasons, left_out, place_of(self.run)))
        times = Counter(key for lines, *_ in gathered for key in lines)
        twice = sorted({key[0] for key, count in times.items() if count > 1})
        if twice and trainer.is_global_zero:
            warnings.warn(
                f"{len(twice)} images, image {twice[0]} among them, were restored by several ranks: the data is not split.",
                stacklevel=2,
            )
        reasons: dict[str, str] = {}
        for rank, (lines, why, *_) in enumerate(gathered):
            self._held[self.run.homes[rank]].update(lines)
            reasons = {**why, **reasons}
        everywhere = [record for lines in self._held.values() for record in merge(lines).values()]
        self._check_something_was_restored({i: why for _, _, without, _ in gathered for i, why in without.items()}, everywhere)
        self.lines = dict(sorted(self._resumed.items()))
        self._summarize(reasons)
        first = trainer.is_global_zero
        if self._apart and first:
            trainer.strategy.barrier("folders")  # rank 0's is finished last: a kill leaves none behind it unfinished
        if self.run.leads:
            self.run.reopen()  # what `cclight evaluate` measured goes with the old metrics.json
            home = self.run.rank
            mine = [without for rank, (_, _, without, _) in enumerate(gathered) if self.run.homes[rank] == home]
            left_out = {index: why for without in mine for index, why in without.items()}
            self.results = write_results(self.run, self.lines, self.summaries, left_out)
        if self._apart and not first:
            trainer.strategy.barrier("folders")
        others = {gathered[home][-1]: merge(lines) for home, lines in self._held.items() if home != 0}
        if first and (words := told(self.run, self.records, others)):
            warnings.warn(words, stacklevel=2)

    def _measure_the_others_together(self, trainer: Trainer) -> None:
        """Images in this rank's folder that an earlier run had left with all of their samples and no more."""
        homes = self.run.homes
        sharing = [rank for rank in range(trainer.world_size) if homes[rank] == homes[trainer.global_rank]]
        for index in sorted({index for index, _ in self._resumed} if self._samples > 1 else ()):
            known = self.lines.get((index, TOGETHER)) or self._resumed.get((index, TOGETHER))
            own = sharing[index % len(sharing)] == trainer.global_rank
            stale = known is None or known["samples"] != self._samples
            if own and stale and len(self._samples_of(index)) == self._samples:
                self._measure_together(index)

    def _summarize(self, reasons: dict[str, str]) -> None:
        """The summaries of all records in the folder."""
        records = self.records
        quantities = self.measuring.quantities
        found = summarize_records(quantities, records, reasons, self.seed)
        blind = NOT_APPLICABLE if NOT_APPLICABLE in reasons.values() else None
        found += summarize_together(quantities, records, blind, self.seed)
        self.summaries = {summary.quantity.name: summary for summary in found}
        if self._apart:
            self.summaries.update({q.name: Summary(q, unavailable=ANEW) for q in (FID, KID) if self.distances is not None})
        elif self.distances is not None:
            names = {index: record["name"] for index, record in records.items() if "failed" not in record}
            restored, clean = ([self.run.file(kind, i, name) for i, name in names.items()] for kind in ("restored", "clean"))
            self.summaries.update({s.quantity.name: s for s in self.distances.compute(restored, clean)})

    def _check_something_was_restored(self, left_out: dict[int, str], records: Collection[Record]) -> None:
        """Every rank knows the same by now, so that all stop together."""
        if left_out and not records:
            first = left_out[min(left_out)].rstrip(".")
            raise NothingRestored(
                f"None of the {len(left_out)} photographs could be used; the first: {first}. Give others as data.source."
            )
        failed = [record for record in records if "failed" in record]
        if failed and len(failed) == len(records):
            raise NothingRestored(
                f"None of the {len(failed)} images could be restored ({failed[0]['name']}: {failed[0]['failed']}): look for "
                f"NaN in the prior's weights and the sampler's settings, or try weaker guidance and more steps."
            )
