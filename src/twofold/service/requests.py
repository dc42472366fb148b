"""What a request sends, JSON or an Arrow stream, becomes rows: piece by piece, and within limits.

Rows become an Arrow table with the training table's types if that was a frame, and an array if it
was one, so that they meet the same checks as rows in Python. Every reader is a generator that
stops after each piece of a few milliseconds; nothing that it makes is larger than a small multiple
of the body.
"""

from __future__ import annotations

import re
import struct
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.data import json as cells
from twofold.errors import DataError, TwofoldError
from twofold.schema.schema import Schema
from twofold.service.errors import RequestError
from twofold.service.json_rows import Expected, Gathered, JsonRows, NotRows, called
from twofold.service.memory import Account, Share, size_of

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_PIECE_BYTES, _PIECE_SECONDS = 2**16, 0.01  # of JSON, of Arrow batches
_MOST_ROW, _MOST_CELL = 2**18, 2**16  # bytes of a row and of a text, besides those of its columns
_MOST_BATCHES = 10_000
_EXPANSION = 8  # bytes of texts written out per byte of the largest body
_MORE_COLUMNS = 1_000  # that a stream may have beyond twice the model's
_NO_ROWS = "'{}' is {}, and must be a list of rows."
_SEND_ROWS = 'Send {{"{}": [[...], ...]}}, with a list of cells for each row.'
_OPENAPI = "GET /openapi.json describes what each route takes."
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_BROKEN = (
    *(pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError),
    *(struct.error, IndexError),
)
_TEXTS = ("string", "large_string", "string_view")
# The types whose cells are numbers, text, booleans or times, by their numbers in Arrow.
_CELLS = frozenset(
    pa.type_for_alias(name).id
    for name in (
        *("null", "bool", "string", "large_string", "date32", "date64", "time32[s]", "time64[us]"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "timestamp[us]", "duration[us]"),
    )
) | {
    getattr(pa, name)(*arguments).id
    for name, arguments in {
        **{f"decimal{bits}": (5, 2) for bits in (32, 64, 128, 256)},
        "string_view": (),
    }.items()
    if hasattr(pa, name)  # older versions lack some
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
Pieces = Generator[None, None, dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for.

    Parameters
    ----------
    rows : int
        Rows sent, or asked for.
    bytes : int
        Bytes of the body; rows times columns may not be more either.
    seconds : float
        Time that a request may take to arrive, and again to be answered.
    memory : int
        Bytes that all requests together may hold.
    """

    rows: int = 100_000
    bytes: int = 32 * 2**20
    seconds: float = 30.0
    memory: int = 512 * 2**20

    def most_rows(self, n_columns: int) -> int:
        """Return how many rows of so many columns are taken."""
        return max(1, min(self.rows, self.bytes // max(1, n_columns)))


def finished(steps: Generator[Any, None, Any]) -> Any:
    """Return what steps come to, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Reader:
    """Reads the bodies that are sent to one model.

    Parameters
    ----------
    schema : Schema
        What the model's columns are.
    named : bool
        Whether the model knows its columns by name, and picks them so.
    code_names : sequence of str
        Names of the code's components.
    limits : Limits
    """

    def __init__(
        self, schema: Schema, named: bool, code_names: Sequence[str], limits: Limits
    ) -> None:
        self._n_columns = len(schema.columns)
        self._most_rows = limits.most_rows(self._n_columns)
        self._most_text = _EXPANSION * limits.bytes
        self._expected = Expected.of(schema)
        self._names = list(schema.names) if named else None
        self._code_names = list(code_names)
        self._row = _row_pattern(len(schema.row_shape) + 1)
        self._most_row = _MOST_ROW + 256 * len(schema.columns)

    def read(self, media_type: str, body: bytes, fields: Sequence[str], share: Share) -> Pieces:
        """Return the fields of a body, its rows or codes and what goes with them, after each piece.

        `fields` are the ones that the route knows. "rows" come back as an Arrow table, as
        `JsonRows` or as an array, "codes" as a table or an array, others as JSON has them.

        Raises
        ------
        RequestError
            If the body cannot be read, or is too large.
        DataError
            If it holds anything but cells.
        """
        if media_type == JSON:
            try:
                return (yield from self._document(body, fields, share))
            except NotRows as other:
                return {fields[0]: other.rows}
        wanted = self._code_names if fields[0] == "codes" else self._names
        return {fields[0]: (yield from self._stream(body, wanted, share))}

    def read_now(self, document: dict[str, Any], field: str) -> Any:
        """Return the rows of a document, as an Arrow table or an array."""
        body = cells.dumps(document)
        given = finished(self.read(JSON, body, (field,), Share(Account(8 * len(body)))))[field]
        return given.table() if isinstance(given, JsonRows) else given

    def check_rows(self, n_rows: int) -> None:
        """Raise RequestError if these are more rows than are taken at a time."""
        if n_rows > self._most_rows:
            raise RequestError(
                413,
                f"The request is for {n_rows:,} rows, and at most {self._most_rows:,} are taken at "
                f"a time.",
                "Send the rows in parts, or start the service with a larger --max-rows or "
                "--max-bytes.",
            )

    def _document(self, body: bytes, fields: Sequence[str], share: Share) -> Pieces:
        """Read an object whose rows are a list; the parser proper only sees pieces of it."""
        found: dict[str, Any] = {}
        at = _after_space(body, 0)
        if body[at : at + 1] != b"{":
            text = f"The body is {{}}, and must be an object with {_listed(fields)}."
            raise _wrong_value(body, at, text, f'Send {{"{fields[0]}": ...}}.')
        at, closed = at + 1, False
        if end := _END.match(body, at):
            at, closed = end.end(), True
        while not closed:
            key = _KEY.match(body, at, at + 2_000)
            if key is None:
                raise _broken(body, at)
            name = _loads(key[1])
            if name not in fields:
                raise RequestError(
                    422,
                    f"Expected the fields {_listed(fields)}, got {name[:100]!r}.",
                    "Leave the field out, or correct its name.",
                )
            if name in found:
                raise RequestError(422, f"The field {name!r} is given twice.", "Give it once.")
            at = key.end()
            if name in ("rows", "codes"):
                found[name], at = yield from self._list(body, at, name, share)
            else:
                found[name], at = _scalar(body, at, name)
            after = _AFTER.match(body, at)
            if after is None:
                raise _broken(body, at)
            at, closed = after.end(), after[1] == b"}"
        if _after_space(body, at) != len(body):
            raise _broken(body, at)
        if fields[0] in ("rows", "codes") and fields[0] not in found:
            text = _NO_ROWS.format(fields[0], "missing")
            raise RequestError(422, text, _SEND_ROWS.format(fields[0]))
        return found

    def _list(
        self, body: bytes, at: int, field: str, share: Share
    ) -> Generator[None, None, tuple[Any, int]]:
        """Read the rows that begin at a place; return them and the place after them."""
        if body[at : at + 1] != b"[":
            raise _wrong_value(body, at, _NO_ROWS.format(field, "{}"), _SEND_ROWS.format(field))
        at += 1
        gathered = Gathered(self._expected if field == "rows" else None, share)
        if end := _END_OF_LIST.match(body, at):
            gathered.add([])
            return gathered.whole(), end.end()
        n_rows, more = 0, True
        while more:
            start = at
            while more and at - start < _PIECE_BYTES:
                row = self._row.match(body, at, at + self._most_row)
                if row is None:
                    raise self._no_row(body, at, n_rows)
                n_rows, at, more = n_rows + 1, row.end(), row[1] == b","
            piece = body[start : at - 1]  # without the comma or bracket after it
            rows = _loads(b"[" + piece + b"]")
            _refuse_twins(piece, rows)
            self.check_rows(n_rows)
            gathered.add(rows)
            yield
        return gathered.whole(), at

    def _no_row(self, body: bytes, at: int, number: int) -> RequestError:
        if len(body) - at <= self._most_row:
            return _broken(body, at)
        return RequestError(
            413,
            f"Row {number:,} of the body is longer than {self._most_row:,} bytes, or it is not "
            f"JSON.",
            "Send rows with the model's columns alone, and shorter texts.",
        )

    def _stream(
        self, body: bytes, wanted: Sequence[str] | None, share: Share
    ) -> Generator[None, None, Any]:
        """Read an Arrow stream: the columns `wanted` if all are there, else all of them."""
        buffer = pa.py_buffer(body)
        try:
            with pa.ipc.open_stream(buffer) as stream:
                chosen = self._chosen(stream.schema, wanted)
            yield from _refuse_compressed(buffer)
            options = pa.ipc.IpcReadOptions(included_fields=sorted(chosen), use_threads=False)
            with pa.ipc.open_stream(buffer, options=options) as stream:
                batches, n_rows, until = [], 0, time.monotonic() + _PIECE_SECONDS
                for batch in stream:
                    n_rows += batch.num_rows
                    self.check_rows(n_rows)
                    # Nothing that a client sends is true before this: offsets may lead anywhere.
                    batch.validate(full=True)
                    batches.append(batch)
                    if time.monotonic() > until:
                        yield
                        until = time.monotonic() + _PIECE_SECONDS
                table = pa.Table.from_batches(batches, stream.schema)
            order = sorted(chosen)
            table = table.select([order.index(i) for i in chosen]) if chosen != order else table
            _refuse_long_texts(table, self._most_text)
        except (RequestError, TwofoldError):
            raise
        except _BROKEN as error:
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise RequestError(
                400,
                f"The body cannot be read as an Arrow stream: {reason[:500]}.",
                "Send the bytes as they were written, with the content type of their format.",
            ) from None
        if len(batches) > 1:
            share.hold(size_of(table))
            table = table.combine_chunks()
        return table.replace_schema_metadata(None)

    def _chosen(self, schema: Any, wanted: Sequence[str] | None) -> list[int]:
        """Return the positions of the columns to read: the model's if all are there, or else all.

        Raises DataError if one of them holds lists, structs and their like: a few bytes can stand
        for billions of such cells.
        """
        if len(schema) > 2 * self._n_columns + _MORE_COLUMNS:
            raise RequestError(
                413,
                f"The table has {len(schema):,} columns, and the model {self._n_columns:,}.",
                "Send the columns that GET /schema lists.",
            )
        names = schema.names
        chosen = list(range(len(names)))
        if wanted is not None and names != wanted:
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                raise DataError(
                    f"The table has more than one column '{twice[:100]}'. Rename one of each."
                )
            place = {name: i for i, name in enumerate(names)}
            if place.keys() >= set(wanted):
                chosen = [place[name] for name in wanted]
        for i in chosen:
            kind = schema.field(i).type
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            if inner.id not in _CELLS or (inner != kind and pa.types.is_null(inner)):
                raise DataError(
                    f"Column '{names[i]}' is of the type {str(kind)[:200]}. Cells are numbers, "
                    f"text, booleans or times: drop other columns, or split them into "
                    f"columns that are."
                )
        return chosen


# JSON, as far as its structure is looked at before it is parsed

_SPACE = re.compile(rb"[ \t\r\n]*+")
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_END = re.compile(rb"[ \t\r\n]*+\}")
_END_OF_LIST = re.compile(rb"[ \t\r\n]*+\]")
_KEY = re.compile(rb"[ \t\r\n]*+(" + _TEXT + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
_AFTER = re.compile(rb"[ \t\r\n]*+([,}])")
_VALUE = re.compile(rb"(?:" + _TEXT + rb'|[^ \t\r\n\[\]{}",]++)', re.DOTALL)
_NAMES_AND_TEXTS = re.compile(_TEXT + rb"([ \t\r\n]*+:)?", re.DOTALL)


def _row_pattern(depth: int) -> re.Pattern[bytes]:
    """Return what matches a row, with lists in it down to a depth, and what follows the row."""
    inside = rb'[^"\[\]{}]++|' + _TEXT
    for _ in range(depth):
        inside = rb'[^"\[\]{}]++|' + _TEXT + rb"|[\[{](?:" + inside + rb")*+[\]}]"
    row = rb"[\[{](?:" + inside + rb")*+[\]}]|" + _VALUE.pattern
    return re.compile(rb"[ \t\r\n]*+(?:" + row + rb")[ \t\r\n]*+([,\]])", re.DOTALL)


def _after_space(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    assert found is not None  # it matches everywhere
    return found.end()


def _loads(text: bytes) -> Any:
    try:
        return cells.loads(text)
    except ValueError as error:
        raise _no_json(str(error)) from None


def _no_json(why: str) -> RequestError:
    return RequestError(
        400,
        f"The body cannot be read as JSON: {why}.",
        "Send JSON in UTF-8, with null for a missing cell: JSON has no NaN.",
    )


def _broken(body: bytes, at: int) -> RequestError:
    """Return the error that the body has at a place, in the parser's words if it finds one."""
    if len(body) <= _PIECE_BYTES:
        try:
            cells.loads(body)
        except ValueError as error:
            return _no_json(str(error))
    return _no_json(f"it is not well-formed near byte {at:,}")


def _refuse_twins(piece: bytes, rows: list[Any]) -> None:
    """Raise RequestError if a row names a column twice, of which the parser keeps the last."""
    named = sum(len(row) for row in rows if type(row) is dict)
    if piece.count(b":") == named or not named:
        return
    # There are more colons, which may stand in texts.
    if sum(1 for text in _NAMES_AND_TEXTS.finditer(piece) if text[1]) > named:
        raise RequestError(422, "A row names a column twice.", "Give each cell of a row once.")


def _scalar(body: bytes, at: int, name: str) -> tuple[Any, int]:
    """Return the value at a place, which is not a list nor an object, and the place after it."""
    value = _VALUE.match(body, at, at + 1_000)
    if value is None:
        raise _wrong_value(body, at, f"{name} must be an integer; got {{}}.", _OPENAPI)
    return _loads(value[0]), value.end()


def _wrong_value(body: bytes, at: int, text: str, fix: str) -> RequestError:
    """Return the error of a value of the wrong sort, which stands for {} in the text."""
    first = body[at : at + 1]
    if first in (b"[", b"{"):
        return RequestError(422, text.format("a list" if first == b"[" else "an object"), fix)
    value = _VALUE.match(body, at, at + _MOST_ROW)
    if value is None:
        return _broken(body, at)
    return RequestError(422, text.format(called(_loads(value[0]))), fix)


def _listed(fields: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in fields)


def integer(name: str, value: Any, *, text: bool = False) -> int:
    """Return a parameter that is an integer: as JSON has it, or as `text` of the query string."""
    if text and isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # as JSON Schema has it
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    shown = repr(value)[:80] if plain else called(value)
    raise RequestError(
        422, f"{name} must be an integer; got {shown}.", f"Give {name} as digits, or leave it out."
    )


# Arrow, as far as it is looked at before it is decoded


def _refuse_compressed(buffer: Any) -> Generator[None, None, None]:
    """Raise RequestError if buffers are compressed or dictionaries come as deltas.

    Of either, a few bytes can stand for billions; all other cells lie in the body as they are.
    """
    until = time.monotonic() + _PIECE_SECONDS
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(buffer)):
        if number > _MOST_BATCHES:
            raise RequestError(
                413,
                f"The stream has more than {_MOST_BATCHES:,} batches.",
                "Write more rows into each batch.",
            )
        if _is_packed(message.metadata.to_pybytes()):
            raise RequestError(
                415,
                "The stream is compressed, or its dictionaries come as deltas.",
                "Write it uncompressed, and its dictionaries whole.",
            )
        if time.monotonic() > until:
            yield
            until = time.monotonic() + _PIECE_SECONDS


def _is_packed(metadata: bytes) -> bool:
    """Whether a message's buffers are compressed, or it is a delta.

    Source: Apache Arrow, "Message.fbs" (fields by number: Message 1 header type, 2 header;
    DictionaryBatch 1 data, 2 is delta; RecordBatch 3 compression), and "FlatBuffers internals".
    """

    def field(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    message = follow(0)
    kind, header = field(message, 1), field(message, 2)
    kind = metadata[kind] if kind else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or not header:
        return False
    batch = follow(header)
    if kind == _DICTIONARY_BATCH:
        delta, data = field(batch, 2), field(batch, 1)
        if delta and metadata[delta]:
            return True
        batch = follow(data) if data else 0
    return bool(batch and field(batch, 3))


def _refuse_long_texts(table: Any, most: int) -> None:
    """Raise RequestError if a text is very long, or if texts that are stored once come to much."""
    total = 0
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        is_dictionary = pa.types.is_dictionary(kind)
        if str(kind.value_type if is_dictionary else kind) not in _TEXTS:
            continue
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary if is_dictionary else chunk)
            if (pc.max(lengths).as_py() or 0) > _MOST_CELL:
                raise RequestError(
                    413,
                    f"Column '{name[:100]}' has a text of more than {_MOST_CELL:,} bytes.",
                    "Send shorter texts.",
                    name[:100],
                )
            taken = lengths.take(chunk.indices) if is_dictionary else lengths
            total += pc.sum(taken).as_py() or 0
    if total > most:
        raise RequestError(
            413,
            f"The table's texts come to more than {most:,} bytes when they are written out.",
            "Send the rows in parts, or start the service with a larger --max-bytes.",
        )
