"""Work in threads comes in order, ends with whoever asks, and survives an interrupt."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from twofold.data.threads import ahead, in_threads


def test_items_made_ahead_come_in_order() -> None:
    assert list(ahead(range(50), 3)) == list(range(50))


def test_an_error_made_ahead_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    found: list[int] = []
    with pytest.raises(KeyError, match="second"):
        found.extend(ahead(items()))
    assert found == [1]


def test_the_thread_ends_when_nobody_waits_for_items() -> None:
    before = _thread._count()
    made = ahead(iter(range(10**9)))
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert _thread._count() <= before + 1  # it has said that it ends, and does


def test_each_item_has_its_place() -> None:
    assert in_threads(lambda i: i * i, range(100), 4) == [i * i for i in range(100)]
    assert in_threads(str, [], 4) == []


def test_error_is_that_of_the_first_item() -> None:
    second = threading.Event()

    def work(i: int) -> None:
        if i == 0:
            second.wait(20)
        elif i == 1:
            second.set()
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item 0"):
        in_threads(work, range(10), 2)


def test_interrupt_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Interrupted:
        """A queue at which the main thread is interrupted once, after it was woken."""

        was = False

        def __init__(self) -> None:
            self._queue: SimpleQueue[object] = SimpleQueue()
            self.put = self._queue.put

        def get(self) -> object:
            item = self._queue.get()
            is_main = threading.current_thread() is threading.main_thread()
            if item is None and is_main and not Interrupted.was:
                Interrupted.was = True
                raise KeyboardInterrupt
            return item

    monkeypatch.setattr("twofold.data.threads.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_threads(made.append, range(100), 3)
    n = len(made)
    assert n == len(set(made))
    assert in_threads(str, range(3), 3) == ["0", "1", "2"]
    assert len(made) == n
