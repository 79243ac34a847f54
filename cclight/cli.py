"""The `cclight` command: a front door that answers at once, and the rooms behind it.

    cclight predict --config configs/sr.yaml       restore a source's photographs and measure the result
    cclight fit --config configs/fit_small.yaml    train a small prior
    cclight export last.ckpt small.safetensors     write a trained prior in the packaged format

Everything slow to import (torch, Lightning) is imported by the command that needs it. `predict` and `fit` are LightningCLI's:
every argument of every class can be set in YAML or on the command line, and `--print_config` shows them all.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib import import_module

from cclight import __version__
from cclight.configs import with_packaged_configs
from cclight.errors import RunError, UsageError, one_line, suggestion

# Each command's one line of help, and where its function lies: it takes the arguments and returns an exit code or None.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("restore a source's photographs and measure the result", "cclight.commands.predict:predict"),
    "restore": ("restore pictures of your own with the embedded prior", "cclight.commands.restore:main"),
    "evaluate": ("measure a run's saved pictures again, without restoring", "cclight.commands.evaluate:main"),
    "tune": ("search a sampler's settings", "cclight.commands.tune.command:main"),
    "table": ("collect runs in the paper's layout", "cclight.commands.table:main"),
    "compare": ("test whether one run is better than another", "cclight.commands.compare:main"),
    "report": ("show runs on one page with before and after", "cclight.commands.report.page:main"),
    "cite": ("print the BibTeX of what runs used", "cclight.commands.cite:main"),
    "list": ("list samplers, operators, priors and configurations", "cclight.commands.list:main"),
    "completion": ("print a script that completes commands in a shell", "cclight.commands.completion:main"),
    "fit": ("train a small prior on a source's photographs", "cclight.commands.fit:fit"),
    "export": ("write a trained prior in the packaged format", "cclight.commands.export:main"),
    "models": ("list the published checkpoints that load by name", "cclight.commands.models:main"),
    "check-operator": ("try the identities that an operator of your own must meet", "cclight.commands.check_operator:main"),
}


_USAGE = """usage: cclight [--help] [--version] COMMAND ...

Fast training-free samplers for inverse problems with pretrained diffusion and flow models.

commands:
{commands}

`cclight COMMAND --help` shows a command's options. Start with

  cclight predict --config configs/sr.yaml
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes those of the process.

    Returns:
        The process' exit code: 0, 1 for an error on the way, 2 for a wrong call, 130 when it was interrupted.
    """
    if arguments is None:  # the process is the command's own: who calls from Python keeps Python's warnings
        arguments = sys.argv[1:]
        warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        # A console of few characters, as of code page 1252, shows what it can: its "?" for the rest must not end the work.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(_USAGE.format(commands="\n".join(f"  {name:<16}{line}" for name, (line, _) in COMMANDS.items())), end="")
        return 0
    if command in ("--version", "-V"):
        print(f"cclight {__version__}")
        return 0
    if command not in COMMANDS:
        return _fail(f"unknown command {command!r}{suggestion(command, COMMANDS) or ', `cclight --help` lists them'}", code=2)
    if not os.path.isfile(__file__):
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return _fail(f"{package} is no folder, and weights and configurations are read as files: unpack or install it", command)
    module, function = COMMANDS[command][1].split(":")
    try:
        rest = with_packaged_configs(rest)  # before the import: a missing file is told at once
        return getattr(import_module(module), function)(rest) or 0
    except UsageError as error:
        return _fail(str(error), command, code=2)
    except RunError as error:
        return _fail(str(error), command)
    except BrokenPipeError:  # the reader, `head` perhaps, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", command, code=130)
    except Exception as error:
        if _began_with_an_interrupt(error):
            return _fail("interrupted", command, code=130)
        if os.environ.get("CCLIGHT_TRACEBACK"):
            raise
        known = isinstance(error, (ImportError, OSError, RuntimeError, TypeError, ValueError)) and str(error)
        text = " ".join(str(error).split()) if known else f"{type(error).__name__}: {one_line(error)}"
        return _fail(f"{text} (CCLIGHT_TRACEBACK=1 shows where)", command)


def _began_with_an_interrupt(error: BaseException | None) -> bool:
    """Whether a library has made an error of its own of an interrupt, as some do where it meets their imports."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    command = next(iter(COMMANDS.keys() & set(sys.argv[1:2])), "")
    print(f"{f'cclight {command}'.strip()}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, command: str = "", code: int = 1) -> int:
    print(f"cclight {command}: error: {message}" if command else f"cclight: error: {message}", file=sys.stderr)
    return code
