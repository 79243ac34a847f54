"""The description of a search: which settings `cclight tune` may change, what it wants, and how it looks.

    sampler: tpe                 # tpe (default), random, or grid, which tries every combination
    trials: 60                   # how many trials in all; for a grid null, or fewer than all
    seed: 0
    objective: lpips             # any metric of the run: lpips, psnr, ssim, consistency, seconds, fid, ...
    constraint: {psnr: ">= 23.5"}
    space:                       # keys as on the command line of `cclight predict`
      model.sampler.init_args.guidance: {low: 0.5, high: 20, log: true}
      model.sampler.init_args.t_start: {low: 0.5, high: 0.95}
      model.sampler.init_args.schedule: {values: [alpha2, inverse_variance]}

Unless it is a grid, the first trial is the configuration as it stands, where the space holds it: the search is never worse.
Whole numbers for low and high make a parameter of whole numbers. A grid takes `values`, or `count` points from low to high,
evenly spaced or, with log, in equal ratios.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from cclight.configs import read_config
from cclight.errors import UsageError, suggestion

if TYPE_CHECKING:
    from optuna import Trial

Point = dict[str, Any]
SAMPLERS = ("tpe", "random", "grid")
MOST = 10_000  # points of a grid, or values of a parameter: more are a mistake, and Optuna is slow with them


@dataclass(frozen=True)
class Parameter:
    """One setting and the values that it may take: `values`, or the range from `low` to `high`.

    Attributes:
        key: the setting, as on the command line of `cclight predict`.
        values: the choices.
        low: the least value.
        high: the greatest value.
        log: look at ratios, not differences.
        count: how many values of the range a grid takes.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    count: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Trial) -> Any:
        """The value that Optuna chooses for a trial."""
        if self.values:
            return trial.suggest_categorical(self.key, self.values)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def takes(self, value: Any) -> bool:
        """Whether a value is one of the choices, or in the range."""
        if self.values:
            return value in self.values
        number = isinstance(value, int if self.whole else (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def grid(self) -> list[Any]:
        """The values that a grid takes, in order."""
        if self.values:
            return list(self.values)
        places = [place / (self.count - 1) for place in range(self.count)] if self.count and self.count > 1 else [0.0]
        if self.log:
            points = [self.low * (self.high / self.low) ** place for place in places]
        else:
            points = [self.low + (self.high - self.low) * place for place in places]
        if self.whole:
            return sorted({round(point) for point in points})
        return [min(max(point, self.low), self.high) for point in points]

    def ends(self) -> list[Any]:
        """The values to try for whether the setting takes them at all: both ends, and every choice that is no number."""
        numbers = [value for value in self.values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        if not numbers:
            return list(self.values) or [self.low, self.high]
        return [value for value in self.values if value not in numbers or value in (min(numbers), max(numbers))]


@dataclass(frozen=True)
class Constraint:
    """What a metric has to reach.

    Attributes:
        metric: its name.
        relation: which side of the bound is wanted.
        bound: the bound.
    """

    metric: str
    relation: Literal[">=", "<="]
    bound: float

    def violation(self, value: float) -> float:
        """By how much a value misses the bound; zero or less where it keeps it."""
        return self.bound - value if self.relation == ">=" else value - self.bound

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"


@dataclass(frozen=True)
class Search:
    """A search, as the YAML describes it.

    Attributes:
        space: the parameters.
        objective: the metric to make best.
        sampler: how points are chosen.
        constraint: what other metrics must reach.
        trials: how many trials in all.
        seed: of the choice of points.
    """

    space: tuple[Parameter, ...]
    objective: str = "lpips"
    sampler: str = "tpe"
    constraint: tuple[Constraint, ...] = ()
    trials: int = 40
    seed: int = 0

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return math.prod(len(parameter.grid()) for parameter in self.space)

    def grid(self) -> Iterator[Point]:
        """All points of a grid, one by one, the last parameter varying fastest."""
        keys = [parameter.key for parameter in self.space]
        return (dict(zip(keys, point, strict=True)) for point in itertools.product(*(p.grid() for p in self.space)))


def read_search(path: Path, trials: int | None = None) -> Search:
    """Read and check a search's YAML.

    Args:
        path: the file.
        trials: replaces the file's number of trials.

    Raises:
        UsageError: for whatever is wrong with it, in one line.
    """
    try:
        content = yaml.safe_load(read_config(path))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    try:
        return _search(content, trials)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _search(content: Any, trials: int | None) -> Search:
    known = [field.name for field in fields(Search)]
    _keys(content, known, "a search")
    sampler = content.get("sampler", "tpe")
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is one of {', '.join(SAMPLERS)}, got {sampler!r}{suggestion(str(sampler), SAMPLERS)}")
    objective = content.get("objective", "lpips")
    if not isinstance(objective, str):
        raise ValueError(f"objective is a metric's name, as lpips or psnr, got {objective!r}")
    space = content.get("space")
    if not isinstance(space, dict) or not space:
        raise ValueError("space is missing or empty: name the settings to search, as model.sampler.init_args.guidance")
    parameters = tuple(_parameter(str(key), entry, sampler) for key, entry in space.items())
    search = Search(
        parameters,
        objective,
        sampler,
        _constraints(content.get("constraint") or {}),
        _count("trials", trials if trials is not None else content.get("trials"), 40, least=1),
        _count("seed", content.get("seed"), 0, least=0),
    )
    if sampler == "grid":
        whole, asked = search.size, trials if trials is not None else content.get("trials")
        if (search.trials if asked is not None else whole) > MOST and whole > MOST:
            raise ValueError(
                f"the grid has {whole:,} points, and {MOST:,} are the most: give fewer values, or trials to take only the first"
            )
        search = Search(**{**vars(search), "trials": whole if asked is None else min(whole, search.trials)})
    return search


def _parameter(key: str, entry: Any, sampler: str) -> Parameter:
    _keys(entry, ["values", "low", "high", "log", "count"], key)
    if "values" in entry:
        if len(entry) > 1:
            raise ValueError(f"{key} has values and a range: give one of them")
        values = entry["values"]
        if not isinstance(values, list) or not values:
            raise ValueError(f"{key}.values is a list of one value or more, got {values!r}")
        if len(values) > MOST:
            raise ValueError(f"{key}.values are {len(values):,}, and {MOST:,} are the most")
        endless = [value for value in values if isinstance(value, float) and not math.isfinite(value)]
        if odd := endless + [value for value in values if isinstance(value, (dict, list))]:
            raise ValueError(f"{key}.values are finite numbers, words, true, false or null, got {odd[0]!r}")
        if len({repr(value) for value in values}) < len(values):
            raise ValueError(f"{key}.values holds a value twice: {values!r}")
        return Parameter(key, tuple(values))
    ends = [entry.get("low"), entry.get("high")]
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise ValueError(f"{key} needs values, or numbers low and high, got low: {ends[0]!r}, high: {ends[1]!r}")
    low, high = ends
    if not low < high:
        raise ValueError(f"{key} has an empty range, low {low} to high {high}: low must be less than high")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{key}.log is true or false, got {log!r}")
    if log and low <= 0:
        raise ValueError(f"{key} has a range in ratios (log: true) from low {low}: low must be above 0")
    count = entry.get("count")
    if sampler == "grid" and not (type(count) is int and count >= 2):
        raise ValueError(f"{key} is a range, of which a grid takes points: give values, or count (2 or more), got {count!r}")
    if type(count) is int and count > MOST:
        raise ValueError(f"{key}.count is {count:,}, and {MOST:,} are the most")
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Parameter(key, (), low, high, log, count)


def _constraints(entry: Any) -> tuple[Constraint, ...]:
    if not isinstance(entry, dict):
        raise ValueError(f'constraint is a metric and its bound, as {{psnr: ">= 23.5"}}, got {entry!r}')
    constraints = []
    for metric, bound in entry.items():
        match = re.fullmatch(r"\s*(>=|<=)\s*(\S+)\s*", str(bound))
        try:
            number = float(match[2]) if match else math.nan
        except ValueError:
            number = math.nan
        if match is None or not math.isfinite(number):
            raise ValueError(f'constraint {metric} is a bound as ">= 23.5" or "<= 0.2", got {bound!r}')
        constraints.append(Constraint(str(metric), match[1], number))  # type: ignore[arg-type]
    return tuple(constraints)


def _count(name: str, value: Any, default: int, least: int) -> int:
    if value is None:
        return default
    if type(value) is not int or value < least:
        raise ValueError(f"{name} is a whole number, {least} or more, got {value!r}")
    return value


def _keys(entry: Any, known: list[str], what: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} has the keys {', '.join(known)}, got {entry!r}")
    for key in entry:
        if key not in known:
            raise ValueError(f"{what} has no key {key!r}{suggestion(str(key), known) or ': it has ' + ', '.join(known)}")
