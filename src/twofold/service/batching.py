"""One thread that works, and the queue in front of it, where requests take turns.

Work is cut into pieces of at most some 50 milliseconds. After each, the request goes to the end of
the queue; one that is gone or out of time leaves it with all it holds. While a piece is under way,
requests wait; those of one verb whose rows are of one sort go into the next call of the library
together, and their results are taken apart again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from twofold.service.errors import RequestError
from twofold.service.json_rows import JsonRows
from twofold.service.memory import Share, size_of

logger = logging.getLogger(__name__)
_MOST_WAITING = 1_000  # requests
_PIECE_SECONDS = 0.05
_LEAST_PART = 8  # a piece never has less than this part of a verb's `most_rows`
_CLOSE_SECONDS = 1.0  # that a piece under way may take when the thread is to end
Result = Mapping[str, Any]  # arrays and Arrow tables with an entry per row
Steps = Generator[Any, None, Any]  # work that stops after each piece, and returns its result


@dataclass(eq=False)
class Verb:
    """Something to do with rows.

    `run` takes rows (an array or an Arrow table) and returns arrays and tables with an
    entry per row. At most `most_rows` are done in one call, and fewer if these take too long.
    `joins` says of rows whether they may share a call with others'. `check` raises the error that
    rows have, piece by piece, with their numbers in the whole.
    """

    name: str
    run: Callable[[Any], Result]
    most_rows: int
    joins: Callable[[Any], bool] = lambda rows: True
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


@dataclass(eq=False)
class _Job:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    verb: Verb | None = None
    rows: Any = None
    steps: Steps | None = None
    share: Share | None = None
    joins: bool = False
    arrived: float = field(default_factory=time.monotonic)
    started: bool = False
    dropped: bool = False

    def fits(self, other: _Job) -> bool:
        """Whether both can go into one call."""
        return self.verb is other.verb and other.joins and _alike(self.rows, other.rows)

    def drop(self) -> None:
        """Let go of everything; steps under way end with their piece."""
        self.dropped, self.rows, self.steps = True, None, None


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, JsonRows):
        return a.fits(b)
    if isinstance(a, pa.Table):
        return bool(a.schema.equals(b.schema))
    return bool(a.dtype == b.dtype and a.shape[1:] == b.shape[1:])


class BatchingExecutor:
    """Runs pieces of jobs in turn, in a thread of its own that starts with the first one.

    Parameters
    ----------
    seconds : float
        How long a job may take, waiting included.
    batch_seconds : float, default=0
        How long a request may wait for others to share its call, while calls follow upon each
        other; 0 joins none. A request that finds the thread idle does not wait.
    on_call : callable, optional
        Receives each call of the library: the verb's name, its requests and its rows.
    """

    def __init__(
        self,
        seconds: float,
        batch_seconds: float = 0.0,
        on_call: Callable[[str, int, int], None] = lambda verb, n_requests, n_rows: None,
    ) -> None:
        self._seconds, self._batch_seconds, self._on_call = seconds, batch_seconds, on_call
        self._ready = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._running: tuple[_Job, ...] = ()
        self._thread: threading.Thread | None = None
        self._closed = False

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
        joins = self._batch_seconds > 0 and _has_length(rows) and verb.joins(rows)
        job = self._job(verb=verb, rows=rows, joins=joins, share=share)
        result: Result = await self._done(job)
        return result

    async def call(self, steps: Steps) -> Any:
        """Return what steps come to that take turns with the other jobs."""
        return await self._done(self._job(steps=steps))

    def _job(self, **given: Any) -> _Job:
        loop = asyncio.get_running_loop()
        return _Job(loop, loop.create_future(), **given)

    async def _done(self, job: _Job) -> Any:
        with self._ready:
            if self._closed or len(self._queue) >= _MOST_WAITING:
                raise _busy(f"{len(self._queue):,} requests are waiting already.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="twofold", daemon=True)
                self._thread.start()
            self._queue.append(job)
            self._ready.notify()
        try:
            async with asyncio.timeout(self._seconds):
                return await job.future
        except TimeoutError:
            waited = f"{self._seconds:g} seconds"
            if not job.started:
                raise _busy(f"The service is busy: this request waited {waited}.") from None
            raise RequestError(
                504,
                f"The request was not done within {waited}.",
                "Ask for fewer rows at a time, or start the service with a larger --timeout.",
            ) from None
        finally:
            with self._ready:
                job.drop()
                if not job.future.done() or job.future.cancelled():
                    self._queue = deque(other for other in self._queue if other is not job)

    def open(self) -> None:
        """Take requests again after `close`."""
        self._closed, self._thread = False, None

    def drop(self) -> None:
        """Refuse what waits and what comes, and end the thread after the piece under way."""
        with self._ready:
            self._closed = True
            left, self._queue = [*self._queue, *self._running], deque()
            self._ready.notify()
        ended = _busy("The service is ending.")
        _deliver([(job, None, ended) for job in left])

    def close(self) -> None:
        """Drop everything, and wait briefly for the thread."""
        self.drop()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        while True:
            with self._ready:
                idle, self._running = not self._queue, ()
                while not self._queue and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                if not idle and self._queue[0].joins:
                    self._wait_for_others(self._queue[0].arrived + self._batch_seconds)
                batch = self._running = self._next_batch()
            try:
                self._run(batch)
            except Exception as error:  # whatever it is, later requests need the thread
                _deliver([(job, None, error) for job in batch])
            del batch

    def _wait_for_others(self, end: float) -> None:
        """Wait until the time is over or a call would be full."""
        verb = self._queue[0].verb
        while (left := end - time.monotonic()) > 0 and not self._closed and self._queue:
            if verb is None or sum(_length(job.rows) for job in self._queue) >= verb.step:
                return
            self._ready.wait(left)

    def _next_batch(self) -> tuple[_Job, ...]:
        """Take the first job, and those that can go with it, in the order in which they came."""
        if not self._queue:
            return ()
        first = self._queue.popleft()
        if first.dropped:
            return ()
        batch, n_rows = [first], _length(first.rows)
        if first.verb is None or not first.joins or n_rows >= first.verb.step:
            return (first,)
        left: deque[_Job] = deque()
        while self._queue:
            job = self._queue.popleft()
            if job.dropped:
                continue
            if n_rows + _length(job.rows) <= first.verb.step and first.fits(job):
                batch.append(job)
                n_rows += len(job.rows)
            else:
                left.append(job)
        self._queue = left
        return tuple(batch)

    def _run(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        for job in batch:
            job.started = True
        verb, parts = batch[0].verb, [job.rows for job in batch]
        if verb is None or len(batch) == 1:
            self._run_piece(batch[0])
            return
        counts = [_length(rows) for rows in parts]
        try:
            self._on_call(verb.name, len(batch), sum(counts))
            whole = verb.call(joined(parts))
        except Exception:
            # One of them is at fault, or their joining is: each gets the answer that it gets alone.
            for job in batch:
                job.joins = False
            with self._ready:
                self._queue.extendleft(reversed(batch))
            return
        ends = np.cumsum(counts).tolist()
        results = [_cut(whole, end - n, end) for end, n in zip(ends, counts, strict=True)]
        _deliver([(job, result, None) for job, result in zip(batch, results, strict=True)])

    def _run_piece(self, job: _Job) -> None:
        """Do a job's next piece, and put it to the end of the queue if there are more."""
        verb, rows, steps = job.verb, job.rows, job.steps
        if job.dropped:
            return
        try:
            if steps is None:
                assert verb is not None
                if not _has_length(rows) or len(rows) <= verb.step:
                    self._on_call(verb.name, 1, _length(rows))
                    _deliver([(job, verb.call(rows), None)])
                    return
                steps = self._by_parts(verb, rows, job.share)
                job.rows, job.joins = None, False
            next(steps)
        except StopIteration as end:
            _deliver([(job, end.value, None)])
        except Exception as error:
            _deliver([(job, None, error)])
        else:
            with self._ready:
                if not job.dropped and not self._closed:
                    job.steps = steps
                    self._queue.append(job)

    def _by_parts(self, verb: Verb, rows: Any, share: Share | None) -> Steps:
        rows = rows.table() if isinstance(rows, JsonRows) else rows
        parts: list[Result] = []
        done = 0
        while done < len(rows):
            part = part_of(rows, done, done + verb.step)
            self._on_call(verb.name, int(done == 0), len(part))
            try:
                parts.append(verb.call(part))
            except Exception:
                if verb.check is not None:
                    # The whole has the row's own number.
                    yield from verb.check(rows)
                raise
            if share is not None:
                share.hold(size_of(parts[-1]))
            done += len(part)
            if done < len(rows):
                yield
        return {name: joined([part[name] for part in parts]) for name in parts[0]}


def _busy(error: str) -> RequestError:
    return RequestError(503, error, "Try again later.", headers={"Retry-After": "1"})


def _has_length(rows: Any) -> bool:
    """Whether rows are cut and joined; lists go to the library as they came."""
    return isinstance(rows, np.ndarray | pa.Table | JsonRows)


def _length(rows: Any) -> int:
    return 0 if rows is None else len(rows)


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


def _cut(result: Result, start: int, stop: int) -> Result:
    return {name: part_of(part, start, stop) for name, part in result.items()}


def _deliver(done: Sequence[tuple[_Job, Result | None, Exception | None]]) -> None:
    """Hand results over to the event loops that wait for them, all of a loop's at once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Any]] = {}
    for entry in done:
        by_loop.setdefault(entry[0].loop, []).append(entry)
    for loop, entries in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, entries)
        except RuntimeError:
            logger.info("%d requests were given up before they were answered", len(entries))


def _settle(entries: Sequence[tuple[_Job, Result | None, Exception | None]]) -> None:
    for job, result, error in entries:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
