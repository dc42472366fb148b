"""Training on rows that stay on disk: they pass through memory in random order, pass after pass.

Parts of the files (row groups, say) are opened in random order, several at a time. Rows of all that
are open are mixed in a window, from which batches are drawn, while a thread reads the next window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.files import OpenFiles
from twofold.data.table import Table
from twofold.data.threads import ahead
from twofold.schema import tensors
from twofold.schema.batches import Reader
from twofold.schema.scan import ScanResult, scan
from twofold.schema.schema import Schema
from twofold.training import batches as rows
from twofold.training.process_group import current_workers

Array = NDArray[Any]
_WINDOW_BYTES = 8 * 2**20  # of what the network sees; up to three windows are held
_WINDOW_ROWS = 65_536
_WINDOW_BATCHES = 4  # at least so many batches are drawn from a window
_LEAST_PARTS, _MOST_PARTS, _OPEN_BYTES = 4, 8, 32 * 2**20  # open at a time
_LEAST_READ = 256  # rows
_PARTS_PER_WORKER = 8


class Stream:
    """Rows on disk as a `Source`, read in one pass to learn what is known of them.

    Parameters
    ----------
    source : OpenFiles
    seed : int
        Settles which rows are held out, and which are in the sample.
    fraction : float
        Share of the rows to hold out, of up to 100,000 rows.

    Attributes
    ----------
    sample : Table
        Rows that are trained on, in random order: what is settled on rows in memory.
    statistics : Statistics
        Figures of all rows.
    """

    def __init__(self, source: OpenFiles, seed: int, fraction: float) -> None:
        self._source = source
        self._scanned: ScanResult = scan(source, seed, fraction, current_workers())
        self.sample, self.statistics = self._scanned.sample, self._scanned.statistics

    @property
    def n_rows(self) -> int:
        """Number of all rows."""
        return self._source.n_rows

    def draw(self, schema: Schema, dtype: torch.dtype, device: torch.device) -> rows.TrainingData:
        """Return the rows to train on and the held-out ones."""
        found = self._scanned
        complete = all(
            found.statistics.n[i] == self.n_rows for i, c in enumerate(schema.columns) if c.width
        )
        held_out = None
        if found.held_out.n_rows:
            held_out = tensors.encode(schema, found.held_out, dtype, device)
        x = tensors.encode(schema, found.sample, dtype, device)
        streamed = StreamedRows(self._source, found, schema, x)
        return rows.TrainingData(streamed, held_out, x, torch.arange(len(x)), complete)

    def tables(self) -> Iterator[Table]:
        """Give all rows in order, part by part."""
        reader = Reader(self._source, _levels(self.sample))
        n_rows = self._source.chunk_rows()
        for part in self._source.parts:
            for batch in self._source.batches(part, n_rows):
                yield reader.table(reader.values(batch))


class StreamedRows:
    """Rows in files, for training; `rows.TrainingRows` says what its methods do.

    The order of the rows is a matter of the number that is drawn from the generator, and of the
    files: parts come in random order, and rows are mixed with those of other parts.
    """

    def __init__(
        self,
        source: OpenFiles,
        scanned: ScanResult,
        schema: Schema,
        sample: tensors.Rows,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self._source, self._scanned, self._schema = source, scanned, schema
        self._rank, self._size = rank, size
        # Of few parts, some workers would get many more rows than others.
        self._own_parts = size > 1 and len(source.parts) >= _PARTS_PER_WORKER * size
        self._sample, self._dtype, self.device = sample, sample.dtype, sample.device
        seen = [column.width > 0 for column in schema.columns]
        formats = scanned.sample.formats
        self._reader = Reader(source, _levels(scanned.sample), None if formats is None else seen)

    def __len__(self) -> int:
        return self._scanned.n_train

    def head(self, n_rows: int) -> Tensor:
        """Return some rows at random, the same ones at every call; at most those of the sample."""
        return self._sample[:n_rows]

    def batches(
        self,
        n_rows: int,
        generator: torch.Generator,
        buffer: Callable[[int], Tensor],
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Give every row once, in a new order; what is skipped is read all the same."""
        seed = int(torch.randint(2**62, (), generator=generator))
        if self._size == 1 or self._own_parts:
            return self._batches(seed, n_rows, buffer, skip)
        return self._parts_of(self._batches(seed, n_rows, self._room(n_rows), skip), buffer)

    def share(self, rank: int, size: int) -> StreamedRows:
        """Return one worker's share: parts of its own where there are many, else parts of batches.

        Parts differ in length, so of its own a worker may leave some rows out of a pass, or have
        none left for the last batches.
        """
        return StreamedRows(self._source, self._scanned, self._schema, self._sample, rank, size)

    def _parts_of(
        self, batches: Iterator[Tensor], buffer: Callable[[int], Tensor]
    ) -> Iterator[Tensor]:
        for batch in batches:
            part = batch.tensor_split(self._size)[self._rank]
            yield buffer(len(part)).copy_(part)

    def _room(self, n_rows: int) -> Callable[[int], Tensor]:
        room = torch.empty(n_rows, self._schema.width, dtype=self._dtype)
        return lambda n: room[:n]

    def _sizes(self, n_rows: int, skip: int) -> Iterator[int]:
        """Give how many rows this worker has in each batch."""
        size, rank = (self._size, self._rank) if self._own_parts else (1, 0)
        for start in range(skip * n_rows, len(self), n_rows):
            yield (min(n_rows, len(self) - start) + size - 1 - rank) // size

    def _batches(
        self, seed: int, n_rows: int, buffer: Callable[[int], Tensor], skip: int
    ) -> Iterator[Tensor]:
        sizes, skipped = self._sizes(n_rows, skip), skip * next(self._sizes(n_rows, 0), 0)
        filled, out = 0, None
        for number, window in enumerate(ahead(self._windows(seed, n_rows))):
            if skipped >= len(window):
                skipped -= len(window)
                continue
            # Drawn for each window on its own, so that what is skipped changes nothing.
            order = np.random.default_rng((seed, number)).permutation(len(window))
            positions = torch.from_numpy(order[skipped:])
            skipped = 0
            x = torch.from_numpy(window)
            while len(positions):
                if out is None:
                    wanted = next(sizes, None)
                    if wanted is None:
                        return
                    out = buffer(wanted)
                n = min(len(out) - filled, len(positions))
                _gather(x, positions[:n], out[filled : filled + n])
                filled, positions = filled + n, positions[n:]
                if filled == len(out):
                    yield out
                    filled, out = 0, None
        if out is not None:
            yield out[:filled]
        for _ in sizes:
            yield buffer(0)

    def _windows(self, seed: int, batch_rows: int) -> Iterator[Array]:
        """Give rows as the network sees them, some ten thousand at a time, from several parts."""
        width, dtype = self._schema.width, _numpy_dtype(self._dtype)
        most = int(_WINDOW_BYTES // (dtype.itemsize * max(1, width)))
        size = max(min(most, _WINDOW_ROWS), _WINDOW_BATCHES * batch_rows)
        n_open = _OPEN_BYTES // max(1, self._source.open_bytes())
        n_open = min(_MOST_PARTS, max(_LEAST_PARTS, n_open))
        # As many in every round, so that the last rows of a pass are not all from one part.
        n_parts = len(self._source.parts)
        n_open = math.ceil(n_parts / math.ceil(n_parts / n_open))
        step = max(_LEAST_READ, size // n_open)
        n, window = 0, np.empty((size + step, width), dtype)
        for matrix in self._mixed(seed, n_open, step, dtype):
            window[n : n + len(matrix)] = matrix
            n += len(matrix)
            if n >= size:
                yield window[:n]
                window, n = np.empty((size + step, width), dtype), 0
        if n:
            yield window[:n]

    def _mixed(self, seed: int, n_open: int, step: int, dtype: np.dtype[Any]) -> Iterator[Array]:
        """Take turns between parts in random order, `n_open` of which are open."""
        order = np.random.default_rng(seed).permutation(len(self._source.parts))
        if self._own_parts:
            order = order[self._rank :: self._size]
        waiting = deque(order.tolist())
        taking = deque(self._of_part(number, step, dtype) for number in order[:n_open].tolist())
        for _ in taking:
            waiting.popleft()
        while taking:
            part = taking.popleft()
            matrix = next(part, None)
            if matrix is not None:
                taking.append(part)
                yield matrix
            elif waiting:
                taking.appendleft(self._of_part(waiting.popleft(), step, dtype))

    def _of_part(self, number: int, step: int, dtype: np.dtype[Any]) -> Iterator[Array]:
        """Give the rows of a part that are trained on, as the network sees them."""
        part, first = self._source.parts[number], self._source.first_rows[number]
        reader = self._reader
        for batch in self._source.batches(part, step, reader.names):
            values = reader.values(batch)
            sampler = self._scanned.sampler
            trains = sampler.trains(sampler.numbers(first, len(values)))
            first += len(values)
            if not trains.all():
                values = values[trains]
            if len(values):
                matrix = self._schema.to_matrix(reader.table(values), dtype)
                yield self._schema.within_range(matrix)


def _levels(table: Table) -> list[tuple[Any, ...]] | None:
    return None if table.formats is None else [form.levels for form in table.formats]


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


def _gather(x: Tensor, positions: Tensor, out: Tensor) -> None:
    if out.device == x.device and out.dtype == x.dtype:
        torch.index_select(x, 0, positions, out=out)
    else:
        out.copy_(x[positions])
