"""Rows of any source: in memory, open where they do not fit into it, kept where they come once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from twofold.data import sources, streams
from twofold.data.files import Files, OpenFiles, most_bytes
from twofold.data.table import Format


def opened(
    X: Any,
    names: Sequence[str] | None = None,
    stream: bool | None = None,
    *,
    formats: Mapping[str, Format] | None = None,
    wanted: Mapping[str, str] | None = None,
    as_written: bool = False,
) -> Any:
    """Return rows in memory, or the open files if X names some that do not fit into it.

    `names` are the columns to read, by default all. With `stream` false, all rows are in memory.
    `formats`, `wanted` and `as_written` are those of `Files.open`.
    """
    if isinstance(X, OpenFiles) and stream is False:
        return X.load()
    X, scratch = at_hand(X, math.inf if stream is False else None)
    stream = True if scratch is not None else stream
    if sources.is_path(X) or isinstance(X, Files):
        files = X if isinstance(X, Files) else Files(X)
        X = files.open(names, stream, formats, wanted, as_written)
        if isinstance(X, OpenFiles):
            X.scratch = scratch
    return streams.apart(X, names) if isinstance(X, pa.Table) else X


def at_hand(X: Any, most: float | None = None) -> tuple[Any, streams.Scratch | None]:
    """Return rows that can be passed again and again, and the folder that they need.

    The rows of a stream become a table, or files in that folder where they are more than `most`
    bytes, by default a share of the memory that is free. Others stay what they are.
    """
    reader = streams.reader_of(X)
    if reader is None:
        return X, None
    table, scratch = streams.held(reader, most_bytes() if most is None else most)
    return (table, None) if scratch is None else (Files(scratch.name), scratch)
