"""Rows in JSON: an object in each line, a list of objects or of rows, or lists by column."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from twofold.data.dialect import HEAD_BYTES, is_data
from twofold.data.encoding import decode, encoding_of
from twofold.data.streams import is_list
from twofold.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".geojson")
Rows = list[dict[str, Any]]


def read(content: bytes, shown: str) -> Any:
    """Return the rows as an Arrow table.

    Objects within objects become columns, "user.name" say, and lists of other than numbers texts;
    so do all cells of a column that holds texts and others.

    Raises
    ------
    DataError
        If a list is not one of rows; `shown` is the name of the file.
    ValueError
        If it is not JSON.
    """
    encoding = encoding_of(content[:HEAD_BYTES], len(content) <= HEAD_BYTES)
    if encoding != "utf-8":
        content = decode(content, encoding).lstrip("\ufeff").encode()
    if content.lstrip()[:1] == b"[":
        content = _lines_of(_rows_of_list(json.loads(content), shown))
    elif (rows := _rows_within(content)) is not None:
        content = _lines_of(rows)
    try:
        table = _parsed(content)
    except pa.ArrowInvalid as error:
        if "changed from" not in str(error):
            raise
        table = _parsed(_lines_of(_of_one_type([json.loads(line) for line in _lines(content)])))
    while any(map(pa.types.is_struct, table.schema.types)):
        table = table.flatten()
    for i, kind in enumerate(table.schema.types):
        if pa.types.is_list(kind) and not is_list(kind):
            cells = table.column(i).to_pylist()
            texts = [None if c is None else json.dumps(c, ensure_ascii=False) for c in cells]
            table = table.set_column(i, table.schema.names[i], pa.array(texts, pa.string()))
    return table


def _parsed(lines: bytes) -> Any:
    from pyarrow.json import ReadOptions, read_json

    most = max(2**20, len(lines) + 1)
    return read_json(pa.BufferReader(lines), ReadOptions(block_size=most))


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


def _lines_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def _rows_of_list(rows: Any, shown: str) -> Rows:
    """Return the rows of a list: objects, or lists of cells, of which the first may be names."""
    if rows and all(type(row) is dict for row in rows):
        return list(rows)
    lists = len(rows) > 1 and all(type(row) is list for row in rows)
    if lists and rows[0] and len({len(row) for row in rows}) == 1:
        names = rows[0]
        if _are_names(names, rows[1:]):
            return [dict(zip(names, row, strict=True)) for row in rows[1:]]
        names = [f"column{i + 1}" for i in range(len(names))]
        return [dict(zip(names, row, strict=True)) for row in rows]
    raise DataError(
        f"{shown} holds a list, but not one of objects, or of rows of one length. Write a row as "
        f'an object, such as {{"age": 41}}.'
    )


def _are_names(first: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a row holds names: different texts, one or more of which stand above numbers."""
    if not all(type(name) is str for name in first) or len(set(first)) < len(first):
        return False

    def is_number(cell: Any) -> bool:
        return type(cell) in (int, float) or (type(cell) is str and is_data(cell))

    columns = zip(first, zip(*rows, strict=True), strict=True)
    return any(
        not is_data(name) and sum(map(is_number, cells)) >= 0.8 * len(cells)
        for name, cells in columns
    )


def _rows_within(content: bytes) -> Rows | None:
    """Return the rows that one object holds: as its only list of objects, or by column or row.

    None if it is a row itself, or one of several.
    """
    try:
        whole = json.loads(content)
    except ValueError:
        return None  # an object in each line
    values = list(whole.values()) if type(whole) is dict else []
    lists = [v for v in values if type(v) is list and v and all(type(row) is dict for row in v)]
    if len(lists) == 1:
        found: Rows = lists[0]
        return found
    if type(whole) is dict and {"columns", "data"} <= set(whole):  # as pandas splits a frame
        names, rows = whole["columns"], whole["data"]
        if type(rows) is list and all(type(r) is list and len(r) == len(names) for r in rows):
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    columns = [list(v.values()) if type(v) is dict else v for v in values]
    keys = {
        tuple(v) if type(v) is dict else range(len(v)) for v in values if type(v) in (dict, list)
    }
    by_column = values and len({type(v) for v in values}) == 1 and type(values[0]) in (dict, list)
    if not by_column or len(keys) != 1 or len(columns[0]) < 2:
        return None
    if type(values[0]) is dict and _are_rows(columns):
        return list(values)
    return [dict(zip(whole, row, strict=True)) for row in zip(*columns, strict=True)]


def _are_rows(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether cells are of one type across the lists, and not within each: rows, by their names."""
    within = all(len(_types(cells)) <= 1 for cells in lists)
    across = all(len(_types(cells)) <= 1 for cells in zip(*lists, strict=True))
    return across and not within


def _types(cells: Sequence[Any]) -> set[str]:
    """Return which types cells have: texts, numbers, booleans, lists or objects."""
    return {
        "number" if type(cell) in (int, float) else type(cell).__name__
        for cell in cells
        if cell is not None
    }


def _of_one_type(rows: Rows) -> Rows:
    """Return rows whose cells of one name are of one type: texts, where they are of several."""
    flat = [_flat(row) for row in rows]
    found: dict[str, set[str]] = {}
    for row in flat:
        for name, cell in row.items():
            found.setdefault(name, set()).update(_types([cell]))
    for name, types in found.items():
        if types == {"number", "str"} and all(_is_number(row.get(name)) for row in flat):
            for row in flat:
                row[name] = None if row.get(name) is None else float(row[name])
            types.discard("str")
    mixed = {name for name, types in found.items() if len(types) > 1 or types & {"list"}}
    return [
        {name: _as_text(cell) if name in mixed else cell for name, cell in row.items()}
        for row in flat
    ]


def _is_number(cell: Any) -> bool:
    try:
        return cell is None or math.isfinite(float(cell))
    except ValueError:
        return False


def _flat(row: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, cell in row.items():
        if type(cell) is dict and cell:
            cells |= _flat(cell, f"{above}{name}.")
        else:
            cells[above + name] = cell
    return cells


def _as_text(cell: Any) -> str | None:
    if cell is None or type(cell) is str:
        return cell
    return json.dumps(cell, ensure_ascii=False)
