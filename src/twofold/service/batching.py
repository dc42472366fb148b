"""One thread that works, and the queue in front of it, where requests take turns.

Work is cut into pieces of at most some 50 milliseconds. After each, the request goes to the end of
the queue; one that is gone or out of time leaves it with all it holds. While a piece is under way,
requests wait; those of one verb whose rows are of one sort go into the next call of the library
together, and their results are taken apart again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from twofold.service.errors import RequestError
from twofold.service.json_rows import JsonRows
from twofold.service.memory import Share, size_of

_MOST_WAITING = 1_000  # requests
_PIECE_SECONDS = 0.05
_JOINED_ROWS = 256  # a request with more gains nothing by sharing its call
_LEAST_PART = 8  # a piece never has less than this part of a verb's `most_rows`
Result = Mapping[str, Any]  # arrays and Arrow tables with an entry per row
Steps = Generator[Any, None, Any]  # work that stops after each piece, and returns its result
Done = tuple["_Job", Any, Exception | None]


@dataclass(eq=False)
class Verb:
    """Something to do with rows.

    `run` takes rows (an array or an Arrow table) and returns arrays and tables with an
    entry per row. At most `most_rows` are done in one call, and fewer if these take too long.
    `check` raises the error that rows have, piece by piece, with their numbers in the whole.
    """

    name: str
    run: Callable[[Any], Result]
    most_rows: int
    check: Callable[[Any], Steps] | None = None
    step: int = 0

    def __post_init__(self) -> None:
        self.step = self.most_rows

    def call(self, rows: Any) -> Result:
        """Run it, and note how many rows a piece should have."""
        n_rows, start = _length(rows), time.perf_counter()
        result = self.run(rows.table() if isinstance(rows, JsonRows) else rows)
        seconds = time.perf_counter() - start
        if seconds > _PIECE_SECONDS and n_rows <= self.step:
            fitting = int(n_rows * _PIECE_SECONDS / seconds)
            self.step = max(1, self.most_rows // _LEAST_PART, fitting)
        elif seconds < _PIECE_SECONDS / 2 and n_rows >= self.step:
            self.step = min(self.most_rows, 2 * self.step)
        return result

    def by_parts(
        self, rows: Any, share: Share | None, on_call: Callable[[str, int, int], None]
    ) -> Steps:
        """Run it on some rows at a time, of which the results count in `share`."""
        if _length(rows) <= self.step:
            on_call(self.name, 1, _length(rows))
            return self.call(rows)
        rows = rows.table() if isinstance(rows, JsonRows) else rows
        parts, done = list[Result](), 0
        while done < len(rows):
            part = part_of(rows, done, done + self.step)
            on_call(self.name, int(done == 0), len(part))
            try:
                parts.append(self.call(part))
            except Exception:
                if self.check is not None:
                    # The whole has the row's own number.
                    yield from self.check(rows)
                raise
            if share is not None:
                share.hold(size_of(parts[-1]))
            done += len(part)
            if done < len(rows):
                yield
        return {name: joined([part[name] for part in parts]) for name in parts[0]}


@dataclass(eq=False)
class _Job:
    """What a request waits for: steps, or a verb with rows that others' rows may join."""

    steps: Steps | None
    verb: Verb | None = None
    rows: Any = None
    arrived: float = field(default_factory=time.monotonic)
    started: bool = False

    def __post_init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fits(self, other: _Job) -> bool:
        """Whether both can go into one call."""
        return self.verb is other.verb and _alike(self.rows, other.rows)

    def settle(self, result: Any, error: Exception | None) -> None:
        """Give the request its result or error, if it still waits."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class BatchingExecutor:
    """Runs pieces of jobs in turn, in a thread of its own.

    A job may take `seconds`, waiting included. A request may wait `batch_seconds` for others to
    share its call, while calls follow upon each other; 0 joins none. `on_call` receives each call
    of the library: the verb's name, its requests and its rows. One event loop at a time uses it.
    """

    def __init__(
        self,
        seconds: float,
        batch_seconds: float = 0.0,
        on_call: Callable[[str, int, int], None] = lambda verb, n_requests, n_rows: None,
    ) -> None:
        self._seconds, self._batch_seconds, self._on_call = seconds, batch_seconds, on_call
        self._queue: deque[_Job] = deque()
        self._running: Sequence[_Job] = ()
        self._task: asyncio.Task[None] | None = None
        self.open()

    @property
    def n_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._queue)

    async def run(self, verb: Verb, rows: Any, share: Share | None = None) -> Result:
        """Return what the verb makes of the rows.

        Raises
        ------
        RequestError
            If too many requests wait, or this one has taken too long.
        """
        # Lists, which make no rows, go to the library as they came.
        is_rows = isinstance(rows, np.ndarray | pa.Table | JsonRows)
        most = min(_JOINED_ROWS, verb.step - 1)
        joins = self._batch_seconds > 0 and is_rows and len(rows) <= most
        steps = verb.by_parts(rows, share, self._on_call)
        result: Result = await self._done(_Job(steps, verb, rows) if joins else _Job(steps))
        return result

    async def call(self, steps: Steps) -> Any:
        """Return what steps come to that take turns with the other jobs."""
        return await self._done(_Job(steps))

    async def _done(self, job: _Job) -> Any:
        if self._closed or len(self._queue) >= _MOST_WAITING:
            raise RequestError.busy(f"{len(self._queue):,} requests are waiting already.")
        self._queue.append(job)
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._work())
        try:
            async with asyncio.timeout(self._seconds):
                return await job.future
        except TimeoutError:
            waited = f"{self._seconds:g} seconds"
            if not job.started:
                error = f"The service is busy: this request waited {waited}."
                raise RequestError.busy(error) from None
            raise RequestError(
                504,
                f"The request was not done within {waited}.",
                "Ask for fewer rows at a time, or start the service with a larger --timeout.",
            ) from None
        finally:
            # Let go of everything; steps under way end with their piece.
            job.steps = job.verb = job.rows = None
            if job in self._queue:
                self._queue.remove(job)

    def open(self) -> None:
        """Take requests."""
        self._closed, self._thread = False, ThreadPoolExecutor(1, "twofold")

    def close(self) -> None:
        """Refuse what waits and what comes, and end the thread after the piece under way."""
        self._closed = True
        for job in (*self._queue, *self._running):
            job.settle(None, RequestError.busy("The service is ending."))
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        """Do piece after piece, as long as there are jobs."""
        loop, idle = asyncio.get_running_loop(), True
        try:
            while self._queue and not self._closed:
                left = self._queue[0].arrived + self._batch_seconds - time.monotonic()
                if not idle and self._queue[0].verb is not None and left > 0:
                    await asyncio.sleep(left)
                idle = False
                if not (batch := self._next_batch()):
                    continue
                self._running = batch
                piece = self._together if len(batch) > 1 else self._piece
                done = await loop.run_in_executor(self._thread, piece, batch)
                for job, result, error in done:
                    job.settle(result, error)
                if not done:
                    # Each gets its next piece, or alone the answer of a call that failed.
                    again = [job for job in batch if not job.future.done()]
                    for job in again:
                        job.verb = job.rows = None
                    if len(batch) > 1:
                        self._queue.extendleft(reversed(again))
                    else:
                        self._queue.extend(again)
        finally:
            self._running = ()

    def _next_batch(self) -> Sequence[_Job]:
        """Take the first job, and those that can go with it, in the order in which they came."""
        if not self._queue:
            return ()
        first = self._queue.popleft()
        first.started = True
        if first.verb is None:
            return (first,)
        batch, n_rows, left = [first], len(first.rows), deque[_Job]()
        for job in self._queue:
            if first.fits(job) and n_rows + len(job.rows) <= first.verb.step:
                batch.append(job)
                job.started = True
                n_rows += len(job.rows)
            else:
                left.append(job)
        self._queue = left
        return batch

    def _together(self, batch: Sequence[_Job]) -> Sequence[Done]:
        """Return what all jobs come to in one call, or nothing if they have to be done alone."""
        verb, parts = batch[0].verb, [job.rows for job in batch]
        if verb is None or any(rows is None for rows in parts):
            return ()  # one is gone
        ends = np.cumsum([len(rows) for rows in parts]).tolist()
        try:
            self._on_call(verb.name, len(batch), ends[-1])
            whole = verb.call(joined(parts))
        except Exception:
            return ()  # one of them is at fault, or their joining is
        return [
            (job, {name: part_of(part, start, end) for name, part in whole.items()}, None)
            for job, start, end in zip(batch, [0, *ends[:-1]], ends, strict=True)
        ]

    def _piece(self, batch: Sequence[_Job]) -> Sequence[Done]:
        """Do a job's next piece; return what it comes to, or nothing if there are more."""
        job, steps = batch[0], batch[0].steps
        try:
            if steps is not None:
                next(steps)
        except StopIteration as end:
            return [(job, end.value, None)]
        except Exception as error:
            return [(job, None, error)]
        return ()


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, JsonRows):
        return a.fits(b)
    if isinstance(a, pa.Table):
        # An answer that shares its dictionary with another's rows would show theirs.
        return a.schema.equals(b.schema) and not any(map(pa.types.is_dictionary, a.schema.types))
    return bool(a.dtype == b.dtype and a.shape[1:] == b.shape[1:])


def _length(rows: Any) -> int:
    return len(rows) if isinstance(rows, np.ndarray | pa.Table | JsonRows) else 0


def part_of(rows: Any, start: int, stop: int) -> Any:
    """Return some of the rows of an array or a table."""
    return rows.slice(start, stop - start) if isinstance(rows, pa.Table) else rows[start:stop]


def joined(parts: Sequence[Any]) -> Any:
    """Return the rows of several arrays or tables as one."""
    if isinstance(parts[0], JsonRows):
        return JsonRows.joined(parts)
    if isinstance(parts[0], pa.Table):
        # In a part, a column may hold nothing that shows its type.
        return pa.concat_tables(parts, promote_options="permissive")
    return np.concatenate(parts)
