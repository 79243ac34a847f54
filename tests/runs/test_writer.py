"""Writing on threads: the order of files and what follows them, their errors, and no more memory than a bound."""

import pickle
import threading
import time
from concurrent.futures import wait
from functools import partial

import pytest
import torch

from cclight.errors import RunError
from cclight.runs import writer
from cclight.runs.folder import RunFolder
from cclight.runs.writer import Writer


def slowly(content, seconds=0.1):
    def make():
        time.sleep(seconds)
        return content

    return make


def test_what_follows_comes_after_every_file_before_it(tmp_path):
    w, seen = Writer(), []
    for number in range(8):
        w.write(tmp_path / str(number), 1, slowly(b"x", 0.02 * (8 - number)))
        w.then(lambda: seen.append(len(list(tmp_path.glob("[0-9]")))))
    w.flush()
    assert len(seen) == 8
    assert all(there > number for number, there in enumerate(seen))


def test_nobody_waits_for_the_files(tmp_path):
    w, start = Writer(), time.perf_counter()
    for number in range(4):
        w.write(tmp_path / str(number), 1, slowly(b"x", 0.5))
        w.then(lambda: None)
    assert time.perf_counter() - start < 0.4
    w.flush()
    assert len(list(tmp_path.iterdir())) == 4


def test_an_error_comes_with_a_later_call_and_nothing_follows_the_file(tmp_path):
    w, seen, told = Writer(), [], threading.Event()
    w.write(tmp_path / "missing" / "a", 1, lambda: b"x" * told.wait(60))
    w.then(lambda: seen.append("record"))
    told.set()
    wait([future for future, _ in w._waiting])
    with pytest.raises(RunError, match=r"Could not write .*/missing/a \(No such file"):
        w.write(tmp_path / "b", 1, lambda: b"y")
    with pytest.raises(RunError, match="/missing/a"):
        w.flush()  # for the record that did not follow
    w.flush()
    assert seen == []
    assert list(tmp_path.iterdir()) == []


def test_what_follows_comes_after_the_files_that_are_prepared_before_it(tmp_path):
    w, seen, begun = Writer(), [], threading.Event()

    def prepare(number):
        begun.wait(60)
        for part in range(3):
            w.write(tmp_path / f"{number}-{part}", 1, slowly(b"x", 0.01))

    for number in range(3):
        w.prepare(1, partial(prepare, number))
        w.then(lambda: seen.append(len(list(tmp_path.glob("[0-9]-[0-9]")))))
    assert not seen
    begun.set()
    w.flush()
    assert len(seen) == 3
    assert all(there >= 3 * (number + 1) for number, there in enumerate(seen))


@pytest.mark.parametrize("culprit", ["action", "file"])
def test_an_error_of_a_preparation_comes_with_a_later_call_and_nothing_follows_it(culprit, tmp_path):
    w, seen = Writer(), []

    def prepare():
        w.write(tmp_path / "a", 1, slowly(b"x"))
        w.write(tmp_path / ("missing/b" if culprit == "file" else "b"), 1, lambda: b"x")
        if culprit == "action":
            raise RunError("Could not write missing/b")

    w.prepare(1, prepare)
    w.then(lambda: seen.append("record"))
    with pytest.raises(RunError, match="missing/b"):
        w.flush()
    assert seen == []
    assert (tmp_path / "a").read_bytes() == b"x"  # what was begun is ended before the error is told


def test_preparations_hold_no_more_than_the_bound(monkeypatch):
    monkeypatch.setattr(writer, "_BYTES", 100)
    w, held, most, lock = Writer(), [], [0], threading.Lock()

    def prepare():
        time.sleep(0.01)
        with lock:
            held.pop()

    for number in range(10):
        with lock:
            held.append(number)
            most[0] = max(most[0], len(held))
        w.prepare(40, prepare)
    w.flush()
    assert most[0] <= 3  # two wait, one is handed over


def test_whoever_is_faster_than_the_disk_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_BYTES", 100)
    w, held, most, lock = Writer(), [], [0], threading.Lock()

    def content():
        time.sleep(0.01)
        with lock:
            held.pop()
        return b"x"

    for number in range(20):
        with lock:
            held.append(number)
            most[0] = max(most[0], len(held))
        w.write(tmp_path / str(number), 40, content)
    w.flush()
    assert most[0] <= 4  # two wait, one is handed over, one more may be on its way to the disk
    assert len(list(tmp_path.iterdir())) == 20


def test_a_copy_for_another_process_has_nothing_to_write(tmp_path):
    w = Writer()
    w.write(tmp_path / "a", 1, slowly(b"x"))
    copy = pickle.loads(pickle.dumps(w))
    copy.flush()
    copy.write(tmp_path / "b", 1, lambda: b"y")
    copy.flush()
    assert (tmp_path / "b").read_bytes() == b"y"
    w.flush()


def test_no_more_than_a_few_actions_are_left_to_follow():
    w, done, begun = Writer(), [], threading.Event()
    w.then(lambda: done.append(begun.wait(10)))
    for _ in range(writer._ACTIONS - 1):
        w.then(lambda: done.append(True))
    assert not done
    threading.Timer(0.1, begun.set).start()
    w.then(lambda: done.append(True))  # waits for the first
    assert done[0] is True
    w.flush()
    assert len(done) == writer._ACTIONS + 1


def test_the_end_of_a_run_writes_what_is_waiting(tmp_path):
    run = RunFolder("sr", root=str(tmp_path))
    run.open("a: 1")
    for index in range(5):
        run.write_image("restored", index, "x", torch.zeros(3, 64, 64))
        run.append([{"index": index, "name": "x"}])
    run.abandon()
    assert list(run.finished()) == list(range(5))
