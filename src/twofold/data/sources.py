"""Sources of rows: arrays, data frames and files become a `Table`, and results go back alike."""

from __future__ import annotations

import glob
import lzma
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import frames, images
from twofold.data.table import Table
from twofold.errors import DataError

Array = NDArray[Any]
FILE_SUFFIXES = (
    *(
        ".csv",
        ".tsv",
        ".tab",
        ".psv",
        ".txt",
        ".data",
        ".dat",
        ".parquet",
        ".npy",
        ".npz",
        ".jsonl",
        ".ndjson",
        ".json",
        ".geojson",
    ),
    *(".arrow", ".feather", ".ipc", ".arrows", ".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
)
PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".lz4", ".xz", ".zip")
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
# What pandas reads files of other types with.
_READERS = {
    ".pkl": "read_pickle",
    ".pickle": "read_pickle",
    ".dta": "read_stata",
    ".sav": "read_spss",
    ".sas7bdat": "read_sas",
    ".xpt": "read_sas",
    ".h5": "read_hdf",
    ".hdf5": "read_hdf",
    ".orc": "read_orc",
    ".xml": "read_xml",
    ".html": "read_html",
    ".htm": "read_html",
    ".db": "read_sql",
    ".sqlite": "read_sql",
    ".sqlite3": "read_sql",
}


def is_path(source: Any) -> bool:
    """Whether the source names a file, a folder, a glob pattern, or several of these."""
    if isinstance(source, list | tuple):
        return bool(source) and all(isinstance(each, str | os.PathLike) for each in source)
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
        if not path.is_file():
            raise DataError(
                f"Expected a file, got {path}, which is a pipe or a device. Files are read more "
                f"than once: write what it gives to a file first."
            )
        paths = [path]
    else:
        found = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
        paths = [p for p in found if p.is_file()]
        if not paths:
            raise DataError(f"{source} does not exist, and matches no file as a pattern.")
    require_one_type(source, [str(path) for path in paths])
    suffixes = {suffix_of(path) for path in paths}
    if len(paths) > 1 and suffixes & {".npy", ".npz"}:
        raise DataError(f"{source} matches {len(paths)} array files; name one of them.")
    return paths


def require_one_type(source: object, paths: Sequence[str]) -> None:
    """Raise DataError if files are of several types, or of one that is not read."""
    suffixes = {suffix_of(path) for path in paths}
    if len(suffixes) == 1 and not suffixes <= set(FILE_SUFFIXES):
        suffix = suffixes.pop() or packing_of(paths[0])
        what = f"is of type {suffix}, which is not read" if suffix else "has no ending"
        raise DataError(f"{paths[0]} {what}. {_remedy(suffix)}")
    if len(suffixes) > 1 or not suffixes <= set(FILE_SUFFIXES):
        types = ", ".join(sorted(suffix or "none" for suffix in suffixes))
        raise DataError(
            f"{source} holds files of type {types}. Sources are files of one type out of "
            f"{', '.join(FILE_SUFFIXES)} (also with {', '.join(PACKED_SUFFIXES[:2])} after it)."
        )


def _remedy(suffix: str) -> str:
    """Say what to do with a file of a type that is not read."""
    if suffix in _ARCHIVES:
        return "Unpack it, and pass what is in it; an archive of one file may be called .csv.zip."
    if suffix in _READERS:
        return f"Read it with pandas.{_READERS[suffix]}, and pass the frame."
    types = ", ".join(FILE_SUFFIXES)
    return f"If it holds text, call it .csv; types that are read are {types}."


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return the ending that tells the type of a file, without that of its compression.

    Examples
    --------
    >>> suffix_of("rows.CSV.gz"), suffix_of("rows.parquet")
    ('.csv', '.parquet')
    """
    plain = Path(path)
    if plain.suffix.lower() in PACKED_SUFFIXES:
        plain = plain.with_suffix("")
    return plain.suffix.lower()


def title_of(source: str) -> str:
    """Return a name for what is made of a source: that of its file or folder, without its ending.

    Examples
    --------
    >>> title_of("data/rows.csv.gz"), title_of("s3://bucket/rows/*.parquet")
    ('rows', 'rows')
    """
    steps = [step for step in source.replace("\\", "/").split("/") if step.strip(".~")]
    named = [step for step in steps if not glob.has_magic(step)]
    last = named[-1] if named else "rows"
    return last.removesuffix(packing_of(last)).removesuffix(suffix_of(last)) or last


def packing_of(path: str | os.PathLike[str]) -> str:
    """Return the ending that says how a file is compressed, or ""."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in PACKED_SUFFIXES else ""


def _is_rows(path: Path) -> bool:
    # Text and JSON among other files are more often a description of them than rows.
    suffix = suffix_of(path)
    return suffix in FILE_SUFFIXES and suffix not in (".txt", ".json") and path.is_file()


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn what the readers raise at broken files into a DataError that names the file."""
    # TypeError and NotImplementedError are Arrow's, for types that it cannot read.
    broken = (OSError, ValueError, TypeError, NotImplementedError)
    try:
        yield
    except DataError:
        raise
    except (*broken, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        kind = Path(path).suffix[1:].upper()
        raise DataError(f"{path} cannot be read as {kind}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(". \n")


def load_array(path: Path) -> Array:
    """Return the array of an `.npy` file, which stays on disk, or the rows of an `.npz` file."""
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


def check_names(path: str | Path, names: Sequence[str]) -> None:
    """Raise DataError if two columns of a file have the same name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has more than one column {listed(twice)}. Rename one of each.")


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


def require_rows(source: Any) -> None:
    """Raise DataError if cells have names, and are in no frame."""
    what = ""
    if isinstance(source, Mapping) and not hasattr(source, "shape"):  # as sparse arrays have
        what = "a mapping"
    elif isinstance(source, list | tuple) and source and isinstance(source[0], Mapping):
        what = "a list of mappings"
    elif getattr(getattr(source, "dtype", None), "names", None):
        what = "an array of records"
    if what:
        raise DataError(f"Expected rows, got {what}. Pass pandas.DataFrame(X).")


def require_numbers(array: Array) -> None:
    """Raise DataError with the place of the first text cell of an array that holds text."""
    if array.dtype.kind not in "OUS":
        return
    for place, cell in np.ndenumerate(array):
        if isinstance(cell, str | bytes) and not _is_number(cell):
            column = place[1] if len(place) > 1 else 0
            row = place[0] if place else 0
            shown = np.asarray(cell).item()  # and not np.str_('a')
            raise DataError(
                f"Column {column} holds {shown!r} in row {row}. Arrays hold numbers: drop this "
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


def row_chunks(n_rows: int, width: int, most: int = 8192) -> Iterator[slice]:
    """Cut rows into slices small enough that applying a model needs little extra memory."""
    step = int(min(most, max(64, 2_000_000 // max(width, 1))))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
