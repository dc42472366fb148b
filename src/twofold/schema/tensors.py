"""Tables as the network sees them: one matrix, or rows encoded when they are asked for.

A category of a hundred levels is one column of the table and a hundred inputs of the network. Where
the whole matrix would be much larger than the table, only the rows that are asked for are encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.table import Table
from twofold.schema.schema import Schema

Array = NDArray[Any]
_LARGE = 2**28  # bytes: a smaller matrix is always made
_MUCH_LARGER = 1.5  # times the table


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


def has_holes(x: Rows) -> bool:
    """Whether a cell is missing."""
    if isinstance(x, Tensor):
        return bool(torch.isnan(x.sum()))
    seen = [i for i, column in enumerate(x.schema.columns) if column.width]
    return any(bool(np.isnan(x.table.values[:, i]).any()) for i in seen)
