"""Three ways in which cells go missing; each takes complete rows and says which cells to hide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]
_KEPT = 0.3  # share of the columns that missing-at-random leaves complete


def mcar(x: Array, share: float, rng: np.random.RandomState) -> Mask:
    """Missing completely at random: each cell on its own, with probability `share`.

    Source: Yoon, Jordon and van der Schaar, 2018, "GAIN: Missing Data Imputation using Generative
    Adversarial Nets", section 5, whose code draws one uniform number per cell.
    """
    return rng.uniform(size=x.shape) < share


def mar(x: Array, share: float, rng: np.random.RandomState) -> Mask:
    """Missing at random: what is missing depends on cells that are always there.

    A random 30 % of the columns (at least one) stay complete. A cell of another column is missing
    with the probability sigmoid(z w + b), where z are the row's standardised cells of the complete
    columns, w is drawn from a normal law per column and scaled so that z w has variance 1, and b is
    set so that `share` of the column's cells are missing on average.

    Source: the logistic mechanism of Muzellec, Josse, Boyer and Cuturi, 2020, "Missing Data
    Imputation using Optimal Transport".
    """
    n, width = x.shape
    z = _standardised(x)
    complete = rng.permutation(width)[: max(1, int(_KEPT * width))]
    others = np.setdiff1d(np.arange(width), complete)
    causes = z[:, complete] @ rng.standard_normal((len(complete), len(others)))
    hidden = np.zeros((n, width), dtype=bool)
    hidden[:, others] = _logistic(_standardised(causes), share, rng)
    return hidden


def mnar(x: Array, share: float, rng: np.random.RandomState) -> Mask:
    """Missing not at random: whether a cell is missing depends on the very value that it hides.

    A cell is missing with the probability sigmoid(s z + b), where z is the cell itself,
    standardised, s is +1 or -1 per column by chance (large or small values hide), and b is set so
    that `share` of the column's cells are missing on average.

    Source: logistic self-masking as in R-miss-tastic (Mayer et al., 2019, "R-miss-tastic: a unified
    platform for missing values methods and workflows").
    """
    sign = rng.choice([-1.0, 1.0], size=x.shape[1])
    return _logistic(sign * _standardised(x), share, rng)


def _standardised(x: Array) -> Array:
    std = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(std > 0, std, 1.0)


def _logistic(z: Array, share: float, rng: np.random.RandomState) -> Mask:
    """Hide cells with probability sigmoid(z + b), b such that a column's mean is `share`."""
    low, high = np.full(z.shape[1], -50.0), np.full(z.shape[1], 50.0)
    for _ in range(60):  # bisection: the mean grows with b
        middle = (low + high) / 2
        more = _sigmoid(z + middle).mean(axis=0) < share
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return rng.uniform(size=z.shape) < _sigmoid(z + (low + high) / 2)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


MECHANISMS = {"MCAR": mcar, "MAR": mar, "MNAR": mnar}
