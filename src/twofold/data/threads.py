"""Work in threads that an interrupt at any time leaves free to end.

Ctrl-C can leave a lock of Python's own locked, as those of `queue.Queue`, `threading.Event` and
`concurrent.futures` are, and whoever joins a thread that waits for it hangs (CPython issue 74174).
So threads meet here in queues that are written in C alone.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(items: Iterable[Item], depth: int = 1) -> Iterator[Item]:
    """Give the items, while a thread of its own makes the next ones."""
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    ended: SimpleQueue[None] = SimpleQueue()
    is_left = False

    def work() -> None:
        try:
            for item in items:
                room.get()
                if is_left:
                    return
                made.put((item, None))
                del item
            made.put((None, StopIteration()))
        except BaseException as error:
            made.put((None, error))
        finally:
            ended.put(None)

    for _ in range(depth):
        room.put(None)
    _thread.start_new_thread(work, ())
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.put(None)
            yield item
            del item
    finally:
        is_left = True
        room.put(None)
        ended.get()


def in_threads(
    function: Callable[[Item], Made], items: Sequence[Item], n_threads: int
) -> list[Made]:
    """Return what a function makes of each item, in their order, several at the same time.

    An error is that of the first item that has one.
    """
    waiting: SimpleQueue[int | None] = SimpleQueue()
    wake: SimpleQueue[None] = SimpleQueue()
    made, errors, ended = dict[int, Made](), dict[int, BaseException](), list[bool]()
    is_left, n_threads, n_started = False, min(n_threads, len(items)), 0

    def work() -> None:
        while not is_left and not errors and (i := waiting.get()) is not None:
            try:
                made[i] = function(items[i])
            except BaseException as error:
                errors[i] = error
        ended.append(True)
        wake.put(None)

    def wait() -> None:
        while len(ended) < n_started:
            wake.get()

    for i in (*range(len(items)), *[None] * n_threads):
        waiting.put(i)
    try:
        for _ in range(n_threads):
            _thread.start_new_thread(work, ())
            n_started += 1
        wait()
    finally:
        is_left = True
        wait()
    if errors:
        raise errors[min(errors)]
    return [made[i] for i in range(len(items))]
