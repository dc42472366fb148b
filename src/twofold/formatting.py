"""Tables, numbers and cells in plain text that reads the same on a terminal and in a file."""

from __future__ import annotations

import html
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


class Text(str):
    """A text of several lines that a console or a notebook shows as it is."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


def html_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), note: str = ""
) -> str:
    """Return cells under their titles as a table for notebooks, with a note below it.

    Examples
    --------
    >>> html_table(("column", "share"), [("a<b", "0.5")], right=(1,))[:52]
    '<table><thead><tr><th style="text-align:left">column'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        parts = []
        for i, text in enumerate(cells):
            side = "right" if i in right else "left"
            parts.append(f'<{tag} style="text-align:{side}">{html.escape(shortened(text))}</{tag}>')
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    below = f"<p>{html.escape(note)}</p>" if note else ""
    return f"<table><thead>{line(titles, 'th')}</thead><tbody>{body}</tbody></table>{below}"


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
    # Spares what is never shown; accents can be letters of their own.
    first = text[: 4 * most].replace("\u00a0", " ")
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


def counted(n: int, noun: str, plural: str = "") -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "row"), counted(2000, "row"), counted(2, "anomaly", "anomalies")
    ('1 row', '2,000 rows', '2 anomalies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def plain_number(value: float) -> str:
    """Write a number as it could be typed, with six digits, and whole ones in full.

    Examples
    --------
    >>> [plain_number(x) for x in (25.28004, 1234567.89, 12345678, 2.5e-7, 3e40)]
    ['25.28', '1234568', '12345678', '2.5e-07', '3e+40']
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
    >>> noon = datetime(2024, 5, 17, 9, 30, 12, 345_678)
    >>> cell(noon), cell(noon, exact=True), cell(noon, "date32[day]")
    ('2024-05-17 09:30:12', '2024-05-17 09:30:12.345678', '2024-05-17')
    >>> cell(34_200.0, "time32[s]")
    '09:30:00'
    """
    if isinstance(value, datetime):
        return _timestamp(value, dtype, exact)
    if value is None or value != value:
        return None
    if isinstance(value, str | bool):
        return str(value)
    if _TIME_OF_DAY.search(dtype) and 0 <= value < 86_400:
        time = (datetime.min + timedelta(seconds=float(value))).time()
        return time.isoformat("auto" if exact else "seconds")
    if exact:
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return plain_number(value)


def _timestamp(value: datetime, dtype: str, exact: bool) -> str:
    if _DAY.search(dtype):
        nearest = value + timedelta(hours=12) if value.year < datetime.max.year else value
        return nearest.date().isoformat()
    # Timestamps with a zone come in UTC; the letter says so.
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


def number(value: float, digits: int = 3) -> str:
    """Write a number for reading, with so many significant digits.

    Examples
    --------
    >>> number(0.067512), number(0.09999), number(1234.5), number(-12.345), number(2.5e-9)
    ('0.0675', '0.100', '1,234', '−12.3', '2.5e−9')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if -5 <= size < 15:
        text = f"{value:,.{max(0, digits - 1 - size)}f}"
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """Write a share as a percentage; only nothing is 0 %, and only all of it is 100 %.

    Examples
    --------
    >>> [percent(share).replace("\u00a0", " ") for share in (0.0512, 0.5, 0.00012, 0.99996, 1)]
    ['5.1 %', '50 %', '0.01 %', '>99.99 %', '100 %']
    """
    if not math.isfinite(share):
        return number(share)
    value = 100 * share
    if value in (0, 100) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif 0 < abs(value) < 0.005:
        text = "<0.01" if value > 0 else "−0.00"
    elif 99.995 <= value < 100:
        text = ">99.99"
    else:
        near = abs(value) < 0.1 or 99.9 < value < 100
        text = f"{value:.2f}" if near else f"{value:.1f}".removesuffix(".0")
    return text.replace("-", "−") + "\u00a0%"


def duration(seconds: float) -> str:
    """Write how long something takes.

    Examples
    --------
    >>> [duration(s) for s in (0.001, 0.31, 47.2, 300, 9000, 400_000)]
    ['<0.1 s', '0.3 s', '47 s', '5 min', '2.5 h', '4.6 days']
    """
    if 0 < abs(seconds) < 0.05:
        return "<0.1 s"
    if abs(seconds) < 99.5:
        return f"{seconds:.1f} s" if abs(seconds) < 9.95 else f"{seconds:.0f} s"
    units = ((60, "min", 99.5), (3600, "h", 47.5), (86_400, "days", math.inf))
    size, unit = next((s, u) for s, u, most in units if abs(seconds) / s < most)
    count = seconds / size
    text = f"{count:,.0f}" if abs(count) >= 9.95 or unit == "min" else f"{count:.1f}"
    return f"{text.removesuffix('.0')} {unit}"
