"""What may not be what it seems, and is said: totals, and numbers that mean "missing"."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import arrow
from twofold.data.table import Table
from twofold.schema.column import Column

if TYPE_CHECKING:
    from twofold.schema.infer import Statistics

Array = NDArray[Any]
_LEAST_SUMMED = 4  # rows above their totals
_TOTAL = re.compile(
    r"((grand|sub)[- ]?)?totals?|sums?|summen?|gesamt(summe)?|insgesamt|totaux|somme|totale|suma|"
    r"overall|all( rows)?|average|mean",
    re.IGNORECASE,
)
_NINES = re.compile(r"-?9{2,}(\.9*)?|-(8{2,}|7{2,}|[987])|-?9+[678]|(88|77)[78]*")
_MOST_CODES = 4  # 96 to 99, for "does not apply", "refused" and so on
_LIMITS = {-32768.0, 32767.0, -2147483648.0, 2147483647.0, 1e20, 1e30}  # of types, and of programs
_FIRST_DAYS = {-2208988800.0, -2209161600.0, 0.0, -62135596800.0}  # of calendars of programs
_LAST_DAY = 253370764800.0  # 9999-01-01
_FEWEST = 2  # cells


def row_of_totals(table: Table, stats: Statistics | None = None) -> str:
    """Say that the last row holds the totals of the others, if it does; else nothing.

    Its numbers are the sums of those above, or a text says so that no other row has. With `stats`,
    the table is a sample of the rows.
    """
    n_rows = table.n_rows if stats is None or stats.n_rows is None else stats.n_rows
    if table.formats is None or n_rows <= _LEAST_SUMMED or not table.n_rows:
        return ""
    if stats is None:
        last, above = table.values[-1], table.values[:-1]
    elif stats.last is None or stats.sums is None:
        return ""
    else:
        last, above = stats.last, table.values
    summed = compared = 0
    for i, form in enumerate(table.formats):
        if np.isnan(last[i]):
            continue
        if form.type == "text":
            code = int(last[i])
            level = str(form.levels[code]).strip(" :") if code < len(form.levels) else ""
            if not _TOTAL.fullmatch(level):
                continue
            again = (above[:, i] == last[i]).any() if stats is None else stats.counts[i][code] > 1
            if not again:
                return _totals(n_rows, f"{level!r} in column {table.name(i)}")
        elif form.type == "number":
            cells = above[:, i].astype(np.float64)
            some = int(np.count_nonzero(np.nan_to_num(cells))) >= _LEAST_SUMMED
            total = np.nansum(cells)
            if stats is not None and stats.sums is not None:
                total = stats.sums[i] - last[i]
            compared += 1
            same = last[i] != 0 and bool(np.isclose(total, last[i], rtol=1e-3, atol=0))
            summed += int(some and same)
    if summed >= 2 or (summed == 1 and compared == 1):
        return _totals(n_rows, "its numbers are the sums of those above")
    return ""


def _totals(n_rows: int, why: str) -> str:
    return f"row {n_rows - 1:,} looks like a row of totals ({why}): remove it if so"


def with_stand_ins(column: Column, cells: Array) -> Column:
    """Return a column with a note of a number or a day that seems to stand for missing values.

    That is -999, 9999, 9999-12-31 and the like, where it repeats and lies far from all others.
    """
    if column.kind not in ("real", "count", "time") or column.constant:
        return column
    notes = []
    for end in (column.domain.low, column.domain.high):
        found, others = _apart(cells[~np.isnan(cells)], end, column.kind)
        n = sum(found.values())
        if n < _FEWEST or not len(others):
            continue
        low, high = float(others.min()), float(others.max())
        gap = min(abs(cell - (low if end < low else high)) for cell in found)
        alone = end < 0 <= low and column.kind != "time" and (max(found) < -1 or low >= 10)
        if low < high and (gap > high - low or alone):
            shown = _written(column, [*found, low, high])
            held = " or ".join(shown[:-2])
            notes.append(
                f"{n:,} of {len(cells):,} cells hold {held}, and all others are from {shown[-2]} "
                f"to {shown[-1]}: if it stands for missing values, leave these cells empty, or set "
                f"missing=, which takes the place of 'NA' and the like"
            )
    if not notes:
        return column
    return replace(column, note="; ".join(filter(None, (column.note, *notes))))


def _apart(cells: Array, end: float, kind: str) -> tuple[dict[float, int], Array]:
    """Return the numbers from one end that may stand for missing values, their counts, the rest."""
    found: dict[float, int] = {}
    low = end == cells.min()
    while len(found) < _MOST_CODES and len(cells):
        cell = float(cells.min() if low else cells.max())
        if not _may_stand_in(cell, kind):
            break
        at = cells == cell
        found[cell] = int(at.sum())
        cells = cells[~at]
    return found, cells


def _may_stand_in(end: float, kind: str) -> bool:
    if kind == "time":
        return end >= _LAST_DAY or end in _FIRST_DAYS
    return bool(end in _LIMITS or end == -1 or _NINES.fullmatch(f"{end:.6g}"))


def _written(column: Column, cells: list[float]) -> list[str]:
    """Return cells as the training file has them."""
    form = column.format
    if form is None or form.type not in ("number", "time"):
        return [f"{cell:.10g}" for cell in cells]
    kind = arrow.kind_of(form)
    found = arrow.array(np.array(cells), form, kind)
    if form.notation is not None and form.notation.kind == found.type:
        return [str(text) for text in form.notation.write(found).to_pylist()]
    return [str(cell) for cell in pa.array(found).cast(pa.string()).to_pylist()]
