"""Stopping on SIGTERM and SIGINT: the image in hand is dropped, what is done is said, and the process ends within two seconds.

Lightning notes SIGTERM and goes on, and a rank that waits for another in a collective runs no Python that could react. So the
handler raises `Stopped` where Python runs, so that files and the terminal are left in order; and a thread, which the operating
system wakes through a pipe (signal.set_wakeup_fd) even while the main thread waits, ends the process when that took too long.
Finished images are on disk by then: records are written through as they come, and files are there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


# What the main thread has to leave on its own, of the two seconds that the process has.
_GRACE_SECONDS = 1.2


class Stopped(BaseException):
    """A signal has asked for the end."""


class Interruption:
    """While it is entered, SIGTERM and SIGINT end the process as described above. For the main thread.

    The exit code is 128 plus the signal's number, as shells have it.

    Args:
        say: gives the line that tells what is done and how to go on; called once, and may return nothing.
        forward: passes the signal on to the processes that this one has started.
    """

    def __init__(self, say: Callable[[], str], forward: Callable[[int], None]) -> None:
        self._say = say
        self._forward = forward
        self._number = 0
        self._passed = False
        self._passing = threading.Lock()
        self._telling = threading.Lock()

    def __enter__(self) -> Interruption:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self.install()
        self._thread = threading.Thread(target=self._watch, name="interruption", daemon=True)
        self._thread.start()
        global _active
        _active = self
        return self

    def install(self) -> None:
        """Set the handlers, once more where someone has replaced them."""
        for number in SIGNALS:
            signal.signal(number, self._raise)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        global _active
        if self._number:  # whatever the signal made of the work: another rank's end breaks connections, too
            self._pass_on()
            self._end()
        _active = None
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._sender.close()  # the thread reads the end
        self._thread.join()
        self._receiver.close()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:  # once is enough
            signal.signal(other, signal.SIG_IGN)
        self._number = self._number or number
        raise Stopped

    def _watch(self) -> None:
        while number := self._receiver.recv(1):
            if number[0] in SIGNALS:
                self._number = self._number or number[0]
                self._pass_on()
                time.sleep(_GRACE_SECONDS)
                self._end()

    def _pass_on(self) -> None:
        with self._passing, contextlib.suppress(OSError, ValueError):  # they have ended, or there is no such signal here
            if not self._passed:
                self._passed = True
                self._forward(self._number)

    def _end(self) -> NoReturn:
        """Say what is done, once, and leave: the interpreter's own end can take longer than there is."""
        with self._telling:
            try:
                if line := self._say():
                    print(f"\n{line}", file=sys.stderr)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(128 + self._number)


_active: Interruption | None = None


def _forget() -> None:
    """In a forked child, as a loader's worker: its signals are its own, and its parent's pipe must not hear of them.

    Nor may the child hold the pipe open: one that outlives the work would keep the parent waiting for the pipe's end.
    """
    if _active is not None:
        signal.set_wakeup_fd(-1)
        _active._sender.close()
        _active._receiver.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
