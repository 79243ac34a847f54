"""Where a command may write: never over what is not its own, and told before the work; and how wide what it prints is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cclight.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cclight.samplers.base import Sampler


def check_output(path: Path, starts: tuple[str, ...], what: str) -> None:
    """See that a file can be written, and holds at most an earlier result of the same command.

    Args:
        path: the file; its folder may have to be made yet.
        starts: how an earlier result begins.
        what: an earlier result in words, as "a report of cclight".

    Raises:
        UsageError: when it cannot be written, or holds something else; nothing is written then.
    """
    remedy = "give another --output"
    if path.is_dir():
        raise UsageError(f"{path} is a folder: {remedy}, a file in it for one")
    if path.exists():
        with open(path, "rb") as file:
            head = file.read(max(len(start.encode()) for start in starts))
        if head and not any(head.startswith(start.encode()) for start in starts):
            raise UsageError(f"{path} is there and is not {what}: {remedy}, or move that file away")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{path} cannot be written, {folder} is {'read-only' if folder.is_dir() else 'a file'}: {remedy}")


def tell_of_samples(command: str, sampler: Sampler, samples: int) -> None:
    """Say before the work that the spread of samples will be no error bar, where the sampler is made for one restoration."""
    if samples > 1 and getattr(sampler, "absorb_noise", False):
        print(
            f"{command}: the {samples} samples differ by less than they are wrong (absorb_noise: true): for a spread that can "
            "be believed add --config samplers/posterior.yaml",
            file=sys.stderr,
        )


def console() -> Console:
    """What tables are printed on: as wide as a terminal, and where a program reads along as wide as they are."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 100_000)
