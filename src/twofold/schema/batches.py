"""Batches of rows that stay on disk, as numbers: the levels of text are settled for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data import arrow, notation, sources
from twofold.data.arrow import Refused
from twofold.data.files import OpenFiles
from twofold.data.table import Format, Table
from twofold.errors import DataError

Array = NDArray[Any]
_MOST_TEXTS = 100_000  # different ones per column that are counted


class Texts:
    """The different cells of a column of text, in the order in which they turned up."""

    def __init__(self, kind: Any, levels: Sequence[Any] = (), learning: bool = True) -> None:
        self._declared = pa.types.is_dictionary(kind)
        self._codes = {level: code for code, level in enumerate(levels)}
        self._learning, self.overfull = learning, False
        self._last: Any = None
        self._last_codes = np.zeros(0)

    @property
    def levels(self) -> tuple[Any, ...]:
        """The cells that have a position; there is one position more, for all others."""
        return tuple(self._codes)

    def order(self) -> NDArray[np.int64]:
        """Return the positions in the order that levels have: sorted, unless types declare one."""
        if self._declared:
            return np.arange(len(self._codes))
        return np.array(sorted(range(len(self._codes)), key=self.levels.__getitem__), np.int64)

    def codes_of(self, levels: Sequence[Any], overfull: bool) -> Array:
        """Return the positions of levels that others have found, and that of all their others."""
        codes = [self._code(level) for level in levels]
        self.overfull |= overfull
        return np.array([*codes, _MOST_TEXTS], np.float64)

    def read(self, column: Any) -> Array:
        """Return the position of each cell, NaN for missing ones."""
        if not self._declared:
            column = column.cast(pa.large_string()).dictionary_encode()
        found = column.dictionary
        if self._last is None or not found.equals(self._last):
            plain = found if _is_plain(found.type) else found.cast(pa.string())
            codes = [self._code(level) for level in plain.to_pylist()]
            self._last, self._last_codes = found, np.array(codes, np.float64)
        return arrow.looked_up(self._last_codes, _positions(column.indices))

    def _code(self, level: Any) -> float:
        if level is None or level != level:
            return np.nan
        code = self._codes.get(level)
        if code is None and self._learning and not self.overfull:
            if len(self._codes) < _MOST_TEXTS:
                code = self._codes[level] = len(self._codes)
            else:
                self.overfull = True
        return len(self._codes) if code is None else code


def _positions(indices: Any) -> Array:
    return np.asarray(indices.cast(pa.int64()).fill_null(-1))


def _is_plain(kind: Any) -> bool:
    t = pa.types
    text = str(kind) in ("string", "large_string", "string_view")
    return text or t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind)


class Reader:
    """Turns batches of a source into numbers, whatever part of it they are of.

    `read` of `twofold.data.sources` does the same for a whole table; here, the levels of text are
    settled for all rows. Columns that are not `seen` are not read, and are missing.
    """

    def __init__(
        self,
        source: OpenFiles,
        levels: Sequence[Sequence[Any]] | None = None,
        seen: Sequence[bool] | None = None,
    ) -> None:
        schema = source.schema
        self._row_shape = source.row_shape
        self.texts: dict[int, Texts] = {}
        self.formats: tuple[Format, ...] | None = None
        self._settled: tuple[Format, ...] | None = None
        self._seen: list[int] = []
        self.names: list[str] | None = None
        self.dtype: np.dtype[Any] | None = None
        self._plain = False
        if schema is None:
            return
        types = list(schema.types)
        self.formats, dtypes = _formats(schema)
        small = all(d.itemsize <= (4 if d.kind == "f" else 2) for d in dtypes)
        self.dtype = np.dtype(np.float32 if small else np.float64)
        self._seen = [i for i in range(len(types)) if seen is None or seen[i]]
        self._names, self._width = tuple(schema.names), len(types)
        self._schema = schema
        if levels is not None:
            known = zip(self.formats, levels, strict=True)
            self._settled = tuple(replace(f, levels=tuple(t)) for f, t in known)
        for i in self._seen:
            if self.formats[i].type == "text":
                given = () if levels is None else levels[i]
                self.texts[i] = Texts(types[i], given, learning=levels is None)
        whole = len(self._seen) == len(types)
        # One copy for all columns where they are floats of one type already.
        kind = pa.from_numpy_dtype(self.dtype)
        self._plain = whole and all(t == kind for t in types)
        self.names = None if whole else [schema.names[i] for i in self._seen]

    def values(self, batch: Any) -> Array:
        """Return the numbers of a record batch or an array, `(n_rows, n_columns)`."""
        if self.dtype is None:
            return sources.read(batch).values
        if self._plain:
            return arrow.float_cells(batch)
        values = np.empty((len(batch), self._width), self.dtype)
        if len(self._seen) < self._width:
            values.fill(np.nan)
        for place, i in enumerate(self._seen):
            column = batch.column(place)
            text = self.texts.get(i)
            values[:, i] = (
                text.read(column) if text is not None else arrow.read(arrow.chunked(column))[0]
            )
        return values

    def table(self, values: Array) -> Table:
        """Return rows as a table, with the levels that are known by now."""
        if self.formats is None:
            return Table(values, None, self._row_shape, "numpy")
        formats = self._settled or tuple(
            replace(form, levels=self.texts[i].levels) if i in self.texts else form
            for i, form in enumerate(self.formats)
        )
        table = Table(values, self._names, self._row_shape, "arrow", None, formats)
        return arrow.with_layout(table, self._schema)


def _formats(schema: Any) -> tuple[tuple[Format, ...], list[np.dtype[Any]]]:
    """Return the format and the numpy type of each column, whatever its cells."""
    formats, dtypes, mistakes = [], [], []
    for name, kind in zip(schema.names, schema.types, strict=True):
        try:
            cells, form = arrow.read(pa.chunked_array([], kind))
        except Refused as reason:
            mistakes.append(f"Column '{name}' {reason}. {reason.remedy}")
        else:
            formats.append(
                replace(
                    form,
                    notation=notation.of_field(schema.field(name)),
                    is_id=notation.is_id(schema.field(name)),
                )
            )
            dtypes.append(cells.dtype)
    if mistakes:
        raise DataError(" ".join(mistakes))
    return tuple(formats), dtypes
