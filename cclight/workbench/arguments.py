"""The workbench's command lines: plain argparse, because it answers at once, with one-line errors like all of cclight's."""

from __future__ import annotations

import argparse
from typing import NoReturn

from cclight.cli import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser of one command.

    Args:
        command: what follows `cclight`.
        description: what the command does, in a sentence or two.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"cclight {command}", description=description, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Refuse a wrong call.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}: cclight {self.command} --help shows how")
