"""Texts of a frame that are times or numbers, as those of a text file are.

A frame that pandas read from a file holds days and amounts as text, unless `parse_dates` and the
like say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data.candidates import Hints
from twofold.data.detection import Detector
from twofold.data.notation import Notation
from twofold.data.table import Format, Table
from twofold.schema.matching import at_positions, read_levels

_FEWEST = 5  # different texts
_LOOKED_AT = 1000  # different texts, before all are
_WANTED = {"real": "number", "count": "number", "time": "time"}


def typed(table: Table, kinds: str | Mapping[str, str] = "auto") -> Table:
    """Return the rows of a frame, with columns of text that are times or numbers as such.

    `kinds` may say otherwise of a column. Whole numbers stay text, for they may be codes, unless
    `kinds` asks for numbers; so do booleans, and columns of which some cells are neither.
    """
    if table.formats is None:
        return table
    asked = {} if isinstance(kinds, str) else kinds
    formats, values = list(table.formats), table.values
    for position, form in enumerate(table.formats):
        kind = asked.get(table.names[position], "") if table.names else ""
        if not form.is_any_text or form.is_id or (kind and kind not in _WANTED):
            continue
        texts, cells = form.levels, table.values[:, position]
        hints = Hints(wanted=_WANTED.get(kind, ""))
        name = table.names[position] if table.names else ""
        some = np.arange(0, len(texts), max(1, len(texts) // _LOOKED_AT), dtype=np.float64)
        if _notation(form, some, name, hints) is None:
            continue
        found = _notation(form, cells, name, hints)
        if found is None:
            continue
        new = Format(found.type, form.dtype, notation=found, label=form.label)
        read = read_levels(texts, new)
        missing = {"", *found.missing}
        if any(str(texts[i]).strip() not in missing for i in np.flatnonzero(np.isnan(read))):
            continue
        values = values.astype(np.float64) if values is table.values else values
        values[:, position] = at_positions(cells, read)
        formats[position] = new
    return (
        table if values is table.values else replace(table, values=values, formats=tuple(formats))
    )


def _notation(
    form: Format, cells: NDArray[np.floating], name: str, hints: Hints
) -> Notation | None:
    """Return how a column of text writes times or numbers, None if it does not."""
    if len(form.levels) < _FEWEST and not hints.wanted:
        return None
    levels = pa.array([str(level) for level in form.levels], pa.string())
    codes = pa.array(np.nan_to_num(cells).astype(np.int64), mask=np.isnan(cells))
    detector = Detector(name, hints)
    detector.add(pa.chunked_array([levels.take(codes)]))
    found = detector.settle()
    is_code = found.arrow == "int64" and found.is_plain and hints.wanted != "number"
    mixed = detector.mixture() is not None and not hints.wanted
    return None if found.type not in ("number", "time") or is_code or mixed else found
