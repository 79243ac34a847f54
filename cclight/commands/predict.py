"""`cclight predict`: restore a source's photographs and measure the result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from cclight import pipeline
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.sink import Sink
from cclight.callbacks.table import SummaryTable
from cclight.callbacks.tensorboard import TensorBoardLog
from cclight.commands.lightning import _CLI, add_metrics_arguments
from cclight.commands.outputs import tell_of_samples
from cclight.data.datamodule import RestorationDataModule
from cclight.interruption import Interruption
from cclight.metrics.image import LPIPS
from cclight.metrics.perceptual import PerceptualMap
from cclight.operators.base import Operator
from cclight.operators.masks import Inpainting, MaskFile
from cclight.restorer import Restorer
from cclight.runs.folder import RunFolder
from cclight.runs.naming import run_name
from cclight.runs.records import TOGETHER
from cclight.runs.results import Run


class PredictCLI(_CLI):
    """`cclight predict`."""

    command = "predict"
    example = "sr.yaml"
    model = Restorer
    data = RestorationDataModule
    # Guidance needs autograd, which inference mode switches off; the data module shares the work itself.
    defaults: ClassVar[dict[str, Any]] = {
        "inference_mode": False,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_subclass_arguments(
            Operator, "operator", required=True, help="The degradation H: what was done to the clean images."
        )
        parser.add_argument(
            "--noise_std",
            type=float | str,
            default=0.0,
            help="σ_y of the measurement's noise, images in [-1, 1]; or an array file with one for each number of it.",
        )
        parser.add_argument(
            "--samples",
            type=int,
            default=1,
            help="Restorations of each measurement, each from other noise; several also give their mean and spread.",
        )
        parser.add_argument("--run.name", type=str | None, default=None, help="The run's name; None takes the file's.")
        parser.add_class_arguments(RunFolder, "run", skip={"name"})
        parser.add_argument("--images.grid", type=int, default=8, help="How many images grid.png shows; 0 makes none.")
        parser.add_argument(
            "--images.maps", type=bool, default=False, help="Also save maps of where restorations differ to the eye (LPIPS)."
        )
        add_metrics_arguments(parser)
        for target in ("model", "data"):
            parser.link_arguments("operator", f"{target}.operator", apply_on="instantiate")
            parser.link_arguments("noise_std", f"{target}.noise_std")
        parser.link_arguments("samples", "data.samples")

    def before_instantiate_classes(self) -> None:
        """Claim the run folder before any long work; the other ranks join later, behind a barrier."""
        settings = self.config.run
        if settings.name is None:
            settings.name = self._free_name(Path(str(self.config.config[0])).stem if self.config.config else "predict")
        self.run = RunFolder(settings.name, settings.root, settings.overwrite, settings.resume)
        self.log_into(str(self.run.path))
        self.run.rank = getattr(rank_zero_only, "rank", 0)  # set by Lightning from the environment
        if self.run.rank == 0:
            self.run.open(self.parser.dump(self.config, skip_link_targets=False))

    def _free_name(self, stem: str) -> str:
        settings = self.config.run
        name = run_name(stem, settings.root, self.parser.dump(self.config, skip_link_targets=False))
        if settings.overwrite and not (Path(settings.root) / name).exists():
            return stem  # its own results are not there: those to replace are another configuration's
        if name != stem and getattr(rank_zero_only, "rank", 0) == 0:
            told = f"{settings.root}/{stem} holds another configuration, this run is {settings.root}/{name}"
            print(f"cclight predict: {told} (--run.name names it)", file=sys.stderr)
        return name

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except BaseException:
            self.run.abandon()
            raise
        if getattr(rank_zero_only, "rank", 0) == 0:
            tell_of_samples("cclight predict", cast(Restorer, self.model).sampler, self.config.samples)
            for part in cast(LightningModule, self.model).modules():
                if isinstance(part, Inpainting) and isinstance(part.mask, MaskFile):
                    print(f"cclight predict: {part.mask.told}", file=sys.stderr)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        metrics, images = self.config_init.metrics, self.config_init.images
        nets = [metric.net for metric in metrics.per_image or () if isinstance(metric, LPIPS)]
        maps = PerceptualMap(*nets[:1]) if images.maps else None  # with the network that is measured with, where there is one
        self.sinks: list[Sink] = [
            ImageWriter(self.run, images.grid, maps),
            MetricsCallback(self.run, metrics.per_image, metrics.distances),
            SummaryTable(),
            TensorBoardLog(trainer.loggers),
        ]
        return trainer

    def go(self) -> Run | None:
        """Restore; the results, on rank 0."""
        try:
            return pipeline.predict(self.model, self.datamodule, self.sinks, self.trainer)  # type: ignore[arg-type]
        except BaseException:
            self.run.abandon()
            raise


def predict(arguments: list[str]) -> None:
    """`cclight predict`: restore a source's photographs. SIGTERM and SIGINT end it within two seconds."""
    cli = PredictCLI.build(arguments)

    def say() -> str:
        if not cli.run.leads:
            return ""
        done = sum(1 for _, sample in cli.run.samples() if sample != TOGETHER)
        what = "images" if cli.config.samples == 1 else "samples"
        kept = f"{done} {what} are finished in {cli.run.path}, and the same command goes on with the others"
        return f"cclight predict: stopped; {kept if done else 'no image was finished'}."

    def forward(number: int) -> None:
        launcher = cli.trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(number)
            getattr(launcher, "procs", []).clear()  # or Lightning's observer kills us for their exit codes

    with Interruption(say, forward) as interruption:
        cli.trainer.callbacks.append(_Signals(interruption))  # type: ignore[attr-defined]
        cli.go()
        cli.run.close()


class _Signals(Callback):
    """Takes the signals back from Lightning, which sets a handler of its own as it begins."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.install()
