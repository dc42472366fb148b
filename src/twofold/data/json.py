"""Cells as JSON writes them become columns of an Arrow table, and columns such cells again.

A missing cell is null. A timestamp is text in ISO 8601, "2024-05-17T09:30:00", with a Z where its
column has a time zone; a day "2024-05-17"; a time of day "09:30:00"; a duration a number of
seconds. NaN and infinity, for which JSON has no words, are written as null.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import arrow
from twofold.data.table import Format
from twofold.errors import DataError, MissingExtraError

try:
    from pydantic_core import from_json, to_json
except ImportError as missing:
    raise MissingExtraError(
        "The service needs Starlette, uvicorn and prometheus-client, which are not installed. "
        "Install 'twofold[service]'."
    ) from missing

Array = NDArray[Any]
NUMBER = Format("number", "double")
_CELLS = {int, float, bool, str}
_MOST_SHOWN = 100  # letters of a cell in a message


def loads(body: bytes) -> Any:
    """Read JSON; raises ValueError if it is not JSON, or nested too deeply to be rows."""
    return from_json(body, allow_inf_nan=False)


def dumps(value: Any) -> bytes:
    """Write JSON, with null for what is not a number."""
    return bytes(to_json(value, inf_nan_mode="null"))


def kind_of(form: Format) -> Any:
    """Return the Arrow type that JSON's cells have in a column of this format.

    That is the training table's own, where JSON can tell its cells apart.
    """
    kind = pa.string() if form.is_written else arrow.kind_of(form)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    spoken = pa.types.is_duration(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    return pa.float64() if spoken else kind


def column(values: list[Any], form: Format, kind: Any, name: str, first_row: int = 0) -> Any:
    """Return one column's cells as an Arrow array, of the type `kind` wherever they can be.

    `first_row` is the number of the first cell's row, for messages.

    Cells of another sort keep their own type, so that the schema tells what is wrong with them.

    Raises
    ------
    DataError
        Where a cell is a list or an object, or a number that is too large.
    """
    found = set(map(type, values)) - {type(None)}
    if not found <= _CELLS:
        row = next(i for i, cell in enumerate(values) if type(cell) not in (*_CELLS, type(None)))
        raise DataError(
            f"Column '{name}' holds {_shown(values[row])} in row {first_row + row}. Cells are "
            f"numbers, text, booleans or times: drop other columns, or split them into "
            f"columns that are."
        )
    if not found:
        return pa.nulls(len(values), kind)
    if found == {str}:
        return _texts(values, form, kind)
    if str in found or (form.type == "number" and bool in found and len(found) > 1):
        return pa.array([_as_text(cell) for cell in values], pa.string())
    if found == {bool}:
        return pa.array(values, pa.bool_())
    return _numbers(values, found, kind, name, first_row)


def _numbers(values: list[Any], found: set[type], kind: Any, name: str, first_row: int) -> Any:
    if bool in found:  # in a column of booleans
        values = [float(cell) if isinstance(cell, bool) else cell for cell in values]
    own = [kind] if pa.types.is_integer(kind) or pa.types.is_floating(kind) else []
    for candidate in (*own, pa.int64(), pa.float64()):
        try:
            return pa.array(values, candidate)
        except (pa.ArrowInvalid, OverflowError):
            continue  # numbers that this type does not hold
    try:
        return pa.array([None if cell is None else float(cell) for cell in values], pa.float64())
    except OverflowError:
        row = next(i for i, cell in enumerate(values) if _is_too_large(cell))
        raise DataError(
            f"Column '{name}' holds numbers too large for 64-bit floats (row "
            f"{first_row + row}: {_shown(values[row])}). Divide such a column by a "
            f"power of ten first."
        ) from None


def _is_too_large(cell: Any) -> bool:
    try:
        float(cell or 0)
    except OverflowError:
        return True
    return False


def _texts(values: list[Any], form: Format, kind: Any) -> Any:
    texts = pa.array(values, pa.string())
    if form.is_written:
        return texts.cast(kind)
    if form.type == "time":
        for candidate in (kind, pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")):
            try:
                return texts.cast(candidate)
            except pa.ArrowException:
                continue
    elif pa.types.is_time(kind):
        try:
            times = [None if text is None else time.fromisoformat(text) for text in values]
        except ValueError:
            return texts
        return pa.array(times, pa.time64("us"))
    elif pa.types.is_large_string(kind):
        return texts.cast(kind)
    return texts


def _as_text(cell: Any) -> str | None:
    """Return a cell as the text that a file would hold, for a column that holds text as well."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return None if cell is None else str(cell)


def _shown(cell: Any) -> str:
    # Cut twice, for a list may be as long as the request.
    text = repr(cell[:_MOST_SHOWN]) if isinstance(cell, list) else repr(cell)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def plain(column: Any) -> list[Any]:
    """Return an Arrow column's cells as what `dumps` writes.

    Examples
    --------
    >>> plain(pa.chunked_array([pa.array([0, None], pa.timestamp("s", "UTC"))]))
    ['1970-01-01T00:00:00Z', None]
    """
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if types.is_timestamp(kind) or types.is_date(kind):
        return _timestamps(column)
    if types.is_time(kind):
        return _shortened(column.cast(pa.string()).to_pylist())
    if types.is_duration(kind) or types.is_decimal(kind):
        cells: list[Any] = arrow.read(arrow.chunked(column))[0].tolist()
        return cells
    listed: list[Any] = column.to_pylist()
    return listed


def _timestamps(column: Any) -> list[Any]:
    kind = column.type
    day = pa.types.is_date(kind)
    unit: Any = "D" if str(kind) == "date32[day]" else "ms" if day else kind.unit
    wide = pa.int32() if kind.bit_width == 32 else pa.int64()
    ticks = np.asarray(column.cast(wide).fill_null(0), np.int64)
    texts = np.datetime_as_string(ticks.view(f"M8[{unit}]"), unit="D" if day else unit).tolist()
    zone = "Z" if not day and kind.tz else ""
    if not day:
        texts = _shortened(texts)
    missing = np.asarray(column.is_null()).tolist()
    return [None if m else t + zone for t, m in zip(texts, missing, strict=True)]


def _shortened(texts: Sequence[str | None]) -> list[Any]:
    """Write fractions of a second as Python's `isoformat` does: not at all, or with six digits."""
    short = []
    for text in texts:
        whole, _, fraction = (text or "").partition(".")
        digits = fraction.rstrip("0")
        fraction = digits.ljust(6 if len(digits) <= 6 else 9, "0")
        short.append(f"{whole}.{fraction}" if digits else text and whole)
    return short


def rows(table: Any) -> list[tuple[Any, ...]]:
    """Return the rows of an Arrow table as what `dumps` writes."""
    if not table.num_columns:
        return [()] * table.num_rows
    return list(zip(*(plain(column) for column in table.columns), strict=True))
