"""Pages that are complete in themselves: templates of one style, texts fit for them, and files."""

from __future__ import annotations

import math
import re
import unicodedata
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

_LONGEST = 60
_CUT = "…"
# A part of a name with what ends it, or so many letters that a narrow column holds them.
_PIECE = re.compile(r"[^_/\s]{0,12}[_/\s]+|[^_/\s]{1,12}")
# Lone halves of surrogate pairs and control characters are no part of any HTML document.
_NOT_TEXT = ("Cc", "Cs")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # would turn round what stands beside them


def render(template: str, **values: Any) -> str:
    """Fill one of the package's templates; texts among the values are escaped."""
    import jinja2

    def source(name: str) -> str:
        return resources.files("twofold").joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["soft"] = soft
    return environment.get_template(template).render(**values)


def soft(text: str) -> Markup:
    """Let a long word be broken after an underscore, a slash or many letters."""
    parts = (escape(part) for part in _PIECE.findall(text))
    return Markup("<wbr>").join(parts)


def short(text: str, most: int = _LONGEST) -> str:
    r"""Return the text in one line of at most `most` letters.

    Examples
    --------
    >>> short("two\nlines\x00"), short("a rather long name", 9)
    ('two lines', 'a rather…')
    """
    first = text[: 4 * most]  # spares what is never shown
    line = "".join(" " if unicodedata.category(c) in _NOT_TEXT else c for c in first)
    line = " ".join(_TURNING.sub("", line).split())
    if len(line) <= most and len(first) == len(text):
        return line
    return line[: most - 1].rstrip() + _CUT


def isolated(text: str) -> str:
    """Return the text so that letters written from right to left do not turn what is beside it."""
    return f"\u2068{text}\u2069"  # Unicode Standard Annex 9, section 2.4: FSI and PDI


def number(value: float, digits: int = 3) -> str:
    """Write a number for reading, with about so many digits that mean something.

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
