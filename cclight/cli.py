"""The `cclight` command: a front door that answers at once, and the rooms behind it.

    cclight predict --config configs/sr.yaml       restore a source's photographs and measure the result
    cclight fit --config configs/fit_small.yaml    train a small prior
    cclight export last.ckpt small.safetensors     write a trained prior in the packaged format

Everything slow to import (torch, Lightning) is imported by the command that needs it. `predict` and `fit` are LightningCLI's:
every argument of every class can be set in YAML or on the command line, and `--print_config` shows them all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from cclight import __version__

# Each command's one line of help, and where its function lies: it takes the arguments and returns an exit code or None.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("restore a source's photographs and measure the result", "cclight.lightning_cli:predict"),
    "restore": ("restore pictures of your own with the embedded prior", "cclight.workbench.restore:main"),
    "evaluate": ("measure a run's saved pictures again, without restoring", "cclight.workbench.evaluate:main"),
    "tune": ("search a sampler's settings", "cclight.workbench.tune:main"),
    "table": ("collect runs in the paper's layout", "cclight.workbench.table:main"),
    "compare": ("test whether one run is better than another", "cclight.workbench.compare:main"),
    "report": ("show runs on one page with before and after", "cclight.workbench.report:main"),
    "cite": ("print the BibTeX of what runs used", "cclight.workbench.cite:main"),
    "list": ("list samplers, operators, priors and configurations", "cclight.workbench.listing:main"),
    "completion": ("print a script that completes commands in a shell", "cclight.workbench.completion:main"),
    "fit": ("train a small prior on a source's photographs", "cclight.lightning_cli:fit"),
    "export": ("write a trained prior in the packaged format", "cclight.cli:export"),
    "models": ("list the published checkpoints that load by name", "cclight.cli:models"),
    "check-operator": ("try the identities that an operator of your own must meet", "cclight.operators.check:main"),
}

_USAGE = """usage: cclight [--help] [--version] COMMAND ...

Fast training-free samplers for inverse problems with pretrained diffusion and flow models.

commands:
{commands}

`cclight COMMAND --help` shows a command's options. Start with

  cclight predict --config configs/sr.yaml
"""


class UsageError(Exception):
    """Something the user can mend; the message is one line."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes those of the process.

    Returns:
        The process' exit code: 0, 1 for an error on the way, 2 for a wrong call.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(_USAGE.format(commands="\n".join(f"  {name:<16}{line}" for name, (line, _) in COMMANDS.items())), end="")
        return 0
    if command in ("--version", "-V"):
        print(f"cclight {__version__}")
        return 0
    if command not in COMMANDS:
        return _fail(f"unknown command {command!r}{suggestion(command, COMMANDS)}", code=2)
    module, function = COMMANDS[command][1].split(":")
    try:
        rest = with_packaged_configs(rest)  # before the import: a missing file is told at once
        return getattr(import_module(module), function)(rest) or 0
    except UsageError as error:
        return _fail(str(error), command, code=2)
    except BrokenPipeError:  # the reader, `head` perhaps, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        if os.environ.get("CCLIGHT_TRACEBACK"):
            raise
        return _fail(f"{error} (CCLIGHT_TRACEBACK=1 shows where)", command)


def export(arguments: list[str]) -> None:
    """`cclight export`: write a trained prior in the packaged format."""
    from jsonargparse import auto_cli

    from cclight.training import export

    print(auto_cli(export, args=arguments, as_positional=True, prog="cclight export"))


def models(arguments: list[str]) -> None:
    """`cclight models`: list the published checkpoints."""
    from rich.console import Console

    from cclight.priors.checkpoints import models_table

    if arguments:
        raise UsageError(f"it takes no arguments, got {' '.join(arguments)}")
    Console().print(models_table())


def with_packaged_configs(arguments: list[str]) -> list[str]:
    """Replace the name of a configuration that travels with the package by its path, where no such file lies here.

    Raises:
        UsageError: when neither the file nor a packaged configuration of that name exists.
    """
    resolved = list(arguments)
    for place, argument in enumerate(arguments):
        if argument == "--config" and place + 1 < len(arguments):
            resolved[place + 1] = str(find_config(arguments[place + 1]))
        elif argument.startswith("--config="):
            resolved[place] = f"--config={find_config(argument.removeprefix('--config='))}"
    return resolved


def find_config(name: str) -> Path:
    """The configuration file of a name: a file here, or one that travels with the package (`sr.yaml`, `configs/sr.yaml`).

    Raises:
        UsageError: when there is none.
    """
    if Path(name).is_file():
        return Path(name)
    folder = packaged_configs()
    known = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    wanted = name.removeprefix("configs/")
    if wanted in known:
        return known[wanted]
    packaged = ": packaged are " + ", ".join(known)
    raise UsageError(f"no configuration {name}{suggestion(wanted, known) or packaged}")


def packaged_configs() -> Path:
    """The folder of the configurations: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean ...?` where the word resembles known ones, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f": did you mean {' or '.join(close)}?" if close else ""


def _fail(message: str, command: str = "", code: int = 1) -> int:
    print(f"cclight {command}: error: {message}" if command else f"cclight: error: {message}", file=sys.stderr)
    return code
