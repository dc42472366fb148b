"""Rows in files that need not fit into memory: which files they are, and whether they fit together.

Before any row is used, every file is opened, and everything wrong with them is reported at once.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa

from twofold.data import (
    addresses,
    arrow,
    discovery,
    json_files,
    memory,
    sources,
    spreadsheets,
    streams,
)
from twofold.data.delimited import (
    TEXT_SUFFIXES,
    CsvFile,
    Reading,
    read_columns,
)
from twofold.data.detection import Detector
from twofold.data.dialect import Layout
from twofold.data.discovery import ImagesPlace, Place
from twofold.data.formats import (
    ARROW_SUFFIXES,
    ArrayFile,
    ImageFiles,
    ParquetFile,
    Part,
    PartedFile,
    TableFile,
    text_with,
)
from twofold.data.notation import DELIMITER_KEY, UNDERSTOOD_KEY, Notation, as_id, field_of
from twofold.data.table import Format
from twofold.data.threads import in_threads
from twofold.errors import DataError, DetectedWarning, OptionError, SkippedFilesWarning

CHUNK_ROWS = 65_536  # rows at a time, where they are taken in order
_SHARE = 0.25  # of the memory that may be taken: a larger source is streamed
_CHUNK_BYTES = 32 * 2**20  # of numbers
_PER_CSV_BYTE = 4  # bytes in memory: the table, its numbers, and what the network sees
_SHOWN = 20  # mistakes
_ARRAYS = (".npy", ImagesPlace.suffix)
_TEXTS = (*TEXT_SUFFIXES, *spreadsheets.SUFFIXES)
TYPES: dict[str, Callable[[Place], PartedFile]] = {
    ".parquet": ParquetFile,
    ".npy": ArrayFile,
    **dict.fromkeys((*json_files.SUFFIXES, *ARROW_SUFFIXES), TableFile),
}
_READ = (*TEXT_SUFFIXES, *spreadsheets.SUFFIXES, *TYPES)


@dataclass(frozen=True, repr=False)
class Files:
    """Rows in files, and how they are to be read: what every method takes in place of a path.

    Parameters
    ----------
    source : path-like or str
        A file of delimited text (CSV, TSV), Parquet, Arrow, JSON lines, `.npy` or a spreadsheet, a
        folder of such files or of PNG or JPEG images, a pattern such as "data/*.parquet", or an
        address such as "s3://bucket/folder" (not of images).
    stream : bool or "auto", default="auto"
        Whether rows stay on disk and pass through memory part by part. "auto" does so where they
        would take more than a quarter of the memory that is available.
    on_bad_file : "error" or "skip", default="error"
        What to do where files cannot be read or do not fit to the others: refuse them all, with
        what is wrong with each, or leave them out with a warning.
    drop : tuple of str, default=()
        Columns to leave out.
    filesystem : pyarrow.fs.FileSystem or fsspec filesystem, optional
        Where the source is; the local disk, or what its address says.
    delimiter, encoding : str, optional
        What separates the cells of text files, and how their letters are stored; by default what
        the files show.
    decimal : "." or ",", optional
        What stands before decimals, by default what the cells show.
    missing : tuple of str, optional
        Words for missing values besides empty cells, by default those in use ("NA", "?", "-", ...)
        where they are none of a column's levels.
    header : bool, optional
        Whether the first line of text files names the columns; by default what the lines show.
    date_format : str, optional
        How dates are written, such as "%d/%m/%Y", in place of what the cells show.
    id : str, optional
        Column that names the rows: it is kept next to results, and is not part of the model.

    Examples
    --------
    >>> from twofold import Files
    >>> Files("rows/", stream=True, on_bad_file="skip")
    Files('rows/', stream=True, on_bad_file='skip')
    """

    source: str | os.PathLike[str]
    stream: bool | str = "auto"
    on_bad_file: str = "error"
    drop: Sequence[str] = ()
    filesystem: Any = None
    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    missing: Sequence[str] | None = None
    header: bool | None = None
    date_format: str | None = None
    id: str | None = None

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self)[1:])
        given = [f", {name}={value!r}" for name, value, default in values if value != default]
        return f"Files({self.source!r}{''.join(given)})"

    def __post_init__(self) -> None:
        if not sources.is_path(self.source):
            raise OptionError(f"Files takes a path, and not {type(self.source).__name__}.")
        if not (isinstance(self.stream, bool) or self.stream == "auto"):
            raise OptionError(f"stream must be True, False or 'auto'; got {self.stream!r}.")
        if self.on_bad_file not in ("error", "skip"):
            raise OptionError(f"on_bad_file must be 'error' or 'skip'; got {self.on_bad_file!r}.")
        if self.decimal not in (None, ".", ","):
            raise OptionError(f"decimal must be '.' or ','; got {self.decimal!r}.")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise OptionError(f"delimiter must be one letter; got {self.delimiter!r}.")

    def open(
        self,
        columns: Sequence[str] | None = None,
        stream: bool | str | None = None,
        formats: Mapping[str, Format] | None = None,
        wanted: Mapping[str, str] | None = None,
        as_written: bool = False,
    ) -> Any:
        """Return `OpenFiles` if rows are to be streamed, else all rows: a table or an array.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns a model was trained on.
        stream : bool or "auto", optional
            In place of the object's own.
        formats : mapping of str to Format, optional
            How columns looked in training: cells of text files are read as they were then.
        wanted : mapping of str to str, optional
            Columns of text files that have to be "number" or "time", whatever some cells hold.
        as_written : bool
            Whether cells of text files stay text, as `notation.read_table` reads it.

        Raises
        ------
        DataError
            If files cannot be read or do not fit together; all of them are named.
        """
        chosen = self.stream if stream is None else stream
        drop = () if columns is not None else tuple(self.drop)
        places = discovery.places(self.source, self.filesystem, _READ)
        alone = self.filesystem is None and len(places) == 1 and places[0].suffix == ".npy"
        if not places or (alone and chosen is not True and not drop):
            # An .npz file is read at once, and an .npy file stays on disk until rows are used.
            if drop:
                raise DataError(f"{self.source} holds an array, and no names of columns to drop.")
            fits = not places or places[0].size <= most_bytes()
            if fits or chosen is False:
                return sources.load_array(sources.resolve(addresses.local(self.source))[0])
        reading = Reading(
            Layout(self.delimiter, self.encoding, self.header, tuple(formats or ())),
            self.decimal,
            self.date_format,
            None if self.missing is None else tuple(self.missing),
            wanted or {},
            formats or {},
        )
        skip = self.on_bad_file == "skip"
        source = OpenFiles(places, columns, drop, skip, reading, as_written, self.id)
        if chosen == "auto":
            chosen = source.bytes_in_memory() > most_bytes()
        return source if chosen and source.can_stream else source.load()


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
        reading: Reading | None = None,
        as_written: bool = False,
        row_id: str | None = None,
    ) -> None:
        self._columns, self._drop, self._skip = columns, drop, skip
        self._reading, self._id = reading or Reading(), row_id
        self.as_written = as_written
        self._suffix = places[0].suffix
        self._is_array = self._suffix in _ARRAYS
        self._files: list[PartedFile | CsvFile] = []
        self._is_text = self._suffix in _TEXTS
        self._text_parts: list[list[Part]] = []
        self.notations: list[Notation] = []
        self._places: list[Place | ImagesPlace] = []
        self._learned = not self._is_text
        self.skipped: list[str] = []
        self.scratch: Any = None  # a folder that goes when these do
        mistakes: list[str] = []
        for place in places:
            try:
                if isinstance(place, ImagesPlace):
                    file: PartedFile | CsvFile = ImageFiles(place, mistakes if skip else None)
                elif self._suffix in TEXT_SUFFIXES:
                    file = CsvFile(place, self._reading)
                elif self._suffix in spreadsheets.SUFFIXES:
                    file = CsvFile(place, self._reading.of_sheet, *spreadsheets.as_text(place))
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
        if self.schema is not None and any(map(streams.is_list, self.schema.types)):
            return False
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
        if self._is_text:
            return tuple(part for parts in self._text_parts for part in parts)
        return tuple(p for n, f in enumerate(self._files) for p in cast(PartedFile, f).parts(n))

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
        if self._is_text:
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

    def identity(self) -> str:
        """Return what tells these files from others: names, sizes and content."""
        return repr([getattr(place, "identity", place.shown) for place in self._places])

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
        file = self._files[part.file]
        if not isinstance(file, CsvFile):
            yield from file.batches(part, schema, n_rows)
            return
        text = self._text(part.file, partial(file.text_of, part), schema.names)
        yield from self._meant(text, schema).to_batches(max_chunksize=n_rows)

    def _meant(self, text: Any, schema: Any, read: Mapping[str, Any] | None = None) -> Any:
        """Return text as the schema has it: as it is written, or what it means.

        Columns that were read already are taken from `read`.
        """
        if self.as_written:
            return pa.Table.from_arrays(text.columns, schema=schema)
        return read_columns(text, schema, read or {})

    def chunks(
        self, first: int = 0, n_rows: int | None = None, most: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Give rows in order: the number of the first one, and an Arrow table or an array.

        All of them, or so many from one on; not more than `most`, or `chunk_rows()`, at a time.
        """
        at, n = first, 0
        held: list[Any] = []
        most = self.chunk_rows() if most is None else most
        for rows in self._rows(first, self.n_rows - first if n_rows is None else n_rows, most):
            if n and n + len(rows) > most:
                yield at, self._together(held)
                at, n, held = at + n, 0, []
            held.append(rows)
            n += len(rows)
        if n:
            yield at, self._together(held)

    def _rows(self, first: int, n_rows: int, most: int) -> Iterator[Any]:
        """Give so many rows from one on, as `batches` does."""
        last = first + n_rows
        for at, part in zip(self.first_rows, self.parts, strict=True):
            if at + part.n_rows <= first or at >= last:
                continue
            for batch in self.batches(part, most):
                rows = batch[max(0, first - at) : last - at]
                at += len(batch)
                n_rows -= len(rows)
                if len(rows):
                    yield rows
                if at >= last:
                    break
        if n_rows:
            raise DataError(
                f"The files have {n_rows:,} fewer rows than when they were counted. Start again "
                f"once nobody writes to them."
            )

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
        if self._is_text:
            return self._load_text()
        found = (batch for part in self.parts for batch in self.batches(part, CHUNK_ROWS))
        return pa.Table.from_batches(found, schema=self.schema)

    @property
    def _commas_are_free(self) -> bool:
        return all(cast(CsvFile, file).dialect.delimiter != "," for file in self._files)

    def _load_text(self) -> Any:
        """Read all text, settle what it means, and return it."""
        detectors = self._reading.detectors(self._names, self._commas_are_free)
        tables, mistakes = [], dict[int, str]()
        for number, file in enumerate(cast(list[CsvFile], self._files)):
            try:
                tables.append(self._text(number, file.text, self._names))
            except DataError as error:
                mistakes[number] = str(error)
        self._drop_files(mistakes)
        self._settle(list(mistakes.values()))
        text = pa.concat_tables(tables)
        del tables
        read: dict[str, Any] = {}
        if self.schema is None:
            pairs = list(detectors.items())
            found = in_threads(lambda d: d[1].add(text.column(d[0])), pairs, min(4, pa.cpu_count()))
            read = dict(zip(detectors, found, strict=True))
            self._fit_text(detectors)
        return self._meant(text, self.schema, read)

    def _fit_text(self, detectors: Mapping[str, Detector]) -> None:
        """Settle what the cells of all text files mean."""
        self.notations = self._reading.settle(self._names, detectors, self._places[0].shown)
        found = zip(self._names, self.notations, strict=True)
        self.schema = pa.schema([field_of(n, w, self.as_written) for n, w in found])
        said = dict.fromkeys(
            text for file in self._files for text in cast(CsvFile, file).dialect.said
        )
        about = {
            UNDERSTOOD_KEY: "; ".join(said),
            DELIMITER_KEY: cast(CsvFile, self._files[0]).dialect.delimiter,
        }
        self.schema = self._with_id(self.schema).with_metadata(about)
        if any(text.startswith("no header") for text in said) and self._columns is None:
            warnings.warn(
                f"{self._places[0].shown} seems to have no header, so its columns are called "
                f"column1, column2, ... If its first line does name them, set header=True "
                f"(--header); header=False (--no-header) says that it does not.",
                DetectedWarning,
                stacklevel=2,
            )

    def _with_id(self, schema: Any) -> Any:
        """Return the schema with the column marked that names the rows."""
        if self._id is None:
            return schema
        if self._id not in schema.names:
            raise DataError(
                f"{self._places[0].shown} has no column {self._id!r} to name the rows by. It has "
                f"{sources.listed(schema.names)}."
            )
        at = schema.get_field_index(self._id)
        return schema.set(at, as_id(schema.field(at)))

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
        """Learn the types of the columns of text files, which only their cells show."""
        self._learned = True
        detectors = self._reading.detectors(self._names, self._commas_are_free)
        self._text_parts, mistakes = [], dict[int, str]()
        for number, file in enumerate(cast(list[CsvFile], self._files)):
            place = number - len(mistakes)
            try:
                held = {name: d for name, d in detectors.items() if name in file.names}
                self._text_parts.append(file.learn(place, [*held] or file.names[:1], held))
            except DataError as error:
                mistakes[number] = str(error)
        self._drop_files(mistakes)
        self._settle(list(mistakes.values()))
        for each in cast(list[Place], self._places):
            for name, value in each.constants.items():
                if name in detectors:
                    detectors[name].add(pa.chunked_array([[value.as_py()]]).cast(pa.string()))
        self._fit_text(detectors)

    def _drop_files(self, mistakes: dict[int, str]) -> None:
        kept = [i for i in range(len(self._files)) if i not in mistakes]
        self._files = [self._files[i] for i in kept]
        self._places = [self._places[i] for i in kept]

    def _fit_names(self) -> list[str]:
        """Choose the columns; leave out the files that lack some, and return what is wrong."""
        every = [self._names_in(number) for number in range(len(self._files))]
        common = Counter(frozenset(names) for names in every).most_common(1)[0][0]
        usual = next(i for i, names in enumerate(every) if set(names) == common)
        if self._columns is not None:  # others may have columns that nobody asked for
            self._columns = streams.columns_with(self._columns, set().union(*every))
            wanted = set(self._columns)
            usual = next((i for i, names in enumerate(every) if wanted <= set(names)), usual)
        else:  # a table may have grown columns: what was written before has no cells in them
            larger = [i for i, names in enumerate(every) if common <= set(names)]
            usual = max(larger, key=lambda i: (len(every[i]), -i))
        shown = self._places[usual].shown
        self._names = sources.choose(shown, every[usual], self._columns, self._drop)
        mistakes: dict[int, str] = {}
        fewer: list[int] = []
        lost: dict[str, None] = {}
        for number, names in enumerate(every):
            lacking = [name for name in self._names if name not in names]
            more = [name for name in names if name not in (*self._names, *self._drop)]
            if more and self._columns is None:
                also = f"it has no column {sources.listed(lacking)}, and" if lacking else "it"
                mistakes[number] = f"{also} has {sources.listed(more)}, which others have not"
            elif lacking:
                fewer.append(number)
                lost |= dict.fromkeys(lacking)
        if fewer:
            warnings.warn(
                f"{len(fewer):,} of {len(every):,} files have no column "
                f"{sources.listed(list(lost))} (the first is {self._places[fewer[0]].shown}): its "
                f"cells count as missing there.",
                DetectedWarning,
                stacklevel=2,
            )
        texts = {i: f"{self._places[i].shown}: {what}." for i, what in mistakes.items()}
        self._drop_files(texts)
        return list(texts.values())

    def _names_in(self, number: int) -> list[str]:
        """Return the columns of a file, with those that the names of its folders stand for."""
        file, place = self._files[number], self._places[number]
        return list(dict.fromkeys([*file.names, *getattr(place, "constants", ())]))

    def _text(self, number: int, read: Callable[[list[str]], Any], names: Sequence[str]) -> Any:
        """Return rows of a text file with all columns, whether or not the file has them."""
        held = [name for name in names if name in self._files[number].names]
        if len(held) == len(names):
            return read(held)
        table = read(held or self._files[number].names[:1])
        return text_with(table, names, cast(Place, self._places[number]).constants)

    def _fit_types(self) -> list[str]:
        """Settle the types; leave out the files that do not fit, and return what is wrong."""
        places = [{name: i for i, name in enumerate(file.names)} for file in self._files]
        fields, mistakes = [], dict[int, list[str]]()
        for name in self._names:
            files = cast(list[PartedFile], self._files)
            kinds = [
                f.types[at[name]] if name in at else pa.null()
                for f, at in zip(files, places, strict=True)
            ]
            united = arrow.united(set(kinds))
            if united is None:
                words = [arrow.word(kind) for kind in kinds]
                usual = Counter(w for w in words if w).most_common(1)[0][0]
                for number, (word, kind) in enumerate(zip(words, kinds, strict=True)):
                    if word not in ("", usual):
                        what = f"column '{name}' holds {word} ({kind}), and {usual} in other files"
                        mistakes.setdefault(number, []).append(what)
                fitting = {k for k, w in zip(kinds, words, strict=True) if w in ("", usual)}
                united = arrow.united(fitting)
            if united is None:
                listed = ", ".join(sorted({str(kind) for kind in kinds}))
                raise DataError(
                    f"Column '{name}' has types in these files that do not go together: {listed}. "
                    f"Drop it, or write it in one type."
                )
            fields.append(pa.field(name, united))
        texts = {i: f"{self._places[i].shown}: {'; '.join(m)}." for i, m in mistakes.items()}
        self._drop_files(texts)
        self.schema = self._with_id(pa.schema(fields))
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


def load(source: Any, columns: Sequence[str] | None = None, drop: Sequence[str] = ()) -> Any:
    """Read a path into an Arrow table or an array; hand any other source back as it is.

    Parameters
    ----------
    source : path-like, str or any
        As in `Files`. An `.npy` array stays on disk until its rows are used.
    columns : sequence of str, optional
        The columns a model was trained on: they are picked by name, others are ignored. Arrays name
        no columns, so theirs are taken as they come.
    drop : sequence of str
        Columns to leave out.

    Raises
    ------
    DataError
        If the source does not exist, is of another type, or lacks a column.
    """
    if not sources.is_path(source):
        return source
    return Files(source, drop=drop).open(columns, stream=False)


def most_bytes() -> float:
    """Return how large rows may be that are held in memory."""
    return _SHARE * memory.available()
