"""A study in a file that several processes share, and what it found: best.yaml, trials.csv and a picture.

Optuna keeps the trials, in SQLite or in a journal (`.log`). What it leaves to us is who does what when processes are killed:

- A process holds a lock file for each trial that it runs. The operating system lets go of it however the process ends, and on
  whatever machine, so a running trial whose lock is free is a dead one: it is marked as failed, and its point is tried again.
- One lock guards the choice of points: the trials are counted exactly, and no point of a grid is taken twice.

The sampler's seed is the search's plus the number of trials so far: a killed study goes on as if it had not been, and processes
that share one do not choose the same points.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from cclight.commands.tune.search import Point, Search
from cclight.errors import UsageError
from cclight.runs.files import write_whole

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

REASON = "reason"
METRICS = "metrics"
_SETUP = "setup"


class SharedStudy:
    """A search's trials in a file, shared by whoever opens it.

    Args:
        path: the file, SQLite or, when its name ends in `.log`, a journal.
        search: what to search.
        direction: which way the objective is better.
        setup: what a trial's result depends on, to refuse a study of something else.
        first: a point to try before any other.

    Raises:
        UsageError: when Optuna is missing, or the file holds something else.
    """

    def __init__(self, path: Path, search: Search, direction: str, setup: dict[str, Any], first: Point | None = None) -> None:
        optuna = import_optuna()
        self.path = path
        self.search = search
        self.higher = direction == "higher"
        self._locks = path.with_name(f"{path.name}.locks")
        self._locks.mkdir(parents=True, exist_ok=True)
        self._held: dict[int, FileLock] = {}
        self._turn = FileLock(self._locks / "turn")
        with self._turn:
            try:
                self._study = optuna.create_study(
                    storage=_storage(path),
                    study_name="cclight",
                    direction="maximize" if self.higher else "minimize",
                    load_if_exists=True,
                )
            except Exception as error:  # SQLAlchemy, sqlite3 and json each have their own
                raise UsageError(f"{path} is no study ({' '.join(str(error).split())[:160]}): give another --study") from error
            kept = self._study.user_attrs.get(_SETUP)
            if kept is None:
                self._study.set_user_attr(_SETUP, setup)
                if first is not None and search.sampler != "grid":
                    self._study.enqueue_trial(first)
            elif differences := [key for key in sorted(kept.keys() | setup.keys()) if kept.get(key) != setup.get(key)]:
                key = differences[0]
                raise UsageError(
                    f"{path} holds a study of something else ({key} is {kept.get(key)!r} there, {setup.get(key)!r} here): give "
                    f"another --study or --output"
                )

    def trials(self) -> Iterator[tuple[Trial, Point]]:
        """Trials to run, until the search's number of them is done, here or elsewhere; each must be told before the next."""
        while True:
            with self._turn:
                self._bury()
                # In one look: another process may tell a trial at any time, which then must not be missed on both sides.
                states = [trial.state.name for trial in self._study.get_trials(deepcopy=False)]
                done, running = states.count("COMPLETE") + states.count("PRUNED"), states.count("RUNNING")
                trial = self._ask() if done + running < self.search.trials else None
                if trial is not None:
                    self._held[trial.number] = FileLock(self._locks / str(trial.number))
                    self._held[trial.number].acquire()
            if trial is not None:
                yield trial, {parameter.key: parameter.suggest(trial) for parameter in self.search.space}
            elif done >= self.search.trials:
                return
            else:
                time.sleep(0.5)  # others are at the last trials: they may be killed yet

    def tell(self, trial: Trial, metrics: dict[str, float] | None = None, reason: str | None = None) -> FrozenTrial:
        """Note how a trial ended: with the metrics, or, where its settings cannot be used, with the reason."""
        import optuna

        if metrics is not None:
            trial.set_user_attr(METRICS, metrics)
            for constraint in self.search.constraint:
                trial.set_constraint(str(constraint), constraint.violation(metrics[constraint.metric]))
            self._study.tell(trial, metrics[self.search.objective])
        else:
            trial.set_user_attr(REASON, reason)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        lock = self._held.pop(trial.number)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        return self._study.trials[trial.number]

    def done(self) -> list[FrozenTrial]:
        """The trials that ended, with metrics or with a reason, in order."""
        return self._in_state("COMPLETE", "PRUNED")

    def ranking(self) -> list[FrozenTrial]:
        """The complete trials, the best first; those that keep every constraint before those that do not."""

        def key(trial: FrozenTrial) -> tuple[float, float]:
            missed = sum(max(0.0, violation) for violation in trial.constraints.values())
            assert trial.value is not None
            return missed, -trial.value if self.higher else trial.value

        return sorted(self._in_state("COMPLETE"), key=key)

    def _in_state(self, *states: str) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name in states]

    def _bury(self) -> None:
        """Mark running trials whose process is gone as failed, and line their points up again."""
        import optuna

        for trial in self._in_state("RUNNING"):
            lock = FileLock(self._locks / str(trial.number), timeout=0)
            with contextlib.suppress(Timeout), lock:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                if len(trial.params) == len(self.search.space):
                    self._study.enqueue_trial(trial.params)

    def _ask(self) -> Trial:
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        seed = (self.search.seed + len(trials)) % 2**32
        if self.search.sampler == "tpe":
            at_random = min(10, self.search.trials // 3)
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random)
        else:
            self._study.sampler = optuna.samplers.RandomSampler(seed=seed)
        if self.search.sampler == "grid" and not self._in_state("WAITING"):
            taken = {_key(_point(trial)) for trial in self._in_state("RUNNING", "COMPLETE", "PRUNED")}
            self._study.enqueue_trial(next(point for point in self.search.grid() if _key(point) not in taken))
        return self._study.ask()


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def import_optuna() -> Any:
    """Optuna, quiet.

    Raises:
        UsageError: when it, or matplotlib for the picture at the end, is not installed.
    """
    try:
        import matplotlib  # noqa: F401 - missed now, not after the last trial
        import optuna
    except ImportError as error:
        raise UsageError(f"it needs Optuna and matplotlib ({error}): pip install 'cclight[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def write_best(path: Path, trial: FrozenTrial, search: Search, note: str) -> None:
    """Write a trial's settings as a configuration that `cclight predict --config` takes on top of the one searched."""
    tree: dict[str, Any] = {}
    for key, value in trial.params.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in trial.user_attrs[METRICS].items())
    missed = "" if feasible(trial) else f"\n# No trial kept {' and '.join(map(str, search.constraint))}: this one came closest."
    head = f"# {note}\n# Trial {trial.number}: {metrics}.{missed}\n"
    write_whole(path, (head + yaml.safe_dump(tree, sort_keys=False)).encode())


def write_trials(path: Path, trials: list[FrozenTrial], search: Search) -> None:
    """Write every trial that ended as a line: its number, settings, metrics, whether it is feasible, or why it failed."""
    keys = [parameter.key for parameter in search.space]
    names = list(dict.fromkeys(name for trial in trials for name in trial.user_attrs.get(METRICS, {})))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["trial", *keys, *names, "feasible", REASON], lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        metrics = trial.user_attrs.get(METRICS)
        end = {"feasible": feasible(trial)} if metrics is not None else {REASON: trial.user_attrs[REASON]}
        writer.writerow({"trial": trial.number, **trial.params, **(metrics or {}), **end})
    write_whole(path, text.getvalue().encode())


def write_picture(path: Path, trials: list[FrozenTrial], best: FrozenTrial, search: Search, label: str) -> None:
    """Draw the objective over each parameter: a panel for each, filled where the constraints are kept, the best starred."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(search.space) + 0.6, 3.2), layout="constrained")
    panels = figure.subplots(1, len(search.space), sharey=True, squeeze=False)[0]
    for axes, parameter in zip(panels, search.space, strict=True):
        worded = any(isinstance(value, (str, bool)) or value is None for value in parameter.values)

        def place(trial: FrozenTrial, key: str = parameter.key, worded: bool = worded) -> Any:
            return str(trial.params[key]) if worded else trial.params[key]

        for kept, face, name in ((False, "none", "misses a constraint"), (True, "tab:blue", "feasible")):
            some = [trial for trial in trials if feasible(trial) == kept]
            if some:
                x, y = [place(trial) for trial in some], [trial.value for trial in some]
                axes.scatter(x, y, s=22, facecolors=face, edgecolors="tab:blue", alpha=0.8, label=name)
        axes.scatter(
            [place(best)],
            [best.value],
            s=140,
            marker="*",
            color="tab:red",
            label=f"best: {place(best):.4g}" if not worded else f"best: {place(best)}",
            zorder=3,
        )
        if parameter.log:
            axes.set_xscale("log")
        axes.set_xlabel(parameter.key.rpartition(".")[2])
        axes.legend(fontsize="x-small")
    panels[0].set_ylabel(label)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_whole(path, buffer.getvalue())


def _storage(path: Path) -> BaseStorage:
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend

    if path.suffix == ".log":
        return storages.JournalStorage(JournalFileBackend(str(path)))
    return storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}})


def _point(trial: FrozenTrial) -> Point:
    """A trial's point; one that has only been lined up knows it as fixed parameters."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _key(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in point.items()))
