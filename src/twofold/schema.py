"""What each column is, and how a table becomes the matrix that the network sees, and back.

A `Table` is the caller's rows in one numeric array, with enough memory of where they came from to
give results back alike. A `Schema` holds one `Column` per column of the training table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from twofold.errors import DataError

Array = NDArray[Any]
_CHUNK_CELLS = 4_000_000  # keeps the temporary arrays of one pass near 32 MB
_RANGE_SLACK = 1e-6  # rounding that [0, 1] data may carry


@dataclass(frozen=True)
class Table:
    """Rows from any source: numbers `(n_rows, n_columns)`, and how to hand results back alike.

    `names` is None where the source names no columns. `row_shape` is the shape of one row, `(28,
    28)` for images. `container` is "numpy", "pandas", "polars", "arrow" or "torch"; `index` is the
    row index of a pandas frame.
    """

    values: Array
    names: tuple[str, ...] | None = None
    row_shape: tuple[int, ...] = ()
    container: str = "numpy"
    index: Any = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.values.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of columns; an image has one per pixel."""
        return int(self.values.shape[1])

    @property
    def is_image(self) -> bool:
        """Whether a row is an array of more than one axis."""
        return len(self.row_shape) > 1

    def name(self, column: int) -> str:
        """Name a column in a message: its name where it has one, else its number."""
        return f"'{self.names[column]}'" if self.names else str(column)

    def check_finite(self, first_row: int = 0) -> None:
        """Raise DataError with the place of the first cell that is missing or infinite."""
        for start, rows in _row_chunks(self.values):
            # One sum is finite only where every cell is; it needs no array of flags.
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(rows.sum()):
                    continue
            bad = ~np.isfinite(rows)
            if not bad.any():
                continue
            row, column = (int(i) for i in np.argwhere(bad)[0])
            columns = np.flatnonzero(bad.any(axis=0))
            what = "NaN" if np.isnan(rows[row, column]) else "infinity"
            more = f" ({len(columns)} columns hold such cells)" if len(columns) > 1 else ""
            raise DataError(
                f"Input contains NaN or infinity: column {self.name(column)} holds {what} in row "
                f"{first_row + start + row}{more}. Fill or drop the rows with missing cells first."
            )


@dataclass(frozen=True)
class Column:
    """One column of the training table.

    The network sees `(value - center) / scale`. `kind` is "real", "binary" (only 0 and 1) or
    "pixel" (a grey value); `likelihood` says how its cells are modelled.
    """

    name: str
    kind: str
    likelihood: str
    center: float = 0.0
    scale: float = 1.0
    constant: bool = False
    width: int = 1


@dataclass(frozen=True)
class Schema:
    """What every column of a table is: kind, likelihood and scaling, inferred once by `infer`.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold.schema import Schema, Table
    >>> table = Table(np.array([[1.0, 0.0], [3.0, 1.0]]), names=("height", "smoker"))
    >>> print(Schema.infer(table))
    2 columns: 1 real (gaussian), 1 binary (bernoulli)
    """

    columns: tuple[Column, ...]
    row_shape: tuple[int, ...]
    container: str = "numpy"
    named: bool = False

    @classmethod
    def infer(cls, table: Table, likelihood: str | Mapping[str, str] = "auto") -> Schema:
        """Work out each column's kind from its values, and its likelihood from its kind.

        Images, and tables whose cells all lie in [0, 1] and reach beyond one half, are pixels;
        unsigned bytes are pixels of 255 levels. A table whose columns each run from 0 to 1 in many
        steps was min-max scaled, which says nothing about its kind: its columns are real. Of what
        is left, columns that hold only 0 and 1 are binary, and all others are real.

        Raises
        ------
        DataError
            Where "bernoulli" is asked for a column with values outside [0, 1], or `likelihood`
            names a column that the table does not have.
        """
        stats = _Statistics.of(table.values)
        names = table.names or tuple(f"x{i}" for i in range(table.n_columns))
        levels = _pixel_levels(table, stats)
        wanted = _wanted_likelihoods(names, likelihood)
        with np.errstate(over="ignore", invalid="ignore"):
            pooled = float(np.sqrt(np.mean(stats.std**2))) or 1.0
        columns = []
        for i, name in enumerate(names):
            kind = "pixel" if levels else ("binary" if stats.is_binary(i) else "real")
            chosen = wanted[i] if wanted[i] != "auto" else _LIKELIHOOD_OF_KIND[kind]
            constant = bool(stats.low[i] == stats.high[i])
            if chosen == "bernoulli":
                top = levels or 1.0
                _require_unit_range(name, stats.low[i] / top, stats.high[i] / top)
                center, scale = 0.0, top
            else:
                # One scale for all pixels: squared error stays that of the image, and pixels
                # that hardly ever vary are not blown up.
                scale = pooled if kind == "pixel" else float(stats.std[i])
                center = float(stats.low[i] if constant else stats.mean[i])
                if constant and kind != "pixel":
                    # So small a unit that reconstructions hardly stray, and so large a one that
                    # the rounding of another precision is nothing.
                    scale = 0.01 * (abs(center) or 1.0)
            if not np.isfinite([scale, center, float(stats.std[i])]).all():
                raise DataError(
                    f"Column '{name}' spans too wide a range to be scaled (from {stats.low[i]:g} "
                    f"to {stats.high[i]:g}). Divide it by a power of ten first."
                )
            columns.append(Column(name, kind, chosen, center, scale or 1.0, constant))
        row_shape = table.row_shape or (table.n_columns,)
        return cls(tuple(columns), row_shape, table.container, table.names is not None)

    @property
    def width(self) -> int:
        """Number of inputs of the network."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names; x0, x1, ... where the training table had none."""
        return tuple(column.name for column in self.columns)

    @property
    def is_image(self) -> bool:
        """Whether a row is an array of more than one axis."""
        return len(self.row_shape) > 1

    @cached_property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each column, `(n_columns,)`, in the column's unit."""
        return np.array([column.center for column in self.columns])

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """What each column is then divided by, `(n_columns,)`, in the column's unit."""
        return np.array([column.scale for column in self.columns])

    @cached_property
    def _near_zero(self) -> bool:
        """Whether 32-bit numbers hold the columns' centers to a small part of their spreads."""
        tiny = np.finfo(np.float32).tiny
        digits = np.abs(self.center) <= 1e3 * self.scale
        return bool(np.all(digits & (self.scale > tiny) & (self.scale < 1 / tiny)))

    @cached_property
    def _bounded(self) -> NDArray[np.bool_]:
        return np.array([column.likelihood == "bernoulli" for column in self.columns])

    def likelihoods(self) -> dict[str, list[int]]:
        """Return, for each likelihood in use, the positions of its columns."""
        groups: dict[str, list[int]] = {}
        for position, column in enumerate(self.columns):
            groups.setdefault(column.likelihood, []).append(position)
        return groups

    def to_matrix(self, table: Table, dtype: DTypeLike, first_row: int = 0) -> Array:
        """Return what the network sees, `(n_rows, width)`: each column centred and scaled.

        Nothing is copied where the cells already are what the network sees.

        Raises
        ------
        DataError
            Where a cell is missing or infinite, or lies outside the range of its likelihood.
        """
        if not self._bounded.all():
            table.check_finite(first_row)  # else the range tells, in passes that it makes anyway
        with np.errstate(over="ignore"):  # _check_range tells of it, with the place
            matrix = self._scaled(table.values, np.dtype(dtype))
            matrix = np.ascontiguousarray(matrix, dtype=dtype)
        self._check_range(table, matrix, first_row)
        return matrix

    def _scaled(self, values: Array, dtype: np.dtype[Any]) -> Array:
        if not np.any(self.center) and np.all(self.scale == 1):
            return values
        if values.dtype.itemsize > 4 or dtype.itemsize > 4:
            return np.asarray((values - self.center) / self.scale)
        if self._near_zero:
            narrow = np.float32
            return np.asarray((values - self.center.astype(narrow)) / self.scale.astype(narrow))
        result = np.empty(values.shape, dtype=np.float32)
        for start, rows in _row_chunks(values):
            result[start : start + len(rows)] = (rows - self.center) / self.scale
        return result

    def _check_range(self, table: Table, matrix: Array, first_row: int) -> None:
        if matrix.size == 0:
            return
        if not self._bounded.all():
            self._check_still_finite(table, matrix, first_row)
        if not self._bounded.any():
            return
        inside = matrix if self._bounded.all() else matrix[:, self._bounded]
        with np.errstate(invalid="ignore"):
            if inside.min() >= -_RANGE_SLACK and inside.max() <= 1 + _RANGE_SLACK:
                return
        table.check_finite(first_row)
        outside = ((matrix < -_RANGE_SLACK) | (matrix > 1 + _RANGE_SLACK)) & self._bounded
        row, column = (int(i) for i in np.argwhere(outside)[0])
        top = self.columns[column].scale
        raise DataError(
            f"Column {table.name(column)} lay between 0 and {top:g} in training and holds "
            f"{table.values[row, column]:g} in row {first_row + row}. Scale these rows like the "
            f"training rows, or fit with likelihood='gaussian'."
        )

    def _check_still_finite(self, table: Table, matrix: Array, first_row: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(matrix.sum()):
                return
        outside = ~np.isfinite(matrix)
        if outside.any():
            row, column = (int(i) for i in np.argwhere(outside)[0])
            raise DataError(
                f"Column {table.name(column)} holds {table.values[row, column]:g} in row "
                f"{first_row + row}, too far from its training values (around "
                f"{self.center[column]:g}) to compute with. Correct or drop this row."
            )

    def from_matrix(self, matrix: Array) -> Array:
        """Return the matrix in the columns' own units, `(n_rows, n_columns)`."""
        if not np.any(self.center) and np.all(self.scale == 1):
            return matrix
        wide = matrix.dtype if self._near_zero else np.dtype(np.float64)
        rows: Array = matrix * self.scale.astype(wide) + self.center.astype(wide)
        return rows.astype(matrix.dtype, copy=False)

    def constant_columns(self) -> list[str]:
        """Return the names of columns that held one value only in training."""
        return [column.name for column in self.columns if column.constant]

    def __str__(self) -> str:
        kinds = Counter((column.kind, column.likelihood) for column in self.columns)
        parts = [f"{count:,} {kind} ({model})" for (kind, model), count in kinds.items()]
        constant = len(self.constant_columns())
        tail = f"; {constant:,} constant" if constant else ""
        plural = "column" if len(self.columns) == 1 else "columns"
        return f"{len(self.columns):,} {plural}: " + ", ".join(parts) + tail

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain data for `model.json`."""
        fields = ("name", "kind", "likelihood", "center", "scale", "constant")
        return {
            "row_shape": list(self.row_shape),
            "container": self.container,
            "named": self.named,
            "columns": {
                field: [getattr(column, field) for column in self.columns] for field in fields
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read back what `to_json` gave.

        Raises KeyError, TypeError or ValueError where the document is none.
        """
        columns = document["columns"]
        fields = ("name", "kind", "likelihood", "center", "scale", "constant")
        rows = zip(*(columns[field] for field in fields), strict=True)
        schema = cls(
            columns=tuple(_column_from_json(*row) for row in rows),
            row_shape=tuple(int(n) for n in document["row_shape"]),
            container=str(document["container"]),
            named=bool(document["named"]),
        )
        if min(schema.row_shape, default=0) < 1 or math.prod(schema.row_shape) != schema.width:
            raise ValueError(f"rows of shape {schema.row_shape} have not {schema.width} columns")
        return schema

    def with_container(self, container: str) -> Schema:
        """Return the same schema for rows that come in another container."""
        return replace(self, container=container)


_LIKELIHOOD_OF_KIND = {"real": "gaussian", "binary": "bernoulli", "pixel": "bernoulli"}


def _column_from_json(
    name: str, kind: str, likelihood: str, center: float, scale: float, constant: bool
) -> Column:
    if kind not in _LIKELIHOOD_OF_KIND or likelihood not in _LIKELIHOOD_OF_KIND.values():
        raise ValueError(f"column {name!r} has kind {kind!r} and likelihood {likelihood!r}")
    if not (np.isfinite(center) and np.isfinite(scale) and scale > 0):
        raise ValueError(f"column {name!r} has center {center!r} and scale {scale!r}")
    return Column(str(name), kind, likelihood, float(center), float(scale), bool(constant))


def _row_chunks(values: Array) -> Iterator[tuple[int, Array]]:
    step = max(1, _CHUNK_CELLS // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        yield start, values[start : start + step]


@dataclass(frozen=True)
class _Statistics:
    """Per-column figures of a table, taken chunk by chunk in float64."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    only_01: NDArray[np.bool_]
    whole: bool

    @classmethod
    def of(cls, values: Array) -> _Statistics:
        n, width = values.shape
        mean, low, high = np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
        only_01, whole = np.ones(width, dtype=bool), True
        for _, rows in _row_chunks(values):
            with np.errstate(over="ignore"):  # infer names the column
                mean += rows.sum(axis=0, dtype=np.float64) / n
            low = np.minimum(low, rows.min(axis=0))
            high = np.maximum(high, rows.max(axis=0))
            if only_01.any():
                only_01 &= ((rows == 0) | (rows == 1)).all(axis=0)
            whole = whole and bool((rows == np.round(rows)).all())
        squares = np.zeros(width)
        with np.errstate(over="ignore", invalid="ignore"):
            # In units of the column's reach, whose squares neither overflow nor vanish.
            reach = np.maximum(high - mean, mean - low)
            reach[reach == 0] = 1.0
            for _, rows in _row_chunks(values):
                squares += (((rows - mean) / reach) ** 2).sum(axis=0)
            std = reach * np.sqrt(squares / n)
        return cls(mean, std, low, high, only_01, whole)

    def is_binary(self, column: int) -> bool:
        return bool(self.only_01[column] and self.low[column] < self.high[column])


def _pixel_levels(table: Table, stats: _Statistics) -> float:
    """Return the grey value of white (1 or 255) where the table holds pixels, else 0."""
    low, high = float(stats.low.min()), float(stats.high.max())
    if low < -_RANGE_SLACK or low == high:
        return 0.0
    if high > 1 + _RANGE_SLACK:
        grey = table.is_image and high <= 255 and stats.whole
        bright = table.values.dtype == np.uint8 and high >= 128
        return 255.0 if grey or bright else 0.0
    if table.is_image:
        return 1.0
    # Small numbers, such as rates of one in a thousand, are no grey values.
    if stats.only_01.all() or high <= 0.5:
        return 0.0
    varying = stats.low < stats.high
    # Scaling rounds: the largest cell may come out a hair below or above 1.
    at_0 = np.abs(stats.low[varying]) <= _RANGE_SLACK
    at_1 = np.abs(stats.high[varying] - 1) <= _RANGE_SLACK
    min_max_scaled = bool((at_0 & at_1).all()) and not _has_few_levels(table.values)
    return 0.0 if min_max_scaled else 1.0


def _has_few_levels(values: Array) -> bool:
    """Whether all cells together take few values, at most 256, as the bytes of an image do."""
    most = min(256, values.size // 4)
    levels: set[float] = set()
    for _, rows in _row_chunks(values):
        levels.update(np.unique(rows).tolist())
        if len(levels) > most:
            return False
    return True


def _wanted_likelihoods(names: tuple[str, ...], likelihood: str | Mapping[str, str]) -> list[str]:
    if isinstance(likelihood, str):
        return [likelihood] * len(names)
    unknown = [name for name in likelihood if name not in names]
    if unknown:
        raise DataError(
            f"likelihood names {', '.join(map(repr, unknown))}, and the table has no such column. "
            f"Its columns are {', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}."
        )
    return [likelihood.get(name, "auto") for name in names]


def _require_unit_range(name: str, low: float, high: float) -> None:
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise DataError(
            f"likelihood='bernoulli' models values in [0, 1], and column '{name}' runs from "
            f"{low:g} to {high:g}. Scale it to [0, 1], or use 'gaussian' for it."
        )
