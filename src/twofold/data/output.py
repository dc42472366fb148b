"""Files of results that are written part by part, and are there only once they are whole."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from twofold.data import sources
from twofold.errors import DataError

Array = NDArray[Any]
_TELL_SECONDS = 5.0  # between two lines of progress


class Writer:
    """Files that take rows part by part: `with Writer(path) as writer: ... writer.write(rows)`.

    They lie beside their place until all is written, and are moved there together; whatever goes
    wrong before leaves nothing behind.

    Parameters
    ----------
    paths : Path or sequence of Path
        `.csv`, `.parquet` or `.npy`.
    names : sequence of str
        What the columns of arrays are called; an `.npy` file takes an array as it is.
    force : bool
        Whether files that are there are overwritten.

    Raises
    ------
    OutputExistsError
        Where a file exists and `force` is false.
    DataError
        Where it cannot be written.
    """

    def __init__(
        self,
        paths: Path | Sequence[Path],
        names: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self._paths = [paths] if isinstance(paths, Path) else list(paths)
        self._names, self._force = names, force
        self._stack = ExitStack()
        self._fresh: list[Path] = []
        self._files: list[Any] = []
        self._sinks: list[Any] = []

    def __enter__(self) -> Self:
        for path in self._paths:
            sources.require_free_output(path, self._force)
        return self

    def write(self, *parts: Any) -> None:
        """Write the next rows, arrays or Arrow tables: one part for each file."""
        try:
            if not self._sinks:
                self._begin()
            for sink, rows, path in zip(self._sinks, parts, self._paths, strict=True):
                if isinstance(rows, np.ndarray) and path.suffix.lower() != ".npy":
                    rows = sources.to_arrow(rows.reshape(len(rows), len(self._names)), self._names)
                sink.write(rows)
        except OSError as error:
            raise self._unwritten(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                for sink in self._sinks:  # what they write now is thrown away with their files
                    with suppress(OSError, ValueError):
                        sink.close()
                return
            try:
                for sink, file in zip(self._sinks, self._files, strict=True):
                    sink.close()
                    file.flush()
                    os.fsync(file.fileno())
                for path in self._paths:  # one may have come up meanwhile
                    sources.require_free_output(path, self._force)
                for fresh, path in zip(self._fresh, self._paths, strict=True):
                    os.replace(fresh, path)
            except OSError as failure:
                raise self._unwritten(failure) from failure

    def _begin(self) -> None:
        for path in self._paths:
            self._fresh.append(self._beside(path))
            # Opened in the ordinary way, so that the user's umask decides who may read it.
            self._files.append(self._stack.enter_context(self._fresh[-1].open("wb")))
            self._sinks.append(_SINKS[path.suffix.lower()](self._files[-1]))

    def _beside(self, path: Path) -> Path:
        """Return where the file lies until it is whole: in a folder that goes with the writer."""
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
        return Path(self._stack.enter_context(folder), path.name)

    def _unwritten(self, error: OSError) -> DataError:
        names = " and ".join(str(path) for path in self._paths[:2])
        return DataError(
            f"{names} could not be written: {error.strerror or error}. Nothing there was changed; "
            f"free some space or choose another place."
        )


class _Csv:
    def __init__(self, file: Any) -> None:
        self._file, self._first = file, True

    def write(self, table: Any) -> None:
        import pyarrow.csv

        options = pyarrow.csv.WriteOptions(include_header=self._first)
        pyarrow.csv.write_csv(sources.for_csv(table), self._file, options)
        self._first = False

    def close(self) -> None:
        pass


class _Parquet:
    def __init__(self, file: Any) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, table: Any) -> None:
        import pyarrow.parquet

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

    def __init__(self, file: Any) -> None:
        self._file, self._n = file, 0
        self._first: Array | None = None

    def write(self, rows: Any) -> None:
        array = rows if isinstance(rows, np.ndarray) else sources.one_array(rows)
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


_SINKS: dict[str, Callable[[Any], Any]] = {".csv": _Csv, ".parquet": _Parquet, ".npy": _Npy}


class Pace:
    """Says now and then how many rows are done, how fast, and how long the rest takes."""

    def __init__(self, n_rows: int, say: Callable[[str], object] | None) -> None:
        self._n_rows, self._say, self._done = n_rows, say, 0
        self._start = self._told = time.perf_counter()

    def add(self, n_rows: int) -> None:
        """Count rows that are done."""
        self._done += n_rows
        now = time.perf_counter()
        if self._say is None or now - self._told < _TELL_SECONDS or self._done >= self._n_rows:
            return
        self._told, seconds = now, now - self._start
        left = seconds * (self._n_rows - self._done) / max(self._done, 1)
        self._say(
            f"{self._done:,} of {self._n_rows:,} rows  {self._done / seconds:,.0f} rows/s  "
            f"{left:.0f} s left"
        )
