"""Rows from any source in one numeric array, with enough memory of where they came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data.notation import Notation
from twofold.errors import DataError

Array = NDArray[Any]
_MOST_SECONDS = 9.2e12  # before or after 1970, in whole microseconds of 64 bits
# What pandas, polars and Arrow call types of text that are not categories.
_TEXT = re.compile(r"(object\[)?(large_)?str(ing|\b)|String$")
_CHUNK_CELLS = 2**18  # float64 copies of so many, and what is made of them, stay in the cache


@dataclass(frozen=True)
class Format:
    """How the cells of one column look in the caller's table.

    `type` is "number", "boolean", "text" or "time"; `dtype` is the container's own name for it.
    `levels` are a text column's distinct cells in the order that `Table.values` counts them, from
    0; `ordered` says that this order means something. `notation` is how a text file writes cells.
    `is_id` says that the cells name the rows. `label` is the column's name where a frame of pandas
    has a number, a time or a tuple for it, and None if the name is text.
    """

    type: str
    dtype: str
    levels: tuple[str | int | float | bool, ...] = ()
    ordered: bool = False
    notation: Notation | None = None
    is_id: bool = False
    label: Any = field(default=None, compare=False)

    @property
    def is_any_text(self) -> bool:
        """Whether the caller's cells are text that may be any, and not of declared categories."""
        return self.type == "text" and self.notation is None and bool(_TEXT.match(self.dtype))

    @property
    def is_written(self) -> bool:
        """Whether cells are times or numbers that the caller's column holds as text."""
        return self.type != "text" and bool(_TEXT.match(self.dtype))

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain data."""
        found: dict[str, Any] = {"type": self.type, "dtype": self.dtype, "levels": self.levels}
        found = {
            k: v for k, v in {**found, "ordered": self.ordered, "is_id": self.is_id}.items() if v
        }
        if self.notation is not None:
            found["notation"] = self.notation.to_json()
        if _is_plain(self.label):
            found["label"] = self.label
        return found

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Format:
        """Read back what `to_json` gave; raises TypeError or ValueError if it is not one."""
        values: dict[str, Any] = {"type": "number", "dtype": "", **document}
        values["levels"] = tuple(values.get("levels", ()))
        written = values.get("notation")
        values["label"] = _as_label(values.get("label"))
        return cls(
            **{**values, "notation": None if written is None else Notation.from_json(written)}
        )


@dataclass(frozen=True)
class Table:
    """Rows from any source: numbers `(n_rows, n_columns)`, and how to hand results back alike.

    A missing cell is NaN; a text cell is its position among its column's levels; a time is seconds
    since 1970, UTC. `names` is None where the source names no columns. `row_shape` is the shape of
    one row, `(28, 28)` for images. `container` is "numpy", "pandas", "polars", "arrow" or "torch";
    `index` is the row index of a pandas frame. `formats` has one entry per column of a frame, and
    is None for arrays, which hold nothing but numbers. `understood` says what was detected of the
    layout of text files, and `delimiter` what separates their cells. `given` are the formats of the
    caller's columns, if cells were matched with those of a training table.
    """

    values: Array
    names: tuple[str, ...] | None = None
    row_shape: tuple[int, ...] = ()
    container: str = "numpy"
    index: Any = None
    formats: tuple[Format, ...] | None = None
    understood: str = ""
    given: tuple[Format, ...] | None = None
    delimiter: str = ","

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

    @property
    def labels(self) -> tuple[Any, ...] | None:
        """What the caller's frame calls its columns: their names, or what pandas has for these."""
        return None if self.names is None else labels_of(self.names, self.formats)

    def name(self, column: int) -> str:
        """Name a column in a message: its name where it has one, else its number."""
        return f"'{self.names[column]}'" if self.names else str(column)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return the rows at some positions."""
        index = None if self.index is None else self.index[rows]
        return replace(self, values=self.values[rows], index=index)

    def slice(self, rows: slice) -> Table:
        """Return some of the rows, over the same memory."""
        return replace(self, values=self.values[rows], index=None)

    def check_finite(self, first_row: int = 0, *, missing: bool = False) -> None:
        """Raise DataError with the place of the first cell that is NaN or infinite.

        `missing` allows NaN, which stands for a missing cell.
        """
        for start, rows in row_chunks(self.values):
            # One sum is finite only where every cell is; it needs no array of flags.
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(rows.sum()):
                    continue
            bad = np.isinf(rows) if missing else ~np.isfinite(rows)
            if not bad.any():
                continue
            row, column = (int(i) for i in np.argwhere(bad)[0])
            columns = np.flatnonzero(bad.any(axis=0))
            what = "NaN" if np.isnan(rows[row, column]) else "infinity"
            more = f" ({len(columns)} columns hold such cells)" if len(columns) > 1 else ""
            cells = "infinity" if missing else "NaN or infinity"
            remedy = (
                "Replace it by a number, or by NaN where the cell is missing."
                if missing
                else "Fill or drop these rows first."
            )
            raise DataError(
                f"Input contains {cells}: column {self.name(column)} holds {what} in row "
                f"{first_row + start + row}{more}. {remedy}"
            )


def labels_of(names: Sequence[str], formats: Sequence[Format | None] | None) -> tuple[Any, ...]:
    """Return the labels of columns: their names, where these are text."""
    forms = formats or (None,) * len(names)
    pairs = zip(names, forms, strict=True)
    return tuple(name if form is None or form.label is None else form.label for name, form in pairs)


def _is_plain(label: Any) -> bool:
    """Whether JSON can hold a label: a number, or a tuple of numbers and texts."""
    if type(label) is tuple:
        return all(type(part) is str or _is_plain(part) for part in label)
    return type(label) in (int, float, bool)


def _as_label(found: Any) -> Any:
    label = tuple(map(_as_part, found)) if type(found) is list else found
    return label if _is_plain(label) else None


def _as_part(found: Any) -> Any:
    return found if type(found) is str else _as_label(found)


def cells(values: Array, formats: tuple[Format, ...] | None) -> Array:
    """Return cells as a reader knows them: numbers, or objects where there are texts or times.

    In objects, a missing cell is None.
    """
    if formats is None or all(form.type in ("number", "boolean") for form in formats):
        return values
    result = np.empty(values.shape, dtype=object)
    for position, form in enumerate(formats):
        column = values[:, position].astype(np.float64)
        missing = np.isnan(column)
        known: list[Any] = column.tolist()
        if form.type == "text":
            places = np.where(missing, 0, column).astype(np.int64).tolist()
            known = [form.levels[place] for place in places] if form.levels else known
        elif form.type == "time":
            seconds = np.clip(np.where(missing, 0, column), -_MOST_SECONDS, _MOST_SECONDS)
            microseconds = seconds * 1e6
            known = microseconds.round().astype("datetime64[us]").tolist()
        result[:, position] = known
        result[missing, position] = None
    return result


def row_chunks(values: Array) -> Iterator[tuple[int, Array]]:
    """Cut rows into parts that stay in the cache: the first row's number, and the part."""
    step = max(1, _CHUNK_CELLS // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        yield start, values[start : start + step]
