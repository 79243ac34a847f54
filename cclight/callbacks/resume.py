"""Resume: leaves out the images that an earlier, interrupted run has finished."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from cclight.data.datamodule import RestorationDataModule
from cclight.runs.folder import RunFolder


class Resume(Callback):
    """Tells the data module which images the run folder already holds.

    It does so in `setup`, which Lightning encloses in two barriers: every rank reads the same records, before any is added.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = getattr(trainer, "datamodule", None)
        if stage != "predict" or not isinstance(data, RestorationDataModule):
            return
        self.run.join(trainer.global_rank)
        data.skip = frozenset(self.run.finished())
