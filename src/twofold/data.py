"""Sources of rows: arrays, data frames and files become a `Table`, and results go back alike."""

from __future__ import annotations

import glob
import math
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import DataError, MissingExtraError, OutputExistsError
from twofold.schema import Table

Array = NDArray[Any]
FILE_SUFFIXES = (".csv", ".parquet", ".npy", ".npz")
OUTPUT_SUFFIXES = (".csv", ".parquet", ".npy")
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
        CSV, Parquet (a file, a folder of files or a glob pattern), `.npy` or `.npz`. An `.npy`
        array stays on disk until its rows are used.
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
    paths = _resolve(source)
    if paths[0].suffix.lower() in (".npy", ".npz"):
        if drop:
            raise DataError(f"{source} holds an array, and its columns have no names to drop.")
        return _load_array(paths[0])
    return _load_frame(paths, columns, drop)


def _resolve(source: str | os.PathLike[str]) -> list[Path]:
    """List the files that a path, folder or glob pattern stands for, all of one type."""
    path = Path(source).expanduser()
    if path.is_dir():
        # Hidden files are other programs' business: half-written ones, and macOS's "._rows.csv".
        paths = sorted(p for p in path.iterdir() if _is_rows(p) and not p.name.startswith("."))
        if not paths:
            raise DataError(f"The folder {path} holds no {', '.join(FILE_SUFFIXES)} file.")
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
def _reading(path: Path) -> Iterator[None]:
    """Turn what the readers raise at broken files into a DataError that names the file."""
    # TypeError and NotImplementedError are Arrow's, for types that it cannot read.
    broken = (OSError, ValueError, TypeError, NotImplementedError)
    try:
        yield
    except DataError:
        raise
    except (*broken, EOFError, zipfile.BadZipFile, zlib.error) as error:
        kind = path.suffix[1:].upper()
        raise DataError(f"{path} cannot be read as {kind}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(". \n")


def _load_array(path: Path) -> Array:
    with _reading(path):
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
        with _reading(path):
            names, file = _open_frame(path)
            _check_names(path, names)
            chosen = _choose(path, names, columns, drop)
            if tables and set(chosen) != set(tables[0].column_names):
                different = sorted(set(chosen) ^ set(tables[0].column_names))
                raise DataError(
                    f"{path} and {paths[0]} have different columns: only one of them has "
                    f"{_listed(different)}."
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


def _check_names(path: Path, names: list[str]) -> None:
    if path.suffix.lower() == ".csv":
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
        raise DataError(f"{path} has more than one column {_listed(twice)}. Rename one of each.")


def _looks_like_cells(names: list[str]) -> bool:
    """Whether the names are cells: numbers, but not 0, 1, 2, nor years, nor wavelengths."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    steps = np.diff(numbers)
    ordered = bool(np.all(steps > 0) or np.all(steps < 0))
    # A few cells can be in order by chance.
    return not ordered or (len(names) < 6 and not all(n.is_integer() for n in numbers))


def _choose(
    path: Path, names: list[str], columns: Sequence[str] | None, drop: Sequence[str]
) -> list[str]:
    missing = [name for name in (*drop, *(() if columns is None else columns)) if name not in names]
    if missing:
        raise DataError(f"{path} has no column {_listed(missing)}. It has {_listed(names)}.")
    if columns is not None:
        return [str(name) for name in columns]
    return [name for name in names if name not in drop]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + ", ..." * (len(names) > 20)


def read(source: Any) -> Table:
    """Turn rows in memory into a `Table` of numbers.

    Takes numpy arrays and what numpy can make an array of, images `(n, height, width)`, pandas and
    polars frames, Arrow tables and torch tensors. Numbers keep their precision: 32-bit floats and
    small integers stay or become 32-bit floats (an array's bytes stay bytes), all others become
    64-bit ones. Missing cells of a frame become NaN. An array of floats or bytes is not copied.

    Raises
    ------
    DataError
        Where a column holds text or anything else that is no number; every such column is named.
    """
    container = container_of(source)
    if container in ("numpy", "torch"):
        array = _torch_array(source) if container == "torch" else _numpy_array(source)
        require_numbers(array)
        row_shape = tuple(array.shape[1:])
        rows = array.reshape(len(array), math.prod(row_shape)) if array.ndim > 2 else array
        return Table(_as_floats(rows), None, row_shape, container)
    names, columns = _frame_columns(source, container)
    if not columns:
        raise DataError("The table has no columns (0 feature(s)); a minimum of 1 is required.")
    dtype = _float_for(np.result_type(*(column.dtype for column in columns)))
    values = np.empty((len(columns[0]), len(columns)), dtype)
    for position, column in enumerate(columns):
        values[:, position] = column
    index = source.index if container == "pandas" else None
    return Table(values, names, (len(names),), container, index)


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


def _frame_columns(source: Any, container: str) -> tuple[tuple[str, ...], list[Array]]:
    names = source.column_names if container == "arrow" else list(source.columns)
    columns, mistakes = [], []
    for position, name in enumerate(names):
        try:
            if container == "pandas":
                columns.append(_numbers(*_pandas_column(source.iloc[:, position])))
            elif container == "polars":
                columns.append(_numbers(*_arrow_column(source[name].to_arrow())))
            else:
                columns.append(_numbers(*_arrow_column(source.column(position))))
        except _NotANumber as place:
            mistakes.append(f"Column '{name}' holds {place}")
    if mistakes:
        raise DataError("; ".join(mistakes) + ". " + _remedy(len(mistakes)))
    return tuple(str(name) for name in names), columns


def _pandas_column(series: Any) -> tuple[Array, bool]:
    """Return the cells, NaN where a number is missing, and whether they are categories."""
    dtype = series.dtype
    # The nullable types need to be told what stands for a missing number.
    if not isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        plain = getattr(dtype, "numpy_dtype", np.dtype(np.float64))
        if not series.isna().any():
            return np.asarray(series.to_numpy(dtype=plain)), False
        wanted = plain if dtype.kind == "f" else np.dtype(np.float64)
        return np.asarray(series.to_numpy(dtype=wanted, na_value=np.nan)), False
    return np.asarray(series.to_numpy()), str(dtype) == "category"


def _arrow_column(column: Any) -> tuple[Array, bool]:
    """Return the cells, NaN where a number is missing, and whether they are categories."""
    if str(column.type).startswith("dictionary"):
        return np.array(column.to_pylist(), dtype=object), True
    return np.asarray(column.to_numpy(zero_copy_only=False)), False


class _NotANumber(Exception):
    """A cell that is no number; its text goes after "Column 'name' holds"."""

    def __init__(self, row: int, cell: Any, is_category: bool = False) -> None:
        if isinstance(cell, np.generic):
            cell = str(cell) if cell.dtype.kind in "mM" else cell.item()
        super().__init__(f"{'the category ' if is_category else ''}{cell!r} in row {row}")


def _numbers(column: Array, is_category: bool) -> Array:
    """Return the column as numbers, or raise _NotANumber at its first cell that is none."""
    if column.dtype.kind in "biuf" and not is_category:
        return column.view(np.uint8) if column.dtype.kind == "b" else column
    numbers = np.full(len(column), np.nan)
    text: _NotANumber | None = None
    for row, cell in enumerate(column):
        if _is_missing(cell):
            continue
        if is_category:
            raise _NotANumber(row, cell, is_category=True)
        if isinstance(cell, str | bytes):
            # A column of text with numbers in it is told by the cell that makes it text.
            if not _is_number(cell):
                raise _NotANumber(row, cell)
            text = text or _NotANumber(row, cell)
            continue
        if isinstance(cell, np.datetime64 | np.timedelta64):
            raise _NotANumber(row, cell)
        try:
            numbers[row] = float(cell)
        except (TypeError, ValueError):
            raise _NotANumber(row, cell) from None
    if text is not None:
        raise text
    return numbers


def _is_missing(cell: Any) -> bool:
    # pandas.NA is told by its type's name, for pandas may not be installed.
    nan = isinstance(cell, float) and math.isnan(cell)
    return cell is None or nan or type(cell).__name__ == "NAType"


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
            raise DataError(f"Column {column} holds {cell!r} in row {row}. {_remedy(1)}")


def _remedy(n_columns: int) -> str:
    which, it = ("this column", "it") if n_columns == 1 else ("these columns", "them")
    return f"Columns must hold numbers: drop {which}, or turn {it} into numbers first."


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # float32 holds every 16-bit integer exactly; wider integers need float64.
    small = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def _as_floats(array: Array) -> Array:
    if array.dtype in (np.float32, np.float64, np.uint8) and array.dtype.isnative:
        return array
    if array.dtype.kind in "biuf":
        return array.astype(_float_for(array.dtype))
    if array.dtype.kind in "OUS":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"These rows hold something that is no number: {error}.") from error
    raise DataError(f"These rows are of the type {array.dtype}, which is none of real numbers.")


def give_back(
    values: Array, container: str, names: Sequence[str], row_shape: Sequence[int], index: Any = None
) -> Any:
    """Return rows `(n_rows, n_columns)` in the container that the caller's rows came in."""
    if container == "pandas":
        return _extra("pandas").DataFrame(values, columns=list(names), index=index, copy=False)
    if container == "polars":
        # Said outright, since polars reads a square array column by column.
        return _extra("polars").DataFrame(values, schema=list(names), orient="row")
    if container == "arrow":
        return to_arrow(values, names)
    shaped = values.reshape(len(values), *row_shape)
    if container == "torch":
        import torch

        return torch.from_numpy(shaped)
    return shaped


def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"This model gives back {name} frames, and {name} is not installed. Install "
            f"'twofold[{name}]'."
        ) from error


def to_arrow(values: Array, names: Sequence[str]) -> Any:
    """Return an Arrow table of the columns of `values`, `(n_rows, n_columns)`."""
    import pyarrow

    # From lists and not from a mapping, which would lose columns of the same name.
    columns = [pyarrow.array(values[:, position]) for position in range(values.shape[1])]
    return pyarrow.Table.from_arrays(columns, names=list(names))


def row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Cut rows into slices small enough that applying a model needs little extra memory."""
    step = int(min(8192, max(64, 2_000_000 // max(width, 1))))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def require_free_output(path: str | os.PathLike[str], force: bool) -> Path:
    """Return the output path, or raise where nothing may or can be written there.

    Raises
    ------
    OutputExistsError
        Where the file exists and `force` is false, or it is a folder.
    DataError
        Where the suffix names no type that can be written, or the folder cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}; outputs are {', '.join(OUTPUT_SUFFIXES)}."
        )
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder, so it is left alone. Choose another file.")
    if os.path.lexists(path) and not force:
        raise OutputExistsError(
            f"{path} exists, and nothing is overwritten unasked. Choose another file, or say so "
            f"with --force."
        )
    require_writable(path)
    return path


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise DataError where the folder that is to hold `path` can neither be used nor made."""
    folder = Path(path).absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise DataError(f"{path} cannot be written: {folder} is no folder. Choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(
            f"{path} cannot be written: you may not write to the folder {folder}. Choose another "
            f"place."
        )


def write(table: Any, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write an Arrow table as CSV, Parquet or `.npy` by suffix, whole or not at all.

    As `.npy`, an array is written as it is, and a table as one array of its columns.

    Raises
    ------
    OutputExistsError
        Where the file exists and `force` is false.
    DataError
        Where it cannot be written, for example because the disk is full.
    """
    path = require_free_output(path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            # Opened in the ordinary way, so that the user's umask decides who may read it.
            fresh = Path(folder, path.name)
            with open(fresh, "wb") as file:
                _write_to(table, file, path.suffix.lower())
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. Nothing there was changed; "
            f"free some space or choose another place."
        ) from error


def _write_to(table: Any, file: Any, suffix: str) -> None:
    if suffix == ".csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, file)
    elif suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, file)
    elif isinstance(table, np.ndarray):
        np.save(file, table)
    else:
        np.save(file, np.column_stack([column.to_numpy() for column in table.columns]))
