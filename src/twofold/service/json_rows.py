"""The rows of a JSON body: checked, turned into columns, and put together piece by piece.

A body of many rows is cut between rows, and the parser proper sees only pieces of a few
milliseconds, so that nothing that it makes is larger than a small multiple of the body. Making an
Arrow table of one row costs as much as of fifty, so a few rows stay cells until it is known which
requests are computed together.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from twofold.data import arrow
from twofold.data import json as cells
from twofold.data.table import Format
from twofold.errors import DataError
from twofold.schema.schema import Schema
from twofold.service.errors import RequestError
from twofold.service.memory import Share, size_of
from twofold.service.requests import Limits, called

_NUMBERS = {int, float, bool, type(None)}
_PIECE_BYTES = 2**17  # that the parser takes at a time,
_COLUMN_BYTES = 2**10  # or so many for each column of the model, if that is more
_MOST_ROW = 2**18  # bytes of a row, besides those of its columns, and of all but the rows
_MOST_HEAD = 2**12  # bytes before the rows
_LONG = 100  # letters of a name in a message
# JSON, as far as its structure is looked at before it is parsed
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_VALUE = rb"(?:" + _TEXT + rb'|[^ \t\r\n\[\]{}",]++)'
_NAMES_AND_TEXTS = re.compile(_TEXT + rb"([ \t\r\n]*+:)?", re.DOTALL)
_END_OF_LIST = re.compile(rb"[ \t\r\n]*+\]")


def _head_pattern(field: str) -> re.Pattern[bytes]:
    """Return what matches the beginning of an object up to the list that a field is."""
    gap = rb"[ \t\r\n]*+"
    other = gap + _TEXT + gap + rb":" + gap + _VALUE + gap + rb","
    own = gap + rb'"' + field.encode() + rb'"' + gap + rb":" + gap + rb"\["
    return re.compile(gap + rb"\{(?:" + other + rb")*?" + own, re.DOTALL)


def _row_pattern(depth: int) -> re.Pattern[bytes]:
    """Return what matches a row, with lists in it down to a depth, and what follows the row."""
    inside = rb'[^"\[\]{}]++|' + _TEXT
    for _ in range(depth):
        inside = rb'[^"\[\]{}]++|' + _TEXT + rb"|[\[{](?:" + inside + rb")*+[\]}]"
    row = rb"[\[{](?:" + inside + rb")*+[\]}]|" + _VALUE
    return re.compile(rb"[ \t\r\n]*+(?:" + row + rb")[ \t\r\n]*+([,\]])", re.DOTALL)


_HEADS = {field: _head_pattern(field) for field in ("rows", "codes")}


class JsonReader:
    """Reads the JSON bodies that are sent to the model of a schema."""

    def __init__(self, schema: Schema, limits: Limits) -> None:
        self.names, self._limits = schema.names, limits
        self._formats: dict[str, tuple[Format, Any]] | None = None
        self.floating: Any = None  # the type of all columns, where they are floats of one size
        if formats := schema.formats():
            kinds = [cells.kind_of(form) for form in formats]
            together = zip(self.names, zip(formats, kinds, strict=True), strict=True)
            self._formats = dict(together)
            if kinds[0] in (pa.float32(), pa.float64()) and len(set(kinds)) == 1:
                self.floating = kinds[0]
        self._row = _row_pattern(len(schema.row_shape) + 1)
        self._most_row = _MOST_ROW + 256 * len(self.names)
        # Each piece becomes a table, and a table of many columns takes long however few its rows.
        self._piece = max(_PIECE_BYTES, _COLUMN_BYTES * len(self.names))

    def format_of(self, name: str) -> tuple[Format, Any]:
        """Return a column's format and Arrow type."""
        return (self._formats or {}).get(name, (cells.NUMBER, pa.float64()))

    def read(
        self, body: bytes, fields: Sequence[str], share: Share
    ) -> Generator[None, None, dict[str, Any]]:
        """Return the fields of a body, after each piece; see `ServedModel.read`."""
        field, rows = fields[0], None
        head = _HEADS[field].match(body, 0, _MOST_HEAD) if field in _HEADS else None
        if head is not None:
            rows, end = yield from self._list(body, head.end(), field, share)
            body = body[: head.end() - 1] + b"null" + body[end:]
        if len(body.strip()) > _MOST_ROW:
            raise _no_json(f"it has more than {_MOST_ROW:,} bytes besides a list of {field}")
        found = _loads(body)
        if type(found) is not dict:
            listed = " and ".join(f"'{name}'" for name in fields)
            text = f"Expected an object with {listed} as the body, got {called(found)}."
            raise RequestError(422, text, f'Send {{"{field}": ...}}.')
        _refuse_twins(body, found)
        for name in found:
            if name not in fields:
                listed = " and ".join(f"'{known}'" for known in fields)
                error = f"Expected the fields {listed}, got {name[:_LONG]!r}."
                raise RequestError(422, error, "Leave the field out, or correct its name.")
        if field in _HEADS:
            if rows is None:
                what = called(found[field]) if field in found else "none"
                what += " behind other lists or much else" if what == "a list" else ""
                send = f'Send {{"{field}": [[...], ...]}}, with a list of cells for each row.'
                text = f"Expected a list of rows as '{field}', got {what}."
                raise RequestError(422, text, send)
            found[field] = rows
        return found

    def _list(
        self, body: bytes, at: int, field: str, share: Share
    ) -> Generator[None, None, tuple[Any, int]]:
        """Read the rows that begin at a place; return them and the place after them."""
        parts: list[Any] = []
        n_rows, names = 0, None
        more = _END_OF_LIST.match(body, at)
        if more is not None:
            return self._part([], 0, field, None), more.end()
        going = True
        while going:
            start, first = at, n_rows
            while going and at - start < self._piece:
                row = self._row.match(body, at, at + self._most_row)
                if row is None:
                    raise self._no_row(body, at, n_rows)
                n_rows, at, going = n_rows + 1, row.end(), row[1] == b","
            piece = body[start : at - 1]  # without the comma or bracket after it
            given = _loads(b"[" + piece + b"]")
            _refuse_twins(piece, given)
            self._limits.check_rows(n_rows, len(self.names))
            part = self._part(given, first, field, names)
            if names is None:
                names = tuple(given[0]) if type(given[0]) is dict else ()
            # Alone, they may yet go into one table with those of other requests.
            several = isinstance(part, JsonRows) and (going or parts)
            parts.append(part.table(first) if several else part)
            share.hold(size_of(parts[-1]))
            yield
        return self._whole(parts), at

    def _no_row(self, body: bytes, at: int, number: int) -> RequestError:
        if len(body) - at <= self._most_row:
            return _no_json(f"it is not well-formed, or nested too deeply, near byte {at:,}")
        return RequestError(
            413,
            f"Expected at most {self._most_row:,} bytes in row {number:,} of the body, got more, "
            f"or no JSON.",
            "Send rows with the model's columns alone, and shorter texts.",
        )

    def _whole(self, parts: list[Any]) -> Any:
        """Return the rows of all pieces: an Arrow table, or an array, or a list if it is none."""
        for part in parts:
            if isinstance(part, list | JsonRows):
                return part
        if not isinstance(parts[0], pa.Table):
            if len({part.shape[1:] for part in parts}) > 1:
                raise DataError("The rows are not all of one length. Send a cell for each column.")
            return np.concatenate(parts)
        # A piece may hold cells of another sort; if no type holds both, they are text.
        kinds = zip(*(part.schema.types for part in parts), strict=True)
        united = [arrow.united(set(found)) or pa.string() for found in kinds]
        schema = pa.schema(list(zip(parts[0].column_names, united, strict=True)))
        return pa.concat_tables([part.cast(schema, safe=False) for part in parts]).combine_chunks()

    def _part(self, given: list[Any], first: int, field: str, names: Sequence[str] | None) -> Any:
        """Return some rows of a body: `JsonRows`, or for codes and models of arrays an array.

        `first` is the number of the first of them. `names` are those of the rows before them if
        these were objects, and empty if they were lists.

        Raises
        ------
        DataError
            If they are not rows, or not all of one length and one type.
        """
        if field == "codes":
            return _array(given)
        by_name = bool(names) or (names is None and bool(given) and type(given[0]) is dict)
        if by_name:
            columns = _columns_of_objects(given, first, names or tuple(given[0]), self.names)
        if self._formats is None:
            return _array(self._in_order(columns) if by_name else given)
        if not by_name:
            columns = _columns_of_lists(given, first, self.names)
        if tuple(columns) != self.names:
            # In the model's order, whatever order the sender has; unknown names go last.
            order = [name for name in self.names if name in columns]
            order += [name for name in columns if name not in self._formats]
            columns = {name: columns[name] for name in order}
        types = tuple(frozenset(map(type, column)) for column in columns.values())
        return JsonRows(self, tuple(columns), tuple(columns.values()), types)

    def _in_order(self, columns: dict[str, list[Any]]) -> list[list[Any]]:
        expected = set(self.names)
        if columns.keys() != expected:
            name = min(columns.keys() ^ expected)
            fault = "have no" if name in expected else "have an unknown"
            raise DataError(
                f"These rows {fault} column {name[:_LONG]!r}. Send the columns that GET "
                f"/schema lists, with null for missing cells."
            )
        return [list(row) for row in zip(*(columns[name] for name in self.names), strict=True)]


@dataclass(frozen=True)
class JsonRows:
    """Rows as columns of JSON's cells, and of which Python types each column's cells are."""

    reader: JsonReader
    names: tuple[str, ...]
    columns: tuple[list[Any], ...]
    types: tuple[frozenset[type], ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @classmethod
    def joined(cls, parts: Sequence[JsonRows]) -> JsonRows:
        """Return the rows of several that fit."""
        first = parts[0]
        columns = zip(*(part.columns for part in parts), strict=True)
        whole = tuple([cell for cells in column for cell in cells] for column in columns)
        return cls(first.reader, first.names, whole, first.types)

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
            together = zip(self.names, self.columns, strict=True)
            of = self.reader.format_of
            arrays = [cells.column(column, *of(name), name, first) for name, column in together]
        return pa.Table.from_arrays(arrays, names=list(self.names))

    def _floats(self) -> list[Any] | None:
        """Return columns of floats, by way of one array, where all of them are."""
        kind = self.reader.floating
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


def _columns_of_lists(given: list[Any], first: int, names: Sequence[str]) -> dict[str, list[Any]]:
    n = len(names)
    for i, row in enumerate(given, first):
        if type(row) is not list:
            raise _mixed(i, row)
        if len(row) != n:
            raise DataError(
                f"Expected {n:,} cells in row {i}, got {len(row):,}. Send a cell for each column, "
                f"and null where it is missing."
            )
    columns = map(list, zip(*given, strict=True)) if given else ([] for _ in names)
    return dict(zip(names, columns, strict=True))


def _columns_of_objects(
    given: list[Any], first: int, names: Sequence[str], known: Sequence[str]
) -> dict[str, list[Any]]:
    expected = set(names)
    if len(expected) > 2 * len(known) + _LONG:
        raise DataError(
            f"Expected rows of {len(known):,} columns, got {len(expected):,}. Send the columns "
            f"that GET /schema lists."
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
    return {name: [row[name] for row in given] for name in names}


def _mixed(i: int, row: Any) -> DataError:
    return DataError(
        f"Expected lists of cells or objects, all of one sort, got {called(row)} as row {i}. Send "
        f"[[...], ...] or [{{...}}, ...]."
    )


def _array(given: list[Any]) -> Any:
    """Return numbers as an array, or what was given if they make none.

    Raises
    ------
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
        left: list[tuple[int, Any]] = list(enumerate(given))
        while left:
            row, cell = left.pop()
            if isinstance(cell, list):
                left += [(row, inner) for inner in cell]
            elif isinstance(cell, dict):
                raise DataError(
                    f"Expected numbers in row {row}, got an object. Send numbers, and null where "
                    f"they are missing."
                ) from None
    return given


def _loads(text: bytes) -> Any:
    try:
        return cells.loads(text)
    except ValueError as error:
        raise _no_json(str(error)) from None


def _no_json(why: str) -> RequestError:
    return RequestError(
        400,
        f"The body cannot be read as JSON: {why}.",
        "Send JSON in UTF-8, with null for a missing cell: JSON has no NaN.",
    )


def _refuse_twins(text: bytes, parsed: Any) -> None:
    """Raise RequestError if an object has a name twice, of which the parser keeps the last."""
    n_colons = text.count(b":")
    if n_colons < 2 or n_colons <= (named := _n_names(parsed)):
        return
    # There are more colons, which may stand in texts.
    if sum(1 for found in _NAMES_AND_TEXTS.finditer(text) if found[1]) > named:
        raise RequestError(422, "An object of the body has a name twice.", "Give it once.")


def _n_names(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(map(_n_names, value.values()))
    return sum(map(_n_names, value)) if type(value) is list else 0
