"""Results become the body of an answer: JSON, an Arrow stream, a Parquet file or plain numbers.

Long answers are made piece by piece, so that no more than a piece of one is held as text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold import formatting
from twofold.data import convert, sources
from twofold.data import json as cells
from twofold.service.bodies import ARROW, JSON, PARQUET
from twofold.service.errors import Refusal

Array = NDArray[Any]
NUMBERS = "application/octet-stream"
FORMATS = (JSON, ARROW, PARQUET)
_PIECE_CELLS = 20_000  # written at a time: a few milliseconds
_PIECE_BYTES = 2**18


@dataclass(frozen=True)
class Answer:
    """What a verb came to.

    `head` is said once. `parts` have one entry per row: an array `(n_rows, ...)` or an Arrow table.
    `table` makes the Arrow table of it. `numbers` is where the matrix of float32 comes from, for
    the verbs that have one.
    """

    head: Mapping[str, Any]
    parts: Mapping[str, Any]
    table: Callable[[], Any]
    numbers: Any = None
    tail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_cells(self) -> int:
        """How many cells there are to write."""
        return sum(len(part) * _width(part) for part in self.parts.values())

    def headers(self, media_type: str) -> dict[str, str]:
        """Return the headers that tell what the body does not.

        Raises
        ------
        Refusal
            Where the result is none of this type: rows with text are no matrix.
        """
        if media_type != NUMBERS:
            return {}
        _require_numbers(self.numbers)
        return {"X-Shape": f"{len(self.numbers)},{_width(self.numbers)}"}

    def pieces(self, media_type: str) -> Iterator[bytes | memoryview]:
        """Give the body, piece by piece."""
        if media_type == JSON:
            yield from self._json()
        else:
            whole = memoryview(_WRITERS[media_type](self))
            for start in range(0, len(whole), _PIECE_BYTES):
                yield whole[start : start + _PIECE_BYTES]

    def _json(self) -> Iterator[bytes]:
        before = b"{"
        for name, value in self.head.items():
            yield before + cells.dumps(name) + b":" + cells.dumps(value)
            before = b","
        for name, part in self.parts.items():
            start = before + cells.dumps(name) + b":["
            before = b","
            for rows in _in_pieces(part):
                yield start + cells.dumps(rows)[1:-1]
                start = b","
            yield b"]" if start == b"," else start + b"]"
        for name, value in self.tail.items():
            yield before + cells.dumps(name) + b":" + cells.dumps(value)
            before = b","
        yield b"}"


def _width(part: Any) -> int:
    if isinstance(part, pa.Table):
        return int(part.num_columns)
    return math.prod(part.shape[1:])


def _flat(rows: Array) -> Array:
    """Return rows `(n_rows, ...)` as a matrix; there may be none of them."""
    return rows.reshape(len(rows), _width(rows))


def _in_pieces(part: Any) -> Iterator[list[Any]]:
    """Give a part's rows as lists, some at a time."""
    step = max(1, _PIECE_CELLS // max(1, _width(part)))
    for start in range(0, len(part), step):
        if isinstance(part, pa.Table):
            yield cells.rows(part.slice(start, step))
        else:
            rows = part[start : start + step]
            yield _flat(rows).tolist() if rows.ndim > 1 else rows.tolist()


def _as_stream(answer: Answer) -> Any:
    table, sink = answer.table(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _as_parquet(answer: Answer) -> Any:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(answer.table(), file)
    return file.getbuffer()


def _as_numbers(answer: Answer) -> Any:
    values = answer.numbers
    if isinstance(values, pa.Table):
        columns = [sources.read(values.select([i])).values[:, 0] for i in range(values.num_columns)]
        values = np.column_stack(columns)
    matrix = _flat(values)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, dtype="<f4").view(np.uint8).reshape(-1).data


def _require_numbers(rows: Any) -> None:
    if not isinstance(rows, pa.Table):
        return
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if not _is_number(column.type):
            raise Refusal(
                406,
                f"Column '{name}' holds no numbers, so the rows are no matrix.",
                f"Accept {ARROW} or {JSON}.",
                name,
            )


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


_WRITERS: dict[str, Callable[[Answer], Any]] = {
    ARROW: _as_stream,
    PARQUET: _as_parquet,
    NUMBERS: _as_numbers,
}


def of_codes(codes: Array, names: Sequence[str]) -> Answer:
    """Return the answer that codes `(n_rows, n_components)` are."""
    return Answer(
        {"names": list(names)}, {"codes": codes}, lambda: convert.to_arrow(codes, names), codes
    )


def of_rows(rows: Any, names: Sequence[str], row_shape: Sequence[int]) -> Answer:
    """Return the answer that rows are: an Arrow table, or an array `(n_rows, ...)`."""
    head: dict[str, Any] = {"columns": list(names)}
    if len(row_shape) > 1:
        head["row_shape"] = list(row_shape)
    return Answer(head, {"rows": rows}, lambda: _table(rows, names), rows)


def of_draws(draws: Sequence[Any], names: Sequence[str], row_shape: Sequence[int]) -> Answer:
    """Return the answer that several tables of the same rows are."""
    head = dict(of_rows(draws[0], names, row_shape).head)
    tables = [cells.rows(_table(rows, names)) for rows in draws]

    def table() -> Any:
        label = "draw"
        while label in names:
            label = f"_{label}"
        numbers = np.repeat(np.arange(len(draws)), len(draws[0]))
        whole = pa.concat_tables([_table(rows, names) for rows in draws])
        return whole.add_column(0, label, pa.array(numbers))

    return Answer(head, {}, table, tail={"draws": tables})


def of_scores(scores: Mapping[str, Array], offset: float) -> Answer:
    """Return the answer that scores, p-values and labels are."""
    return Answer({}, scores, lambda: pa.table(dict(scores)), tail={"offset": offset})


def of_explanation(parts: Mapping[str, Array], columns: Sequence[str]) -> Answer:
    """Return the answer that an explanation is; as a table, with a line per row and column."""

    def table() -> Any:
        n_rows, n = parts["contribution"].shape
        lines: dict[str, Any] = {
            "row": np.repeat(np.arange(n_rows), n),
            "column": pa.array(list(columns) * n_rows, pa.string()),
        }
        for name in ("observed", "expected"):
            lines[name] = _one_column(parts[name])
        lines["contribution"] = parts["contribution"].reshape(-1)
        for name in ("base", "score"):
            lines[name] = np.repeat(parts[name], n)
        return pa.table(lines)

    return Answer({"columns": list(columns)}, parts, table)


def _one_column(values: Array) -> Any:
    """Return cells of all columns as one column: numbers, or text where some hold no numbers."""
    if values.dtype != object:
        return pa.array(values.reshape(-1), from_pandas=True)
    return pa.array([formatting.cell(cell, exact=True) for cell in values.reshape(-1).tolist()])


def _table(rows: Any, names: Sequence[str]) -> Any:
    if isinstance(rows, pa.Table):
        return rows
    return convert.to_arrow(_flat(rows), names)


def chosen(accept: str, offered: Sequence[str]) -> str:
    """Return the type of the answer that a client's Accept header likes best.

    Raises
    ------
    Refusal
        Where it accepts none of those that are offered.

    Examples
    --------
    >>> chosen("text/html, */*;q=0.8", ["application/json"])
    'application/json'
    """
    if not accept.strip():
        return offered[0]
    ranges = [_range(part) for part in accept.split(",")[:50]]
    best, most = "", 0.0
    for media_type in offered:
        # What is said of the type itself counts before what is said of all its kin.
        fitting = [(len(name), share) for name, share in ranges if _fits(media_type, name)]
        share = max(fitting, default=(0, 0.0))[1]
        if share > most:
            best, most = media_type, share
    if not best:
        raise Refusal(
            406,
            f"This route gives no {accept[:200]!r}.",
            f"Accept {' or '.join(offered)}.",
        )
    return best


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (word.strip().lower() for word in part.split(";"))
    share = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                share = min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                share = 0.0
    return name, share


def _fits(media_type: str, name: str) -> bool:
    if name == "*/*":
        return True
    return name == media_type or (name.endswith("/*") and media_type.startswith(name[:-1]))
