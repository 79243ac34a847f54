"""`cclight evaluate RUN`: a finished run's metrics once more, from its saved pictures and without sampling.

The pictures hold 8 bits a channel, so that PSNR and its like differ slightly from those of `cclight predict`, which measures
before rounding. What only sampling can measure (consistency, NFE, seconds) is taken over from the records.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from typing import TYPE_CHECKING

from cclight.cli import UsageError
from cclight.runs import Record, RunFolder, read_png
from cclight.workbench.results import Run

if TYPE_CHECKING:
    from cclight.metrics import ImageMetric

_BATCH = 16


def main(arguments: list[str]) -> None:
    """Measure a run's pictures and replace its metrics.json and metrics.csv.

    Raises:
        UsageError: when there is no finished run, or it is in use.
    """
    parser = argparse.ArgumentParser(prog="cclight evaluate", description=__doc__)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("--lpips", choices=("squeeze", "alex", "vgg"), default="squeeze", help="the net of LPIPS")
    parser.add_argument("--distances", action="store_true", help="measure FID and KID as well")
    parser.add_argument("--reference", help="a folder of pictures, or an .npz of mu and sigma; default: the clean images")
    parser.add_argument("--inception", help="the file of the Inception network's weights; default: downloaded once")
    options = parser.parse_args(arguments)
    run = Run.read(options.run)

    import torch

    from cclight.callbacks.metrics import summarize_records, write_results
    from cclight.callbacks.table import print_results
    from cclight.distances import FeatureDistances, Inception
    from cclight.metrics import CONSISTENCY, LPIPS, MSSSIM, NFE, PSNR, SECONDS, SSIM

    folder = RunFolder(run.path.name, str(run.path.parent))
    folder.acquire()  # the lock alone: the run's configuration and records stay as they are
    try:
        metrics: list[ImageMetric] = [PSNR(), SSIM(), MSSSIM(), LPIPS(options.lpips)]
        records, reasons = measure(run, metrics)
        quantities = [*(metric.quantity for metric in metrics), CONSISTENCY, NFE, SECONDS]
        summaries = {s.quantity.name: s for s in summarize_records(quantities, records, reasons, seed=0)}
        if options.distances or options.reference:
            distances = FeatureDistances(Inception(options.inception), options.reference)
            distances.prepare(torch.device("cpu"))
            names = {index: record["name"] for index, record in records.items() if "failed" not in record}
            restored, clean = ([folder.file(kind, i, n) for i, n in names.items()] for kind in ("restored", "clean"))
            summaries.update({s.quantity.name: s for s in distances.compute(restored, clean)})
        left_out = {item["index"]: item["reason"] for item in run.summary.get("left_out", [])}
        write_results(folder, records, summaries, left_out)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        folder.close()
    print_results(folder)


def measure(run: Run, metrics: list[ImageMetric]) -> tuple[dict[int, Record], dict[str, str]]:
    """The per-image metrics of a run's saved pictures.

    Returns:
        The run's records by index with the new values, and why a metric is missing by its name.
    """
    import torch

    from cclight.metrics import CONSISTENCY, NFE, SECONDS, Unavailable

    kept = {"index", "name", "failed", CONSISTENCY.name, NFE.name, SECONDS.name}
    records = {i: {k: v for k, v in record.items() if k in kept} for i, record in run.records.items()}
    pairs = {i: (run.picture("restored", i), run.picture("clean", i)) for i, r in records.items() if "failed" not in r}
    whole = [(i, restored, clean) for i, (restored, clean) in pairs.items() if restored is not None and clean is not None]
    reasons: dict[str, str] = {}
    if len(whole) < len(pairs):
        reasons = {m.quantity.name: f"{len(pairs) - len(whole)} clean pictures are not saved" for m in metrics}
    for start in range(0, len(whole), _BATCH):
        read = [(i, read_png(a), read_png(b)) for i, a, b in whole[start : start + _BATCH]]
        for _, group in groupby(read, key=lambda item: item[1].shape):
            indices, *images = zip(*group, strict=True)
            restored, clean = (torch.stack(list(part)).float() / 127.5 - 1 for part in images)
            for metric in metrics:
                name = metric.quantity.name
                if name in reasons:
                    continue
                try:
                    for index, value in zip(indices, metric(restored, clean).tolist(), strict=True):
                        records[index][name] = value
                except Unavailable as reason:
                    reasons[name] = str(reason)
    return records, reasons
