"""The lock of a run folder: one run at a time, and what is left of a killed one is waited for.

    .locks/0, 1, ...   each locked by the rank of that number while it runs, 0 by the one that has opened the folder
    .locks/holder      the run that this one has begun, in words

The operating system lets go of a lock when its process ends, however it ends, and on whatever machine (filelock). Ranks that
outlive their rank 0 keep their own locks: the next run writes its name into `holder`, which tells them to stop after the batch
in hand, and waits for them.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cclight.errors import RunError
from cclight.runs.files import write_error, write_whole

FOLDER = ".locks"


# How long a new run waits for what is left of a killed one: its other ranks stop after their current batch.
PATIENCE_SECONDS = 60.0


class RunLock:
    """A process' part in the lock of a run folder.

    Args:
        run: the run folder, which must be there to be locked.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._lock: FileLock | None = None
        self._holder = ""

    @property
    def held(self) -> bool:
        """Whether this process holds its part."""
        return self._lock is not None

    def acquire(self) -> None:
        """Take the folder, as rank 0, and wait for what is left of a killed run.

        Raises:
            RunError: when another run uses the folder, or it cannot be written to.
        """
        if not self._take(0, patience=0):
            raise RunError(self._busy(self.holder() or "another process"))
        try:
            name = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now()}"
            write_whole(self._folder / "holder", name.encode())
            for file in self._folder.iterdir():
                if file.name.isdecimal() and file.name != "0" and not _is_free(file, PATIENCE_SECONDS):
                    raise RunError(self._busy("what is left of a killed run, which stops after its current batch"))
        except BaseException:
            self.release()
            raise

    def join(self, rank: int) -> None:
        """Take part as another rank, once rank 0 has taken the folder.

        Raises:
            RunError: when the rank is still running in an earlier run.
        """
        if not self._take(rank, PATIENCE_SECONDS):
            raise RunError(self._busy(f"rank {rank} of an earlier run"))
        self._holder = self.holder()

    def check(self, rank: int) -> None:
        """Raises RunError when this rank has outlived its run and another one has begun."""
        if self._holder and (holder := self.holder()) != self._holder:
            raise RunError(f"Rank {rank} stops: {holder} has taken over the run in {self.run}.")

    def release(self) -> None:
        """Let go. The end of the process does the same."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def holder(self) -> str:
        """Who has begun the run, as it wrote into the lock's folder; nothing where nobody has."""
        try:
            return (self._folder / "holder").read_text(encoding="utf-8")
        except OSError:
            return ""

    @property
    def _folder(self) -> Path:
        return self.run / FOLDER

    def _take(self, rank: int, patience: float) -> bool:
        file = self._folder / str(rank)
        try:
            self._folder.mkdir(exist_ok=True)
            lock = FileLock(file, thread_local=False)
            lock.acquire(timeout=patience)
        except Timeout:
            return False
        except OSError as error:
            raise write_error(file, error) from error
        self._lock = lock
        return True

    def _busy(self, holder: str) -> str:
        return f"{self.run} is in use by {holder}: wait for it to end, or choose another run.name."


def _is_free(file: Path, patience: float) -> bool:
    """Whether nobody holds the lock, or lets go of it within so many seconds."""
    try:
        with FileLock(file, timeout=patience):
            return True
    except Timeout:
        return False
