"""The LightningCLI behind `cclight predict` and `cclight fit`: YAML in, a run folder out.

The operator and the noise level stand once, at the top of the YAML, and are linked into both the data and the model.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import cclight
from cclight.cli import COMMANDS
from cclight.commands.explain import explain
from cclight.commands.parsing import Parser, check_numbers, check_options, classes_first, options_of, strictly
from cclight.errors import UsageError, one_line
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import ImageMetric

if TYPE_CHECKING:
    from typing_extensions import Self

_UNSAID = "the run's folder"  # which is not known yet when the command line is read


class _CLI(LightningCLI):
    """LightningCLI for one command: short class names, one-line errors, the configuration kept by ourselves."""

    command: str
    example: str  # a packaged configuration to begin with
    model: type[LightningModule]
    data: type[LightningDataModule]
    defaults: ClassVar[dict[str, Any]]

    @classmethod
    def launch(cls, arguments: list[str]) -> None:
        """Parse the arguments and run the command.

        Raises:
            UsageError: for a key, class or value that does not exist.
        """
        cli = cls.build(arguments)
        try:
            cli.go()
        except MisconfigurationException as error:  # Lightning's word for what a user can mend, no RuntimeError
            raise UsageError(one_line(error)) from error

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
                auto_configure_optimizers=False,
                parser_class=Parser,
                parser_kwargs={
                    "prog": f"cclight {cls.command}",
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "default_config_files": [],
                    "description": COMMANDS[cls.command][0].capitalize() + ".",
                },
            )
        except (ArgumentError, ValueError) as error:  # the latter of a class's constructor
            raise UsageError(explain(str(error))) from error

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        check_options(args, options_of(parser))
        try:
            with strictly():
                try:
                    super().parse_arguments(parser, classes_first(args))
                except ArgumentError as error:
                    if not re.search(r'"trainer.logger"(?s:.*) required: save_dir', str(error)):
                        raise
                    super().parse_arguments(parser, [*classes_first(args), f"--trainer.logger.init_args.save_dir={_UNSAID}"])
        except ArgumentError as error:
            raise UsageError(explain(str(error), options_of(parser), self.example)) from error
        check_numbers(self.config)

    def log_into(self, folder: str) -> None:
        """Where a logger writes that was named without a folder. For `before_instantiate_classes`."""
        logger = self.config.trainer.logger
        if hasattr(logger, "init_args") and logger.init_args.get("save_dir") == _UNSAID:
            logger.init_args.save_dir = folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            chosen = {key: self.config.trainer[key] for key in ("accelerator", "devices", "strategy", "precision", "num_nodes")}
            wanted = [f"--trainer.{key} {value}" for key, value in chosen.items() if value not in ("auto", None, 1)]
            remedy = f" ({', '.join(wanted)}): `auto` takes what is here" if wanted else ""
            raise UsageError(f"the trainer cannot start: {one_line(error).rstrip('.!')}{remedy}") from error

    def go(self) -> Any:
        """Do what the command is for."""
        raise NotImplementedError


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
