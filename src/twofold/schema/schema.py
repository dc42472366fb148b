"""What each column is, and how a table becomes the matrix that the network sees, and back."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from twofold.data.table import Format, Table, labels_of, row_chunks
from twofold.errors import DataError
from twofold.formatting import html_table, listed, pairs, shortened
from twofold.schema import column as rules
from twofold.schema import matching
from twofold.schema.column import Column
from twofold.schema.domain import Domain, nearest, widened
from twofold.schema.doubts import row_of_totals
from twofold.schema.infer import (
    EACH_ONCE,
    IDENTIFIER,
    Statistics,
    infer_columns,
)
from twofold.schema.matching import words

Array = NDArray[Any]
_RANGE_SLACK = 1e-6  # rounding that [0, 1] data may carry
_SHOWN = 5  # columns of each sort in a summary
_NOISE_SLACK = 8.0  # standard deviations that no noise passes
_SHOWN_COLUMNS = 50  # in a notebook


@dataclass(frozen=True)
class Schema:
    """What every column of a table is: kind, likelihood and scaling, inferred once by `infer`.

    `noise` is the standard deviation, in [0, 1], of noise that rows may carry beyond their range:
    whoever learns to remove noise is given rows that have it. `understood` says what was detected
    of the layout of the text files that the training rows came from, and `delimiter` what separates
    their cells.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold.schema.schema import Schema
    >>> from twofold.data.table import Table
    >>> table = Table(np.array([[1.0, 0.0], [3.0, 1.0]]), names=("height", "smoker"))
    >>> print(Schema.infer(table))
    2 columns: 1 real (gaussian), 1 binary (gaussian)
    """

    columns: tuple[Column, ...]
    row_shape: tuple[int, ...]
    container: str = "numpy"
    named: bool = False
    is_sequence: bool = False
    noise: float = 0.0
    understood: str = ""
    delimiter: str = ","

    @classmethod
    def infer(
        cls,
        table: Table,
        likelihood: str | Mapping[str, str] = "auto",
        kinds: str | Mapping[str, str] = "auto",
        statistics: Statistics | None = None,
        *,
        sequences: bool = False,
    ) -> Schema:
        """Work out each column's kind from its type and values, and its likelihood from its kind.

        `kinds` and `likelihood` settle columns by name. Else text is a category, unless nearly
        every cell is different (an identifier, which is ignored, like whole numbers that number the
        rows and columns without any cell); timestamps are times. Of numbers, images, and flat
        rows whose cells all are grey values (whole 255ths, say) from 0 to beyond one half, are
        pixels; unsigned bytes are pixels of 255 levels. Other tables from 0 to 1 were scaled, so
        their columns are real. Of what is left, columns that hold only 0 and 1 are binary, and all
        others are real. With `statistics`, the table is a sample of the rows
        that these are of.

        Where rows are `sequences`, (steps, channels), a channel is the same at all its steps: it is
        inferred from them together, and named x0, x1, ... for `kinds` and `likelihood`. Its columns
        are x0[0], x0[1], ...

        Raises
        ------
        DataError
            Where a column cannot be of the kind or have the likelihood that is asked for it, or
            `kinds` or `likelihood` names a column that the table does not have.
        """
        row_shape = table.row_shape or (table.n_columns,)
        if sequences and len(row_shape) == 2:
            steps, channels = row_shape
            pooled = Table(table.values.reshape(-1, channels))
            every = infer_columns(pooled, likelihood, kinds)
            columns = tuple(
                replace(channel, name=f"{channel.name}[{step}]")
                for step in range(steps)
                for channel in every
            )
            return cls(columns, row_shape, table.container, is_sequence=True)
        columns = infer_columns(table, likelihood, kinds, statistics)
        totals = row_of_totals(table, statistics)
        return cls(
            columns,
            row_shape,
            table.container,
            table.names is not None,
            understood="; ".join(filter(None, (table.understood, totals))),
            delimiter=table.delimiter,
        )

    @cached_property
    def width(self) -> int:
        """Number of inputs of the network."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names; x0, x1, ... where the training table had none."""
        return tuple(column.name for column in self.columns)

    @property
    def labels(self) -> tuple[Any, ...]:
        """What the training frame called its columns, which pandas may have other than text for."""
        if self.container != "pandas":
            return self.names
        return labels_of(self.names, [column.format for column in self.columns])

    @property
    def is_image(self) -> bool:
        """Whether a row is an array of more than one axis, and no sequence."""
        return len(self.row_shape) > 1 and not self.is_sequence

    @property
    def is_table(self) -> bool:
        """Whether rows are of columns, each of a kind of its own: no images and no sequences."""
        kinds = {column.kind for column in self.columns}
        return len(self.row_shape) < 2 and not self.is_sequence and kinds != {"pixel"}

    @cached_property
    def center(self) -> NDArray[np.float64]:
        """What is subtracted from each column, `(n_columns,)`, in the column's unit."""
        return np.array([column.center for column in self.columns])

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """What each column is then divided by, `(n_columns,)`, in the column's unit."""
        return np.array([column.scale for column in self.columns])

    @cached_property
    def inputs(self) -> tuple[slice, ...]:
        """Which inputs of the network are each column's."""
        ends = np.cumsum([0, *(column.width for column in self.columns)]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def _linear(self) -> NDArray[np.bool_]:
        return np.array([column.is_linear for column in self.columns])

    @cached_property
    def _squashed(self) -> NDArray[np.bool_]:
        return np.array([column.is_squashed for column in self.columns])

    @cached_property
    def _far(self) -> NDArray[np.float64]:
        return np.array([column.far for column in self.columns])

    @cached_property
    def _near_zero(self) -> bool:
        """Whether 32-bit numbers hold the columns' centers to a small part of their spreads."""
        tiny = np.finfo(np.float32).tiny
        digits = np.abs(self.center) <= 1e3 * self.scale
        return bool(np.all(digits & (self.scale > tiny) & (self.scale < 1 / tiny)))

    @cached_property
    def _bounded(self) -> NDArray[np.bool_]:
        return np.array([c.holds_shares and c.kind != "binary" for c in self.columns])

    @cached_property
    def _flags(self) -> list[int]:
        """The inputs within 0 and 1 in training that may be anything where they are scored."""
        kinds = zip(self.columns, self.inputs, strict=True)
        return [
            at.start for c, at in kinds if c.holds_shares and (c.kind == "binary" or self.noise)
        ]

    def within_range(self, matrix: Array) -> Array:
        """Return a matrix to train on: a flag or noisy pixel beyond 0 and 1 is the nearer of them.

        Cross-entropy would go down without end in the direction of such a cell.
        """
        flags = matrix[:, self._flags]
        with np.errstate(invalid="ignore"):
            if not ((flags < 0) | (flags > 1)).any():
                return matrix
        matrix = matrix.copy()
        matrix[:, self._flags] = flags.clip(0, 1)
        return matrix

    def likelihoods(self) -> dict[str, list[int]]:
        """Return, for each likelihood in use, the positions of its columns."""
        groups: dict[str, list[int]] = {}
        for position, column in enumerate(self.columns):
            if column.width:
                groups.setdefault(column.likelihood, []).append(position)
        return groups

    def to_matrix(self, table: Table, dtype: DTypeLike, first_row: int = 0) -> Array:
        """Return what the network sees, `(n_rows, width)`; NaN where a cell is missing.

        Nothing is copied where the cells already are what the network sees.

        Raises
        ------
        DataError
            Where a cell is infinite, or outside the range of its likelihood.
        """
        if not self._bounded.all():
            table.check_finite(first_row, missing=True)  # else the range tells, in its own passes
        # The checks name what is not a number, with the place.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self._linear.all():
                matrix = self._scaled(table.values, np.dtype(dtype))
                if self._squashed.all():
                    matrix = rules.squash(matrix, self._far.astype(matrix.dtype))
                elif self._squashed.any():
                    far = self._far[self._squashed].astype(matrix.dtype)
                    matrix[:, self._squashed] = rules.squash(matrix[:, self._squashed], far)
                matrix = np.ascontiguousarray(matrix, dtype=dtype)
            else:
                matrix = np.empty((table.n_rows, self.width), dtype)
                for position, (column, at) in enumerate(
                    zip(self.columns, self.inputs, strict=True)
                ):
                    if column.width:
                        matrix[:, at] = column.encode(*_cells(table, position, column))
        self._check_range(table, matrix, first_row)
        return matrix

    def _scaled(self, values: Array, dtype: np.dtype[Any]) -> Array:
        if not np.any(self.center) and np.all(self.scale == 1):
            # What is changed in place later must not be the caller's own memory.
            in_place = self._squashed.any() and not self._squashed.all()
            return values.copy() if in_place else values
        if values.dtype.itemsize > 4 or dtype.itemsize > 4:
            return np.asarray((values - self.center) / self.scale)
        if self._near_zero:
            narrow = np.float32
            return np.asarray((values - self.center.astype(narrow)) / self.scale.astype(narrow))
        result = np.empty(values.shape, dtype=np.float32)
        for start, rows in row_chunks(values):
            result[start : start + len(rows)] = (rows - self.center) / self.scale
        return result

    def slots(self, table: Table, position: int) -> NDArray[np.int64]:
        """Return which of its inputs each cell of a category sets, `(n_rows,)`; -1 if missing."""
        column = self.columns[position]
        return column.slots(*_cells(table, position, column))

    def matched(self, table: Table) -> Table:
        """Return a table with cells of other types as what they mean in the training table's.

        Raises
        ------
        DataError
            If columns hold text, numbers or times that do not say what they mean there, or arrays
            have other axes than the training rows.
        """
        if table.formats is not None:
            return matching.matched(self.columns, table)
        self._require_shape(table)
        text = next((c for c in self.columns if _is_text(c.format) and c.width), None)
        if text is not None:
            raise DataError(
                f"Column '{text.name}' held text in training, and an array holds numbers only. "
                f"Pass a data frame or a file with the training table's columns."
            )
        return table

    def _require_shape(self, table: Table) -> None:
        """Raise DataError where rows are arrays, and of other axes than in training."""
        here, there = ([n for n in shape if n > 1] for shape in (table.row_shape, self.row_shape))
        if len(here) > 1 and len(there) > 1 and here != there:
            raise DataError(
                f"Rows had the shape {self.row_shape} in training and have {table.row_shape} here. "
                f"Bring their axes into the same order."
            )

    def _check_range(self, table: Table, matrix: Array, first_row: int) -> None:
        if matrix.size == 0:
            return
        if not self._bounded.all():
            self._check_still_finite(table, matrix, first_row)
        if self._bounded.any():
            self._check_unit_range(table, matrix, first_row)

    def _check_unit_range(self, table: Table, matrix: Array, first_row: int) -> None:
        at = [self.inputs[i].start for i in np.flatnonzero(self._bounded)]
        inside = matrix if self._bounded.all() else matrix[:, at]
        slack = _RANGE_SLACK + _NOISE_SLACK * self.noise
        with np.errstate(invalid="ignore"):
            if inside.min() >= -slack and inside.max() <= 1 + slack:
                return
            outside = (inside < -slack) | (inside > 1 + slack)
        table.check_finite(first_row, missing=True)
        if not outside.any():  # a NaN is missing, and has no range
            return
        row, place = (int(i) for i in np.argwhere(outside)[0])
        column = int(np.flatnonzero(self._bounded)[place])
        raise DataError(
            f"Column {table.name(column)} lay between 0 and {self.columns[column].scale:g} in "
            f"training and holds {table.values[row, column]:g} in row {first_row + row}. Scale "
            f"these rows like the training rows, or fit with likelihood='gaussian'."
        )

    def _check_still_finite(self, table: Table, matrix: Array, first_row: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(matrix.sum()):
                return
        outside = np.isinf(matrix)
        if outside.any():
            row, place = (int(i) for i in np.argwhere(outside)[0])
            column = next(i for i, at in enumerate(self.inputs) if at.start <= place < at.stop)
            if np.isinf(table.values[row, column]):
                table.check_finite(first_row, missing=True)
            raise DataError(
                f"Column {table.name(column)} holds {table.values[row, column]:g} in row "
                f"{first_row + row}, too far from its training values (around "
                f"{self.center[column]:g}) to compute with. Correct or drop this row."
            )

    def from_matrix(self, matrix: Array, observed: bool = False, own: Array | None = None) -> Array:
        """Return the cells that a matrix stands for, `(n_rows, n_columns)`, in the columns' units.

        A category comes back as its most probable level, a text as its position among the levels;
        ignored columns as NaN. Numbers end at their columns' `limits`; with `observed`, they are
        the nearest of the observed values. Where the rows' `own` cells are given, `(n_rows,
        n_columns)`, numbers may go on as far as these: a row that lies further out than all of the
        training is not reconstructed as one that lies at its end.
        """
        if observed:
            return self.observed(self.from_matrix(matrix, own=own), own)
        if self._linear.all():
            if self._squashed.any():
                cells = rules.unsquash(matrix, self._far.astype(matrix.dtype))
                matrix = cells if self._squashed.all() else np.where(self._squashed, cells, matrix)
            if np.any(self.center) or not np.all(self.scale == 1):
                wide = matrix.dtype if self._near_zero else np.dtype(np.float64)
                matrix = rules.in_unit(matrix, self.scale.astype(wide), self.center.astype(wide))
            return self._limited(matrix, own)
        values = np.empty((len(matrix), len(self.columns)))
        for position, (column, at) in enumerate(zip(self.columns, self.inputs, strict=True)):
            seen = None if own is None else own[:, position]
            values[:, position] = column.decode(matrix[:, at], seen)
        return values

    def _limited(self, cells: Array, own: Array | None) -> Array:
        """Return the cells within their columns' limits, themselves where they all are."""
        low, high = (limits.astype(cells.dtype) for limits in self._limits)
        if cells.size == 0 or (low.max() <= cells.min() and cells.max() <= high.min()):
            return cells
        seen = None if own is None else own.astype(cells.dtype).reshape(cells.shape)
        return cells.clip(*widened(low, high, seen))

    def observed(self, cells: Array, own: Array | None = None) -> Array:
        """Return the observed values nearest to cells that a model makes, `(n_rows, n_columns)`.

        They lie in their columns' observed ranges, or as far out as the rows' `own` cells, and are
        whole, or have as many decimals, as the training cells were.
        """
        found = nearest(cells, self._domains, own)
        # Of numbers that 32 bits do not hold, the nearest that they do may be out of range.
        ends = np.array([[d.low, d.high] for d in self._domains])
        fits = bool((ends == ends.astype(cells.dtype)).all())
        return found.astype(cells.dtype) if fits else found

    @cached_property
    def _domains(self) -> list[Domain]:
        return [column.domain for column in self.columns]

    @cached_property
    def _limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high = zip(*(column.limits for column in self.columns), strict=True)
        return np.array(low), np.array(high)

    def widened(self, table: Table) -> Schema:
        """Return the schema of columns that these rows are observed in, too.

        Only what is filled in and drawn depends on it; kinds and scales stay.
        """
        columns = (
            replace(c, domain=c.domain.widened(table.values[:, i])) if c.domain.is_known else c
            for i, c in enumerate(self.columns)
        )
        return replace(self, columns=tuple(columns))

    def formats(self, like: Sequence[Format] | None = None) -> tuple[Format, ...] | None:
        """Return the formats of what `from_matrix` gives, in the types of `like` where it is given.

        None if the training table was not a frame.
        """
        own = [column.format for column in self.columns]
        if any(form is None for form in own):
            return None
        found = []
        for column, form in zip(self.columns, like or own, strict=True):
            assert form is not None
            assert column.format is not None
            if column.width and words(form.type) != words(column.format.type):
                form = column.format
            found.append(replace(form, levels=column.levels if form.type == "text" else ()))
        return tuple(found)

    @cached_property
    def id_column(self) -> str | None:
        """The column that names the rows: the one that was given, or the first identifier.

        It is ignored by the network, and kept next to what comes of a row.
        """
        ignored = [c for c in self.columns if c.kind == "ignored"]
        given = (c.name for c in ignored if c.format is not None and c.format.is_id)
        named = (c for c in ignored if IDENTIFIER in c.note and c.note.endswith(EACH_ONCE))
        found = (c.name for c in named if c.name not in self.unlike)
        return next(given, None) or next(found, None)

    @cached_property
    def unlike(self) -> dict[str, str]:
        """The ignored columns that a few cells keep from being numbers or times, and what to do."""
        words = ("missing=", "dates", " as text", " units", "a mark")
        return {
            column.name: re.split(f"; (?:{IDENTIFIER}|holds free text)", column.note)[0]
            for column in self.columns
            if column.kind == "ignored" and any(word in column.note for word in words)
        }

    @cached_property
    def training_formats(self) -> dict[str, Format]:
        """How the columns looked in training, by name; of those that were in a frame or a file."""
        return {c.name: c.format for c in self.columns if c.format is not None}

    @property
    def shown(self) -> list[int]:
        """Positions of the columns that figures show: all of an image, else what is not ignored.

        Of sequences, one channel after another.
        """
        shown = [i for i, column in enumerate(self.columns) if column.width or self.is_image]
        if not self.is_sequence:
            return shown
        n_channels = self.row_shape[1]
        return sorted(shown, key=lambda i: (i % n_channels, i))

    def drawn(self, matrix: Array) -> Array:
        """Return the cells of a matrix as figures show them: profiles, or images of their shape."""
        shape = self.row_shape if self.is_image else (len(self.shown),)
        return self.from_matrix(matrix)[:, self.shown].reshape(len(matrix), *shape)

    def constant_columns(self) -> list[str]:
        """Return the names of columns that held one value only in training."""
        return [column.name for column in self.columns if column.constant]

    def ignored_columns(self) -> dict[str, str]:
        """Return the columns that the network does not see, and why."""
        return {column.name: column.note for column in self.columns if column.kind == "ignored"}

    def summary(self) -> str:
        """Say in a few lines what was understood of the training rows, and what needs a look."""
        lines = [("columns", str(self))]
        if self.understood:
            lines.append(("source", self.understood))
        cells: dict[str, list[str]] = {}
        for column in self.columns:
            written = None if column.format is None else column.format.notation
            if written is not None and written.describe():
                cells.setdefault(written.describe(), []).append(repr(column.name))
        if cells:
            shown = [f"{shortened(', '.join(names))}: {said}" for said, names in cells.items()]
            more = f"; and {len(shown) - _SHOWN} more" * (len(shown) > _SHOWN)
            lines.append(("cells", "; ".join(shown[:_SHOWN]) + more))
        if self.id_column is not None:
            lines.append(("rows", f"named by {self.id_column!r}"))
        constant = self.constant_columns()
        if constant:
            lines.append(("constant", listed([repr(name) for name in constant], _SHOWN)))
        for title, is_of in (("ignored", True), ("notes", False)):
            notes = [
                f"{c.name!r} {c.note}"
                for c in self.columns
                if c.note and (c.kind == "ignored") == is_of
            ]
            if len(notes) > _SHOWN:
                notes = [*notes[:_SHOWN], f"and {len(notes) - _SHOWN:,} more"]
            lines += [(title if i == 0 else "", note) for i, note in enumerate(notes)]
        return pairs(lines)

    def _repr_html_(self) -> str:
        rows = [
            (c.name, c.kind, c.likelihood, "" if c.kind == "ignored" else c.describe(), c.note)
            for c in self.columns[:_SHOWN_COLUMNS]
        ]
        titles = ("column", "kind", "likelihood", "what the network sees", "note")
        return html_table(titles, rows, note=str(self))

    def __str__(self) -> str:
        kinds = Counter((column.kind, column.likelihood) for column in self.columns)
        parts = [
            f"{count:,} {kind}" + (f" ({model})" if model != "none" else "")
            for (kind, model), count in kinds.items()
        ]
        constant = len(self.constant_columns())
        tail = f"; {constant:,} constant" if constant else ""
        plural = "column" if len(self.columns) == 1 else "columns"
        return f"{len(self.columns):,} {plural}: " + ", ".join(parts) + tail

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain data for `model.json`."""
        return {
            "row_shape": list(self.row_shape),
            "container": self.container,
            "named": self.named,
            "is_sequence": self.is_sequence,
            "noise": self.noise,
            "understood": self.understood,
            "delimiter": self.delimiter,
            "columns": [column.to_json() for column in self.columns],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read back what `to_json` gave.

        Raises KeyError, TypeError or ValueError where the document is none.
        """
        schema = cls(
            columns=tuple(Column.from_json(column) for column in document["columns"]),
            row_shape=tuple(int(n) for n in document["row_shape"]),
            container=str(document["container"]),
            named=bool(document["named"]),
            is_sequence=bool(document.get("is_sequence", False)),
            noise=float(document.get("noise", 0.0)),
            understood=str(document.get("understood", "")),
            delimiter=str(document.get("delimiter", ",")),
        )
        if not 0 <= schema.noise < math.inf:
            raise ValueError(f"noise of {schema.noise} is none")
        shape = schema.row_shape
        if min(shape, default=0) < 1 or math.prod(shape) != len(schema.columns):
            raise ValueError(f"rows of shape {shape} have not {len(schema.columns)} columns")
        if schema.is_sequence and len(shape) != 2:
            raise ValueError(f"rows of shape {shape} are not sequences")
        return schema

    def with_container(self, container: str) -> Schema:
        """Return the same schema for rows that come in another container."""
        return replace(self, container=container)


def _cells(table: Table, position: int, column: Column) -> tuple[Array, tuple[matching.Level, ...]]:
    """Return a column's cells, and for a category what its positions stand for."""
    values = table.values[:, position].astype(np.float64, copy=False)
    if column.kind != "category":
        return values, ()
    if table.formats is not None and table.formats[position].type == "text":
        return values, table.formats[position].levels
    distinct, positions = np.unique(values, return_inverse=True)
    known = distinct[~np.isnan(distinct)]
    return np.where(np.isnan(values), np.nan, positions), tuple(known.tolist())


def _is_text(form: Format | None) -> bool:
    return form is not None and form.type == "text"
