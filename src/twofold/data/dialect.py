"""How a text file is laid out: its encoding, what separates cells, and where its rows begin."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from twofold.data.encoding import decode, encoding_of
from twofold.data.notation import MISSING
from twofold.errors import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_RARER = (" ", "~", "^", ":")  # looked for if none of these separates cells
_NAMES = {**DELIMITERS, " ": "spaces"}
_GAP = re.compile(r'("[^"]*")|[ \t]+')
HEAD_BYTES = 2**18  # read to find out
_MOST_LINES = 200
_MOST_PREAMBLE = 30  # lines before the header
_LEAST_BELOW_UNITS = 6  # lines that show what the second one is
_FEWEST_EMPTY = 2  # lines without a cell that end a table of three columns
_MOST_FOOTER = 20  # lines below the rows
_FEWEST_ROWS = 3  # lines of data that are a table, and no titles
_MOST_BELOW = 3  # lines between header and rows
_RULE = re.compile(r"\s*:?-+:?\s*")
_RULES = {mark * n for mark in (b"_", b"-", b"=", b"*") for n in range(3, 200)}
_OTHERS = (  # of other types than the name says
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"\x1f\x8b", "compressed with gzip", ".csv.gz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", ".csv.zst"),
    (b"ARROW1", "an Arrow file", ".arrow"),
    (b"\x93NUMPY", "an array", ".npy"),
)
_LFS = b"version https://git-lfs.github.com/spec"
_NUMBER = re.compile(r"[-+(]?\s*[$€£¥]?\s*[-+]?[\d.,]*\d[\d.,]*\s*[%€]?\)?([eE][-+]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?")


@dataclass(frozen=True)
class Dialect:
    """The layout of a text file of rows.

    Attributes
    ----------
    delimiter : str
        What separates cells.
    encoding : str
        As Python names it; "utf-8-sig" for UTF-8 with a byte-order mark.
    skip : int
        Lines before the header, or before the first row without one.
    has_header : bool
        Whether a line names the columns.
    quoted_lines : bool
        Whether a cell holds a line break.
    below : int
        Lines between the header and the rows: units, or a second header.
    joined : bool
        Whether the first of them names columns that the header does not name, or names once.
    unnamed : str
        Which column the header lacks: "first", "last" or "" for none.
    quoting : str
        What quoted cells begin with in the file: a quote or an apostrophe, and a space before it if
        one follows the delimiter.
    escape : str
        What stands before a quote within quotes: a backslash, or "" where it is doubled.
    said : tuple of str
        What was detected and is not the usual: one short text each.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    skip: int = 0
    has_header: bool = True
    quoted_lines: bool = False
    below: int = 0
    joined: bool = False
    unnamed: str = ""
    escape: str = ""
    quoting: str = '"'
    said: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_single_byte(self) -> bool:
        """Whether line breaks are the bytes that they are in ASCII."""
        return not self.encoding.startswith(("utf-16", "utf-32"))


@dataclass(frozen=True)
class Layout:
    """What is known of the layout before a file is looked at; None for what is to be detected.

    `names` are those of the training table's columns.
    """

    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()

    def has_header(self, first: Sequence[str]) -> bool | None:
        """Whether the first line is a header, as far as that is known."""
        if self.header is not None or not self.names:
            return self.header
        if {*self.names} <= {name.strip() for name in first}:
            return True
        unnamed = all(name == f"column{i + 1}" for i, name in enumerate(self.names))
        return False if unnamed and len(first) == len(self.names) else None


def detect(head: bytes, layout: Layout, name: str, is_whole: bool = False) -> Dialect:
    """Return the dialect of a file that begins so.

    Raises
    ------
    DataError
        If it is not a file of rows, or the encoding that was given is not its own.
    """
    _require_rows(head, name)
    encoding = layout.encoding or encoding_of(head, is_whole)
    try:
        text = decode(head, encoding, is_whole)
    except (UnicodeError, LookupError) as error:
        raise DataError(
            f"{name} cannot be read as {encoding}: {error}. Set another encoding."
        ) from error
    if not is_whole:
        text = text[: text.rfind("\n") + 1] or text
    said = []
    if encoding not in ("utf-8", "utf-8-sig", "ascii"):
        said.append(f"encoding {encoding}")
    lines, skip, delimiter = text.splitlines(keepends=True), 0, layout.delimiter
    if lines and (found := re.fullmatch(r'"?sep=(.)"?,*\s*', lines[0], re.IGNORECASE)):
        delimiter, skip = delimiter or found[1], 1
    while skip < min(len(lines), _MOST_PREAMBLE) and _is_comment(lines, skip):
        skip += 1
    rest = "".join(lines[skip:])
    found_quoting = _quoting(rest, delimiter)
    quoting = '"'
    if found_quoting is not None:
        delimiter, quoting = found_quoting
        rest = requoted(rest, delimiter, quoting)
        lines[skip:] = rest.splitlines(keepends=True)
        said.append("cells quoted by " + ("apostrophes" if "'" in quoting else "quotes and spaces"))
    delimiter = delimiter or _delimiter(rest, name)
    if delimiter == " ":
        lines[skip:] = single_spaced(rest).splitlines(keepends=True)
        rest = "".join(lines[skip:])
    escape = _escape(rest, delimiter)
    rows = _rows(rest, delimiter, escape)
    if skip and _names_columns(lines[skip - 1], rows, delimiter):
        skip -= 1
        rows = _rows("".join(lines[skip:]), delimiter, escape)
    block = _title_block(lines[skip:], delimiter, escape)
    if block:
        skip += block
        rows = _rows("".join(lines[skip:]), delimiter, escape)
    title = _title_lines(rows)
    rows, left = rows[title:], title
    while left or (title and skip < len(lines) and _is_comment(lines, skip)):
        left -= bool(left and lines[skip].strip())
        skip += 1
    if title or block or any(_is_comment(lines, i) for i in range(skip)):
        said.append(f"{skip} line{'s' * (skip > 1)} above the header left out")
    if delimiter != ",":
        said.insert(0, f"cells separated by {_NAMES.get(delimiter, repr(delimiter))}")
    unnamed = _unnamed(rows) if layout.header is not False else ""
    if unnamed:
        rows[0] = _padded(rows[0], unnamed)
        said.append(f"the header does not name the {unnamed} column")
    known = layout.has_header(rows[0]) if rows else layout.header
    has_header = known if known is not None else _has_header(rows)
    below = _lines_below(rows) if has_header else 0
    joined = bool(below) and _is_second_header(rows)
    if below:
        what = "joined to the names" if joined else "left out"
        said.append(f"{below} line{'s' * (below > 1)} of units or names below the header {what}")
    if not has_header and known is None:
        said.append("no header: the columns are called column1, column2, ...")
    quoted = any("\n" in cell or "\r" in cell for row in rows for cell in row)
    return Dialect(
        delimiter,
        encoding,
        skip,
        has_header,
        quoted,
        below,
        joined,
        unnamed if has_header else "",
        escape,
        quoting,
        tuple(said),
    )


def _require_rows(head: bytes, name: str) -> None:
    if head.startswith(_LFS):
        raise DataError(
            f"{name} is a pointer of Git LFS and not the file itself. Fetch it with: git lfs pull."
        )
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(
            f"{name} is a spreadsheet or an archive. Name it .xlsx, .ods or .xls if so."
        )
    for mark, kind, suffix in _OTHERS:
        if head.startswith(mark):
            raise DataError(f"{name} is {kind}, and not text. Name it {suffix}.")
    if re.match(rb'\s*(\[\s*)?\{\s*"', head):
        raise DataError(f"{name} is JSON. Name it .json, or .jsonl with an object in each line.")
    start = head[:1000].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise DataError(f"{name} is a page of HTML, and not a table. Download the file itself.")


def _is_comment(lines: Sequence[str], at: int) -> bool:
    line = lines[at].strip()
    return not line or line.startswith(("#", "//", "%%")) or not line.strip(',;\t| "')


def _names_columns(line: str, rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Whether a line that begins like a comment is a header, such as "#chrom", above rows."""
    names = next(iter(_rows(line, delimiter)), [])
    body = [names, *rows]
    alike = len(names) > 1 and len(rows) > 0 and len(names) == len(rows[0])
    return alike and all(names) and _has_header(body) and not _has_header(rows)


def _quoting(text: str, delimiter: str | None) -> tuple[str, str] | None:
    """Return the delimiter and what cells are quoted by, if not by quotes right after delimiters.

    Rows are of one length only so, or every line has a cell that is quoted so.
    """
    if not re.search(r"(?m)(^|[,;\t|]) ?'|[,;\t|] +\"", text):
        return None
    for mark in [delimiter] if delimiter else DELIMITERS:
        for quoting in (' "', "'", " '"):
            between, quote = re.escape(mark), quoting[-1]
            ahead = f"{between} +" if " " in quoting else f"(?:^|{between})"
            cell = f"{quote}(?:[^{quote}\\n]|{quote}{quote})*{quote}(?= *(?:{between}|\\r?$))"
            n_begun = len(re.findall(f"(?m){ahead}{quote}", text))
            n_cells = len(re.findall(f"(?m){ahead}{cell}", text))
            if n_cells < 3 or n_cells < 0.9 * n_begun:
                continue
            if quote == "'" and re.search(f'(?m)(^|{between} ?)"', text):
                continue
            length, share = _usual_length(_rows(requoted(text, mark, quoting), mark))
            if length < 2 or share < 0.9:
                continue
            if n_cells >= text.count("\n") or _usual_length(_rows(text, mark))[1] < share:
                return mark, quoting
    return None


def _usual_length(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """Return how many cells most rows have, and the share of the rows that have as many."""
    lengths = Counter(len(row) for row in rows)
    usual = max(lengths, key=lambda n: lengths[n], default=0)
    return usual, lengths[usual] / max(1, len(rows))


def requoted(text: str, delimiter: str, quoting: str) -> str:
    """Return rows whose cells are quoted otherwise as they are written usually."""
    spaced, quote = quoting.startswith(" "), quoting[-1]
    reader = csv.reader(
        io.StringIO(text), delimiter=delimiter, quotechar=quote, skipinitialspace=spaced
    )
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows(reader)
    return written.getvalue()


def empty_end(tail: bytes, dialect: Dialect, width: int) -> tuple[int, int]:
    """Return how many bytes and lines at the end of a file hold delimiters only.

    Spreadsheets write such lines below a table. A few can be rows whose cells are all missing.
    """
    mark = re.escape(dialect.delimiter.encode())
    is_empty = re.compile(rb'[ ]*(?:"")?(?:' + mark + rb'[ ]*(?:"")?)+[ ]*\s*').fullmatch
    left = n = 0
    for line in reversed(tail.splitlines(keepends=True)[1:]):
        if line.strip(b"\r\n") and not is_empty(line):
            break
        left += len(line)
        n += bool(line.strip(b"\r\n"))
    return (left, n) if n >= _FEWEST_EMPTY + 3 * (width < 3) else (0, 0)


def footer(tail: bytes, dialect: Dialect, width: int) -> tuple[int, int]:
    """Return how many bytes and lines are below the rows of a file that ends with `tail`.

    Such lines are comments, or hold texts in place of cells: after an empty line, or with a line
    end, without which one could be a row that was cut off.
    """
    lines = tail.splitlines(keepends=True)[1:]
    found: list[int] = []  # bytes from each note to the end
    below: list[int] = []  # the same, of lines that are notes if an empty line comes before them
    left = 0
    for i, line in reversed(list(enumerate(lines))):
        text = line.strip()
        left += len(line)
        if not text.strip(dialect.delimiter.encode() + b" "):
            found += [*below, left] if text and (found or below) else below
            below = []
            continue
        cells = _rows(text.decode("latin-1"), dialect.delimiter)[0]
        filled = [cell.strip() for cell in cells if cell.strip()]
        is_comment = 1 < width != len(cells) and text.startswith((b"#", b"//"))
        whole = line.endswith(b"\n") or (i > 0 and not lines[i - 1].strip())
        # The last line of a cell of several ends in an odd number of quotes.
        unquoted = width > 2 and text.count(b'"') % 2 == 0
        is_text = unquoted and not any(map(is_data, filled))
        is_text = is_text and (b" " in text or text.endswith(b":"))
        padded = len(filled) == 1 and " " in cells[0]
        alone = dialect.delimiter.encode() not in text
        if is_comment or text in _RULES or (is_text and whole and alone):
            found += [*below, left]
            below = []
        elif unquoted and (len(cells) != width or padded) and not all(map(is_data, filled)):
            below.append(left)
        else:
            break
        if len(found) + len(below) > _MOST_FOOTER:
            return 0, 0
    return (found[-1], len(found)) if found else (0, 0)


def _escape(text: str, delimiter: str) -> str:
    """Return a backslash if quotes in quoted cells have one before them, and are not doubled."""
    mark = re.escape(delimiter)
    quoted = rf'(?m)(?:^|{mark})"(?:[^"\\\n]|\\.)*\\"(?!["{mark}\r\n]|$)'
    return "\\" if re.search(quoted, text) else ""


def _unnamed(rows: Sequence[Sequence[str]]) -> str:
    """Return which column the header has no name for: R's row names, or what a last mark ends."""
    if len(rows) < 2 or not rows[0] or {len(row) for row in rows[1:]} != {len(rows[0]) + 1}:
        return ""
    return "first" if any(row[-1].strip() for row in rows[1:]) else "last"


def _padded(names: Sequence[str], unnamed: str) -> list[str]:
    return [*[""] * (unnamed == "first"), *names, *[""] * (unnamed == "last")]


def _lines_below(rows: Sequence[Sequence[str]]) -> int:
    """Return how many lines below the header hold units, further names or a rule, and no cells."""
    n = 0
    while n < _MOST_BELOW and len(rows) > n + 1:
        is_rule = all(_RULE.fullmatch(cell) for cell in rows[n + 1] if cell.strip())
        is_rule = is_rule and any("---" in cell for cell in rows[n + 1])
        if not is_rule and not _has_units([rows[0], *rows[n + 1 :]]):
            break
        n += 1
    return n


def _is_second_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the line below the header names more columns than the header, which has blanks."""
    named = [sum(bool(cell.strip()) for cell in row) for row in rows[:2]]
    return named[0] < named[1] and not any(_RULE.fullmatch(cell) for cell in rows[1])


def _has_units(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the line below the header holds texts above columns of numbers: units, say."""
    if len(rows) < _LEAST_BELOW_UNITS or len(rows[1]) != len(rows[0]):
        return False
    units = 0
    for place, unit in enumerate(cell.strip() for cell in rows[1]):
        cells = [row[place].strip() for row in rows[2:] if place < len(row)]
        known = [cell for cell in cells if cell]
        if is_data(unit) or unit in MISSING:
            return False
        if known and sum(map(is_data, known)) >= 0.8 * len(known):
            units += 1 if unit else 0
    return units >= 2


def _rows(text: str, delimiter: str, escape: str = "") -> list[list[str]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, escapechar=escape or None)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) >= _MOST_LINES:
                break
    except csv.Error:
        pass
    return rows


def _delimiter(text: str, name: str) -> str:
    """Return what separates cells: what makes the most lines of one length."""
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        lengths = Counter(len(row) for row in _rows(text, delimiter))
        if not lengths:
            continue
        n_lines = sum(lengths.values())
        length, n = max(lengths.items(), key=lambda item: (item[0] > 1, item[1]))
        share = n / n_lines if length > 1 else 0.0
        if delimiter == "," and share < 1 and length > 1 and ";" in text:
            share *= 0.9  # commas before decimals
        if (
            round(share, 2),
            length * (delimiter != ",") + (delimiter == ","),
        ) > most and share > 0.5:
            best, most = delimiter, (round(share, 2), length)
    if most[0] > 0:
        return best
    if name.lower().endswith((".tsv", ".tab")):
        return "\t"
    return next((mark for mark in _RARER if _separates(mark, text)), best)


def _separates(mark: str, text: str) -> bool:
    """Whether all lines have as many cells, two or more, and some columns hold numbers."""
    rows = _rows(single_spaced(text) if mark == " " else text, mark)
    if len(rows) < 3 or len(rows[0]) < 2 or {len(row) for row in rows} != {len(rows[0])}:
        return False
    return any(all(is_data(row[i].strip()) for row in rows[1:]) for i in range(len(rows[0])))


def single_spaced(text: str) -> str:
    """Return text whose cells are aligned by spaces with one space between them."""
    lines = (line.strip(" \t") for line in text.split("\n"))
    return "\n".join(_GAP.sub(lambda gap: gap[1] or " ", line) for line in lines)


def _title_block(lines: Sequence[str], delimiter: str, escape: str) -> int:
    """Return how many lines of titles stand above an empty line and a header, 0 for none.

    Titles fill few of their cells, and a header nearly all.
    """
    best, above, rows_above = 0, 0, 0  # cells that a title fills, and lines of data
    for i, line in enumerate(lines[: min(_MOST_PREAMBLE, len(lines) - 2)]):
        if not line.strip(f'{delimiter}" \r\n'):
            rows = _rows("".join(lines[i + 1 :]), delimiter, escape)
            filled = sum(bool(cell.strip()) for cell in rows[0]) if rows else 0
            usual, share = _usual_length(rows)
            whole = filled >= max(2, usual - 1) and len(rows[0]) == usual and share >= 0.5
            whole = whole and above < filled and rows_above < _FEWEST_ROWS
            if i and whole and '"' not in line.replace('""', ""):
                best = i + 1
        else:
            cells = next(iter(_rows(line, delimiter, escape)), [])
            rows_above += all(map(is_data, cells))
            above = max(above, sum(bool(cell.strip()) for cell in cells))
            if line.count('"') % 2:
                break
    return best


def _title_lines(rows: Sequence[Sequence[str]]) -> int:
    """Return how many lines stand above the header: shorter ones, or with a first cell alone."""
    lengths = Counter(len(row) for row in rows)
    usual = max(lengths, key=lambda n: lengths[n]) if lengths else 0
    if usual < 2:
        return 0
    n = 0
    for row in rows[: min(_MOST_PREAMBLE, len(rows) - 2)]:
        if len(row) < usual - 1 or (
            len(row) == usual and row[0].strip() and not any(c.strip() for c in row[1:])
        ):
            n += 1
        else:
            break
    if n and len(rows[n]) == usual and sum(bool(c.strip()) for c in rows[n]) < usual - 1:
        return 0  # the lines after are not a header either
    return n


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns, and is not a row like the others."""
    if len(rows) < 2:
        return True
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    numbers: list[str] = []  # names that are numbers, above numbers
    outside = 0  # of the range of those
    for place, name in enumerate(first):
        cells = [row[place].strip() for row in body if place < len(row) and row[place].strip()]
        data = sum(is_data(cell) for cell in cells)
        if not cells or data < 0.8 * len(cells):
            continue
        if not name or not is_data(name):
            return True  # a name above numbers
        numbers.append(name)
        outside += _is_outside(name, cells)
    # A row is like others if its texts turn up below it.
    texts = [(i, name) for i, name in enumerate(first) if name and not is_data(name)]
    again = sum(name in {row[i].strip() for row in body if i < len(row)} for i, name in texts)
    if numbers and texts:
        strange = outside > 0.5 * len(numbers) or _are_consecutive_years(numbers)
        return again == 0 and strange and _in_even_steps(numbers)
    if numbers:
        return _in_steps(numbers)
    return again < 0.5 * len(first) or len(body) < 5


def is_data(cell: str) -> bool:
    """Whether a cell is a number or a day, as far as can be seen without its column."""
    return bool(_NUMBER.fullmatch(cell) or _DATE.fullmatch(cell))


def _in_steps(names: Sequence[str]) -> bool:
    """Whether names are numbers in order, as 0, 1, 2, years or wavelengths are, and no cells."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    steps = [b - a for a, b in pairwise(numbers)]
    ordered = bool(steps) and (all(s > 0 for s in steps) or all(s < 0 for s in steps))
    # A few cells can be in order by accident.
    return ordered and (len(names) >= 6 or all(n.is_integer() for n in numbers))


def _in_even_steps(names: Sequence[str]) -> bool:
    """Whether names are years or whole numbers one step apart, as next to a name of text."""
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return False
    steps = {b - a for a, b in pairwise(numbers)}
    if min(numbers) >= 1800 and max(numbers) < 2200 and (min(steps, default=1) > 0):
        return True
    return len(steps) == 1


def _are_consecutive_years(names: Sequence[str]) -> bool:
    years = [int(name) for name in names if re.fullmatch(r"(1[89]|2[01])\d\d", name)]
    return 1 < len(years) == len(names) and all(b - a == 1 for a, b in pairwise(years))


def _is_outside(name: str, cells: Sequence[str]) -> bool:
    """Whether a number is not in the range of the cells below it."""
    try:
        bare = (cell.replace(",", "") for cell in cells if _NUMBER.fullmatch(cell))
        numbers = [float(cell) for cell in bare]
        return not min(numbers) <= float(name) <= max(numbers)
    except ValueError:
        return False


def named(first: Sequence[str], dialect: Dialect, second: Sequence[str] | None = None) -> list[str]:
    """Return the names of the columns: of the header, made unique, or column1, column2, ...

    A `second` header is joined to the first, whose cells span those without a name after them.
    """
    if not dialect.has_header:
        return [f"column{i + 1}" for i in range(len(first))]
    if second is not None:
        above, joined = "", []
        for upper, lower in zip(first, second, strict=False):
            above, below = upper.strip() or above, " ".join(lower.split())
            joined.append(" ".join(dict.fromkeys(filter(None, (above, below)))))
        first = joined
    names, seen = [], Counter[str]()
    for name in _padded(first, dialect.unnamed):
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}.{seen[name] - 1}")
    return names


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that stand in a header more than once."""
    return [name for name, n in Counter(names).items() if n > 1]


def with_encoding(dialect: Dialect, encoding: str) -> Dialect:
    """Return the dialect with another encoding, which is said."""
    return replace(dialect, encoding=encoding, said=(*dialect.said, f"encoding {encoding}"))


def first_row(text: str, dialect: Dialect) -> list[str]:
    """Return the cells of the first line of text."""
    rows: list[list[str]] = []
    reader: Any = csv.reader(
        io.StringIO(text), delimiter=dialect.delimiter, escapechar=dialect.escape or None
    )
    for row in reader:
        rows.append(row)
        break
    return rows[0] if rows else []
