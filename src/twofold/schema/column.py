"""One column of a table: what its cells become for the network, and how they come back.

A column's kind decides how many inputs it has and what they hold:

    real, pixel, binary    1      (cell - center) / scale
    count                  1      (log(1 + cell) - center) / scale
    category               k + 1  one per level that is common enough, and one for all others
    time                   1 + 2c the timestamp, scaled, and sine and cosine of each cycle
    ignored                0      nothing: it comes back as a missing cell

A real or count column whose likelihood is "histogram" has one input per knot, of which there are at
most 16: the two knots on either side of a cell share a weight of 1, the nearer one having more. An
input is that weight minus its mean, divided by one number per column, so that all vary by about 1.

A missing cell is NaN in every input of its column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data.table import Format
from twofold.formatting import counted
from twofold.options import KIND_NAMES
from twofold.registry import LIKELIHOODS
from twofold.schema.domain import UNKNOWN, Domain, widened
from twofold.schema.matching import Level, as_text, places

Array = NDArray[Any]

# The least of what a column has as `far`: one absurd cell then neither blows up the training nor
# goes unnoticed.
FAR = 10.0
# Seconds per turn. A year is the Gregorian calendar's mean one.
CYCLES = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}
MOST_KNOTS = 16  # more make training slower, and reconstructions no better
_LEAST_GAP = 1e-6  # scales between two knots
_COUNT_SLACK = 1e-5  # share of a count that its logarithm in 32 bits may lose
MONDAY = 4 * 86_400.0  # 1970-01-05, so that a week's turn starts with a Monday

KINDS = KIND_NAMES
_KINDS_OF_TYPE = {
    "number": set(KINDS) - {"time"},
    "boolean": set(KINDS) - {"time"},
    "text": {"category", "ignored"},
    "time": {"time", "real", "ignored"},
}


def likelihoods_of(kind: str) -> tuple[str, ...]:
    """Return the likelihoods that can model columns of a kind, the default one first.

    Examples
    --------
    >>> likelihoods_of("count")
    ('negative_binomial', 'histogram', 'poisson')
    """
    if kind == "ignored":
        return ("none",)
    possible = [name for name, likelihood in LIKELIHOODS.items() if kind in likelihood.kinds]
    return tuple(sorted(possible, key=lambda name: kind not in LIKELIHOODS[name].default_for))


def cells_of(likelihood: str) -> str:
    """Return what the network sees of cells under a likelihood, as `nn.Likelihood.cells` says."""
    return "nothing" if likelihood == "none" else str(LIKELIHOODS[likelihood].cells)


@dataclass(frozen=True)
class Column:
    """One column of the training table.

    Attributes
    ----------
    name : str
    kind : str
        "real", "count", "binary", "category", "pixel", "time" or "ignored".
    likelihood : str
        How its cells are modelled.
    center, scale : float
        What its numbers are centred at and divided by, in the column's unit (for counts, in that
        of their logarithm, unless they have knots).
    constant : bool
        Whether it held one value only in training.
    levels : tuple
        A category's distinct cells in training; cells are positions in it.
    kept : tuple of int
        The levels that have an input of their own, the commonest first.
    counts : tuple of int
        How often each level occurred in training.
    cycles : tuple of str
        The turns of a time: "day", "week", "year".
    knots : tuple of float
        Where a histogram's inputs lie, in the column's unit.
    shares : tuple of float
        Mean weight of each knot.
    between : bool
        Whether cells lie between the knots, too; else the knots are all values there were.
    domain : Domain
        Which numbers it held: what is filled in or drawn for it is one of them.
    far : float
        Beyond so many scales a real cell's input grows like a logarithm only. Training cells lie
        within, but for a few that are far beyond all others.
    format : Format or None
        How its cells looked in the training table, where that was a frame.
    note : str
        What the reader should know: why it is ignored, or how many levels share one input.
    """

    name: str
    kind: str
    likelihood: str
    center: float = 0.0
    scale: float = 1.0
    constant: bool = False
    levels: tuple[Level, ...] = ()
    kept: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    cycles: tuple[str, ...] = ()
    knots: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    between: bool = False
    domain: Domain = UNKNOWN
    far: float = FAR
    format: Format | None = None
    note: str = ""

    @property
    def width(self) -> int:
        """Number of inputs."""
        if self.kind == "ignored":
            return 0
        if self.kind == "category":
            return len(self.kept) + 1
        return len(self.knots) or 1 + 2 * len(self.cycles)

    @cached_property
    def pooled(self) -> tuple[int, ...]:
        """The levels that occurred and share the last input of a category."""
        own = set(self.kept)
        return tuple(i for i, n in enumerate(self.counts) if n and i not in own)

    @property
    def standing(self) -> Array:
        """What each input of a category stands for, a position in `levels`: -1 for no one level.

        Which of several pooled levels a cell holds, the network cannot say.
        """
        return np.array([*self.kept, self.pooled[0] if len(self.pooled) == 1 else -1])

    @property
    def is_linear(self) -> bool:
        """Whether centring and scaling is all that happens to its cells."""
        return self.kind in ("real", "binary", "pixel") and not self.knots

    @property
    def is_squashed(self) -> bool:
        """Whether cells far out are drawn in; grey values and flags have no far out."""
        return self.kind in ("real", "time") and not self.knots

    @property
    def holds_shares(self) -> bool:
        """Whether its likelihood models numbers between 0 and 1."""
        return cells_of(self.likelihood) == "shares"

    @property
    def limits(self) -> tuple[float, float]:
        """How far reconstructions go, in the column's unit.

        Where a number follows from the network's output in a straight line there is no limit. Where
        it follows by an exponential, as beyond `far` and for counts, it ends where cells ended.
        """
        low, high = self.domain.low, self.domain.high
        if self.kind == "count" or (self.constant and self.kind != "pixel"):
            return low, high
        if self.is_squashed:
            reach = self.far * self.scale
            return min(low, self.center - reach), max(high, self.center + reach)
        return -math.inf, math.inf

    @property
    def scaled_knots(self) -> Array:
        """The knots as the network's other numbers are: centred and scaled."""
        return np.asarray((np.array(self.knots) - self.center) / self.scale)

    @property
    def share_scale(self) -> float:
        """What a histogram's weights are divided by: the root of their summed variances, if hard.

        Weights that are shared by two knots vary somewhat less.
        """
        return math.sqrt(max(sum(share * (1 - share) for share in self.shares), 1e-6))

    def encode(self, values: Array, levels: tuple[Level, ...]) -> Array:
        """Return the inputs `(n_rows, width)` of cells `(n_rows,)`; NaN for missing ones.

        `levels` are what positions in `values` stand for, where the caller's table holds text.
        """
        if self.kind == "category":
            return self._one_hot(values, levels)
        if self.knots:
            return np.asarray((self.weights(values) - np.array(self.shares)) / self.share_scale)
        if self.kind == "count":
            # A number below 0, which is not a count, is as far off as the one above.
            logs = np.copysign(np.log1p(np.abs(values)), values)
            return np.asarray((logs - self.center) / self.scale)[:, None]
        scaled = (values - self.center) / self.scale
        if self.is_squashed:
            scaled = squash(scaled, self.far)
        if not self.cycles:
            return np.asarray(scaled)[:, None]
        parts = [scaled]
        for name in self.cycles:
            turn = 2 * math.pi * _phase(values, name)
            parts += [np.sin(turn), np.cos(turn)]
        return np.stack(parts, axis=1)

    def _one_hot(self, values: Array, levels: tuple[Level, ...]) -> Array:
        slots = self.slots(values, levels)
        inputs = np.zeros((len(values), self.width))
        inputs[np.arange(len(values)), slots] = 1.0
        inputs[slots < 0] = np.nan
        return inputs

    def slots(self, values: Array, levels: tuple[Level, ...]) -> NDArray[np.int64]:
        """Return which of a category's inputs is set by each cell, `(n_rows,)`; -1 if missing."""
        missing = np.isnan(values)
        own = self._slots(levels)[np.where(missing, 0, values).astype(np.int64)]
        return np.where(missing, -1, own)

    def weights(self, values: Array) -> Array:
        """Return each knot's share of the cells, which by its knots is the cell again.

        A cell beyond the last knot is at that knot, with a weight that grows with the logarithm of
        the distance, so that its likelihood can tell.
        """
        scaled = (values - self.center) / self.scale
        knots, numbers = self.scaled_knots, np.arange(len(self.knots))
        place = np.interp(scaled, knots, numbers)
        weights = np.maximum(1 - np.abs(place[:, None] - numbers), 0)
        beyond = np.maximum(np.maximum(knots[0] - scaled, scaled - knots[-1]), 0)
        return np.asarray(weights * (1 + np.log1p(beyond))[:, None])

    def _slots(self, levels: tuple[Level, ...]) -> NDArray[np.int64]:
        """Return, per position in the caller's levels, the input that is set for it.

        One position more is that of cells which are in none of the levels.
        """
        slot_of = dict(zip(self.kept, range(len(self.kept)), strict=True))
        found = places(self.levels, levels)
        slots = [len(self.kept) if p is None else slot_of.get(p, len(self.kept)) for p in found]
        return np.array([*slots, len(self.kept)], dtype=np.int64)

    def decode(self, inputs: Array, own: Array | None = None) -> Array:
        """Return the cells `(n_rows,)` that inputs `(n_rows, width)` stand for.

        A category is its most probable level: a number, or a text's position in `levels`; the cell
        is missing if that is one of several pooled levels. A histogram is its mean, which lies
        between the first and the last knot. Other numbers end at the column's `limits`, or at the
        rows' `own` cells `(n_rows,)` where these lie further out.
        """
        if self.kind == "ignored":
            return np.full(len(inputs), np.nan)
        if self.kind == "category":
            places = (inputs if self.pooled else inputs[:, :-1]).argmax(axis=1)
            levels = np.where(np.isnan(inputs[:, 0]), -1, self.standing[places])
            return self.level_cells(levels)
        if self.knots:
            weights = inputs.astype(np.float64) * self.share_scale + np.array(self.shares)
            scaled = weights @ self.scaled_knots / weights.sum(axis=1)
            cells = scaled * self.scale + self.center
            return np.asarray(cells.clip(self.knots[0], self.knots[-1]))
        scaled = inputs[:, 0].astype(np.float64)
        low, high = map(np.asarray, self.limits)
        ends = widened(low, high, own)
        if self.kind == "count":
            counts = np.expm1(np.minimum(scaled * self.scale + self.center, 700.0))
            return _nearly_whole(counts).clip(*ends)
        if self.is_squashed:
            scaled = unsquash(scaled, self.far)
        return in_unit(scaled, self.scale, self.center).clip(*ends)

    def level_cells(self, levels: NDArray[np.int64]) -> Array:
        """Return a category's cells, given their positions in `levels`; -1 is a missing one."""
        cells = levels.astype(np.float64)
        if self.format is None or self.format.type != "text":
            cells = np.array(self.levels, dtype=np.float64)[levels]
        return np.where(levels < 0, np.nan, cells)

    def describe(self) -> str:
        """Say in a few words what the network sees of the column."""
        if self.kind == "category":
            shown = ", ".join(as_text(self.levels[i]) for i in self.kept[:4])
            return (
                f"{counted(len(self.levels), 'level')}: {shown}{', ...' * (len(self.levels) > 4)}"
            )
        if self.kind == "ignored":
            return self.note
        if self.knots:
            places = "between" if self.between else "at"
            low, high = self.knots[0], self.knots[-1]
            return f"{places} {len(self.knots)} knots, {low:.6g} to {high:.6g}"
        if self.kind == "count":
            return f"around {math.expm1(self.center):.4g}"
        if self.kind == "time":
            turns = f"; cycles: {', '.join(self.cycles)}" if self.cycles else ""
            around = np.datetime64(int(self.center), "s")
            return f"centre {around}, scale {self.scale / CYCLES['day']:.3g} days{turns}"
        return f"centre {self.center:.6g}, scale {self.scale:.6g}"

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain data."""
        document = {k: v for k, v in asdict(self).items() if v != _DEFAULTS.get(k, _DEFAULTS)}
        document.pop("domain")
        if self.domain != UNKNOWN:
            document["domain"] = self.domain.to_json()
        if self.format is not None:
            document["format"] = self.format.to_json()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Column:
        """Read back what `to_json` gave; raises TypeError or ValueError where it is none."""
        values = dict(document)
        for name in ("levels", "kept", "counts", "cycles", "knots", "shares"):
            values[name] = tuple(values.get(name, ()))
        shape = values.get("format")
        values["domain"] = Domain.from_json(values.get("domain", {}))
        values["format"] = None if shape is None else Format.from_json(shape)
        numbers = [(name, float) for name in ("center", "scale", "far")]
        for name, plain in (("name", str), *numbers, ("note", str)):
            if name in values:
                values[name] = plain(values[name])
        column = cls(**values)
        if mistake := _mistake_in(column):
            raise ValueError(f"column {column.name!r} {mistake}")
        return column


def _mistake_in(column: Column) -> str:
    """Return why no column can be like one that was read from a document, or nothing."""
    kind, levels = column.kind, column.levels
    form = Format("number", "") if column.format is None else column.format
    if column.likelihood not in likelihoods_of(kind):
        return f"has kind {kind!r} and likelihood {column.likelihood!r}"
    if not (math.isfinite(column.far) and column.far >= FAR):
        return f"draws in what is beyond {column.far!r} scales"
    if not (np.isfinite([column.center, column.scale]).all() and column.scale > 0):
        return f"has center {column.center!r} and scale {column.scale!r}"
    if not all(_is_position(i, levels) for i in column.kept):
        return "keeps levels that it does not have"
    if len(set(column.kept)) < len(column.kept):
        return "keeps a level twice"
    if len(column.counts) != (len(levels) if kind == "category" else 0):
        return f"has {len(levels)} levels and counts {len(column.counts)}"
    if not all(type(n) is int and n >= 0 for n in column.counts):
        return "counts its levels by what are not numbers of rows"
    if kind == "category" and not column.kept and not column.pooled:
        return "is a category without levels"
    if not all(isinstance(level, str | int | float) for level in levels):
        return f"has levels that are not cells: {levels!r}"
    if not all(_is_text(name) for name in (column.name, *levels) if isinstance(name, str)):
        return "has a name or a level that cannot be written"
    if column.cycles and (kind != "time" or not set(column.cycles) <= set(CYCLES)):
        return f"turns by {column.cycles!r}, and is of kind {kind!r}"
    if bool(column.knots) != (cells_of(column.likelihood) == "knots") or not _are_knots(column):
        return f"has likelihood {column.likelihood!r} and knots {column.knots!r}"
    if not isinstance(form.dtype, str) or form.type not in _KINDS_OF_TYPE:
        return f"has the format {form!r}"
    if kind not in _KINDS_OF_TYPE[form.type] or (form.type != "text" and _holds_text(levels)):
        return f"is of kind {kind!r}, and its cells are of type {form.type!r}"
    return ""


def _is_text(text: str) -> bool:
    """Whether the text can be written to a file: halves of letters cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_position(place: Any, levels: tuple[Level, ...]) -> bool:
    return type(place) is int and 0 <= place < len(levels)


def _are_knots(column: Column) -> bool:
    knots, between, shares = column.knots, column.between, column.shares
    if len(shares) != len(knots) or not all(type(s) is float and 0 <= s <= 1 for s in shares):
        return False
    if not all(type(knot) in (int, float) and math.isfinite(knot) for knot in knots):
        return False
    ascending = len(knots) < 2 or bool((np.diff(column.scaled_knots) > 0).all())
    return ascending and type(between) is bool and (len(knots) > 1 or not between)


def _holds_text(levels: tuple[Level, ...]) -> bool:
    return any(isinstance(level, str) for level in levels)


_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in Column.__dataclass_fields__.values()
}


def squash(scaled: Array, far: Array | float = FAR) -> Array:
    """Let numbers beyond `far` grow like a logarithm only; `unsquash` is the way back.

    Examples
    --------
    >>> squash(np.array([-3.0, 10.0, 1e6])).round(1).tolist()
    [-3.0, 10.0, 23.8]
    """
    if _within(scaled, far):
        return scaled
    size = np.abs(scaled)
    with np.errstate(invalid="ignore"):
        beyond = far + np.log1p(np.maximum(size - far, 0))
        return np.where(size > far, np.copysign(beyond, scaled), scaled).astype(scaled.dtype)


def unsquash(inputs: Array, far: Array | float = FAR) -> Array:
    """Undo `squash`."""
    if _within(inputs, far):
        return inputs
    size = np.abs(inputs)
    with np.errstate(invalid="ignore", over="ignore"):
        # Reconstructions can go anywhere, and still must be numbers.
        most = 80.0 if inputs.dtype.itemsize < 8 else 700.0
        beyond = far + np.expm1(np.minimum(np.maximum(size - far, 0), most))
        return np.where(size > far, np.copysign(beyond, inputs), inputs).astype(inputs.dtype)


def _within(numbers: Array, far: Array | float) -> bool:
    """Whether no number is beyond `far`, by their extremes where those tell."""
    if numbers.size == 0:
        return True
    least = np.min(far)
    if -least <= numbers.min() and numbers.max() <= least:
        return True
    with np.errstate(invalid="ignore"):
        return not (np.abs(numbers) > far).any()


def in_unit(scaled: Array, scale: Array | float, center: Array | float) -> Array:
    """Return scaled numbers in the columns' units, or the largest number there is of their kind."""
    most = np.finfo(scaled.dtype).max
    with np.errstate(over="ignore"):
        cells = scaled * scale + center
    return np.asarray(cells.clip(-most, most).astype(scaled.dtype, copy=False))


def _nearly_whole(counts: Array) -> Array:
    """Return counts, those that are whole but for the rounding of 32-bit logarithms as whole."""
    counts = counts.clip(min=0)
    whole = np.rint(counts)
    return np.where(np.abs(counts - whole) <= _COUNT_SLACK * (1 + counts), whole, counts)


def _phase(seconds: Array, cycle: str) -> Array:
    """Return the phase of each timestamp in its cycle, from 0 to 1."""
    turn = CYCLES[cycle]
    start = MONDAY if cycle == "week" else 0.0
    return np.asarray(((seconds - start) % turn) / turn)


def cycles_of(seconds: Array) -> tuple[str, ...]:
    """Return the cycles that timestamps vary in, and go through more than twice."""
    known = seconds[~np.isnan(seconds)]
    if len(known) == 0:
        return ()
    span = float(known.max() - known.min())
    found = []
    for name, turn in CYCLES.items():
        if span > 2 * turn and np.ptp(_phase(known, name)) > 0.01:
            found.append(name)
    return tuple(found)


def knots_of(
    values: Array, center: float, scale: float, most: int = MOST_KNOTS
) -> tuple[tuple[float, ...], bool]:
    """Return where a histogram of the cells has its knots, and whether cells lie between them.

    The knots are the distinct values where they are few, else quantiles, the least and the greatest
    cell among them. Where many cells share one value, several quantiles are one knot; those that
    are lost go one by one into the widest gaps, as counted in cells.

    Examples
    --------
    >>> knots_of(np.array([2.0, 1.0, 2.0, np.nan]), 0.0, 1.0)
    ((1.0, 2.0), False)
    """
    ordered = np.sort(values[~np.isnan(values)])
    distinct = np.unique(ordered)
    if len(distinct) <= most:
        return _apart(distinct, center, scale), False
    shares = np.linspace(0, 1, most)
    knots = np.unique(np.quantile(ordered, shares, method="nearest"))
    while len(knots) < most:
        starts = np.searchsorted(ordered, knots[:-1], side="right")
        counts = np.searchsorted(ordered, knots[1:], side="left") - starts
        widest = int(counts.argmax())
        knots = np.union1d(knots, ordered[starts[widest] + counts[widest] // 2])
    return _apart(knots, center, scale), True


def _apart(knots: Array, center: float, scale: float) -> tuple[float, ...]:
    """Return the knots without those so near to the one before that scaling may merge them."""
    kept = [float(knots[0])]
    for knot in knots[1:].tolist():
        if (knot - center) / scale - (kept[-1] - center) / scale > _LEAST_GAP:
            kept.append(knot)
    return tuple(kept)


def white(high: float) -> float:
    """Return the end of a grey scale: 255 or, for fewer bits, one less than a power of two, or it.

    Examples
    --------
    >>> white(200.0), white(16.0), white(14.0)
    (255.0, 16.0, 15.0)
    """
    bits = math.ceil(math.log2(high))
    return float(2**bits) if high == 2**bits and bits < 8 else float(2**bits - 1)
