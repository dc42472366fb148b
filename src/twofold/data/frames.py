"""Data frames become tables of numbers, and numbers become frames of the same types again.

A frame is a pandas or polars `DataFrame`, or an Arrow table or record batch.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import arrow, notation
from twofold.data.arrow import Refused
from twofold.data.table import Format, Table
from twofold.errors import DataError, MissingExtraError

Array = NDArray[Any]
_SHOWN_MISTAKES = 20
_BLOCK_ROWS = 8192  # rows are turned into columns, and back, in blocks that stay in the cache
_BLOCK_COLUMNS = 8
_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (bool | np.bool_, "booleans"),
    (Real | Decimal, "numbers"),
    (datetime, "times"),
    (date, "dates"),
    (time, "times of day"),
    (timedelta, "durations"),
)


def read(frame: Any, container: str) -> Table:
    """Turn a frame into a `Table` of numbers, with a `Format` for each of its columns.

    Raises
    ------
    DataError
        Where columns hold cells that are neither numbers, text, booleans nor times, or several of
        these; every such column is named, with the row.
    """
    names = frame.schema.names if container == "arrow" else list(frame.columns)
    if not names:
        raise DataError("The table has no columns (0 feature(s)); a minimum of 1 is required.")
    if container == "arrow" and (floats := arrow.read_floats(frame)) is not None:
        plain = Table(floats[0], tuple(names), (len(names),), container, None, floats[1])
        return arrow.with_layout(plain, frame.schema)
    columns: list[Array] = []
    formats: list[Format] = []
    mistakes: list[str] = []
    remedies: dict[str, None] = {}
    for position, name in enumerate(names):
        column = column_of(frame, position, container)
        written = notation.of_field(frame.schema.field(position)) if container == "arrow" else None
        if written is not None and notation.is_as_written(frame.schema.field(position)):
            column = written.read(arrow.chunked(column))
        try:
            cells, form = _READERS[container](column)
        except Refused as reason:
            mistakes.append(f"Column '{name}' {reason}.")
            remedies[reason.remedy] = None
        else:
            columns.append(cells)
            named = container == "arrow" and notation.is_id(frame.schema.field(position))
            label = None if isinstance(name, str) else name
            formats.append(replace(form, notation=written, is_id=named, label=label))
    if mistakes:
        more = len(mistakes) - _SHOWN_MISTAKES
        shown = mistakes[:_SHOWN_MISTAKES] + [f"So it is with {more} columns more."] * (more > 0)
        raise DataError(" ".join([*shown, *remedies]))
    index = frame.index if container == "pandas" else None
    texts = tuple(str(name) for name in names)
    table = Table(_side_by_side(columns), texts, (len(texts),), container, index, tuple(formats))
    return arrow.with_layout(table, frame.schema) if container == "arrow" else table


def column_of(frame: Any, position: int, container: str) -> Any:
    """Return a column of a frame."""
    if container == "pandas":
        return frame.iloc[:, position]
    return frame.to_series(position) if container == "polars" else frame.column(position)


def _side_by_side(columns: list[Array]) -> Array:
    # float32 holds every 16-bit integer exactly; wider integers need float64.
    small = all(c.dtype.itemsize <= (4 if c.dtype.kind == "f" else 2) for c in columns)
    values = np.empty((len(columns[0]), len(columns)), np.float32 if small else np.float64)
    for start in range(0, len(values), _BLOCK_ROWS):
        block = values[start : start + _BLOCK_ROWS]
        for position, column in enumerate(columns):
            block[:, position] = column[start : start + _BLOCK_ROWS]
    return values


def columns_of(values: Array) -> Iterator[Array]:
    """Return column after column as 64-bit floats that lie side by side in memory."""
    for first in range(0, values.shape[1], _BLOCK_COLUMNS):
        some = values[:, first : first + _BLOCK_COLUMNS]
        turned = np.empty(some.shape[::-1])
        for start in range(0, len(values), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            turned[:, rows] = some[rows].T
        yield from turned


def _read_arrow(column: Any) -> tuple[Array, Format]:
    return arrow.read(arrow.chunked(column))


def _read_polars(series: Any) -> tuple[Array, Format]:
    import polars as pl

    dtype = series.dtype
    if isinstance(dtype, pl.Object):
        present = series.is_not_null()
        row = present.arg_max() if present.any() else None
        cell = "Python objects" if row is None else f"{series[row]!r} in row {row}"
        raise Refused(f"holds {cell}")
    if isinstance(dtype, pl.Categorical):
        # Its categories are shared with other frames, so the cells show which are in use.
        series = series.cast(pl.String)
    if str(dtype) in ("Int128", "UInt128"):  # Arrow has no such type
        series = series.cast(pl.Float64)
    cells, form = _read_arrow(series.to_arrow())
    name = type(dtype).__name__ if form.type == "text" else str(dtype)
    return cells, Format(form.type, name, form.levels, form.ordered)


def _read_pandas(series: Any) -> tuple[Array, Format]:
    import pandas as pd

    dtype = series.dtype
    name = _pandas_name(dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        return _read_categories(series)
    if isinstance(dtype, pd.ArrowDtype | pd.StringDtype):
        cells, form = _read_arrow(pa.array(series.array))
        return cells, Format(form.type, name, form.levels, form.ordered)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _seconds(series.dt.tz_convert(None)), Format("time", name)
    if isinstance(dtype, pd.PeriodDtype):
        return _seconds(series.dt.to_timestamp()), Format("time", name)
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return _seconds(series), Format("time" if dtype.kind == "M" else "number", name)
    if dtype.kind in "biuf":
        kind = "boolean" if dtype.kind == "b" else "number"
        if isinstance(dtype, np.dtype):
            cells = series.to_numpy()
            return cells.view(np.uint8) if dtype.kind == "b" else cells, Format(kind, name)
        # The nullable and sparse types need to know what stands for a missing number.
        plain = getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", np.float64)
        small = np.dtype(plain).itemsize <= (4 if dtype.kind == "f" else 2)
        wanted = np.float32 if small else np.float64
        return series.to_numpy(dtype=wanted, na_value=np.nan), Format(kind, name)
    missing = series.isna().to_numpy()
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _read_objects(missing, series.to_numpy())
    if missing.all():
        raise Refused(f"is of the type {dtype}")
    row = int(np.argmin(missing))
    raise Refused(f"holds {series.iloc[row]} in row {row} (type {dtype})")


_READERS = {"arrow": _read_arrow, "pandas": _read_pandas, "polars": _read_polars}


def _pandas_name(dtype: Any) -> str:
    """Name a pandas type; text types say where they keep their cells, if not where all do."""
    import pandas as pd

    if isinstance(dtype, pd.StringDtype) and dtype != pd.api.types.pandas_dtype(str(dtype)):
        return f"{dtype}({dtype.storage})"
    return str(dtype)


def _seconds(series: Any) -> Array:
    cells = series.to_numpy()
    unit, _ = np.datetime_data(cells.dtype)
    return arrow.seconds(cells.astype(np.int64), unit, np.isnat(cells))


def _read_categories(series: Any) -> tuple[Array, Format]:
    import pandas as pd

    categories = series.dtype.categories
    levels = categories.tolist()
    codes = series.cat.codes.to_numpy()
    mixed = [not isinstance(level, str | int | float | bool) for level in levels]
    if any(mixed) and categories.dtype == object:
        code = mixed.index(True)
        rows = np.flatnonzero(codes == code)
        place = f" in row {rows[0]}" if len(rows) else ""
        raise Refused(f"holds the category {levels[code]!r}{place}")
    usual = not any(mixed) and pd.Index(levels).dtype == categories.dtype
    name = "category" if usual else f"category[{_pandas_name(categories.dtype)}]"
    if any(mixed):
        levels = [str(level) for level in levels]  # timestamps, durations and intervals
    cells = arrow.looked_up(np.arange(len(levels)), codes)
    return cells, Format("text", name, tuple(levels), bool(series.dtype.ordered))


def _read_objects(missing: Array, cells: Array) -> tuple[Array, Format]:
    """Read Python objects: of one kind, which their types tell, or refused."""
    kind = _kind_of_objects(missing, cells)
    mark = repr(cells[int(np.argmax(missing))]) if missing.any() else ""
    ending = f", {mark}" if mark in ("nan", "<NA>", "NaT") else ""
    try:
        read, form = _read_arrow(pa.array(cells, mask=missing))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if kind != "numbers":
            place = _first_that_fails(str.encode, missing, cells) if kind == "text" else str(error)
            raise Refused(f"holds {kind} that cannot be read ({place})", "Correct it.") from None
        read, form = np.full(len(cells), np.nan), Format("number", "double")
        try:
            read[~missing] = cells[~missing].astype(np.float64)
        except OverflowError:
            place = _first_that_fails(float, missing, cells)
            raise Refused(
                f"holds numbers too large for 64-bit floats ({place})",
                "Divide such a column by a power of ten first.",
            ) from None
    return read, Format(form.type, f"object[{form.dtype}{ending}]", form.levels)


def _first_that_fails(read: Callable[[Any], Any], missing: Array, cells: Array) -> str:
    for row in np.flatnonzero(~missing):
        try:
            read(cells[row])
        except (UnicodeError, OverflowError):
            return f"row {row}: {cells[row]!a:.30}"
    return "nowhere in particular"


def _kind_of_objects(missing: Array, cells: Array) -> str:
    """Return the kind of all cells that are there, or raise Refused if they differ."""
    types = {type(cell) for cell in cells[~missing]}
    kinds = {t: next((kind for base, kind in _KINDS if issubclass(t, base)), "") for t in types}
    found = set(kinds.values())
    rows = np.flatnonzero(~missing)
    if "" in found:
        row = next(row for row in rows if not kinds[type(cells[row])])
        raise Refused(f"holds {cells[row]!r} in row {row}")
    if "times" in found and len(found) == 1:
        with_zone = [cells[row].tzinfo is not None for row in rows]
        if len(set(with_zone)) > 1:
            row = rows[with_zone.index(not with_zone[0])]
            raise Refused(
                f"holds times with and without a time zone (row {row}: {cells[row]!r})",
                "Give all times of a column a zone, or none.",
            )
    if len(found) <= 1 or found == {"booleans", "numbers"}:
        return "numbers" if "numbers" in found else "".join(found)
    usual = Counter(kinds[type(cells[row])] for row in rows).most_common(1)[0][0]
    row = next(row for row in rows if kinds[type(cells[row])] != usual)
    raise Refused(
        f"holds {usual} and {kinds[type(cells[row])]} (row {row}: {cells[row]!r})",
        "Make such a column one of the two: correct the cells of the other kind or leave them "
        "empty, or turn all cells into text.",
    )


def give_back(
    values: Array, container: str, names: Sequence[str], index: Any, formats: Sequence[Format]
) -> Any:
    """Return `values`, `(n_rows, n_columns)`, as a frame whose columns have their types again.

    NaN becomes a missing cell; whole numbers and times are rounded to what their type can hold.
    pandas's integers and booleans that know no missing cells become "float64" and "boolean" where
    there are some.
    """
    if container == "arrow":
        return to_arrow(values, names, formats)
    module = extra(container)
    pairs = zip(columns_of(values), formats, strict=True)
    columns = [arrow.as_text(cells, form) for cells, form in pairs]
    if container == "polars":
        parts = [polars_series(cells, form, polars_dtype(form)) for cells, form in columns]
        return module.DataFrame([s.alias(n) for s, n in zip(parts, names, strict=True)])
    if index is None:
        index = module.RangeIndex(len(values))
    arrays = [pandas_array(cells, form, pandas_dtype(form)) for cells, form in columns]
    # With the type said, for pandas would find another one for objects; and by position first,
    # since columns may share a name.
    series = {i: module.Series(a, index, a.dtype, copy=False) for i, a in enumerate(arrays)}
    frame = module.DataFrame(series, index=index, copy=False)
    frame.columns = module.Index(list(names))  # of tuples, one of several levels
    return frame


def extra(container: str) -> Any:
    """Return the module of an optional container, or raise MissingExtraError."""
    try:
        return import_module(container)
    except ImportError as error:
        raise MissingExtraError(
            f"This model gives back {container} frames, and {container} is not installed. Install "
            f"'twofold[{container}]'."
        ) from error


def to_arrow(values: Array, names: Sequence[str], formats: Sequence[Format] | None = None) -> Any:
    """Return an Arrow table of `values`; the formats may be those of another container."""
    if formats is None:
        columns = [pa.array(cells) for cells in values.T]
    else:
        pairs = zip(columns_of(values), formats, strict=True)
        given = [arrow.as_text(cells, form) for cells, form in pairs]
        formats = [form for _, form in given]
        columns = [arrow.array(cells, form, arrow.kind_of(form)) for cells, form in given]
    # From lists and not from a mapping, which would lose columns of the same name.
    fields = [pa.field(name, c.type) for name, c in zip(names, columns, strict=True)]
    for position, form in enumerate(formats or ()):
        if form.notation is not None:
            field = notation.field_of(names[position], form.notation)
            fields[position] = field.with_type(columns[position].type)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def polars_series(cells: Array, form: Format, dtype: Any) -> Any:
    """Return numbers as a polars series."""
    import polars as pl

    if dtype is None or form.type == "text" or isinstance(dtype, pl.Null):
        kind = arrow.kind_of(Format(form.type, "", form.levels))
    elif str(dtype) in ("Int128", "UInt128"):
        kind, cells = pa.float64(), np.rint(cells)
    else:
        kind = pl.Series([], dtype=dtype).to_arrow().type
    series = pl.Series(arrow.array(cells, form, kind))
    if dtype is None or (isinstance(dtype, pl.Null) and series.count()):
        return series
    return series.cast(dtype)


def polars_dtype(form: Format) -> Any:
    """Return the polars type that a format names; None where its cells decide."""
    import polars as pl

    name, _, arguments = form.dtype.partition("(")
    if form.type == "text":
        levels = [level for level in form.levels if isinstance(level, str)]
        if len(set(levels)) < len(form.levels):
            return None
        return (
            pl.Enum(levels)
            if name == "Enum"
            else {"Categorical": pl.Categorical}.get(name, pl.String)
        )
    named = getattr(pl, name, None)
    if not (isinstance(named, type) and issubclass(named, pl.DataType)):
        return None
    pairs = re.findall(r"(\w+)=('[^']*'|\w+)", arguments)
    try:
        dtype: Any = named(**{key: literal_eval(value) for key, value in pairs})
        polars_series(np.empty(0), form, dtype)  # model files may say anything: is it a type?
    except (TypeError, ValueError, pa.ArrowException, pl.exceptions.PolarsError):
        return None
    if form.type == "boolean":
        fits = isinstance(dtype, pl.Boolean)
    elif form.type == "time":
        fits = isinstance(dtype, pl.Date | pl.Datetime)
    else:
        fits = dtype.is_numeric() or isinstance(dtype, pl.Null | pl.Time | pl.Duration)
    return dtype if fits else None


def pandas_array(cells: Array, form: Format, dtype: Any) -> Any:
    """Return numbers as an array of a pandas type."""
    import pandas as pd

    missing = np.isnan(cells)
    if isinstance(dtype, pd.CategoricalDtype):
        codes, missing = arrow.positions(cells, form)
        return pd.Categorical.from_codes(np.where(missing, -1, codes), dtype=dtype)
    if isinstance(dtype, pd.ArrowDtype):
        column = arrow.chunked(arrow.array(cells, form, dtype.pyarrow_dtype))
        return pd.arrays.ArrowExtensionArray(column)
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _objects(cells, form)
    if form.type == "text":
        return pd.array(_objects(cells, form), dtype=dtype)
    if isinstance(dtype, pd.SparseDtype):
        return pd.arrays.SparseArray(_typed(cells, dtype.subtype), dtype=dtype)
    if not isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return dtype.construct_array_type()(_typed(cells, dtype.numpy_dtype), missing)
    if dtype.kind == "b" and missing.any():
        return pd.arrays.BooleanArray(cells >= 0.5, missing)
    if dtype.kind in "iu" and missing.any():
        return np.rint(cells)
    if dtype.kind in "biuf":
        return _typed(cells, dtype)
    return _pandas_times(cells, missing, dtype)


def _typed(cells: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        return cells >= 0.5
    with np.errstate(over="ignore"):
        return arrow.whole_numbers(cells, dtype) if dtype.kind in "iu" else cells.astype(dtype)


def _pandas_times(cells: Array, missing: Array, dtype: Any) -> Any:
    import pandas as pd

    freq: Any = getattr(dtype, "freq", None)
    named = "M8[us]" if isinstance(dtype, pd.PeriodDtype) else dtype.str.lstrip("|")
    unit, _ = np.datetime_data(np.dtype(named))
    ticks = arrow.ticks(cells, unit).view(f"{'m' if dtype.kind == 'm' else 'M'}8[{unit}]")
    ticks[missing] = np.array("NaT", ticks.dtype)
    if isinstance(dtype, pd.PeriodDtype):
        return pd.DatetimeIndex(ticks).to_period(freq).array
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(ticks).tz_localize("UTC").tz_convert(dtype.tz).array
    return ticks


def _objects(cells: Array, form: Format) -> Array:
    """Return Python objects, with the mark that the column has for missing ones."""
    mark: Any = {"nan": np.nan}.get(arrow.missing_mark(form))
    if arrow.missing_mark(form) in ("<NA>", "NaT"):
        mark = getattr(extra("pandas"), arrow.missing_mark(form).strip("<>"))
    if form.type == "text":
        codes, missing = arrow.positions(cells, form)
        levels = np.array([*form.levels, mark], dtype=object)
        return np.asarray(levels[np.where(missing, -1, codes)])
    result = np.empty(len(cells), dtype=object)
    result[:] = arrow.array(cells, form, arrow.kind_of(form)).to_pylist()
    result[np.isnan(cells)] = mark
    return result


def pandas_dtype(form: Format) -> Any:
    """Return the pandas type that a format names, or else one that holds its cells."""
    import pandas as pd

    try:
        dtype = _pandas_dtype_named(form.dtype, form)
        if _fits_pandas(dtype, form):
            # Model files may say anything: does it hold the levels?
            pd.Series(pandas_array(np.empty(0), form, dtype), dtype=dtype)
            return dtype
    except (TypeError, ValueError, AttributeError):
        pass
    if form.type == "text":
        return pd.Series(list(form.levels) or ["text"]).dtype
    usual = {"boolean": "boolean", "time": "datetime64[us]"}
    return pd.api.types.pandas_dtype(usual.get(form.type, "float64"))


def _pandas_dtype_named(name: str, form: Format) -> Any:
    import pandas as pd

    if found := re.fullmatch(r"category(?:\[(.*)\])?", name):
        levels = _category_index(found[1], form) if found[1] else pd.Index(form.levels)
        return pd.CategoricalDtype(levels, form.ordered)
    if name.startswith("object"):
        return np.dtype(object)
    if found := re.fullmatch(r"(str|string)\((python|pyarrow)\)", name):
        mark = np.nan if found[1] == "str" else pd.NA
        return pd.StringDtype(found[2], na_value=mark)
    if name.endswith("[pyarrow]"):
        return pd.ArrowDtype(arrow.kind_of(form))
    return pd.api.types.pandas_dtype(name)


def _category_index(name: str, form: Format) -> Any:
    import pandas as pd

    dtype: Any = _pandas_dtype_named(name, form)
    if not isinstance(dtype, pd.IntervalDtype):
        return pd.Index(form.levels, dtype=dtype)
    subtype: Any = dtype.subtype
    closed: Any = dtype.closed
    ends = [str(level)[1:-1].split(", ") for level in form.levels]
    low, high = (pd.Index([pair[i] for pair in ends]).astype(subtype) for i in (0, 1))
    return pd.IntervalIndex.from_arrays(low, high, closed=closed)


def _fits_pandas(dtype: Any, form: Format) -> bool:
    """Whether the pandas type is one for the format's cells."""
    import pandas as pd

    if isinstance(dtype, pd.ArrowDtype):
        return arrow.fits(dtype.pyarrow_dtype, form)
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return True
    if form.type == "text":
        return isinstance(dtype, pd.CategoricalDtype | pd.StringDtype)
    if form.type == "time":
        return dtype.kind == "M" or isinstance(dtype, pd.PeriodDtype)
    return dtype.kind in ("b" if form.type == "boolean" else "iufm")
