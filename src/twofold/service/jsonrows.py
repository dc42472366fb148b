"""The rows of a JSON body: checked, turned into columns, and kept as cells until they are needed.

Making an Arrow table of one row costs as much as of fifty, so the rows of requests that are
computed together become one table.
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

Array = NDArray[Any]
_NUMBERS = {int, float, bool, type(None)}
_LONG = 100  # letters of a name in a message


@dataclass(frozen=True)
class Expected:
    """What a model expects of JSON rows: its columns' names, formats and Arrow types.

    `formats` is None where it was fitted to an array. `floating` is the type of all its columns,
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

    def rows(self, given: list[Any]) -> JsonRows | Any:
        """Return the rows of a body: `JsonRows`, or for a model of arrays an array.

        Raises
        ------
        DataError
            Where they are no rows, or not all of one length and one sort.
        """
        by_name = bool(given) and type(given[0]) is dict
        if self.formats is None:
            return array(self._in_order(given) if by_name else given)
        columns = _columns_of_objects(given) if by_name else self._columns_of_lists(given)
        if tuple(columns) != self.names:
            # In the model's order, whatever order the sender has; unknown names go last.
            order = [name for name in self.names if name in columns]
            order += [name for name in columns if name not in self.formats]
            columns = {name: columns[name] for name in order}
        types = tuple(frozenset(map(type, column)) for column in columns.values())
        return JsonRows(self, tuple(columns), tuple(columns.values()), types)

    def _columns_of_lists(self, given: list[Any]) -> dict[str, list[Any]]:
        n = len(self.names)
        for i, row in enumerate(given):
            if type(row) is not list:
                raise _mixed(i, row)
            if len(row) != n:
                raise DataError(
                    f"Row {i} has {len(row):,} cells, and the model has {n:,} columns. Send a cell "
                    f"for each, and null where it is missing."
                )
        columns = map(list, zip(*given, strict=True)) if given else ([] for _ in self.names)
        return dict(zip(self.names, columns, strict=True))

    def _in_order(self, given: list[Any]) -> list[list[Any]]:
        columns = _columns_of_objects(given)
        lacking = [name for name in self.names if name not in columns]
        unknown = sorted(set(columns) - set(self.names))
        if lacking or unknown:
            which, fault = (lacking, "have no") if lacking else (unknown, "have an unknown")
            raise DataError(
                f"These rows {fault} column {which[0][:_LONG]!r}. Send the columns that GET "
                f"/schema lists, with null for missing cells."
            )
        return [list(row) for row in zip(*(columns[name] for name in self.names), strict=True)]


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
        """Return the rows of several that fit."""
        first = parts[0]
        columns = zip(*(part.columns for part in parts), strict=True)
        whole = tuple([cell for cells in column for cell in cells] for column in columns)
        return cls(first.expected, first.names, whole, first.types)

    def table(self) -> Any:
        """Return them as an Arrow table, of the training table's types wherever that can be.

        Raises
        ------
        DataError
            Where a cell is a list or an object, or a number that is too large.
        """
        arrays = self._floats()
        if arrays is None:
            known = self.expected.formats or {}
            arrays = []
            for name, column in zip(self.names, self.columns, strict=True):
                form, kind = known.get(name, (cells.NUMBER, pa.float64()))
                arrays.append(cells.column(column, form, kind, name))
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


def array(given: list[Any]) -> Any:
    """Return numbers as an array, and what is none as it is: the library tells what is wrong.

    Raises
    ------
    DataError
        Where an object stands in place of a cell, or a number is too large.
    """
    try:
        found = np.array(given, dtype=np.float64)
        return found if found.ndim > 1 else given
    except OverflowError:
        raise DataError(
            "These rows hold numbers too large for 64-bit floats. Divide such a column by a power "
            "of ten first."
        ) from None
    except (TypeError, ValueError):
        _require_cells(given)
        return given


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


def _columns_of_objects(given: list[Any]) -> dict[str, list[Any]]:
    names = given[0].keys()
    for i, row in enumerate(given):
        if type(row) is not dict:
            raise _mixed(i, row)
        if row.keys() != names:
            name = min(row.keys() ^ names)
            has, lacks = (i, 0) if name in row else (0, i)
            raise DataError(
                f"Column '{name[:_LONG]}' is in row {has}, and not in row {lacks}. Send every "
                f"column of every row, with null for a missing cell."
            )
    return {name: [row[name] for row in given] for name in names}


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
