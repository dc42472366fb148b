"""How a file writes the cells of a column: numbers, times, booleans, and words for missing values.

A `Notation` reads such cells, and writes new ones alike. It travels in the metadata of an Arrow
field, so that a table of cells as they were written and a table of numbers are distinguished by the
type of the field alone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.data import clocks, dates
from twofold.data.dates import COMPACT_DAY, COMPACT_MONTH

KEY = b"twofold.notation"
ID_KEY = b"twofold.id"
UNDERSTOOD_KEY = b"twofold.understood"
DELIMITER_KEY = b"twofold.delimiter"
# Those that separate thousands: plain, no-break, narrow, thin and of a digit's width.
SPACES = " \u00a0\u202f\u2009\u2007"
# What cells have besides a number: limits of detection, "about", and marks of footnotes.
_AHEAD = r"(?:[<>≤≥~≈]=?|(?:ca|c|circa|approx)\.?)\s*"
_BEHIND = (
    rf"[\s{SPACES}]*(?:[*†‡§^+]{{1,3}}|\[[^\]]{{1,20}}\]|\([^)]{{1,20}}\)|[epr]|\s[bcdfsu]|±.*)"
)
MARKS = f"^{_AHEAD}|{_BEHIND}$"
_ABBREVIATIONS = """
    NA N/A NaN -NaN -1.#IND 1.#IND -1.#QNAN 1.#QNAN NULL (null) None nil NIL NaT #N/A #NA <NA>
    n.a. k.A. n.d. ? - -- --- . .. ... … – — * #DIV/0! #VALUE! #REF! #NUM! #NAME? #NULL! \\N
    0000-00-00 00/00/0000 00.00.0000
"""
_PHRASES = """
    ND NR unk missing unknown undefined empty nodata TBD TBA : unbekannt fehlt inconnu desconocido
    sconosciuto onbekend okänd нет 不明 なし no_data not_available not_applicable not_reported
    not_recorded k._A. n._a. keine_Angabe keine_Angaben нет_данных не_указано brak_danych (blank)
"""


def _in_cases(words: str) -> frozenset[str]:
    texts = [word.replace("_", " ") for word in words.split()]
    return frozenset(form for t in texts for form in (t, t.lower(), t.upper(), t.capitalize()))


# Words that stand for missing values in columns of numbers and times, if these are many.
MISSING_AMONG_MANY = _in_cases(_PHRASES)
# Words that stand for missing values in columns of numbers, times and booleans.
MISSING = _in_cases(_ABBREVIATIONS) | MISSING_AMONG_MANY | {"0000-00-00 00:00:00"}
# In text, a word such as "unknown", "none" or "-" is a level like others.
MISSING_IN_TEXT = frozenset(
    [
        "NA",
        "N/A",
        "n/a",
        "NaN",
        "nan",
        "NULL",
        "null",
        "#N/A",
        "#NA",
        "<NA>",
        "NaT",
        "?",
        "-NaN",
        "-nan",
        "-1.#IND",
        "1.#IND",
        "-1.#QNAN",
        "1.#QNAN",
        "\\N",
        "(null)",
    ]
)
# Words for true and false that people use, in lower case.
FLAGS = {
    **dict.fromkeys(("true", "yes", "y", "t", "on"), True),
    **dict.fromkeys(("false", "no", "n", "f", "off"), False),
}
_ISO = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
_CLOCK = "%H:%M:%S"
_BARE = "\x1f"  # before a part of a time that may lose a leading 0
_MINUS = "\u2212"


@dataclass(frozen=True)
class Notation:
    """How the cells of one column are written.

    Attributes
    ----------
    type : str
        "text", "number", "boolean" or "time". A time of day is a number, whose `arrow` says so, and
        so is a duration, which has a pattern.
    arrow : str
        The Arrow type of the cells once they are read.
    decimal, group : str
        What stands before decimals, and between thousands ("" for nothing).
    prefix, suffix : str
        What stands before and after every number, such as "$" and "%".
    pattern : str
        Of times: as in `strftime` and in `dates`; "" for ISO 8601. Of times of day and durations:
        as in `clocks`; "" for "%H:%M:%S".
    language : str
        Of times with a pattern: that of the names of months and weekdays, "" for English ones as
        `strftime` knows them.
    case : str
        "upper", "lower" or "title" if all such names are written so.
    indian : bool
        Whether marks between thousands stand before the last three digits and then before each two,
        as in 12,34,567.
    style : str
        Of ISO 8601 times: how new ones are written, as in `strftime` and with the zone as it
        stands; "" for "%Y-%m-%d %H:%M:%S".
    hours_padded : bool
        Of times with a pattern: whether hours below 10 have a leading 0.
    padded : bool
        Whether days, months and (of times of day) hours below 10 have a leading 0, and decimals
        before an exponent trailing ones.
    words : tuple of str
        What stands for true and for false.
    missing : tuple of str
        What stands for a missing value, besides an empty cell.
    decimals : int
        How many decimals every number has, or -1 if not all have as many.
    plus : bool
        Whether numbers above 0 have a plus sign.
    minus : str
        How 1 below 0 is written: "-1", "(1)" or "1-", or with the minus sign of Unicode.
    exponent : str
        "e" or "E" where all numbers have one; `decimals` are then those before it.
    zero : bool
        Whether numbers between -1 and 1 have a 0 before the decimals.
    marked : bool
        Whether cells may have a mark besides the number, as in "<0.01", "~200" and "47*", which is
        left out.
    powers : str
        Letters after numbers that stand for powers of ten, such as "KM" where cells are like 1.2M
        and 950K.
    digits : str
        What the column has for each of "0123456789.,-%", if not these: full-width digits, say.
    note : str
        What the reader of the rows should know.
    """

    type: str = "text"
    arrow: str = "string"
    decimal: str = "."
    group: str = ""
    prefix: str = ""
    suffix: str = ""
    pattern: str = ""
    language: str = ""
    case: str = ""
    indian: bool = False
    padded: bool = True
    hours_padded: bool = True
    words: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimals: int = -1
    plus: bool = False
    minus: str = "-1"
    exponent: str = ""
    style: str = ""
    zero: bool = True
    marked: bool = False
    powers: str = ""
    digits: str = ""
    note: str = field(default="", compare=False)

    @cached_property
    def kind(self) -> Any:
        """The Arrow type of the cells once they are read."""
        return _TYPES[self.arrow]

    @property
    def is_clock(self) -> bool:
        """Whether cells are times of day."""
        return self.arrow in ("time32[s]", "time64[us]")

    @property
    def is_duration(self) -> bool:
        """Whether cells are durations such as 1:05:30, read as seconds."""
        return self.type == "number" and bool(self.pattern) and not self.is_clock

    @property
    def is_plain(self) -> bool:
        """Whether Arrow reads its cells without help."""
        marks = self.group or self.prefix or self.suffix or self.pattern or self.is_clock
        marks = marks or self.marked or self.powers or self.digits
        return not marks and self.decimal == "." and self.minus == "-1"

    def describe(self) -> str:
        """Say what differs from plain numbers, ISO 8601 and empty cells; "" for nothing."""
        parts = []
        if self.decimal != ".":
            parts.append(f"decimal {self.decimal!r}")
        if self.group:
            spaced = "a space" if self.group in SPACES else repr(self.group)
            parts.append(f"thousands {spaced}{' as in 12,34,567' * self.indian}")
        if self.powers:
            parts.append(f"{' and '.join(self.powers)} for powers of ten")
        affixes = [repr(affix.strip()) for affix in (self.prefix, self.suffix) if affix]
        if affixes:
            parts.append(f"{' and '.join(affixes)} left out")
        if self.minus != "-1":
            parts.append(f"{self.minus} below 0")
        if self.pattern:
            what = "times of day" if self.is_clock else "dates"
            what = "durations, in seconds:" if self.is_duration else what
            named = f" ({self.language})" if self.language else ""
            parts.append(f"{what} {self.pattern}{named}")
        if self.missing:
            parts.append(f"missing: {', '.join(map(repr, self.missing[:5]))}")
        return "; ".join(parts)

    @cached_property
    def _regex(self) -> str:
        """What a cell looks like, without the spaces around it."""
        if self.type == "boolean":
            return f"(?i)^({'|'.join(map(re.escape, self.words or ('true', 'false')))})$"
        if self.type == "time":
            shape = dates.shape_of(self.pattern, self.language) if self.pattern else _ISO
            return f"^{shape}$"
        if self.is_clock or self.is_duration:
            return f"^{clocks.shape_of(self.pattern or _CLOCK)}$"
        point = re.escape(self.decimal)
        number = rf"(\d+({point}\d*)?|{point}\d+)([eE][+-]?\d+)?"
        if self.group:  # "0,125" and "5,218e-05" have a decimal comma
            gap = f"[{SPACES}]" if self.group in SPACES else re.escape(self.group)
            western = rf"[1-9]\d{{0,2}}({gap}\d{{3}})+"
            indian = rf"[1-9]\d?({gap}\d{{2}})+{gap}\d{{3}}"
            grouped = f"({western}|{indian})" if self.group == "," else western
            number = rf"({grouped}({point}\d*)?|{number})"
        space = rf"[\s{SPACES}]*"
        before = f"({re.escape(self.prefix.strip())}{space})?" if self.prefix else ""
        after = f"({space}{re.escape(self.suffix.strip())})?" if self.suffix else ""
        after = f"({space}[{self.powers}])?{after}" if self.powers else after
        sign = f"[+-{_MINUS}]?".replace("+-", "+\\-")
        if self.is_plain:
            return rf"^({sign}{number}|[+-]?([Ii]nf(inity)?|INF(INITY)?))$"
        bare = f"{before}{number}{after}"
        brackets = rf"\({bare}\)|{before}\({number}\){after}"
        minus = f"{bare}-|{before}{number}-{after}"
        every = rf"{sign}\s*{before}{sign}{number}{after}|{brackets}|{minus}"
        if self.marked:
            every = f"(?:{_AHEAD})?(?:{every})(?:{_BEHIND})?"
        return f"^({every})$"

    def matches(self, cells: Any) -> Any:
        """Return which cells, an Arrow array of text, are written so; null where one is missing."""
        if self.type == "text":
            return pc.is_valid(cells)
        trimmed = pc.utf8_trim_whitespace(in_ascii(cells, self.digits))
        found = pc.match_substring_regex(trimmed, self._regex)
        if self.type == "time":
            chosen = pc.if_else(found, trimmed, None)
            return pc.and_(found, pc.is_valid(self._times(chosen)))
        return found

    def is_missing(self, cells: Any) -> Any:
        """Return which cells, an array of text, are words for missing values."""
        return pc.is_in(pc.utf8_trim_whitespace(cells), pa.array(self.missing, cells.type))

    def read(self, cells: Any) -> Any:
        """Return cells, a chunked array of text, in the column's type; missing ones are null.

        Raises
        ------
        pyarrow.ArrowInvalid
            If a cell is not written so.
        """
        cells = in_ascii(cells, self.digits)
        if self.missing:
            cells = pc.if_else(self.is_missing(cells), None, cells)
        if self.arrow == "null":
            return pa.chunked_array([pa.nulls(len(cells))])
        if self.type == "text":
            return cells
        if self.is_plain and self.type == "number":
            try:
                return cells.cast(self.kind)
            except pa.ArrowInvalid:
                pass  # spaces, a plus sign
        cells = pc.utf8_trim_whitespace(cells)
        cells = pc.if_else(pc.equal(cells, ""), None, cells)
        if self.type == "boolean":
            return self._booleans(cells)
        if self.type == "time":
            read = self._times(cells)
            if read.null_count > cells.null_count:
                raise pa.ArrowInvalid("a cell is not a time")
            return read
        if self.is_clock or self.is_duration:
            return self._seconds(cells)
        if self.powers:
            return self._scaled(cells)
        return self._numbers(cells).cast(self.kind)

    def _scaled(self, cells: Any) -> Any:
        """Return numbers times what the letters after them stand for."""
        power: Any = 1.0
        for letter in self.powers:
            has = pc.match_substring_regex(cells, rf"\d\.?[\s{SPACES}]*{letter}")
            power = pc.if_else(has, POWERS[letter], power)
        bare = pc.replace_substring_regex(cells, rf"(\d\.?)[\s{SPACES}]*[{self.powers}]", r"\1")
        return pc.multiply(self._numbers(bare).cast(pa.float64()), power)

    def _seconds(self, cells: Any) -> Any:
        seconds = clocks.read(cells, self.pattern or _CLOCK)
        if seconds.null_count > cells.null_count:
            raise pa.ArrowInvalid("a cell is not a time of day, or a duration")
        return seconds if self.is_duration else self.of_seconds(seconds)

    def of_seconds(self, seconds: Any) -> Any:
        """Return times of day in the column's type."""
        if self.arrow == "time32[s]":
            return pc.round(seconds).cast(pa.int32()).cast(self.kind)
        return pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64()).cast(self.kind)

    def _booleans(self, cells: Any) -> Any:
        yes, no = self.words or ("true", "false")
        lower = pc.utf8_lower(cells)
        true, false = pc.equal(lower, yes.lower()), pc.equal(lower, no.lower())
        if pc.any(pc.invert(pc.or_(true, false))).as_py():
            raise pa.ArrowInvalid("a cell is not a boolean")
        return true

    def _times(self, cells: Any) -> Any:
        if not self.pattern:
            try:
                return cells.cast(self.kind)
            except pa.ArrowInvalid:  # a comma before fractions of a second
                listed = pc.replace_substring(cells, ",", ".").to_pylist()
                return pa.chunked_array([[_iso(c, self.kind) for c in listed]], self.kind)
        if self.language:
            cells = _one_by_one(
                cells, lambda some: dates.in_english(some, self.pattern, self.language)
            )
        pattern = dates.strptime_pattern(self.pattern, self.language)
        read = pc.strptime(cells, format=pattern, unit="s", error_is_null=True)
        if self.pattern in (COMPACT_DAY, COMPACT_MONTH):  # numbers could be days that there are not
            same = pc.equal(pc.strftime(read, format=self.pattern, locale="C"), cells)
            read = pc.if_else(same, read, None)
        return read.cast(self.kind)

    def _numbers(self, cells: Any) -> Any:
        """Return numbers as Arrow reads them."""
        if self.marked:
            cells = pc.replace_substring_regex(cells, MARKS, "")
        for affix in filter(None, (self.prefix.strip(), self.suffix.strip())):
            cells = pc.replace_substring(cells, affix, "")
        apostrophe = "'" * bool(self.group)
        cells = pc.replace_substring_regex(cells, rf"[\s{SPACES}{apostrophe}]", "")
        if self.group and self.group not in SPACES + "'":
            cells = pc.replace_substring(cells, self.group, "")
        if self.decimal != ".":
            cells = pc.replace_substring(cells, self.decimal, ".")
        cells = pc.replace_substring(cells, _MINUS, "-")
        if not self.is_plain:  # as accountants write what is below 0
            cells = pc.replace_substring_regex(cells, r"^\((.*)\)$|^(.*)-$", r"-\1\2")
        return pc.replace_substring_regex(cells, r"^\+", "")

    def write(self, cells: Any) -> Any:
        """Return cells of the column's type as text; missing ones stay null."""
        text = self._as_text(cells)
        for ascii_letter, own in zip(_NUMERALS, self.digits, strict=False):
            if own != ascii_letter:
                text = pc.replace_substring(text, ascii_letter, own)
        return text

    def _as_text(self, cells: Any) -> Any:
        if self.type == "text" or pa.types.is_null(cells.type):
            return cells.cast(pa.string())
        if self.type == "boolean":
            yes, no = self.words or ("true", "false")
            return pc.if_else(cells, yes, no)
        if self.type == "time":
            return self._written_times(cells)
        if self.is_clock or self.is_duration:
            seconds = cells
            if self.is_clock:
                ticks = cells.cast(pa.int32() if cells.type.bit_width == 32 else pa.int64())
                unit = 1e6 if cells.type.bit_width == 64 else 1.0
                seconds = pc.divide(ticks.cast(pa.float64()), unit)
            how = (self.pattern or _CLOCK, self.padded, self.decimals, self.plus)
            return pa.array(clocks.write(seconds.to_pylist(), *how), pa.string())
        if self.decimals < 0 and self.is_plain and not self.plus and self.zero:
            return plain_text(cells)
        listed = [None if cell is None else self._written(cell) for cell in cells.to_pylist()]
        return pa.array(listed, pa.string())

    def _written(self, cell: float) -> str:
        fitting = [letter for letter in self.powers if abs(cell) >= POWERS[letter]]
        if fitting:
            letter = max(fitting, key=lambda each: POWERS[each])
            short = round(cell / POWERS[letter], 2 if self.decimals < 0 else self.decimals)
            text = replace(self, powers="", suffix="")._written(short)
            return f"{text}{letter}{self.suffix}"
        if self.exponent:
            text = f"{cell:+.{self.decimals}e}" if self.plus else f"{cell:.{self.decimals}e}"
            mantissa, _, power = text.partition("e")
            if not self.padded:
                mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
            return f"{mantissa.replace('.', self.decimal)}{self.exponent}{power}"
        if self.decimals >= 0:
            text = f"{cell:,.{self.decimals}f}"
        else:
            text = f"{cell:,}".removesuffix(".0")
            if "e" in text:
                return text.replace(".", self.decimal)
        if float(text.replace(",", "")) == 0:
            text = text.lstrip("-")
        whole, _, part = text.lstrip("-").partition(".")
        if self.indian:
            head, last = whole.replace(",", "")[:-3], whole[-3:]
            pairs = re.sub(r"(?<=\d)(?=(\d\d)+$)", ",", head)
            whole = f"{pairs},{last}" if head else whole
        whole = whole if self.zero or whole != "0" or not part else ""
        digits = f"{whole.replace(',', self.group)}{self.decimal * bool(part)}{part}"
        if text.startswith("-") and self.minus != "-1":
            before, after = self.minus.split("1")
            return f"{before}{self.prefix}{digits}{self.suffix}{after}"
        sign = "-" if text.startswith("-") else "+" * (self.plus and cell > 0)
        return f"{sign}{self.prefix}{digits}{self.suffix}"

    def _written_times(self, cells: Any) -> Any:
        if self.style:
            return self._styled_times(cells)
        if not self.pattern:
            return plain_text(cells)
        if pa.types.is_timestamp(cells.type):
            cells = cells.cast(pa.timestamp("s"), safe=False)
        pattern = dates.strftime_pattern(self.pattern, self.language)
        bare = "dm" * (not self.padded) + "HI" * (not self.hours_padded)
        if bare:  # a mark stands before what loses a leading 0
            pattern = re.sub(f"%[{bare}]", rf"{_BARE}\g<0>", pattern)
        text = pc.strftime(cells, format=pattern, locale="C")
        if bare:
            text = pc.replace_substring_regex(text, f"{_BARE}0?", "")
        if self.language or self.case or "%P" in self.pattern:
            how = (self.pattern, self.language, self.case)
            text = _one_by_one(text, lambda some: dates.in_words(some, *how))
        return text

    def _styled_times(self, cells: Any) -> Any:
        """Return ISO 8601 times in the style of the column: separator, precision and zone."""
        found = re.fullmatch(r"(.*?)([.,](\d))?(Z|([+-])(\d\d):?(\d\d)?)?", self.style)
        assert found is not None
        style, mark, digits, zone, sign, hours, minutes = found.groups()
        unit = {None: "s", "3": "ms", "6": "us"}.get(digits, "ns")
        if pa.types.is_date(cells.type):
            return pc.strftime(cells, format=style, locale="C")
        local = cells.cast(pa.timestamp(cells.type.unit)).cast(pa.timestamp(unit), safe=False)
        if sign:
            offset = int(f"{sign}1") * (60 * int(hours) + int(minutes or 0))
            shift = pa.scalar(60 * offset, pa.duration("s")).cast(pa.duration(unit))
            local = pc.add(local, shift)
        text = pc.strftime(local, format=style, locale="C")
        if mark:
            text = pc.replace_substring(text, ".", mark[0])
        return pc.binary_join_element_wise(text, zone, "") if zone else text

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain data."""
        return {k: v for k, v in asdict(self).items() if v != _DEFAULTS[k]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Notation:
        """Read back what `to_json` gave; raises TypeError or ValueError if it is not one."""
        values = dict(document)
        for name in ("words", "missing"):
            values[name] = tuple(map(str, values.get(name, ())))
        notation = cls(**values)
        if notation.arrow not in _TYPES or notation.type not in _KINDS:
            raise ValueError(f"a column is not written as {document!r}")
        texts = (notation.decimal, notation.group, notation.prefix, notation.suffix, notation.note)
        more = (notation.pattern, notation.style, notation.exponent, notation.case, notation.digits)
        if not all(isinstance(text, str) for text in (*texts, *more)):
            raise ValueError(f"a column is not written as {document!r}")
        if notation.language and notation.language not in dates.LANGUAGES:
            raise ValueError(f"a column is not written as {document!r}")
        if not {*notation.powers} <= {*POWERS}:
            raise ValueError(f"a column is not written as {document!r}")
        if notation.minus not in _MINUSES or (notation.exponent and notation.decimals < 0):
            raise ValueError(f"a column is not written as {document!r}")
        return notation


_KINDS = ("text", "number", "boolean", "time")
POWERS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_NUMERALS = "0123456789.,-%"
_MINUSES = ("-1", "(1)", "1-", f"{_MINUS}1")
_DEFAULTS = {f.name: f.default for f in fields(Notation)}
_TYPES: dict[str, Any] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "date32[day]": pa.date32(),
    "time32[s]": pa.time32("s"),
    "time64[us]": pa.time64("us"),
    "timestamp[s]": pa.timestamp("s"),
    "timestamp[ns]": pa.timestamp("ns"),
    "timestamp[s, tz=UTC]": pa.timestamp("s", "UTC"),
    "timestamp[ns, tz=UTC]": pa.timestamp("ns", "UTC"),
    "null": pa.null(),
}


def field_of(name: str, notation: Notation, as_written: bool = False) -> Any:
    """Return the Arrow field of a column that is written so."""
    kind = pa.string() if as_written else notation.kind
    return pa.field(name, kind, metadata={KEY: json.dumps(notation.to_json()).encode()})


def of_field(column: Any) -> Notation | None:
    """Return the notation that an Arrow field carries, if it does."""
    document = (column.metadata or {}).get(KEY)
    return None if document is None else Notation.from_json(json.loads(document))


def understood(schema: Any) -> str:
    """Return what was detected of the layout of the text files that an Arrow schema is of."""
    said: bytes = (schema.metadata or {}).get(UNDERSTOOD_KEY, b"")
    return said.decode()


def delimiter(schema: Any) -> str:
    """Return what separates the cells of the text files that an Arrow schema is of."""
    mark: bytes = (schema.metadata or {}).get(DELIMITER_KEY, b",")
    return mark.decode()


def is_id(column: Any) -> bool:
    """Whether an Arrow field names the rows."""
    return bool(column.metadata and ID_KEY in column.metadata)


def as_id(column: Any) -> Any:
    """Return an Arrow field that says that it names the rows."""
    return column.with_metadata({**(column.metadata or {}), ID_KEY: b"1"})


def is_as_written(column: Any) -> bool:
    """Whether an Arrow field holds cells as they were written, and not what they mean."""
    return bool(column.metadata and KEY in column.metadata and pa.types.is_string(column.type))


def read_table(table: Any) -> Any:
    """Return a table of cells as they were written as one of what they mean; others as they are."""
    written = [of_field(f) if is_as_written(f) else None for f in table.schema]
    if not any(written):
        return table
    columns, new = [], []
    for old, column, notation in zip(table.schema, table.columns, written, strict=True):
        columns.append(column if notation is None else notation.read(column))
        field = old if notation is None else field_of(old.name, notation)
        new.append(as_id(field) if is_id(old) else field)
    return pa.Table.from_arrays(columns, schema=pa.schema(new))


def _one_by_one(cells: Any, make: Callable[[list[str | None]], Sequence[str | None]]) -> Any:
    """Return what Python makes of text, once for each different cell."""
    encoded = chunk_of(cells).dictionary_encode()
    made = pa.array(make(encoded.dictionary.to_pylist()), pa.string())
    return pa.chunked_array([made.take(encoded.indices)])


def chunk_of(cells: Any) -> Any:
    """Return an array of one chunk."""
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells


def _iso(cell: str | None, kind: Any) -> Any:
    try:
        return None if cell is None else pa.scalar(cell).cast(kind)
    except pa.ArrowInvalid:
        return None


def numerals(cells: Sequence[str]) -> str:
    """Return what cells have in place of "0123456789.,-%", "" if these.

    That is, decimal digits of another script, and full-width signs.
    """
    letters = {c for cell in cells for c in cell if not c.isascii()}
    zeros = {chr(ord(c) - unicodedata.decimal(c)) for c in letters if c.isdecimal()}
    if len(zeros) != 1:
        return ""
    zero = zeros.pop()
    wide = (c if (w := chr(ord(c) + 0xFEE0)) not in letters else w for c in _NUMERALS[10:])
    return "".join(chr(ord(zero) + i) for i in range(10)) + "".join(wide)


def in_ascii(cells: Any, digits: str) -> Any:
    """Return text with "0123456789.,-%" for what a column has in their place."""
    for ascii_letter, own in zip(_NUMERALS, digits, strict=False):
        if own != ascii_letter:
            cells = pc.replace_substring(cells, own, ascii_letter)
    return cells


def plain_text(cells: Any) -> Any:
    """Return numbers and times as the shortest text that is read as the same again."""
    if pa.types.is_boolean(cells.type):
        return pc.if_else(cells, "true", "false")
    if pa.types.is_timestamp(cells.type):
        text = cells.cast(pa.timestamp(cells.type.unit)).cast(pa.string())
        zone = "Z" if cells.type.tz else ""
        listed = [None if t is None else _short_time(t) + zone for t in text.to_pylist()]
        return pa.array(listed, pa.string())
    if pa.types.is_floating(cells.type):
        whole = [None if c is None else _short_number(c) for c in cells.to_pylist()]
        return pa.array(whole, pa.string())
    return cells.cast(pa.string())


def _short_number(cell: float) -> str:
    text = repr(cell)
    return text[:-2] if text.endswith(".0") and len(text) < 18 else text


def _short_time(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
