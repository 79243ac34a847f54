"""Turns at cores: so many at once and no more, one more while the main thread waits, and none lost by an error."""

import threading
import time
from concurrent.futures import Future

import pytest

from cclight import cores
from cclight.cores import Turns
from cclight.data import ahead as working_ahead
from cclight.runs import writer
from cclight.runs.writer import Writer


class Crowd:
    """Threads that want a turn and keep it until told to leave."""

    def __init__(self, turns, size):
        self.inside, self.leave, self._lock = 0, threading.Semaphore(0), threading.Lock()
        self.threads = [threading.Thread(target=self._take, args=(turns,)) for _ in range(size)]
        for thread in self.threads:
            thread.start()

    def _take(self, turns):
        with turns:
            with self._lock:
                self.inside += 1
            assert self.leave.acquire(timeout=60)
            with self._lock:
                self.inside -= 1

    def settles_at(self, inside):
        """Whether so many are inside, and stay so few."""
        deadline = time.monotonic() + 60
        while self.inside != inside and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        return self.inside == inside

    def end(self):
        for _ in self.threads:
            self.leave.release()
        for thread in self.threads:
            thread.join(60)


@pytest.mark.parametrize(("cores", "at_once"), [(1, 1), (2, 1), (4, 3)])
def test_a_core_is_left_to_the_main_thread(cores, at_once):
    crowd = Crowd(Turns(cores), 5)
    try:
        assert crowd.settles_at(at_once)
    finally:
        crowd.end()
    assert crowd.inside == 0


def test_whoever_has_the_core_that_was_lent_keeps_it_and_the_next_waits_for_it():
    turns = Turns(2)
    crowd = Crowd(turns, 4)
    try:
        assert crowd.settles_at(1)
        awaited = Future()
        main = threading.Thread(target=turns.wait, args=([awaited],))
        main.start()
        assert crowd.settles_at(2)
        awaited.set_result(None)
        main.join(60)
        crowd.leave.release()
        assert crowd.settles_at(1)
        crowd.leave.release()
        assert crowd.settles_at(1)
    finally:
        crowd.end()


def test_an_error_gives_the_turn_back():
    turns = Turns(2)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), turns:
            raise ValueError("broken")
    crowd = Crowd(turns, 3)
    try:
        assert crowd.settles_at(1)
    finally:
        crowd.end()


def test_what_is_done_already_is_not_waited_for():
    turns, done = Turns(2), Future()
    done.set_result(None)
    turns._give = pytest.fail
    turns.wait([done])


def test_those_of_this_process_are_counted():
    assert 1 <= cores._cores() <= (cores.os.cpu_count() or 1)


def test_files_and_decoding_take_turns_while_the_main_thread_works_and_both_cores_while_it_waits(tmp_path, monkeypatch):
    turns, active, most, works = Turns(2), [0], [0], threading.Event()
    lock, both = threading.Lock(), threading.Barrier(2, timeout=60)
    monkeypatch.setattr(writer, "turns", turns)
    monkeypatch.setattr(working_ahead, "turns", turns)

    def work():
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.02)
        with lock:
            active[0] -= 1
        return b"x"

    def items():
        for _ in range(3):
            work()
            yield 0

    w, coming = Writer(), working_ahead.ahead(items())
    next(coming)
    for number in range(4):
        w.write(tmp_path / str(number), 1, work)
    w.prepare(1, work)
    w.then(works.set)
    assert works.wait(60)
    assert most[0] == 1
    assert list(coming) == [0, 0]
    for name in "ab":
        w.write(tmp_path / name, 1, lambda: b"%d" % both.wait())
    w.flush()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "a", "b"]
