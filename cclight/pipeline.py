"""The one way from measurements to results: a model restores what the data holds, and sinks take what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.sink import Sink

if TYPE_CHECKING:
    from cclight.runs.results import Run


def predict(model: LightningModule, data: LightningDataModule, sinks: Sequence[Sink], trainer: Trainer) -> Run | None:
    """Restore everything that the data holds. No sink depends on its place among the others.

    Args:
        model: a `Restorer`.
        data: a `RestorationDataModule`.
        sinks: take each batch, and at the end the results: `ImageWriter` writes pictures, `MetricsCallback` measures, keeps
            records and resumes, `SummaryTable` prints.
        trainer: runs it, on any number of devices; its own callbacks stay.

    Returns:
        On rank 0 the run's results, where a `MetricsCallback` is among the sinks; else None.

    Raises:
        RunError: when not one image could be restored, or the run folder cannot be written to.
    """
    trainer.callbacks.extend(sinks)  # type: ignore[attr-defined]
    trainer.predict(model, datamodule=data, return_predictions=False)
    results = next((sink.results for sink in sinks if isinstance(sink, MetricsCallback)), None)
    if results is not None:
        for sink in sinks:
            sink.receive(results)
    return results
