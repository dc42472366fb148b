"""Tables, numbers and cells in plain text that reads the same on a terminal and in a file."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

_LEAST_WIDTH = 12  # of a column that gives way to a narrow terminal: most numbers stay whole
_LONGEST_CELL = 60
# As Arrow, pandas and polars call them.
_TIME_OF_DAY = re.compile(r"\btime(32|64)\b|^Time$")
_DAY = re.compile(r"\bdate(32|64)\b|^Date$")
_WITH_ZONE = re.compile(r"tz=|time_zone='|^datetime64\[\w+, ")


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    width: int | None = None,
) -> str:
    """Line up cells in columns under their titles.

    The columns in `right` are lined up on that side, and never cut. The others are cut where the
    table is wider than `width`, for which the terminal's is taken if there is one, and at 60
    letters in any case.

    Examples
    --------
    >>> print(table(("column", "share"), [("age", "0.5"), ("zip", "12.5")], right=(1,)))
    column  share
    -------------
    age       0.5
    zip      12.5
    """
    every = [
        [cell if i in right else shortened(cell) for i, cell in enumerate(row)]
        for row in (titles, *rows)
    ]
    widths = [max(_width(row[i]) for row in every) for i in range(len(titles))]
    most = _terminal_width() if width is None else width
    if most:
        _narrow(widths, right, most)
    lines = _lines(every, widths, right)
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def pairs(rows: Mapping[str, str] | Sequence[Sequence[str]]) -> str:
    """Line up names and what they stand for, whole: long lines are the terminal's to fold."""
    every = list(rows.items()) if isinstance(rows, Mapping) else rows
    if not every:
        return ""
    widths = [max(_width(row[i]) for row in every) for i in range(len(every[0]))]
    return "\n".join(_lines(every, widths, ()))


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    lines = []
    for row in rows:
        cells = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            cell = _cut(text, width)
            space = " " * (width - _width(cell))
            cells.append(space + cell if i in right else cell + space)
        lines.append("  ".join(cells).rstrip())
    return lines


def _narrow(widths: list[int], right: Sequence[int], most: int) -> None:
    """Take from the widest columns, one letter at a time, until the table fits or they are narrow.

    A terminal too narrow even so folds the lines.
    """
    spare = most - 2 * (len(widths) - 1)
    while sum(widths) > spare:
        widest = max((i for i in range(len(widths)) if i not in right), key=widths.__getitem__)
        if widths[widest] <= _LEAST_WIDTH:
            return
        widths[widest] -= 1


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _width(text: str) -> int:
    """Return how many places of a terminal the text takes: some letters take two, some none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def shortened(text: str, most: int = _LONGEST_CELL) -> str:
    r"""Return the text in one line of at most `most` places that no terminal takes for a command.

    Examples
    --------
    >>> shortened("two\nlines"), shortened("\x1b[31mred"), shortened("a long one", 7)
    ('two\\nlines', '\\x1b[31mred', 'a long…')
    """
    first = text[: 4 * most]  # spares what is never shown; accents can be letters of their own
    if not first.isprintable():
        first = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in first)
    return _cut(first, most)


def listed(names: Sequence[str], most: int) -> str:
    """Name the first of many.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    text = ", ".join(map(shortened, names[:most]))
    return text + (f" and {len(names) - most:,} more" if len(names) > most else "")


def counted(n: int, thing: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {thing}" + "s" * (n != 1)


def number(value: float) -> str:
    """Write a number with six digits, and whole ones in full.

    Examples
    --------
    >>> number(25.28004), number(1234567.89), number(12345678), number(2.5e-7), number(3e40)
    ('25.28', '1234568', '12345678', '2.5e-07', '3e+40')
    """
    if not math.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e15:
        return str(int(value))
    if 1e5 <= abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.6g}"


def cell(value: Any, dtype: str = "", exact: bool = False) -> str | None:
    """Write a table's cell as a reader knows it; None where it is missing.

    Parameters
    ----------
    value : number, text, datetime or None
    dtype : str
        The container's name for the column's type, which tells days and times of day.
    exact : bool
        Write every digit.

    Examples
    --------
    >>> cell(8006.0), cell(25.28004), cell(25.28004, exact=True), cell("Zürich")
    ('8006', '25.28', '25.28004', 'Zürich')
    >>> moment = datetime(2024, 5, 17, 9, 30, 12, 345_678)
    >>> cell(moment), cell(moment, exact=True), cell(moment, "date32[day]")
    ('2024-05-17 09:30:12', '2024-05-17 09:30:12.345678', '2024-05-17')
    >>> cell(34_200.0, "time32[s]")
    '09:30:00'
    """
    if isinstance(value, datetime):
        return _moment(value, dtype, exact)
    if value is None or value != value:
        return None
    if isinstance(value, str | bool):
        return str(value)
    if _TIME_OF_DAY.search(dtype) and 0 <= value < 86_400:
        time = (datetime.min + timedelta(seconds=float(value))).time()
        return time.isoformat("auto" if exact else "seconds")
    if exact:
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return number(value)


def _moment(value: datetime, dtype: str, exact: bool) -> str:
    if _DAY.search(dtype):
        nearest = value + timedelta(hours=12) if value.year < datetime.max.year else value
        return nearest.date().isoformat()
    # Times with a zone come in UTC, which their reader has to be told.
    zone = "Z" if _WITH_ZONE.search(dtype) else ""
    return value.isoformat(" ", "auto" if exact else "seconds") + zone


def size(n_bytes: float) -> str:
    """Write a file's size.

    Examples
    --------
    >>> size(812), size(35_200), size(3_100_000)
    ('812 bytes', '35.2 kB', '3.1 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    for unit in ("kB", "MB"):
        n_bytes /= 1000
        if n_bytes < 999.95:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1000:.1f} GB"
