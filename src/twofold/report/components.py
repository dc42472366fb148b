"""What each component of the code contributes: how it varies, and what is lost without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Decode = Callable[[Array], Array]

_ROWS, _LEAST_ROWS = 2_000, 64  # that components are taken from, one component at a time
_PRODUCTS = 3e10  # work of that: about a second
_MOST_PRODUCTS = 3e11  # and at most; beyond, only the components that vary least are tested
_UNUSED = 0.01  # of what a component contributes on average
_SAME = 0.98  # correlation of two components that are one
_AS_WELL, _OF_ALL = 1.01, 5e-4  # times the error, and of the variance: hardly worse
_MOST_DIRECTIONS = 2048
_FEW = 20  # rows, which say nothing about a component
_PER_COMPONENT = 5  # rows, for how several components depend on each other


@dataclass(frozen=True)
class Components:
    """What the components of the code do.

    Attributes
    ----------
    spread : array of shape (n_components,)
        Their standard deviations.
    importance : array of shape (n_components,)
        Which share of the rows' variance is lost with a component that is held at its mean; NaN
        where that was not tested.
    n_rows : int
        Number of rows it was tested on; 0 where there are too few.
    unused : tuple of int
        Components without which hardly anything changes.
    twins : tuple of (int, int, float)
        Pairs that carry the same information, and their correlation.
    directions : int or None
        How many directions of the codes are enough to reconstruct about as well; None: unknown.
    cost : float
        By which share the error is larger then.
    places, marked : array of shape (n_rows, 2), (n_marked, 2)
        The rows on a map, and further ones.
    shares : tuple of float
        Which shares of the codes' variance the axes of the map show; empty where these are the
        components themselves.
    """

    spread: NDArray[np.float64]
    importance: NDArray[np.float64]
    n_rows: int
    unused: tuple[int, ...]
    twins: tuple[tuple[int, int, float], ...]
    directions: int | None
    cost: float
    places: NDArray[np.float64]
    marked: NDArray[np.float64]
    shares: tuple[float, ...]


def row_errors(squares: Array) -> NDArray[np.float64]:
    """Return each row's squared error; with missing cells, scaled up to all columns."""
    known = (~np.isnan(squares)).sum(axis=1)
    sums = np.nansum(squares, axis=1, dtype=np.float64)
    return np.asarray(sums * squares.shape[1] / np.maximum(known, 1))


def study(
    codes: Array,
    x: Array,
    mean: NDArray[np.float64],
    scores: NDArray[np.float64],
    marked: tuple[Array, NDArray[np.float64]],
    decode: Decode,
    products: int,
) -> Components:
    """Measure what each component of the codes contributes.

    Parameters
    ----------
    codes, x : arrays of shape (n_rows, n_components) and (n_rows, width)
        Codes, and the rows as the network sees them.
    mean : array of shape (width,)
        The rows' mean.
    scores : array of shape (n_rows,)
    marked : tuple of arrays
        Codes and scores of further rows that are to be on the map.
    decode : callable
        Gives the rows that codes stand for.
    products : int
        About how many products of numbers that takes for a row.
    """
    wide = codes.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    covariance = centred.T @ centred / len(codes)
    importance, directions, cost = np.full(codes.shape[1], np.nan), None, 0.0
    unused: tuple[int, ...] = ()
    n_rows = 0
    enough = len(codes) >= max(_FEW, _PER_COMPONENT * codes.shape[1])
    if len(codes) >= _FEW:
        trial = _Trial(codes, x, mean, covariance, decode, products)
        importance, n_rows = trial.importance(), len(trial.codes)
        # A code that contributes nothing says nothing about its parts.
        if trial.contributes > 0:
            least = _UNUSED * trial.contributes / codes.shape[1]
            unused = tuple(np.flatnonzero(importance * trial.variance <= least).tolist())
            directions, cost = trial.directions() if enough else (None, 0.0)
    plane, shares = _plane(covariance)
    return Components(
        spread=wide.std(axis=0),
        importance=importance,
        n_rows=n_rows,
        unused=unused,
        twins=_twins(covariance, unused) if enough else (),
        directions=directions,
        cost=cost,
        places=_places(wide, scores, wide.mean(axis=0), plane),
        marked=_places(marked[0].astype(np.float64), marked[1], wide.mean(axis=0), plane),
        shares=shares,
    )


class _Trial:
    """Reconstructs some rows from codes that lack something, to see whether it is missed.

    `variance` is the rows' squared distance from their mean, `error` that from their
    reconstructions, `contributes` the difference.
    """

    def __init__(
        self,
        codes: Array,
        x: Array,
        mean: NDArray[np.float64],
        covariance: NDArray[np.float64],
        decode: Decode,
        products: int,
    ) -> None:
        most = max(_LEAST_ROWS, min(_ROWS, int(_PRODUCTS / (products * codes.shape[1]))))
        rows = np.linspace(0, len(codes) - 1, min(most, len(codes))).astype(int)
        self.codes, self._x = codes[rows], x[rows]
        self._decode, self._covariance = decode, covariance
        self._mean = codes.mean(axis=0, dtype=np.float64)
        self._most_tested = max(1, int(_MOST_PRODUCTS / (products * len(rows))))
        self.variance = float(row_errors(np.square(self._x - mean)).mean())
        self.error = self._error(self.codes)
        self.contributes = self.variance - self.error

    def _error(self, codes: Array) -> float:
        return float(row_errors(np.square(self._x - self._decode(codes))).mean())

    def importance(self) -> NDArray[np.float64]:
        """Return which share of the variance is lost with each component."""
        spread = np.diagonal(self._covariance)
        result = np.full(len(spread), np.nan)
        for j in np.argsort(spread, kind="stable")[: self._most_tested]:
            codes = self.codes.copy()
            codes[:, j] = self._mean[j]
            result[j] = (self._error(codes) - self.error) / (self.variance or 1.0)
        return result

    def directions(self) -> tuple[int | None, float]:
        """Return how many principal directions of the codes reconstruct about as well as all.

        And by which share the error is larger then.
        """
        n = len(self._mean)
        if n > _MOST_DIRECTIONS:
            return None, 0.0
        _, vectors = np.linalg.eigh(self._covariance)
        centred = self.codes - self._mean
        enough = _AS_WELL * self.error + _OF_ALL * self.variance
        low, high, cost = 1, n, 0.0
        while low < high:
            middle = (low + high) // 2
            basis = vectors[:, n - middle :]
            error = self._error(self._mean + (centred @ basis) @ basis.T)
            if error <= enough:
                high, cost = middle, error / self.error - 1 if self.error else 0.0
            else:
                low = middle + 1
        return low, cost


def _twins(
    covariance: NDArray[np.float64], unused: Sequence[int]
) -> tuple[tuple[int, int, float], ...]:
    """Return pairs of components that carry the same information, the closest first."""
    spread = np.sqrt(np.diagonal(covariance))
    dead = spread <= 1e-6 * (spread.max(initial=0.0) or 1.0)
    dead[list(unused)] = True
    safe = np.where(dead, np.inf, spread)
    alike = covariance / safe[:, None] / safe
    first, second = np.nonzero(np.triu(np.abs(alike) >= _SAME, 1))
    pairs = [
        (int(i), int(j), float(np.clip(alike[i, j], -1, 1)))
        for i, j in zip(first, second, strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: -abs(pair[2])))


def _plane(
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64] | None, tuple[float, ...]]:
    """Return the first two principal directions, and which shares of the variance they show."""
    if len(covariance) <= 2:
        return None, ()
    values, vectors = np.linalg.eigh(covariance)
    total = float(values.clip(min=0).sum())
    largest = values[:-3:-1].clip(min=0)
    shares = tuple(float(value) / total if total > 0 else 0.0 for value in largest)
    return vectors[:, :-3:-1], shares


def _places(
    codes: NDArray[np.float64],
    scores: NDArray[np.float64],
    mean: NDArray[np.float64],
    plane: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Return where rows are on the map; a code of one number is set against the score."""
    if codes.shape[1] == 1:
        return np.column_stack([codes[:, 0], scores])
    return codes if plane is None else (codes - mean) @ plane
