"""Who restores photographs best at equal cost? Our samplers and those of azula and deepinv, one prior, real pictures.

    python benchmarks/photographs.py --tune FOLDER --report FOLDER2 --results photographs.json

Six tasks, noiseless and noisy (σ_y 0.05). A budget of NFE n is n network evaluations with one vector-Jacobian product each (an
evaluation costs 1, a product 1.1): who takes no products takes more steps, who takes several fewer. What each really spent is
counted, and the seconds too. Every sampler has four settings at the first budget; the best by LPIPS on the photographs of
--tune is measured on those of --report, and no choice ever looks at the latter. With --strongest K the K best of ours and of
the peers go on to the next budget, ranked on --tune, with the better half of their settings, and choose anew.

Every finished cell (task, noise, sampler, budget) is in the file of --results at once: a run that was stopped goes on with the
same command, and one with more budgets, tasks or samplers adds to it. Needs azula and deepinv (pip install 'cclight[bench]').
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import contestants
import peers
import torch
from cases import TASKS, Case, Counted, Judge, Measured, baselines, cases
from contests import PACKAGED, Cell, figure, goals, leads, seconds, table, told
from torch import Tensor

from cclight import ImageFolder, Prior, SmallPrior
from cclight.data.preprocessing import Preprocessing
from cclight.errors import RunError, one_line
from cclight.metrics.quantity import Unavailable
from cclight.runs.files import write_whole

SIDES = ("baseline", "packaged", "peer", "ours")
Runs = Mapping[str, Callable[[Case], Tensor]]  # by setting
Measure = Callable[[Callable[[Case], Tensor], Sequence[Case]], Measured]


def settle(cell: Cell, runs: Runs, measure: Measure, tuning: Sequence[Case], reported: Sequence[Case]) -> Cell:
    """A contestant's best setting on the photographs for tuning, measured on the others.

    Args:
        cell: who, what and at which budget.
        runs: its settings.
        measure: restores and measures.
        tuning: what settings are chosen on.
        reported: what the chosen one is measured on.
    """
    who = (cell.task, cell.noise_std, cell.sampler, cell.side, cell.nfe)
    try:
        scores = {setting: measure(run, tuning).score for setting, run in runs.items()}
        chosen = min(scores, key=lambda setting: math.inf if scores[setting] is None else scores[setting])
        found = None if scores[chosen] is None else measure(runs[chosen], reported)
    except (TypeError, RuntimeError) as error:  # what it cannot take, and what a peer's own code fails with
        return Cell(*who, refused=one_line(error))
    return Cell(*who, chosen, scores, found)


def contestants_at(task: str, nfe: int) -> Iterator[tuple[str, str, Runs]]:
    """Side, name and settings of everybody who takes part at a budget; the baselines take part at none, 0."""
    if nfe == 0:
        yield from (("baseline", name, runs) for name, runs in baselines(task).items())
        return
    if nfe == PACKAGED:
        yield "packaged", "packaged", contestants.packaged(task)
    theirs: dict[str, Runs] = {}
    for library in (peers.azula, peers.deepinv):
        theirs |= library(nfe, peers.OF_PHOTOGRAPHS, lambda case: case.guess)
    yield from (("peer", name, runs) for name, runs in theirs.items())
    yield from (("ours", name, runs) for name, runs in contestants.on_photographs(nfe).items())


def gone_on(cells: Sequence[Cell], cell: Cell, runs: Runs, before: int, strongest: int) -> Runs:
    """The settings with which a contestant goes on to a further budget: the better half; none if it was not strong enough."""
    rank = sorted(
        (one for one in cells if (one.row, one.side, one.nfe) == (cell.row, cell.side, before) and math.isfinite(one.score)),
        key=lambda one: one.score,
    )
    own = next((one for one in rank[:strongest] if one.sampler == cell.sampler), None)
    if own is None:
        return {}
    order = sorted((score, setting) for setting, score in own.tuning.items() if score is not None)
    kept = {setting for _, setting in order[: max(1, len(own.tuning) // 2)]}
    return {setting: run for setting, run in runs.items() if setting in kept}


class Results:
    """The file of finished cells.

    Args:
        path: the file; None keeps nothing.
        setup: what all cells have in common.

    Raises:
        ValueError: where the file is of another setup.
    """

    def __init__(self, path: Path | None, setup: dict[str, Any]) -> None:
        self.path, self.setup, self.cells = path, setup, []
        if path is None or not path.exists():
            return
        saved = json.loads(path.read_text(encoding="utf-8"))
        other = next((key for key in setup if saved["setup"].get(key) != setup[key]), None)
        if other is not None:
            raise ValueError(
                f"{path} was measured with another {other} ({str(saved['setup'].get(other))[:60]}): "
                "give the same again, or another --results."
            )
        self.cells = [Cell.read(cell) for cell in saved["cells"]]

    def add(self, cell: Cell) -> None:
        """Keep a cell, the whole file or none of it."""
        self.cells.append(cell)
        if self.path is not None:
            lines = ",\n".join(json.dumps(one.written(), ensure_ascii=False, allow_nan=False) for one in self.cells)
            setup = json.dumps(self.setup, ensure_ascii=False)
            write_whole(self.path, f'{{"setup": {setup},\n"cells": [\n{lines}\n]}}\n'.encode())


def compare(results: Results, measure: Measure, photographs: Sequence[Tensor], prior: Prior, options: Any) -> None:
    """Every cell that is asked for and not known, the cheap ones of all rows first."""
    counted = Counted(prior)
    rows = [(task, level) for level in options.noise for task in options.tasks]
    budgets = [0, *sorted(options.nfe)]
    for place, nfe in enumerate(budgets):
        for side in SIDES:
            for task, level in rows:
                known = {cell.key for cell in results.cells}
                both: list[list[Case]] = []
                for of_side, name, runs in contestants_at(task, nfe):
                    cell = Cell(task, level, name, side, nfe)
                    wanted = not options.samplers or any(word in f"{side} {name}" for word in options.samplers)
                    if of_side != side or not wanted or cell.key in known:
                        continue
                    if options.strongest and place > 1 and side != "packaged":
                        runs = gone_on(results.cells, cell, runs, budgets[place - 1], options.strongest)
                    if runs:
                        # The noise of photographs for tuning is not that of the others.
                        both = both or [cases(clean, task, level, counted, 1000 * n) for n, clean in enumerate(photographs)]
                        results.add(settle(cell, runs, measure, *both))
                        print(_line(results.cells[-1]), flush=True)


def _line(cell: Cell) -> str:
    told = cell.refused or (
        f"{cell.lpips:.3f} / {cell.psnr:.2f}, {cell.measured.seconds:.2f} s" if cell.finite and cell.measured else "diverged"
    )
    return f"{cell.task:6} {cell.noise_std:<4g} nfe {cell.nfe:3} {cell.sampler:20} {told}  {cell.setting}"


def chosen(folder: str, limit: int, size: int) -> dict[str, Tensor]:
    """Photographs spread evenly over a folder: their centres, (1, 3, size, size) in [-1, 1], by name.

    Raises:
        ValueError: where there are too few, or one is smaller.
    """
    entries = list(ImageFolder(folder))
    if limit < 1 or len(entries) < limit:
        raise ValueError(f"{limit} photographs are wanted of {folder}, which holds {len(entries)}: give another number.")
    prepare = Preprocessing((size, size), resize=False)
    photographs = [entries[(2 * n + 1) * len(entries) // (2 * limit)].load() for n in range(limit)]
    return {photograph.name: prepare(photograph)[None] for photograph in photographs}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", required=True, metavar="FOLDER", help="photographs on which settings are chosen")
    parser.add_argument("--report", required=True, metavar="FOLDER", help="photographs that the numbers are of")
    parser.add_argument("--results", type=Path, help="JSON to keep finished cells in and go on from")
    parser.add_argument("--figure", type=Path, help="PNG of LPIPS over PSNR")
    parser.add_argument("--size", type=int, default=128, help="side of the centres that are cut out (128)")
    parser.add_argument("--tune-limit", type=int, default=4, help="how many photographs settings are chosen on (4)")
    parser.add_argument("--limit", type=int, default=8, help="how many are reported on (8)")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.05], help="σ_y (0 and 0.05)")
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 10, 20, 50, 100], help="budgets")
    parser.add_argument("--samplers", nargs="+", metavar="WORD", help="those with one of the words: peer, ours, deepinv, DDNM")
    parser.add_argument(
        "--strongest", type=int, help="how many of ours and of the peers go on to the next budget; all without it"
    )
    parser.add_argument("--weights", help="of a SmallPrior; the packaged ones without it")
    options = parser.parse_args(arguments)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    try:
        measure = Judge()
        tuning, reported = (
            chosen(folder, limit, options.size)
            for folder, limit in ((options.tune, options.tune_limit), (options.report, options.limit))
        )
        prior = SmallPrior(options.weights)
        prior.check_images((3, options.size, options.size))
        same = next((a for a, x in tuning.items() for y in reported.values() if torch.equal(x, y)), None)
        if same is not None:
            raise ValueError(f"{same} is among both photographs: settings are chosen on others than those reported on.")
        content = b"".join(value.numpy().tobytes() for value in prior.state_dict().values())
        weights = blake2b(content, digest_size=8).hexdigest()
        setup = {"weights": weights, "size": options.size, "tuned on": list(tuning), "reported on": list(reported)}
        results = Results(options.results, setup)
        images = [torch.cat(list(found.values())) for found in (tuning, reported)]
        compare(results, measure, images, prior, options)
    except (ValueError, OSError, Unavailable, RunError) as error:
        parser.error(one_line(error))
    if not results.cells:
        parser.error(f"nothing takes part: --samplers {' '.join(options.samplers)} fits no name.")
    sizes = f"{len(reported)} photographs of {options.size} px, settings chosen on {len(tuning)} others; LPIPS / PSNR (dB)"
    print("", sizes, *(say(results.cells) for say in (table, goals, leads, told, seconds)), sep="\n\n")
    if options.figure:
        figure(results.cells, options.figure)


if __name__ == "__main__":
    main()
