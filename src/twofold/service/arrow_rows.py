"""The rows of an Arrow stream, which is checked before anything of it is decoded.

All cells lie in the body as they are: names and types are compared first, and whatever lets a few
bytes stand for many is refused. Batches are read some milliseconds' worth at a time.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.data import arrow
from twofold.data.arrow import Refused
from twofold.data.sources import check_names
from twofold.errors import DataError, TwofoldError
from twofold.service.errors import RequestError
from twofold.service.memory import Share, size_of
from twofold.service.requests import Limits

_PIECE_SECONDS = 0.01
_MOST_CELL = 2**16  # bytes of a text
_MOST_BATCHES = 10_000
_EXPANSION = 8  # bytes of texts written out per byte of the largest body
_MORE_COLUMNS = 1_000  # that a stream may have beyond twice the model's
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_BROKEN = (
    *(pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError),
    *(struct.error, IndexError),
)
_TEXTS = ("string", "large_string", "string_view")


class ArrowReader:
    """Reads the Arrow streams that are sent to a model of `n_columns`.

    `names` are those of its columns, if it picks them by name.
    """

    def __init__(
        self, n_columns: int, names: Sequence[str] | None, codes: Sequence[str], limits: Limits
    ) -> None:
        self._n_columns, self._limits = n_columns, limits
        self._wanted = {"rows": names, "codes": codes}

    def read(self, body: bytes, field: str, share: Share) -> Generator[None, None, dict[str, Any]]:
        """Return the table, piece by piece: the columns wanted if all are there, else all."""
        buffer, batches = pa.py_buffer(body), list[Any]()
        try:
            with pa.ipc.open_stream(buffer) as stream:
                chosen = self._chosen(stream.schema, self._wanted[field])
            yield from _in_turns(_unpacked(buffer))
            options = pa.ipc.IpcReadOptions(included_fields=sorted(chosen), use_threads=False)
            with pa.ipc.open_stream(buffer, options=options) as stream:
                yield from _in_turns(self._batches(stream, batches))
                table = pa.Table.from_batches(batches, stream.schema)
            order = sorted(chosen)
            table = table.select([order.index(i) for i in chosen]) if chosen != order else table
            self._refuse_long_texts(table)
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
        return {field: table.replace_schema_metadata(None)}

    def _batches(self, stream: Any, batches: list[Any]) -> Iterator[None]:
        """Gather the batches of a stream."""
        n_rows = 0
        for batch in stream:
            n_rows += batch.num_rows
            self._limits.check_rows(n_rows, self._n_columns)
            # Nothing that a client sends is true before this: offsets may lead anywhere.
            batch.validate(full=True)
            batches.append(batch)
            yield

    def _chosen(self, schema: Any, wanted: Sequence[str] | None) -> list[int]:
        """Return the positions of the columns to read.

        Raises DataError if one of them holds lists, structs and their like: a few bytes can stand
        for billions of such cells.
        """
        if len(schema) > 2 * self._n_columns + _MORE_COLUMNS:
            raise RequestError(
                413,
                f"Expected a table of {self._n_columns:,} columns, got {len(schema):,}.",
                "Send the columns that GET /schema lists.",
            )
        names = schema.names
        chosen = list(range(len(names)))
        if wanted is not None and names != wanted:
            check_names("The table", names)
            place = {name: i for i, name in enumerate(names)}
            if place.keys() >= set(wanted):
                chosen = [place[name] for name in wanted]
        types = schema.types
        for kind, i in {types[i]: i for i in reversed(chosen)}.items():
            try:
                arrow.read(pa.chunked_array([], kind))
            except Refused as reason:
                raise DataError(f"Column '{names[i]}' {reason}. {reason.remedy}") from None
        return chosen

    def _refuse_long_texts(self, table: Any) -> None:
        """Raise RequestError if a text is very long, or if texts stored once come to much."""
        total, most = 0, _EXPANSION * self._limits.bytes
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = column.type
            is_dictionary = pa.types.is_dictionary(kind)
            if str(kind.value_type if is_dictionary else kind) not in _TEXTS:
                continue
            for chunk in column.chunks:
                lengths = pc.binary_length(chunk.dictionary if is_dictionary else chunk)
                if (pc.max(lengths).as_py() or 0) > _MOST_CELL:
                    error = f"Expected texts of at most {_MOST_CELL:,} bytes, got a longer one in "
                    error += f"column '{name[:100]}'."
                    raise RequestError(413, error, "Send shorter texts.", name[:100])
                taken = lengths.take(chunk.indices) if is_dictionary else lengths
                total += pc.sum(taken).as_py() or 0
        if total > most:
            raise RequestError.too_large(
                f"Expected texts of at most {most:,} bytes, got more when they are written out.",
                "--max-bytes",
            )


def _in_turns(items: Iterator[Any]) -> Generator[None, None, None]:
    """Go through what takes its time, and stop after each piece of it."""
    until = time.monotonic() + _PIECE_SECONDS
    for _ in items:
        if time.monotonic() > until:
            yield
            until = time.monotonic() + _PIECE_SECONDS


def _unpacked(buffer: Any) -> Iterator[None]:
    """Raise RequestError if buffers are compressed or dictionaries come as deltas.

    Of either, a few bytes can stand for billions.
    """
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(buffer)):
        if number > _MOST_BATCHES:
            error = f"Expected at most {_MOST_BATCHES:,} batches, got more."
            raise RequestError(413, error, "Write more rows into each batch.")
        if _is_packed(message.metadata.to_pybytes()):
            raise RequestError(
                415,
                "Expected a plain stream, got a compressed one, or dictionaries as deltas.",
                "Write it uncompressed, and its dictionaries whole.",
            )
        yield


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
