"""Wrong cells put into good rows on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOVED, OTHER_LEVEL, UNSEEN_LEVEL = 0, 1, 2
WAYS = ("moved", "another level", "unseen level")
UNSEEN = "?unseen?"


def corrupt(rows: Any, train: Any, rng: np.random.RandomState) -> tuple[Any, Array, Array]:
    """Return the rows with one wrong cell each, the cells' columns, and the ways they are wrong.

    The column is drawn evenly from those whose cell is there. What happens to the cell:

    - A number moves by a distance drawn evenly from 5 to 10 robust standard deviations of the
      training column (interquartile range / 1.349; the standard deviation where that is 0), up or
      down by chance. Where it would fall below zero in a column that never does so in training it
      goes up instead: a negative number of rooms would be caught by any check of ranges. Whole
      numbers stay whole where the training column has nothing else.
    - A text becomes, by chance, either another level of the training column, drawn evenly, or a
      text that training never saw.

    The rows keep their types.
    """
    import pandas

    corrupted = rows.copy()
    columns = np.empty(len(rows), dtype=np.int64)
    ways = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        there = np.flatnonzero(rows.iloc[i].notna().to_numpy())
        j = columns[i] = rng.choice(there)
        known = train.iloc[:, j].dropna()
        cell = rows.iat[i, j]
        if pandas.api.types.is_numeric_dtype(known):
            ways[i] = MOVED
            corrupted.iat[i, j] = moved(float(cell), known.to_numpy(dtype=np.float64), rng)
        elif rng.uniform() < 0.5:
            ways[i] = OTHER_LEVEL
            corrupted.iat[i, j] = rng.choice([level for level in known.unique() if level != cell])
        else:
            ways[i] = UNSEEN_LEVEL
            corrupted.iat[i, j] = UNSEEN
    return corrupted, columns, ways


def moved(cell: float, known: Array, rng: np.random.RandomState) -> float:
    """Return a number 5 to 10 robust standard deviations of the known ones away."""
    low, high = np.percentile(known, [25, 75])
    step = rng.uniform(5, 10) * ((high - low) / 1.349 or known.std() or 1.0)
    if np.all(known == np.round(known)):
        step = np.round(step)
    down = rng.uniform() < 0.5 and (cell - step >= 0 or known.min() < 0)
    return float(cell - step if down else cell + step)
