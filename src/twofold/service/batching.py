"""One thread that works, and the queue in front of it, where requests take turns.

Work is cut into pieces of at most some 50 milliseconds. After each, the request goes to the end of
the queue; one that is gone or out of time leaves it with all it holds. While a piece is under way,
requests wait; those of one verb whose rows are of one sort go into the next call of the library
together, and their results are taken apart again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
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
    """A request's stay here."""

    task: asyncio.Task[Any] | None
    started: bool = False
    running: bool = False


@dataclass(eq=False)
class _Batch:
    """Rows of one sort, and whose they are, that go into one call."""

    done: asyncio.Future[dict[_Job, Result]]
    rows: dict[_Job, Any] = field(default_factory=dict)
    n_rows: int = 0


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
        self._jobs: set[_Job] = set()
        self._batches: dict[Any, _Batch] = {}  # that further jobs may join
        self.open()

    @property
    def n_waiting(self) -> int:
        """Requests that wait for their turn."""
        return sum(not job.running for job in list(self._jobs))

    async def run(self, verb: Verb, rows: Any, share: Share | None = None) -> Result:
        """Return what the verb makes of the rows.

        Raises
        ------
        RequestError
            If too many requests wait, or this one has taken too long.
        """
        # Lists, which make no rows, go to the library as they came.
        is_rows = isinstance(rows, np.ndarray | pa.Table | JsonRows)
        joins = (
            self._batch_seconds > 0 and is_rows and len(rows) <= min(_JOINED_ROWS, verb.step - 1)
        )

        async def work(job: _Job) -> Any:
            found = await self._shared(job, verb, rows) if joins else None
            steps = verb.by_parts(rows, share, self._on_call)
            return await self._alone(job, steps) if found is None else found

        result: Result = await self._done(work)
        return result

    async def call(self, steps: Steps) -> Any:
        """Return what steps come to that take turns with the other jobs."""
        return await self._done(lambda job: self._alone(job, steps))

    async def _done(self, work: Callable[[_Job], Awaitable[Any]]) -> Any:
        if self._closed or len(self._jobs) >= _MOST_WAITING:
            raise RequestError.busy(f"{len(self._jobs):,} requests are under way already.")
        if not self._jobs:
            self._turn = asyncio.Lock()  # first come, first served; each belongs to one event loop
        job = _Job(asyncio.current_task())
        self._jobs.add(job)
        try:
            async with asyncio.timeout(self._seconds):
                return await work(job)
        except asyncio.CancelledError:
            if self._closed:
                raise RequestError.busy("The service is ending.") from None
            raise
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
            self._jobs.discard(job)

    def open(self) -> None:
        """Take requests."""
        self._closed, self._thread = False, ThreadPoolExecutor(1, "twofold")

    def close(self) -> None:
        """Refuse what waits and what comes, and end the thread after the piece under way."""
        self._closed = True
        for job in self._jobs:
            if job.task is not None:
                job.task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _alone(self, job: _Job, steps: Steps) -> Any:
        """Return what steps come to; after each piece, it is the others' turn."""
        is_last, result = False, None
        while not is_last:
            async with self._turn:
                is_last, result = await self._in_thread([job], _next_piece, steps)
        return result

    async def _shared(self, job: _Job, verb: Verb, rows: Any) -> Result | None:
        """Return what rows come to in a call with others', or None if it has to be done alone."""
        key = verb, _sort_of(rows)
        batch = self._batches.get(key)
        if batch is None or batch.n_rows + len(rows) > verb.step:
            call = self._call(key, verb)
            batch = self._batches[key] = _Batch(asyncio.ensure_future(call))
        batch.rows[job] = rows
        batch.n_rows += len(rows)
        try:
            return (await asyncio.shield(batch.done)).get(job)
        finally:
            batch.rows.pop(job, None)

    async def _call(self, key: Any, verb: Verb) -> dict[_Job, Result]:
        """Run a batch when its turn has come; until then, more jobs may join it."""
        batch = self._batches[key]
        try:
            if len(self._jobs) > 1:
                await asyncio.sleep(self._batch_seconds)
            async with self._turn:
                self._close(key, batch)
                rows = dict(batch.rows)
                found: dict[_Job, Result] = await self._in_thread(rows, self._together, verb, rows)
                return found
        finally:
            self._close(key, batch)

    def _close(self, key: Any, batch: _Batch) -> None:
        if self._batches.get(key) is batch:
            del self._batches[key]

    async def _in_thread(self, jobs: Iterable[_Job], function: Any, *given: Any) -> Any:
        for job in jobs:
            job.started = job.running = True
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, function, *given)
        finally:
            for job in jobs:
                job.running = False

    def _together(self, verb: Verb, rows: Mapping[_Job, Any]) -> dict[_Job, Result]:
        """Return what jobs come to in one call, or nothing if they have to be done alone."""
        ends = np.cumsum([len(part) for part in rows.values()]).tolist()
        try:
            self._on_call(verb.name, len(rows), ends[-1])
            whole = verb.call(joined(list(rows.values())))
        except Exception:
            return {}  # one of them is at fault, or their joining is, or all are gone
        return {
            job: {name: part_of(part, start, end) for name, part in whole.items()}
            for job, start, end in zip(rows, [0, *ends[:-1]], ends, strict=True)
        }


def _next_piece(steps: Steps) -> tuple[bool, Any]:
    """Do the next piece; return whether it was the last one, and what the steps come to."""
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None


def _sort_of(rows: Any) -> Any:
    """Return what rows have to have in common to go into one call."""
    if isinstance(rows, JsonRows):
        return rows.names, rows.types
    if isinstance(rows, pa.Table):
        # An answer that shares its dictionary with another's rows would show theirs.
        is_apart = any(map(pa.types.is_dictionary, rows.schema.types))
        return object() if is_apart else rows.schema
    return rows.dtype, rows.shape[1:]


def _length(rows: Any) -> int:
    return len(rows) if isinstance(rows, np.ndarray | pa.Table | JsonRows) else 0


def part_of(rows: Any, start: int, stop: int) -> Any:
    """Return some of the rows of an array or a table."""
    return rows.slice(start, stop - start) if isinstance(rows, pa.Table) else rows[start:stop]


def joined(parts: Sequence[Any]) -> Any:
    """Return the rows of several arrays or tables as one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], JsonRows):
        return JsonRows.joined(parts)
    if isinstance(parts[0], pa.Table):
        # In a part, a column may hold nothing that shows its type.
        return pa.concat_tables(parts, promote_options="permissive")
    return np.concatenate(parts)
