"""Rows go back in the container that they came in: arrays, frames of any library, tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import filling, frames
from twofold.data.sources import as_floats
from twofold.data.table import Format, Table

Array = NDArray[Any]


def give_back(
    values: Array,
    container: str,
    names: Sequence[str],
    row_shape: Sequence[int],
    index: Any = None,
    formats: Sequence[Format] | None = None,
) -> Any:
    """Return rows `(n_rows, n_columns)` in the container that the caller's rows came in.

    With `formats`, each column of a frame has its own type again: text is looked up among the
    levels, whole numbers and times are rounded, and NaN is a missing cell. Without, all are floats.
    """
    if container in ("pandas", "polars", "arrow") and formats is not None:
        return frames.give_back(values, container, names, index, formats)
    if container == "pandas":
        pandas = frames.extra("pandas")
        labels = pandas.Index(list(names))
        return pandas.DataFrame(values, columns=labels, index=index, copy=False)
    if container == "polars":
        # Said outright, since polars reads a square array column by column.
        return frames.extra("polars").DataFrame(values, schema=list(names), orient="row")
    if container == "arrow":
        return to_arrow(values, names)
    shaped = values.reshape(len(values), *row_shape)
    if container == "torch":
        import torch

        return torch.from_numpy(shaped)
    return shaped


def to_arrow(values: Array, names: Sequence[str], formats: Sequence[Format] | None = None) -> Any:
    """Return an Arrow table of the columns of `values`, `(n_rows, n_columns)`.

    The formats may be those of any container.
    """
    return frames.to_arrow(values, names, formats)


def fill(source: Any, table: Table, filled: Array, formats: Sequence[Format] | None = None) -> Any:
    """Return a copy of the caller's rows in which missing cells, and only these, are replaced.

    Parameters
    ----------
    source : any
        The rows as they came, in memory; they are left alone.
    table : Table
        What `read` made of them.
    filled : ndarray of shape (n_rows, n_columns)
        Cells in the table's units; those that are NaN here too stay missing.
    formats : sequence of Format, optional
        Says what the positions of text in `filled` are counted by, where its levels are others than
        the table's: the training table's, say.
    """
    if table.container not in ("numpy", "torch"):
        return filling.fill(source, table, filled, formats)
    empty = np.isnan(table.values) & ~np.isnan(filled)
    if table.container == "torch":
        import torch

        tensor = source.detach().clone()
        at = torch.from_numpy(empty).reshape(tensor.shape).to(tensor.device)
        tensor[at] = torch.from_numpy(filled[empty]).to(tensor)
        return tensor
    # Lists may come as objects; whoever passes an array has chosen its type.
    chosen = isinstance(source, np.ndarray) and source.dtype.kind not in "US"
    array: Array = np.array(source if chosen else as_floats(np.asarray(source)))
    cells = filled[empty]
    # A masked array has missing cells even where its numbers are whole.
    array[empty.reshape(array.shape)] = np.rint(cells) if array.dtype.kind in "iu" else cells
    return array
