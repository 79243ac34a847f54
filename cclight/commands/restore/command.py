"""The command itself. The picture given is the measurement.

    cclight restore small.png --task sr              four times larger
    cclight restore blurred.jpg --task deblur --sigma 2
    cclight restore shaken.png --task deblur --kernel path.png
    cclight restore photo.png --task inpaint --mask mask.png        white is kept, black is filled in
    cclight restore grey.png --task colorize
    cclight restore compressed.jpg --task jpeg       how it was compressed is read from the file

The sampler's settings are those of the packaged configurations. What a picture is, it stays: its size (`sr` apart), its bits
a channel, its transparency, grey; only `colorize` adds colour.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from cclight.commands.arguments import PlainParser
from cclight.errors import UsageError, one_line

TASKS = ("sr", "deblur", "inpaint", "colorize", "jpeg")
# Options that belong to one task.
_OF_TASK = {
    "factor": "sr",
    "sigma": "deblur",
    "kernel": "deblur",
    "mask": "inpaint",
    "invert_mask": "inpaint",
    "quality": "jpeg",
}
# Smallest and largest value; None where there is no bound but infinity.
_RANGES: dict[str, tuple[float, float | None]] = {
    "factor": (2, 16),
    "sigma": (0.1, 100),
    "quality": (1, 100),
    "steps": (1, 1000),
    "noise_std": (0, None),
    "tile": (64, None),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = PlainParser("cclight restore", description="Restore pictures of your own with the embedded prior.")
    made.add_argument("pictures", nargs="+", type=Path, help="pictures, or folders of them")
    made.add_argument("--task", choices=TASKS, required=True, help="what was done to them")
    made.add_argument("--factor", type=int, help="sr: how many times larger (4)")
    made.add_argument("--sigma", type=float, help="deblur: standard deviation of a Gaussian blur in pixels (3)")
    made.add_argument(
        "--kernel", type=Path, metavar="FILE", help="deblur: the blur itself, a square picture or array with an odd side"
    )
    made.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="inpaint: a picture, white where pixels are kept; or a folder of such, same names",
    )
    made.add_argument("--invert_mask", "--invert-mask", action="store_true", help="inpaint: black is kept, white is filled in")
    made.add_argument("--quality", type=int, help="jpeg: 1 to 100 (the file's own tables)")
    made.add_argument("--steps", type=int, help="network calls (the configuration's, 5)")
    made.add_argument(
        "--noise_std", "--noise-std", type=float, help="the pictures' noise, of values in [-1, 1] (told from the picture)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the noise that restoration begins with (0)")
    made.add_argument("--tile", type=int, help="restore in parts of so many pixels a side (512 for results over a megapixel)")
    made.add_argument("--prior", metavar="FILE", help="weights that `cclight export` wrote (the embedded ones)")
    made.add_argument("--output", type=Path, help="a folder, or for one picture a file: .png, .tif, .webp, .jpg (beside it)")
    made.add_argument("--overwrite", action="store_true", help="replace results that are there")
    return made


def main(arguments: list[str]) -> int:
    """`cclight restore`.

    Args:
        arguments: what follows the command.

    Returns:
        0; 1 when a picture could not be restored; 130 when it was interrupted.

    Raises:
        UsageError: for a wrong call.
    """
    options = parser().parse_args(arguments)
    _check(options)
    from cclight.commands.restore.outputs import find_jobs, ready

    jobs = find_jobs(options.pictures, options.task, options.output, options.overwrite)
    ready(jobs)
    done: list[Path] = []
    failed: list[Path] = []
    try:
        if jobs:
            _restore(options, jobs, done, failed)
    except KeyboardInterrupt:
        left = len(jobs) - len(done) - len(failed)
        print(
            f"cclight restore: stopped; {len(done)} restored, {left} left: the same command goes on with them", file=sys.stderr
        )
        return 130
    if failed and len(jobs) > 1:
        named = ", ".join(map(str, failed))
        print(f"cclight restore: {len(failed)} of {len(jobs)} pictures not restored: {named}", file=sys.stderr)
    return 1 if failed else 0


def _restore(options: argparse.Namespace, jobs: list[tuple[Path, Path]], done: list[Path], failed: list[Path]) -> None:
    from cclight.commands.restore.restorer import PictureRestorer

    restorer = PictureRestorer(options)
    for picture, output in jobs:
        try:
            print(restorer(picture, output), flush=True)
            done.append(picture)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # noqa: PERF203 - the other pictures go on
            failed.append(picture)
            print(f"cclight restore: {picture}: {one_line(error)}", file=sys.stderr)


def _check(options: argparse.Namespace) -> None:
    task = options.task
    for name, owner in _OF_TASK.items():
        if owner != task and getattr(options, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} belongs to --task {owner}, got --task {task}: leave it out")
    for name, (low, high) in _RANGES.items():
        value = getattr(options, name)
        if value is not None and not (low <= value <= (high or math.inf) and math.isfinite(value)):
            wanted = f"from {low:g} to {high:g}" if high else f"of {low:g} or more"
            raise UsageError(f"--{name} is a number {wanted}, got {value:g}")
    if options.sigma is not None and options.kernel is not None:
        raise UsageError("--sigma and --kernel are two ways to say what the blur was: give one of them")
    if task == "inpaint" and options.mask is None:
        raise UsageError("inpaint needs a mask: --mask FILE, a picture of the same size, black where pixels are missing")
    for name in ("mask", "kernel"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            raise UsageError(f"there is no file {path}: --{name} takes a {name}")
