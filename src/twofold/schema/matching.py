"""Cells of other types than the training table's, matched by what they mean.

What a cell means depends on the cell and on its training column alone, never on the cells next to
it: the text "1.50" is a number if the column held numbers, `True` is "yes" if it held "yes" and
"no", and 1.0 is the level "1".
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold.data import arrow
from twofold.data.notation import FLAGS, Notation
from twofold.data.table import Format, Table
from twofold.errors import DataError

if TYPE_CHECKING:
    from twofold.schema.column import Column

Array = NDArray[Any]
Level = str | int | float | bool
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_DIGITS = {"1": True, "1.0": True, "0": False, "0.0": False}
_MOST_NUMBERS = 10_000


def as_text(level: Level) -> str:
    """Return a number as the text that it would have been in the training table."""
    if isinstance(level, float) and level.is_integer():
        return str(int(level))
    return str(level)


def meanings(level: Level) -> tuple[Hashable, ...]:
    """Return what a cell may mean, the likeliest first; cells that mean the same share one.

    Examples
    --------
    >>> meanings(1.0), meanings(" 1.0"), meanings("YES"), meanings("red ")
    (('1', 1.0), ('1',), ((True,),), ('red',))
    """
    if isinstance(level, bool):
        return ((level,), str(int(level)))
    text = as_text(level).strip()
    flag = FLAGS.get(text.lower())
    if flag is not None:
        return ((flag,),)
    whole = _WHOLE.fullmatch(text)
    meant = text if whole is None else whole[1]
    return (meant,) if isinstance(level, str) else (meant, float(level))


def places(known: Sequence[Level], levels: Sequence[Level]) -> list[int | None]:
    """Return which of the known levels each level is: the same, or the only one of its meaning.

    Examples
    --------
    >>> places(["no", "yes", "1"], [True, "yes", 1.0, "YES", "maybe", "1.0"])
    [1, 1, 2, 1, None, 2]
    """
    if all(type(level) is str for level in levels):
        return _places_of_texts(tuple(known), tuple(levels))
    return _places(known, levels)


def _places(known: Sequence[Level], levels: Sequence[Level]) -> list[int | None]:
    exact = {as_text(level): place for place, level in enumerate(known)}
    meant: dict[Hashable, int | None] = {}
    for at, level in enumerate(known):
        for meaning in {*meanings(level), _number(level)}:
            meant[meaning] = None if meaning in meant else at
    meant.pop(None, None)
    found: list[int | None] = []
    place: int | None
    for level in levels:
        place = None if isinstance(level, bool) else exact.get(as_text(level))
        if place is None:
            also = (meant[meaning] for meaning in meanings(level) if meaning in meant)
            place = next(also, None)
        found.append(place)
    return found


# The parts of a table have the same levels, which may be many.
_places_of_texts = lru_cache(maxsize=32)(_places)


def _number(level: Level) -> float | None:
    """Return the number that a level stands for, if it does."""
    try:
        return float(level)
    except ValueError:
        return None


def matched(columns: Sequence[Column], table: Table) -> Table:
    """Return a table whose cells are of the types that the columns held in training.

    Numbers in a column of text stay numbers: `Column.slots` finds their levels.

    Raises
    ------
    DataError
        If cells of another type do not say what they mean; every such column is named.
    """
    assert table.formats is not None
    formats, mistakes = list(table.formats), []
    values, number = table.values, Format("number", "")
    for position, (column, found) in enumerate(zip(columns, table.formats, strict=True)):
        own, cells = column.format or number, table.values[:, position]
        if column.kind == "ignored" or own.type == found.type == "number":
            continue
        if np.isnan(cells).all():
            continue
        try:
            meant = _meant(column, own, found, cells)
        except _Mismatch as mismatch:
            mistakes.append(f"Column '{column.name}' {mismatch}")
            continue
        if meant is not None:
            values = values.astype(np.float64) if values is table.values else values
            values[:, position] = meant
            levels = column.levels if own.type == "text" else ()
            formats[position] = replace(own, levels=levels)
    if mistakes:
        raise DataError(
            "; ".join(mistakes) + ". Correct these cells (empty ones are taken as missing), or "
            "fit again with these columns dropped."
        )
    if values is table.values:
        return table
    return replace(table, values=values, formats=tuple(formats), given=table.formats)


class _Mismatch(Exception):
    """What goes after "Column 'name'"."""


def _meant(column: Column, own: Format, found: Format, cells: Array) -> Array | None:
    """Return what cells mean in the column's own type, None if they are of that type already."""
    was, now = words(own.type), words(found.type)
    if was == now == "times":
        _require_zone(own, found)
    if own.type == "text" and found.type == "boolean":
        at = places(column.levels, [False, True])
        flags = np.array([np.nan if place is None else place for place in at], np.float64)
        return _required(cells, at_positions(cells, flags), was, found)
    if own.type == "text" and now == "numbers":
        _require_some(column, cells)
        return None
    if was == now:
        return None
    if own.type == "time" and found.type == "number" and own.notation and own.notation.pattern:
        distinct, inverse = np.unique(cells, return_inverse=True)  # 20210131, say
        days = read_levels([as_text(number) for number in distinct.tolist()], own)
        return _required(cells, days[inverse], was, found)
    if found.type != "text" or own.type == "text":
        raise _Mismatch(_says(was, found, cells, 0))
    return _required(
        cells, at_positions(cells, read_levels(found.levels, own)), was, found, own.notation
    )


def at_positions(positions: Array, cells: Array) -> Array:
    """Return the cells at some positions; NaN if one is missing."""
    at = np.where(np.isnan(positions), len(cells), positions).astype(np.int64)
    return np.asarray(np.append(cells, np.nan)[at])


def _required(
    cells: Array, meant: Array, was: str, found: Format, written: Notation | None = None
) -> Array:
    """Return what cells mean; raises _Mismatch if one of them does not say."""
    silent = np.flatnonzero(np.isnan(meant) & ~np.isnan(cells))
    if found.type == "text":
        missing = {"", *(written.missing if written else ())}
        silent = np.array(
            [r for r in silent if str(found.levels[int(cells[r])]).strip() not in missing], int
        )
    if len(silent):
        raise _Mismatch(_says(was, found, cells, int(silent[0])))
    return meant


def _says(was: str, found: Format, cells: Array, row: int) -> str:
    row = row if not np.isnan(cells[row]) else int(np.flatnonzero(~np.isnan(cells))[0])
    cell = "a time" if found.type == "time" else f"{cells[row]:g}"
    if found.type == "text":
        cell = repr(found.levels[int(cells[row])])
    return f"held {was} in training and holds {words(found.type)} here (row {row}: {cell})"


def _require_some(column: Column, cells: Array) -> None:
    numbers = np.unique(cells[~np.isnan(cells)])[:_MOST_NUMBERS].tolist()
    if column.kind != "category" or any(p is not None for p in places(column.levels, numbers)):
        return
    row = int(np.flatnonzero(~np.isnan(cells))[0])
    raise _Mismatch(
        f"held text in training, such as {column.levels[column.kept[0]]!r}, and holds other "
        f"numbers here (row {row}: {cells[row]:g}); pass its cells as text"
    )


def _require_zone(own: Format, found: Format) -> None:
    zones = [_has_zone(form) for form in (own, found)]
    if None in zones or zones[0] == zones[1]:
        return
    had, has = ("times with a zone" if zone else "times without a zone" for zone in zones)
    remedy = "convert them to UTC and leave the zone out" if zones[1] else "give them their zone"
    raise _Mismatch(f"held {had} in training and holds {has} here; {remedy}")


def _has_zone(form: Format) -> bool | None:
    kind = arrow.kind_of(form)
    return kind.tz is not None if pa.types.is_timestamp(kind) else None


def words(type_of_cells: str) -> str:
    """Say what cells of a type are."""
    return {"text": "text", "time": "times"}.get(type_of_cells, "numbers")


def read_levels(levels: Sequence[Level], form: Format) -> Array:
    """Return levels of text as cells of a column that held none; NaN if they do not say what."""
    if form.type == "boolean":
        return np.array([_flag(level) for level in levels], np.float64)
    cells = np.full(len(levels), np.nan)
    if form.type == "number":
        cells = np.array([np.nan if isinstance(v, str) else float(v) for v in levels], np.float64)
    kind = arrow.kind_of(form)
    if pa.types.is_duration(kind):
        return cells
    notation = form.notation or Notation(form.type, _arrow_name(kind))
    if notation.arrow == "int64":  # 1.0 is a whole number, too
        notation = replace(notation, arrow="double")
    texts = pa.array([v.strip() if isinstance(v, str) else None for v in levels], pa.string())
    texts = pc.if_else(notation.is_missing(texts), None, texts)
    fits = pc.fill_null(pc.and_(pc.is_valid(texts), notation.matches(texts)), False)
    at = np.flatnonzero(np.asarray(fits))
    if len(at):
        cells[at] = arrow.read(notation.read(pa.chunked_array([texts.take(pa.array(at))])))[0]
    return cells


def _arrow_name(kind: Any) -> str:
    """Return the type that text is read in, for cells of a type."""
    if pa.types.is_time(kind):
        return "time32[s]"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = pa.types.is_timestamp(kind) and kind.tz is not None
        return "timestamp[ns, tz=UTC]" if zone else "timestamp[ns]"
    return "double"


def _flag(level: Level) -> float:
    if not isinstance(level, str):
        return float(level)
    text = level.strip().lower()
    flag = FLAGS.get(text, _DIGITS.get(text))
    return np.nan if flag is None else float(flag)
