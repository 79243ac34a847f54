"""TensorBoardLog: the run's metrics and grid in whatever logger the trainer has.

cclight predict --config configs/sr.yaml --trainer.logger TensorBoardLogger --trainer.logger.save_dir runs/sr
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from cclight.callbacks.sink import Sink
from cclight.errors import RunError
from cclight.runs.pictures import read_png
from cclight.runs.results import Run


class TensorBoardLog(Sink):
    """Hands a finished run to the trainer's loggers: means and per-image metrics to every one, grid.png to TensorBoard.

    A metric's mean is called as in metrics.json, its value for one image `image/<metric>` at the step of the image's index.

    Args:
        loggers: the trainer's loggers; none does nothing.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written to: loggers find out when they are given something, which is at the end.

        Raises:
            RunError: naming it.
        """
        for logger in self.loggers if trainer.is_global_zero else ():
            if (folder := logger.save_dir) is None or "://" in folder:
                continue
            there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
            if not (there.is_dir() and os.access(there, os.W_OK)):
                raise RunError(
                    f"{type(logger).__name__} cannot write into {folder}: set trainer.logger.init_args.save_dir to a folder "
                    f"that you can write to."
                )

    def receive(self, results: Run) -> None:
        means = {name: mean for name in results.metrics if (mean := results.mean(name)) is not None}
        grid = results.path / "grid.png"
        for logger in self.loggers:
            logger.log_metrics(means)
            for index, record in results.records.items():
                logger.log_metrics({f"image/{name}": record[name] for name in means if name in record}, step=index)
            if isinstance(logger, TensorBoardLogger) and grid.is_file():
                logger.experiment.add_image("grid", read_png(grid))
            logger.save()
