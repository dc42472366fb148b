"""Files of text cells, CSV and its kin, read as they are written."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv

from twofold.data import dialect as dialects
from twofold.data import formats, sources
from twofold.data import notation as notations
from twofold.data.candidates import Hints
from twofold.data.detection import Detector
from twofold.data.dialect import HEAD_BYTES, Dialect, Layout
from twofold.data.discovery import Place
from twofold.data.encoding import encoding_of
from twofold.data.formats import Part, unpack
from twofold.data.notation import Notation
from twofold.data.table import Format
from twofold.data.threads import in_threads
from twofold.errors import DataError

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat")
_TAIL_BYTES = 2**14  # looked at for lines below the rows
_BLOCK = 2**24  # bytes that Arrow parses at a time; a row must fit into one
_QUOTE, _NEWLINE = ord('"'), ord("\n")
_SHOWN = 60  # letters of a line


@dataclass(frozen=True)
class Reading:
    """What is asked or known of how text cells are to be read; the rest is detected.

    Attributes
    ----------
    layout : Layout
    decimal, date_format, missing
        As in `Files`.
    wanted : mapping of str to str
        Columns that have to be numbers or times.
    known : mapping of str to Format
        The columns of the training table.
    """

    layout: Layout = field(default_factory=Layout)
    decimal: str | None = None
    date_format: str | None = None
    missing: tuple[str, ...] | None = None
    wanted: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Format] = field(default_factory=dict)

    @property
    def of_sheet(self) -> Reading:
        """The same of a spreadsheet, whose text is written by `spreadsheets.as_text`."""
        return replace(self, layout=replace(self.layout, delimiter=",", encoding="utf-8"))

    def detectors(self, names: Sequence[str], commas: bool = False) -> dict[str, Detector]:
        """Return what settles each column; none for those that are known to be text.

        `commas` says that commas do not separate the cells.
        """
        found = {}
        for name in names:
            form = self.known.get(name)
            if form is not None and form.type == "text":
                continue
            known = None if form is None else form.notation
            if form is not None and known is None:
                known = Notation(form.type)
            wanted = self.wanted.get(name, "")
            hints = Hints(self.missing, self.decimal, self.date_format, wanted, known, commas)
            found[name] = Detector(name, hints)
        return found

    def settle(
        self, names: Sequence[str], detectors: Mapping[str, Detector], shown: str
    ) -> list[Notation]:
        """Return the notation of each column, once its detector has seen all cells.

        Raises
        ------
        DataError
            If there are none; `shown` is the name of the (first) file.
        """
        if detectors and not any(detector.n_rows for detector in detectors.values()):
            raise DataError(
                f"The table has no rows: {shown} holds a header, {sources.listed(names)}, and "
                f"nothing below it. Add rows; if the first line is one, set header=False "
                f"(--no-header)."
            )
        marks = [d.decimal for d in detectors.values()]
        sure = {mark for mark in marks if mark}
        decimal = self.decimal or (sure.pop() if len(sure) == 1 else "")
        settled = []
        for name in names:
            detector = detectors.get(name)
            if detector is not None:
                settled.append(detector.settle(decimal))
                continue
            written = self.known[name].notation
            missing = notations.MISSING_IN_TEXT if written is None else written.missing
            settled.append(Notation(missing=tuple(sorted({"", *missing}))))
        return settled


class CsvFile:
    """A file of delimited text, or one of which `content` is such text; its parts are megabytes.

    Attributes
    ----------
    names : list of str
        What the columns are called.
    dialect : Dialect
        How it is laid out; `said` are further things to be said of that.
    """

    names: list[str]

    def __init__(
        self,
        place: Place,
        reading: Reading,
        content: bytes | None = None,
        said: tuple[str, ...] = (),
    ) -> None:
        self.place = place
        self._content: Any = content
        self._is_converted = False
        self._header = b""
        with sources.readable(place.shown):
            head = self._head()
            is_whole = len(head) < HEAD_BYTES
            if not head.strip():
                raise DataError(f"{place.shown} cannot be read as CSV: Empty CSV file.")
            self.dialect = dialects.detect(head, reading.layout, place.shown, is_whole)
            usual = self.dialect.delimiter != " " and self.dialect.quoting == '"'
            if not (usual and self.dialect.is_single_byte) or self._ends_in_returns(head):
                self._content = self._in_unicode(self._all(), self.dialect)
                self._is_converted = True
                head = self._content[:HEAD_BYTES]
            self.dialect = replace(self.dialect, said=(*said, *self.dialect.said))
            self._layout(head)

    def _head(self) -> bytes:
        if self.place.compression or self._content is not None:
            self._content = self._all()
            return bytes(self._content[:HEAD_BYTES])
        with self.place.open() as stream:
            return bytes(stream.read(HEAD_BYTES))

    @staticmethod
    def _ends_in_returns(head: bytes) -> bool:
        return b"\n" not in head and b"\r" in head

    def _all(self) -> bytes:
        if self._content is not None:
            return bytes(self._content)
        with self.place.open() as stream:
            content = bytes(stream.read())
        return unpack(content, self.place.compression)

    @staticmethod
    def _in_unicode(content: bytes, dialect: Dialect) -> bytes:
        text = content.decode(dialect.encoding)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if dialect.delimiter == " ":
            text = dialects.single_spaced(text)
        if dialect.quoting != '"':
            above = text.split("\n", dialect.skip)
            above[-1] = dialects.requoted(above[-1], dialect.delimiter, dialect.quoting)
            text = "\n".join(above)
        return text.lstrip("\ufeff").encode()

    def _layout(self, head: bytes) -> None:
        """Find where the rows begin, and what the columns are called."""
        start = 3 if head.startswith(codecs.BOM_UTF8) else 0
        for _ in range(self.dialect.skip):
            start = head.find(b"\n", start) + 1 or len(head)
        end = _end_of_lines(head[start:], first=True)
        while end < 0 and len(head) >= HEAD_BYTES and len(head) < self._size():
            with self._stream() as stream:  # a header longer than what was looked at
                head = bytes(stream.read(4 * len(head)))
            end = _end_of_lines(head[start:], first=True)
        end = len(head) if end < 0 else start + end
        text = head[start:end].decode(self._codec(), errors="replace")
        first = dialects.first_row(text, self.dialect)
        if self.dialect.has_header and not any(map(dialects.is_data, first)):
            self._header = text.rstrip("\r\n").encode()
        second: list[str] | None = None
        for _ in range(self.dialect.below):
            at = end
            end += max(0, _end_of_lines(head[end:], first=True, escape=self.dialect.escape))
            if self.dialect.joined and second is None:
                text = head[at:end].decode(self._codec(), errors="replace")
                second = dialects.first_row(text, self.dialect)
        self.names = dialects.named(first, self.dialect, second)
        self.repeated = dialects.repeated(first) if self.dialect.has_header and not second else []
        self._start = end if self.dialect.has_header else start
        self._end = self._start + self._length_of_rows(self._size() - self._start)

    def _length_of_rows(self, size: int) -> int:
        """Return how many bytes rows take up before what is written below them."""
        width, n_bytes, empty, n_empty = len(self.names), _TAIL_BYTES, 0, 0
        while width > 1:  # until there is a line that holds cells
            empty, n_empty = dialects.empty_end(self._tail(size, n_bytes), self.dialect, width)
            if n_bytes >= size or empty < n_bytes // 2:
                break
            n_bytes *= 4
        size -= empty
        left, n = dialects.footer(self._tail(size, _TAIL_BYTES), self.dialect, width)
        for lines, what in ((n, "line"), (n_empty, "empty line")):
            if lines:
                said = f"{lines:,} {what}{'s' * (lines > 1)} below the rows left out"
                self.dialect = replace(self.dialect, said=(*self.dialect.said, said))
        return size - left

    def _tail(self, size: int, n_bytes: int) -> bytes:
        """Return the last bytes of `size` ones from where the rows begin, and what ends a line."""
        n_bytes = min(n_bytes, size)
        with self._stream() as stream:
            stream.seek(self._start + size - n_bytes)
            tail = bytes(stream.read(n_bytes))
        return tail if n_bytes < size else b"\n" + tail

    def _codec(self) -> str:
        is_utf8 = self._is_converted or self.dialect.encoding == "utf-8-sig"
        return "utf-8" if is_utf8 else self.dialect.encoding

    def _size(self) -> int:
        return len(self._content) if self._content is not None else self.place.size

    def _stream(self) -> Any:
        return self.place.open() if self._content is None else pa.BufferReader(self._content)

    def learn(
        self, number: int, names: Sequence[str], detectors: Mapping[str, Detector]
    ) -> list[Part]:
        """Show every cell to the detectors; return the parts."""
        parts: list[Part] = []
        for at, lines in self._blocks():
            table = self._parsed(lines, names, at)
            for name, detector in detectors.items():
                detector.add(table.column(name))
            if table.num_rows:
                parts.append(Part(number, table.num_rows, at, len(lines)))
        return parts

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        with self._stream() as stream, sources.readable(self.place.shown):
            stream.seek(self._start)
            at, rest, left = self._start, b"", self._end - self._start
            while True:
                read = stream.read(min(formats.PART_BYTES, left))
                left -= len(read)
                rest += read
                end = _end_of_lines(rest, escape=self.dialect.escape) if read else len(rest)
                if end > 0:
                    yield at, rest[:end]
                    at, rest = at + end, rest[end:]
                if not read:
                    return

    def text(self, names: Sequence[str]) -> Any:
        """Return all rows as text."""
        with sources.readable(self.place.shown):
            if self._content is not None:
                lines: Any = self._content[self._start : self._end]
            else:
                with self.place.open(mapped=True) as stream:
                    stream.seek(self._start)
                    lines = stream.read_buffer(self._end - self._start)
            return self._parsed(lines, names, self._start, threads=True)

    def text_of(self, part: Part, names: Sequence[str]) -> Any:
        """Return the rows of a part as text."""
        with self._stream() as stream, sources.readable(self.place.shown):
            if hasattr(stream, "read_at"):
                lines = stream.read_at(part.size, part.at)
            else:
                stream.seek(part.at)
                lines = stream.read(part.size)
            return self._parsed(lines, names, part.at)

    def _parsed(self, lines: Any, names: Sequence[str], at: int, threads: bool = False) -> Any:
        """Parse lines of text."""
        if self._codec() not in ("utf-8", "ascii"):
            lines = bytes(lines).decode(self._codec(), errors="replace").encode()
        lines = self._without_headers(lines)
        if not len(lines) or (len(lines) < _SHOWN and not bytes(lines).strip()):
            return pa.table({name: pa.array([], pa.string()) for name in names})
        try:
            return self._read(lines, names, threads)
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error) and self._codec() == "utf-8":
                # An 8-bit letter beyond the part of the file that was looked at.
                encoding = encoding_of(bytes(lines), True)
                self.dialect = dialects.with_encoding(self.dialect, encoding)
                return self._parsed(lines, names, at, threads)
            self._raise_uneven(lines, names, at)
            raise

    def _without_headers(self, lines: Any) -> Any:
        """Return lines without those that are the header again, as joined files have them."""
        header = self._header
        if len(self.names) < 2 or not header or not _holds(lines, header, len(header)):
            return lines
        again = re.compile(rb"(?m)^(?:\xef\xbb\xbf)?" + re.escape(header) + rb"\r?$")
        without, n = again.subn(b"", bytes(lines))  # empty lines are left out, and count as lines
        if n:
            said = "lines that repeat the header left out"
            self.dialect = replace(
                self.dialect, said=tuple(dict.fromkeys((*self.dialect.said, said)))
            )
        return without

    def _read(self, lines: Any, names: Sequence[str], threads: bool, handler: Any = None) -> Any:
        source = pa.BufferReader(lines)
        has_quotes = threads and _holds(lines, b'"')
        return pyarrow.csv.read_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(
                block_size=_BLOCK if threads else len(lines) + 1,
                column_names=self.names,
                use_threads=threads,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.dialect.delimiter,
                escape_char=self.dialect.escape or False,
                newlines_in_values=has_quotes,
                ignore_empty_lines=len(self.names) > 1,
                invalid_row_handler=handler,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=list(names),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )

    def _raise_uneven(self, lines: Any, names: Sequence[str], at: int) -> None:
        """Raise DataError with the number of the first line that is too short or too long."""
        uneven: list[Any] = []

        def keep(row: Any) -> str:
            uneven.append(row)
            return "skip"

        self._read(lines, names, False, keep)
        if not uneven:
            return
        row = uneven[0]
        text = re.compile(rb"(?m)^" + re.escape(row.text.encode()) + rb"\r?$")
        found = text.search(bytes(lines))
        with self._stream() as stream:
            before = bytes(stream.read(at)).count(b"\n")
        before += bytes(lines)[: found.start()].count(b"\n") if found else row.number - 1
        more = f" ({len(uneven):,} such lines)" if len(uneven) > 1 else ""
        remedy = f"Correct it; a cell with {self.dialect.delimiter!r} needs quotes."
        if row.actual_columns < row.expected_columns:
            remedy = "Correct it: the line may be cut off, or lack what marks empty cells."
        raise DataError(
            f"{self.place.shown}: line {before + 1:,} has {row.actual_columns} cells and the "
            f"header {row.expected_columns}{more}: {row.text[:_SHOWN]!r}. {remedy}"
        )


def read_columns(table: Any, schema: Any, read: Mapping[str, Any]) -> Any:
    """Return a table of text with what its cells mean, in the types of `schema`.

    Columns that were read already, as plain numbers, are taken from `read`.

    Columns are read side by side, for Arrow does so without Python's lock.
    """

    def one(column: Any) -> Any:
        notation = notations.of_field(column)
        numbers = read.get(column.name)
        is_read = numbers is not None and notation is not None and notation.is_plain
        if is_read and cast(Any, numbers).type == column.type:
            return numbers
        cells = table.column(column.name)
        return cells if notation is None else notation.read(cells).cast(column.type)

    columns = in_threads(one, list(schema), min(4, pa.cpu_count()))
    return pa.Table.from_arrays(columns, schema=schema)


def _holds(lines: Any, text: bytes, overlap: int = 0) -> bool:
    """Whether lines hold a text, of which `overlap` letters can be cut off by a block's end."""
    view = memoryview(lines)
    blocks = range(0, len(view), _BLOCK)
    return any(text in bytes(view[i : i + _BLOCK + overlap]) for i in blocks)


def _end_of_lines(text: bytes, first: bool = False, escape: str = "") -> int:
    """Return where the last (or the first) line ends that is whole, -1 for nowhere.

    A line end between quotes belongs to a cell.
    """
    find = text.find if first else text.rfind
    if text.find(b'"') < 0:
        return find(b"\n") + 1 or -1
    cells = np.frombuffer(text, np.uint8)
    ends, quotes = np.flatnonzero(cells == _NEWLINE), np.flatnonzero(cells == _QUOTE)
    if escape:  # a mark before a quote makes it a letter, unless it is one itself
        marks = np.append([0, 0], cells) == ord(escape)
        quotes = quotes[~(marks[quotes + 1] & ~marks[quotes])]
    outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
    if len(outside):
        return int(outside[0 if first else -1]) + 1
    return -1
