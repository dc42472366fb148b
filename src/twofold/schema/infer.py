"""What kind each column of a table is, by the type and the values of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.data.detection import Detector
from twofold.data.notation import MARKS
from twofold.data.table import Format, Table, row_chunks
from twofold.errors import DataError
from twofold.formatting import shortened
from twofold.schema import doubts
from twofold.schema.column import (
    FAR,
    KINDS,
    Array,
    Column,
    cells_of,
    cycles_of,
    knots_of,
    likelihoods_of,
    white,
)
from twofold.schema.domain import Domain
from twofold.schema.matching import Level

_RANGE_SLACK = 1e-6  # rounding that [0, 1] data may carry
_SAMPLE_CELLS = 4_000_000  # cells enough for quartiles
_LEAST_PIXELS = 16  # of a flat row that is an image
_GREY_STEPS = (15, 16, 255, 256, 65_535)  # from black to white: 4, 8 and 16 bits
_GREY_ROWS = 1000  # enough to tell grey values from others
_STEP_SLACK = 0.01  # of a step: 32-bit floats round the smallest by half as much
_FEW_BEYOND = 5e-3  # share of a column's cells
_FENCE = 10.0  # interquartile ranges beyond the quartiles: what lies further does not set the scale
_MOST_LEVELS = 64  # inputs that one category may take
_RARE = 5e-4  # share of the rows below which a level has no input of its own
_FEW_LEVELS = 50  # so few different texts are categories, however few rows there are
_LEAST_DIGITS = 7  # before a check digit
_LEAST_NUMBERED = 20  # rows, for whole numbers that differ to be those of the rows
_FURTHEST = 100.0  # times that far cells widen a histogram's unit: a code for "missing" wants more


_PROSE = 4.0  # words per cell of free text: names and titles have fewer
_EXAMPLE = 40  # letters
_CHECKED = 0.5  # share of the rows below which a column of one value is a box that is ticked
_NAMED = 0.9  # share of the rows that what names them is in
_LEAST_LEVELS_OF_TIMES, _MOST_LOOKED_AT = 5, 1000  # different texts
ROW_NAMES = "names the rows"
IDENTIFIER = "looks like an identifier"
EACH_ONCE = "each once"


def infer_columns(
    table: Table,
    likelihood: str | Mapping[str, str],
    kinds: str | Mapping[str, str],
    statistics: Statistics | None = None,
) -> tuple[Column, ...]:
    """Return what each column is; `Schema.infer` tells the rules."""
    names = table.names or tuple(f"x{i}" for i in range(table.n_columns))
    if isinstance(kinds, str):
        kinds = dict.fromkeys(names, kinds)
    _require_known(names, likelihood, "likelihood")
    _require_known(names, kinds, "kinds")
    stats = Statistics.of(table.values) if statistics is None else statistics
    levels = _pixel_levels(table, stats) if _all_numbers(table) else 0.0
    columns, mistakes = [], []
    for i, name in enumerate(names):
        asked = likelihood if isinstance(likelihood, str) else likelihood.get(name, "auto")
        try:
            column = _column(
                table, i, name, stats, levels, asked, kinds.get(name, "auto"), likelihood is asked
            )
        except _Mistake as mistake:
            mistakes.append(str(mistake))
            continue
        column = _with_note_of_cells(column, table, i)
        column = _with_domain(column, table.values[:, i], stats, i)
        columns.append(doubts.with_stand_ins(column, table.values[:, i]))
    if mistakes:
        raise DataError(" ".join(mistakes))
    if all(column.kind == "ignored" for column in columns):
        reasons = "; ".join(f"'{c.name}' {c.note}" for c in columns[:5])
        raise DataError(
            f"No column is left to learn from: {reasons}. Settle their kinds with kinds={{...}}, "
            f"or add columns."
        )
    return _with_pooled_pixels(columns, stats)


def _with_note_of_cells(column: Column, table: Table, i: int) -> Column:
    """Return the column with what is to be said about how its cells were read, before the rest."""
    form = None if table.formats is None else table.formats[i]
    if form is None or column.note == "left out as asked":
        return column
    note = _as_text(form) if form.notation is None else form.notation.note
    return replace(column, note="; ".join(filter(None, (note, column.note))))


def _as_text(form: Format) -> str:
    """Say that a frame's column of text holds times or amounts, if it does; else nothing."""
    texts = [level for level in form.levels[:_MOST_LOOKED_AT] if isinstance(level, str)]
    if form.type != "text" or len(texts) < _LEAST_LEVELS_OF_TIMES or form.is_id:
        return ""
    detector = Detector("")
    detector.add(pa.chunked_array([texts], pa.string()))
    found = detector.settle()
    if (mixture := detector.mixture()) and found.type == "text" and mixture[0] != "booleans":
        what, other = mixture[0], mixture[3]
        return f"holds {what} as text, but for some, such as {other!r}: turn the column into {what}"
    is_count = found.arrow == "int64" and found.is_plain  # a code may be one
    if found.type in ("text", "boolean") or is_count:
        return ""
    if found.marked:
        shown = next(text for text in texts if re.search(MARKS, text.strip()))
        return f"holds numbers as text, some with a mark, such as {shown!r}"
    what = "times" if found.type == "time" or found.is_clock else "numbers"
    what = "durations" if found.is_duration else what
    shown = next((text for text in texts if any(map(str.isdigit, text))), texts[0])
    return f"holds {what} as text, such as {shown!r}: turn the column into {what} first"


def _with_pooled_pixels(columns: list[Column], stats: Statistics) -> tuple[Column, ...]:
    """Give all pixels one scale, where they have one.

    So squared error stays that of the image, and pixels that hardly ever vary are not blown up.
    """
    at = [i for i, c in enumerate(columns) if c.kind == "pixel" and not c.holds_shares]
    if at:
        largest = float(stats.std[at].max()) or 1.0
        pooled = largest * float(np.sqrt(np.mean((stats.std[at] / largest) ** 2))) or 1.0
        for i in at:
            columns[i] = replace(columns[i], scale=pooled)
    return tuple(columns)


def _is_for_counts(likelihood: str) -> bool:
    """Whether a likelihood models counts, and no other numbers."""
    return likelihood in set(likelihoods_of("count")) - set(likelihoods_of("real"))


def _with_domain(column: Column, cells: Array, stats: Statistics, i: int) -> Column:
    """Return a column of numbers with what is known of their range and steps."""
    if column.kind in ("category", "ignored"):
        return column
    low, high = float(stats.low[i]), float(stats.high[i])
    if column.kind == "pixel":  # grey values are what light is: in no steps
        return replace(column, domain=Domain(low, high))
    return replace(column, domain=Domain.of(cells, low, high))


class _Mistake(Exception):
    """Why a column cannot be what is asked of it; one sentence."""


def _column(
    table: Table,
    i: int,
    name: str,
    stats: Statistics,
    levels: float,
    asked: str,
    kind: str,
    for_all: bool,
) -> Column:
    """Work out one column; `asked` is a likelihood, `kind` a kind, and either may be "auto"."""
    form = None if table.formats is None else table.formats[i]
    shape = None if form is None else replace(form, levels=())
    settled = kind != "auto"
    if form is not None and form.is_id:
        return Column(name, "ignored", "none", format=shape, note=ROW_NAMES)
    if settled:
        note = "left out as asked" if kind == "ignored" else ""
        _require_possible(table, i, name, kind, stats)
    else:
        kind, note = _kind(table, i, stats, levels, asked)
        settled = kind in ("category", "time")
    if kind == "ignored":
        return Column(name, kind, "none", format=shape, note=note)
    chosen, possible = asked, likelihoods_of(kind)
    if asked == "auto" or (for_all and settled):
        # One likelihood for the whole table is meant for the columns that can have it.
        chosen = asked if asked in possible else possible[0]
    elif asked not in possible:
        if settled or cells_of(asked) == "levels":
            raise _Mistake(
                f"likelihood={asked!r} does not model column '{name}', whose kind is {kind!r}; "
                f"{' or '.join(map(repr, possible))} does. Settle another kind with kinds={{...}}."
            )
        kind = "count" if _is_for_counts(asked) else "real"
    if kind == "category":
        return _category(table, i, name, chosen, shape, stats)
    low, high = float(stats.low[i]), float(stats.high[i])
    constant = low == high
    if cells_of(chosen) == "shares":
        top = levels or 1.0
        _require_unit_range(name, chosen, low / top, high / top)
        return Column(name, kind, chosen, 0.0, top, constant, format=shape)
    if kind == "count" and cells_of(chosen) != "knots":
        if low < 0 or not stats.whole[i]:
            raise _Mistake(
                f"likelihood={chosen!r} models whole numbers from 0, and column '{name}' runs from "
                f"{low:g} to {high:g}. Use 'gaussian' for it."
            )
        logs = np.log1p(table.values[:, i].astype(np.float64))
        center, scale = float(np.nanmean(logs)), float(np.nanstd(logs))
        return Column(name, kind, chosen, center, scale or 1.0, constant, format=shape)
    center, scale = float(stats.mean[i]), float(stats.std[i])
    if constant and kind != "pixel":
        # So small a unit that reconstructions hardly stray, and so large a one that the rounding
        # of another precision is nothing.
        center, scale = low, 0.01 * (abs(low) or 1.0)
    if constant and kind == "pixel":
        center = low
    if not np.isfinite([scale, center]).all():
        raise _Mistake(
            f"Column '{name}' spans too wide a range to be scaled (from {low:g} to {high:g}). "
            f"Divide it by a power of ten first."
        )
    if cells_of(chosen) == "knots":
        cells = table.values[:, i].astype(np.float64)
        if (
            not constant
        ):  # far cells cannot pull at a mean between knots as long as they set its unit
            scale = min(float(np.nanstd(cells)), _FURTHEST * (scale or 1.0)) or 1.0
        knots, between = knots_of(cells, center, scale)
        column = Column(name, kind, chosen, center, scale, constant, knots=knots, format=shape)
        shares = np.nanmean(column.weights(cells), axis=0).clip(0, 1)
        return replace(column, shares=tuple(shares.tolist()), between=between and len(knots) > 1)
    cycles = cycles_of(table.values[:, i]) if kind == "time" else ()
    far = FAR
    if not constant and kind in ("real", "time") and np.isfinite(stats.reach[i]):
        far = max(FAR, float(stats.reach[i] / (scale or 1.0)))
    return Column(
        name, kind, chosen, center, scale or 1.0, constant, cycles=cycles, far=far, format=shape
    )


def _kind(table: Table, i: int, stats: Statistics, levels: float, asked: str) -> tuple[str, str]:
    """Return the kind that type and values speak for, and for ignored columns the reason."""
    cells = _type(table, i)
    if stats.n[i] == 0:
        hardly = "no cell" if stats.n_rows is None else "hardly a cell"
        return "ignored", f"holds {hardly} that is not missing"
    n_rows = table.n_rows if stats.n_rows is None else stats.n_rows
    if (only := _only_cell(table, i, stats)) and stats.n[i] < _CHECKED * n_rows:
        many = f"holds {only} in {stats.n[i]:,} of {n_rows:,} rows, and nothing in the others"
        return "ignored", f"{many}: if an empty cell means no, write so"
    if cells == "text":
        if i in stats.overfull:
            return "ignored", f"holds more than {len(stats.counts[i]) - 1:,} different texts"
        distinct = _counts(table, i, stats)
        distinct = distinct[distinct > 0]
        if len(distinct) > max(_FEW_LEVELS, stats.n[i] // 2) or (
            len(distinct) > 1 and distinct.max() == 1
        ):
            assert table.formats is not None
            texts = table.formats[i].levels
            example = shortened(str(texts[int(_counts(table, i, stats).argmax())]), _EXAMPLE)
            many = f"{len(distinct):,} different texts in {stats.n[i]:,} cells, such as {example!r}"
            if _words_per_cell(texts) >= _PROSE:
                return "ignored", f"holds free text: {many}"
            if stats.n[i] < _NAMED * n_rows:
                return "ignored", f"{IDENTIFIER}: {many} of {n_rows:,} rows"
            once = f", {EACH_ONCE}" * bool(distinct.max() == 1)
            return "ignored", f"{IDENTIFIER}: {many}{once}"
        return "category", ""
    if cells == "time":
        return "time", ""
    if levels:
        return "pixel", ""
    if _have_check_digits(table, i, stats):
        many = f"{stats.n[i]:,} numbers whose last digit is a check digit"
        return "ignored", f"{IDENTIFIER}: {many}, {EACH_ONCE}"
    if _numbers_rows(table, i, stats):
        many = f"{stats.n[i]:,} whole numbers from {stats.low[i]:.0f} to {stats.high[i]:.0f}"
        return "ignored", f"{IDENTIFIER}: {many}, {EACH_ONCE}"
    if stats.is_binary(i):
        return "binary", ""
    if _is_for_counts(asked):
        return "count", ""
    return "real", ""


def _only_cell(table: Table, i: int, stats: Statistics) -> str:
    """Return the only value of a column of one, as a reader knows it; "" for others."""
    if _type(table, i) == "text":
        counts = _counts(table, i, stats)
        assert table.formats is not None
        level = table.formats[i].levels[int(counts.argmax())]
        return repr(shortened(str(level), _EXAMPLE)) if (counts > 0).sum() == 1 else ""
    if stats.low[i] != stats.high[i]:
        return ""
    return "one time" if _type(table, i) == "time" else f"{stats.low[i]:g}"


def _words_per_cell(levels: Sequence[Level]) -> float:
    some = [str(level) for level in levels[:: max(1, len(levels) // 200)]]
    return sum(len(text.split()) for text in some) / max(1, len(some))


def _type(table: Table, i: int) -> str:
    return "number" if table.formats is None else table.formats[i].type


def _all_numbers(table: Table) -> bool:
    return table.formats is None or {f.type for f in table.formats} <= {"number"}


def _counts(table: Table, i: int, stats: Statistics) -> NDArray[np.int64]:
    """Return how often each of a text column's levels occurs."""
    assert table.formats is not None
    n_levels = len(table.formats[i].levels)
    if i in stats.counts:
        return stats.counts[i][:n_levels]
    values = table.values[:, i]
    known = values[~np.isnan(values)].astype(np.int64)
    return np.bincount(known, minlength=n_levels)


def _numbers_rows(table: Table, i: int, stats: Statistics) -> bool:
    """Whether whole numbers are those of the rows, in whatever order and with some gone.

    That is, all are different, and at least half of the numbers between the least and the greatest
    are there. Numbers that are drawn at random repeat long before: among 40 of 80, the probability
    of no repetition is below one in 10,000.
    """
    form: Format | None = None if table.formats is None else table.formats[i]
    if form is None or form.type != "number" or "int" not in form.dtype.lower():
        return False
    n_rows = table.n_rows if stats.n_rows is None else stats.n_rows
    if stats.n[i] < n_rows or n_rows < _LEAST_NUMBERED:
        return False
    if stats.high[i] - stats.low[i] + 1 > 2 * n_rows:
        return False
    return len(np.unique(table.values[:, i])) == table.n_rows


def _have_check_digits(table: Table, i: int, stats: Statistics) -> bool:
    """Whether long whole numbers differ, and each ends in the check digit of the others.

    It is that of articles and books (GS1: digits count 3 and 1 in turn), or that of cards and
    devices (Luhn, 1960: digits count 2 and 1). By accident it is right in one of ten cells.
    """
    few = stats.n[i] < _LEAST_NUMBERED or not stats.whole[i]
    if few or stats.low[i] < 10**_LEAST_DIGITS or stats.high[i] >= 2**53:
        return False
    cells = table.values[:, i].astype(np.float64)
    numbers = cells[~np.isnan(cells)][:_MOST_LOOKED_AT].astype(np.int64)
    places = range(len(str(int(stats.high[i]))))
    digits = np.array([numbers // 10**place % 10 for place in places])  # the last one first
    thrice, twice = digits.copy(), digits.copy()
    thrice[1::2] *= 3
    twice[1::2] = 2 * digits[1::2] - 9 * (digits[1::2] > 4)
    right = any(bool((some.sum(0) % 10 == 0).all()) for some in (thrice, twice))
    return right and len(np.unique(numbers)) == len(numbers)


def _category(
    table: Table, i: int, name: str, likelihood: str, shape: Format | None, stats: Statistics
) -> Column:
    n_rows = table.n_rows
    if _type(table, i) == "text":
        assert table.formats is not None
        levels = table.formats[i].levels
        counts = _counts(table, i, stats)
        n_rows = n_rows if stats.n_rows is None else stats.n_rows
    else:
        values = table.values[:, i].astype(np.float64)
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        levels = tuple(distinct.tolist())
    order = np.argsort(-counts, kind="stable")
    least = max(2, _RARE * n_rows)
    common = [int(p) for p in order if counts[p] >= least][:_MOST_LEVELS]
    rare = [int(p) for p in order if counts[p] > 0 and p not in set(common)]
    note = _pooled(len(rare), levels[rare[0]]) if rare else ""
    if not common:
        common = [int(order[0])]
    return Column(
        name,
        "category",
        likelihood,
        constant=bool((counts > 0).sum() == 1),
        levels=levels,
        kept=tuple(common),
        counts=tuple(counts.tolist()),
        format=shape,
        note=note,
    )


def _pooled(n_levels: int, example: Level) -> str:
    if n_levels == 1:
        return f"1 rare level, {example!r}, shares one input with unseen ones"
    return (
        f"{n_levels:,} rare levels, such as {example!r}, share one input with unseen ones: which "
        f"of them a cell holds cannot be predicted"
    )


def _require_known(names: tuple[str, ...], given: str | Mapping[str, str], option: str) -> None:
    unknown = [] if isinstance(given, str) else [name for name in given if name not in names]
    if unknown:
        raise DataError(
            f"{option} names {', '.join(map(repr, unknown))}, and the table has no such column. "
            f"Its columns are {', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}."
        )


def _require_possible(table: Table, i: int, name: str, kind: str, stats: Statistics) -> None:
    """Raise where a column's cells cannot be of the kind that is asked for it."""
    cells = _type(table, i)
    if kind not in KINDS:  # the option table has refused it before, if there is one
        raise _Mistake(f"Column '{name}' cannot be {kind!r}; kinds are {', '.join(KINDS)}.")
    if kind == "ignored":
        return
    if stats.n[i] == 0:
        raise _Mistake(f"Column '{name}' cannot be {kind!r}: all its cells are missing.")
    if (kind == "time") != (cells == "time") and not (cells == "time" and kind == "real"):
        raise _Mistake(f"Column '{name}' cannot be {kind!r}: its cells are of type {cells}.")
    if cells == "text" and kind != "category":
        raise _Mistake(f"Column '{name}' cannot be {kind!r}: its cells are text.")
    if kind == "binary" and not stats.only_01[i]:
        raise _Mistake(f"Column '{name}' cannot be 'binary': it holds more than 0 and 1.")
    if kind == "count" and (stats.low[i] < 0 or not stats.whole[i]):
        raise _Mistake(
            f"Column '{name}' cannot be 'count': not all cells are whole numbers from 0."
        )


def _require_unit_range(name: str, likelihood: str, low: float, high: float) -> None:
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise _Mistake(
            f"likelihood={likelihood!r} models values in [0, 1], and column '{name}' runs from "
            f"{low:g} to {high:g}. Scale it to [0, 1], or use 'gaussian' for it."
        )


@dataclass(frozen=True)
class Statistics:
    """Per-column figures of the cells there are, taken chunk by chunk in float64.

    `mean` and `std` leave out how far cells lie beyond the fences: 10 interquartile ranges from the
    quartiles (such cells count as if they lay at the fence), as long as they are few. `reach` is
    how far from the mean the farthest of the others lie.

    The last ones are for a table that is a sample of all rows: their number, how often each of a
    text column's levels occurs, and the columns of more texts than were counted (with all others
    in one last count), the sums of all cells, and the last row.
    """

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    reach: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    only_01: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    n_rows: int | None = None
    counts: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    overfull: frozenset[int] = frozenset()
    sums: NDArray[np.float64] | None = None
    last: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, values: Array) -> Statistics:
        """Take the figures of these rows."""
        width = values.shape[1]
        n, low, high = np.zeros(width, np.int64), np.full(width, np.inf), np.full(width, -np.inf)
        only_01, whole = np.ones(width, dtype=bool), np.ones(width, dtype=bool)
        has_missing = False
        for rows, missing in _chunks(values):
            has_missing = has_missing or missing is not None
            n += len(rows) if missing is None else (~missing).sum(axis=0)
            low = np.fmin(low, np.fmin.reduce(rows, axis=0))
            high = np.fmax(high, np.fmax.reduce(rows, axis=0))
            free = False if missing is None else missing
            if only_01.any():
                only_01 &= ((rows == 0) | (rows == 1) | free).all(axis=0)
            if whole.any():
                whole &= ((rows == np.round(rows)) | free).all(axis=0)
        least, most = fences(values, low, high)
        mean, std = _mean_and_spread(values, n, low, high, least, most, has_missing)
        reach = reach_of(mean, low, high, least, most)
        return cls(n, mean, std, reach, low, high, only_01 & (n > 0), whole & (n > 0))

    def is_binary(self, column: int) -> bool:
        """Whether cells are 0 and 1, and not all the same."""
        return bool(self.only_01[column] and self.low[column] < self.high[column])


def _chunks(values: Array) -> Iterator[tuple[Array, NDArray[np.bool_] | None]]:
    """Cut rows into parts, each with what is missing in it, if anything is."""
    for _, rows in row_chunks(values):
        with np.errstate(over="ignore", invalid="ignore"):
            complete = np.isfinite(rows.sum())
        missing = None if complete else np.isnan(rows)
        yield rows, missing if missing is not None and missing.any() else None


def fences(
    values: Array, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far cells may lie to set the scale in full.

    There is no limit where the quartiles meet, or where more than a few cells lie beyond: they are
    no errors then, but what the column is like.
    """
    n_rows, width = values.shape
    step = max(1, n_rows // max(200, min(20_000, _SAMPLE_CELLS // width)))
    sample = np.sort(values[::step].astype(np.float64), axis=0)  # missing cells go last
    known = (~np.isnan(sample)).sum(axis=0)
    at = np.maximum(known - 1, 0)
    columns = np.arange(width)
    first, third = sample[at // 4, columns], sample[(3 * at) // 4, columns]
    with np.errstate(invalid="ignore", over="ignore"):
        reach = _FENCE * (third - first)
        limited = (reach > 0) & np.isfinite(reach) & (known >= 20)
        beyond = ((sample < first - reach) | (sample > third + reach)).sum(axis=0)
        limited &= beyond <= np.maximum(1, _FEW_BEYOND * known)
        least = np.where(limited, first - reach, -np.inf)
        most = np.where(limited, third + reach, np.inf)
    return np.where(least > low, least, -np.inf), np.where(most < high, most, np.inf)


def reach_of(mean: Array, low: Array, high: Array, least: Array, most: Array) -> Array:
    """Return how far from the mean the farthest cells between the fences lie."""
    with np.errstate(invalid="ignore", over="ignore"):
        up, down = np.minimum(high, most) - mean, mean - np.maximum(low, least)
        return np.asarray(np.maximum(up, down))


def _mean_and_spread(
    values: Array,
    n: NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    has_missing: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    limited = bool(np.isfinite(least).any() or np.isfinite(most).any())
    count = np.maximum(n, 1)
    mean, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):  # whoever uses them names the column
        for _, rows in row_chunks(values):
            part = np.clip(rows, least, most) if limited else rows
            mean += (np.nansum if has_missing else np.sum)(part, axis=0, dtype=np.float64) / count
        # In units of the column's reach, whose squares neither overflow nor vanish.
        reach = np.maximum(np.minimum(high, most) - mean, mean - np.maximum(low, least))
        reach[~(reach > 0)] = 1.0
        for _, rows in row_chunks(values):
            part = np.clip(rows, least, most) if limited else rows
            squares += (np.nansum if has_missing else np.sum)(((part - mean) / reach) ** 2, axis=0)
        return mean, reach * np.sqrt(squares / count)


def _pixel_levels(table: Table, stats: Statistics) -> float:
    """Return the grey value of white where the table holds pixels, else 0.

    It is 1, 255 for bytes, and for other whole numbers the end of the scale with the fewest bits.
    """
    known = stats.n > 0
    low, high = float(stats.low.min()), float(stats.high.max())
    if low < -_RANGE_SLACK or low == high:
        return 0.0
    if high > 1 + _RANGE_SLACK:
        grey = table.is_image and high <= 255 and bool(stats.whole[known].all())
        bright = table.values.dtype == np.uint8 and high >= 128
        if table.values.dtype == np.uint8:
            return 255.0 if grey or bright else 0.0
        return white(high) if grey else 0.0
    if table.is_image:
        return 1.0
    # Small numbers, such as rates of one in a thousand, are not grey values, and a few columns of
    # shares are not an image.
    if stats.only_01[known].all() or high <= 0.5 or len(known) < _LEAST_PIXELS:
        return 0.0
    varying = stats.low < stats.high
    # Scaling rounds: the largest cell may come out a hair below or above 1.
    at_0 = np.abs(stats.low[varying]) <= _RANGE_SLACK
    at_1 = np.abs(stats.high[varying] - 1) <= _RANGE_SLACK
    min_max_scaled = bool((at_0 & at_1).all())
    return 1.0 if not min_max_scaled and _are_grey(table.values) else 0.0


def _are_grey(values: Array) -> bool:
    """Whether cells from 0 to 1 are grey values: all of them whole numbers of the same steps.

    Columns of a table that was scaled to [0, 1] have steps of their own, if they have any.
    """
    cells = values[:: max(1, len(values) // _GREY_ROWS)].astype(np.float64)
    cells = cells[~np.isnan(cells)]
    for steps in _GREY_STEPS:
        at = cells * steps
        if (np.abs(at - np.rint(at)) < _STEP_SLACK).all():
            return True
    return False
