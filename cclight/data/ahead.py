"""Working ahead: what comes next is made on a thread, while what is there is worked with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each begun when the one before it is handed on, and so at most one too many.

    Decoding waits for files and leaves Python's lock to others, as does whoever waits for an accelerator: one thread is enough
    for both to go on. What making an item raises comes in its place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, iterator, _END)
            yield item  # type: ignore[misc]
