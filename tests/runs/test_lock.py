"""The lock: one run in a folder, and what a killed one leaves behind is waited for."""

import os
import signal
import time

import pytest

from cclight.errors import RunError
from cclight.runs.folder import RunFolder
from tests.runs.conftest import CONFIG, python

HOLDER = """
    import os, sys, time
    from cclight.runs.folder import RunFolder
    run = RunFolder("sr", root=sys.argv[1])
    rank = int(sys.argv[2])
    run.open("a: 1") if rank == 0 else run.join(rank)
    print("ready", flush=True)
    while True:
        time.sleep(0.2)
        if rank > 0:
            run.append([{"index": 1000 + rank, "name": "x"}])
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder as some rank until it is killed."""
    processes = []

    def start(rank=0):
        process = python(HOLDER, tmp_path, rank)
        processes.append(process)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_two_runs_in_one_folder_are_refused(tmp_path, holder):
    process = holder()
    with pytest.raises(RunError, match=rf"in use by process {process.pid} on .*: wait .* run\.name"):
        RunFolder("sr", root=str(tmp_path), overwrite=True).open("a: 1")


def test_two_runs_of_one_process_too(run):
    with pytest.raises(RunError, match="in use"):
        RunFolder("sr", root=str(run.path.parent)).open(CONFIG)
    # ... and the refusal has not let go of the first one's lock.
    code = """
        import sys
        from cclight.errors import RunError
        from cclight.runs.folder import RunFolder
        try:
            RunFolder("sr", root=sys.argv[1]).open("a: 1")
        except RunError as error:
            print(error)
    """
    assert f"in use by process {os.getpid()}" in python(code, run.path.parent).communicate(timeout=60)[0]


def test_a_killed_run_does_not_block(tmp_path, holder):
    process = holder()
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder("sr", root=str(tmp_path))
    run.open("a: 1")
    run.close()


def test_ranks_that_outlive_rank_0_stop_and_are_waited_for(tmp_path, holder):
    first, second = holder(), holder(rank=1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(0.5)
    assert second.poll() is None  # what it still does counts
    run = RunFolder("sr", root=str(tmp_path))
    run.open("a: 1")
    assert second.wait(timeout=10) != 0
    assert list(run.finished()) == [1001]
    assert f"Rank 1 stops: process {os.getpid()}" in second.stderr.read()
    run.close()


def test_a_rank_that_does_not_share_the_folder_is_told(tmp_path):
    with pytest.raises(RunError, match=r"Rank 3 does not see the run folder .* file system that all"):
        RunFolder("sr", root=str(tmp_path)).join(3)


def test_a_worker_process_neither_keeps_nor_frees_it(run):
    worker = os.fork()
    if worker == 0:
        os._exit(0)  # its descriptors close with it
    os.waitpid(worker, 0)
    code = """
        import sys
        from cclight.runs.folder import RunFolder
        RunFolder("sr", root=sys.argv[1]).open("a: 1")
    """
    assert "in use" in python(code, run.path.parent).communicate(timeout=60)[1]
