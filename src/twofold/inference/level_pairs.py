"""Which levels occur together: what is filled in or drawn is a row that can be.

A network gives each cell its own probabilities, so that a town may come with another town's port.
Here the levels of a row are settled one column after another, and a level gives way to others if
it never occurred with one that the row has already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from twofold.data.table import Table
from twofold.schema.column import Array, Column
from twofold.schema.schema import Schema

_MOST_NUMBERS = 20  # different values of a column of numbers that counts as one of levels
_MOST_LEVELS = 2048  # of all columns together
_MOST_ROWS, _MOST_CELLS = 100_000, 50_000_000  # rows, and rows times pairs of columns
# Rows that a pair of levels would have if columns were independent, for its absence to mean that
# it cannot be: the probability of none is then 5 % (Poisson's, exp(-3)).
_EXPECTED = 3.0
NEVER, UNSEEN, SEEN = 0, 1, 2
MISSING = -1

Levels = NDArray[np.int64]


@dataclass(frozen=True)
class LevelPairs:
    """Columns of few values, their levels, and what was seen of each pair of levels.

    Attributes
    ----------
    columns : tuple of int
        Positions in the schema: categories, flags and numbers of few whole values.
    values : tuple of arrays
        A number's levels in order; those of a category are its inputs, and have no entries.
    sizes : tuple of int
        Number of levels of each column.
    pairs : uint8 array of shape (n_levels, n_levels)
        `SEEN` together, `UNSEEN`, or `NEVER`: unseen though both are frequent.
    """

    columns: tuple[int, ...]
    values: tuple[Array, ...]
    sizes: tuple[int, ...]
    pairs: NDArray[np.uint8]

    @classmethod
    def fit(cls, schema: Schema, table: Table) -> LevelPairs:
        """Find the columns and their pairs of levels in training rows."""
        found: list[tuple[int, Array, int]] = []
        if schema.is_table:
            for i, column in enumerate(schema.columns):
                if column.kind == "category":
                    found.append((i, np.empty(0), column.width))
                elif _may_have_levels(column):
                    distinct = np.unique(table.values[:, i].astype(np.float64))
                    distinct = distinct[~np.isnan(distinct)]
                    if 1 < len(distinct) <= _MOST_NUMBERS:
                        found.append((i, distinct, len(distinct)))
        found.sort(key=lambda entry: (entry[2], entry[0]))
        ends = np.cumsum([size for _, _, size in found])
        found = [entry for entry, end in zip(found, ends, strict=True) if end <= _MOST_LEVELS]
        if len(found) < 2:
            return NO_PAIRS
        columns, values, sizes = zip(*found, strict=True)
        n = min(_MOST_ROWS, _MOST_CELLS * 2 // (len(columns) * (len(columns) - 1)))
        step = max(1, table.n_rows // n)
        rows = Table(table.values[::step], table.names, formats=table.formats)
        empty = cls(columns, values, sizes, np.empty((0, 0), np.uint8))
        return cls(columns, values, sizes, _pairs(empty.of(schema, rows), sizes))

    def of(self, schema: Schema, table: Table) -> Levels:
        """Return the level of each cell of a table, `(n_rows, len(columns))`.

        -1 is a missing one, -2 a number that is none of the levels.
        """
        levels = np.full((table.n_rows, len(self.columns)), -1)
        for j, (i, values) in enumerate(zip(self.columns, self.values, strict=True)):
            if schema.columns[i].kind == "category":
                levels[:, j] = schema.slots(table, i)
                continue
            cells = table.values[:, i].astype(np.float64)
            at = np.searchsorted(values, cells).clip(0, len(values) - 1)
            levels[:, j] = np.where(np.isnan(cells), -1, np.where(values[at] == cells, at, -2))
        return levels

    def settle(self, levels: Levels, scores: Sequence[Array], least: int) -> Levels:
        """Return the levels with missing ones settled: the best of those that can go together.

        Parameters
        ----------
        levels : array of shape (n_rows, len(columns))
            Those of a row, -1 for those to settle.
        scores : sequence of arrays of shape (n_rows, size)
            How good each level of a column is, higher is better.
        least : int
            `UNSEEN` lets levels meet that were not seen together by coincidence, `SEEN` does not.
        """
        levels = levels.copy()
        barred = self.pairs < least
        starts = np.cumsum([0, *self.sizes])
        for j, score in enumerate(scores):
            rows = np.flatnonzero(levels[:, j] == MISSING)
            if not len(rows):
                continue
            own = slice(starts[j], starts[j + 1])
            conflicts = np.zeros((len(rows), self.sizes[j]), np.int64)
            for k in range(len(self.columns)):
                other = levels[rows, k]
                known = other >= 0
                if k != j and known.any():
                    conflicts[known] += barred[starts[k] + other[known], own]
            fewest = conflicts == conflicts.min(1, keepdims=True)
            levels[rows, j] = np.where(fewest, score[rows], -np.inf).argmax(1)
        return levels


NO_PAIRS = LevelPairs((), (), (), np.empty((0, 0), np.uint8))


def _may_have_levels(column: Column) -> bool:
    whole = column.domain.step >= 1 and column.domain.decimals == 0
    return column.kind in ("binary", "real", "count") and whole and not column.constant


def _pairs(levels: Levels, sizes: Sequence[int]) -> NDArray[np.uint8]:
    """Return what was seen of each pair of levels; levels of one column are not compared."""
    starts = np.cumsum([0, *sizes])
    pairs = np.full((starts[-1], starts[-1]), SEEN, np.uint8)
    for a, b in combinations(range(len(sizes)), 2):
        both = (levels[:, a] >= 0) & (levels[:, b] >= 0)
        codes = levels[both, a] * sizes[b] + levels[both, b]
        counts = np.bincount(codes, minlength=sizes[a] * sizes[b]).reshape(sizes[a], sizes[b])
        n = max(1, int(both.sum()))
        expected = counts.sum(1)[:, None] * counts.sum(0)[None] / n
        found = np.where(counts > 0, SEEN, np.where(expected >= _EXPECTED, NEVER, UNSEEN))
        own, other = slice(starts[a], starts[a + 1]), slice(starts[b], starts[b + 1])
        pairs[own, other], pairs[other, own] = found, found.T
    return pairs
