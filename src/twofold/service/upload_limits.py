"""What an upload says of its own size, read before any of it is decoded.

Compressed or repeated cells can make gigabytes out of a few bytes. Both formats say in small
headers how much will come out: Arrow's stream in the metadata of each message, Parquet in its
footer and in front of each page. These headers are read here, and what they declare is bounded.

Sources: Apache Arrow, "Encapsulated message format" and format/Message.fbs; FlatBuffers,
"Internals"; Apache Parquet, parquet.thrift; Apache Thrift, "Compact protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from twofold.service.errors import Refusal

_MOST_METADATA = 4 * 2**20  # bytes of one header: thousands of columns fit
_MOST_FOOTER = 2 * 2**20  # bytes of a Parquet file's
_MOST_DEPTH = 32
_MOST_MESSAGES = 10_000
_MOST_PAGES = 100_000
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # MessageHeader in Message.fbs
_DELTA_BYTE_ARRAY = 7  # Encoding in parquet.thrift: cells repeat parts of the cells before them


@dataclass(frozen=True)
class Bounds:
    """How much an upload may come to: rows, and bytes once it is decoded."""

    rows: int
    expanded: int

    def check_rows(self, n_rows: int) -> None:
        """Raise Refusal where there are too many rows."""
        if n_rows > self.rows:
            raise Refusal(
                413,
                f"These are {n_rows:,} rows, and at most {self.rows:,} are taken at a time.",
                "Send the rows in parts, or start the service with a larger --max-rows (rows of "
                "many columns: --max-bytes).",
            )

    def check_expanded(self, n_bytes: int) -> None:
        """Raise Refusal where the rows would take too much memory."""
        if n_bytes > self.expanded:
            raise Refusal(
                413,
                f"These rows would take {n_bytes:,} bytes once they are decoded, and at most "
                f"{self.expanded:,} are taken at a time.",
                "Send the rows in parts, or start the service with a larger --max-bytes.",
            )


def too_odd(what: str) -> Refusal:
    """Return the refusal of an upload that no ordinary program writes."""
    return Refusal(413, what, "Write the rows anew with ordinary settings, and send them in parts.")


def check_stream(buffer: Any, bounds: Bounds) -> None:
    """Raise Refusal where an Arrow stream, an Arrow buffer, declares more than the bounds.

    Raises what Arrow raises where the buffer holds no stream.
    """
    import pyarrow as pa

    rows = expanded = 0
    for count, message in enumerate(pa.ipc.MessageReader.open_stream(pa.BufferReader(buffer))):
        if count > _MOST_MESSAGES:
            raise too_odd(f"This stream has more than {_MOST_MESSAGES:,} messages.")
        if message.metadata.size > _MOST_METADATA:
            size = f"{message.metadata.size:,}"
            raise too_odd(f"A message of this stream has {size} bytes of metadata.")
        batch = _Batch.of(message.metadata.to_pybytes())
        if batch is None:
            continue
        if batch.is_delta:
            raise too_odd("This stream puts its dictionaries together from deltas.")
        bounds.check_rows(batch.most_rows)
        rows += 0 if batch.is_dictionary else batch.n_rows
        expanded += batch.expanded(message.body)
        bounds.check_rows(rows)
        bounds.check_expanded(expanded)


class _Table:
    """A table of a FlatBuffer: where its fields are.

    Arrow has verified the buffer's offsets before; what is read outside of it raises all the same.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self._fields = at - _unpack("<i", data, at)
        self._end = _unpack("<H", data, self._fields)

    def place(self, field: int) -> int | None:
        """Return where a field's value is, None where it has its default."""
        entry = 4 + 2 * field
        offset = _unpack("<H", self.data, self._fields + entry) if entry < self._end else 0
        return self.at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        place = self.place(field)
        return 0 if place is None else _unpack(form, self.data, place)

    def table(self, field: int) -> _Table | None:
        place = self.place(field)
        return None if place is None else _Table(self.data, _followed(self.data, place))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Give a vector of structs of two 64-bit numbers."""
        place = self.place(field)
        if place is None:
            return
        start = _followed(self.data, place)
        count = _unpack("<I", self.data, start)
        if start + 4 + 16 * count > len(self.data):
            raise struct.error("a vector reaches beyond its buffer")
        yield from struct.iter_unpack("<qq", self.data[start + 4 : start + 4 + 16 * count])


@dataclass(frozen=True)
class _Batch:
    """A record batch or dictionary batch, as the metadata of its message describes it."""

    n_rows: int
    most_rows: int  # of the batch and of each of its columns
    is_dictionary: bool
    is_delta: bool
    compressed: bool
    buffers: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, metadata: bytes) -> _Batch | None:
        root = _Table(metadata, _unpack("<I", metadata, 0))
        kind, header = root.number(1, "<B"), root.table(2)
        if header is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            return None
        delta = False
        if kind == _DICTIONARY_BATCH:
            delta = bool(header.number(2, "<B"))
            header = header.table(1)
            if header is None:
                return None
        n_rows = header.number(0, "<q")
        return cls(
            n_rows,
            max([n_rows, *(length for length, _ in header.pairs(1))]),
            kind == _DICTIONARY_BATCH,
            delta,
            header.place(3) is not None,
            tuple(header.pairs(2)),
        )

    def expanded(self, body: Any) -> int:
        """Return how many bytes the batch's buffers come to."""
        if not self.compressed:
            return sum(length for _, length in self.buffers)
        total, view = 0, memoryview(body)
        for offset, length in self.buffers:
            if length:
                # In front of each compressed buffer stands its size, or -1 where it is as it is.
                size = _unpack("<q", view, offset)
                total += length if size == -1 else size
        return total


def _unpack(form: str, data: bytes | memoryview, at: int) -> int:
    if at < 0:  # Python would count from the end
        raise struct.error("an offset reaches before its buffer")
    return int(struct.unpack_from(form, data, at)[0])


def _followed(data: bytes, at: int) -> int:
    return at + _unpack("<I", data, at)


@dataclass(frozen=True)
class _Chunk:
    """A column's cells in one row group of a Parquet file, as the footer describes them."""

    n_rows: int  # of the row group
    n_values: int
    start: int
    size: int

    @classmethod
    def of(cls, n_rows: int, column: Any) -> _Chunk:
        about = column[3]
        start, dictionary = about[9], about.get(11, 0)
        if 0 < dictionary < start:
            start = dictionary
        return cls(n_rows, about[5], start, about[7])


def check_file(body: bytes, bounds: Bounds) -> None:
    """Raise Refusal where a Parquet file's footer declares more than the bounds.

    Raises struct.error where it is none. Arrow's own view of a footer is not asked for: some that
    are broken end the process.
    """
    with _as_broken():
        footer = _footer(body)
        n_rows = max(footer[3], sum(group[3] for group in footer.get(4, [])))
    bounds.check_rows(n_rows)


def check_pages(body: bytes, columns: Sequence[int], bounds: Bounds) -> None:
    """Raise Refusal where columns of a Parquet file declare more than the bounds.

    `columns` are numbers of columns without nesting. Raises struct.error at broken headers.
    """
    expanded = pages = 0
    with _as_broken():
        groups = _footer(body).get(4, [])
        chunks = [_Chunk.of(group[3], group[1][number]) for group in groups for number in columns]
    for chunk in chunks:
        if chunk.n_values != chunk.n_rows:
            raise too_odd("A column of this file declares another number of cells than rows.")
        for uncompressed in _pages(body, chunk):
            pages += 1
            expanded += uncompressed
            bounds.check_expanded(expanded)
            if pages > _MOST_PAGES:
                raise too_odd(f"This file has more than {_MOST_PAGES:,} pages.")


def _footer(body: bytes) -> Any:
    """Return the footer of a Parquet file: FileMetaData in parquet.thrift, by field."""
    if len(body) < 12 or body[-4:] != b"PAR1":
        raise struct.error("it does not end as one")
    length = _unpack("<I", body, len(body) - 8)
    if length > len(body) - 12:
        raise struct.error("its footer is longer than itself")
    if length > _MOST_FOOTER:
        raise too_odd(f"This file has {length:,} bytes of metadata.")
    return _Thrift(body, len(body) - 8 - length).read()[0]


@contextmanager
def _as_broken() -> Iterator[None]:
    """Turn the lack of a field, or another type of it, into the error of broken headers."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise struct.error("its footer lacks what it must have") from error


def _pages(body: bytes, chunk: _Chunk) -> Iterator[int]:
    """Give the size of each page of a column chunk once it is decompressed."""
    at, end = chunk.start, min(chunk.start + chunk.size, len(body))
    while at < end:
        header, at = _Thrift(body, at).read()
        uncompressed, compressed = header.get(2), header.get(3)
        if not (isinstance(uncompressed, int) and isinstance(compressed, int)):
            raise struct.error("a page has no size")
        if uncompressed < 0 or compressed < 0:
            raise struct.error("a page has a size below zero")
        for field in (5, 8):  # data pages of version 1 and 2
            page = header.get(field)
            if isinstance(page, dict) and page.get(2 if field == 5 else 4) == _DELTA_BYTE_ARRAY:
                raise too_odd("A column of this file is encoded as DELTA_BYTE_ARRAY.")
        yield uncompressed
        at += compressed


class _Thrift:
    """Reads one struct in Thrift's compact protocol: fields by their numbers."""

    def __init__(self, data: bytes, at: int) -> None:
        if at < 0:
            raise struct.error("a header starts before its file")
        self._data, self._at = data, at

    def read(self, depth: int = 0) -> tuple[dict[int, Any], int]:
        """Return the struct's fields, and where it ends."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(kind, depth + 1)
        return fields, self._at

    def _value(self, kind: int, depth: int, in_list: bool = False) -> Any:
        if depth > _MOST_DEPTH:
            raise struct.error("a header is nested too deeply")
        match kind:
            case 1 | 2:  # true, false; in lists they take a byte
                return self._byte() == 1 if in_list else kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self._varint()
                kinds = range(self._possible(count))
                return [self._value(head & 0x0F, depth + 1, in_list=True) for _ in kinds]
            case 11:
                count = self._possible(self._varint())
                head = self._byte() if count else 0
                for _ in range(count):
                    self._value(head >> 4, depth + 1, in_list=True)
                    self._value(head & 0x0F, depth + 1, in_list=True)
                return None
            case 12:
                return self.read(depth)[0]
        raise struct.error(f"a header holds the unknown type {kind}")

    def _byte(self) -> int:
        if self._at >= len(self._data):
            raise struct.error("a header is cut off")
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise struct.error("a number in a header is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _possible(self, count: int) -> int:
        if count > len(self._data) - self._at:  # each takes a byte at least
            raise struct.error("a list in a header is cut off")
        return count

    def _skip(self, n_bytes: int) -> None:
        self._at += self._possible(n_bytes)
