"""One thread that computes, and the queue in front of it, where small requests are joined.

While a call of the library runs, requests wait; when it is over, those of one verb whose rows are
of one sort go into the next call together, and their results are taken apart again. A long request
is computed part by part, and others have their turn in between.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from twofold.service.errors import Refusal
from twofold.service.jsonrows import JsonRows

logger = logging.getLogger(__name__)
_MOST_WAITING = 1_000  # requests
Result = Mapping[str, Any]  # arrays and Arrow tables with an entry per row


@dataclass(frozen=True)
class Verb:
    """Something to do with rows.

    `run` takes rows (an array, an Arrow table or `JsonRows`) and returns arrays and tables with an
    entry per row. `most_rows` are done in one call; `joins` says of rows whether they may share a
    call with others'.
    """

    name: str
    run: Callable[[Any], Result]
    most_rows: int
    joins: Callable[[Any], bool] = lambda rows: True


@dataclass(eq=False)
class _Job:
    verb: Verb
    rows: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    joins: bool
    arrived: float = field(default_factory=time.monotonic)
    started: bool = False
    dropped: bool = False
    parts: list[Result] = field(default_factory=list)
    n_done: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def fits(self, other: _Job) -> bool:
        """Whether both can go into one call."""
        return self.verb is other.verb and other.joins and _alike(self.rows, other.rows)


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, JsonRows):
        return a.fits(b)
    if isinstance(a, pa.Table):
        return bool(a.schema.equals(b.schema))
    return bool(a.dtype == b.dtype and a.shape[1:] == b.shape[1:])


class Worker:
    """Runs jobs one after the other, in a thread of its own that starts with the first one.

    Parameters
    ----------
    seconds : float
        How long a request may take, waiting included.
    batch_seconds : float
        How long a request may wait for others to share its call, while calls follow upon each
        other; 0 joins none. A request that finds the thread idle does not wait.
    on_call : callable, optional
        Told of each call of the library: the verb's name, its requests and its rows.
    """

    def __init__(
        self,
        seconds: float,
        batch_seconds: float,
        on_call: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._seconds, self._batch_seconds = seconds, batch_seconds
        self._on_call = on_call or (lambda verb, n_requests, n_rows: None)
        self._ready = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def n_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._queue)

    async def run(self, verb: Verb, rows: Any) -> Result:
        """Return what the verb makes of the rows.

        Raises
        ------
        Refusal
            Where too many requests wait, or this one has waited too long.
        """
        loop = asyncio.get_running_loop()
        joins = self._batch_seconds > 0 and _has_length(rows) and verb.joins(rows)
        job = _Job(verb, rows, loop, loop.create_future(), joins)
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
                result: Result = await job.future
                return result
        except TimeoutError:
            waited = f"{self._seconds:g} seconds"
            if not job.started:
                raise _busy(f"The service is busy: this request waited {waited}.") from None
            raise Refusal(
                504,
                f"These rows were not done within {waited}.",
                "Send fewer rows at a time, or start the service with a larger --timeout.",
            ) from None
        finally:
            job.dropped = True

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what a function gives that is to be called between the other jobs."""
        verb = Verb("call", lambda _: {"": function()}, 1, lambda _: False)
        return (await self.run(verb, None))[""]

    def open(self) -> None:
        """Take requests again after `close`."""
        self._closed, self._thread = False, None

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._ready:
                idle = not self._queue
                while not self._queue and not self._closed:
                    self._ready.wait()
                if not self._queue:
                    return
                if not idle and self._queue[0].joins:
                    self._wait_for_others(self._queue[0].arrived + self._batch_seconds)
                batch = self._next_batch()
            try:
                if batch:
                    self._run(batch)
            except Exception as error:  # whatever it is, later requests need the thread
                _deliver([(job, None, error) for job in batch])

    def _wait_for_others(self, end: float) -> None:
        """Wait until the time is over or a call would be full."""
        most = self._queue[0].verb.most_rows
        while (left := end - time.monotonic()) > 0 and not self._closed:
            if sum(_length(job.rows) for job in self._queue) >= most:
                return
            self._ready.wait(left)

    def _next_batch(self) -> list[_Job]:
        """Take the first job, and those that can go with it, in the order in which they came."""
        first = self._queue.popleft()
        if first.dropped:
            return []
        batch, n_rows = [first], _length(first.rows)
        if not first.joins or n_rows >= first.verb.most_rows:
            return batch
        left: deque[_Job] = deque()
        while self._queue:
            job = self._queue.popleft()
            if job.dropped:
                continue
            if n_rows + _length(job.rows) <= first.verb.most_rows and first.fits(job):
                batch.append(job)
                n_rows += len(job.rows)
            else:
                left.append(job)
        self._queue = left
        return batch

    def _run(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.started = True
        if len(batch) == 1:
            self._run_alone(batch[0])
            return
        verb, counts = batch[0].verb, [len(job.rows) for job in batch]
        try:
            self._on_call(verb.name, len(batch), sum(counts))
            whole = verb.run(_joined([job.rows for job in batch]))
        except Exception:
            # One of them is at fault, or their joining is: each gets the answer that it gets alone.
            for job in batch:
                self._run_alone(job)
            return
        ends = np.cumsum(counts).tolist()
        results = [_cut(whole, end - n, end) for end, n in zip(ends, counts, strict=True)]
        _deliver([(job, result, None) for job, result in zip(batch, results, strict=True)])

    def _run_alone(self, job: _Job) -> None:
        rows, most = job.rows, job.verb.most_rows
        try:
            if not _has_length(rows) or len(rows) <= most:
                self._on_call(job.verb.name, 1, _length(rows))
                _deliver([(job, job.verb.run(rows), None)])
                return
            if isinstance(rows, JsonRows):
                job.rows = rows = rows.table()
            part = _slice(rows, job.n_done, job.n_done + most)
            self._on_call(job.verb.name, int(job.n_done == 0), len(part))
            try:
                job.parts.append(job.verb.run(part))
            except Exception:
                # The whole tells the row's own number.
                job.verb.run(rows)
                raise
            job.n_done += most
            if job.n_done >= len(rows):
                _deliver([(job, _put_together(job), None)])
                return
        except Exception as error:
            _deliver([(job, None, error)])
            return
        with self._ready:
            self._queue.append(job)


def _busy(error: str) -> Refusal:
    return Refusal(503, error, "Try again later.", headers={"Retry-After": "1"})


def _has_length(rows: Any) -> bool:
    """Whether rows are cut and joined; lists go to the library as they came."""
    return isinstance(rows, np.ndarray | pa.Table | JsonRows)


def _length(rows: Any) -> int:
    return 0 if rows is None else len(rows)


def _slice(rows: Any, start: int, stop: int) -> Any:
    return rows.slice(start, stop - start) if isinstance(rows, pa.Table) else rows[start:stop]


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], JsonRows):
        return JsonRows.joined(parts)
    if isinstance(parts[0], pa.Table):
        return pa.concat_tables(parts)
    return np.concatenate(parts)


def _cut(result: Result, start: int, stop: int) -> Result:
    return {name: _slice(part, start, stop) for name, part in result.items()}


def _put_together(job: _Job) -> Result:
    try:
        return {name: _joined([part[name] for part in job.parts]) for name in job.parts[0]}
    except pa.ArrowException:
        # In a part, a column may hold nothing that tells its type.
        return job.verb.run(job.rows)


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
