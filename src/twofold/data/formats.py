"""Files that are read part by part: row groups of Parquet, rows of arrays, images, whole tables.

A part is what is read at a time if rows come in random order, so it is small compared with
memory.
"""

from __future__ import annotations

import gzip
import io
import lzma
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import images, json_files, sources
from twofold.data.discovery import ImagesPlace, Place
from twofold.errors import DataError

Array = NDArray[Any]
PART_BYTES = 4 * 2**20  # of arrays
_PAGE_BYTES = 2 * 2**20  # of a Parquet column that may be held decoded: a page and a dictionary
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc", ".arrows")
_TAIL_BYTES = 2**16  # of a Parquet file, which most footers fit into
_BUFFER_BYTES = 2**16  # read at a time from each column of a row group


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

        self.place = place
        with place.open() as stream, sources.readable(place.shown):
            if place.size == 0:
                raise DataError(f"{place.shown} is empty: it has no byte.")
            self._footer = _footer_of(stream)
            metadata = self._metadata()
            schema = metadata.schema.to_arrow_schema()
        self.names, self.types = list(schema.names), list(schema.types)
        self._constants = place.constants
        for name, value in place.constants.items():
            if name not in self.names:
                self.names.append(name)
                self.types.append(value.type)
        self._held = list(schema.names)
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
            # On this machine page by page, so that a row group need not fit into memory; elsewhere
            # in one request, for each one takes as long as reading a megabyte.
            how = {"buffer_size": _BUFFER_BYTES} if self.place.is_local else {"pre_buffer": True}
            file = pyarrow.parquet.ParquetFile(stream, metadata=self._metadata(), **how)
            held = [name for name in schema.names if name in self._held] or self._held[:1]
            for batch in file.iter_batches(
                n_rows, row_groups=[part.at], columns=held, use_threads=False
            ):
                yield _in_types(batch, schema, self._constants)

    def _metadata(self) -> Any:
        """Return the footer that was read when the file was looked at."""
        import pyarrow.parquet

        return pyarrow.parquet.read_metadata(pa.BufferReader(self._footer))

    @staticmethod
    def open_bytes(part: Part, n_columns: int) -> int:
        """Return how much memory a row group takes while it is read."""
        # Compressed, decoded, and as rows.
        return min(3 * part.size, n_columns * _PAGE_BYTES)


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


class TableFile:
    """A file that is read at once, and is one part: JSON, or an Arrow file."""

    def __init__(self, place: Place) -> None:
        with place.open() as stream, sources.readable(place.shown):
            content = unpack(bytes(stream.read()), place.compression)
            if not content:
                raise DataError(f"{place.shown} is empty: it has no byte.")
            is_json = place.suffix in json_files.SUFFIXES
            self._table = (
                json_files.read(content, place.shown)
                if is_json
                else _arrow_file(pa.BufferReader(content))
            )
        self._constants = place.constants
        more = {k: v.type for k, v in place.constants.items() if k not in self._table.schema.names}
        self.names = [*self._table.schema.names, *more]
        self.types = [*self._table.schema.types, *more.values()]

    def parts(self, number: int) -> list[Part]:
        """Return all rows as one part."""
        n_rows = self._table.num_rows
        return [Part(number, n_rows, 0, max(1, self._table.nbytes))] if n_rows else []

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows as record batches."""
        for batch in self._table.to_batches(max_chunksize=n_rows):
            yield _in_types(batch, schema, self._constants)


def _arrow_file(stream: Any) -> Any:
    from pyarrow import feather

    try:
        return feather.read_table(stream, memory_map=False)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_stream(stream).read_all()


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
    step = max(1, PART_BYTES // max(1, row_bytes))
    counts = [(start, min(step, n_rows - start)) for start in range(0, n_rows, step)]
    return [Part(number, n, start, n * row_bytes) for start, n in counts]


def _in_types(batch: Any, schema: Any, constants: Mapping[str, Any] | None = None) -> Any:
    """Return a record batch with the columns of `schema`, in its order and types.

    What the batch does not have is the same in all its rows, or missing.
    """
    given, columns = constants or {}, []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        if at >= 0:
            column = batch.column(at)
        elif field.name in given:
            column = pa.repeat(given[field.name], len(batch))
        else:
            column = pa.nulls(len(batch), field.type)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def text_with(table: Any, names: Sequence[str], constants: Mapping[str, Any]) -> Any:
    """Return text with all of these columns: those it lacks are constant, or missing."""
    n = table.num_rows
    columns = [
        table.column(name)
        if name in table.column_names
        else pa.repeat(constants[name].cast(pa.string()), n)
        if name in constants
        else pa.nulls(n, pa.string())
        for name in names
    ]
    return pa.Table.from_arrays(columns, names=list(names))


def _footer_of(stream: Any) -> bytes:
    """Return a Parquet file of the same footer that holds no rows."""
    size = stream.size()
    tail = stream.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail) and length <= size:
        tail = stream.read_at(length, size - length)
    return b"PAR1" + bytes(tail[-length:])


def unpack(content: bytes, suffix: str) -> bytes:
    """Return the content of a file, which the suffix says how to decompress."""
    if not suffix:
        return content
    if suffix == ".gz":
        return gzip.decompress(content)
    if suffix == ".xz":
        return lzma.decompress(content)
    if suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [n for n in archive.namelist() if n[-1] != "/" and "__MACOSX" not in n]
            if len(names) != 1:
                raise ValueError(f"Expected one file in it, got {len(names):,}. Unpack it")
            if archive.getinfo(names[0]).flag_bits & 1:
                raise ValueError("Expected a file without a password. Unpack it")
            return archive.read(names[0])
    codec = {".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}[suffix]
    with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
        return bytes(stream.read())
