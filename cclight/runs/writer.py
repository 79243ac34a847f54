"""Writing on threads, beside the network: files as they come, and what may only follow once they are on disk.

Making levels of a picture, encoding it and waiting for the disk leave Python's lock to others, so that a restored image costs
the next one no time. No more than a bound of what is handed over is held: whoever is faster than the disk waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from cclight.cores import turns
from cclight.runs.files import write_whole

_THREADS = 4
_BYTES = 2**28  # held at once, in all
_ACTIONS = 8  # not more are left to follow: an end by a signal loses those


class Writer:
    """Writes files on threads. For one thread to call; a copy that is sent to another process has nothing to write.

    What `prepare` does may call `write` as well, whose files are a part of it.
    An error of a write is raised by the next call.
    """

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(_THREADS, "files")
        self._before = ThreadPoolExecutor(1, "preparations")
        self._after = ThreadPoolExecutor(1, "records")
        self._here = threading.local()
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
        prepared = getattr(self._here, "files", None)
        if prepared is None:
            self._make_room(size)

        def make() -> None:
            with turns:
                made = content()
            write_whole(path, made)

        future = self._files.submit(make)
        if prepared is None:
            self._add(future, size)
        else:
            prepared.append(future)

    def prepare(self, size: int, action: Callable[[], None]) -> None:
        """Do something that writes files, soon and on one thread; done when they are on disk, and then the next begins.

        Args:
            size: how many bytes the action, and what it writes, keep in memory until then.
            action: calls `write`.

        Raises:
            RunError: when an earlier file could not be written.
        """
        self._make_room(size)

        def prepare() -> None:
            files: list[Future[None]] = []
            self._here.files = files
            try:
                with turns:
                    action()
            finally:
                wait(files)
            for future in files:
                future.result()

        self._add(self._before.submit(prepare), size)

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
            with turns:
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
        turns.wait([future for future, _ in self._waiting])
        done, self._held = list(self._waiting), 0
        self._waiting.clear()
        for future, _ in done:
            future.result()

    def _make_room(self, size: int) -> None:
        while self._waiting and (self._waiting[0][0].done() or self._held + size > _BYTES):
            self._settle()

    def _add(self, future: Future[None], size: int) -> None:
        self._waiting.append((future, size))
        self._held += size

    def _settle(self) -> None:
        turns.wait([self._waiting[0][0]])
        future, size = self._waiting.popleft()
        self._held -= size
        future.result()
