"""Times of day and durations as text: read as seconds, and written again.

A pattern is made of the parts of `strftime`: "%H:%M:%S", "%H:%M" or "%I:%M %p" for times of day,
and "%M:%S", "%J:%M:%S" or "%j days %H:%M:%S" for durations, whose first part has no limit ("%J"
stands for hours, "%j" for days, "%N" for minutes that are left out below one, as in 9.58 and
1:41.11, "%m" for minutes without a leading 0). "%f" is a fraction of a second, "%P" am and pm in
lower case, "%x" their first letter. "%?" at the end says that a part of 0 is left out, as in 2h and
45m next to 2h 45m.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

CLOCKS = (
    "%H:%M",
    "%H:%M:%S",
    "%H:%M:%S%f",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%I:%M%p",
    "%I:%M:%S%p",
    "%I:%M %x.m.",
    "%I:%M:%S %x.m.",
    "%Hh%M",
)
_IN_WORDS = (
    *("%Jh %mm", "%Jh%mm", "%Jh %mmin", "%Jh%mmin", "%J h %m min", "%J h %m m", "%J hr %m min"),
    *("%Jhr %mmin", "%J hrs %m mins", "%J hours %m minutes"),
)
DURATIONS = (
    *("%J:%M:%S", "%J:%M:%S%f", "%M:%S", "%M:%S%f", "%N:%S%f"),
    *("%j days %H:%M:%S", "%j days %H:%M:%S%f"),
    *(form + rest for rest in ("", "%?") for form in _IN_WORDS),
)
HAS_WORDS = re.compile(r"\d ?h\w* ?\d")
_PARTS = {
    "%H": r"(?P<H>[01]?\d|2[0-3])",
    "%I": r"(?P<I>0?[1-9]|1[0-2])",
    "%J": r"(?P<J>\d{1,5})",
    "%j": r"(?P<j>\d{1,6})",
    "%N": r"(?P<N>\d{1,5})",
    "%M": r"(?P<M>[0-5]\d)",
    "%m": r"(?P<M>[0-5]?\d)",
    "%S": r"(?P<S>[0-5]\d)",
    "%f": r"(?P<f>[.,]\d{1,6})",
    "%p": r"(?P<p>[AaPp])[Mm]",
    "%P": r"(?P<p>[AaPp])[Mm]",
    "%x": r"(?P<p>[ap])",
}
_SECONDS = {"j": 86_400, "J": 3600, "H": 3600, "I": 3600, "N": 60, "M": 60, "S": 1, "s": 1}


def shape_of(pattern: str) -> str:
    """Return the regular expression of cells that are written so."""
    if pattern.endswith("%?"):
        hours, minutes = (f"(?:{_literal(part)})?" for part in _halves(pattern))
        return rf"(?P<sign>[+-]?){hours} ?{minutes}"
    parts = re.split(r"(%[A-Za-z])", pattern.replace(" days ", "\x01"))
    text = "".join(_PARTS.get(part) or re.escape(part) for part in parts)
    if pattern == "%H:%M:%S":  # which some cells may leave out
        text = text.replace(f":{_PARTS['%S']}", f"(?::{_PARTS['%S']})?")
    if pattern.startswith("%M"):  # the minutes of a duration
        text = text.replace(_PARTS["%M"], r"(?P<M>\d{1,5})", 1)
    if pattern.startswith(
        "%N"
    ):  # 1978:2 is not a duration: behind minutes, seconds have two digits
        both = f"{_PARTS['%N']}:{_PARTS['%S']}"
        text = text.replace(both, rf"(?:{both}|(?P<s>[0-5]?\d))")
    if "%f" in pattern:  # which not all cells need have
        text = text.replace(_PARTS["%f"], r"(?P<f>(?:[.,]\d{1,9})?)")
    sign = r"(?P<sign>[+-]?)" if has_sign(pattern) else ""
    return sign + text.replace("\x01", r" days?,? ")


def _halves(pattern: str) -> tuple[str, str]:
    """Return the hours and the minutes of a pattern, of which one may be left out."""
    at = pattern.index("%m")
    return pattern[:at].rstrip(), pattern[at:].removesuffix("%?")


def _literal(pattern: str) -> str:
    parts = re.split(r"(%[A-Za-z])", pattern)
    return "".join(_PARTS.get(part) or re.escape(part) for part in parts)


def is_clock(pattern: str) -> bool:
    """Whether the pattern is one of times of day."""
    return pattern.startswith(("%H", "%I"))


def has_sign(pattern: str) -> bool:
    """Whether cells may be below 0."""
    return not is_clock(pattern) and not pattern.startswith("%j")


def read(cells: Any, pattern: str) -> Any:
    """Return cells, a chunked array of text, as seconds; null where a cell is not written so."""
    parts = pc.extract_regex(cells, f"^{shape_of(pattern)}$")
    total: Any = None
    for name in re.findall(r"\(\?P<(\w+)>", shape_of(pattern)):
        field = pc.struct_field(parts, name)
        if name == "f":
            field = pc.replace_substring(field, ",", ".")
            field = pc.if_else(pc.equal(field, ""), "0", field).cast(pa.float64())
        elif name == "p":
            field = pc.multiply(pc.is_in(field, pa.array(["p", "P"])).cast(pa.float64()), 43_200.0)
        elif name == "sign":
            continue
        else:
            field = pc.if_else(pc.equal(field, ""), "0", field).cast(pa.float64())
            if name == "I":  # 12 is the first hour
                field = pc.if_else(pc.equal(field, 12.0), 0.0, field)
            field = pc.multiply(field, float(_SECONDS[name]))
        total = field if total is None else pc.add(total, field)
    if has_sign(pattern):
        minus = pc.equal(pc.struct_field(parts, "sign"), "-")
        total = pc.if_else(minus, pc.negate(total), total)
    return pc.if_else(pc.is_valid(parts), total, None)


def write(
    cells: Sequence[float | None], pattern: str, padded: bool, decimals: int, plus: bool
) -> list[str | None]:
    """Return seconds as text; `padded` says whether the first part has two digits."""
    return [None if c is None else _written(c, pattern, padded, decimals, plus) for c in cells]


def _written(cell: float, pattern: str, padded: bool, decimals: int, plus: bool) -> str:
    places = max(0, decimals) if "%f" in pattern else 0
    least = 1 if "%S" in pattern else 60
    whole = round(abs(cell) / least, places) * least
    if is_clock(pattern):
        whole = min(whole, 86_400 - (10**-places if "%S" in pattern else 60))
    fraction = f"{whole % 1:.{places}f}"[1:] if places else ""
    left, values = int(whole) if places else round(whole), dict[str, int]()
    first = re.findall(r"%([jJHINM])", pattern)[0]
    for name in "jJHINMS":
        if f"%{name}" in pattern or (name == "M" and "%m" in pattern):
            values[name], left = divmod(left, _SECONDS[name])
    values["I"] = (values.get("I", 0) - 1) % 12 + 1 if "I" in values else 0

    def one(part: re.Match[str]) -> str:
        name = part[1]
        if name == "f":
            return fraction
        if name in "pPx":
            half = "PM" if whole >= 43_200 else "AM"
            return {"p": half, "P": half.lower(), "x": half[0].lower()}[name]
        if name == "m":
            return str(values["M"])
        return (
            f"{values[name]:02d}"
            if name != first or (padded and name != "j")
            else str(values[name])
        )

    sign = "-" if cell < 0 else "+" * plus
    if pattern.endswith("%?"):
        halves = zip(_halves(pattern), (values["J"], values["M"]), strict=True)
        kept = [half for half, value in halves if value] or [_halves(pattern)[1]]
        gap = " " * (" %m" in pattern)
        pattern = gap.join(kept)
    if pattern.startswith("%N") and not values["N"]:
        pattern, first = pattern.removeprefix("%N:"), "S"
    return sign + re.sub(r"%([A-Za-z])", one, pattern)
