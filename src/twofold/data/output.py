"""Files and folders of results: never half written, and never written over unless that is asked."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold.data import addresses, arrow, notation
from twofold.data.convert import to_arrow
from twofold.data.notation import Notation
from twofold.data.sources import listed
from twofold.errors import DataError, OutputExistsError

Array = NDArray[Any]
SUFFIXES = (".csv", ".parquet", ".npy")
_LINE_END, _NOTHING, _MARK, _EMPTY, _APOSTROPHE = (
    pa.scalar(text, pa.large_string()) for text in ("\n", "", '"', '""', "'")
)
_CSV_ROWS = 65_536  # turned into text at a time
# What spreadsheets take for a formula (OWASP, "CSV Injection"), and numbers, which are none.
_FORMULA = r"(?s)^[=+\-@\t\r]."
_NUMBER = r"(?i)^[+-]?([\d.,][\d., '\x{a0}\x{202f}]*(e[+-]?\d+)?%?|inf|infinity|nan)$"
_SAY_SECONDS = 5.0  # between two lines of progress


def require_free(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the path of a file to write.

    Raises
    ------
    OutputExistsError
        If the path is a folder, or the file exists and `overwrite` is false.
    DataError
        If the folder that is to hold it cannot be written to.
    """
    if addresses.address_of(path):
        if addresses.exists(path) and not overwrite:
            raise already_exists(path)
        addresses.require_writable(path)
        return Path(path)
    path = addresses.local(path)
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder, so it is left alone. Choose another file.")
    if os.path.lexists(path) and not overwrite:
        raise already_exists(path)
    require_writable(path)
    return path


def require_free_folder(
    path: str | os.PathLike[str], overwrite: bool, is_own: Callable[[set[str]], bool], own: str
) -> Path:
    """Return the path of a folder to write; even with `overwrite`, only one of our own gives way.

    Parameters
    ----------
    path : path-like
    overwrite : bool
    is_own : callable
        Whether a folder with entries of these names is one that the caller writes.
    own : str
        What such a folder is, for the message: "a twofold model, which ...".

    Raises
    ------
    OutputExistsError
        If something is there that may not be replaced.
    """
    if addresses.address_of(path):
        path, there = Path(path), addresses.exists(path)
        held = set(addresses.Folder(path).names()) if there else set[str]()
        is_folder = bool(held)
    else:
        path = addresses.local(path)
        there, is_folder = os.path.lexists(path), path.is_dir()
        held = {entry.name for entry in path.iterdir()} if is_folder else set()
    if not there:
        return path
    if not overwrite:
        raise already_exists(path)
    if not (is_folder and is_own(held)):
        raise OutputExistsError(
            f"{addresses.shown(path)} exists and is not {own}, so it is left alone. Choose another "
            f"folder."
        )
    return path


def already_exists(path: str | os.PathLike[str]) -> OutputExistsError:
    """Return the error that says that something is there and is to be kept."""
    return OutputExistsError(
        f"'{addresses.shown(path)}' already exists. Use --force (overwrite=True) to replace it."
    )


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise DataError if the folder that is to hold `path` can neither be used nor made."""
    if addresses.address_of(path):
        addresses.require_writable(path)
        return
    folder = addresses.local(path).absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise DataError(
            f"{path} cannot be written: {folder} is not a folder. Choose another place."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(
            f"{path} cannot be written: you may not write to the folder {folder}. Choose another "
            f"place."
        )


def not_written(path: object, error: OSError) -> DataError:
    """Return the error that says why a file or a folder could not be written."""
    if isinstance(path, str | os.PathLike):
        path = addresses.shown(path)
    return DataError(
        f"{path} could not be written: {error.strerror or error}. Nothing there was changed; free "
        f"some space or choose another place."
    )


@contextmanager
def atomic_write(path: Path, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """Give a file to write that takes its place at the end, if nothing goes wrong before.

    Raises
    ------
    OutputExistsError
        If a file exists (now or when all is written) and `overwrite` is false.
    DataError
        If it cannot be written, for example because the disk is full.
    """
    path = require_free(path, overwrite)
    try:
        if addresses.address_of(path):
            with addresses.upload(path) as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:99]}.", dir=path.parent) as folder:
            # Opened in the ordinary way, so that the user's umask decides who may read it.
            fresh = Path(folder, "written")
            with open(fresh, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            require_free(path, overwrite)
            os.replace(fresh, path)
    except OSError as error:
        raise not_written(path, error) from error


def write_bytes(path: Path, content: bytes, overwrite: bool = True) -> None:
    """Write a file, whole or not at all; raises as `atomic_write` does."""
    with atomic_write(path, overwrite) as file:
        file.write(content)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, whole or not at all; one that is there gives way.

    At an address, the last of the files is gone while the others are written.

    Raises
    ------
    DataError
        If it cannot be written, for example because the disk is full.
    """
    try:
        if addresses.address_of(path):
            there = addresses.Folder(path)
            there.remove([*files][-1])
            for name, content in files.items():
                there.write(name, content)
            return
        path = addresses.local(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for name, content in files.items():
                with open(fresh / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            fresh.chmod(0o755)
            put_in_place(fresh, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise not_written(path, error) from error


def put_in_place(fresh: Path, path: Path) -> None:
    """Give a folder its name; one that is there steps aside, and comes back if this fails.

    A folder cannot replace another one in one step.
    """
    if not os.path.lexists(path):
        fresh.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent)) / path.name
    try:
        path.rename(aside)
        fresh.rename(path)
    except BaseException:  # an interruption too must not cost the old folder
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        raise
    finally:
        if os.path.lexists(path):
            shutil.rmtree(aside.parent, ignore_errors=True)


def require_free_table(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the path of a file of rows to write, as `require_free` does.

    Raises
    ------
    DataError
        If the suffix is not one of `SUFFIXES`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{addresses.shown(path)} ends in {path.suffix or 'nothing'}; outputs are "
            f"{', '.join(SUFFIXES)}."
        )
    return require_free(path, overwrite)


def write(
    table: Any, path: str | os.PathLike[str], overwrite: bool = False, *, csv_safe: bool = False
) -> None:
    """Write an Arrow table as CSV, Parquet or `.npy` by suffix, whole or not at all.

    As `.npy`, an array is written as it is, and a table as one array of its columns. CSV has no
    types: categories are written as their cells, durations as seconds. With `csv_safe`, an
    apostrophe stands before names and cells of a CSV file that spreadsheets would run as formulas.

    Raises
    ------
    OutputExistsError
        If the file exists and `overwrite` is false.
    DataError
        If it cannot be written, for example because the disk is full, or because a table for
        `.npy` holds more than numbers.
    """
    with Writer(Path(path), force=overwrite, csv_safe=csv_safe) as writer:
        writer.write(table)


class Writer:
    """Files that take rows part by part: `with Writer(path) as writer: ... writer.write(rows)`.

    They get their names when all is written; whatever goes wrong before leaves nothing behind.

    Parameters
    ----------
    paths : Path or sequence of Path
        `.csv`, `.parquet` or `.npy`.
    names : sequence of str
        What the columns of arrays are called; an `.npy` file takes an array as it is.
    force : bool
        Whether files that are there are overwritten.
    csv_safe : bool
        Whether spreadsheets are kept from taking cells of `.csv` files for formulas.

    Raises
    ------
    OutputExistsError
        If a file exists and `force` is false.
    DataError
        If it cannot be written.
    """

    def __init__(
        self,
        paths: Path | Sequence[Path],
        names: Sequence[str] = (),
        force: bool = False,
        csv_safe: bool = False,
    ) -> None:
        self._paths = [paths] if isinstance(paths, Path) else list(paths)
        self._names, self._force, self._csv_safe = names, force, csv_safe
        self._stack = ExitStack()
        self._sinks: list[Any] = []

    def __enter__(self) -> Self:
        for path in self._paths:
            require_free_table(path, self._force)
        return self

    def write(self, *parts: Any) -> None:
        """Write the next rows, arrays or Arrow tables: one part for each file."""
        if not self._sinks:
            for path in self._paths:
                file = self._stack.enter_context(atomic_write(path, self._force))
                self._sinks.append(_SINKS[path.suffix.lower()](file, self._csv_safe))
        for sink, rows, path in zip(self._sinks, parts, self._paths, strict=True):
            if isinstance(rows, np.ndarray) and path.suffix.lower() != ".npy":
                rows = to_arrow(rows.reshape(len(rows), len(self._names)), self._names)
            try:
                sink.write(rows)
            except OSError as error:
                raise not_written(path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for sink in self._sinks:
                # What is written after an error is thrown away with the files.
                with suppress(OSError, ValueError) if error is not None else nullcontext():
                    sink.close()
        except OSError as failure:
            error = not_written(" and ".join(map(str, self._paths[:2])), failure)
            raise error from failure
        finally:
            self._stack.__exit__(type(error) if error else None, error, traceback)


class _Csv:
    """Delimited text; cells that came from such a file are written in their columns' notation."""

    def __init__(self, file: Any, safe: bool) -> None:
        self._file, self._safe, self._first = file, safe, True

    def write(self, table: Any) -> None:
        delimiter = notation.delimiter(table.schema)
        if self._first:
            names = [pa.chunked_array([[name]], pa.string()) for name in table.column_names]
            self._lines([_quoted(self._checked(name), delimiter) for name in names], delimiter)
        self._first = False
        for batch in table.to_batches(max_chunksize=_CSV_ROWS):
            part = pa.Table.from_batches([batch])
            columns = [
                _quoted(self._checked(_text(part.column(i), notation.of_field(f))), delimiter)
                for i, f in enumerate(part.schema)
            ]
            if len(columns) == 1:  # an empty line would be no row
                columns = [pc.if_else(pc.equal(columns[0], _NOTHING), _EMPTY, columns[0])]
            self._lines(columns, delimiter)

    def _checked(self, column: Any) -> Any:
        """Return text with an apostrophe before what would be a formula, if that is asked."""
        if not self._safe:
            return column
        column = column.cast(pa.large_string())
        is_number = pc.match_substring_regex(column, _NUMBER)
        runs = pc.and_not(pc.match_substring_regex(column, _FORMULA), is_number)
        return pc.if_else(runs, pc.binary_join_element_wise(_APOSTROPHE, column, _NOTHING), column)

    def _lines(self, columns: Sequence[Any], delimiter: str) -> None:
        if not columns or not len(columns[0]):
            return
        ended = [*columns[:-1], pc.binary_join_element_wise(columns[-1], _LINE_END, _NOTHING)]
        lines = pc.binary_join_element_wise(*ended, pa.scalar(delimiter, pa.large_string()))
        for chunk in arrow.chunked(lines).chunks:
            whole = pa.concat_arrays([chunk])
            ends = np.frombuffer(whole.buffers()[1], np.int64, len(whole) + 1, 8 * whole.offset)
            self._file.write(memoryview(whole.buffers()[2])[ends[0] : ends[-1]])

    def close(self) -> None:
        pass


def _text(column: Any, written: Notation | None) -> Any:
    """Return the cells of a column as text."""
    if written is not None and not pa.types.is_null(column.type):
        if pa.types.is_string(column.type) and written.type != "text":
            return column
        if column.type == written.kind:
            return written.write(column)
    return notation.plain_text(_for_csv(column))


def _quoted(column: Any, delimiter: str) -> Any:
    """Return text with quotes about the cells that need them, and "" for missing ones."""
    column = pc.fill_null(column.cast(pa.large_string()), _NOTHING)
    need = pc.match_substring_regex(column, f'["\\r\\n{re.escape(delimiter)}]')
    if not pc.any(need).as_py():
        return column
    doubled = pc.replace_substring(column, '"', '""')
    return pc.if_else(need, pc.binary_join_element_wise(_MARK, doubled, _MARK, _NOTHING), column)


class _Parquet:
    def __init__(self, file: Any, safe: bool) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, table: Any) -> None:
        import pyarrow.parquet

        table = notation.read_table(table)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Npy:
    """An array whose header, which says how many rows there are, is written once more at the end.

    Numpy leaves room in it for the number of rows to grow.
    """

    def __init__(self, file: Any, safe: bool) -> None:
        self._file, self._n = file, 0
        self._first: Array | None = None

    def write(self, rows: Any) -> None:
        array = rows if isinstance(rows, np.ndarray) else one_array(notation.read_table(rows))
        if self._first is None:
            self._first = array[:0]
            self._head()
        self._file.write(np.ascontiguousarray(array, self._first.dtype).data)
        self._n += len(array)

    def close(self) -> None:
        if self._first is not None:
            self._file.seek(0)
            self._head()

    def _head(self) -> None:
        assert self._first is not None
        shape = (self._n, *self._first.shape[1:])
        form = np.lib.format.dtype_to_descr(self._first.dtype)
        header = {"descr": form, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


_SINKS: dict[str, Callable[[Any, bool], Any]] = {".csv": _Csv, ".parquet": _Parquet, ".npy": _Npy}


def _for_csv(column: Any) -> Any:
    """Return an Arrow column as one of a type that can be written, and read again as the same."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _for_csv(column.cast(kind.value_type))
    if str(kind) == "string_view":
        return column.cast(pa.large_string())
    if pa.types.is_duration(kind):
        return pa.array(arrow.read(column)[0], from_pandas=True)
    if pa.types.is_time(kind):
        try:
            # A time of day with a fraction is not a time to the reader.
            return column.cast(pa.time32("s"))
        except pa.ArrowInvalid:
            return column
    return column


def one_array(table: Any) -> Array:
    """Return the columns of an Arrow table as one array; raises DataError if one has no numbers."""
    kinds = pa.types
    columns, others = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if kinds.is_boolean(column.type) or kinds.is_null(column.type):
            columns.append(arrow.read(column)[0])
        elif kinds.is_integer(column.type) or kinds.is_floating(column.type):
            columns.append(np.asarray(column))
        else:
            others.append(name)
    if others:
        raise DataError(
            f"An .npy file holds numbers only, and these columns hold something else: "
            f"{listed(others)}. Write .csv or .parquet."
        )
    return np.column_stack(columns)


class Pace:
    """Says now and then how many rows are done, how fast, and how long the rest takes."""

    def __init__(self, n_rows: int, say: Callable[[str], object] | None) -> None:
        self._n_rows, self._say, self._done = n_rows, say, 0
        self._start = self._said = time.perf_counter()

    def add(self, n_rows: int) -> None:
        """Count rows that are done."""
        self._done += n_rows
        now = time.perf_counter()
        if self._say is None or now - self._said < _SAY_SECONDS or self._done >= self._n_rows:
            return
        self._said, seconds = now, now - self._start
        left = seconds * (self._n_rows - self._done) / max(self._done, 1)
        self._say(
            f"{self._done:,} of {self._n_rows:,} rows  {self._done / seconds:,.0f} rows/s  "
            f"{left:.0f} s left"
        )
