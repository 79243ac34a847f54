"""`cclight check-operator`: try the identities that an operator of your own must meet."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from cclight.commands.outputs import console
from cclight.errors import UsageError
from cclight.operators.base import Operator
from cclight.operators.check import check_operator

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser() -> ArgumentParser:
    """The command line: an operator with all its arguments."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(
        prog="cclight check-operator",
        usage="cclight check-operator OPERATOR [--operator.ARGUMENT VALUE ...] [--image_shape [C,H,W]] [--seed SEED]",
        description="Try the identities that an operator must meet on random images and print a table. "
        "OPERATOR is a class such as my_module.MyOperator, or a YAML file with class_path and init_args.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    made.add_subclass_arguments(Operator, "operator", required=True)
    made.add_argument("--image_shape", type=tuple[int, ...], default=(3, 32, 32), help="channels and sides")
    made.add_argument("--seed", type=int, default=0, help="which random images")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: print a table of the checks.

    Args:
        arguments: the command line after `cclight check-operator`; None takes the process's own.

    Returns:
        The exit code: 0 where every check passed, 1 where one failed.

    Raises:
        UsageError: for an operator that does not exist, or that does not take its arguments or the images.
    """
    from jsonargparse import ArgumentError
    from rich.table import Table

    from cclight import operators
    from cclight.commands.explain import explain

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # the user's own module lies where they are
    for module in pkgutil.iter_modules(operators.__path__):
        import_module(f"cclight.operators.{module.name}")  # so that short names are known
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        words.insert(0, "--operator")
    command = parser()
    try:
        settings = command.instantiate(command.parse_args(words))
        operator, image_shape = settings.operator, tuple(settings.image_shape)
        if min(image_shape, default=0) < 1:
            raise UsageError(f"--image_shape is channels and sides, as [3,32,32], got {image_shape}: give numbers of 1 or more")
        operator.check_images(image_shape)
    except (ArgumentError, ValueError) as error:
        text = str(error).replace("data.image_size", "--image_shape")  # operators speak to `cclight predict`
        raise UsageError(explain(text, command._option_string_actions, config="")) from error
    checks = check_operator(operator, image_shape, settings.seed)
    table = Table("identity", "relative error", "tolerance", "", title=type(operator).__name__)
    for check in checks:
        table.add_row(check.name, f"{check.error:.1e}", f"{check.tolerance:.1e}", "passed" if check.passed else "FAILED")
    console().print(table)
    return 0 if all(check.passed for check in checks) else 1
