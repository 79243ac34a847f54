"""`cclight check-operator`: try the identities that an operator of your own must meet."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

from cclight.operators.base import Operator
from cclight.operators.check import check_operator


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: print a table of the checks.

    Args:
        arguments: the command line after `cclight check-operator`; None takes the process's own.

    Returns:
        The exit code: 0 where every check passed, 1 where one failed.
    """
    from jsonargparse import ArgumentParser
    from rich.console import Console
    from rich.table import Table

    from cclight import operators

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # the user's own module lies where they are
    for module in pkgutil.iter_modules(operators.__path__):
        import_module(f"cclight.operators.{module.name}")  # so that short names are known
    parser = ArgumentParser(
        prog="cclight check-operator",
        usage="cclight check-operator OPERATOR [--operator.ARGUMENT VALUE ...] [--image_shape [C,H,W]] [--seed SEED]",
        description="Try the identities that an operator must meet on random images and print a table. "
        "OPERATOR is a class such as my_module.MyOperator, or a YAML file with class_path and init_args.",
    )
    parser.add_subclass_arguments(Operator, "operator", required=True)
    parser.add_argument("--image_shape", type=tuple[int, int, int], default=(3, 32, 32), help="channels, height and width")
    parser.add_argument("--seed", type=int, default=0, help="which random images")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        words.insert(0, "--operator")
    settings = parser.instantiate(parser.parse_args(words))
    operator, image_shape = settings.operator, tuple(settings.image_shape)
    try:
        operator.check_images(image_shape)
    except ValueError as error:
        parser.error(str(error))
    checks = check_operator(operator, image_shape, settings.seed)
    table = Table("identity", "relative error", "tolerance", "", title=type(operator).__name__)
    for check in checks:
        table.add_row(check.name, f"{check.error:.1e}", f"{check.tolerance:.1e}", "passed" if check.passed else "FAILED")
    Console().print(table)
    return 0 if all(check.passed for check in checks) else 1
