"""Rows that come as an Arrow stream or a Parquet file, from senders who may mean harm.

What they declare is bounded before anything is decoded, and what was decoded is validated before
it is used.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.errors import DataError, TwofoldError
from twofold.service import upload_limits
from twofold.service.errors import Refusal
from twofold.service.upload_limits import Bounds

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
_MOST_COLUMNS = 100_000
_MOST_FIXED = 64  # bytes of a cell of fixed length: the widest decimals take 32
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError, struct.error)
_TEXTS = ("string", "large_string", "string_view")
# The types whose cells are numbers, text, booleans or times, by their numbers in Arrow.
_CELLS = frozenset(
    pa.type_for_alias(name).id
    for name in (
        *("null", "bool", "string", "large_string", "date32", "date64", "time32[s]", "time64[us]"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "timestamp[us]", "duration[us]"),
    )
) | {
    getattr(pa, name)(*arguments).id
    for name, arguments in {
        **{f"decimal{bits}": (5, 2) for bits in (32, 64, 128, 256)},
        "string_view": (),
    }.items()
    if hasattr(pa, name)  # older versions lack some
}


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn what the readers raise at broken bodies into a Refusal."""
    try:
        yield
    except TwofoldError:
        raise
    except _BROKEN as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise Refusal(
            400,
            f"The body cannot be read as {what}: {reason[:500]}.",
            "Send the bytes as they were written, with the content type of their format.",
        ) from None


def read_stream(body: bytes, wanted: Sequence[str] | None, bounds: Bounds) -> Any:
    """Return the rows of an Arrow stream as a table: the columns `wanted`, if all are there.

    Raises
    ------
    Refusal
        Where it is none, or declares more than the bounds.
    DataError
        Where a column holds no cells, but lists or structs.
    """
    buffer = pa.py_buffer(body)
    with _reading("an Arrow stream"):
        upload_limits.check_stream(buffer, bounds)
        with pa.ipc.open_stream(buffer) as stream:
            chosen = _chosen(stream.schema, wanted)
            table = stream.read_all()
        if chosen != list(range(table.num_columns)):
            table = table.select(chosen)
        # Nothing that a stranger sends is true before this: offsets may lead anywhere.
        table.validate(full=True)
        bounds.check_rows(table.num_rows)
        _check_dictionaries(table, bounds)
    return table.replace_schema_metadata(None)


def read_file(body: bytes, wanted: Sequence[str] | None, bounds: Bounds) -> Any:
    """Return the rows of a Parquet file, as `read_stream` does."""
    import pyarrow.parquet as pq

    settings: dict[str, Any] = {
        "pre_buffer": False,
        "thrift_string_size_limit": max(1, len(body)),
        "thrift_container_size_limit": 1_000_000,
    }
    buffer = pa.py_buffer(body)
    with _reading("a Parquet file"):
        upload_limits.check_file(body, bounds)
        file = pq.ParquetFile(pa.BufferReader(buffer), **settings)
        schema = file.schema_arrow
        _require_different(schema.names)
        names = [schema.names[i] for i in _chosen(schema, wanted)]
        kinds = {name: schema.field(name).type for name in names}
        upload_limits.check_pages(body, _places(file.schema, kinds), bounds)
        # Texts stay in their dictionaries until it is known how long they would be without.
        texts = [name for name, kind in kinds.items() if _is_text(kind)]
        file = pq.ParquetFile(pa.BufferReader(buffer), read_dictionary=texts, **settings)
        table = file.read(columns=names, use_threads=False)
        table.validate(full=True)
        bounds.check_rows(table.num_rows)
        _check_dictionaries(table, bounds)
        arrays = [_as_written(table.column(name), kind) for name, kind in kinds.items()]
    return pa.Table.from_arrays(arrays, names=names)


READERS: dict[str, Callable[[bytes, Sequence[str] | None, Bounds], Any]] = {
    ARROW: read_stream,
    PARQUET: read_file,
}


def _chosen(schema: Any, wanted: Sequence[str] | None) -> list[int]:
    """Return the positions of the columns to read: the model's, if all are there, or else all.

    Raises DataError where one of them holds lists, structs and their like: a few bytes can stand
    for billions of such cells.
    """
    names = schema.names
    if len(names) > _MOST_COLUMNS:
        raise upload_limits.too_odd(f"This table has {len(names):,} columns.")
    chosen = list(range(len(names)))
    if wanted is not None and names != wanted:
        _require_different(names)
        place = {name: i for i, name in enumerate(names)}
        if place.keys() >= set(wanted):
            chosen = [place[name] for name in wanted]
    kinds = schema.types
    if not {kinds[i].id for i in chosen} <= _CELLS:
        for i in chosen:
            kind = kinds[i].value_type if pa.types.is_dictionary(kinds[i]) else kinds[i]
            if kind.id not in _CELLS:
                raise DataError(
                    f"Column '{names[i]}' is of the type {str(kinds[i])[:200]}. Cells are numbers, "
                    f"text, booleans or times: drop what is none of these, or take it apart into "
                    f"columns that are."
                )
    return chosen


def _require_different(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"The table has more than one column '{twice[:100]}'. Rename one of each.")


def _places(physical: Any, kinds: dict[str, Any]) -> list[int]:
    """Return the numbers of columns in a Parquet file, where none of them is nested."""
    place = {physical.column(i).path: i for i in range(len(physical))}
    for name, kind in kinds.items():
        column = physical.column(place[name]) if name in place else None
        if column is None or column.max_repetition_level:
            raise upload_limits.too_odd(f"Column '{name[:100]}' is no plain column of this file.")
        long = column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > _MOST_FIXED
        if long or (column.physical_type == "BYTE_ARRAY" and not _is_text(kind)):
            raise upload_limits.too_odd(f"Column '{name[:100]}' has cells of an odd length.")
    return [place[name] for name in kinds]


def _is_text(kind: Any) -> bool:
    return str(kind.value_type if pa.types.is_dictionary(kind) else kind) in _TEXTS


def _as_written(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return column.cast(kind)
    return column.cast(pa.large_string()).cast(kind)


def _check_dictionaries(table: Any, bounds: Bounds) -> None:
    """Raise Refusal where texts that are stored once come to too much when they are written out."""
    total = 0
    for kind, column in zip(table.schema.types, table.columns, strict=True):
        if not pa.types.is_dictionary(kind) or not _is_text(kind):
            continue
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary.cast(pa.large_string()))
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    bounds.check_expanded(total)
