"""Rows of other libraries, which hand them over as a stream of Arrow batches.

Data sets of Arrow, lazy frames of polars, readers, relations of DuckDB, data sets of Hugging Face:
whatever can give Arrow's C stream; and tables of Delta and Iceberg. A stream is passed once, so
rows that do not fit into memory are kept in a file for the time that they are used.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from twofold.data import sources
from twofold.errors import DataError

_FILE_ROWS = 65_536  # of a row group


class Scratch:
    """A folder that is removed when nobody has this object any more."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="twofold-rows-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # the folder is this process's alone


def reader_of(rows: Any) -> Any:
    """Return a reader of the rows' batches, None where they are of another sort."""
    if isinstance(rows, pa.RecordBatchReader):
        return rows
    if isinstance(rows, pa.dataset.Dataset | pa.dataset.Scanner):
        scanner = rows if isinstance(rows, pa.dataset.Scanner) else rows.scanner()
        return scanner.to_reader()
    module, name = type(rows).__module__.partition(".")[0], type(rows).__name__
    if (module, name) == ("polars", "LazyFrame"):
        return pa.RecordBatchReader.from_stream(rows.collect())
    if (module, name) == ("deltalake", "DeltaTable"):
        return reader_of(rows.to_pyarrow_dataset())
    if (module, name) == ("pyiceberg", "Table"):
        return rows.scan().to_arrow_batch_reader()
    if module == "datasets" and name in ("Dataset", "IterableDataset"):
        return _of_hugging_face(rows)
    known = sources.container_of(rows) != "numpy" or (module, name) == ("pandas", "Series")
    if known or not hasattr(rows, "__arrow_c_stream__"):
        return None
    return pa.RecordBatchReader.from_stream(rows)


def _of_hugging_face(rows: Any) -> Any:
    """Return a reader of a data set of Hugging Face, whose rows may be chosen or made as they come.

    Raises
    ------
    DataError
        If there are no rows, and nothing says what its columns would be.
    """
    parts = rows.with_format("arrow").iter(_FILE_ROWS)
    first = next(parts, None)
    if first is None and rows.features is None:
        raise DataError("Expected a data set with rows, got one without. Check what it is made of.")
    schema = rows.features.arrow_schema if first is None else first.schema
    schema = schema.remove_metadata()
    given = itertools.chain([] if first is None else [first], parts)
    batches = (batch for part in given for batch in part.cast(schema).to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)


def held(reader: Any, most: float) -> tuple[Any, Any]:
    """Return all rows of a stream as a table, or the folder that they went to.

    The folder is taken where rows are more than `most` bytes.
    """
    batches, n_bytes = [], 0
    for batch in reader:
        batches.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > most:
            folder = Scratch()
            place = Path(folder.name, "rows.parquet")
            with pa.parquet.ParquetWriter(place, reader.schema) as writer:
                while batches:
                    writer.write_batch(batches.pop(0), _FILE_ROWS)
                for left in reader:
                    writer.write_batch(left, _FILE_ROWS)
            return None, folder
    return pa.Table.from_batches(batches, reader.schema), None


def is_list(kind: Any) -> bool:
    """Whether cells are lists of numbers, such as embeddings."""
    t = pa.types
    lists = t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
    return bool(lists and (t.is_integer(kind.value_type) or t.is_floating(kind.value_type)))


def columns_with(names: Sequence[str], there: Collection[str]) -> list[str]:
    """Return which columns hold the numbers of these names: x holds x[0], if x[0] is not there."""
    held = [name if name in there else name.rpartition("[")[0] or name for name in names]
    return list(dict.fromkeys(held))


def apart(table: Any, names: Any = None) -> Any:
    """Return a table with a column for each number of its lists: x[0], x[1], ...

    Parameters
    ----------
    table : pyarrow.Table
    names : sequence of str, optional
        The columns a model was trained on.

    Raises
    ------
    DataError
        If the lists of a column are not of one length.
    """
    if not any(map(is_list, set(table.schema.types))):
        return table
    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not is_list(column.type):
            columns[name] = column
            continue
        lengths = pc.list_value_length(column)
        found = pc.min_max(lengths).as_py()
        if found["min"] != found["max"]:
            row = pc.index(pc.not_equal(lengths, found["max"]), True).as_py()
            raise DataError(
                f"Column '{name}' holds lists of {found['min']} to {found['max']} numbers (row "
                f"{row} has {lengths[row]}). Expected one length: fill the shorter ones, or drop "
                f"the column."
            )
        for i in range(found["max"] or 0):
            columns[f"{name}[{i}]"] = pc.list_element(column, i)
    flat = pa.table(columns)
    wanted = names is not None and set(names) <= set(columns)
    return flat.select(list(names)) if wanted else flat
