"""Rows in files that need not fit into memory: which files they are, and whether they fit together.

Before any row is used, every file is opened, and everything wrong with them is reported at once.
"""

from __future__ import annotations

import fnmatch
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs
import torch

from twofold.data import frames, memory, sources
from twofold.data.formats import (
    TYPES,
    ArrayFile,
    CsvFile,
    ImageFiles,
    ImagesPlace,
    ParquetFile,
    Part,
    PartedFile,
    Place,
)
from twofold.errors import DataError, OptionError, SkippedFilesWarning

Result = TypeVar("Result")

CHUNK_ROWS = 65_536  # rows at a time, where they are taken in order
_SHARE = 0.25  # of the memory that may be taken: a larger source is streamed
_CHUNK_BYTES = 32 * 2**20  # of numbers
_PER_CSV_BYTE = 3  # bytes in memory: the table, its numbers, and what the network sees
_SMALL_FILE = 2**20  # so small a file is read without further ado
_SHOWN = 20  # mistakes
_ARRAYS = (".npy", ImagesPlace.suffix)
_WORDS = (
    ("numbers", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t)),
    ("numbers", pa.types.is_decimal),
    ("text", lambda t: pa.types.is_dictionary(t) or "string" in str(t)),
    ("booleans", pa.types.is_boolean),
    ("times", lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t)),
)


@dataclass(frozen=True)
class Files:
    """Rows in files, and how they are to be read: what every method takes in place of a path.

    Parameters
    ----------
    source : path-like or str
        A CSV, Parquet or `.npy` file, a folder of CSV, Parquet, PNG or JPEG files, a pattern such
        as "data/*.parquet", or an address such as "s3://bucket/folder" (not of images).
    stream : bool or "auto", default="auto"
        Whether rows stay on disk and pass through memory part by part. "auto" does so where they
        would take more than a quarter of the memory that is available.
    on_bad_file : "error" or "skip", default="error"
        What to do where files cannot be read or do not fit to the others: refuse them all, with
        what is wrong with each, or leave them out with a warning.
    drop : tuple of str, default=()
        Columns to leave out.
    filesystem : pyarrow.fs.FileSystem, optional
        Where the source is; the local disk, or what its address says.

    Examples
    --------
    >>> from twofold import Files
    >>> Files("rows/", stream=True, on_bad_file="skip")
    Files(source='rows/', stream=True, on_bad_file='skip', drop=(), filesystem=None)
    """

    source: str | os.PathLike[str]
    stream: bool | str = "auto"
    on_bad_file: str = "error"
    drop: Sequence[str] = ()
    filesystem: Any = None

    def __post_init__(self) -> None:
        if not sources.is_path(self.source):
            raise OptionError(f"Files takes a path, and not {type(self.source).__name__}.")
        if not (isinstance(self.stream, bool) or self.stream == "auto"):
            raise OptionError(f"stream must be True, False or 'auto'; got {self.stream!r}.")
        if self.on_bad_file not in ("error", "skip"):
            raise OptionError(f"on_bad_file must be 'error' or 'skip'; got {self.on_bad_file!r}.")

    def open(self, columns: Sequence[str] | None = None, stream: bool | str | None = None) -> Any:
        """Return `OpenFiles` where rows are to be streamed, else all rows: a table or an array.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns a model was trained on.
        stream : bool or "auto", optional
            In place of the object's own.

        Raises
        ------
        DataError
            Where files cannot be read or do not fit together; all of them are named.
        """
        wanted = self.stream if stream is None else stream
        drop = () if columns is not None else tuple(self.drop)
        places, plain = self._places()
        if not places:  # of a type that is always read at once: .npz
            return sources.load(self.source, columns, drop)
        alone = plain and len(places) == 1
        if alone and wanted is not True and places[0].size <= _SMALL_FILE:
            return sources.load(self.source, columns, drop)
        source = OpenFiles(places, columns, drop, skip=self.on_bad_file == "skip")
        if wanted == "auto":
            wanted = source.bytes_in_memory() > _SHARE * memory.available()
        if wanted and source.can_stream:
            return source
        # The whole-file readers are faster, where there is nothing to leave out or to unite.
        at_once = plain and source.alike and not source.skipped
        return sources.load(self.source, columns, drop) if at_once else source.load()

    def _places(self) -> tuple[list[Place | ImagesPlace], bool]:
        """List the files, and whether they are rows on the local disk."""
        source = os.fspath(self.source)
        if self.filesystem is None and "://" not in source:
            if sources.is_array_of_images(source):
                return [ImagesPlace(source)], False
            paths = sources.resolve(source)
            if paths[0].suffix.lower() not in TYPES:
                return [], True
            local = pa.fs.LocalFileSystem()
            infos = local.get_file_info([str(path) for path in paths])
            pairs = zip(infos, paths, strict=True)
            return [Place(local, info, str(path)) for info, path in pairs], True
        infos, filesystem = _found(source, self.filesystem)
        suffixes = {Path(info.path).suffix.lower() for info in infos}
        if len(suffixes) != 1 or not suffixes <= set(TYPES):
            types = ", ".join(sorted(suffix or "none" for suffix in suffixes)) or "none at all"
            raise DataError(
                f"{source} holds files of type {types}. Sources are files of one type out of "
                f"{', '.join(TYPES)}."
            )
        return [Place(filesystem, info, info.path) for info in infos], False


def _found(source: str, filesystem: Any) -> tuple[list[Any], Any]:
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
            infos = [i for i in found if Path(i.path).suffix.lower() in TYPES]
        else:
            fixed = path.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
            selector = pa.fs.FileSelector(fixed, allow_not_found=True, recursive=True)
            infos = [i for i in filesystem.get_file_info(selector) if _matches(i.path, path)]
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{source} cannot be reached: {error}".rstrip(". \n") + ".") from error
    infos = [i for i in infos if i.is_file and not Path(i.path).name.startswith(".")]
    if not infos:
        raise DataError(f"{source} does not exist, or holds no {', '.join(TYPES)} file.")
    return sorted(infos, key=lambda i: i.path), filesystem


def _matches(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*"))
    steps, wanted = path.split("/"), pattern.split("/")
    return len(steps) == len(wanted) and all(
        fnmatch.fnmatchcase(a, b) for a, b in zip(steps, wanted, strict=True)
    )


class OpenFiles:
    """Files that were looked at and fit together: their rows, in order or part by part.

    Attributes
    ----------
    schema : pyarrow.Schema or None
        Names and types of the columns; None for arrays.
    row_shape : tuple of int
        Shape of an array's row.
    skipped : list of str
        What is wrong with the files that were left out.
    alike : bool
        Whether columns have the same types in all files, as far as that was looked at.
    """

    def __init__(
        self,
        places: Sequence[Place | ImagesPlace],
        columns: Sequence[str] | None,
        drop: Sequence[str],
        skip: bool,
    ) -> None:
        self._columns, self._drop, self._skip = columns, drop, skip
        self._suffix = places[0].suffix
        self._is_array = self._suffix in _ARRAYS
        self._files: list[PartedFile] = []
        self._places: list[Place | ImagesPlace] = []
        self._learned = self._suffix != ".csv"
        self.skipped: list[str] = []
        self.alike = True
        mistakes: list[str] = []
        for place in places:
            try:
                if isinstance(place, ImagesPlace):
                    file: PartedFile = ImageFiles(place, mistakes if skip else None)
                else:
                    file = TYPES[self._suffix](place)
                sources.check_names(place.shown, file.names)
            except DataError as error:
                mistakes.append(str(error))
            else:
                self._files.append(file)
                self._places.append(place)
        self._names: list[str] = []
        if self._files and not self._is_array:
            mistakes += self._fit_names()
        elif drop and self._files:
            what = "an array" if self._suffix == ".npy" else "images"
            raise DataError(f"{places[0].shown} holds {what}, and no names of columns to drop.")
        self.schema: Any = None
        if self._learned and not self._is_array:
            mistakes += self._fit_types()
        self._settle(mistakes)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def can_stream(self) -> bool:
        """Whether rows can be read without those before them."""
        file = self._files[0]
        return not (isinstance(file, ArrayFile) and (file.by_columns or len(file.shape) < 2))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        file = self._files[0]
        if isinstance(file, ArrayFile | ImageFiles):
            return tuple(file.shape[1:])
        return (len(self._names),)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order of the rows. Of CSV files, every line is read for it."""
        if not self._learned:
            self._learn()
        numbered = enumerate(self._files)
        return tuple(part for number, file in numbered for part in file.parts(number))

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """Number of the first row of each part."""
        ends = np.cumsum([0, *(part.n_rows for part in self.parts)])
        return tuple(ends[:-1].tolist())

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(part.n_rows for part in self.parts)

    def chunk_rows(self) -> int:
        """Return how many rows at a time keep memory small."""
        width = max(1, int(np.prod(self.row_shape)))
        return int(min(CHUNK_ROWS, max(256, _CHUNK_BYTES // (8 * width))))

    def bytes_in_memory(self) -> int:
        """Return about how much memory all rows would take, with what the network sees of them."""
        if self._suffix == ".csv":
            return _PER_CSV_BYTE * sum(place.size for place in self._places)
        size = sum(part.size for part in self.parts)
        if self._suffix == ".npy":
            return size
        width = len(self._names) or int(np.prod(self.row_shape))
        return size + 2 * 4 * self.n_rows * width

    def open_bytes(self) -> int:
        """Return about how much memory a part takes while it is read."""
        largest = max(self.parts, key=lambda part: part.size)
        if self._suffix == ".parquet":
            return ParquetFile.open_bytes(largest, len(self._names))
        return 3 * largest.size

    def name_of(self, part: Part) -> str:
        """Return the name of the part's file."""
        return self._places[part.file].shown

    def batches(self, part: Part, n_rows: int, names: Sequence[str] | None = None) -> Iterator[Any]:
        """Give a part's rows: record batches (of some columns, by name), or arrays.

        Raises
        ------
        DataError
            Where its file has changed since it was looked at, or cannot be read.
        """
        schema = self.schema
        if names is not None and schema is not None:
            schema = pa.schema([schema.field(name) for name in names])
        return self._files[part.file].batches(part, schema, n_rows)

    def chunks(self) -> Iterator[tuple[int, Any]]:
        """Give all rows in order: the number of the first one, and an Arrow table or an array."""
        at, n = 0, 0
        held: list[Any] = []
        most = self.chunk_rows()
        for part in self.parts:
            for batch in self.batches(part, most):
                if n and n + len(batch) > most:
                    yield at, self._together(held)
                    at, n, held = at + n, 0, []
                held.append(batch)
                n += len(batch)
        if n:
            yield at, self._together(held)

    def load(self) -> Any:
        """Return all rows: an Arrow table, or an array."""
        file, place = self._files[0], self._places[0]
        if isinstance(file, ImageFiles):
            return self._pixels(file)
        if isinstance(file, ArrayFile) and isinstance(place, Place):
            with place.open() as stream, sources.readable(place.shown):
                cells = np.frombuffer(stream.read(), np.uint8)[-file.shape[0] * file.row_bytes :]
            rows = cells.view(file.dtype)
            shape = file.shape
            return rows.reshape(shape[::-1]).T if file.by_columns else rows.reshape(shape)
        found = (batch for part in self.parts for batch in self.batches(part, CHUNK_ROWS))
        return pa.Table.from_batches(found, schema=self.schema)

    def _pixels(self, file: ImageFiles) -> Any:
        while True:
            try:
                return file.images.read()
            except DataError as error:
                self.without(Part(0, self.n_rows, 0, 0), str(error))

    def without(self, part: Part, mistake: str) -> None:
        """Leave out the file of a part that cannot be read after all, or raise what is wrong."""
        file = self._files[part.file]
        if isinstance(file, ImageFiles):
            self._settle(file.leave_out(part) or [mistake])
        else:
            self._drop_files({part.file: mistake})
            self._settle([mistake])
        for name in ("parts", "first_rows"):
            self.__dict__.pop(name, None)

    def _together(self, held: list[Any]) -> Any:
        if self.schema is None:
            return held[0] if len(held) == 1 else np.concatenate(held)
        return pa.Table.from_batches(held, schema=self.schema)

    def _learn(self) -> None:
        """Learn the types of the columns of CSV files, which only their cells tell."""
        self._learned = True
        mistakes: dict[int, str] = {}
        for number, file in enumerate(self._files):
            assert isinstance(file, CsvFile)
            try:
                file.parts(number)
            except DataError as error:
                mistakes[number] = str(error)
        self._drop_files(mistakes)
        self._settle([*mistakes.values(), *self._fit_types()])

    def _drop_files(self, mistakes: dict[int, str]) -> None:
        kept = [i for i in range(len(self._files)) if i not in mistakes]
        self._files = [self._files[i] for i in kept]
        self._places = [self._places[i] for i in kept]

    def _fit_names(self) -> list[str]:
        """Choose the columns; leave out the files that lack some, and return what is wrong."""
        common = Counter(frozenset(file.names) for file in self._files).most_common(1)[0][0]
        usual = next(i for i, file in enumerate(self._files) if set(file.names) == common)
        first = self._files[usual]
        if self._columns is not None:  # others may have columns that nobody asked for
            first = next((f for f in self._files if set(self._columns) <= set(f.names)), first)
        shown = self._places[self._files.index(first)].shown
        self._names = sources.choose(shown, first.names, self._columns, self._drop)
        mistakes: dict[int, str] = {}
        for number, file in enumerate(self._files):
            lacking = [name for name in self._names if name not in file.names]
            more = [name for name in file.names if name not in (*self._names, *self._drop)]
            if lacking:
                mistakes[number] = f"it has no column {sources.listed(lacking)}"
            if more and self._columns is None:
                also = f"{mistakes[number]}, and" if lacking else "it"
                mistakes[number] = f"{also} has {sources.listed(more)}, which others have not"
        texts = {i: f"{self._places[i].shown}: {what}." for i, what in mistakes.items()}
        self._drop_files(texts)
        return list(texts.values())

    def _fit_types(self) -> list[str]:
        """Settle the types; leave out the files that do not fit, and return what is wrong."""
        places = [{name: i for i, name in enumerate(file.names)} for file in self._files]
        fields, mistakes = [], dict[int, list[str]]()
        for name in self._names:
            kinds = [f.types[at[name]] for f, at in zip(self._files, places, strict=True)]
            united = _united(set(kinds))
            self.alike = self.alike and len(set(kinds)) == 1
            if united is None:
                words = [_word(kind) for kind in kinds]
                usual = Counter(w for w in words if w).most_common(1)[0][0]
                for number, (word, kind) in enumerate(zip(words, kinds, strict=True)):
                    if word not in ("", usual):
                        what = f"column '{name}' holds {word} ({kind}), and {usual} in other files"
                        mistakes.setdefault(number, []).append(what)
                fitting = {k for k, w in zip(kinds, words, strict=True) if w in ("", usual)}
                united = _united(fitting)
            if united is None:
                listed = ", ".join(sorted({str(kind) for kind in kinds}))
                raise DataError(
                    f"Column '{name}' has types in these files that do not go together: {listed}. "
                    f"Drop it, or write it in one type."
                )
            fields.append(pa.field(name, united))
        texts = {i: f"{self._places[i].shown}: {'; '.join(m)}." for i, m in mistakes.items()}
        self._drop_files(texts)
        self.schema = pa.schema(fields)
        return list(texts.values())

    def _settle(self, mistakes: list[str]) -> None:
        """Raise or warn of what is wrong with files."""
        if not mistakes:
            return
        shown = "\n".join(f"- {text}" for text in mistakes[:_SHOWN])
        shown += f"\nand {len(mistakes) - _SHOWN:,} more." * (len(mistakes) > _SHOWN)
        n = sum(len(f.images.paths) if isinstance(f, ImageFiles) else 1 for f in self._files)
        if n + len(mistakes) == 1:
            raise DataError(mistakes[0])
        count = f"{len(mistakes):,} of {n + len(mistakes):,} files"
        if not self._skip:
            raise DataError(
                f"{count} cannot be used:\n{shown}\nCorrect or remove them, or leave them out with "
                f"on_bad_file='skip' (--on-bad-file skip)."
            )
        if not n:
            raise DataError(f"None of {count[count.index(' of ') + 4 :]} can be used:\n{shown}")
        self.skipped += mistakes
        warnings.warn(f"{count} were left out:\n{shown}", SkippedFilesWarning, stacklevel=2)


def _united(kinds: set[Any]) -> Any:
    """Return the type that holds cells of all these types, None where there is none."""
    if len(kinds) == 1:
        return next(iter(kinds))
    ordered = sorted(kinds, key=str)
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in ordered]
    for types in (ordered, plain):
        try:
            schemas = [pa.schema([("cell", kind)]) for kind in types]
            return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            continue
    return None


def _word(kind: Any) -> str:
    """Say what cells of an Arrow type are; nothing where there are none."""
    if pa.types.is_null(kind):
        return ""
    return next((word for word, holds in _WORDS if holds(kind)), f"cells of type {kind}")


def opened(X: Any, names: Sequence[str] | None = None, stream: bool | None = None) -> Any:
    """Return rows in memory, or the open files where X names some that do not fit into it.

    `names` are the columns to read, by default all. With `stream` false, all rows are in memory.
    """
    if isinstance(X, OpenFiles) and stream is False:
        return X.load()
    if not (sources.is_path(X) or isinstance(X, Files)):
        return X
    return (X if isinstance(X, Files) else Files(X)).open(names, stream)


def in_parts(rows: Any, verb: Callable[[Any], Result]) -> Iterator[tuple[Any, Result]]:
    """Give rows and what the verb makes of them: all at once, or part by part of open files."""
    if not isinstance(rows, OpenFiles):
        yield rows, verb(rows)
        return
    none = True
    for first, part in rows.chunks():
        none = False
        try:
            result = verb(part)
        except DataError as error:
            if first:
                raise DataError(f"Counted from row {first:,}: {error}") from error
            raise
        yield part, result
    if none:
        raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")


def together(parts: Sequence[Any]) -> Any:
    """Return tables, arrays or frames of one sort as one."""
    container = sources.container_of(parts[0])
    if len(parts) == 1:
        return parts[0]
    if container == "arrow":
        return pa.concat_tables(parts, promote_options="permissive")
    if container == "numpy":
        return np.concatenate(parts)
    if container == "torch":
        return torch.cat(list(parts))
    module = frames.extra(container)
    return module.concat(parts, **({"ignore_index": True} if container == "pandas" else {}))
