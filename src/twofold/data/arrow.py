"""Arrow columns become numbers, and numbers become columns of the same Arrow types again.

Text becomes the position among its column's levels, a timestamp seconds since 1970, a time of day
seconds since midnight and a duration its seconds; a missing cell is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold.data import notation
from twofold.data.table import Format, Table
from twofold.formatting import shortened

Array = NDArray[Any]
_SHOWN = 80  # letters of a cell
_EXACT_LEVELS = 2**24  # float32 counts so far without a gap
_DAY = 86_400  # seconds
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# A float64 holds the times of our days to a quarter of a microsecond, and nanoseconds only for
# seconds this few.
_SECONDS_WITH_NANOSECONDS = 2**22
_OBJECT = re.compile(r"object\[(.*?)(?:, (nan|<NA>|NaT))?\]")

_WORDS = (
    ("numbers", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t)),
    ("numbers", pa.types.is_decimal),
    ("text", lambda t: pa.types.is_dictionary(t) or "string" in str(t)),
    ("booleans", pa.types.is_boolean),
    ("times", lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t)),
)


class Refused(Exception):
    """A column that cannot be read: what goes after "Column 'name'", and what to do about it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy or (
            "Cells are numbers, text, booleans or times: drop what is none of these, or take it "
            "apart into columns that are."
        )


def with_layout(table: Table, schema: Any) -> Table:
    """Return a table with what an Arrow schema says of the text files that it is of."""
    said, mark = notation.understood(schema), notation.delimiter(schema)
    return replace(table, understood=said, delimiter=mark)


def chunked(column: Any) -> Any:
    """Return an Arrow array as one of chunks, which it may be already."""
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def read(column: Any) -> tuple[Array, Format]:
    """Return the cells of a chunked array, `(n_rows,)`, and how they looked.

    Raises
    ------
    Refused
        Where they are neither numbers, text, booleans nor times.
    """
    kind, name = column.type, str(column.type)
    if pa.types.is_dictionary(kind):
        return _read_dictionary(column)
    if _is_text(kind):
        cells, levels = read_text(column)
        return cells, Format("text", name, levels)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan, np.float32), Format("number", name)
    if pa.types.is_boolean(kind):
        return np.asarray(column.cast(pa.uint8()), np.float32), Format("boolean", name)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        small = kind.bit_width <= (16 if pa.types.is_integer(kind) else 32)
        return np.asarray(column, np.float32 if small else np.float64), Format("number", name)
    if pa.types.is_decimal(kind):
        # Rounded, because Arrow's conversion may miss the nearest float by its last bit.
        cells = np.asarray(column.cast(pa.float64()), np.float64)
        return np.round(cells, max(kind.scale, 0)), Format("number", name)
    if _has_ticks(kind):
        ticks = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).fill_null(0)
        cells = seconds(np.asarray(ticks, np.int64), _unit(kind), np.asarray(column.is_null()))
        return cells, Format("time" if _is_moment(kind) else "number", name)
    raise _odd_cell(column)


def read_floats(frame: Any) -> tuple[Array, tuple[Format, ...]] | None:
    """Return a table's cells, `(n_rows, n_columns)`, and formats, if all are floats of one type.

    Cells are copied at once: a call for each of many columns takes longer than what is computed
    on them. None if a column is of another type, or something is noted of it.
    """
    kinds = set(frame.schema.types)
    kind = kinds.pop()
    if kinds or kind not in (pa.float32(), pa.float64()) or any(f.metadata for f in frame.schema):
        return None
    batches = [frame] if isinstance(frame, pa.RecordBatch) else frame.to_batches()
    parts = [float_cells(batch) for batch in batches]
    parts = parts or [np.empty((0, len(frame.schema)), kind.to_pandas_dtype())]
    cells = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return cells, (Format("number", str(kind)),) * len(frame.schema)


def float_cells(batch: Any) -> Array:
    """Return the cells of a record batch of floats of one type."""
    cells: Array = batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    return cells


def rows_at(table: Any, numbers: NDArray[np.int64]) -> Any:
    """Return the rows of a table of these numbers."""
    views = [i for i, kind in enumerate(table.schema.types) if str(kind) == "string_view"]
    for i in views:  # whose cells Arrow cannot take by row
        name, column = table.schema.names[i], table.column(i)
        table = table.set_column(i, name, column.cast(pa.large_string()))
    return table.take(numbers)


def read_text(column: Any) -> tuple[Array, tuple[str, ...]]:
    """Return each cell's position among the distinct cells, and these: sorted, by code point."""
    encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order))
    rank[np.asarray(order)] = np.arange(len(order))
    levels = tuple(encoded.dictionary.take(order).to_pylist())
    return looked_up(rank, np.asarray(encoded.indices.fill_null(-1))), levels


def looked_up(codes: Array, positions: Array) -> Array:
    """Return `codes[positions]` as floats, NaN where a position is -1."""
    dtype = np.float32 if len(codes) <= _EXACT_LEVELS else np.float64
    cells: Array = np.append(codes, np.nan).astype(dtype)[positions]
    return cells


def _read_dictionary(column: Any) -> tuple[Array, Format]:
    kind = column.type
    inner = kind.value_type
    if not (_is_plain(inner) or _is_moment(inner) or pa.types.is_decimal(inner)):
        raise _odd_cell(column)
    parts = _one_dictionary(column).chunks
    declared = parts[0].dictionary if parts else pa.array([], inner)
    found = (declared if _is_plain(inner) else declared.cast(pa.string())).to_pylist()
    # Arrow lets a dictionary hold nulls, and a cell more than once.
    levels = dict.fromkeys(level for level in found if level is not None and level == level)
    codes = {level: float(code) for code, level in enumerate(levels)}
    rank = np.array([codes.get(level, np.nan) for level in found])
    positions = [np.asarray(c.indices.cast(pa.int64()).fill_null(-1)) for c in parts]
    cells = looked_up(rank, np.concatenate([np.empty(0, np.int64), *positions]))
    return cells, Format("text", str(kind), tuple(levels), bool(kind.ordered))


def _one_dictionary(column: Any) -> Any:
    try:
        return column.unify_dictionaries()
    except pa.ArrowInvalid:  # where one of them holds nulls
        return column.cast(column.type.value_type).dictionary_encode()


def _odd_cell(column: Any) -> Refused:
    row = pc.index(column.is_valid(), True).as_py()
    if row < 0:
        return Refused(f"is of the type {column.type}")
    cell = shortened(repr(column[row].as_py()), _SHOWN)
    return Refused(f"holds {cell} in row {row} (type {shortened(str(column.type), _SHOWN)})")


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _is_moment(kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _has_ticks(kind: Any) -> bool:
    return _is_moment(kind) or bool(pa.types.is_time(kind) or pa.types.is_duration(kind))


def _is_plain(kind: Any) -> bool:
    """Whether Python has text, numbers or booleans for the cells of this type."""
    t = pa.types
    return _is_text(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind)


def _unit(kind: Any) -> str:
    return {"date32[day]": "D", "date64[ms]": "ms"}.get(str(kind)) or str(kind.unit)


def seconds(ticks: Array, unit: str, missing: Array) -> Array:
    """Return 64-bit whole numbers of a unit ("D", "s", "ms", "us", "ns") as seconds."""
    if unit == "D":
        cells = ticks * float(_DAY)
    else:
        # Split, so that they are rounded once only.
        whole, part = np.divmod(ticks, _PER_SECOND[unit])
        cells = whole + part / _PER_SECOND[unit]
    cells[missing] = np.nan
    return cells


def ticks(cells: Array, unit: str) -> Array:
    """Return seconds as the nearest whole numbers of a unit, and 0 for missing ones."""
    if unit == "D":
        return whole_numbers(cells / _DAY, np.dtype(np.int64))
    per_second = _PER_SECOND[unit]
    most = 9.2e18 / per_second
    held = np.clip(np.where(np.isnan(cells), 0, cells), -most, most)
    finest = per_second
    if unit == "ns" and len(held) and np.abs(held).max() >= _SECONDS_WITH_NANOSECONDS:
        finest = _PER_SECOND["us"]  # further digits would be the float's own
    whole = np.floor(held)
    part = np.rint((held - whole) * finest).astype(np.int64)
    counts: Array = whole.astype(np.int64) * per_second + part * (per_second // finest)
    return counts


def whole_numbers(cells: Array, dtype: np.dtype[Any]) -> Array:
    """Return the cells rounded into the range of an integer type, and 0 for missing ones."""
    info = np.iinfo(dtype)
    low, high = float(info.min), float(info.max)
    if high > info.max:  # rounded up, to a number that the type does not hold
        high = float(np.nextafter(high, 0))
    whole: Array = np.clip(np.rint(np.where(np.isnan(cells), 0, cells)), low, high).astype(dtype)
    return whole


def positions(cells: Array, form: Format) -> tuple[Array, Array]:
    """Return where text cells stand among the levels, 0 for missing ones, and which are missing."""
    missing = np.isnan(cells) if form.levels else np.ones(len(cells), dtype=bool)
    codes = whole_numbers(cells, np.dtype(np.int64))
    return np.where(missing, 0, codes.clip(0, max(len(form.levels) - 1, 0))), missing


def array(cells: Array, form: Format, kind: Any) -> Any:
    """Return 64-bit floats as an Arrow array of the type `kind`, null where they are NaN."""
    if form.type == "text":
        return _text_array(cells, form, kind)
    missing = np.isnan(cells)
    if pa.types.is_null(kind) and missing.all():
        return pa.nulls(len(cells))
    if pa.types.is_boolean(kind):
        return pa.array(cells >= 0.5, mask=missing)
    if pa.types.is_integer(kind):
        return pa.array(whole_numbers(cells, np.dtype(kind.to_pandas_dtype())), mask=missing)
    if pa.types.is_decimal(kind):
        # By way of text, whose digits are the fewest that tell a float from its neighbours.
        most = 10.0 ** (kind.precision - kind.scale) - 10.0**-kind.scale
        rounded = np.round(np.clip(cells, -most, most), kind.scale)
        return pa.array(rounded, mask=missing).cast(pa.string()).cast(kind)
    if _has_ticks(kind):
        return _time_array(cells, missing, kind)
    with np.errstate(over="ignore"):
        floats = cells.astype(kind.to_pandas_dtype() if pa.types.is_floating(kind) else np.float64)
    return pa.array(floats, mask=missing)


def _time_array(cells: Array, missing: Array, kind: Any) -> Any:
    if pa.types.is_time(kind):
        cells = np.clip(cells, 0, _DAY - 1 / _PER_SECOND[kind.unit])
    if pa.types.is_date(kind):
        cells = np.rint(cells / _DAY) * _DAY
    counts = ticks(cells, _unit(kind))
    if kind.bit_width == 32:
        counts = whole_numbers(counts, np.dtype(np.int32))
    return pa.array(counts, mask=missing).cast(kind)


def _text_array(cells: Array, form: Format, kind: Any) -> Any:
    codes, missing = positions(cells, form)
    if not pa.types.is_dictionary(kind):
        held = pa.large_string() if _is_text(kind) else kind
        return _level_array(form.levels, held).take(pa.array(codes, mask=missing)).cast(kind)
    indices = pa.array(codes.astype(kind.index_type.to_pandas_dtype()), mask=missing)
    levels = _level_array(form.levels, kind.value_type)
    return pa.DictionaryArray.from_arrays(indices, levels, ordered=kind.ordered)


def _level_array(levels: Sequence[Any], kind: Any) -> Any:
    if _is_plain(kind) and not _is_text(kind):
        return pa.array(levels, kind)
    return pa.array([str(level) for level in levels], pa.large_string()).cast(kind)


def filled(column: Any, missing: Array, cells: Array, form: Format) -> Any:
    """Return a chunked array with `cells` in its `missing` places, and all others as they are."""
    if pa.types.is_null(column.type):  # which holds nothing that could be kept
        numbers = np.full(len(column), np.nan)
        numbers[missing] = cells
        return chunked(array(numbers, form, pa.float64()))
    rows = np.arange(len(column))
    rows[missing] = len(column) + np.arange(len(cells))
    both = pa.chunked_array([*column.chunks, array(cells, form, column.type)], type=column.type)
    if pa.types.is_dictionary(column.type):
        both = _one_dictionary(both).cast(column.type)
    if str(column.type) == "string_view":  # whose cells Arrow cannot take by row
        both = both.cast(pa.large_string())
    return both.take(pa.array(rows)).cast(column.type)


def written(cells: Array, form: Format) -> Any:
    """Return cells as text in their column's notation."""
    kind = kind_of(form)
    how = form.notation or notation.Notation(form.type, str(kind))
    return how.write(array(cells, form, kind)).cast(pa.string())


def as_text(cells: Array, form: Format) -> tuple[Array, Format]:
    """Return times or numbers that the caller's column holds as text as cells of text."""
    if not form.is_written:
        return cells, form
    codes, levels = read_text(chunked(written(cells, form)))
    return codes, replace(form, type="text", levels=levels, notation=None)


def kind_of(form: Format) -> Any:
    """Return the Arrow type that a format names, or else one that holds its cells.

    pandas's and polars's names count where they are clear.
    """
    if form.is_written and form.notation is not None:
        return form.notation.kind
    found = _OBJECT.fullmatch(form.dtype)
    try:
        kind = _kind_named(found[1] if found else form.dtype.removesuffix("[pyarrow]"))
        array(np.empty(0), form, kind)  # model files may say anything: does it hold the levels?
        if fits(kind, form):
            return kind
    except (ValueError, TypeError, AttributeError, pa.ArrowException):
        pass
    if form.type == "text":
        try:
            return pa.array(form.levels).type if form.levels else pa.string()
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # levels of several types
            return pa.string()
    return {"boolean": pa.bool_(), "time": pa.timestamp("us")}.get(form.type, pa.float64())


def _kind_named(name: str) -> Any:
    if found := re.fullmatch(r"(?:timestamp|datetime64)\[(s|ms|us|ns)(?:, (?:tz=)?(.*))?\]", name):
        return pa.timestamp(found[1], tz=found[2])
    if found := re.fullmatch(r"Datetime\(time_unit='(..)', time_zone=(?:'(.*)'|None)\)", name):
        return pa.timestamp(found[1], tz=found[2])
    if found := re.fullmatch(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)", name):
        return getattr(pa, f"decimal{found[1]}")(int(found[2]), int(found[3]))
    if found := re.fullmatch(r"Decimal\(precision=(\d+), scale=(\d+)\)", name):
        return pa.decimal128(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"dictionary<values=(.*), indices=(\w+), ordered=([01])>", name):
        index = _kind_named(found[2])
        return pa.dictionary(index, _kind_named(found[1]), ordered=found[3] == "1")
    return pa.type_for_alias({"Date": "date32"}.get(name, name.lower()))


def fits(kind: Any, form: Format) -> bool:
    """Whether the Arrow type is one for the format's cells."""
    t = pa.types
    if form.type == "text":
        return t.is_dictionary(kind) or _is_text(kind)
    if form.type == "boolean":
        return bool(t.is_boolean(kind))
    if form.type == "time":
        return _is_moment(kind)
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_null(kind):
        return True
    return _has_ticks(kind) and not _is_moment(kind)


def missing_mark(form: Format) -> str:
    """Return how a column of Python objects shows a missing cell: "nan", "<NA>", "NaT" or ""."""
    found = _OBJECT.fullmatch(form.dtype)
    return (found[2] if found else "") or ""


def united(kinds: set[Any]) -> Any:
    """Return the type that holds cells of all these types, None where there is none."""
    if len(kinds) == 1:
        return next(iter(kinds))
    ordered = sorted(kinds, key=str)
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in ordered]
    for types in (ordered, plain):
        try:
            schemas = [pa.schema([("cell", kind)]) for kind in types]
            return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            continue
    return None


def word(kind: Any) -> str:
    """Say what cells of an Arrow type are; nothing where there are none."""
    if pa.types.is_null(kind):
        return ""
    return next((word for word, holds in _WORDS if holds(kind)), f"cells of type {kind}")
