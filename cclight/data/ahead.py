"""Working ahead: what comes next is made on a thread, while what is there is worked with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cclight.cores import turns

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each begun when the one before it is handed on, and so at most one too many.

    Decoding waits for files and leaves Python's lock to others, as does whoever waits for an accelerator: one thread is enough
    for both to go on. What making an item raises comes in its place.
    """
    iterator = iter(items)

    def make() -> object:
        with turns:
            return next(iterator, _END)

    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(make)
        while True:
            turns.wait([coming])
            if (item := coming.result()) is _END:
                return
            coming = thread.submit(make)
            yield item  # type: ignore[misc]
