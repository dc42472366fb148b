"""Sources of rows: arrays, data frames and files become a `Table`, and results go back alike."""

from __future__ import annotations

import glob
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import frames, images
from twofold.data.table import Table
from twofold.errors import DataError

Array = NDArray[Any]
FILE_SUFFIXES = (".csv", ".parquet", ".npy", ".npz")
_CSV_BLOCK = 2**24  # bytes; a row must fit into one, and the reader's own 1 MB is short for images


def is_path(source: Any) -> bool:
    """Whether the source names a file, a folder or a glob pattern."""
    return isinstance(source, str | os.PathLike)


def container_of(source: Any) -> str:
    """Name what holds the rows: "pandas", "polars", "arrow", "torch" or, for the rest, "numpy"."""
    module = type(source).__module__.partition(".")[0]
    kind = type(source).__name__
    if module in ("pandas", "polars") and kind == "DataFrame":
        return module
    if module == "pyarrow" and kind in ("Table", "RecordBatch"):
        return "arrow"
    if module == "torch" and hasattr(source, "detach"):
        return "torch"
    return "numpy"


def load(source: Any, columns: Sequence[str] | None = None, drop: Sequence[str] = ()) -> Any:
    """Read a path into an Arrow table or an array; hand any other source back as it is.

    Parameters
    ----------
    source : path-like, str or any
        CSV, Parquet, PNG or JPEG (a file, a folder of files or a glob pattern), `.npy` or `.npz`.
        An `.npy` array stays on disk until its rows are used.
    columns : sequence of str, optional
        The columns a model was trained on: they are picked by name, others are ignored. Arrays name
        no columns, so theirs are taken as they come.
    drop : sequence of str
        Columns to leave out.

    Raises
    ------
    DataError
        Where the source does not exist, is of another type, or lacks a column.
    """
    if not is_path(source):
        return source
    if is_array_of_images(source):
        if drop:
            raise DataError(f"{source} holds images, and they have no columns to drop.")
        return images.read(source)
    paths = resolve(source)
    if paths[0].suffix.lower() in (".npy", ".npz"):
        if drop:
            raise DataError(f"{source} holds an array, and its columns have no names to drop.")
        return _load_array(paths[0])
    return _load_frame(paths, columns, drop)


def is_array_of_images(source: str | os.PathLike[str]) -> bool:
    """Whether a path names images, and no tables."""
    path = Path(source).expanduser()
    if path.is_dir() and any(map(_is_rows, path.iterdir())):
        return False
    return images.are_images(source)


def resolve(source: str | os.PathLike[str]) -> list[Path]:
    """List the files that a path, folder or glob pattern stands for, all of one type.

    Raises
    ------
    DataError
        Where there are none, or they are of several types.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        # Hidden files are other programs' business: half-written ones, and macOS's "._rows.csv".
        paths = sorted(p for p in path.iterdir() if _is_rows(p) and not p.name.startswith("."))
        if not paths:
            types = ", ".join((*FILE_SUFFIXES, *images.SUFFIXES))
            raise DataError(f"The folder {path} holds no {types} file.")
    elif path.exists():
        paths = [path]
    else:
        found = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
        paths = [p for p in found if p.is_file()]
        if not paths:
            raise DataError(f"{source} does not exist, and matches no file as a pattern.")
    suffixes = {p.suffix.lower() for p in paths}
    if len(suffixes) > 1 or not suffixes <= set(FILE_SUFFIXES):
        types = ", ".join(sorted(suffix or "none" for suffix in suffixes))
        raise DataError(
            f"{source} holds files of type {types}. Sources are files of one type out of "
            f"{', '.join(FILE_SUFFIXES)}."
        )
    if len(paths) > 1 and suffixes & {".npy", ".npz"}:
        raise DataError(f"{source} matches {len(paths)} array files; name one of them.")
    return paths


def _is_rows(path: Path) -> bool:
    return path.suffix.lower() in FILE_SUFFIXES and path.is_file()


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn what the readers raise at broken files into a DataError that names the file."""
    # TypeError and NotImplementedError are Arrow's, for types that it cannot read.
    broken = (OSError, ValueError, TypeError, NotImplementedError)
    try:
        yield
    except DataError:
        raise
    except (*broken, EOFError, zipfile.BadZipFile, zlib.error) as error:
        kind = Path(path).suffix[1:].upper()
        raise DataError(f"{path} cannot be read as {kind}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(". \n")


def _load_array(path: Path) -> Array:
    with readable(path):
        if path.suffix.lower() == ".npy":
            return np.lib.format.open_memmap(path, mode="r")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = list(arrays.files)
            name = "X" if "X" in names else names[0] if len(names) == 1 else None
            if name is None:
                listed = ", ".join(names) or "none"
                raise DataError(f"{path} holds the arrays {listed}; call the rows 'X'.")
            return np.asarray(arrays[name])


def _load_frame(paths: list[Path], columns: Sequence[str] | None, drop: Sequence[str]) -> Any:
    import pyarrow

    tables: list[Any] = []
    for path in paths:
        with readable(path):
            names, file = _open_frame(path)
            check_names(path, names)
            chosen = choose(path, names, columns, drop)
            if tables and set(chosen) != set(tables[0].column_names):
                different = sorted(set(chosen) ^ set(tables[0].column_names))
                raise DataError(
                    f"{path} and {paths[0]} have different columns: only one of them has "
                    f"{listed(different)}."
                )
            # The first file's order holds for all. Parquet reads these columns only; the second
            # choice puts them in order.
            order = tables[0].column_names if tables else chosen
            picked = file.read(columns=order) if path.suffix.lower() == ".parquet" else file
            tables.append(picked.select(order))
    if len(tables) == 1:
        return tables[0]
    try:
        # Files are read one by one because a column may hold whole numbers in one and fractions
        # in the next.
        return pyarrow.concat_tables(tables, promote_options="permissive")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise DataError(
            f"{paths[0]} and the {len(paths) - 1} files after it do not fit together: "
            f"{_reason(error)}."
        ) from error


def _open_frame(path: Path) -> tuple[list[str], Any]:
    """Return the names of the columns, and the CSV's rows or the Parquet file to read."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        return list(file.schema_arrow.names), file
    import pyarrow.csv

    # The whole-file reader: the streaming one settles each column's type by its first block.
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK),
        convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
    )
    return list(table.column_names), table


def check_names(path: str | Path, names: list[str]) -> None:
    """Raise DataError where a file's columns have no names, or two the same."""
    if str(path).lower().endswith(".csv"):
        if len(names) == 1 and (separator := next((s for s in ";\t|" if s in names[0]), None)):
            raise DataError(
                f"{path} separates its cells by {separator!r}, and CSV sources need commas."
            )
        if _looks_like_cells(names):
            raise DataError(
                f"{path} seems to have no header: its first line is {','.join(names[:6])}"
                f"{',...' * (len(names) > 6)}. Put a line with the columns' names first."
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has more than one column {listed(twice)}. Rename one of each.")


def _looks_like_cells(names: list[str]) -> bool:
    """Whether the names are cells: numbers, but not 0, 1, 2, nor years, nor wavelengths."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    steps = np.diff(numbers)
    ordered = bool(np.all(steps > 0) or np.all(steps < 0))
    # A few cells can be in order by coincidence.
    return not ordered or (len(names) < 6 and not all(n.is_integer() for n in numbers))


def choose(
    path: str | Path, names: list[str], columns: Sequence[str] | None, drop: Sequence[str]
) -> list[str]:
    """Return which of a file's columns are wanted, or raise DataError where one is not there."""
    missing = [name for name in (*drop, *(() if columns is None else columns)) if name not in names]
    if missing:
        raise DataError(f"{path} has no column {listed(missing)}. It has {listed(names)}.")
    if columns is not None:
        return [str(name) for name in columns]
    return [name for name in names if name not in drop]


def listed(names: Sequence[str]) -> str:
    """Put names into a sentence, the first 20 of many."""
    return ", ".join(map(repr, names[:20])) + ", ..." * (len(names) > 20)


def read(source: Any) -> Table:
    """Turn rows in memory into a `Table` of numbers.

    Takes numpy arrays and what numpy can make an array of, images `(n, height, width)`, pandas and
    polars frames, Arrow tables and torch tensors. Numbers keep their precision: 32-bit floats and
    small integers stay or become 32-bit floats (an array's bytes stay bytes), all others become
    64-bit ones. An array of floats or bytes is not copied. The columns of a frame may also hold
    text, booleans and times; `Table` tells what becomes of them, and of missing cells.

    Raises
    ------
    DataError
        Where an array holds anything but numbers, or a column of a frame cells of a type, or of a
        mixture of types, that are invalid; every such column is named.
    """
    container = container_of(source)
    if container not in ("numpy", "torch"):
        return frames.read(source, container)
    array = _torch_array(source) if container == "torch" else _numpy_array(source)
    require_numbers(array)
    row_shape = tuple(array.shape[1:])
    rows = array.reshape(len(array), math.prod(row_shape)) if array.ndim > 2 else array
    return Table(as_floats(rows), None, row_shape, container)


def _numpy_array(source: Any) -> Array:
    try:
        return np.asarray(source)
    except ValueError as error:
        raise DataError(f"These rows are not all of one length: {error}.") from error


def _torch_array(tensor: Any) -> Array:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # a format that numpy does not know
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_numbers(array: Array) -> None:
    """Raise DataError with the place of the first text cell of an array that holds text."""
    if array.dtype.kind not in "OUS":
        return
    for place, cell in np.ndenumerate(array):
        if isinstance(cell, str | bytes) and not _is_number(cell):
            column = place[1] if len(place) > 1 else 0
            row = place[0] if place else 0
            raise DataError(
                f"Column {column} holds {cell!r} in row {row}. Arrays must hold numbers: drop this "
                f"column, turn it into numbers, or pass a data frame, whose columns may hold text."
            )


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # float32 holds every 16-bit integer exactly; wider integers need float64.
    small = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def as_floats(array: Array) -> Array:
    """Return an array as floats (bytes as they are), or raise DataError if it has no numbers."""
    if array.dtype in (np.float32, np.float64, np.uint8) and array.dtype.isnative:
        return array
    if array.dtype.kind in "biuf":
        return array.astype(_float_for(array.dtype))
    if array.dtype.kind in "OUS":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected rows of numbers, got another type: {error}.") from error
    raise DataError(f"These rows are of the type {array.dtype}, which is none of real numbers.")


def row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Cut rows into slices small enough that applying a model needs little extra memory."""
    step = int(min(8192, max(64, 2_000_000 // max(width, 1))))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
