"""Results become the body of an answer: JSON or an Arrow stream, as bodies of requests are.

Long answers are made piece by piece, so that no more than a piece of one is held as bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold import formatting
from twofold.data import convert
from twofold.data import json as cells
from twofold.service.batching import joined, part_of
from twofold.service.errors import RequestError
from twofold.service.requests import ARROW, JSON

Array = NDArray[Any]
OFFERED = (JSON, ARROW)
_PIECE_CELLS = 20_000  # written at a time: a few milliseconds
_TABLE_CELLS = 200_000  # of a batch of an Arrow stream
_QUALITY = re.compile(r"q=(\d*\.?\d*)")
_MOST_RANGES = 50


def chosen(accept: str) -> str:
    """Return the type of the answer that a client's Accept header likes best.

    Raises
    ------
    RequestError
        If it accepts none of `OFFERED`.

    Examples
    --------
    >>> chosen("text/html, */*;q=0.8")
    'application/json'
    """
    shares: dict[str, float] = {}
    for part in (accept.lower().strip() or "*/*").split(",")[:_MOST_RANGES]:
        name, *rest = (word.strip() for word in part.split(";"))
        quality = next((_QUALITY.fullmatch(word) for word in rest if word.startswith("q=")), True)
        text = "1" if quality is True else quality[1] if quality else "0"
        shares.setdefault(name, min(1.0, float(text) if text.strip(".") else 0.0))

    def share(media_type: str) -> float:
        # What is said of the type itself counts before what is said of all its kin.
        kin = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((shares[name] for name in kin if name in shares), 0.0)

    best = max(OFFERED, key=share)
    if not share(best):
        types = " or ".join(OFFERED)
        error = f"Expected a request that accepts {types}, got {accept[:200]!r}."
        raise RequestError(406, error, f"Accept {types}.")
    return best


@dataclass(frozen=True)
class Answer:
    """What a verb came to.

    `head` is written once. `parts` have an entry per row: an array `(n_rows, ...)`, an
    Arrow table, or a list of these. `table` makes an Arrow table of a slice of the `n_rows` rows.
    """

    head: Mapping[str, Any]
    parts: Mapping[str, Any]
    table: Callable[[slice], Any]
    n_rows: int

    @property
    def n_cells(self) -> int:
        """How many cells there are to write."""
        return sum(map(_n_cells, self.parts.values()))

    def pieces(self, media_type: str) -> Iterator[bytes]:
        """Give the body, piece by piece."""
        return self._json() if media_type == JSON else self._stream()

    def _json(self) -> Iterator[bytes]:
        before = b"{"
        for name, value in (*self.head.items(), *self.parts.items()):
            yield before + cells.dumps(name) + b":"
            before = b","
            if name not in self.parts:
                yield cells.dumps(value)
            elif isinstance(value, list):
                yield from _listed(map(_list, value))
            else:
                yield from _list(value)
        yield b"}"

    def _stream(self) -> Iterator[bytes]:
        step = max(1, _TABLE_CELLS * self.n_rows // max(1, self.n_cells))
        first, sink = self.table(slice(0, step)), io.BytesIO()
        with pa.ipc.new_stream(sink, first.schema) as writer:
            writer.write_table(first)
            for start in range(step, self.n_rows, step):
                yield _taken(sink)
                writer.write_table(self.table(slice(start, start + step)))
        yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    """Return what has been written, and forget it."""
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


def _n_cells(part: Any) -> int:
    return sum(map(_n_cells, part)) if isinstance(part, list) else len(part) * _width(part)


def _width(part: Any) -> int:
    return int(part.num_columns) if isinstance(part, pa.Table) else math.prod(part.shape[1:])


def _flat(rows: Array) -> Array:
    """Return rows `(n_rows, ...)` as a matrix; there may be none of them."""
    return rows.reshape(len(rows), _width(rows))


def _slices(part: Any, n_cells: int) -> Iterator[Any]:
    """Give a part's rows, some at a time."""
    step = max(1, n_cells // max(1, _width(part)))
    return (part_of(part, start, start + step) for start in range(0, len(part), step))


def _list(part: Any) -> Iterator[bytes]:
    """Give the rows of a part, some at a time, as one list."""

    def entries(rows: Any) -> bytes:
        if isinstance(rows, pa.Table):
            return cells.dumps(cells.rows(rows))[1:-1]
        return cells.dumps((_flat(rows) if rows.ndim > 1 else rows).tolist())[1:-1]

    return _listed([entries(rows)] for rows in _slices(part, _PIECE_CELLS))


def _listed(items: Iterator[Any]) -> Iterator[bytes]:
    """Give the items, each in pieces itself, as one list."""
    before = b"["
    for item in items:
        yield before
        yield from item
        before = b","
    yield b"]" if before == b"," else b"[]"


def of_codes(codes: Array, names: Sequence[str]) -> Answer:
    """Return the answer that codes `(n_rows, n_components)` are."""

    def table(at: slice) -> Any:
        return convert.to_arrow(codes[at], names)

    return Answer({"names": list(names)}, {"codes": codes}, table, len(codes))


def of_rows(found: Mapping[str, Any], names: Sequence[str], row_shape: Sequence[int]) -> Answer:
    """Return the answer that `rows` are, or several `draws` of them: tables, or arrays."""
    rows = found["rows"] if "rows" in found else joined(found["draws"])
    n_rows = len(rows) // len(found.get("draws", [rows]))
    head: dict[str, Any] = {"columns": list(names)}
    if len(row_shape) > 1:
        head["row_shape"] = list(row_shape)
    label = "draw"
    while label in names:
        label = f"_{label}"

    def table(at: slice) -> Any:
        part = part_of(rows, at.start, at.stop)
        part = part if isinstance(part, pa.Table) else convert.to_arrow(_flat(part), names)
        if "draws" not in found:
            return part
        number = np.arange(at.start, at.start + len(part)) // max(1, n_rows)
        return part.add_column(0, label, pa.array(number))

    return Answer(head, found, table, len(rows))


def of_scores(scores: Mapping[str, Array], offset: float) -> Answer:
    """Return the answer that scores, p-values and labels are."""

    def table(at: slice) -> Any:
        return pa.table({name: values[at] for name, values in scores.items()})

    return Answer({"offset": offset}, scores, table, len(scores["score"]))


def of_explanation(parts: Mapping[str, Array], columns: Sequence[str]) -> Answer:
    """Return the answer that an explanation is; as a table, with a line per row and column."""
    names = pa.array(columns, pa.string())

    def table(at: slice) -> Any:
        n_rows, n = parts["contribution"][at].shape
        numbers = np.arange(at.start, at.start + n_rows)
        lines: dict[str, Any] = {"row": np.repeat(numbers, n)}
        lines["column"] = names.take(pa.array(np.tile(np.arange(n), n_rows)))
        for name in ("observed", "expected"):
            lines[name] = _one_column(parts[name][at])
        lines["contribution"] = parts["contribution"][at].reshape(-1)
        for name in ("base", "score"):
            lines[name] = np.repeat(parts[name][at], n)
        return pa.table(lines)

    return Answer({"columns": list(columns)}, parts, table, len(parts["base"]))


def _one_column(values: Array) -> Any:
    """Return cells of all columns as one column: numbers, or text where some hold no numbers."""
    if values.dtype != object:
        return pa.array(values.reshape(-1), from_pandas=True)
    return pa.array([formatting.cell(cell, exact=True) for cell in values.reshape(-1).tolist()])
