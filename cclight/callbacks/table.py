"""SummaryTable: the run's metrics on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cclight.runs.folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table

_ARROWS = {"higher": "↑", "lower": "↓"}


class SummaryTable(Callback):
    """Prints metrics.json as a table when the run is done. Place it after `MetricsCallback`, which writes it.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict" and trainer.is_global_zero:
            print_results(self.run)


def print_results(run: RunFolder) -> None:
    """Print the table of a finished run, what failed in it, and where it lies."""
    from rich.console import Console

    results = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
    console = Console(highlight=False)
    console.print(table_of(results, run.path.name))
    for metric in results["metrics"].values():
        if "unavailable" in metric:
            console.print(f"{metric['title']}: {metric['unavailable']}.", markup=False, soft_wrap=True)
    for record in results["failed"]:
        console.print(f"Image {record['index']} ({record['name']}): {record['failed']}.", markup=False, soft_wrap=True)
    console.print(f"{run.path}", markup=False, soft_wrap=True)


def table_of(results: dict[str, Any], title: str) -> Table:
    """The metrics as a table: mean, 95 % interval and which way is better.

    Args:
        results: the content of metrics.json.
        title: the run's name.
    """
    from rich.table import Table

    table = Table(title=f"{title}: {results['images']} images")
    table.add_column("metric")
    table.add_column("better", justify="center")
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", justify="right")
    for metric in results["metrics"].values():
        arrow, digits = _ARROWS[metric["direction"]], metric["digits"]
        if "unavailable" in metric:
            table.add_row(metric["title"], arrow, "unavailable", "")
            continue
        interval = metric["interval"]
        between = (
            "" if interval is None or interval[0] == interval[1] else f"{interval[0]:.{digits}f} ... {interval[1]:.{digits}f}"
        )
        table.add_row(metric["title"], arrow, f"{metric['mean']:.{digits}f}", between)
    return table
