"""Results become the body of an answer: JSON, an Arrow stream, a Parquet file or plain numbers.

Long answers are made piece by piece, so that no more than a piece of one is held as bytes.
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
from twofold.service.errors import RequestError
from twofold.service.requests import ARROW, JSON

Array = NDArray[Any]
PARQUET = "application/vnd.apache.parquet"
NUMBERS = "application/octet-stream"
FORMATS = (JSON, ARROW, PARQUET)
_PIECE_CELLS = 20_000  # written at a time: a few milliseconds
_PIECE_BYTES = 2**18
_TABLE_CELLS = 200_000  # of a batch of an Arrow stream, of a row group


@dataclass(frozen=True)
class Answer:
    """What a verb came to.

    `head` is written once. `parts` have an entry per row: an array `(n_rows, ...)`, an Arrow table,
    or a list of these. `table` makes an Arrow table of a slice of the `n_rows` rows. `numbers` is
    where the matrix of float32 comes from, for the verbs that have one.
    """

    head: Mapping[str, Any]
    parts: Mapping[str, Any]
    table: Callable[[slice], Any]
    n_rows: int
    numbers: Any = None
    tail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_cells(self) -> int:
        """How many cells there are to write."""
        return sum(map(_n_cells, self.parts.values()))

    def headers(self, media_type: str) -> dict[str, str]:
        """Return the headers that say what the body does not.

        Raises
        ------
        RequestError
            If the result has another type: rows with text are not a matrix.
        """
        if media_type != NUMBERS:
            return {}
        _require_numbers(self.numbers)
        return {"X-Shape": f"{len(self.numbers)},{_width(self.numbers)}"}

    def pieces(self, media_type: str) -> Iterator[bytes]:
        """Give the body, piece by piece."""
        if media_type == JSON:
            return self._json()
        if media_type == NUMBERS:
            return (_as_numbers(part) for part in _slices(self.numbers, _PIECE_BYTES // 4))
        return self._tables(media_type)

    def _json(self) -> Iterator[bytes]:
        before = b"{"
        for name, value in self.head.items():
            yield before + cells.dumps(name) + b":" + cells.dumps(value)
            before = b","
        for name, part in self.parts.items():
            yield before + cells.dumps(name) + b":"
            before = b","
            yield from _list_of_lists(part) if isinstance(part, list) else _list(part)
        for name, value in self.tail.items():
            yield before + cells.dumps(name) + b":" + cells.dumps(value)
            before = b","
        yield b"}"

    def _tables(self, media_type: str) -> Iterator[bytes]:
        width = max(1, self.n_cells // max(1, self.n_rows))
        step = max(1, _TABLE_CELLS // width)
        first, sink = self.table(slice(0, step)), _Sink()
        with _WRITERS[media_type](sink, first.schema) as writer:
            writer.write_table(first)
            for start in range(step, self.n_rows, step):
                yield sink.taken()
                writer.write_table(self.table(slice(start, start + step)))
        yield sink.taken()


class _Sink(io.RawIOBase):
    """A file whose content is taken away while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _stream_writer(sink: Any, schema: Any) -> Any:
    return pa.ipc.new_stream(sink, schema)


def _parquet_writer(sink: Any, schema: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(sink, schema)


_WRITERS: dict[str, Callable[[Any, Any], Any]] = {ARROW: _stream_writer, PARQUET: _parquet_writer}


def _n_cells(part: Any) -> int:
    return sum(map(_n_cells, part)) if isinstance(part, list) else len(part) * _width(part)


def _width(part: Any) -> int:
    if isinstance(part, pa.Table):
        return int(part.num_columns)
    return math.prod(part.shape[1:])


def _flat(rows: Array) -> Array:
    """Return rows `(n_rows, ...)` as a matrix; there may be none of them."""
    return rows.reshape(len(rows), _width(rows))


def _slices(part: Any, n_cells: int) -> Iterator[Any]:
    """Give a part's rows, some at a time."""
    step = max(1, n_cells // max(1, _width(part)))
    for start in range(0, len(part), step):
        yield part.slice(start, step) if isinstance(part, pa.Table) else part[start : start + step]


def _list(part: Any) -> Iterator[bytes]:
    before = b"["
    for rows in _slices(part, _PIECE_CELLS):
        if isinstance(rows, pa.Table):
            listed: Any = cells.rows(rows)
        else:
            listed = _flat(rows).tolist() if rows.ndim > 1 else rows.tolist()
        yield before + cells.dumps(listed)[1:-1]
        before = b","
    yield b"]" if before == b"," else b"[]"


def _list_of_lists(parts: Sequence[Any]) -> Iterator[bytes]:
    before = b"["
    for part in parts:
        yield before
        yield from _list(part)
        before = b","
    yield b"]" if before == b"," else b"[]"


def _as_numbers(values: Any) -> bytes:
    if isinstance(values, pa.Table):
        columns = [sources.read(values.select([i])).values[:, 0] for i in range(values.num_columns)]
        values = np.column_stack(columns)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(_flat(values), dtype="<f4").tobytes()


def _require_numbers(rows: Any) -> None:
    if not isinstance(rows, pa.Table):
        return
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        types, kind = pa.types, column.type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise RequestError(
                406,
                f"Column '{name}' holds no numbers, so the rows are not a matrix.",
                f"Accept {ARROW} or {JSON}.",
                name,
            )


def of_codes(codes: Array, names: Sequence[str]) -> Answer:
    """Return the answer that codes `(n_rows, n_components)` are."""

    def table(at: slice) -> Any:
        return convert.to_arrow(codes[at], names)

    return Answer({"names": list(names)}, {"codes": codes}, table, len(codes), codes)


def of_rows(rows: Any, names: Sequence[str], row_shape: Sequence[int]) -> Answer:
    """Return the answer that rows are: an Arrow table, or an array `(n_rows, ...)`."""
    head: dict[str, Any] = {"columns": list(names)}
    if len(row_shape) > 1:
        head["row_shape"] = list(row_shape)
    return Answer(head, {"rows": rows}, lambda at: _table(rows, names, at), len(rows), rows)


def of_draws(draws: Sequence[Any], names: Sequence[str], row_shape: Sequence[int]) -> Answer:
    """Return the answer that several tables of the same rows are."""
    head, n_rows = of_rows(draws[0], names, row_shape).head, len(draws[0])
    label = "draw"
    while label in names:
        label = f"_{label}"

    def table(at: slice) -> Any:
        stop = min(at.stop, n_rows * len(draws))
        tables = []
        for number in range(at.start // max(1, n_rows), -(-stop // max(1, n_rows)) or 1):
            before = number * n_rows
            part = _table(
                draws[number], names, slice(max(0, at.start - before), max(0, stop - before))
            )
            numbers = pa.array(np.full(len(part), number))
            tables.append(part.add_column(0, label, numbers))
        return pa.concat_tables(tables)

    return Answer(head, {"draws": list(draws)}, table, n_rows * len(draws))


def of_scores(scores: Mapping[str, Array], offset: float) -> Answer:
    """Return the answer that scores, p-values and labels are."""

    def table(at: slice) -> Any:
        return pa.table({name: values[at] for name, values in scores.items()})

    return Answer({}, scores, table, len(scores["score"]), tail={"offset": offset})


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


def _table(rows: Any, names: Sequence[str], at: slice) -> Any:
    if isinstance(rows, pa.Table):
        return rows.slice(at.start, at.stop - at.start)
    return convert.to_arrow(_flat(rows[at]), names)


def chosen(accept: str, offered: Sequence[str]) -> str:
    """Return the type of the answer that a client's Accept header likes best.

    Raises
    ------
    RequestError
        If it accepts none of those that are offered.

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
        raise RequestError(
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
