"""`cclight completion`: a script that completes commands and options in a shell.

    eval "$(cclight completion bash)"                in ~/.bashrc
    cclight completion zsh > _cclight                in a folder of $fpath
    cclight completion tcsh > cclight.csh            sourced in ~/.tcshrc

The script is static: to complete a word it starts no Python. The parsers that it is made of stand here: the front door has
none, and those of `cclight predict` and `cclight fit` would hold every argument of every class.
"""

from __future__ import annotations

import argparse
from typing import Any

from cclight.cli import COMMANDS
from cclight.commands.restore import TASKS
from cclight.errors import UsageError

SHELLS = ("bash", "zsh", "tcsh")
_FILE, _FOLDER = "file", "folder"
_OPTIONS: dict[str, dict[str, str | list[str] | None]] = {
    "predict": {"--config": _FILE, "--print_config": None, "--noise_std": "", "--run.name": "", "--run.root": _FOLDER},
    "fit": {"--config": _FILE, "--print_config": None, "--ckpt_path": _FILE},
    "tune": {"--config": _FILE, "--search": _FILE, "--trials": "", "--study": _FILE, "--output": _FOLDER},
    "restore": {
        "PICTURE": _FILE,
        "--task": list(TASKS),
        "--factor": "",
        "--sigma": "",
        "--mask": _FILE,
        "--quality": "",
        "--steps": "",
        "--noise_std": "",
        "--seed": "",
        "--tile": "",
        "--prior": _FILE,
        "--output": _FOLDER,
        "--overwrite": None,
    },
    "table": {"RUN": _FOLDER, "--format": ["markdown", "csv", "latex"], "--metrics": "", "--output": _FILE},
    "compare": {"RUN": _FOLDER, "--metric": ""},
    "report": {"RUN": _FOLDER, "--output": _FILE, "--images": "", "--sort": "", "--jpeg": "", "--maps": None, "--open": None},
    "cite": {"RUN": _FOLDER},
    "list": {"KIND": ["samplers", "operators", "priors", "sources", "metrics", "configs"]},
    "evaluate": {"RUN": _FOLDER, "--metrics.per_image": "", "--metrics.distances": "", "--device": ""},
    "completion": {"SHELL": list(SHELLS)},
    "export": {"CHECKPOINT": _FILE, "--note": ""},
    "check-operator": {"--image_shape": "", "--seed": ""},
}


def main(arguments: list[str]) -> None:
    """`cclight completion`: print the script for a shell.

    Args:
        arguments: what follows the command.

    Raises:
        UsageError: when shtab is not installed.
    """
    parser = argparse.ArgumentParser("cclight completion", description="Print a script that completes commands in a shell.")
    parser.add_argument("shell", choices=SHELLS)
    options = parser.parse_args(arguments)
    try:
        import shtab
    except ImportError as error:
        raise UsageError(f"it needs shtab ({error}): pip install 'cclight[completion]'") from error
    files = {_FILE: shtab.FILE, _FOLDER: shtab.DIRECTORY}
    print(shtab.complete(front_door(files), shell=options.shell))


def front_door(files: dict[str, Any]) -> argparse.ArgumentParser:
    """A parser of all commands with the options worth completing.

    Args:
        files: what shtab completes files and folders with.
    """
    parser = argparse.ArgumentParser("cclight")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command")
    for name, (line, _) in COMMANDS.items():
        command = commands.add_parser(name, help=line)
        for option, kind in _OPTIONS.get(name, {}).items():
            if kind is None:
                command.add_argument(option, action="store_true")
                continue
            choices = kind if isinstance(kind, list) else None
            argument = command.add_argument(option, choices=choices, nargs=None if option.startswith("--") else "*")
            if isinstance(kind, str) and kind in files:
                argument.complete = files[kind]  # type: ignore[attr-defined]
    return parser
