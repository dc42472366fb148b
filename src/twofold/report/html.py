"""Self-contained pages: templates of one style, texts fit for them, and files."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

# A part of a name with what ends it, or so many letters that a narrow column holds them.
_PIECE = re.compile(r"[^_/\s]{0,12}[_/\s]+|[^_/\s]{1,12}")


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


def isolated(text: str) -> str:
    """Return the text so that right-to-left letters do not reorder the text around it."""
    return f"\u2068{text}\u2069"  # Unicode Standard Annex 9, section 2.4: FSI and PDI
