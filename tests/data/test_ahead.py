"""Working ahead: the same items and errors in the same order, each made while the one before it is worked with."""

import threading

import pytest

from cclight.data.ahead import ahead


def test_the_items_are_the_same():
    assert list(ahead(range(5))) == list(range(5))
    assert list(ahead([])) == []
    assert list(ahead([None, False])) == [None, False]


def test_the_next_item_is_made_while_this_one_is_worked_with():
    second_made = threading.Event()

    def items():
        yield 1
        second_made.set()
        yield 2

    for item in ahead(items()):
        assert item == 2 or second_made.wait(10)


def test_no_more_than_one_is_made_ahead():
    made = []
    for worked, _ in enumerate(ahead(made.append(number) for number in range(6)), start=1):
        assert len(made) <= worked + 1
    assert made == list(range(6))


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(ahead(items()))
    assert seen == [1]


def test_whoever_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    items = ahead(iter(range(100)))
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
