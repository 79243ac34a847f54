"""`cclight export`: write a trained prior in the packaged format."""

from __future__ import annotations

import argparse

from cclight.commands.arguments import PlainParser
from cclight.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = PlainParser("cclight export", description="Write a checkpoint's prior as a safetensors file.")
    made.add_argument("checkpoint", metavar="FILE", help="of `cclight fit`, such as runs/fit_small/last.ckpt")
    made.add_argument("output", metavar="OUTPUT", help="a .safetensors file")
    made.add_argument("--note", default="", help="kept in the file's metadata, such as what it was trained on")
    made.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    return made


def main(arguments: list[str]) -> None:
    """`cclight export`: write a trained prior in the packaged format.

    Raises:
        UsageError: for a checkpoint that cannot be read, or an output that is there.
    """
    options = parser().parse_args(arguments)
    from cclight.priors.checkpoints import CheckpointError
    from cclight.training import export

    try:
        print(export(options.checkpoint, options.output, options.note, options.overwrite))
    except (FileNotFoundError, FileExistsError, PermissionError, CheckpointError) as error:
        raise UsageError(str(error)) from error
