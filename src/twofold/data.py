"""Sources of rows: arrays, data frames and files become a `Table`, and results go back alike."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import DataError, MissingExtraError, OutputExistsError
from twofold.schema import Table

Array = NDArray[Any]
FILE_SUFFIXES = (".csv", ".parquet", ".npy", ".npz")
OUTPUT_SUFFIXES = (".csv", ".parquet", ".npy")


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
        CSV, Parquet (a file, a folder of files or a glob pattern), `.npy` or `.npz`.
    columns : sequence of str, optional
        The columns a model was trained on: they are picked by name, others are ignored.
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
    suffix = paths[0].suffix.lower()
    try:
        if suffix in (".npy", ".npz"):
            return _load_numpy(paths[0])
        table = _load_arrow(paths, suffix)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source} cannot be read as {suffix[1:].upper()}: {error}") from error
    missing = [name for name in (*drop, *(columns or ())) if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source} has no column {', '.join(map(repr, missing))}. It has "
            f"{', '.join(map(repr, table.column_names[:20]))}."
        )
    if columns is not None:
        return table.select(list(columns))
    return table.drop_columns(list(drop)) if drop else table


def _resolve(source: str | os.PathLike[str]) -> list[Path]:
    """List the files that a path, folder or glob pattern stands for, all of one type."""
    path = Path(source)
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in FILE_SUFFIXES)
        if not paths:
            raise DataError(f"The folder {path} holds no {', '.join(FILE_SUFFIXES)} file.")
    elif path.exists():
        paths = [path]
    else:
        paths = [Path(name) for name in sorted(glob.glob(str(source)))]
        if not paths:
            raise DataError(f"{source} does not exist, and matches no file as a pattern.")
    suffixes = {p.suffix.lower() for p in paths}
    if len(suffixes) > 1 or not suffixes <= set(FILE_SUFFIXES):
        raise DataError(
            f"{source} holds files of type {', '.join(sorted(suffixes)) or 'none'}. Sources are "
            f"files of one type out of {', '.join(FILE_SUFFIXES)}."
        )
    if len(paths) > 1 and suffixes & {".npy", ".npz"}:
        raise DataError(f"{source} matches {len(paths)} array files; name one of them.")
    return paths


def _load_numpy(path: Path) -> Array:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = list(loaded.files)
        name = "X" if "X" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise DataError(f"{path} holds the arrays {', '.join(names)}; call the rows 'X'.")
        return np.asarray(loaded[name])


def _load_arrow(paths: list[Path], suffix: str) -> Any:
    import pyarrow.dataset

    format_ = "csv" if suffix == ".csv" else "parquet"
    return pyarrow.dataset.dataset([str(path) for path in paths], format=format_).to_table()


def read(source: Any) -> Table:
    """Turn rows in memory into a `Table` of numbers.

    Takes numpy arrays and what numpy can make an array of, images `(n, height, width)`, pandas and
    polars frames, Arrow tables and torch tensors. Numbers keep their precision: 32-bit floats and
    small integers stay or become 32-bit floats (bytes stay bytes), all others become 64-bit ones.

    Raises
    ------
    DataError
        Where a column holds text or anything else that is no number; every such column is named.
    """
    container = container_of(source)
    if container in ("numpy", "torch"):
        array = source.detach().cpu().numpy() if container == "torch" else np.asarray(source)
        require_numbers(array)
        rows = array.reshape(len(array), -1) if array.ndim > 2 else array
        return Table(_as_floats(rows), None, tuple(array.shape[1:]), container)
    names, columns = _frame_columns(source, container)
    if not columns:
        raise DataError("The table has no columns (0 feature(s)); a minimum of 1 is required.")
    dtype = np.result_type(*(column.dtype for column in columns))
    values = np.column_stack(columns).astype(_float_for(dtype), copy=False)
    index = source.index if container == "pandas" else None
    return Table(values, names, (len(names),), container, index)


def _frame_columns(source: Any, container: str) -> tuple[tuple[str, ...], list[Array]]:
    names = source.column_names if container == "arrow" else list(source.columns)
    columns, mistakes = [], []
    for position, name in enumerate(names):
        if container == "pandas":
            column = _pandas_column(source.iloc[:, position])
        else:
            column = source.column(position) if container == "arrow" else source[name].to_arrow()
            column = (
                column.to_numpy(zero_copy_only=False)
                if container == "polars"
                else (column.to_numpy())
            )
        try:
            columns.append(_numbers(column))
        except _NotANumber as place:
            mistakes.append(f"Column '{name}' holds {place.cell!r} in row {place.row}")
    if mistakes:
        raise DataError(
            "; ".join(mistakes) + ". Columns must hold numbers: drop these columns, or turn them "
            "into numbers first."
        )
    return tuple(str(name) for name in names), columns


def _pandas_column(series: Any) -> Array:
    if series.dtype.kind in "iuf" and series.isna().any():
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy())


class _NotANumber(Exception):
    def __init__(self, row: int, cell: Any) -> None:
        self.row, self.cell = row, cell


def _numbers(column: Array) -> Array:
    """Return the column as numbers, or raise _NotANumber at its first cell that is none."""
    if column.dtype.kind in "biuf":
        return column.astype(np.uint8) if column.dtype.kind == "b" else column
    numbers = np.empty(len(column), dtype=np.float64)
    for row, cell in enumerate(column):
        if isinstance(cell, str | bytes | np.datetime64 | np.timedelta64):
            raise _NotANumber(row, cell.item() if isinstance(cell, np.generic) else cell)
        try:
            numbers[row] = np.nan if cell is None else float(cell)
        except (TypeError, ValueError):
            raise _NotANumber(row, cell) from None
    return numbers


def require_numbers(array: Array) -> None:
    """Raise DataError with the place of the first text cell of an array that holds text."""
    if array.dtype.kind not in "OUS":
        return
    for place, cell in np.ndenumerate(array):
        if not isinstance(cell, str | bytes):
            continue
        try:
            float(cell)
        except ValueError:
            column = place[1] if len(place) > 1 else 0
            raise DataError(
                f"Column {column} holds {cell!r} in row {place[0]}. Columns must hold numbers: "
                f"drop this column, or turn it into numbers first."
            ) from None


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # float32 holds every 16-bit integer exactly; wider integers need float64.
    small = dtype.kind in "bui" and dtype.itemsize <= 2
    return np.dtype(np.float32 if small or dtype in (np.float16, np.float32) else np.float64)


def _as_floats(array: Array) -> Array:
    if array.dtype in (np.float32, np.float64, np.uint8) or array.dtype.kind not in "biuf":
        return array
    return array.astype(_float_for(array.dtype))


def give_back(
    values: Array, container: str, names: Sequence[str], row_shape: Sequence[int], index: Any = None
) -> Any:
    """Return rows `(n_rows, n_columns)` in the container that the caller's rows came in."""
    if container == "pandas":
        return _extra("pandas").DataFrame(values, columns=list(names), index=index, copy=False)
    if container == "polars":
        return _extra("polars").DataFrame(values, schema=list(names))
    if container == "arrow":
        return to_arrow(values, names)
    shaped = values.reshape(len(values), *row_shape)
    if container == "torch":
        import torch

        return torch.from_numpy(shaped)
    return shaped


def _extra(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"This model gives back {name} frames, and {name} is not installed. Install "
            f"'twofold[{name}]'."
        ) from error


def to_arrow(values: Array, names: Sequence[str]) -> Any:
    """Return an Arrow table of the columns of `values`."""
    import pyarrow

    return pyarrow.table({name: values[:, i] for i, name in enumerate(names)})


def row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Cut rows into slices small enough that applying a model needs little extra memory."""
    step = int(min(8192, max(64, 4_000_000 // max(width, 1))))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def require_free_output(path: str | os.PathLike[str], force: bool) -> Path:
    """Return the output path, or raise where nothing may be written there.

    Raises
    ------
    OutputExistsError
        Where the file exists and `force` is false, or it is a folder.
    DataError
        Where the suffix names no type that can be written.
    """
    path = Path(path)
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}; outputs are {', '.join(OUTPUT_SUFFIXES)}."
        )
    if path.is_dir() or (os.path.lexists(path) and not force):
        raise OutputExistsError(
            f"{path} exists, and nothing is overwritten unasked. Choose another file, or say so "
            f"with --force."
        )
    return path


def write(table: Any, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write an Arrow table as CSV, Parquet or `.npy` by suffix, whole or not at all."""
    path = require_free_output(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_to(table, file, path.suffix.lower())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. Nothing there was changed."
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _write_to(table: Any, file: Any, suffix: str) -> None:
    if suffix == ".csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, file)
    elif suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, file)
    else:
        np.save(file, np.column_stack([column.to_numpy() for column in table.columns]))
