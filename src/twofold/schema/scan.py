"""One pass over rows that stay on disk: what their columns hold, and a random sample of them.

Counts, ranges, means, spreads and the levels of text are those of all rows; what takes sorted cells
(quartiles, the knots of a histogram, the turns of times) is taken from the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from twofold.data import arrow
from twofold.data.files import OpenFiles
from twofold.data.table import Table
from twofold.data.threads import ahead
from twofold.errors import DataError
from twofold.schema.batches import Reader
from twofold.schema.infer import Statistics, fences, reach_of

Array = NDArray[Any]
Item = TypeVar("Item")
_BATCH_ROWS, _BATCH_CELLS = 8192, 2**20  # stay in the processor's cache
_ADDED_UP = ("_n", "_low", "_high", "_only_01", "_whole", "_sum", "_squares", "_total", "_last")
_MOST_ROWS, _MOST_CELLS, _LEAST_ROWS = 100_000, 4_000_000, 5_000  # of a sample
_EXACT_ROWS = 2**22  # up to so many, as many rows are held out as are asked for, not about so many
_FENCE_PARTS, _FENCE_ROWS, _FENCE_CELLS = 24, 1024, 2**22
_LEAST_BATCH = 64  # rows, however wide


@dataclass(frozen=True)
class RowSampler:
    """Which rows are held out, and which are in the sample: a matter of a row's number alone.

    Every row has a number between 0 and 2**64 from its own number and a seed. Rows below `held_out`
    are held out; of the others, those below `sampled` are the sample, in the order of their
    numbers, which is random.
    """

    seed: int
    held_out: int
    sampled: int

    @classmethod
    def of(cls, seed: int, n_rows: int, n_held_out: int, n_sampled: int) -> RowSampler:
        """Draw so many rows, or about so many where there are millions."""
        both = min(n_rows, n_held_out + n_sampled)
        ends = [n_held_out, both]
        if n_rows <= _EXACT_ROWS:
            numbers = np.sort(cls(seed, 0, 0).numbers(0, n_rows))
            limits = [2**64 if n >= n_rows else int(numbers[n]) for n in ends]
        else:
            limits = [min(2**64, int(n / n_rows * 2**64)) for n in ends]
        return cls(seed, *limits)

    def numbers(self, first: int, n_rows: int) -> NDArray[np.uint64]:
        """Return the numbers of rows that follow each other.

        They are those of a SplitMix64 generator (Steele, Lea and Flood, 2014, "Fast Splittable
        Pseudorandom Number Generators", figure 17).
        """
        gamma = np.uint64(0x9E3779B97F4A7C15)
        start = np.uint64((self.seed + (first + 1) * 0x9E3779B97F4A7C15) % 2**64)
        z = start + np.arange(n_rows, dtype=np.uint64) * gamma
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))

    def trains(self, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which rows are trained on."""
        return self._from(numbers, self.held_out)

    @staticmethod
    def _from(numbers: NDArray[np.uint64], limit: int) -> NDArray[np.bool_]:
        if limit >= 2**64:
            return np.zeros(len(numbers), dtype=bool)
        return numbers >= np.uint64(limit)

    def in_sample(self, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which rows are in the sample."""
        return self.trains(numbers) & ~self._from(numbers, self.sampled)


@dataclass(frozen=True)
class ScanResult:
    """What a pass over a source found out.

    Attributes
    ----------
    statistics : Statistics
        Figures of all rows.
    sample, held_out : Table
        Random rows that are trained on, in random order, and the held-out ones.
    sampler : RowSampler
        Which rows are which.
    n_train : int
        Number of rows that are trained on.
    """

    statistics: Statistics
    sample: Table
    held_out: Table
    sampler: RowSampler
    n_train: int


class Group(Protocol):
    """Workers that share a pass: those of `training.process_group`."""

    @property
    def rank(self) -> int:
        """Which worker this is, counted from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def broadcast(self, value: Item) -> Item:
        """Return the first worker's value."""

    def gather(self, value: Item) -> list[Item] | None:
        """Return the values of all workers to the first one."""


def scan(source: OpenFiles, seed: int, fraction: float, workers: Group) -> ScanResult:
    """Pass over all rows of a source once; `fraction` of them are held out.

    Each of several workers passes over its share of the parts, and all get the result.

    Raises
    ------
    DataError
        If there are no rows, cells are infinite or of invalid types, or a file turns out to be
        broken (which is skipped if the source has on_bad_file="skip").
    """
    while True:
        try:
            return _scan(source, seed, fraction, workers)
        except _Broken as broken:
            source.without(broken.part, str(broken))


class _Broken(Exception):
    """A part that could not be read."""

    def __init__(self, part: Any, text: str) -> None:
        super().__init__(part, text)
        self.part = part

    def __str__(self) -> str:
        return str(self.args[1])


def _attempted(work: Callable[[], Item]) -> tuple[Item | None, Exception | None]:
    """Return what comes of the work, or what is wrong with the rows."""
    try:
        return work(), None
    except (_Broken, DataError) as error:
        return None, error


def _result(outcome: tuple[Item | None, Exception | None]) -> Item:
    """Return the result of an attempt, or raise what was wrong."""
    value, error = outcome
    if error is not None:
        raise error
    return cast(Item, value)


def _scan(source: OpenFiles, seed: int, fraction: float, workers: Group) -> ScanResult:
    n_rows = source.n_rows
    if n_rows == 0:
        raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")
    width = int(np.prod(source.row_shape))
    most = int(min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_CELLS // width)))
    sampler = RowSampler.of(seed, n_rows, min(most, _n_held_out(n_rows, fraction)), most)
    is_first = workers.rank == 0
    usual = _attempted(lambda: _usual(source, seed)) if is_first else (None, None)
    running = _RunningStatistics(Reader(source), *_result(workers.broadcast(usual)))
    shares = workers.gather(_attempted(lambda: _share(source, running, sampler, workers)))
    merged: tuple[ScanResult | None, Exception | None] = (None, None)
    if shares is not None:
        merged = _attempted(lambda: _merged([*map(_result, shares)], running, sampler, n_rows))
    return _result(workers.broadcast(merged))


def _share(
    source: OpenFiles, running: _RunningStatistics, sampler: RowSampler, workers: Group
) -> _Share:
    """Pass over one worker's parts: as many rows as each of the others has, one after another."""
    kept: tuple[list[Any], list[Any]] = ([], [])
    n_train, n_rows = 0, source.n_rows
    own = [
        number
        for number, (part, first) in enumerate(zip(source.parts, source.first_rows, strict=True))
        if (first + part.n_rows // 2) * workers.size // n_rows == workers.rank
    ]
    for first, values in ahead(_numbers_of(source, running.reader, own)):
        running.add(values)
        numbers = sampler.numbers(first, len(values))
        trains = sampler.trains(numbers)
        n_train += int(trains.sum())
        for rows, chosen in zip(kept, (sampler.in_sample(numbers), ~trains), strict=True):
            if chosen.any():
                rows.append((numbers[chosen], values[chosen]))
    return _Share(running.state(), kept, n_train)


@dataclass
class _Share:
    """What one worker found out: figures, rows that are kept, and how many are trained on."""

    state: dict[str, Any]
    kept: tuple[list[Any], list[Any]]
    n_train: int


def _merged(
    shares: Sequence[_Share], running: _RunningStatistics, sampler: RowSampler, n_rows: int
) -> ScanResult:
    """Put the shares together; the first is that of `running` itself."""
    reader, n_train = running.reader, sum(share.n_train for share in shares)
    kept: tuple[list[Any], list[Any]] = ([], [])
    for number, share in enumerate(shares):
        codes = running.merge(share.state) if number else {}
        for rows, own in zip(kept, share.kept, strict=True):
            for _, values in own:
                for i, new in codes.items():
                    values[:, i] = arrow.looked_up(new, _places(values[:, i]))
            rows += own
    ranks = _ranks(reader)
    tables = []
    for rows in kept:
        numbers = np.concatenate([n for n, _ in rows]) if rows else np.zeros(0, np.uint64)
        cells = np.concatenate([v for _, v in rows]) if rows else running.none
        rows.clear()
        tables.append(_ranked(reader.table(cells[np.argsort(numbers)]), ranks))
    statistics = running.statistics(n_rows, tables[0].values, ranks)
    return ScanResult(statistics, tables[0], tables[1], sampler, n_train)


def _n_held_out(n_rows: int, fraction: float) -> int:
    """Return how many rows to hold out; of few rows as many as `training.split` would."""
    if fraction == 0 or n_rows < 10:
        return 0
    return int(min(max(round(fraction * n_rows), min(19, n_rows // 4)), n_rows - 2))


def _places(cells: Array) -> NDArray[np.int64]:
    """Return the positions that cells of text are, -1 for missing ones."""
    return np.where(np.isnan(cells), -1, cells).astype(np.int64)


def _numbers_of(
    source: OpenFiles, reader: Reader, chosen: Sequence[int]
) -> Iterator[tuple[int, Array]]:
    """Give the rows of the chosen parts as numbers, in order; require that none is infinite."""
    names = None if source.schema is None else tuple(source.schema.names)
    n_rows = min(_BATCH_ROWS, max(_LEAST_BATCH, _BATCH_CELLS // math.prod(source.row_shape)))
    begins: dict[int, int] = {}
    for part, first in zip(source.parts, source.first_rows, strict=True):
        begins.setdefault(part.file, first)
    for number in chosen:
        part, first = source.parts[number], source.first_rows[number]
        row, at = first, first - begins[part.file]  # counted from the start of the file
        try:
            for batch in source.batches(part, n_rows):
                values = reader.values(batch)
                values = values.reshape(len(values), -1)
                _require_finite(Table(values, names), source.name_of(part), at)
                yield row, values
                row, at = row + len(values), at + len(values)
        except _Infinite as error:
            raise DataError(str(error)) from error
        except DataError as error:
            raise _Broken(part, str(error)) from error
        if row != first + part.n_rows:
            raise _Broken(part, f"{source.name_of(part)} holds fewer rows than it says.")


class _Infinite(Exception):
    """A cell that is not a number: a fault of the rows, not of their file."""


def _require_finite(table: Table, name: str, first: int) -> None:
    try:
        table.check_finite(first, missing=True)
    except DataError as error:
        raise _Infinite(f"{name}: {error}") from error


def _usual(source: OpenFiles, seed: int) -> tuple[Array, Array, Array, Array]:
    """Return the fences of the columns, and a center and a unit to add up cells in, from a few."""
    reader, rng = Reader(source), np.random.default_rng(seed)
    chosen = rng.permutation(len(source.parts))[:_FENCE_PARTS]
    share = _FENCE_CELLS // (len(chosen) * math.prod(source.row_shape))
    n_rows = min(_FENCE_ROWS, max(_LEAST_BATCH, share))
    rows = []
    for number in sorted(chosen.tolist()):
        part = source.parts[number]
        try:
            batch = next(source.batches(part, n_rows), None)
        except DataError as error:
            raise _Broken(part, str(error)) from error
        if batch is not None:
            rows.append(reader.values(batch).astype(np.float64).reshape(len(batch), -1))
    values = np.concatenate(rows)
    nowhere = np.full(values.shape[1], np.inf)
    least, most = fences(values, -nowhere, nowhere)
    clipped = np.where(np.isfinite(values), np.clip(values, least, most), np.nan)
    there = ~np.isnan(clipped)
    n = np.maximum(there.sum(0), 1)
    scale = np.maximum(np.abs(np.where(there, clipped, 0)).max(0), 1e-300)
    center = np.where(there, clipped / scale, 0).sum(0) / n
    unit = np.sqrt((np.where(there, clipped / scale - center, 0) ** 2).sum(0) / n)
    return least, most, center * scale, np.where(unit > 0, unit * scale, 1.0)


class _RunningStatistics:
    """Adds up what `Statistics` says, batch by batch."""

    def __init__(
        self, reader: Reader, least: Array, most: Array, center: Array, unit: Array
    ) -> None:
        width = len(least)
        self.reader = reader
        self._least, self._most, self._center, self._unit = least, most, center, unit
        self._limited = bool(np.isfinite(least).any() or np.isfinite(most).any())
        self._n = np.zeros(width, np.int64)
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._only_01, self._whole = np.ones(width, dtype=bool), np.ones(width, dtype=bool)
        self._sum, self._squares = np.zeros(width), np.zeros(width)
        self._total, self._last = np.zeros(width), np.full(width, np.nan)
        self._counts = {i: np.zeros(0, np.int64) for i in reader.texts}
        self.none = np.empty((0, width), reader.dtype or np.float64)

    def add(self, values: Array) -> None:
        """Take the next rows."""
        self.none = values[:0]
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum(axis=0, dtype=np.float64)
            missing = None if np.isfinite(total).all() else np.isnan(values)
            if missing is not None and missing.any():
                total = np.nansum(values, axis=0, dtype=np.float64)
            self._total += total
        if missing is not None and not missing.any():
            missing = None
        self._last = values[-1].astype(np.float64)
        self._n += len(values) if missing is None else (~missing).sum(axis=0)
        np.fmin(self._low, np.fmin.reduce(values, axis=0), out=self._low)
        np.fmax(self._high, np.fmax.reduce(values, axis=0), out=self._high)
        free = False if missing is None else missing
        if self._only_01.any():
            self._only_01 &= ((values == 0) | (values == 1) | free).all(axis=0)
        if self._whole.any():
            self._whole &= ((values == np.round(values)) | free).all(axis=0)
        cells = np.clip(values, self._least, self._most) if self._limited else values
        cells = (cells - self._center) / self._unit
        if missing is not None:
            cells[missing] = 0
        self._sum += cells.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", cells, cells)
        for i in self._counts:
            self._count(i, values[:, i])

    def state(self) -> dict[str, Any]:
        """Return what was added up, as another worker can take it."""
        texts = {i: (text.levels, text.overfull) for i, text in self.reader.texts.items()}
        added = {name: getattr(self, name) for name in _ADDED_UP}
        return {**added, "_counts": self._counts, "texts": texts}

    def merge(self, state: dict[str, Any]) -> dict[int, Array]:
        """Add what another worker found in later rows; return the new codes of its levels."""
        self._n += state["_n"]
        np.fmin(self._low, state["_low"], out=self._low)
        np.fmax(self._high, state["_high"], out=self._high)
        self._only_01 &= state["_only_01"]
        self._whole &= state["_whole"]
        self._sum += state["_sum"]
        self._squares += state["_squares"]
        self._total += state["_total"]
        if state["_n"].any():
            self._last = state["_last"].copy()
        codes = {}
        for i, (levels, overfull) in state["texts"].items():
            text = self.reader.texts[i]
            codes[i] = text.codes_of(levels, overfull)
            if state["_n"].any():
                self._last[i] = arrow.looked_up(codes[i], _places(self._last[i : i + 1]))[0]
            found = state["_counts"][i]
            self._add(i, np.bincount(codes[i][: len(found)].astype(np.int64), found))
        return codes

    def _count(self, i: int, cells: Array) -> None:
        self._add(i, np.bincount(cells[~np.isnan(cells)].astype(np.int64)))

    def _add(self, i: int, counts: Array) -> None:
        found = counts.astype(np.int64)
        if len(found) > len(self._counts[i]):
            found[: len(self._counts[i])] += self._counts[i]
            self._counts[i] = found
        else:
            self._counts[i][: len(found)] += found

    def statistics(self, n_rows: int, sample: Array, ranks: dict[int, Array]) -> Statistics:
        """Return the figures of all rows."""
        n = np.maximum(self._n, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self._sum / n
            std = np.sqrt(np.maximum(self._squares / n - mean**2, 0)) * self._unit
            mean = self._center + mean * self._unit
        overfull = frozenset(i for i, text in self.reader.texts.items() if text.overfull)
        counts = {}
        for i, found in self._counts.items():
            n_levels = len(self.reader.texts[i].levels)
            whole = np.zeros(n_levels + 1, np.int64)
            whole[: len(found)] = found
            # In the order of the sorted levels; what has no level comes last.
            whole[ranks[i]] = whole[:n_levels].copy()
            counts[i] = whole
        last = self._last.copy()
        for i, rank in ranks.items():
            place = np.append(rank, len(rank)).astype(np.float64)
            last[i] = arrow.looked_up(place, _places(last[i : i + 1]))[0]
        # What the sample does not show cannot be settled.
        shown = ~np.isnan(sample).all(axis=0)
        return Statistics(
            np.where(shown, self._n, 0),
            mean,
            std,
            reach_of(mean, self._low, self._high, self._least, self._most),
            self._low,
            self._high,
            self._only_01 & (self._n > 0),
            self._whole & (self._n > 0),
            n_rows,
            counts,
            overfull,
            self._total,
            last,
        )


def _ranks(reader: Reader) -> dict[int, Array]:
    """Return, for each column of text, the place of each level once they are in order."""
    ranks = {}
    for i, text in reader.texts.items():
        order = text.order()
        ranks[i] = np.empty(len(order), np.int64)
        ranks[i][order] = np.arange(len(order))
    return ranks


def _ranked(table: Table, ranks: dict[int, Array]) -> Table:
    """Return a table whose text columns have their levels in order."""
    if not ranks:
        return table
    assert table.formats is not None
    formats = list(table.formats)
    for i, rank in ranks.items():
        levels = np.empty(len(rank), object)
        levels[rank] = formats[i].levels
        table.values[:, i] = arrow.looked_up(
            np.append(rank, len(rank)).astype(np.float64),
            np.where(np.isnan(table.values[:, i]), -1, table.values[:, i]).astype(np.int64),
        )
        formats[i] = replace(formats[i], levels=tuple(levels.tolist()))
    return replace(table, formats=tuple(formats))
