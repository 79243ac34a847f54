"""`cclight completion`: a script that completes commands and options in a shell.

    eval "$(cclight completion bash)"                in ~/.bashrc
    cclight completion zsh > _cclight                in a folder of $fpath
    cclight completion tcsh > cclight.csh            sourced in ~/.tcshrc

The script is static: to complete a word it starts no Python. A command's options are those of its `parser()`, where that
imports no torch; the others' common ones stand here.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from cclight.cli import COMMANDS
from cclight.commands.arguments import PlainParser
from cclight.errors import UsageError

SHELLS = ("bash", "zsh", "tcsh")
# Commands whose parsers hold arguments of classes, which come with torch: the options worth completing, and what they take.
_HEAVY: dict[str, dict[str, str | None]] = {
    "predict": {
        "--config": "FILE",
        "--print_config": None,
        "--noise_std": "",
        "--samples": "",
        "--run.name": "",
        "--run.root": "DIR",
    },
    "fit": {"--config": "FILE", "--print_config": None, "--ckpt_path": "FILE"},
    "evaluate": {"run": "DIR", "--into": "DIR", "--metrics.per_image": "", "--metrics.distances": "", "--device": ""},
    "check-operator": {"--image_shape": "", "--seed": ""},
}
_FOLDERS, _FILES = ("DIR", "RUN"), ("FILE", "YAML")  # what options call that they take


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = PlainParser("cclight completion", description="Print a script that completes commands in a shell.")
    made.add_argument("shell", choices=SHELLS)
    return made


def main(arguments: list[str]) -> None:
    """`cclight completion`: print the script for a shell.

    Args:
        arguments: what follows the command.

    Raises:
        UsageError: when shtab is not installed.
    """
    options = parser().parse_args(arguments)
    try:
        import shtab
    except ImportError as error:
        raise UsageError(f"it needs shtab ({error}): pip install 'cclight[completion]'") from error
    print(shtab.complete(front_door(shtab.FILE, shtab.DIRECTORY), shell=options.shell))


def front_door(file: Any, folder: Any) -> argparse.ArgumentParser:
    """A parser of all commands with the options worth completing.

    Args:
        file: what shtab completes files with.
        folder: what it completes folders with.
    """
    made = PlainParser("cclight")
    made.add_argument("--version", action="store_true", help="print the version")
    commands = made.add_subparsers(dest="command")
    for name, (line, place) in COMMANDS.items():
        if name in _HEAVY:
            command = commands.add_parser(name, help=line)
            for option, kind in _HEAVY[name].items():
                if kind is None:
                    command.add_argument(option, action="store_true")
                else:
                    command.add_argument(option, metavar=kind or None)
        else:
            own = import_module(place.partition(":")[0]).parser()
            command = commands.add_parser(name, help=line, parents=[own], add_help=False)
            if name == "tune":  # whose other options are those of predict
                command.add_argument("--config", metavar="FILE")
        for action in command._actions:
            if action.metavar in _FOLDERS:
                action.complete = folder  # type: ignore[attr-defined]
            elif action.metavar in _FILES or action.type is Path:
                action.complete = file  # type: ignore[attr-defined]
    return made
