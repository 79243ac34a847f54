"""Turns at the processor's cores: how much goes on at once beside the main thread, which drives the network.

More threads than cores take turns at the main one's expense: where each core but one has a thread of ours, and no more, it
finds a core whenever it has something to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any


class Turns:
    """Who enters waits for one of the cores that the main thread leaves, of which there is at least one.

    To wait for a disk or for another thread is no work: leave first.

    Args:
        cores: of which the main thread needs one.
    """

    def __init__(self, cores: int) -> None:
        self._free = max(cores - 1, 1)
        self._freed = threading.Condition()

    def __enter__(self) -> None:
        with self._freed:
            while self._free < 1:
                self._freed.wait()
            self._free -= 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give()

    def wait(self, futures: Collection[Future[Any]]) -> None:
        """For the main thread, until all are done: its core is there for the others meanwhile; whoever has it then keeps it."""
        if all(future.done() for future in futures):
            return
        self._give()
        try:
            wait(futures)
        finally:
            with self._freed:
                self._free -= 1

    def _give(self) -> None:
        with self._freed:
            self._free += 1
            self._freed.notify()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


turns = Turns(_cores())
