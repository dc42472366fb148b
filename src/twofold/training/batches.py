"""The rows that training draws its batches from, in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.table import Table
from twofold.schema.infer import Statistics
from twofold.schema.schema import Schema
from twofold.schema.tensors import Rows, encode, has_holes, pick, take
from twofold.training.checkpoint import digest

Array = NDArray[Any]
_SAMPLE_ROWS = 1000  # that tell a table from others
# A threshold that 5 % of normal rows fall below takes 19 others, if not a quarter of all: with
# fewer, the lowest score is already too high a threshold.
_LEAST_HELD_OUT = 19
_MOST_COMPARED = 100_000  # rows: among more, no few copies matter
_PROBE_ROWS = 5_000  # enough to measure what components keep


class Source(Protocol):
    """The rows of a fit, wherever they are: what is settled on, trained on and calibrated on."""

    @property
    def sample(self) -> Table:
        """Rows in memory: all of them, or, of rows on disk, some at random that are trained on."""

    @property
    def statistics(self) -> Statistics | None:
        """Figures of all rows, where these are more than the sample."""

    def draw(self, schema: Schema, dtype: torch.dtype, device: torch.device) -> TrainingData:
        """Return the rows to train on and the held-out ones, as the network sees them."""

    def tables(self) -> Iterable[Table]:
        """Give all rows in order, part by part."""


class TrainingRows(Protocol):
    """What training passes over, epoch after epoch: rows in an order that it does not choose."""

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""

    def __len__(self) -> int:
        """Return the number of rows that one pass takes."""

    def batches(
        self,
        n_rows: int,
        generator: torch.Generator,
        buffer: Callable[[int], Tensor],
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Give every row once, in a new order, `n_rows` at a time; the last batch may be smaller.

        The order is drawn from `generator` in the call itself, and nothing after it: who goes on
        with an epoch sets the generator back, calls with the number of batches to `skip`, and has
        the same batches from there on. `buffer(n)` is where the next batch of n rows is put.
        """

    def head(self, n_rows: int) -> Tensor:
        """Return so many rows, or all there are: some at random, the same ones at every call."""

    def share(self, rank: int, size: int) -> TrainingRows:
        """Return the share of one of `size` workers: its part of each batch of the same order.

        The length stays that of all rows, and `batches` takes the size of whole batches. A part may
        be empty.
        """


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on, held-out rows, and rows in memory to fit everything else to.

    Attributes
    ----------
    rows : TrainingRows
    held_out : Tensor of shape (n, width), EncodedRows or None
    x : Tensor of shape (n, width) or EncodedRows
        Rows in memory; `positions` are those of `rows` among them, in random order.
    complete : bool
        Whether no cell is missing.
    """

    rows: TrainingRows
    held_out: Rows | None
    x: Rows
    positions: Tensor
    complete: bool

    @classmethod
    def split(
        cls,
        x: Rows,
        rng: np.random.RandomState,
        fraction: float,
        copies: NDArray[np.int64] | None = None,
        *,
        apart: bool = False,
    ) -> TrainingData:
        """Hold out a random share of rows in memory, if there are enough.

        With `copies`, `(n_rows,)`, a row counts as so many equal ones, all on the same side. With
        `apart`, rows that are equal are held out together, as long as they are few: a copy of a
        training row does not tell when a network begins to learn rows by heart.
        """
        order, n = torch.from_numpy(rng.permutation(len(x))), 0
        if fraction != 0 and len(x) >= 10:
            n = max(round(fraction * len(x)), min(_LEAST_HELD_OUT, len(x) // 4))
            n = min(n, len(x) - 2)
            if apart and isinstance(x, Tensor) and len(x) <= _MOST_COMPARED:
                order, n = _copies_together(x[order.to(x.device)].cpu().numpy(), order, n)
        held, train = order[:n], order[n:]
        if copies is not None:
            times = torch.from_numpy(copies)
            held = held.repeat_interleave(times[held])
            train = train.repeat_interleave(times[train])
            train = train[torch.from_numpy(rng.permutation(len(train)))]
        held_out = pick(x, held) if n else None
        return cls(Selection(x, train), held_out, x, train, not has_holes(x))

    def probe(self) -> Tensor:
        """Return rows to measure a trained network on: held-out ones, else some of the training."""
        if self.held_out is None:
            return self.rows.head(_PROBE_ROWS)
        return self.held_out[:_PROBE_ROWS]


class InMemory:
    """A table as a `Source`; `rng` settles which share of its rows is held out.

    With `copies`, `(n_rows,)`, a row counts as so many equal ones.
    """

    statistics = None

    def __init__(
        self,
        table: Table,
        rng: np.random.RandomState,
        fraction: float,
        copies: NDArray[np.int64] | None = None,
    ) -> None:
        self.sample, self.copies = table, copies
        self._rng, self._fraction = rng, fraction

    def weighted(self, rows: NDArray[np.int64], weight: Array) -> InMemory:
        """Return some rows, each with a weight: the number of equal ones, on average.

        It is the whole number below or above (systematic sampling; Madow and Madow, 1944).
        """
        start = self._rng.uniform() if (weight % 1).any() else 0.0
        copies = np.diff(np.floor(np.cumsum(weight) + start), prepend=0.0).astype(np.int64)
        # Weights of one are as good as none, bit by bit.
        several = None if (copies == 1).all() else copies
        return InMemory(self.sample.take(rows), self._rng, self._fraction, several)

    def repeated(self) -> InMemory:
        """Return the rows as a table that holds each as often as it counts."""
        if self.copies is None:
            return self
        every = np.arange(len(self.copies)).repeat(self.copies)
        return InMemory(self.sample.take(every), self._rng, self._fraction)

    def draw(self, schema: Schema, dtype: torch.dtype, device: torch.device) -> TrainingData:
        """Return the rows to train on and the held-out ones, as the network sees them."""
        x = encode(schema, self.sample, dtype, device)
        # Rows of few levels are equal by nature, and new rows are equal to old ones.
        apart = schema.is_table and all(column.kind != "category" for column in schema.columns)
        return TrainingData.split(x, self._rng, self._fraction, self.copies, apart=apart)

    def tables(self) -> list[Table]:
        """Return the table, the only part."""
        return [self.sample]


class Selection:
    """Some rows of a matrix or of a table, whose positions come in random order."""

    def __init__(self, x: Rows, positions: Tensor, rank: int = 0, size: int = 1) -> None:
        self.x, self.positions, self.device = x, positions, x.device
        self._rank, self._size = rank, size

    def __len__(self) -> int:
        return len(self.positions)

    def batches(
        self,
        n_rows: int,
        generator: torch.Generator,
        buffer: Callable[[int], Tensor],
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Give every row once, in a new order; `TrainingRows` says how."""
        places = self.places(n_rows, generator, skip)
        return (self._put(rows, buffer(len(rows))) for rows in places)

    def places(self, n_rows: int, generator: torch.Generator, skip: int = 0) -> Iterator[Tensor]:
        """Give the positions in `x` of the rows of each of these `batches`."""
        order = self.positions[torch.randperm(len(self), generator=generator)].to(self.device)
        whole = order.split(n_rows)[skip:]
        if self._size == 1:
            return iter(whole)
        return (rows.tensor_split(self._size)[self._rank] for rows in whole)

    def head(self, n_rows: int) -> Tensor:
        """Return the first rows of the selection."""
        return self.x[self.positions[:n_rows].to(self.device)]

    def share(self, rank: int, size: int) -> Selection:
        """Return one worker's share; `TrainingRows` says how."""
        return Selection(self.x, self.positions, rank, size)

    def _put(self, rows: Tensor, out: Tensor) -> Tensor:
        take(self.x, rows, out)
        return out


def fingerprint(schema: Schema, rows: TrainingRows, held_out: Rows | None) -> dict[str, Any]:
    """Return what tells a run's data from others: how many rows, and digests of what is in them.

    Schemas hold the scales and the levels of all rows, so a sample of the cells is enough.
    """
    samples = [rows.head(_SAMPLE_ROWS)]
    if held_out is not None:
        samples.append(next(iter(held_out.split(_SAMPLE_ROWS))))
    return {
        "training rows": len(rows),
        "held-out rows": 0 if held_out is None else len(held_out),
        "the columns": digest(json.dumps(schema.to_json())),
        "the cells": digest(*samples),
    }


def _copies_together(rows: NDArray[np.float32], order: Tensor, n: int) -> tuple[Tensor, int]:
    """Return the order, and how many rows of it are held out, so that copies are on one side."""
    whole = np.ascontiguousarray(rows)
    text = whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
    _, first, group, count = np.unique(
        text, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.where(count[group] <= max(2, n // 4), first[group], np.arange(len(rows)))
    by_group = np.argsort(place, kind="stable")
    place = place[by_group]
    while n < len(rows) - 2 and place[n] == place[n - 1]:
        n += 1
    return order[torch.from_numpy(by_group)], n
