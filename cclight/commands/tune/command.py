"""`cclight tune`: search the settings of a sampler, or of anything else that a configuration names.

    cclight tune --config configs/sr.yaml --search configs/search/conjugate.yaml --data.limit 12

What follows `--search` and the options below are arguments of `cclight predict`. Each trial is such a run, in this process, in
a folder that is deleted after it; the prior is loaded once. Start the command several times, one for each GPU or group of
cores, and the processes share the study; start it again and it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import yaml

from cclight.commands.tune.search import Point, Search, read_search
from cclight.configs import find_config
from cclight.errors import UsageError, suggestion


def main(arguments: list[str]) -> int | None:
    """`cclight tune`.

    Args:
        arguments: its own options, and those of `cclight predict`.

    Returns:
        1 when no trial gave a result, else None.

    Raises:
        UsageError: for a mistake in the arguments, the configuration or the search, before any work.
    """
    parser = argparse.ArgumentParser(
        "cclight tune",
        description="Search settings. All other arguments are those of `cclight predict`, --config among them.",
        allow_abbrev=False,
    )
    parser.add_argument("--search", required=True, metavar="YAML", help="what to search, as configs/search/conjugate.yaml")
    parser.add_argument("--trials", type=int, help="how many trials in all, instead of the search's number")
    parser.add_argument("--output", metavar="DIR", help="where results go (default: runs/tune/<config>-<search>)")
    parser.add_argument("--study", metavar="FILE", help="SQLite, or a journal when it ends in .log (default: study.db in DIR)")
    options, base = parser.parse_known_args(arguments)
    path = find_config(options.search)
    search = read_search(path, options.trials)
    output = Path(options.output or f"runs/tune/{_name(base)}-{path.stem}")
    study_file = Path(options.study) if options.study else output / "study.db"
    from cclight.commands.tune.study import SharedStudy, feasible, import_optuna

    import_optuna()
    output.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(base, output / "trials", search)
    setup = evaluation.check()
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


class Unusable(Exception):
    """A trial whose settings give no result; the message says why."""


class Evaluation:
    """Runs `cclight predict` at a point of the space, in this process.

    Args:
        base: arguments of `cclight predict`.
        folder: where runs may lie while they last.
        search: what is searched.

    Attributes:
        wanted: the metrics that the search looks at, the objective first.
        quantities: what the runs measure, by name; known after `check`.
        own: the configuration's own point, None where the space does not hold it; known after `check`.
    """

    def __init__(self, base: list[str], folder: Path, search: Search) -> None:
        from cclight.callbacks.images import ImageWriter
        from cclight.callbacks.metrics import MetricsCallback
        from cclight.commands.predict import PredictCLI

        shared: dict[str, Any] = {}

        class Trial(PredictCLI):
            """One trial: as `cclight predict`, with what was loaded before, and without a table or pictures."""

            command = "tune"
            defaults: ClassVar[dict[str, Any]] = {**PredictCLI.defaults, "devices": 1, "enable_progress_bar": False}

            def before_instantiate_classes(self) -> None:
                if self.config.trainer.devices not in (1, "1"):
                    raise UsageError(
                        f"trials run on one device, got trainer.devices {self.config.trainer.devices}: start the command once "
                        f"for each device, they share the study"
                    )
                super().before_instantiate_classes()
                self.key = str(self.config.model.prior)
                if self.key in shared:
                    self.config.model.prior = shared[self.key]

            def instantiate_classes(self) -> None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # jsonargparse finds a ready prior in a configuration odd
                    super().instantiate_classes()
                shared.clear()
                shared[self.key] = self.model.prior  # type: ignore[misc]

            def instantiate_trainer(self, **kwargs: Any) -> Any:
                trainer = super().instantiate_trainer(**kwargs)
                distances = self.config_init.metrics.distances  # they are measured on pictures
                kept = MetricsCallback if distances is None else (MetricsCallback, ImageWriter)
                self.sinks = [sink for sink in self.sinks if isinstance(sink, kept)]
                return trainer

        self._cli = Trial
        self._base = base
        self._folder = folder
        self._search = search
        self._runs = 0
        self._open = folder
        self._cli_now: Any = None
        self.wanted = list(dict.fromkeys([search.objective, *(constraint.metric for constraint in search.constraint)]))
        self.quantities: dict[str, Any] = {}
        self.own: Point | None = None

    def check(self) -> dict[str, Any]:
        """Try whether every parameter takes the ends of its range, and whether the runs can measure what is wanted.

        Returns:
            What a trial's result depends on: the configuration and the search.

        Raises:
            UsageError: where one does not.
        """
        import torch

        from cclight.callbacks.metrics import MetricsCallback
        from cclight.metrics.fid import FID, KID
        from cclight.metrics.quantity import Unavailable

        first = {parameter.key: parameter.ends()[0] for parameter in self._search.space}
        points = [first, *({**first, p.key: end} for p in self._search.space for end in p.ends()[1:])]
        for point in points:
            try:
                cli = self._build(point)
            except (ValueError, TypeError) as error:  # noqa: PERF203
                changed = [key for key in point if point[key] != first[key]] or list(point)
                raise UsageError(f"{', '.join(f'{key}={point[key]}' for key in changed)}: {error}") from error
            finally:
                self._clean()
        cli = self._build({})
        try:
            config = _flat(yaml.safe_load((cli.run.path / "config.yaml").read_text(encoding="utf-8")))
            if all(parameter.takes(config.get(parameter.key)) for parameter in self._search.space):
                self.own = {parameter.key: config[parameter.key] for parameter in self._search.space}
            cli.datamodule.setup("predict")
            (metrics,) = (sink for sink in cli.sinks if isinstance(sink, MetricsCallback))
        finally:
            self._clean()
        quantities = [*metrics.measuring.quantities, *((FID, KID) if metrics.distances is not None else ())]
        self.quantities = {quantity.name: quantity for quantity in quantities}
        for name in self.wanted:
            if name not in self.quantities:
                known = ", ".join(self.quantities)
                raise UsageError(
                    f"the runs do not measure {name!r}{suggestion(name, self.quantities) or f': they measure {known}'}"
                )
        for metric in metrics.measuring.metrics:
            if metric.quantity.name in self.wanted:
                try:
                    metric.prepare(torch.device("cpu"))
                except Unavailable as reason:
                    raise UsageError(f"{metric.quantity.title} is unavailable: {reason}") from reason
        return _setup(config, self._search)

    def __call__(self, point: Point) -> dict[str, float]:
        """The metrics at a point, by name.

        Raises:
            Unusable: when an image's restoration is not finite, or a metric that is wanted is missing.
        """
        from cclight.callbacks.metrics import NothingRestored

        cli = self._build(point)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what there is to say is said once, by `check` or as the trial's reason
                results = cli.go().summary
        except NothingRestored as error:
            raise Unusable(str(error)) from error
        finally:
            self._clean()
        if results["failed"]:
            first = results["failed"][0]
            raise Unusable(f"{len(results['failed'])} of {results['images']} images failed, {first['name']}: {first['failed']}")
        for name in self.wanted:
            if (mean := results["metrics"][name].get("mean")) is None or not math.isfinite(mean):
                raise Unusable(f"{name} is unavailable: {results['metrics'][name].get('unavailable', 'it is not finite')}")
        return {name: metric["mean"] for name, metric in results["metrics"].items() if metric.get("mean") is not None}

    def _build(self, point: Point) -> Any:
        self._runs += 1
        folder = {"root": str(self._folder), "name": f"{os.getpid()}-{self._runs}", "overwrite": "true"}
        run = [f"--run.{key}={value}" for key, value in folder.items()]
        settings = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in point.items()]
        self._open = self._folder / folder["name"]
        self._cli_now = self._cli.build([*self._base, *run, "--images.grid=0", *settings])
        return self._cli_now

    def _clean(self) -> None:
        """Let go of the last run's folder and delete it."""
        if self._cli_now is not None:
            self._cli_now.run.close()
            self._cli_now = None
        shutil.rmtree(self._open, ignore_errors=True)
        with contextlib.suppress(OSError):  # other processes may have runs there
            self._folder.rmdir()


def _setup(config: dict[str, Any], search: Search) -> dict[str, Any]:
    """What a trial's result depends on, flat."""
    free = ("data.num_workers", "data.batch_size", *(parameter.key for parameter in search.space))
    parts = ("operator", "noise_std", "model", "data", "metrics")
    fixed = {key: value for key, value in config.items() if key.split(".")[0] in parts and key not in free}
    wanted = {"objective": search.objective, "sampler": search.sampler, "constraint": [str(c) for c in search.constraint]}
    return {**wanted, **fixed, **{f"space {p.key}": str(p) for p in search.space}}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's settings by their keys on the command line."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value})
    return flat


def _finish(study: Any, search: Search, evaluation: Evaluation, output: Path, note: str) -> int | None:
    """Write what was found, and print the best five."""
    from rich.console import Console
    from rich.table import Table

    from cclight.commands.tune.study import METRICS, REASON, feasible, write_best, write_picture, write_trials

    done, ranking = study.done(), study.ranking()
    shutil.rmtree(output / "trials", ignore_errors=True)  # what a killed process may have left
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
    console = Console(highlight=False)
    console.print(table)
    if not feasible(ranking[0]):
        console.print(f"No trial keeps {' and '.join(map(str, search.constraint))}: best.yaml holds the closest.", markup=False)
    console.print(f"{output}: best.yaml, trials.csv, objective.png", markup=False, soft_wrap=True)
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
