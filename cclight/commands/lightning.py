"""The LightningCLI behind `cclight predict` and `cclight fit`: YAML in, a run folder out.

The operator and the noise level stand once, at the top of the YAML, and are linked into both the data and the model.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import cclight
from cclight.cli import COMMANDS
from cclight.commands.parsing import Parser, check_numbers, classes_first, strictly
from cclight.errors import UsageError, one_line, suggestion
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import ImageMetric

if TYPE_CHECKING:
    from typing_extensions import Self

_UNSAID = "the run's folder"  # which is not known yet when the command line is read

_KEY = r'Parser key "([\w.]+)"'

# What a key takes, by its last word, and what a class is called that stands where another is taken.
_BASES = {
    "sampler": "Sampler",
    "operator": "Operator",
    "operators": "Operator",
    "prior": "Prior",
    "source": "Source",
    "reference": "Source",
    "mask": "Mask",
    "kernel": "Kernel",
    "path": "GaussianPath",
    "parameterization": "Parameterization",
    "per_image": "ImageMetric",
    "network": "Inception",
}
_NOUNS = {
    "Sampler": "sampler",
    "Operator": "operator",
    "Prior": "prior",
    "Source": "source",
    "Mask": "mask",
    "Kernel": "blur kernel",
    "GaussianPath": "path",
    "Parameterization": "parameterization",
    "ImageMetric": "metric",
    "Inception": "network",
}


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
        try:
            with strictly():
                try:
                    super().parse_arguments(parser, classes_first(args))
                except ArgumentError as error:
                    if not re.search(r'"trainer.logger"(?s:.*) required: save_dir', str(error)):
                        raise
                    super().parse_arguments(parser, [*classes_first(args), f"--trainer.logger.init_args.save_dir={_UNSAID}"])
        except ArgumentError as error:
            raise UsageError(explain(str(error), parser._option_string_actions)) from error
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
            wanted = ", ".join(f"--trainer.{key} {value}" for key, value in chosen.items() if value not in ("auto", None, 1))
            reason = one_line(error).rstrip(".!")
            raise UsageError(
                f"{reason} ({wanted}): --trainer.accelerator and --trainer.devices auto take what is here"
            ) from error

    def go(self) -> None:
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


def explain(error: str, options: Iterable[str] = ()) -> str:
    """A jsonargparse error as one line, with a suggestion where a name seems to be misspelt.

    Args:
        error: the message.
        options: what the command line takes, such as `--run.name`.
    """
    line = " ".join(error.split())
    # Of an optional value's two complaints the second, that it is not None, is no news.
    union = r"Does not validate against any .*?Errors: - (.*?) - Expected a <class 'NoneType'>.*?Given value: "
    union += r"((?!Namespace)[^{\[(]{,60})?.*"
    line = re.sub(union, lambda match: match[1] + (f", got {match[2]}" if match[2] else ""), line)
    line = re.sub(
        r", got NestedArg$|- Expected a path but (?!\S+\.(?:ya?ml|json)\b).*? either not accessible or invalid - ", "", line
    )
    while (shorter := re.sub(rf"{_KEY}: Problem with given class_path '[^']+': {_KEY}", r'Parser key "\1.\2"', line)) != line:
        line = shorter
    if match := re.search(r"unrecognized arguments: (-\S+)", line):
        option = match[1].partition("=")[0]
        longer = [known for known in options if known.startswith(option)]
        meant = f": did you mean {longer[0]}?" if len(longer) == 1 else suggestion(option, options, cutoff=0.75)
        return f"there is no option {option}{meant or ', `--help all` lists them'}"
    if match := re.search(r"unrecognized arguments: (\S+)", line):
        return f"{match[1]} stands without an option" + (f": did you mean --config {match[1]}?" if ".y" in match[1] else "")
    if match := re.search(r"the following arguments are required: (\w[\w.]*(?:, \w[\w.]*)*)", line):
        keys = [".".join([*re.findall(_KEY, line[: match.start()]), name]) for name in match[1].split(", ")]
        start = "name a configuration (--config sr.yaml), or " if keys == match[1].split(", ") else ""
        return f"{', '.join(keys)} {'are' if keys[1:] else 'is'} missing: {start}give --{keys[0]}"
    if match := re.search(r"Expected a <class 'float'>\. Got value: ([-+]?(?:nan|inf)\w*)$", line, re.IGNORECASE):
        return f"{'.'.join(re.findall(_KEY, line))} is {match[1]}: give a finite number"
    if match := re.search(r"- Expected a path but (\S+) either not accessible or invalid", line):
        return f"{'.'.join(re.findall(_KEY, line))}: there is no file {match[1]}"
    if "codec can't decode" in line:
        return f"{'.'.join(re.findall(_KEY, line))}: the file is not UTF-8: save it as UTF-8"
    if match := re.search(r"Group '(\w+)' does not accept option '([\w.]+)'", line):
        option = f"{match[1]}.{match[2].partition('.')[0]}"
        known = [known.removeprefix("--") for known in options]
        return f"{option} is no setting of this command{suggestion(option, known, cutoff=0.75) or ', `--help` lists them'}"
    if match := re.search(r"Not a valid subclass of \w+\. Got value: (.*?) Subclass types expect", line):
        return explain_class(match[1], ".".join(re.findall(_KEY, line[: match.start()])))
    if match := re.search(r"Expected a dot import path string:(?: ([^,\s]+))?", line):
        return explain_class(match[1] or "class without a name", ".".join(re.findall(_KEY, line[: match.start()])))
    if match := re.search(r"class_path 'cclight\.(?:\w+\.)*(\w+)': Option '(\w+)' is not accepted", line):
        known = list(inspect.signature(getattr(cclight, match[1])).parameters)
        return f"{line}{suggestion(match[2], known) or ': it takes ' + (', '.join(known) or 'no arguments')}"
    if "Expected a <class 'list'>" in line:
        return f"{line}, as '[PSNR, LPIPS]'" if "per_image" in line else f"{line}, as '[one, two]'"
    return line


def explain_class(name: str, key: str) -> str:
    """Why no class of this name can stand under a key, and which can.

    Args:
        name: what was given.
        key: as `model.sampler`.
    """
    public = {word: value for word in cclight.__all__ if isinstance(value := getattr(cclight, word), type)}
    base = _BASES.get(key.rpartition(".")[2])
    if base is None:
        return f"{key or 'the command'} takes no {name}{suggestion(name, public)}"
    abstract = [cls for cls in public.values() if inspect.isabstract(cls)]
    fitting = [word for word, cls in public.items() if issubclass(cls, public[base]) and cls not in abstract]
    takes = f"{key} takes a {_NOUNS[base]}".replace("a op", "an op")
    if name in public:
        other = next((noun for kind, noun in _NOUNS.items() if issubclass(public[name], public[kind])), "part of another kind")
        return f"{takes}, and {name} is a {other}: choose {', '.join(fitting)}".replace("a op", "an op")
    return f"{takes}, and there is no {name}{suggestion(name, fitting) or ': choose ' + ', '.join(fitting)}"
