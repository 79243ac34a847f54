"""`cclight tune`: search the settings of a sampler, or of anything else that a configuration names.

    cclight tune --config configs/sr.yaml --search configs/search/moments.yaml --data.limit 12

What follows `--search` and the options below are arguments of `cclight predict`. Each trial restores as that does, in this
process and in memory: no pictures are written, and the prior is loaded once. Start the command several times, one for each
GPU or group of cores, and the processes share the study; start it again and it goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cclight.commands.arguments import PlainParser
from cclight.commands.outputs import check_output, console
from cclight.commands.tune.search import Search, read_search
from cclight.configs import find_config
from cclight.errors import UsageError

# What a search leaves, and how each file begins.
_RESULTS = {"best.yaml": ("# cclight tune:",), "trials.csv": ("trial,",), "objective.png": ("",)}


def parser() -> argparse.ArgumentParser:
    """The options of `cclight tune` itself."""
    parser = PlainParser(
        "cclight tune",
        description="Search settings. All other arguments are those of `cclight predict`, --config among them.",
    )
    parser.add_argument("--search", required=True, metavar="YAML", help="what to search, as configs/search/moments.yaml")
    parser.add_argument("--trials", type=int, help="how many trials in all, instead of the search's number")
    parser.add_argument("--output", metavar="DIR", help="where results go (default: runs/tune/<config>-<search>)")
    parser.add_argument("--study", metavar="FILE", help="SQLite, or a journal when it ends in .log (default: study.db in DIR)")
    return parser


def main(arguments: list[str]) -> int | None:
    """`cclight tune`.

    Args:
        arguments: its own options, and those of `cclight predict`.

    Returns:
        1 when no trial gave a result, else None.

    Raises:
        UsageError: for a mistake in the arguments, the configuration or the search, before any work.
    """
    options, base = parser().parse_known_args(arguments)
    path = find_config(options.search)
    search = read_search(path, options.trials)
    output = Path(options.output or f"runs/tune/{_name(base)}-{path.stem}")
    study_file = Path(options.study) if options.study else output / "study.db"
    from cclight.commands.tune.study import SharedStudy, feasible, import_optuna

    import_optuna()
    from cclight.commands.tune.trial import Evaluation, Unusable

    for name, starts in _RESULTS.items():
        check_output(output / name, starts, "a search's result")
    evaluation = Evaluation(base, search)
    if study_file.is_dir():
        raise UsageError(f"{study_file} is a folder: give a file as --study")
    setup = evaluation.check()
    output.mkdir(parents=True, exist_ok=True)
    quantity = evaluation.quantities[search.objective]
    study = SharedStudy(study_file, search, quantity.direction, setup, evaluation.own)
    for trial, point in study.trials():
        begin = time.perf_counter()
        try:
            metrics, reason = evaluation(point), None
        except (Unusable, ValueError, TypeError) as error:
            metrics, reason = None, " ".join(str(error).split())
        told = study.tell(trial, metrics, reason)
        mark = "" if metrics is None or feasible(told) else "  (misses a constraint)"
        result = reason or "  ".join(f"{name} {(metrics or {})[name]:.4f}" for name in evaluation.wanted)
        settings = " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in point.items())
        print(f"trial {len(study.done())}/{search.trials}  {result}{mark}  {settings}  ({time.perf_counter() - begin:.0f} s)")
    return _finish(study, search, evaluation, output, f"cclight tune: {_name(base)}, search {path.stem}, {search.objective}.")


def _finish(study: Any, search: Search, evaluation: Any, output: Path, note: str) -> int | None:
    """Write what was found, and print the best five."""
    from rich.table import Table

    from cclight.commands.tune.study import METRICS, REASON, feasible, write_best, write_picture, write_trials

    done, ranking = study.done(), study.ranking()
    write_trials(output / "trials.csv", done, search)
    if not ranking:
        raise UsageError(f"no trial gave a result, the first one because {done[0].user_attrs[REASON]}")
    write_best(output / "best.yaml", ranking[0], search, note)
    quantities = evaluation.quantities
    write_picture(output / "objective.png", ranking, ranking[0], search, quantities[search.objective].title)
    table = Table(title=f"{note} {len(done)} trials, {len(done) - len(ranking)} without a result")
    table.add_column("trial", justify="right")
    for name in evaluation.wanted:
        table.add_column(quantities[name].title, justify="right")
    for parameter in search.space:
        table.add_column(parameter.key.rpartition(".")[2], justify="right")
    if search.constraint:
        table.add_column(", ".join(map(str, search.constraint)), justify="center")
    for trial in ranking[:5]:
        values = [f"{trial.user_attrs[METRICS][name]:.{quantities[name].digits}f}" for name in evaluation.wanted]
        kept = [("yes" if feasible(trial) else "no")] if search.constraint else []
        table.add_row(str(trial.number), *values, *(_short(trial.params[p.key]) for p in search.space), *kept)
    out = console()
    out.print(table)
    if not feasible(ranking[0]):
        out.print(f"No trial keeps {' and '.join(map(str, search.constraint))}: best.yaml holds the closest.", markup=False)
    out.print(f"{output}: best.yaml, trials.csv, objective.png", markup=False, soft_wrap=True)
    return None


def _name(base: list[str]) -> str:
    """The name of the first configuration among `cclight predict`'s arguments."""
    for place, argument in enumerate(base):
        if argument == "--config" and place + 1 < len(base):
            return Path(base[place + 1]).stem
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")).stem
    raise UsageError("--config is missing: name what to tune, as --config configs/sr.yaml")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
