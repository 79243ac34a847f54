"""`cclight fit`: train a small prior on a source's photographs."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning.pytorch.cli import LightningArgumentParser

from cclight.commands.lightning import _CLI
from cclight.data.patches import PatchDataModule
from cclight.training import PriorTrainer


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

    def go(self) -> None:
        self.trainer.fit(self.model, self.datamodule, ckpt_path=self.config.ckpt_path)  # type: ignore[arg-type]


def fit(arguments: list[str]) -> None:
    """`cclight fit`: train a small prior."""
    FitCLI.launch(arguments)
