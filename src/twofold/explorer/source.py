"""The rows of a source as someone looks at them: cells, columns as numbers, what stands out, files.

A source holds the columns that a model was trained on, and may hold others, such as known labels,
which the model never sees but which distinguish rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import convert, files, sources
from twofold.data import json as cells
from twofold.data.rows import opened
from twofold.data.table import Format
from twofold.errors import DataError
from twofold.schema.schema import Schema

Array = NDArray[Any]
Cell = str | float | int | bool | None
MOST_LEVELS = 12  # that colours can distinguish, the one for all others included
_KEPT_COLUMNS = 8  # as numbers, for those who ask again


@dataclass(frozen=True)
class SourceColumn:
    """One column of a source: a model's `own`, or another one at a position of its own counting.

    `type` is "number", "boolean", "text" or "time".
    """

    name: str
    type: str
    own: bool
    position: int


@dataclass(frozen=True)
class Shades:
    """A column for a picture: numbers, or positions among at most `MOST_LEVELS` levels.

    Missing cells are NaN. `rest` is the position of the level that stands for all rare ones.
    """

    values: NDArray[np.float32]
    levels: tuple[str, ...] | None = None
    rest: int | None = None


@dataclass(frozen=True)
class Difference:
    """How a column of some rows differs from that of all rows, in standard deviations of all rows.

    Of numbers, `here` and `everywhere` are means; of levels, shares of `level`, the most frequent
    one among the chosen rows, whose difference may be smaller than that of another level.
    """

    column: SourceColumn
    difference: float
    here: float
    everywhere: float
    level: Cell = None


class Source:
    """Rows in memory or on disk, of which the model reads its own columns only.

    Parameters
    ----------
    rows : array or Arrow table
        What the model reads, `n_rows` long.
    extras : Arrow table
        Further columns of the same rows.
    schema : Schema
        What the model knows of its columns.
    """

    def __init__(self, rows: Any, extras: Any, schema: Schema) -> None:
        self._rows, self._extras, self.schema = rows, extras, schema
        self.n_rows = len(rows)
        formats = self._formats(extras)
        self.extras = tuple(
            SourceColumn(name, form.type, False, i)
            for i, (name, form) in enumerate(zip(extras.column_names, formats, strict=True))
        )
        own = self._formats(rows)
        self.own = tuple(
            SourceColumn(name, form.type, True, i)
            for i, (name, form) in enumerate(zip(schema.names, own, strict=True))
        )
        # A method of its own would keep every source alive that ever asked.
        self.numbers = lru_cache(_KEPT_COLUMNS)(self._numbers)

    @classmethod
    def read(cls, source: Any, schema: Schema) -> Source:
        """Read a path or take rows in memory: arrays, and pandas, polars or Arrow tables.

        An `.npz` file may hold arrays other than `X`, with one number or text per row.

        Raises
        ------
        DataError
            If the source cannot be read or lacks a column.
        """
        names = schema.names if schema.named else None
        formats = schema.training_formats
        rows = _in_arrow(opened(source, stream=False, formats=formats))
        source = source.source if isinstance(source, files.Files) else source
        if isinstance(rows, np.ndarray):
            return cls(rows, _beside(source, rows), schema)
        if names is None:
            return cls(rows, rows.select([]), schema)
        if not set(names) <= set(rows.column_names):
            _require(rows.column_names, names, source)
        others = [name for name in rows.column_names if name not in set(names)]
        extras = rows.select([name for name in others if _is_readable(rows.select([name]))])
        return cls(rows.select(list(names)), extras, schema)

    def _formats(self, rows: Any) -> Sequence[Format]:
        if isinstance(rows, np.ndarray):
            return [Format("number", "")] * math.prod(rows.shape[1:])
        if not rows.column_names:
            return []
        return sources.read(rows.slice(0, 1)).formats or []

    @property
    def is_array(self) -> bool:
        """Whether the model's rows are an array."""
        return isinstance(self._rows, np.ndarray)

    def part(self, rows: slice) -> Any:
        """Return some of the rows as the model reads them."""
        if self.is_array:
            return self._rows[rows]
        return self._rows.slice(rows.start, rows.stop - rows.start)

    def cells(self, row: int) -> tuple[list[Cell], list[Cell]]:
        """Return one row's cells as JSON has them: the model's columns, and the others."""
        part = slice(row, row + 1)
        return _cells(self.part(part)), _cells(self._extras.slice(row, 1))

    def name_of(self, row: int) -> str | None:
        """Return what names a row; None if no column does, or its cell is missing."""
        if self.is_array or self.schema.id_column is None:
            return None
        part = self.part(slice(row, row + 1)).select([self.schema.id_column])
        found = cells.rows(part)[0][0]
        return None if found is None else str(found)

    def _numbers(self, column: SourceColumn) -> tuple[Array, tuple[Any, ...]]:
        """Return a column's cells as numbers, `(n_rows,)`, and what positions stand for in text."""
        if column.own and self.is_array:
            return np.asarray(self._flat()[:, column.position], dtype=np.float64), ()
        table = self._rows if column.own else self._extras
        read = sources.read(table.select([column.position]))
        assert read.formats is not None
        return read.values[:, 0].astype(np.float64, copy=False), read.formats[0].levels

    def _flat(self) -> Array:
        return np.asarray(self._rows.reshape(self.n_rows, -1))

    def shades(self, column: SourceColumn) -> Shades:
        """Return a column for a picture.

        Texts, booleans and few different whole numbers are levels: texts the commonest first,
        numbers in their order.
        """
        values, texts = self.numbers(column)
        known = values[~np.isnan(values)]
        if column.type in ("text", "boolean"):
            found, counts = np.unique(known, return_counts=True)
            commonest = np.argsort(-counts, kind="stable")
            order = found if column.type == "boolean" else found[commonest]
            names = [_level(place, column.type, texts) for place in order.tolist()]
            return _ranked(values, order, [str(name) for name in names])
        if column.type == "number" and len(known):
            few = _few_whole_numbers(known)
            if few is not None:
                return _ranked(values, few, [f"{number:.0f}" for number in few])
        return Shades(values.astype(np.float32))

    def differences(self, chosen: NDArray[np.bool_]) -> list[Difference]:
        """Return how the columns of the chosen rows differ from all rows.

        The largest difference comes first. Of images, which `means` shows better, only the columns
        that are not pixels are compared.
        """
        found: list[Difference] = []
        if self.schema.is_image:
            pass
        elif self.is_array:
            here, everywhere, spread = self.means(chosen)
            size = np.zeros(len(here))
            np.divide(here - everywhere, spread, out=size, where=spread > 0)
            size[~np.isfinite(size)] = 0
            parts = zip(size.tolist(), here.tolist(), everywhere.tolist(), strict=True)
            found = [Difference(self.own[i], *part) for i, part in enumerate(parts)]
        else:
            found = [self._difference(column, chosen) for column in self.own]
        found += [self._difference(column, chosen) for column in self.extras]
        return sorted(found, key=lambda one: -abs(one.difference))

    def _difference(self, column: SourceColumn, chosen: NDArray[np.bool_]) -> Difference:
        values, texts = self.numbers(column)
        seen = ~np.isnan(values)
        here = values[chosen & seen]
        known = values[seen]
        # A number that the model does not see is more often a name for something than an amount.
        named = not column.own and len(known) > 0 and _few_whole_numbers(known) is not None
        if column.type in ("text", "boolean") or named:
            return _difference_of_levels(column, known, here, texts)
        if len(here) == 0 or len(known) == 0:
            return Difference(column, 0.0, math.nan, math.nan)
        mean, spread = float(known.mean()), float(known.std())
        size = (float(here.mean()) - mean) / spread if spread > 0 else 0.0
        return Difference(column, size, float(here.mean()), mean)

    def means(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Array, Array, Array]:
        """Return an array's means of the chosen rows and of all, and the spreads of all.

        Each is `(n_columns,)`; missing cells count nothing.
        """
        flat, width = self._flat(), len(self.own)
        center = np.nan_to_num(flat[0].astype(np.float64))
        sums = np.zeros((2, width))
        squares, counts = np.zeros(width), np.zeros((2, width))
        for at in sources.row_chunks(self.n_rows, width):
            part = flat[at].astype(np.float64) - center
            here = np.zeros(len(part), dtype=bool) if chosen is None else chosen[at]
            seen = ~np.isnan(part)
            part[~seen] = 0
            sums += part[here].sum(axis=0), part.sum(axis=0)
            counts += seen[here].sum(axis=0), seen.sum(axis=0)
            squares += np.square(part).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
            spread = np.sqrt(np.maximum(squares / counts[1] - means[1] ** 2, 0))
        return means[0] + center, means[1] + center, spread

    def spreads(self) -> list[float]:
        """Return the standard deviation of each of the model's columns; 0 for text."""
        if self.is_array:
            return [float(spread) for spread in np.nan_to_num(self.means()[2])]
        found = []
        for column in self.own:
            values = self.numbers(column)[0]
            known = values[~np.isnan(values)]
            plain = column.type in ("number", "time") and len(known) > 0
            found.append(float(known.std()) if plain else 0.0)
        return found

    def table(self, chosen: NDArray[np.bool_], more: dict[str, Array]) -> Any:
        """Return the chosen rows as an Arrow table: row numbers, all columns, and `more`."""
        import pyarrow as pa

        numbers = np.flatnonzero(chosen)
        if self.is_array:
            rows = convert.to_arrow(self._flat()[numbers], self.schema.names)
        else:
            rows = self._rows.take(numbers)
        parts = [*zip(rows.column_names, rows.columns, strict=True)]
        extras = self._extras.take(numbers)
        parts += zip(extras.column_names, extras.columns, strict=True)
        taken = {name for name, _ in parts}
        parts.insert(0, (_free("row", taken), pa.array(numbers)))
        parts += [(_free(name, taken), pa.array(values[numbers])) for name, values in more.items()]
        return pa.Table.from_arrays([part for _, part in parts], names=[name for name, _ in parts])


def _in_arrow(rows: Any) -> Any:
    """Return rows in memory as an array or an Arrow table."""
    container = sources.container_of(rows)
    if container == "pandas":
        import pyarrow as pa

        return pa.Table.from_pandas(rows, preserve_index=False)
    if container == "polars":
        return rows.to_arrow()
    if container == "torch":
        return rows.detach().cpu().numpy()
    if container == "numpy":
        array = np.asarray(rows)
        sources.require_numbers(array)
        return array
    return rows


def _beside(source: Any, rows: Array) -> Any:
    """Return the arrays of an `.npz` file that hold one cell per row of its `X`."""
    import pyarrow as pa

    found: dict[str, Any] = {}
    if sources.is_path(source) and Path(source).suffix.lower() == ".npz":
        with np.load(Path(source).expanduser(), allow_pickle=False) as arrays:
            for name in arrays.files:
                try:
                    array = arrays[name]
                except ValueError:  # Python objects, which only running code could read
                    continue
                if array.shape == (len(rows),) and array.dtype.kind in "biufU":
                    found[name] = pa.array(array)
    return pa.table(found)


def _require(there: Sequence[str], names: Sequence[str], source: Any) -> None:
    """Raise what reading the file does where it lacks columns, or the same for rows in memory."""
    if sources.is_path(source):
        files.load(source, columns=names)
    missing = [name for name in names if name not in there]
    raise DataError(f"The rows have no column {', '.join(map(repr, missing[:20]))}.")


def _is_readable(column: Any) -> bool:
    try:
        sources.read(column)
    except DataError:  # lists, say
        return False
    return True


def _cells(rows: Any) -> list[Cell]:
    if isinstance(rows, np.ndarray):
        flat: list[Cell] = rows.reshape(-1).tolist()
        return flat
    return list(cells.rows(rows)[0])


def _level(place: float, type_of_cells: str, texts: tuple[Any, ...]) -> Cell:
    if type_of_cells == "boolean":
        return bool(place)
    return str(texts[int(place)]) if texts else int(place)


def _few_whole_numbers(known: Array) -> Array | None:
    """Return the distinct cells in order, where they are few and whole."""
    # Most columns are settled by their first cells.
    for some in (known[:1000], known):
        found = np.unique(some)
        if len(found) > MOST_LEVELS or not (found == np.rint(found)).all():
            return None
    return found


def _ranked(values: Array, order: Array, names: list[str]) -> Shades:
    """Give cells their level's place in `order`, and those beyond the last colour one together."""
    shown = len(order) if len(order) <= MOST_LEVELS else MOST_LEVELS - 1
    rank = np.argsort(order)
    places = np.searchsorted(order[rank], np.where(np.isnan(values), order[:1].sum(), values))
    ranked = np.minimum(rank[np.minimum(places, len(order) - 1)], shown) if len(order) else values
    shades = np.where(np.isnan(values), np.nan, ranked).astype(np.float32)
    if shown == len(order):
        return Shades(shades, tuple(names))
    others = f"{len(order) - shown:,} others"
    return Shades(shades, (*names[:shown], others), shown)


def _difference_of_levels(
    column: SourceColumn, known: Array, here: Array, texts: tuple[Any, ...]
) -> Difference:
    if len(here) == 0:
        return Difference(column, 0.0, math.nan, math.nan, "")
    found, places = np.unique(known, return_inverse=True)
    everywhere = np.bincount(places) / len(known)
    share = np.bincount(np.searchsorted(found, here), minlength=len(found)) / len(here)
    # As if each level were a column of 0 and 1.
    spread = np.sqrt(everywhere * (1 - everywhere))
    size = np.zeros(len(found))
    np.divide(share - everywhere, spread, out=size, where=spread > 0)
    most = int(share.argmax())
    largest = float(np.abs(size).max())
    level = _level(float(found[most]), column.type, texts)
    return Difference(column, largest, float(share[most]), float(everywhere[most]), level)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
