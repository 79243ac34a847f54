"""Can the spread of samples be believed? Samplers' calibration on Gaussian mixtures, whose posterior is exact.

python benchmarks/calibration.py --output benchmarks             # 8×8 images, three tasks, two noise levels: 20 min on a core
python benchmarks/calibration.py --settings                      # what mends ConjugateMoments: order, spacing, start, weight

Mixtures, cells and contestants are those of posterior.py, and ConjugateMoments of second order. Each sampler tries eight
settings on other measurements, and the one with the least CRPS there, which is proper, is measured: 8 samples of each of 64
measurements, compared with 16 clean images that might have made each, drawn from the exact posterior. The numbers are those of
`cclight.metrics.posterior`, pooled over a cell: the ratio of spread to error (ideal 1), coverage of central intervals of 50 %
and 90 %, and the CRPS over that of exact samples (ideal 1), whose own numbers are the first row of each cell.

--output writes calibration_8.json after every sampler, and the same command goes on where it stopped. Needs azula and deepinv
for the peers; --ours leaves them out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import geometric_mean, mean

import torch
from posterior import PEERS, TASKS, Cell, ours, theirs
from rows import read, write
from torch import Tensor

from cclight import ConjugateMoments, Sampler
from cclight.metrics.posterior import Evidence, evidence

COUNTS = (64, 8, 16)  # measurements, samples, truths
TUNING = (12, 8, 16)
LEVELS = (0.0, 0.05)
EXACT = "exact samples"
Run = Callable[[Cell], Tensor]


@dataclass(frozen=True)
class Row:
    """The calibration of one sampler in one cell.

    Attributes:
        cell: size, task and noise.
        sampler: the sampler.
        setting: the one of least CRPS on the measurements for tuning.
        nfe: the budget; 0 of exact samples.
        tuned: its CRPS there over that of exact samples.
        spread_error: (1 + 1/K) variance / squared error of the mean.
        coverage_50: of the central interval of 50 %.
        coverage_90: of that of 90 %.
        calibration_error: mean |coverage - nominal|.
        crps: over that of exact samples.
    """

    cell: str
    sampler: str
    setting: str
    nfe: int
    tuned: float
    spread_error: float
    coverage_50: float
    coverage_90: float
    calibration_error: float
    crps: float


class Calibrated(Cell):
    """A cell with clean images that might have made each measurement, and what exact samples score on them."""

    def __init__(self, side: int, task: str, noise_std: float, counts: tuple[int, int, int], draw: int) -> None:
        super().__init__(side, task, noise_std, counts[0], counts[1], draw=draw)
        generator = torch.Generator().manual_seed(100 + draw)
        self.truths = self.posterior.sample(counts[2], generator).flatten(2)
        self.exact = self.evidence(self.posterior.sample(counts[1], generator))

    def evidence(self, image: Tensor) -> Evidence:
        """What samples of all measurements, (measurements · K, ...), say beside all truths."""
        x = image.double().view(*self.shape, -1).movedim(1, 0).flatten(1)  # one row for each sample
        parts = [evidence(x, truth.flatten(), 2.0) for truth in self.truths.movedim(1, 0)]
        return sum(parts[1:], parts[0])

    def score(self, image: Tensor) -> float:
        """CRPS over that of exact samples; infinite where there is no number."""
        return self.evidence(image).score / self.exact.score if bool(image.isfinite().all()) else math.inf

    def calibration(self, sampler: str, setting: str, nfe: int, tuned: float, found: Evidence) -> Row:
        """The row of what was found."""
        curve = found.reliability()
        ratio, half, most = found.spread_error, found.coverage(0.5), found.coverage(0.9)
        crps = found.score / self.exact.score
        return Row(self.name, sampler, setting, nfe, tuned, ratio, half, most, curve.calibration_error, crps)


def compare(cell: Calibrated, tuning: Calibrated, contestants: dict[str, dict[str, Run]], nfe: int) -> Iterator[Row]:
    """Each contestant at its best setting on `tuning`; one without a finite result is named."""
    for sampler, settings in contestants.items():
        scores = {
            setting: _attempt(run, tuning, f"{cell.name} nfe {nfe} {sampler} {setting}") for setting, run in settings.items()
        }
        chosen = min(scores, key=lambda setting: scores[setting])
        image = settings[chosen](cell) if math.isfinite(scores[chosen]) else torch.tensor(math.nan)
        if not bool(image.isfinite().all()):
            print(f"{cell.name} nfe {nfe} {sampler} gives nothing finite", flush=True)
            continue
        row = cell.calibration(sampler, chosen, nfe, scores[chosen], cell.evidence(image))
        print(f"{row.cell:18} nfe {nfe:3} {sampler:24} {told(row)}  {chosen}", flush=True)
        yield row


def _attempt(run: Run, cell: Calibrated, told: str) -> float:
    try:
        return cell.score(run(cell))
    except RuntimeError as error:  # a peer's own, torch.linalg's included
        print(f"{told}: {error}", flush=True)
        return math.inf


def told(row: Row) -> str:
    """The numbers of a row in words."""
    return (
        f"spread/error {row.spread_error:.2f} coverage {row.coverage_50:.2f} {row.coverage_90:.2f} "
        f"error {row.calibration_error:.3f} CRPS {row.crps:.3f}"
    )


def table(rows: list[Row]) -> str:
    """By sampler and budget over all cells, as Markdown: the least and greatest spread/error, mean coverage at 90 %, mean CRPS.

    Ours come first, each side by its CRPS at the smallest budget.
    """
    budgets = sorted({row.nfe for row in rows if row.nfe})
    cells = {row.cell for row in rows}

    def entry(sampler: str, nfe: int) -> str:
        here = [row for row in rows if (row.sampler, row.nfe) == (sampler, nfe)]
        if {row.cell for row in here} != cells:
            return ""
        ratios = sorted(row.spread_error for row in here)
        return f"{ratios[0]:.2f} – {ratios[-1]:.2f}, {mean(r.coverage_90 for r in here):.2f}, {mean(r.crps for r in here):.2f}"

    def rank(sampler: str) -> tuple[bool, float]:
        first = [row.crps for row in rows if row.sampler == sampler and row.nfe == budgets[0]]
        return sampler.startswith(PEERS), mean(first) if first else math.inf

    lines = ["| sampler | " + " | ".join(f"NFE {nfe}" for nfe in budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    lines.append(f"| {EXACT} |" + f" {entry(EXACT, 0)} |" * len(budgets))
    samplers = sorted({row.sampler for row in rows} - {EXACT}, key=rank)
    lines += [f"| {sampler} | " + " | ".join(entry(sampler, nfe) for nfe in budgets) + " |" for sampler in samplers]
    return "\n".join(lines)


def mending(cells: Iterable[Calibrated], samplers: dict[str, Sampler]) -> str:
    """What single settings do, as Markdown: spread/error in each cell, coverage at 90 % and CRPS on average."""
    found = {name: [] for name in samplers}
    cells = list(cells)
    for cell in cells:
        for name, sampler in samplers.items():
            image = sampler.sample(cell.prior, cell.operator, cell.y, cell.noise, noise_std=cell.noise_std).image
            found[name].append(cell.calibration(name, "", sampler.steps, 0.0, cell.evidence(image)))
    heads = [cell.name.partition(" ")[2] for cell in cells]
    lines = ["| setting | " + " | ".join(heads) + " | mean | 90 % | CRPS |", "|---" * (len(heads) + 4) + "|"]
    for name, rows in found.items():
        ratios = [row.spread_error for row in rows]
        ends = f"{geometric_mean(ratios):.2f} | {mean(r.coverage_90 for r in rows):.2f} | {mean(r.crps for r in rows):.3f}"
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + f" | {ends} |")
    return "\n".join(lines)


def mended(nfe: int) -> dict[str, dict[str, Run]]:
    """ConjugateMoments of second order, with its eight settings: a contestant beside those of posterior.py."""

    def runner(sampler: Sampler) -> Run:
        return lambda cell: sampler.sample(cell.prior, cell.operator, cell.y, cell.noise, noise_std=cell.noise_std).image

    choices = product((0.2, 0.7), (1.0, 2.0), (0.0, 1.0))
    return {
        "ConjugateMoments order 2": {
            f"t_start={start} guidance={weight} renewal={renewal}": runner(
                ConjugateMoments(nfe, t_start=start, guidance=weight, order=2, renewal=renewal)
            )
            for start, weight, renewal in choices
        }
    }


def settings(nfe: int) -> dict[str, Sampler]:
    """ConjugateMoments as it is packaged, and one change after the other."""
    return {
        f"order {order}, {spacing}, from {start}, weight {weight}": ConjugateMoments(
            nfe, t_start=start, timesteps=spacing, guidance=weight, order=order
        )
        for order, spacing, start, weight in product((1, 2), ("uniform", "logsnr"), (0.7, 0.4, 0.1), (2.5, 1.0))
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="How well samplers are calibrated on exact posteriors.")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--settings", action="store_true", help="only what single settings of ConjugateMoments do")
    parser.add_argument("--side", type=int, choices=(8, 16), default=8, help="of the images, in pixels")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="cells whose names (8x8 pool4 0.05) have all words"
    )
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 10, 20, 50], help="budgets")
    parser.add_argument("--measurements", type=int, default=COUNTS[0])
    parser.add_argument("--output", type=Path, help="a folder for calibration_8.json")
    options = parser.parse_args(arguments)
    side, counts = options.side, (options.measurements, *COUNTS[1:])
    named = [(f"{side}x{side} {task} {level}", task, level) for task in TASKS for level in LEVELS]
    wanted = [(task, level) for name, task, level in named if set(options.only) <= set(name.split())]
    if options.settings:
        cells = [Calibrated(side, task, level, counts, draw=3) for task, level in wanted]
        for nfe in options.nfe:
            print(f"NFE {nfe}\n\n{mending(cells, settings(nfe))}\n", flush=True)
        return
    path = options.output / f"calibration_{side}.json" if options.output else None
    rows = read(Row, path, counts, parser) if path else []
    pairs = [tuple(Calibrated(side, task, level, n, draw) for n, draw in ((counts, 3), (TUNING, 2))) for task, level in wanted]
    known = {(row.cell, row.sampler, row.nfe) for row in rows}
    rows += [cell.calibration(EXACT, "", 0, 1.0, cell.exact) for cell, _ in pairs if (cell.name, EXACT, 0) not in known]
    for nfe, (cell, tuning) in product(options.nfe, pairs):
        everybody = ours(nfe) | mended(nfe) | ({} if options.ours else theirs(nfe))
        unknown = {name: runs for name, runs in everybody.items() if (cell.name, name, nfe) not in known}
        for row in compare(cell, tuning, unknown, nfe):
            rows.append(row)
            if path:
                write(path, counts, rows)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
