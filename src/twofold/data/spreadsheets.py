"""Spreadsheets, as the text that a CSV file of their first table would hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from twofold.data import sources
from twofold.data.discovery import Place
from twofold.errors import DataError, MissingExtraError

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
Rows = list[list[str | None]]


def as_text(place: Place) -> tuple[bytes, tuple[str, ...]]:
    """Return the cells of the first sheet that holds a table as CSV, and what is to be said of it.

    A cell that spans rows counts in each of them. A line without cells is empty.

    Raises
    ------
    DataError
        If it is not a workbook, or no sheet holds a cell.
    MissingExtraError
        If what reads workbooks is not installed.
    """
    sheets = _sheets(place)
    # Of equals, the first: rows of several cells come before single columns, and these before none.
    name, rows = max(sheets, key=lambda pair: _rank(pair[1]), default=("", []))
    if not rows:
        raise DataError(f"{place.shown} has no sheet with rows. Add some, below a header.")
    said = [f"sheet {name!r}"] * (len(sheets) > 1)
    n = 0  # lines above the header
    while n < len(rows) - 1 and _n_filled(rows[n]) <= (len(rows[n]) > 1):
        n += 1
    if n:
        said.append(f"{n} line{'s' * (n > 1)} above the header left out")
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in rows[n:]:
        if any(cell is not None for cell in row):
            writer.writerow(row)
        elif len(row) > 1:  # of one column, it would be a missing cell
            written.write("\n")
    return written.getvalue().encode(errors="replace"), tuple(said)


def _sheets(place: Place) -> list[tuple[str, Rows]]:
    """Return the names and cells of the sheets, those that are shown first."""
    try:
        import python_calamine
    except ImportError as error:
        raise MissingExtraError(
            "Spreadsheets need python-calamine, which is not installed. Install "
            "'twofold[spreadsheets]'."
        ) from error
    with place.open() as stream, sources.readable(place.shown):
        try:
            book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(stream.read()))
            about = {sheet.name: sheet for sheet in book.sheets_metadata}
            shown = python_calamine.SheetVisibleEnum.Visible
            names = sorted(book.sheet_names, key=lambda name: about[name].visible != shown)
            return [(name, _cells(book.get_sheet_by_name(name))) for name in names]
        except python_calamine.CalamineError as error:
            raise DataError(f"{place.shown} cannot be read as a spreadsheet: {error}.") from error


def _cells(sheet: Any) -> Rows:
    rows = [[_text(cell) for cell in row] for row in sheet.to_python()]
    top, left = sheet.start or (0, 0)
    for (first, at), (last, _) in sheet.merged_cell_ranges or ():
        for row in rows[max(0, first - top + 1) : max(0, last - top + 1)]:
            if 0 <= at - left < len(row):
                row[at - left] = rows[first - top][at - left]
    return rows


def _rank(rows: Rows) -> int:
    """Return how much a sheet looks like a table: 3 if two rows or more hold several cells."""
    if sum(_n_filled(row) > 1 for row in rows) > 1:
        return 3
    return min(len(rows), 2)


def _n_filled(row: Sequence[str | None]) -> int:
    return sum(cell is not None for cell in row)


def _text(cell: Any) -> str | None:
    """Return a cell as the text that a CSV file would hold."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    text = cell.isoformat(sep=" ") if hasattr(cell, "hour") and hasattr(cell, "year") else str(cell)
    return text.removesuffix(" 00:00:00") if hasattr(cell, "year") else text
