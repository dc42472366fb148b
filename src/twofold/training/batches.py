"""The rows that training draws its batches from: one matrix, or a table encoded batch by batch.

A category of a hundred levels is one column of the table and a hundred inputs of the network. Where
the whole matrix would be much larger than the table, only the rows that are asked for are encoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.table import Table
from twofold.schema.schema import Schema
from twofold.training.checkpoint import digest

Array = NDArray[Any]
_LARGE = 2**28  # bytes: a smaller matrix is always made
_MUCH_LARGER = 1.5  # times the table
_SAMPLE_ROWS = 1000  # that tell a table from others


class EncodedRows:
    """Rows of a table that become inputs when they are asked for; indexed like a matrix."""

    def __init__(
        self, schema: Schema, table: Table, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.schema, self.table, self.dtype, self.device = schema, table, dtype, device
        self.shape = (table.n_rows, schema.width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self._encode(rows if isinstance(rows, slice) else rows.cpu().numpy())

    def _encode(self, rows: slice | np.ndarray) -> Tensor:
        table = replace(self.table, values=self.table.values[rows], index=None)
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        matrix = self.schema.within_range(self.schema.to_matrix(table, dtype))
        return torch.from_numpy(matrix).to(self.device)

    def split(self, n_rows: int) -> Iterator[Tensor]:
        """Give the rows in parts of `n_rows`."""
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]


Rows = Tensor | EncodedRows


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
class Drawn:
    """Rows to train on, and what is settled on rows in memory beside them.

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
        order = self.positions[torch.randperm(len(self), generator=generator)].to(self.device)
        whole = order.split(n_rows)[skip:]
        parts = (rows.tensor_split(self._size)[self._rank] for rows in whole)
        return (self._put(rows, buffer(len(rows))) for rows in (parts if self._size > 1 else whole))

    def head(self, n_rows: int) -> Tensor:
        """Return the first rows of the selection."""
        return self.x[self.positions[:n_rows].to(self.device)]

    def share(self, rank: int, size: int) -> Selection:
        """Return one worker's share; `TrainingRows` says how."""
        return Selection(self.x, self.positions, rank, size)

    def _put(self, rows: Tensor, out: Tensor) -> Tensor:
        take(self.x, rows, out)
        return out


def encode(schema: Schema, table: Table, dtype: torch.dtype, device: torch.device) -> Rows:
    """Return what the network sees of a table, made at once where it is not too large."""
    size = table.n_rows * schema.width * (8 if dtype == torch.float64 else 4)
    if size > max(_LARGE, _MUCH_LARGER * table.values.nbytes):
        return EncodedRows(schema, table, dtype, device)
    matrix = schema.to_matrix(table, np.float64 if dtype == torch.float64 else np.float32)
    matrix = schema.within_range(matrix)
    return tensor(matrix).to(device)


def tensor(array: Array) -> Tensor:
    """Return a tensor over the same memory where that may be written to, else over a copy."""
    # A read-only array (a memory map, a view of Arrow's buffers) cannot become a tensor as it is.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def pick(x: Rows, rows: Tensor) -> Rows:
    """Return some of the rows, in the form that they have."""
    if isinstance(x, Tensor):
        return x[rows.to(x.device)]
    values = x.table.values[rows.cpu().numpy()]
    return EncodedRows(x.schema, replace(x.table, values=values, index=None), x.dtype, x.device)


def take(x: Rows, rows: Tensor, out: Tensor) -> None:
    """Put some of the rows into `out`."""
    if isinstance(x, Tensor):
        torch.index_select(x, 0, rows, out=out)
    else:
        out.copy_(x[rows])


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


def has_holes(x: Rows) -> bool:
    """Whether a cell is missing."""
    if isinstance(x, Tensor):
        return bool(torch.isnan(x.sum()))
    seen = [i for i, column in enumerate(x.schema.columns) if column.width]
    return any(bool(np.isnan(x.table.values[:, i]).any()) for i in seen)
