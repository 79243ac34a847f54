"""The one way from measurements to results: a model restores what the data holds, and sinks take what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

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
        On rank 0 the run's results, where a `MetricsCallback` is among the sinks; else None. Where nodes share no folder, the
        first rank of each returns those of its own (`cclight.runs.nodes`).

    Raises:
        RunError: when not one image could be restored, or the run folder cannot be written to.
    """
    # A record says that an image is finished: its pictures come before it, whatever the sinks' order.
    sinks = sorted(sinks, key=lambda sink: isinstance(sink, MetricsCallback))
    delivery = _Delivery(sinks)
    trainer.callbacks.extend([*sinks, delivery])  # type: ignore[attr-defined]
    trainer.predict(model, datamodule=data, return_predictions=False)
    return delivery.results


class _Delivery(Callback):
    """Hands the results to the sinks when all of them are done with the batches, and before the loggers are closed."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = sinks
        self.results: Run | None = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.results = next((sink.results for sink in self.sinks if isinstance(sink, MetricsCallback)), None)
        if self.results is not None:
            for sink in self.sinks:
                sink.receive(self.results)
