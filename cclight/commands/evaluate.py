"""`cclight evaluate RUN`: a finished run's metrics once more, from its saved pictures and without sampling.

    cclight evaluate runs/sr
    cclight evaluate runs/sr --metrics.per_image '[{class_path: LPIPS, init_args: {net: alex}}]'
    cclight evaluate runs/sr --metrics.distances FeatureDistances --metrics.distances.reference photographs/real

It measures what the run did, or what `--metrics` asks for, in the words of `cclight predict`. The pictures hold 8 bits a
channel, so that PSNR and its like differ slightly from those of `cclight predict`, which measures before rounding. What only
sampling can measure (consistency, NFE, seconds) is taken over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from cclight.errors import UsageError
from cclight.runs.folder import Record, RunFolder
from cclight.runs.pictures import read_png, to_image
from cclight.runs.results import Run

if TYPE_CHECKING:
    import torch

    from cclight.metrics.fid import FeatureDistances
    from cclight.metrics.image import ImageMetric

_BATCH = 16


def main(arguments: list[str]) -> None:
    """Measure a run's pictures and replace its numbers: the records, metrics.json and metrics.csv.

    Raises:
        UsageError: for a mistake in the arguments, when there is no finished run, or it is in use.
    """
    import torch
    from jsonargparse import ArgumentError, ArgumentParser

    from cclight.commands.lightning import add_metrics_arguments, explain, import_public_names

    parser = ArgumentParser(prog="cclight evaluate", description=(__doc__ or "").partition(":")[2], exit_on_error=False)
    parser.add_argument("run", type=str, help="the folder of a finished run")
    parser.add_argument("--device", default="cpu", help="where the metrics' networks run, as cuda")
    add_metrics_arguments(parser)
    import_public_names()
    try:
        run = Run.read(parser.parse_args(arguments).run)
        measured = run.config.get("metrics") or {}
        parser.set_defaults({f"metrics.{key}": value for key, value in measured.items()})
        options = parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, ValueError) as error:
        raise UsageError(explain(str(error))) from error
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {options.device} here: give cpu, cuda or another") from error
    folder = RunFolder(run.path.name, str(run.path.parent))
    folder.acquire()  # the lock alone: the run's configuration and pictures stay as they are
    try:
        evaluate(run, folder, options.metrics.per_image, options.metrics.distances, options.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        folder.close()
    from cclight.callbacks.table import print_results

    print_results(folder)


def evaluate(
    run: Run, folder: RunFolder, metrics: list[ImageMetric] | None, distances: FeatureDistances | None, device: str
) -> None:
    """Measure a run's pictures and write the numbers into its folder.

    Args:
        run: the run.
        folder: its folder, locked.
        metrics: per image; None for the default ones.
        distances: FID and KID, or None.
        device: where the networks run.
    """
    import torch

    from cclight.metrics.image import default_metrics
    from cclight.metrics.summary import per_image_quantities, summarize_records
    from cclight.runs.results import write_results

    metrics = default_metrics() if metrics is None else metrics
    quantities = per_image_quantities(metrics)
    records, reasons = measure(run, metrics, torch.device(device))
    summaries = {s.quantity.name: s for s in summarize_records(quantities, records, reasons, seed=0)}
    if distances is not None:
        distances.prepare(torch.device(device))
        names = {index: record["name"] for index, record in records.items() if "failed" not in record}
        restored, clean = ([folder.file(kind, i, n) for i, n in names.items()] for kind in ("restored", "clean"))
        summaries.update({s.quantity.name: s for s in distances.compute(restored, clean)})
    left_out = {item["index"]: item["reason"] for item in run.summary.get("left_out", [])}
    folder.replace(records.values())
    write_results(folder, records, summaries, left_out)


def measure(run: Run, metrics: list[ImageMetric], device: torch.device) -> tuple[dict[int, Record], dict[str, str]]:
    """The per-image metrics of a run's saved pictures.

    Returns:
        The run's records by index with the new values, and why a metric is missing by its name.
    """
    import torch

    from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS

    kept = {"index", "name", "failed", CONSISTENCY.name, NFE.name, SECONDS.name}
    records = {i: {k: v for k, v in record.items() if k in kept} for i, record in run.records.items()}
    pairs = {i: (run.picture("restored", i), run.picture("clean", i)) for i, r in records.items() if "failed" not in r}
    whole = [(i, restored, clean) for i, (restored, clean) in pairs.items() if restored is not None and clean is not None]
    reasons: dict[str, str] = {}
    if len(whole) < len(pairs):
        reasons = {m.quantity.name: f"{len(pairs) - len(whole)} clean pictures are not saved" for m in metrics}
    for metric in metrics:
        with _noting(reasons, metric):
            metric.prepare(device)
    for start in range(0, len(whole), _BATCH):
        read = [(i, read_png(a), read_png(b)) for i, a, b in whole[start : start + _BATCH]]
        for _, group in groupby(read, key=lambda item: item[1].shape):
            indices, *images = zip(*group, strict=True)
            restored, clean = (to_image(torch.stack(list(part)).to(device)) for part in images)
            for metric in metrics:
                if (name := metric.quantity.name) in reasons:
                    continue
                with _noting(reasons, metric):
                    for index, value in zip(indices, metric(restored, clean).tolist(), strict=True):
                        records[index][name] = value
    return records, reasons


@contextmanager
def _noting(reasons: dict[str, str], metric: ImageMetric) -> Iterator[None]:
    """Note why a metric cannot be had, if it cannot."""
    from cclight.metrics.quantity import Unavailable

    try:
        yield
    except Unavailable as reason:
        reasons.setdefault(metric.quantity.name, str(reason))
