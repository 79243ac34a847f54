"""Python programs in processes of their own that need not import torch and Lightning again: six seconds of each real start.

`run` and `start` take the command line that `subprocess` takes, `[sys.executable, "-m", "cclight", ...]` or a script, and run
the same program with the same arguments, folder and environment in a process forked from one that has done the imports
(multiprocessing's fork server). `ranks=2` starts a process for each rank of DDP with the environment that a cluster's launcher
gives them; as there, nobody ends the others when one dies. Variables that a library reads as it is imported come too late.
Starting, importing and being launched by Lightning are tested with `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Forked:
    """A process that was started, with the part of `subprocess.Popen` that tests use. Its output is kept in files."""

    def __init__(self, command: Sequence[str], cwd: Path | str | None, env: Mapping[str, str]) -> None:
        self.output = [tempfile.NamedTemporaryFile(prefix="cclight-test-") for _ in range(2)]  # noqa: SIM115
        self.encoding = env.get("PYTHONIOENCODING", "utf-8")
        names = [file.name for file in self.output]
        self.process = _server().Process(target=_program, args=(list(command[1:]), str(cwd or os.getcwd()), dict(env), names))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.process.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end; what it wrote to its standard output and error. Killed when it takes longer."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise subprocess.TimeoutExpired(
                self.process.name, timeout, *(Path(f.name).read_text(self.encoding) for f in self.output)
            )
        out, err = (Path(file.name).read_text(self.encoding) for file in self.output)
        return out, err


def start(command: Sequence[str], cwd: Path | str | None = None, env: Mapping[str, str] | None = None) -> Forked:
    """Start a Python program; `command` begins with the interpreter, as for `subprocess.Popen`."""
    return Forked(command, cwd, os.environ if env is None else env)


def start_ranks(
    command: Sequence[str], ranks: int, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
) -> list[Forked]:
    """Start a Python program once for each rank of DDP; plainly for one."""
    variables = dict(os.environ if env is None else env)
    if ranks == 1:
        return [start(command, cwd, variables)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    return [start(command, cwd, variables | {"LOCAL_RANK": str(rank)}) for rank in range(ranks)]


def run(
    command: Sequence[str],
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    ranks: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, in one process or one for each rank; the ranks' outputs follow each other."""
    began = time.monotonic()
    processes = start_ranks(command, ranks, cwd, env)
    try:
        texts = [process.communicate(timeout - (time.monotonic() - began)) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
    code = next((process.returncode for process in processes if process.returncode), 0)
    return subprocess.CompletedProcess(list(command), code, *("".join(parts) for parts in zip(*texts, strict=True)))


@cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    slow = [
        "cclight.commands.predict",
        "cclight.commands.fit",
        "torchvision",
        "torchmetrics",
        "datasets",
        "optuna",
        "matplotlib.pyplot",
    ]
    context.set_forkserver_preload([*slow, "tests.processes"])
    # The server looks for this module in the folder that it starts in, and a test may have gone to another.
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(here)
    return context


def _program(command: list[str], folder: str, variables: dict[str, str], output: list[str]) -> None:
    """In the forked process: become the program."""
    for number, name in enumerate(output, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
    encoding = variables.get("PYTHONIOENCODING", "utf-8")
    sys.stdout.reconfigure(encoding=encoding, errors="strict", line_buffering=True)  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = int(variables.get("LOCAL_RANK", 0))  # Lightning reads it when it is imported
    if command[0] == "-m":
        sys.argv[:], sys.path[:] = command[1:], [folder, *sys.path]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:], sys.path[:] = command, [str(Path(command[0]).parent), *sys.path]
        runpy.run_path(command[0], run_name="__main__")
