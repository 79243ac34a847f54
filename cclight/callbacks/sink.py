"""Sink: where restorations go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from cclight.runs.results import Run


class Sink(Callback):
    """A Lightning callback that takes each batch on its way, on every rank, and the results of the whole run at the end.

    No sink depends on its place among others: every one of them has seen the last batch and its own `teardown` before the
    first receives the results (`cclight.pipeline.predict` sees to it).
    """

    def receive(self, results: Run) -> None:
        """Take the results; called once, on rank 0. Where nodes share no folder, once on each of them, for its own images."""
