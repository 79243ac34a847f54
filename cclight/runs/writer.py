"""Writing on threads, beside the network: files as they come, and what may only follow once they are on disk.

Making levels of a picture, encoding it and waiting for the disk leave Python's lock to others, so that a restored image costs
the next one no time. No more than a bound of what is handed over is held: whoever is faster than the disk waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from cclight.runs.files import write_whole

_THREADS = 4
_BYTES = 2**28  # held at once, in all
_ACTIONS = 8  # not more are left to follow: an end by a signal loses those


class Writer:
    """Writes files on threads. For one thread to call; a copy that is sent to another process has nothing to write.

    An error of a write is raised by the next call.
    """

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(_THREADS, "files")
        self._after = ThreadPoolExecutor(1, "records")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._following: set[Future[None]] = set()
        self._held = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Writer, ()

    def write(self, path: Path, size: int, content: Callable[[], bytes]) -> None:
        """Write a file, soon.

        Args:
            path: where to.
            size: how many bytes `content` keeps in memory until then.
            content: makes what the file holds.

        Raises:
            RunError: when an earlier file could not be written.
        """
        while self._waiting and (self._waiting[0][0].done() or self._held + size > _BYTES):
            self._settle()
        self._add(self._files.submit(lambda: write_whole(path, content())), size)

    def then(self, action: Callable[[], None]) -> None:
        """Do something, soon and on one thread, when all files so far are on disk; not at all where one could not be written.

        Raises:
            RunError: when an earlier file could not be written.
        """
        while self._waiting and (self._waiting[0][0].done() or len(self._following) >= _ACTIONS):
            self._settle()
        before = [future for future, _ in self._waiting]

        def follow() -> None:
            for future in before:
                future.result()
            action()

        future = self._after.submit(follow)
        self._following.add(future)
        future.add_done_callback(self._following.discard)
        self._add(future, 0)

    def flush(self) -> None:
        """Wait until everything is on disk.

        Raises:
            RunError: the first error, when something could not be written; all else is written.
        """
        wait([future for future, _ in self._waiting])
        done, self._held = list(self._waiting), 0
        self._waiting.clear()
        for future, _ in done:
            future.result()

    def _add(self, future: Future[None], size: int) -> None:
        self._waiting.append((future, size))
        self._held += size

    def _settle(self) -> None:
        wait([self._waiting[0][0]])
        future, size = self._waiting.popleft()
        self._held -= size
        future.result()
