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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import arrow, frames, images
from twofold.data.table import Format, Table
from twofold.errors import DataError, OutputExistsError

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
    # A few cells can be in order by chance.
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
        mixture of types, that mean nothing; every such column is named.
    """
    container = container_of(source)
    if container not in ("numpy", "torch"):
        return frames.read(source, container)
    array = _torch_array(source) if container == "torch" else _numpy_array(source)
    require_numbers(array)
    row_shape = tuple(array.shape[1:])
    rows = array.reshape(len(array), math.prod(row_shape)) if array.ndim > 2 else array
    return Table(_as_floats(rows), None, row_shape, container)


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
    values: Array,
    container: str,
    names: Sequence[str],
    row_shape: Sequence[int],
    index: Any = None,
    formats: Sequence[Format] | None = None,
) -> Any:
    """Return rows `(n_rows, n_columns)` in the container that the caller's rows came in.

    With `formats`, each column of a frame has its own type again: text is looked up among the
    levels, whole numbers and times are rounded, and NaN is a missing cell. Without, all are floats.
    """
    if container in ("pandas", "polars", "arrow") and formats is not None:
        return frames.give_back(values, container, names, index, formats)
    if container == "pandas":
        frame = frames.extra("pandas").DataFrame
        return frame(values, columns=list(names), index=index, copy=False)
    if container == "polars":
        # Said outright, since polars reads a square array column by column.
        return frames.extra("polars").DataFrame(values, schema=list(names), orient="row")
    if container == "arrow":
        return to_arrow(values, names)
    shaped = values.reshape(len(values), *row_shape)
    if container == "torch":
        import torch

        return torch.from_numpy(shaped)
    return shaped


def to_arrow(values: Array, names: Sequence[str], formats: Sequence[Format] | None = None) -> Any:
    """Return an Arrow table of the columns of `values`, `(n_rows, n_columns)`.

    The formats may be those of any container.
    """
    return frames.to_arrow(values, names, formats)


def fill(source: Any, table: Table, filled: Array, formats: Sequence[Format] | None = None) -> Any:
    """Return a copy of the caller's rows in which missing cells, and only these, are replaced.

    Parameters
    ----------
    source : any
        The rows as they came, in memory; they are left alone.
    table : Table
        What `read` made of them.
    filled : ndarray of shape (n_rows, n_columns)
        Cells in the table's units; those that are NaN here too stay missing.
    formats : sequence of Format, optional
        Says what the positions of text in `filled` are counted by, where its levels are others than
        the table's: the training table's, say.
    """
    if table.container not in ("numpy", "torch"):
        return frames.fill(source, table, filled, formats)
    holes = np.isnan(table.values) & ~np.isnan(filled)
    if table.container == "torch":
        import torch

        tensor = source.detach().clone()
        at = torch.from_numpy(holes).reshape(tensor.shape).to(tensor.device)
        tensor[at] = torch.from_numpy(filled[holes]).to(tensor)
        return tensor
    # Lists may come as objects; whoever passes an array has chosen its type.
    chosen = isinstance(source, np.ndarray) and source.dtype.kind not in "US"
    array: Array = np.array(source if chosen else _as_floats(np.asarray(source)))
    cells = filled[holes]
    # A masked array has holes even where its numbers are whole.
    array[holes.reshape(array.shape)] = np.rint(cells) if array.dtype.kind in "iu" else cells
    return array


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

    As `.npy`, an array is written as it is, and a table as one array of its columns. CSV has no
    types: categories are written as their cells, durations as seconds.

    Raises
    ------
    OutputExistsError
        Where the file exists and `force` is false.
    DataError
        Where it cannot be written, for example because the disk is full, or because a table for
        `.npy` holds more than numbers.
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

        pyarrow.csv.write_csv(for_csv(table), file)
    elif suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, file)
    elif isinstance(table, np.ndarray):
        np.save(file, table)
    else:
        np.save(file, one_array(table))


def for_csv(table: Any) -> Any:
    """Return an Arrow table whose columns can all be written as CSV, and read again as the same."""
    import pyarrow

    columns = [_for_csv(column) for column in table.columns]
    return pyarrow.Table.from_arrays(columns, names=table.column_names)


def _for_csv(column: Any) -> Any:
    """Return an Arrow column as one of a type that can be written, and read again as the same."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return _for_csv(column.cast(kind.value_type))
    if str(kind) == "string_view":
        return column.cast(pyarrow.large_string())
    if pyarrow.types.is_duration(kind):
        return pyarrow.array(arrow.read(column)[0], from_pandas=True)
    if pyarrow.types.is_time(kind):
        try:
            # Times of day with a fraction are no times to the reader.
            return column.cast(pyarrow.time32("s"))
        except pyarrow.ArrowInvalid:
            return column
    return column


def one_array(table: Any) -> Array:
    """Return the columns of an Arrow table as one array; raises DataError where one has none."""
    import pyarrow

    kinds = pyarrow.types
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
