"""SummaryTable: the run's metrics on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cclight.callbacks.sink import Sink
from cclight.runs.results import Run

if TYPE_CHECKING:
    from rich.table import Table

_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


class SummaryTable(Sink):
    """Prints the results as a table when the run is done."""

    def receive(self, results: Run) -> None:
        print_results(results)


def print_results(run: Run) -> None:
    """Print the table of a finished run, what failed in it, and where it lies."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(table_of(run.summary, run.path.name))
    for metric in run.metrics.values():
        if "unavailable" in metric:
            console.print(f"{metric['title']}: {metric['unavailable']}.", markup=False, soft_wrap=True)
    for record in run.summary["failed"]:
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
