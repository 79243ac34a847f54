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
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

import cclight
from cclight.errors import UsageError, suggestion
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import ImageMetric

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
