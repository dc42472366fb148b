"""The rows of a JSON body: checked, turned into columns, and put together piece by piece.

Making an Arrow table of one row costs as much as of fifty, so a few rows stay cells until it is
known which requests are computed together; the pieces of a long body become tables at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import json as cells
from twofold.data.table import Format
from twofold.errors import DataError
from twofold.schema.schema import Schema
from twofold.service.memory import Share, size_of

Array = NDArray[Any]
_NUMBERS = {int, float, bool, type(None)}
_LONG = 100  # letters of a name in a message
_LOOSE_CELLS = 2**14  # that wait as they are for other requests'


@dataclass(frozen=True)
class Expected:
    """What a model expects of JSON rows: its columns' names, formats and Arrow types.

    `formats` is None if it was fitted to an array. `floating` is the type of all its columns,
    where they are floats of one size.
    """

    names: tuple[str, ...]
    formats: Mapping[str, tuple[Format, Any]] | None
    floating: Any = None

    @classmethod
    def of(cls, schema: Schema) -> Expected:
        """Return what the model of a schema expects."""
        formats = schema.formats()
        if formats is None:
            return cls(schema.names, None)
        known = {n: (f, cells.kind_of(f)) for n, f in zip(schema.names, formats, strict=True)}
        kinds = {kind for _, kind in known.values()}
        kind = kinds.pop() if len(kinds) == 1 else None
        return cls(schema.names, known, kind if kind in (pa.float32(), pa.float64()) else None)

    def format_of(self, name: str) -> tuple[Format, Any]:
        """Return a column's format and Arrow type."""
        return (self.formats or {}).get(name, (cells.NUMBER, pa.float64()))

    def rows(self, given: list[Any], first: int, names: Sequence[str] | None) -> JsonRows | Any:
        """Return some rows of a body: `JsonRows`, or for a model of arrays an array.

        `first` is the number of the first of them. `names` are those of the rows before them if
        these were objects, and empty if they were lists.

        Raises
        ------
        DataError
            If they are not rows, or not all of one length and one type.
        """
        by_name = bool(names) or (names is None and bool(given) and type(given[0]) is dict)
        if self.formats is None:
            return array(self._in_order(given, first, names) if by_name else given)
        if by_name:
            columns = self._columns_of_objects(given, first, names)
        else:
            columns = self._columns_of_lists(given, first)
        if tuple(columns) != self.names:
            # In the model's order, whatever order the sender has; unknown names go last.
            order = [name for name in self.names if name in columns]
            order += [name for name in columns if name not in self.formats]
            columns = {name: columns[name] for name in order}
        types = tuple(frozenset(map(type, column)) for column in columns.values())
        return JsonRows(self, tuple(columns), tuple(columns.values()), types)

    def _columns_of_lists(self, given: list[Any], first: int) -> dict[str, list[Any]]:
        n = len(self.names)
        for i, row in enumerate(given, first):
            if type(row) is not list:
                raise _mixed(i, row)
            if len(row) != n:
                raise DataError(
                    f"Row {i} has {len(row):,} cells, and the model has {n:,} columns. Send a cell "
                    f"for each, and null where it is missing."
                )
        columns = map(list, zip(*given, strict=True)) if given else ([] for _ in self.names)
        return dict(zip(self.names, columns, strict=True))

    def _in_order(
        self, given: list[Any], first: int, names: Sequence[str] | None
    ) -> list[list[Any]]:
        columns = self._columns_of_objects(given, first, names)
        lacking = [name for name in self.names if name not in columns]
        unknown = sorted(set(columns) - set(self.names))
        if lacking or unknown:
            which, fault = (lacking, "have no") if lacking else (unknown, "have an unknown")
            raise DataError(
                f"These rows {fault} column {which[0][:_LONG]!r}. Send the columns that GET "
                f"/schema lists, with null for missing cells."
            )
        return [list(row) for row in zip(*(columns[name] for name in self.names), strict=True)]

    def _columns_of_objects(
        self, given: list[Any], first: int, names: Sequence[str] | None
    ) -> dict[str, list[Any]]:
        expected = set(names or given[0])
        if len(expected) > 2 * len(self.names) + _LONG:
            raise DataError(
                f"These rows have {len(expected):,} columns, and the model has "
                f"{len(self.names):,}. Send the columns that GET /schema lists."
            )
        for i, row in enumerate(given, first):
            if type(row) is not dict:
                raise _mixed(i, row)
            if row.keys() != expected:
                name = min(row.keys() ^ expected)
                has, lacks = (i, 0) if name in row else (0, i)
                raise DataError(
                    f"Column '{name[:_LONG]}' is in row {has}, and not in row {lacks}. Send every "
                    f"column of every row, with null for a missing cell."
                )
        return {name: [row[name] for row in given] for name in names or given[0]}


@dataclass(frozen=True)
class JsonRows:
    """Rows as columns of JSON's cells, and of which Python types each column's cells are."""

    expected: Expected
    names: tuple[str, ...]
    columns: tuple[list[Any], ...]
    types: tuple[frozenset[type], ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def fits(self, other: JsonRows) -> bool:
        """Whether each of both would be the same, if they were one table."""
        return self.types == other.types and self.names == other.names

    @classmethod
    def joined(cls, parts: Sequence[JsonRows]) -> JsonRows:
        """Return the rows of several that have the same columns."""
        first = parts[0]
        columns = zip(*(part.columns for part in parts), strict=True)
        whole = tuple([cell for cells in column for cell in cells] for column in columns)
        types = zip(*(part.types for part in parts), strict=True)
        return cls(first.expected, first.names, whole, tuple(frozenset().union(*t) for t in types))

    def table(self, first: int = 0) -> Any:
        """Return them as an Arrow table, of the training table's types wherever that can be.

        `first` is the number of the first row, for messages.

        Raises
        ------
        DataError
            If a cell is a list or an object, or a number that is too large.
        """
        arrays = self._floats()
        if arrays is None:
            arrays = []
            for name, column in zip(self.names, self.columns, strict=True):
                form, kind = self.expected.format_of(name)
                arrays.append(cells.column(column, form, kind, name, first))
        return pa.Table.from_arrays(arrays, names=list(self.names))

    def _floats(self) -> list[Any] | None:
        """Return columns of floats, by way of one array, where all of them are."""
        kind = self.expected.floating
        if kind is None or not frozenset().union(*self.types) <= _NUMBERS:
            return None
        try:
            matrix = np.array(self.columns, dtype=np.float64)
        except OverflowError:
            return None
        if kind == pa.float32():
            with np.errstate(over="ignore"):
                matrix = matrix.astype(np.float32)
        # Missing cells are NaN now, which mean the same.
        return [pa.array(column) for column in matrix]


class NotRows(Exception):
    """Rows that make no array; the library says what is wrong with them."""

    def __init__(self, rows: list[Any]) -> None:
        super().__init__("not rows")
        self.rows = rows


class Gathered:
    """The pieces of a body's rows, put together; codes if no rows are `expected`."""

    def __init__(self, expected: Expected | None, share: Share) -> None:
        self._expected, self._share = expected, share
        self._loose: list[JsonRows] = []
        self._parts: list[Any] = []
        self._n_rows = 0
        self._names: tuple[str, ...] | None = None

    def add(self, given: list[Any]) -> None:
        """Add the next rows."""
        expected = self._expected
        rows = array(given) if expected is None else expected.rows(given, self._n_rows, self._names)
        if self._names is None and given:
            self._names = tuple(given[0]) if type(given[0]) is dict else ()
        first, self._n_rows = self._n_rows, self._n_rows + len(given)
        if not isinstance(rows, JsonRows):
            self._parts.append(rows)
        elif self._n_rows * len(rows.names) <= _LOOSE_CELLS and not self._parts:
            self._loose.append(rows)
            return
        else:
            if self._loose:
                self._parts, self._loose = [JsonRows.joined(self._loose).table()], []
            self._parts.append(rows.table(first))
        self._share.hold(size_of(self._parts[-1]))

    def whole(self) -> Any:
        """Return all rows: `JsonRows` if they are few, or an Arrow table, or an array."""
        if self._loose:
            return self._loose[0] if len(self._loose) == 1 else JsonRows.joined(self._loose)
        if isinstance(self._parts[0], pa.Table):
            return self._table()
        if len({part.shape[1:] for part in self._parts}) > 1:
            raise DataError("The rows are not all of one length. Send a cell for each column.")
        return np.concatenate(self._parts)

    def _table(self) -> Any:
        if len({part.schema for part in self._parts}) == 1:
            return pa.concat_tables(self._parts).combine_chunks()
        # A piece may hold cells of another sort: then a column is made of all its cells at once.
        assert self._expected is not None
        arrays, names = [], self._parts[0].column_names
        for name in names:
            pieces = [part.column(name) for part in self._parts]
            if len({piece.type for piece in pieces}) == 1:
                arrays.append(pa.chunked_array([c for piece in pieces for c in piece.chunks]))
            else:
                values = [cell for piece in pieces for cell in cells.plain(piece)]
                arrays.append(cells.column(values, *self._expected.format_of(name), name))
        return pa.Table.from_arrays(arrays, names=names).combine_chunks()


def array(given: list[Any]) -> Any:
    """Return numbers as an array.

    Raises
    ------
    NotRows
        If they are not numbers, or not all of one length.
    DataError
        If an object stands in place of a cell, or a number is too large.
    """
    try:
        found = np.array(given)
        if found.dtype == object and not any(isinstance(cell, str) for cell in found.flat):
            found = found.astype(np.float64)
        if found.ndim > 1 and found.dtype.kind in "fiub":
            return found.astype(np.float64)
    except OverflowError:
        raise DataError(
            "These rows hold numbers too large for 64-bit floats. Divide such a column by a power "
            "of ten first."
        ) from None
    except (TypeError, ValueError):
        _require_cells(given)
    raise NotRows(given)


def _require_cells(given: list[Any]) -> None:
    left: list[tuple[int, Any]] = list(enumerate(given))
    while left:
        row, cell = left.pop()
        if isinstance(cell, list):
            left += [(row, inner) for inner in cell]
        elif isinstance(cell, dict):
            raise DataError(
                f"Row {row} holds an object in place of a cell. Cells are numbers here, and null "
                f"where they are missing."
            )


def _mixed(i: int, row: Any) -> DataError:
    return DataError(
        f"Row {i} is {called(row)}, and rows are lists of cells or objects, all of one sort. Send "
        f"[[...], ...] or [{{...}}, ...]."
    )


def called(value: Any) -> str:
    """Name what JSON holds.

    Examples
    --------
    >>> called(None), called([1]), called(2.5)
    ('null', 'a list', 'a number')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    for kind, name in ((dict, "an object"), (list, "a list"), (str, "text")):
        if isinstance(value, kind):
            return name
    return "a number"
