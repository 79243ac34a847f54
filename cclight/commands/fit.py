"""`cclight fit`: train a small prior on a source's photographs."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, cast

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from cclight.callbacks.bar import EndlessBar
from cclight.callbacks.checkpoints import SaveLast, WholeCheckpoints, checkpoint_folders, checkpoint_to_resume
from cclight.commands.lightning import _CLI
from cclight.data.patches import PatchDataModule
from cclight.errors import UsageError
from cclight.priors.checkpoints import CheckpointError
from cclight.training import PriorTrainer, read_checkpoint


class FitCLI(_CLI):
    """`cclight fit`."""

    command = "fit"
    example = "fit_small.yaml"
    model = PriorTrainer
    data = PatchDataModule
    defaults: ClassVar[dict[str, Any]] = {"max_epochs": -1}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Go on from this checkpoint; `last` takes the newest of the run."
        )

    def before_instantiate_classes(self) -> None:
        self.log_into("runs")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        trainer.strategy.checkpoint_io = WholeCheckpoints()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [EndlessBar() if type(callback) is RichProgressBar else callback for callback in callbacks]
        callbacks.append(SaveLast())
        return trainer

    def go(self) -> None:
        try:
            path = checkpoint_to_resume(self.trainer, self.config.ckpt_path)
            if path is not None:
                cast("Any", self.model).check_resume(read_checkpoint(path), path)
        except (FileNotFoundError, CheckpointError) as error:
            raise UsageError(str(error)) from error
        self.trainer.fit(self.model, self.datamodule, ckpt_path=path, weights_only=True)  # type: ignore[arg-type]
        for folder in checkpoint_folders(self.trainer)[:1]:
            if self.trainer.is_global_zero and (folder / "last.ckpt").is_file():
                print(f"`cclight export {folder / 'last.ckpt'} trained.safetensors` writes what SmallPrior takes as weights.")


def fit(arguments: list[str]) -> None:
    """`cclight fit`: train a small prior."""
    for no_news in (
        "Total length of `list` across ranks is zero",  # no photographs for a validation
        "Checkpoint directory .* exists and is not empty",  # it is this training's own, which go() looks after
        "The '.*' does not have many workers",  # the loader hands out numbers
        ".*your dataloader is not resumable",  # the data module is
    ):
        warnings.filterwarnings("ignore", no_news)
    FitCLI.launch(arguments)
