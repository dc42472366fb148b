"""What is made of rows part by part, and parts put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from twofold.data import arrow, frames, sources
from twofold.data.files import OpenFiles
from twofold.errors import DataError

Result = TypeVar("Result")


def in_parts(rows: Any, verb: Callable[[Any], Result]) -> Iterator[tuple[Any, Result]]:
    """Give rows and what the verb makes of them: all at once, or part by part of open files."""
    if not isinstance(rows, OpenFiles):
        yield rows, verb(rows)
        return
    none = True
    for first, part in rows.chunks():
        none = False
        try:
            result = verb(part)
        except DataError as error:
            if first:
                raise DataError(f"Counted from row {first:,}: {error}") from error
            raise
        yield part, result
    if none:
        raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")


def together(parts: Sequence[Any]) -> Any:
    """Return tables, arrays or frames of one sort as one."""
    container = sources.container_of(parts[0])
    if len(parts) == 1:
        return parts[0]
    if container == "arrow":
        return pa.concat_tables(parts, promote_options="permissive")
    if container == "numpy":
        return np.concatenate(parts)
    if container == "torch":
        return torch.cat(list(parts))
    module = frames.extra(container)
    return module.concat(parts, **({"ignore_index": True} if container == "pandas" else {}))


def taken(rows: Any, numbers: NDArray[np.int64]) -> Any:
    """Return the rows of these numbers, in their order; of files, no other parts are read."""
    if isinstance(rows, np.ndarray):
        return rows[numbers]
    if not isinstance(rows, OpenFiles):
        # Arrow may put all chunks of a column together first, so it sees no more than needed.
        first, last = int(numbers.min()), int(numbers.max())
        return arrow.rows_at(rows.slice(first, last + 1 - first), numbers - first)
    order = np.argsort(numbers, kind="stable")
    found = []
    for part, first in zip(rows.parts, rows.first_rows, strict=True):
        at = first
        own = numbers[(numbers >= first) & (numbers < first + part.n_rows)]
        for batch in rows.batches(part, rows.chunk_rows()) if len(own) else ():
            here = np.sort(own[(own >= at) & (own < at + len(batch))]) - at
            at += len(batch)
            if len(here):
                is_array = isinstance(batch, np.ndarray)
                found.append(batch[here] if is_array else arrow.rows_at(pa.table(batch), here))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    every = together(found)
    return every[back] if isinstance(every, np.ndarray) else every.take(back)
