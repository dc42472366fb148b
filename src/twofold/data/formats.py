"""Files that are read part by part: row groups of Parquet, lines of CSV, rows of arrays, images.

A part is what is read at a time if rows come in random order, so it is small compared with
memory.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import images, sources
from twofold.errors import DataError

Array = NDArray[Any]
_PART_BYTES = 4 * 2**20  # of CSV text and of arrays
_PAGE_BYTES = 2 * 2**20  # of a Parquet column that may be held decoded: a page and a dictionary
_BUFFER_BYTES = 2**16  # read at a time from each column of a row group
_QUOTE, _NEWLINE = ord('"'), ord("\n")
# As the whole-file reader widens a column's type from block to block; all else becomes text.
_WIDER = {
    ("int64", "double"): pa.float64(),
    ("date32[day]", "timestamp[s]"): pa.timestamp("s"),
    ("date32[day]", "timestamp[ns]"): pa.timestamp("ns"),
    ("timestamp[s]", "timestamp[ns]"): pa.timestamp("ns"),
}


@dataclass(frozen=True)
class Part:
    """Rows of a file that are read together.

    `at` says where they are: the number of a row group, or the place of the first byte or row.
    `size` is in bytes, as they are when they are read.
    """

    file: int
    n_rows: int
    at: int
    size: int


class Place:
    """A file on a filesystem, and what it looked like when it was first seen."""

    def __init__(self, filesystem: Any, info: Any, shown: str) -> None:
        self.filesystem, self.path, self.shown = filesystem, info.path, shown
        self.size, self.changed = int(info.size or 0), info.mtime_ns

    @property
    def suffix(self) -> str:
        """The file's ending, in small letters."""
        return "." + str(self.path).rpartition(".")[2].lower()

    def open(self) -> Any:
        """Open the file to be read; raises DataError where it is no more what it was."""
        with sources.readable(self.shown):
            info = self.filesystem.get_file_info(self.path)
            if not info.is_file:
                raise DataError(
                    f"{self.shown} is gone: it was there when its rows were counted. Put it back "
                    f"and start again."
                )
            if (int(info.size or 0), info.mtime_ns) != (self.size, self.changed):
                raise DataError(
                    f"{self.shown} has changed since its rows were counted. Wait until it is "
                    f"written, and start again."
                )
            return self.filesystem.open_input_file(self.path)


@dataclass(frozen=True)
class ImagesPlace:
    """A folder or a pattern of images, which are read as one array; `suffix` stands for all."""

    shown: str
    suffix: str = "images"
    size: int = 0  # unknown: that of the files says little of the pixels


class PartedFile(Protocol):
    """A file of rows that can be read part by part."""

    names: list[str]
    types: list[Any]

    def parts(self, number: int) -> list[Part]:
        """Return its parts, in order; `number` is the file's own among others."""

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give a part's rows in the types of `schema`, up to `n_rows` at a time."""


class ParquetFile:
    """A Parquet file; its parts are row groups, which may be larger than what is read at a time."""

    def __init__(self, place: Place) -> None:
        import pyarrow.parquet

        self.place = place
        with place.open() as stream, sources.readable(place.shown):
            if place.size == 0:
                raise DataError(f"{place.shown} is empty: it has no byte.")
            metadata = pyarrow.parquet.read_metadata(stream)
            schema = metadata.schema.to_arrow_schema()
        self.names, self.types = list(schema.names), list(schema.types)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self._groups = [(group.num_rows, group.total_byte_size) for group in groups]

    def parts(self, number: int) -> list[Part]:
        """Return the row groups that have rows."""
        groups = enumerate(self._groups)
        return [Part(number, n_rows, i, size) for i, (n_rows, size) in groups if n_rows]

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows of a row group as record batches."""
        import pyarrow.parquet

        with self.place.open() as stream, sources.readable(self.place.shown):
            # Page by page, so that a row group need not fit into memory.
            file = pyarrow.parquet.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            columns = file.iter_batches(
                n_rows, row_groups=[part.at], columns=list(schema.names), use_threads=False
            )
            for batch in columns:
                yield _in_types(batch, schema)

    @staticmethod
    def open_bytes(part: Part, n_columns: int) -> int:
        """Return how much memory a row group takes while it is read."""
        # Compressed, decoded, and as rows.
        return min(3 * part.size, n_columns * _PAGE_BYTES)


class CsvFile:
    """A CSV file with a header; its parts are some megabytes of lines."""

    def __init__(self, place: Place) -> None:
        self.place = place
        with place.open() as stream, sources.readable(place.shown):
            head = b""
            while (end := _end_of_lines(head, first=True)) < 0:
                block = stream.read(_PART_BYTES)
                if not block:
                    end = len(head)
                    break
                head += block
            self._start = end
            self.names = list(_parsed(head[:end].rstrip(b"\r\n") + b"\n", None, None).schema.names)
        sources.check_names(place.shown, self.names)
        self._blocks: list[Part] | None = None
        self.types: list[Any] = []

    def parts(self, number: int) -> list[Part]:
        """Return blocks of lines; the whole file is read for it, to learn the types of columns."""
        if self._blocks is None:
            self._blocks, self.types = self._learn()
        return [Part(number, part.n_rows, part.at, part.size) for part in self._blocks]

    def _learn(self) -> tuple[list[Part], list[Any]]:
        blocks, types = [], [pa.null()] * len(self.names)
        with self.place.open() as stream, sources.readable(self.place.shown):
            stream.seek(self._start)
            at, rest = self._start, b""
            while True:
                read = stream.read(_PART_BYTES)
                rest += read
                end = _end_of_lines(rest) if read else len(rest)
                if end > 0:
                    table = _parsed(rest[:end], self.names, None)
                    types = [_wider(a, b) for a, b in zip(types, table.schema.types, strict=True)]
                    if len(table):
                        blocks.append(Part(0, len(table), at, end))
                    at, rest = at + end, rest[end:]
                if not read:
                    return blocks, types

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows of a block of lines as record batches."""
        with self.place.open() as stream, sources.readable(self.place.shown):
            lines = stream.read_at(part.size, part.at)
            table = _parsed(lines, self.names, schema)
            for batch in table.to_batches(max_chunksize=n_rows):
                yield _in_types(batch, schema)


class ArrayFile:
    """An `.npy` file; its parts are some megabytes of rows."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.names: list[str] = []
        self.types: list[Any] = []
        with place.open() as stream, sources.readable(place.shown):
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            self.shape, self.by_columns, self.dtype = read(stream)
            self._start = stream.tell()
            if self.dtype.hasobject:
                raise DataError(f"{place.shown} holds Python objects, which are not read.")
            if place.size < self._start + math.prod(self.shape) * self.dtype.itemsize:
                raise DataError(f"{place.shown} is cut off: it holds fewer rows than it says.")

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return int(math.prod(self.shape[1:]) * self.dtype.itemsize)

    def parts(self, number: int) -> list[Part]:
        """Return blocks of rows."""
        return _blocks(number, self.shape[0], self.row_bytes)

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows of a block as arrays."""
        with self.place.open() as stream, sources.readable(self.place.shown):
            cells = stream.read_at(part.size, self._start + part.at * self.row_bytes)
        rows = np.frombuffer(cells, self.dtype).reshape(part.n_rows, *self.shape[1:])
        for start in range(0, part.n_rows, n_rows):
            yield rows[start : start + n_rows]


class ImageFiles:
    """Images of one size, a file each; their parts are some megabytes of pixels.

    What is wrong with files is added to `mistakes`, where there is such a list.
    """

    def __init__(self, place: ImagesPlace, mistakes: list[str] | None = None) -> None:
        self.names: list[str] = []
        self.types: list[Any] = []
        self.images = images.look(place.shown, mistakes=mistakes)
        self.dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that the images are."""
        return self.images.shape

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return math.prod(self.shape[1:])

    def parts(self, number: int) -> list[Part]:
        """Return blocks of rows."""
        return _blocks(number, self.shape[0], self.row_bytes)

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows of a block as arrays."""
        end = part.at + part.n_rows
        for start in range(part.at, end, n_rows):
            yield self.images.read(slice(start, min(start + n_rows, end)))

    def leave_out(self, part: Part) -> list[str]:
        """Leave out a part's images that cannot be read; return what is wrong with them."""
        mistakes: dict[Path, str] = {}
        for path in self.images.paths[part.at : part.at + part.n_rows]:
            try:
                self.images.pixels(path)
            except DataError as error:
                mistakes[path] = str(error)
        self.images = self.images.without(mistakes)
        return list(mistakes.values())


def _blocks(number: int, n_rows: int, row_bytes: int) -> list[Part]:
    """Return parts of some megabytes each."""
    step = max(1, _PART_BYTES // max(1, row_bytes))
    counts = [(start, min(step, n_rows - start)) for start in range(0, n_rows, step)]
    return [Part(number, n, start, n * row_bytes) for start, n in counts]


TYPES: dict[str, Callable[[Place], PartedFile]] = {
    ".parquet": ParquetFile,
    ".csv": CsvFile,
    ".npy": ArrayFile,
}


def _in_types(batch: Any, schema: Any) -> Any:
    """Return a record batch with the columns of `schema`, in its order and types."""
    batch = batch.select(list(schema.names))
    if batch.schema.equals(schema):
        return batch
    columns = [
        column if column.type == kind else column.cast(kind)
        for column, kind in zip(batch.columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _parsed(text: bytes, names: Sequence[str] | None, schema: Any) -> Any:
    """Parse lines of CSV; the first one is a header where no names are given."""
    import pyarrow.csv

    if names is not None and not text.strip():  # which the reader takes for an error
        return pa.table({name: pa.nulls(0) for name in names})
    kinds = None if schema is None else dict(zip(schema.names, schema.types, strict=True))
    return pyarrow.csv.read_csv(
        io.BytesIO(text),
        read_options=pyarrow.csv.ReadOptions(
            block_size=len(text) + 1, column_names=names, use_threads=schema is None
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            strings_can_be_null=True,
            column_types=kinds,
            include_columns=None if schema is None else list(schema.names),
        ),
    )


def _wider(a: Any, b: Any) -> Any:
    """Return the type for cells of both types in one column of a CSV file."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    return _WIDER.get((str(a), str(b))) or _WIDER.get((str(b), str(a))) or pa.string()


def _end_of_lines(text: bytes, first: bool = False) -> int:
    """Return where the last (or the first) line ends that is whole, -1 for nowhere.

    A line end between quotes belongs to a cell.
    """
    find = text.find if first else text.rfind
    if text.find(b'"') < 0:
        return find(b"\n") + 1 or -1
    cells = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(cells == _NEWLINE)
    outside = ends[np.searchsorted(np.flatnonzero(cells == _QUOTE), ends) % 2 == 0]
    if len(outside):
        return int(outside[0 if first else -1]) + 1
    return -1
