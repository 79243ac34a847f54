"""One trial of a search: a restoration of the configuration's photographs in memory, of which nothing but numbers remains.

The prior is loaded once. No run folder is made; the pictures that FID and KID are measured on lie in a temporary folder while
the trial lasts, where the search wants those.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback, NothingRestored
from cclight.commands.predict import PredictCLI
from cclight.commands.tune.search import Point, Search
from cclight.errors import UsageError, suggestion
from cclight.metrics.fid import FID, KID
from cclight.metrics.quantity import Quantity, Unavailable
from cclight.runs.folder import RunFolder
from cclight.runs.records import Key, Record
from cclight.runs.results import Run

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Unusable(Exception):
    """A trial whose settings give no result; the message says why."""


class Evaluation:
    """Restores and measures at a point of the space, in this process and in memory.

    Args:
        base: arguments of `cclight predict`.
        search: what is searched.

    Attributes:
        wanted: the metrics that the search looks at, the objective first.
        quantities: what the trials measure, by name; known after `check`.
        own: the configuration's own point, None where the space does not hold it; known after `check`.
    """

    def __init__(self, base: list[str], search: Search) -> None:
        class Ours(_Trial):
            priors: ClassVar[dict[str, Any]] = {}  # of this search alone

        self._cli = Ours
        self._base = base
        self._search = search
        self.wanted = list(dict.fromkeys([search.objective, *(constraint.metric for constraint in search.constraint)]))
        self.quantities: dict[str, Quantity] = {}
        self.own: Point | None = None
        Ours.distances_wanted = not {FID.name, KID.name}.isdisjoint(self.wanted)

    def check(self) -> dict[str, Any]:
        """Try whether every parameter takes the ends of its range, and whether the trials can measure what is wanted.

        Returns:
            What a trial's result depends on: the configuration and the search.

        Raises:
            UsageError: where one does not.
        """
        import torch

        first = {parameter.key: parameter.ends()[0] for parameter in self._search.space}
        points = [first, *({**first, p.key: end} for p in self._search.space for end in p.ends()[1:])]
        for point in points:
            try:
                self._build(point)
            except (ValueError, TypeError, UsageError) as error:  # noqa: PERF203
                changed = [key for key in point if point[key] != first[key]] or list(point)
                raise UsageError(f"{', '.join(f'{key}={point[key]}' for key in changed)}: {error}") from error
        cli = self._build({})
        config = _flat(yaml.safe_load(cli.text))
        if all(parameter.takes(config.get(parameter.key)) for parameter in self._search.space):
            self.own = {parameter.key: config[parameter.key] for parameter in self._search.space}
        cli.datamodule.setup("predict")
        metrics = cli.metrics
        metrics.suit(cli.datamodule)
        quantities = [*metrics.measuring.quantities, *((FID, KID) if cli.config_init.metrics.distances is not None else ())]
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
            Unusable: when an image's restoration is not finite, or a metric that is wanted is missing or not finite.
        """
        cli = self._build(point)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what there is to say is said once, by `check` or as the trial's reason
                cli.go()
        except NothingRestored as error:
            raise Unusable(str(error)) from error
        failed = [record for record in cli.metrics.records.values() if "failed" in record]
        if failed:
            count = f"{len(failed)} of {len(cli.metrics.records)} images failed"
            raise Unusable(f"{count}, {failed[0]['name']}: {failed[0]['failed']}")
        means = {name: summary.mean for name, summary in cli.metrics.summaries.items()}
        finite = {name: mean for name, mean in means.items() if mean is not None and math.isfinite(mean)}
        for name in self.wanted:
            if name not in finite:
                raise Unusable(f"{name} is unavailable: {cli.metrics.summaries[name].unavailable or 'it is not finite'}")
        return finite

    def _build(self, point: Point) -> _Trial:
        settings = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in point.items()]
        return self._cli.build([*self._base, *settings])


class _Trial(PredictCLI):
    """One trial: as `cclight predict`, with what was loaded before, and without a run folder."""

    command = "tune"
    defaults: ClassVar[dict[str, Any]] = {**PredictCLI.defaults, "devices": 1, "enable_progress_bar": False}
    priors: ClassVar[dict[str, Any]] = {}
    distances_wanted: ClassVar[bool] = False

    def before_instantiate_classes(self) -> None:
        if self.config.trainer.devices not in (1, "1"):
            raise UsageError(
                f"trials run on one device, got trainer.devices {self.config.trainer.devices}: start the command once for each "
                f"device, they share the study"
            )
        self.config.run.name = "trial"
        self.config.trainer.logger = False
        self.text = self.parser.dump(self.config, skip_link_targets=False)
        self.key = str(self.config.model.prior)
        self.config.model.prior = self.priors.get(self.key, self.config.model.prior)

    def instantiate_classes(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jsonargparse finds a ready prior in a configuration odd
            super(PredictCLI, self).instantiate_classes()
        self.priors.clear()
        self.priors[self.key] = self.model.prior  # type: ignore[misc]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super(PredictCLI, self).instantiate_trainer(**kwargs)
        asked = self.config_init.metrics
        self.run = _Nowhere()
        self.metrics = _Numbers(self.run, asked.per_image, asked.distances if self.distances_wanted else None)
        self.sinks = [self.metrics]
        return trainer

    def go(self) -> Run | None:
        from cclight import pipeline

        if self.metrics.distances is None:
            return pipeline.predict(self.model, self.datamodule, self.sinks, self.trainer)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory(prefix="cclight-tune-") as folder:
            self.run.path = Path(folder)
            sinks = [*self.sinks, ImageWriter(self.run, grid=0)]
            return pipeline.predict(self.model, self.datamodule, sinks, self.trainer)  # type: ignore[arg-type]


class _Numbers(MetricsCallback):
    """Measures as in a run, and keeps the numbers in memory."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        left_out = dict(trainer.datamodule.left_out)  # type: ignore[attr-defined]
        self._check_something_was_restored(left_out, self.records.values())
        self._summarize(self.measuring.reasons)


class _Nowhere(RunFolder):
    """A run folder that keeps no records."""

    def __init__(self) -> None:
        super().__init__("trial")

    def join(self, rank: int) -> None:
        pass

    def then(self, action: Callable[[], None]) -> None:
        action()

    def note(self, records: Iterable[Record]) -> None:
        pass

    def samples(self, evaluated: bool = True) -> dict[Key, Record]:
        return {}

    def keep(self, indices: Collection[int]) -> None:
        pass


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
