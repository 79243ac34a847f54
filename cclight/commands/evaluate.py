"""`cclight evaluate RUN`: a finished run's metrics once more, from its saved pictures and without sampling.

    cclight evaluate runs/sr
    cclight evaluate runs/sr --metrics.per_image '[{class_path: LPIPS, init_args: {net: alex}}]'
    cclight evaluate runs/sr --metrics.distances FeatureDistances --metrics.distances.reference photographs/real
    cclight evaluate runs/sr-1 runs/sr-2 --into runs/sr     # parts that jobs have made (data.part 1/2 and 2/2), put together

It measures what the run did, or what `--metrics` asks for, in the words of `cclight predict`; every other number stays as it
is. The pictures hold 8 bits a channel, so that PSNR and its like differ slightly from those of `cclight predict`, which
measures before rounding. Metrics of a run's configuration that are not cclight's own run nothing: name them with `--metrics`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cclight.errors import UsageError, one_line
from cclight.runs.classes import class_paths, is_own
from cclight.runs.folder import RunFolder
from cclight.runs.layout import Kind
from cclight.runs.records import TOGETHER, Key, Record, key_of, merge
from cclight.runs.results import Run

if TYPE_CHECKING:
    import torch
    from jsonargparse import ArgumentParser

    from cclight.metrics.fid import FeatureDistances
    from cclight.metrics.image import ImageMetric
    from cclight.metrics.measuring import Measuring
    from cclight.metrics.quantity import Quantity

_BATCH = 16


def parser() -> ArgumentParser:
    """The options of `cclight evaluate`."""
    from jsonargparse import ArgumentParser

    from cclight.commands.lightning import add_metrics_arguments

    parser = ArgumentParser(
        prog="cclight evaluate",
        description=(__doc__ or "").partition(":")[2],
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=str, nargs="+", help="the folder of a finished run, or those of its parts")
    parser.add_argument("--into", type=str | None, default=None, help="the folder to be made, where parts go together")
    parser.add_argument("--device", default="cpu", help="where the metrics' networks run, as cuda")
    add_metrics_arguments(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Measure a run's pictures and write the numbers: the records, metrics.json and metrics.csv.

    Raises:
        UsageError: for a mistake in the arguments, when there is no finished run, nothing of it can be measured, or a picture
            is damaged; the run's numbers are as before then.
        RunError: when the run is in use, or its folder cannot be written to.
    """
    import torch
    from jsonargparse import ArgumentError

    from cclight.commands.lightning import explain

    named = [part for part in ("per_image", "distances") if any(a.startswith(f"--metrics.{part}") for a in arguments)]
    with _imports(here=bool(named)):
        options = parser()
        try:
            runs = _read(options.parse_args(arguments))
            run = runs[0]
            options.set_defaults({f"metrics.{k}": v for k, v in _trusted(run).items() if not named or k in named})
            settings = options.parse_args(arguments)
            chosen = options.instantiate(settings)
        except (ArgumentError, ValueError) as error:
            if str(error).endswith("are required: run"):
                raise UsageError("which run? Give the folder of a finished one, as runs/sr") from error
            raise UsageError(explain(str(error), options._option_string_actions, config="")) from error
    metrics = chosen.metrics.per_image
    if metrics is None and (named == ["distances"] or (run.config.get("metrics") or {}).get("per_image")):
        metrics = []
    try:
        torch.empty(0, device=chosen.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {chosen.device} here: give cpu, cuda or another") from error
    if len(runs) > 1:
        run = _put_together(runs, Path(settings.into))
        metrics = metrics if "per_image" in named else []
    elif not os.access(run.path, os.W_OK):
        raise UsageError(
            f"{run.path} is read-only, and evaluate writes its numbers there: copy the folder to evaluate the copy"
        )
    folder = RunFolder(run.path.name, str(run.path.parent))
    folder.acquire()  # the lock alone: the run's configuration and pictures stay as they are
    try:
        run = Run.read(run.path)  # another process may have had it until now
        distances = settings.metrics.distances
        measured_with = run.distances if distances is None else distances.as_dict()
        if len(runs) == 1 or metrics != [] or distances is not None:
            evaluate(run, folder, metrics, chosen.metrics.distances, chosen.device, measured_with)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        folder.close()
    from cclight.callbacks.table import print_results

    print_results(Run.read(run.path))


def _read(settings: Any) -> list[Run]:
    """The runs, once it is clear where they are to go."""
    if len(settings.run) > 1 and settings.into is None:
        raise UsageError(f"{len(settings.run)} runs are put together into a new one: say where, as --into runs/sr-whole")
    if len(settings.run) == 1 and settings.into is not None:
        raise UsageError("--into is for parts of a run that are put together: give two folders or more")
    return [Run.read(folder) for folder in settings.run]


def _put_together(runs: list[Run], into: Path) -> Run:
    from cclight.runs.merging import missing, put_together

    whole = put_together(runs, into)
    for words in missing(runs, whole):
        print(
            f"cclight evaluate: {words}: the runs' `cclight predict` without data.part, with --run.root {into.parent} "
            f"--run.name {into.name} --run.resume true, restores what is missing",
            file=sys.stderr,
        )
    return whole


def evaluate(
    run: Run,
    folder: RunFolder,
    metrics: list[ImageMetric] | None,
    distances: FeatureDistances | None,
    device: str,
    measured_with: dict[str, Any],
) -> None:
    """Measure a run's pictures and write the numbers into its folder. What was not measured anew stays as it was.

    Args:
        run: the run.
        folder: its folder, locked.
        metrics: per image; None for the default ones.
        distances: FID and KID, or None.
        device: where the networks run.
        measured_with: the configuration of the distances, to be kept beside their numbers.

    Raises:
        UsageError: when nothing can be measured, or a picture is damaged.
    """
    import torch

    from cclight.metrics.image import array_metrics
    from cclight.metrics.measuring import Measuring
    from cclight.metrics.summary import summarize
    from cclight.runs.results import write_results
    from cclight.runs.spread import BEST, summarize_together

    arrays = any("units" in record for record in run.records.values())
    measuring = Measuring(array_metrics() if metrics is None and arrays else metrics)
    values = measure(run, measuring, torch.device(device))
    lines: dict[Key, Record] = {
        key: {**record, **{name: of_sample[key] for name, of_sample in values.items() if key in of_sample}}
        for key, record in run.lines.items()
    }
    summaries = run.summaries()
    quantities = [metric.quantity for metric in measuring.metrics]
    others = [summary.quantity for name, summary in summaries.items() if f"{name}{BEST}" in summaries and name not in values]
    compared = [*quantities, *others]
    lines.update(_together(run.path, lines, compared))
    records = merge(lines)
    expected = [index for index, record in records.items() if "failed" not in record]
    found = {
        q.name: summarize(
            q, {i: records[i][q.name] for i in expected if q.name in records[i]} if q.name in values else {}, len(expected),
            measuring.reasons.get(q.name),
        )
        for q in quantities
    }  # fmt: skip
    if distances is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing is told with the numbers
            distances.prepare(torch.device(device))
        files = [[folder.file(kind, i, run.records[i]["name"]) for i in expected] for kind in ("restored", "clean")]
        found.update({s.quantity.name: s for s in distances.compute(*files)})
    if all(summary.mean is None for summary in found.values()):
        why = {summary.unavailable: summary.quantity.title for summary in found.values()} or {"there is no metric": ""}
        words = "; ".join(f"{title}: {reason}" if len(why) > 1 else str(reason) for reason, title in why.items())
        raise UsageError(f"nothing of {run.path} can be measured, its numbers stay as they are ({words})")
    found.update({s.quantity.name: s for s in summarize_together(compared, records)})
    for name, summary in found.items():
        if summary.mean is None and name in summaries and summaries[name].mean is not None:
            print(f"cclight evaluate: {name} stays as it was: {summary.unavailable}", file=sys.stderr)
        else:
            summaries[name] = summary
    left_out = {item["index"]: item["reason"] for item in run.summary["left_out"]}
    measured_with = measured_with if "fid" in found and summaries["fid"] is found["fid"] else run.distances
    folder.replace(lines.values())
    write_results(folder, lines, summaries, left_out, measured_with)


def _together(root: Path, lines: dict[Key, Record], quantities: list[Quantity]) -> dict[Key, Record]:
    """The records of each image's samples together, made anew."""
    from cclight.runs.spread import together

    made: dict[Key, Record] = {}
    for index in sorted({index for index, sample in lines if sample > 0}):
        samples = [line for (i, sample), line in lines.items() if i == index and sample != TOGETHER]
        try:
            record = together(root, samples, quantities)
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise UsageError(f"the samples of image {index} cannot all be read ({one_line(error)})") from error
        if record is not None:
            made[key_of(record)] = record
    return made


def measure(run: Run, measuring: Measuring, device: torch.device) -> dict[str, dict[Key, float]]:
    """The metrics of a run's saved pictures: of all samples or of none, and then `measuring` holds the reason.

    Args:
        run: the run.
        measuring: the metrics.
        device: where their networks run.

    Returns:
        Each sample's value by the metric's name, the image's index and the sample.

    Raises:
        UsageError: when a picture is damaged.
    """
    import torch

    from cclight.runs.spread import saved, units_of

    kept = {key: line for key, line in run.lines.items() if key[1] != TOGETHER and "failed" not in line}
    pairs = {key: (saved(run.path, "restored", line), saved(run.path, "clean", line)) for key, line in kept.items()}
    whole = [(i, restored, clean) for i, (restored, clean) in pairs.items() if restored is not None and clean is not None]
    if len(whole) < len(pairs):
        what = "clean" if all(restored for restored, _ in pairs.values()) else "restored or clean"
        measuring.lack(f"of {len(pairs) - len(whole)} of {len(pairs)} images the {what} picture is not saved")
        return {}
    measuring.prepare(device)
    values: dict[str, dict[Key, float]] = {}
    for start in range(0, len(whole), _BATCH):
        read = [(key, *_pair(run, kept[key], *paths)) for key, *paths in whole[start : start + _BATCH]]
        for _, group in groupby(read, key=lambda item: item[1].shape):
            keys, *images = zip(*group, strict=True)
            restored, clean = (torch.stack(list(part)).to(device) for part in images)
            for name, measured in measuring(restored, clean, units_of(kept[keys[0]])).items():
                values.setdefault(name, {}).update(zip(keys, measured, strict=True))
    return {name: by_key for name, by_key in values.items() if name not in measuring.reasons}


def _pair(run: Run, record: Record, restored: Path, clean: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from cclight.runs.spread import read_saved

    images = []
    kinds: tuple[tuple[Kind, Path], ...] = (("restored", restored), ("clean", clean))
    for kind, path in kinds:
        try:
            images.append(read_saved(run.path, kind, record))
        except (OSError, ValueError, SyntaxError, EOFError) as error:  # noqa: PERF203 - Pillow's ways to refuse a file
            raise UsageError(f"{path} is no whole picture ({one_line(error)}): {_mend(run, restored)}") from error
    if images[0].shape != images[1].shape:
        sizes = ["×".join(map(str, image.shape)) for image in images]
        raise UsageError(f"{restored} is {sizes[0]} and {clean} {sizes[1]}, not the same picture: {_mend(run, restored)}")
    return images[0], images[1]


def _mend(run: Run, restored: Path) -> str:
    return f"delete {restored} and run the run's `cclight predict` with --run.resume true, which makes both anew"


def _trusted(run: Run) -> dict[str, Any]:
    """What a run's configuration measures, without what is not cclight's own: who only reads a run runs none of its code."""
    measured = run.config.get("metrics") or {}
    per_image, distances = measured.get("per_image"), measured.get("distances")
    trusted: dict[str, Any] = {}
    if isinstance(per_image, list):
        trusted["per_image"] = [metric for metric in per_image if _own(metric)] or None
    if distances and _own(distances):
        trusted["distances"] = distances
    return trusted


def _own(part: Any) -> bool:
    paths = class_paths(part) if isinstance(part, dict) else [str(part)]
    foreign = [path for path in paths if not is_own(path)]
    for path in foreign:
        print(
            f"cclight evaluate: {path} is none of cclight's own classes, its numbers stay as they are: name it with --metrics "
            f"to run its code",
            file=sys.stderr,
        )
    return not foreign


@contextmanager
def _imports(here: bool) -> Iterator[None]:
    """Import the classes that metrics may be; modules of the current folder only where the user names some."""
    from importlib import import_module

    for room in ("metrics.image", "metrics.fid", "metrics.inception", "data.sources", "data.subset", "data.arrays"):
        import_module(f"cclight.{room}")
    before, folder = list(sys.path), os.getcwd()
    without = [path for path in before if os.path.abspath(path or ".") != folder]
    sys.path[:] = [*without, folder] if here else without
    try:
        yield
    finally:
        sys.path[:] = [*before, folder] if here and folder not in before else before
