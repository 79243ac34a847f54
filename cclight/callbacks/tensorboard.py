"""TensorBoardLog: the run's metrics and grid in whatever logger the trainer has.

cclight predict --config configs/sr.yaml --trainer.logger TensorBoardLogger --trainer.logger.save_dir runs/sr
"""

from __future__ import annotations

import json

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from cclight.runs.folder import RunFolder
from cclight.runs.pictures import read_png


class TensorBoardLog(Callback):
    """Hands a finished run to the trainer's loggers: means and per-image metrics to every one, grid.png to TensorBoard.

    Without a logger it does nothing. Place it last: it reads metrics.json and grid.png. A metric's mean is called as in
    metrics.json, its value for one image `image/<metric>` at the step of the image's index.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict" or not trainer.is_global_zero or not trainer.loggers:
            return
        results = json.loads((self.run.path / "metrics.json").read_text(encoding="utf-8"))
        means = {name: metric["mean"] for name, metric in results["metrics"].items() if metric.get("mean") is not None}
        grid = self.run.path / "grid.png"
        for logger in trainer.loggers:
            logger.log_metrics(means)
            for index, record in self.run.finished().items():
                logger.log_metrics({f"image/{name}": record[name] for name in means if name in record}, step=index)
            if isinstance(logger, TensorBoardLogger) and grid.is_file():
                logger.experiment.add_image("grid", read_png(grid))
            logger.save()
