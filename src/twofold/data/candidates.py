"""Which ways to write cells are worth a test of all of a column's cells: chosen by some of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.data import clocks, dates
from twofold.data.notation import POWERS, SPACES, Notation

_CURRENCY = (
    *("US$", "CA$", "AU$", "NZ$", "HK$", "NT$", "MX$", "A$", "C$", "S$", "R$", "$", "€", "£", "¥"),
    *("￥", "₹", "₽", "₩", "₺", "₫", "฿", "₱", "₦", "₴", "₪", "₸", "CHF", "EUR", "USD", "GBP"),
    *("JPY", "CNY", "RMB", "AUD", "CAD", "NZD", "INR", "BRL", "MXN", "ZAR", "SEK", "NOK", "DKK"),
    *("PLN", "CZK", "HUF", "RUB", "TRY", "KRW", "SGD", "HKD", "Fr.", "kr.", "kr", "Rs.", "Rs"),
)
_BEHIND_ONLY = ("%", "‰", "zł", "Kč", "Ft", "лв", "руб.", "руб", "р.", "円", "元", "원", "TL", "万")
_ABOUT = ("~", "≈", "±")
_GAP = rf"[\s{SPACES}]*"
_SUFFIX = rf"\d[.,]?(?P<suffix>{_GAP}(?:{'|'.join(map(re.escape, (*_CURRENCY, *_BEHIND_ONLY)))}))$"
_UNIT = (
    r"^[-+]?[\d.,]+(?P<suffix>[\s\x{a0}\x{202f}][\pLµ°/²³]{1,8}\.?|°\s?\pL?|[\pLµ]{1,4}[²³]?|[\"'′″]|"
    r"\p{Han}{1,2})$"
)
_ORDINALS = {"st", "nd", "rd", "th"}
_DIGIT = re.compile("[0-9]")
_MAY_HAVE_UNIT = re.compile(r".*[0-9].*[^0-9]", re.DOTALL)
_USUAL = "%H:%M:%S"
_DAY_DIGITS = re.compile(r"(1[89]|2[01])\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_MONTH_DIGITS = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])")
COMPACT_DAY = Notation("time", "timestamp[s]", pattern=dates.COMPACT_DAY)
COMPACT_MONTH = Notation("time", "timestamp[s]", pattern=dates.COMPACT_MONTH)
_FEWEST_DAYS = 3  # fewer can be other numbers
_FEWEST_MONTHS = 6
_STYLES = (
    (".", ","),
    (",", ""),
    (",", "."),
    (".", " "),
    (",", " "),
    (".", "'"),
    (".", "’"),
    (".", ""),
)
NUMBER = Notation("number", "double")
_BOOLEANS = (("true", "false"), ("TRUE", "FALSE"), ("True", "False"))


@dataclass(frozen=True)
class Hints:
    """What is known of a column before its cells are looked at.

    Attributes
    ----------
    missing : tuple of str or None
        Words for missing values, in place of those that are detected.
    decimal : str or None
    date_format : str or None
        As in `strftime`.
    wanted : str
        "number" or "time" if the column has to be one, so that other cells are missing; else "".
    known : Notation or None
        How the column was written when the model was trained: preferred if cells fit.
    commas : bool
        Whether the file leaves commas free to stand before decimals, so that "1.234" could be 1234.
    """

    missing: tuple[str, ...] | None = None
    decimal: str | None = None
    date_format: str | None = None
    wanted: str = ""
    known: Notation | None = None
    commas: bool = False


def candidates(sample: Any, hints: Hints) -> list[Notation]:
    """Return the notations that are tried, the likelier first."""
    found = [NUMBER]
    found += [Notation("boolean", "bool", words=_boolean_words(sample))]
    found += _clocks(sample)
    known = hints.known
    if hints.date_format:
        found.insert(0, dated(sample.to_pylist(), hints.date_format)[0])
    elif known is not None and known.pattern:
        kind = "timestamp[s]" if known.type == "time" else known.arrow
        found.insert(0, replace(known, arrow=kind, missing=(), note=""))
    # Nanoseconds hold the years from 1678 to 2262 only.
    for unit in ("ns", "s"):
        found += [Notation("time", f"timestamp[{unit}{zone}]") for zone in ("", ", tz=UTC")]
    if hints.wanted != "number" and (compact := compact_of(sample[:50].to_pylist())):
        found.insert(0, compact)
    before, after = _affix(sample)
    powers = _powers(sample)
    if powers and (not after or after.strip() in POWERS):
        found.insert(0, Notation("number", "double", powers=powers, prefix=before))
        after = ""
    minus = _minus(sample)
    for point, group in _STYLES if _many_have_digits(sample) else ():
        if hints.decimal is None or point == hints.decimal:
            found.append(Notation("number", "double", point, group, before, after, minus=minus))
    if hints.decimal == ",":  # a point, too, may stand between thousands only
        found = [n for n in found if n != NUMBER] + [NUMBER]
    found += [replace(n, marked=True) for n in found if n.type == "number" and not n.pattern]
    if not hints.date_format and dates.look_like_dates(sample):
        found += dated(sample.to_pylist())
    return found


def dated(cells: Sequence[str], pattern: str = "") -> list[Notation]:
    """Return how dates could be written: as a pattern says, or in all ways that may fit.

    Arrow compiles each way again, so those of another layout than any cell are left out.
    """
    words, some = any(map(dates.has_words, cells[:50])), cells[:200]
    language = dates.language_of(some) if words else ""
    if pattern:
        language = "" if language == "en" and "%o" not in pattern else language
        return [Notation("time", "timestamp[s]", pattern=pattern, language=language)]
    found, layouts = [], set(map(dates.layout, cells))
    for tongue in dict.fromkeys(["", language]):
        before, after = dates.around(some, tongue)
        if after and not before and not tongue:  # ISO 8601, but for the zone's name
            for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"):
                found.append(Notation("time", "timestamp[s]", pattern=f"{form}{after}"))
        for form in dates.patterns(tongue, any(":" in cell for cell in some)):
            form = f"{before}{form}{after}"
            if dates.layout_of(form) in layouts:
                found.append(Notation("time", "timestamp[s]", pattern=form, language=tongue))
    return found


def is_of_clocks(notation: Notation) -> bool:
    """Whether cells are times of day or durations."""
    return notation.is_clock or notation.is_duration


def compact_of(cells: Sequence[str]) -> Notation | None:
    """Return how cells could be days such as 20210131, or months such as 202101."""
    if len(cells) >= _FEWEST_DAYS and all(map(_DAY_DIGITS.fullmatch, cells)):
        return COMPACT_DAY
    if len(set(cells)) >= _FEWEST_MONTHS and all(map(_MONTH_DIGITS.fullmatch, cells)):
        return COMPACT_MONTH
    return None


def _boolean_words(sample: Any) -> tuple[str, str]:
    cells = {c.strip() for c in sample[:100].to_pylist()}
    return next((pair for pair in _BOOLEANS if cells & set(pair)), _BOOLEANS[0])


def _clocks(sample: Any) -> list[Notation]:
    """Return how most cells could be times of day, and how they could be durations."""
    some = sample[:50].to_pylist()
    if not any(":" in cell or clocks.HAS_WORDS.search(cell) for cell in some):
        return []
    found, cells = [], pc.utf8_trim_whitespace(sample)
    for patterns in (clocks.CLOCKS, clocks.DURATIONS):
        shapes = {p: pc.match_substring_regex(cells, f"^{clocks.shape_of(p)}$") for p in patterns}
        counts = {p: pc.sum(fits).as_py() or 0 for p, fits in shapes.items()}
        pattern = max(counts, key=lambda p: counts[p])
        arrow = "time64[us]" if "%f" in pattern else "time32[s]"
        arrow = arrow if clocks.is_clock(pattern) else "double"
        if counts[pattern]:
            found.append(Notation("number", arrow, pattern="" if pattern == _USUAL else pattern))
    return found


def _powers(sample: Any) -> str:
    """Return the letters for powers of ten that follow numbers, if not the same one follows all."""
    ends = pc.extract_regex(pc.utf8_trim_whitespace(sample), r"\d\s?(?P<end>[kKMBT]?)$").drop_null()
    letters = pc.struct_field(ends, "end").to_pylist() if len(ends) else []
    found = "".join(sorted({*letters} - {""}))
    return found if len({*letters}) > 1 and 2 * len(letters) > len(sample) else ""


def _many_have_digits(sample: Any) -> bool:
    """Whether so many cells have a digit as there are in a column of numbers."""
    return 2 * sum(map(bool, map(_DIGIT.search, sample.to_pylist()))) >= len(sample)


def _minus(sample: Any) -> str:
    """Return how cells write numbers below 0."""
    for minus, regex in (
        ("−1", r"^\s*−"),
        ("(1)", r"\(\D{0,4}[\d.,]+\D{0,4}\)"),
        ("1-", r"\d\s?\D{0,4}-$"),
    ):
        if pc.any(pc.match_substring_regex(sample, regex)).as_py():
            return minus
    return "-1"


def _affix(sample: Any) -> tuple[str, str]:
    """Return the sign of a currency, "about", percent or a unit that most cells have."""
    prefix = ""
    cells: list[str] = pc.utf8_trim_whitespace(sample[:200]).to_pylist()
    for mark in (*_CURRENCY, *_ABOUT):
        bare = [c.lstrip(" -+(") for c in cells]
        with_mark = [c for c in bare if c.startswith(mark)]
        if 2 * len(with_mark) > len(cells):
            prefix = mark + " " * with_mark[0].startswith(f"{mark} ")
            cells = [c.removeprefix(mark).lstrip() for c in bare]
            break
    if 2 * sum(map(bool, map(_MAY_HAVE_UNIT.fullmatch, cells))) <= len(cells):
        return prefix, ""  # Arrow compiles the expressions below for milliseconds
    for regex in (_SUFFIX, _UNIT):
        found = pc.extract_regex(pa.array(cells, pa.string()), regex).drop_null()
        ends = pc.struct_field(found, "suffix").to_pylist() if len(found) else []
        if any(re.match(r"[-+]?0\d", cell) for cell in cells) or {*ends} & _ORDINALS:
            continue  # codes, whatever letters end them, and ordinals
        if (
            ends
            and 2 * ends.count(ends[0]) > len(cells)
            and (regex is _SUFFIX or len(set(ends)) == 1)
        ):
            return prefix, ends[0]
    return prefix, ""
