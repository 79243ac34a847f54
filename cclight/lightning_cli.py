"""The LightningCLI behind `cclight predict` and `cclight fit`: YAML in, a run folder out.

The operator and the noise level stand once, at the top of the YAML, and are linked into both the data and the model.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

import cclight
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.resume import Resume
from cclight.callbacks.table import SummaryTable
from cclight.callbacks.tensorboard import TensorBoardLog
from cclight.cli import UsageError, suggestion
from cclight.data.datamodule import RestorationDataModule
from cclight.data.patches import PatchDataModule
from cclight.distances import FeatureDistances
from cclight.metrics import ImageMetric
from cclight.operators.base import Operator
from cclight.restorer import Restorer
from cclight.runs import RunFolder
from cclight.training import PriorTrainer

if TYPE_CHECKING:
    from typing_extensions import Self


class _CLI(LightningCLI):
    """LightningCLI for one command: short class names, one-line errors, the configuration kept by ourselves."""

    command: str
    model: type[LightningModule]
    data: type[LightningDataModule]
    defaults: ClassVar[dict[str, Any]]

    @classmethod
    def launch(cls, arguments: list[str]) -> None:
        """Parse the arguments and run the command.

        Raises:
            UsageError: for a key, class or value that does not exist.
        """
        cls.build(arguments).go()

    @classmethod
    def build(cls, arguments: list[str]) -> Self:
        """Parse the arguments and make everything they name.

        Raises:
            UsageError: for a key, class or value that does not exist.
        """
        import_public_names()
        # Lightning's notes on hardware, its own services and its own deprecations are no news to a user.
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
        # sys.argv stays as it is, because DDP starts its other processes from it.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
        try:
            return cls(
                cls.model,
                cls.data,
                args=arguments,
                run=False,
                save_config_callback=None,
                seed_everything_default=False,
                trainer_defaults=cls.defaults,
                parser_kwargs={
                    "prog": f"cclight {cls.command}",
                    "exit_on_error": False,
                    "default_config_files": [],
                    "description": None,
                },
            )
        except ArgumentError as error:
            raise UsageError(explain(str(error))) from error
        except ValueError as error:  # of a class's constructor
            raise UsageError(explain(str(error))) from error

    def go(self) -> None:
        """Do what the command is for."""
        raise NotImplementedError


class PredictCLI(_CLI):
    """`cclight predict`."""

    command = "predict"
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
        parser.add_subclass_arguments(Operator, "operator", help="The degradation H: what was done to the clean images.")
        parser.add_argument("--noise_std", type=float, default=0.0, help="σ_y of the measurement's noise, images in [-1, 1].")
        parser.add_argument("--run.name", type=str | None, default=None, help="The run's name; None takes the configuration's.")
        parser.add_class_arguments(RunFolder, "run", skip={"name"})
        parser.add_argument("--images.grid", type=int, default=8, help="How many images grid.png shows; 0 makes none.")
        add_metrics_arguments(parser)
        for target in ("model", "data"):
            parser.link_arguments("operator", f"{target}.operator", apply_on="instantiate")
            parser.link_arguments("noise_std", f"{target}.noise_std")

    def before_instantiate_classes(self) -> None:
        """Claim the run folder before any long work; the other ranks join later, behind a barrier."""
        settings = self.config.run
        if settings.name is None:
            settings.name = Path(str(self.config.config[0])).stem if self.config.config else "predict"
        self.run = RunFolder(settings.name, settings.root, settings.overwrite, settings.resume)
        if getattr(rank_zero_only, "rank", 0) == 0:  # set by Lightning from the environment
            self.run.open(self.parser.dump(self.config, skip_link_targets=False))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        metrics = self.config_init.metrics
        callbacks: list[Callback] = [
            Resume(self.run),
            ImageWriter(self.run, self.config_init.images.grid),
            MetricsCallback(self.run, metrics.per_image, metrics.distances),
            SummaryTable(self.run),
            TensorBoardLog(self.run),
        ]
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        return trainer

    def go(self) -> None:
        self.trainer.predict(self.model, self.datamodule, return_predictions=False)  # type: ignore[arg-type]


class FitCLI(_CLI):
    """`cclight fit`."""

    command = "fit"
    model = PriorTrainer
    data = PatchDataModule
    defaults: ClassVar[dict[str, Any]] = {"max_epochs": -1}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Go on from this checkpoint; `last` takes the newest of the run."
        )

    def go(self) -> None:
        self.trainer.fit(self.model, self.datamodule, ckpt_path=self.config.ckpt_path)  # type: ignore[arg-type]


def predict(arguments: list[str]) -> None:
    """`cclight predict`: restore a source's photographs."""
    PredictCLI.launch(arguments)


def fit(arguments: list[str]) -> None:
    """`cclight fit`: train a small prior."""
    FitCLI.launch(arguments)


def add_metrics_arguments(parser: ArgumentParser) -> None:
    """The options that say what is measured, for whatever measures."""
    parser.add_argument(
        "--metrics.per_image",
        type=list[ImageMetric] | None,
        default=None,
        help="The metrics against the clean images; None takes PSNR, SSIM, MS-SSIM and LPIPS (squeeze).",
    )
    parser.add_argument(
        "--metrics.distances", type=FeatureDistances | None, default=None, help="FID and KID; None measures neither."
    )


def import_public_names() -> None:
    """Import what YAML may call by its short name, and let it name what lies in the current folder."""
    sys.path.append(str(Path.cwd()))
    for room in cclight._ROOMS:
        import_module(f"cclight.{room}")


def explain(error: str) -> str:
    """A jsonargparse error as one line, with a suggestion where a class's name seems to be misspelt."""
    line = " ".join(error.split())
    # Of an optional value's two complaints the second, that it is not None, is no news.
    union = r"Does not validate against any .*?Errors: - (.*?) - Expected a <class 'NoneType'>.*?Given value: "
    union += r"((?!Namespace)[^{\[(]{,60})?.*"
    line = re.sub(union, lambda match: match[1] + (f", got {match[2]}" if match[2] else ""), line)
    if match := re.search(r"Expected a dot import path string: (\w+)", line):
        return f"{line}{suggestion(match[1], cclight.__all__)}"
    if match := re.search(r"class_path 'cclight\.(?:\w+\.)*(\w+)': Option '(\w+)' is not accepted", line):
        known = list(inspect.signature(getattr(cclight, match[1])).parameters)
        return f"{line}{suggestion(match[2], known) or ': it takes ' + ', '.join(known)}"
    if "Expected a <class 'list'>" in line:
        return f"{line}, as '[PSNR, LPIPS]'" if "per_image" in line else f"{line}, as '[one, two]'"
    return line
