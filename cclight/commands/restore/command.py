"""The command itself. The picture given is the measurement.

    cclight restore small.png --task sr              four times larger
    cclight restore blurred.jpg --task deblur --sigma 2
    cclight restore shaken.png --task deblur --kernel path.png
    cclight restore photo.png --task inpaint --mask mask.png        white is kept, black is filled in
    cclight restore grey.png --task colorize
    cclight restore compressed.jpg --task jpeg       how it was compressed is read from the file
    cclight restore small.png --task sr --samples 8  eight answers, their mean and where they differ

The sampler's settings are those of the packaged configurations. Any prior and sampler can take their place, in predict's words:

    cclight restore small.png --task sr --model.sampler DPS --model.sampler.steps 100
    cclight restore small.png --task sr --model.prior ADM --model.prior.weights FILE
    cclight restore small.png --config mine.yaml     the operator, too, is the configuration's

What a picture is, it stays: its size (`sr` apart), its bits
a channel, its transparency, grey; only `colorize` adds colour.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cclight.commands.arguments import PlainParser
from cclight.commands.restore.outputs import TASKS, find_jobs, ready
from cclight.errors import UsageError, one_line

if TYPE_CHECKING:
    from cclight.commands.restore.model import Model

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
    "samples": (1, 1024),
    "tile": (64, None),
}


class _Passed(argparse.Action):
    """Keeps an option in predict's words, in its place among the others."""

    def __call__(self, parser: object, options: argparse.Namespace, value: object, option: str | None = None) -> None:
        options.model = [*(options.model or []), f"{option}={value}"]


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line.

    Args:
        arguments: what it is to read, of which the options of classes are known by their beginnings.
    """
    made = PlainParser("cclight restore", description="Restore pictures of your own with the embedded prior, or any other.")
    made.add_argument("pictures", nargs="+", type=Path, help="pictures, or folders of them")
    made.add_argument("--task", choices=TASKS, help="what was done to them; or --config or --operator says it")
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
    made.add_argument("--samples", type=int, metavar="K", help="restorations of each, with mean and spread (1)")
    made.add_argument("--seed", type=int, default=0, help="of the noise that restoration begins with (0)")
    made.add_argument("--tile", type=int, help="restore in parts of so many pixels a side (512 for results over a megapixel)")
    made.add_argument("--prior", metavar="FILE", help="weights that `cclight export` wrote (the embedded ones)")
    made.add_argument("--output", type=Path, help="a folder, or for one picture a file: .png, .tif, .webp, .jpg (beside it)")
    made.add_argument("--overwrite", action="store_true", help="replace results that are there")
    words: dict[str, Any] = {"action": _Passed, "dest": "model"}
    made.add_argument("--config", metavar="FILE", help="the prior and the sampler, without --task the operator too", **words)
    for part, example in (("model.prior", "ADM"), ("model.sampler", "DPS"), ("operator", "AveragePooling")):
        text = f"as {example}; --{part}.ARGUMENT sets what it takes, --{part}.help {example} shows it"
        made.add_argument(f"--{part}", metavar="NAME", help=text, **words)
    for option in dict.fromkeys(word.partition("=")[0] for word in arguments):
        if (
            option.startswith(("--model.prior.", "--model.sampler.", "--operator."))
            and option not in made._option_string_actions
        ):
            made.add_argument(option, help=argparse.SUPPRESS, **words)
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
    asked = [place for place, word in enumerate(arguments) if re.match(r"--(model|operator)\..*help\b", word)]
    if asked:
        from cclight.commands.restore.model import parse

        parse(arguments[asked[0] : asked[0] + 2])  # prints and ends
    options = parser(arguments).parse_args(arguments)
    _check(options)
    from cclight.commands.restore.model import read_model

    model = read_model(options)
    jobs = find_jobs(options.pictures, _label(options), options.output, options.overwrite)
    ready(jobs)
    done: list[Path] = []
    failed: list[Path] = []
    try:
        if jobs:
            _restore(options, model, jobs, done, failed)
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


def _label(options: argparse.Namespace) -> str:
    """What results are called after: the task, the configuration, the operator."""
    if options.task is not None:
        return str(options.task)
    files = [Path(value) for option, _, value in (word.partition("=") for word in options.model) if option == "--config"]
    if files:
        return files[-1].resolve().parent.name if files[-1].stem == "config" else files[-1].stem
    return next(word.partition("=")[2] for word in options.model if word.startswith("--operator=")).rpartition(".")[2].lower()


def _restore(
    options: argparse.Namespace, model: Model, jobs: list[tuple[Path, Path]], done: list[Path], failed: list[Path]
) -> None:
    from cclight.commands.restore.restorer import PictureRestorer

    restorer = PictureRestorer(options, model)
    for picture, output in jobs:
        try:
            print(restorer(picture, output), flush=True)
            done.append(picture)
        except (MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:  # noqa: PERF203 - the other pictures go on
            failed.append(picture)
            print(f"cclight restore: {picture}: {one_line(error)}", file=sys.stderr)


def _check(options: argparse.Namespace) -> None:
    task = options.task
    named = [word.partition("=")[0] for word in options.model or []]
    if task is None and not {"--config", "--operator"} & set(named):
        raise UsageError(
            f"what was done to the pictures? Give --task ({', '.join(TASKS)}), or --operator NAME or --config FILE"
        )
    if task is not None and any(name.partition(".")[0] == "--operator" for name in named):
        raise UsageError("--task and --operator are two ways to say what was done to the pictures: give one of them")
    given = f"--task {task}" if task else "no --task"
    for name, owner in _OF_TASK.items():
        if owner != task and getattr(options, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} belongs to --task {owner}, got {given}: leave it out")
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
