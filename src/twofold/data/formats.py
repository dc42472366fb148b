"""Files that are read part by part: row groups of Parquet, rows of arrays, images, whole tables.

A part is what is read at a time if rows come in random order, so it is small compared with
memory.
"""

from __future__ import annotations

import fnmatch
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs
from numpy.typing import NDArray

from twofold.data import images, sources
from twofold.errors import DataError

Array = NDArray[Any]
PART_BYTES = 4 * 2**20  # of arrays
_PAGE_BYTES = 2 * 2**20  # of a Parquet column that may be held decoded: a page and a dictionary
JSON_SUFFIXES = (".jsonl", ".ndjson")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc", ".arrows")
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


class Place:
    """A file on a filesystem, and what it looked like when it was first seen."""

    def __init__(self, filesystem: Any, info: Any, shown: str) -> None:
        self.filesystem, self.path, self.shown = filesystem, info.path, shown
        self.size, self.changed = int(info.size or 0), info.mtime_ns

    @property
    def suffix(self) -> str:
        """The file's ending, in small letters, without that of a compression."""
        return sources.suffix_of(self.path)

    @property
    def compression(self) -> str:
        """The ending that says how the file is compressed, or ""."""
        return sources.packing_of(self.path)

    def open(self, mapped: bool = False) -> Any:
        """Open the file to be read; raises DataError if it is no longer what it was.

        With `mapped`, a file on this machine is not copied into memory.
        """
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
            if mapped and isinstance(self.filesystem, pa.fs.LocalFileSystem):
                return pa.memory_map(self.path)
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
    """A file that is read at once, and is one part: JSON lines, or an Arrow file."""

    def __init__(self, place: Place) -> None:
        with place.open() as stream, sources.readable(place.shown):
            content = unpack(bytes(stream.read()), place.compression)
            if not content:
                raise DataError(f"{place.shown} is empty: it has no byte.")
            read = _json_lines if place.suffix in JSON_SUFFIXES else _arrow_file
            self._table = read(pa.BufferReader(content))
        self.names, self.types = list(self._table.schema.names), list(self._table.schema.types)

    def parts(self, number: int) -> list[Part]:
        """Return all rows as one part."""
        n_rows = self._table.num_rows
        return [Part(number, n_rows, 0, max(1, self._table.nbytes))] if n_rows else []

    def batches(self, part: Part, schema: Any, n_rows: int) -> Iterator[Any]:
        """Give the rows as record batches."""
        for batch in self._table.select(list(schema.names)).to_batches(max_chunksize=n_rows):
            yield _in_types(batch, schema)


def _json_lines(stream: Any) -> Any:
    from pyarrow import json

    options = json.ReadOptions(block_size=max(2**20, stream.size() + 1))
    return json.read_json(stream, options)


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


def unpack(content: bytes, suffix: str) -> bytes:
    """Return the content of a file, which the suffix says how to decompress."""
    if not suffix:
        return content
    if suffix == ".gz":
        return gzip.decompress(content)
    codec = {".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}[suffix]
    with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
        return bytes(stream.read())


def found(source: str, filesystem: Any, suffixes: Sequence[str]) -> tuple[list[Any], Any]:
    """Return what a path, folder or pattern of any filesystem stands for."""
    try:
        path = source
        if filesystem is None:
            filesystem, path = pa.fs.FileSystem.from_uri(source)
        info = filesystem.get_file_info(path)
        if info.is_file:
            return [info], filesystem
        if info.type == pa.fs.FileType.Directory:
            found = filesystem.get_file_info(pa.fs.FileSelector(path))
            infos = [i for i in found if sources.suffix_of(i.path) in suffixes]
        else:
            fixed = path.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
            selector = pa.fs.FileSelector(fixed, allow_not_found=True, recursive=True)
            infos = [i for i in filesystem.get_file_info(selector) if _matches(i.path, path)]
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{source} cannot be reached: {error}".rstrip(". \n") + ".") from error
    infos = [i for i in infos if i.is_file and not Path(i.path).name.startswith(".")]
    if not infos:
        raise DataError(f"{source} does not exist, or holds no {', '.join(suffixes)} file.")
    return sorted(infos, key=lambda i: i.path), filesystem


def _matches(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*"))
    steps, wanted = path.split("/"), pattern.split("/")
    return len(steps) == len(wanted) and all(
        fnmatch.fnmatchcase(a, b) for a, b in zip(steps, wanted, strict=True)
    )
