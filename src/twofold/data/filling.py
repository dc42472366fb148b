"""Frames whose missing cells are filled, with all other cells as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import arrow, frames, notation
from twofold.data.table import Format, Table
from twofold.errors import DataError

Array = NDArray[Any]


def fill(frame: Any, table: Table, filled: Array, formats: Sequence[Format] | None = None) -> Any:
    """Return a copy of a frame with numbers of `filled` in the places of its missing cells.

    All other cells are copied as they are, and not by way of the table's numbers. A cell that is
    NaN in `filled` too stays missing. `formats` has the levels that text in `filled` is counted by,
    where they are not the table's; a category that the frame lacks is added to its categories.
    """
    own = table.given or table.formats or ()
    parts: dict[int, Any] = {}
    columns = zip(
        frames.columns_of(table.values), frames.columns_of(filled), own, formats or own, strict=True
    )
    for position, (seen, cells, form, trained) in enumerate(columns):
        empty = np.isnan(seen) & ~np.isnan(cells)
        apart = trained.type != form.type and {trained.type, form.type} != {"number", "boolean"}
        if table.container == "arrow" and notation.is_as_written(frame.schema.field(position)):
            if empty.any():
                column = arrow.chunked(frame.column(position))
                fitting, fitted = (
                    (cells[empty], trained) if apart else _in_levels_of(form, cells[empty], trained)
                )
                parts[position] = _fill_written(column, empty, fitting, fitted)
        elif apart and empty.all():
            # Nothing in the column says what it holds, so it becomes what it was in training.
            name = (table.names or ())[position]
            alone = frames.give_back(
                cells[:, None], table.container, [name], table.index, [trained]
            )
            parts[position] = frames.column_of(alone, 0, table.container)
        elif empty.any():
            column = frames.column_of(frame, position, table.container)
            translate = _as_written if apart and trained.type != "text" else _in_levels_of
            fitting, form = translate(form, cells[empty], trained)
            parts[position] = _FILLERS[table.container](column, empty, fitting, form)
    if table.container == "pandas":
        frame = frame.copy()
        for position, series in parts.items():
            frame.isetitem(position, series)
        return frame
    if table.container == "polars":
        return frame.with_columns(*parts.values())
    new = [parts.get(i, frame.column(i)) for i in range(table.n_columns)]
    fields = [field.with_type(c.type) for field, c in zip(frame.schema, new, strict=True)]
    if isinstance(frame, pa.RecordBatch):
        new = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in new]
    return type(frame).from_arrays(new, schema=pa.schema(fields, frame.schema.metadata))


def _in_levels_of(form: Format, cells: Array, trained: Format) -> tuple[Array, Format]:
    """Return text cells as positions in the levels of `form`, which those it lacks are added to.

    Where `form` is one of numbers, they are the numbers that the texts are.
    """
    if trained.type != "text" or trained.levels == form.levels:
        return cells, form
    if form.type != "text":
        texts = [trained.levels[code] for code in arrow.positions(cells, trained)[0]]
        try:
            return np.array([float(notation.FLAGS.get(str(t).lower(), t)) for t in texts]), form
        except ValueError as error:
            raise DataError(
                f"A column of numbers has missing cells that would become text: {error}. Pass the "
                f"column as text."
            ) from None
    place = {level: position for position, level in enumerate(form.levels)}
    codes, _ = arrow.positions(cells, trained)
    known = {code: _like(trained.levels[code], form.levels) for code in np.unique(codes).tolist()}
    for level in known.values():
        place.setdefault(level, len(place))
    rank = np.full(len(trained.levels), np.nan)
    rank[list(known)] = [place[level] for level in known.values()]
    return rank[codes], replace(form, levels=tuple(place))


def _like(level: Any, levels: Sequence[Any]) -> Any:
    """Return a level of text as the number that it is, if the levels are numbers."""
    if not levels or isinstance(levels[0], str) or not isinstance(level, str):
        return level
    try:
        return type(levels[0])(float(notation.FLAGS.get(level.lower(), level)))
    except ValueError:
        return level


def _as_written(form: Format, cells: Array, trained: Format) -> tuple[Array, Format]:
    """Return numbers or times as positions in the levels of `form`, which new ones are added to.

    If `form` is one of numbers, they are times that are written as such.
    """
    new: list[Any] = arrow.written(cells, trained).to_pylist()
    if form.type != "text":
        return np.array(new, np.float64), form
    if form.levels and not isinstance(form.levels[0], str):
        new = [type(form.levels[0])(cell) for cell in cells]
    place = {level: position for position, level in enumerate(form.levels)}
    for level in new:
        place.setdefault(level, len(place))
    return np.array([float(place[level]) for level in new]), replace(form, levels=tuple(place))


def _fill_arrow(column: Any, empty: Array, cells: Array, form: Format) -> Any:
    return arrow.filled(arrow.chunked(column), empty, cells, form)


def _fill_written(column: Any, empty: Array, cells: Array, form: Format) -> Any:
    """Fill cells that are as a file has them with new ones in their column's notation."""
    new = arrow.written(cells, form)
    rows = np.arange(len(column))
    rows[empty] = len(column) + np.arange(len(cells))
    both = pa.chunked_array(
        [*arrow.chunked(column).chunks, *arrow.chunked(new).chunks], pa.string()
    )
    return both.take(pa.array(rows))


def _fill_polars(series: Any, empty: Array, cells: Array, form: Format) -> Any:
    import polars as pl

    if isinstance(series.dtype, pl.Categorical):  # whose categories may not be those of others
        text = _fill_polars(series.cast(pl.String), empty, cells, form)
        return text.cast(series.dtype)
    named = isinstance(series.dtype, pl.Enum)
    new = frames.polars_series(cells, form, frames.polars_dtype(form) if named else series.dtype)
    rows = np.arange(len(series))
    rows[empty] = len(series) + np.arange(len(cells))
    if new.dtype != series.dtype:  # there was nothing in it, or its categories are more now
        series = series.cast(new.dtype)
    return pl.concat([series, new.alias(series.name)]).gather(rows)


def _fill_pandas(series: Any, empty: Array, cells: Array, form: Format) -> Any:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype) and len(dtype.categories) < len(form.levels):
        known = len(dtype.categories)
        added = frames.pandas_dtype(form).categories[known:] if known else list(form.levels)
        series = series.cat.add_categories(added)
    new = frames.pandas_array(cells, form, series.dtype)
    if isinstance(dtype, pd.SparseDtype):  # which lets no cell be set
        dense = series.to_numpy().copy()
        dense[empty] = new
        return pd.Series(dense, series.index).astype(dtype)
    array = series.array.copy()
    array[empty] = new
    return pd.Series(array, series.index, series.dtype, copy=False)


_FILLERS = {"arrow": _fill_arrow, "pandas": _fill_pandas, "polars": _fill_polars}
