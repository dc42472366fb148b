"""Models of a cell given the rest of its row: a normal law, a Gaussian copula, trees, kernels.

All of them are fitted to incomplete rows of inputs, standardised numbers and levels as 0 and 1
(`regressions.Inputs`), and fill what is missing in others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import ndtri
from sklearn.tree import ExtraTreeRegressor

Array = NDArray[np.float64]
_CELLS = 4_000_000  # of the matrices of some rows' normal laws
_WORK = 3e9  # multiplications per round of `ConditionalNormal.fit`: a few seconds
_ROUNDS, _SETTLED = 20, 1e-3  # of that fit; what cells may still change by, in deviations
_PRIOR_ROWS = 2.0  # rows that columns without any correlation count as
_MOST_ROWS = 20_000  # that trees are fitted to
_TREE_WORK = 1e8  # rows, times trees, columns and inputs, of one pass: some 10 seconds
_LEAVES = 1_500_000  # of all trees together: some 200 MB
_LEAST_SPLIT = 10  # rows that a node needs to be split: cells are seldom without noise
_MOST_TREES, _LEAST_TREES = 20, 4
_QUICK_TREES = 10  # of those that are only judged, in a single pass
_PASSES = 2  # of the trees over a row's missing cells
_KERNEL_ROWS, _CHOOSING_ROWS = 1_000, 250  # that a kernel regression has, and is chosen on
_KERNEL_WIDTHS, _RIDGES = (1.0, 2.0, 4.0), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_KERNEL_CELLS = 4_000_000  # of the kernels of some rows
# To integrate over a normal law: exact for polynomials up to degree 29.
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_NODE_WEIGHTS /= _NODE_WEIGHTS.sum()


@dataclass(frozen=True)
class ConditionalNormal:
    """The mean of missing inputs under one normal law of all inputs.

    It is fitted to incomplete rows by expectation and maximisation (Dempster, Laird and Rubin,
    1977, section 4.1.3; Little and Rubin, 2002, section 11.2).
    """

    mean: Array
    covariance: Array

    @classmethod
    def fit(cls, x: Array) -> ConditionalNormal:
        """Fit the law to rows `(n_rows, width)`, NaN for missing inputs."""
        n, width = x.shape
        x = x[: max(256, int(_WORK / (6 * width**3)))]
        n, seen = len(x), ~np.isnan(x)
        # A column may have no cell in these rows.
        known = seen.sum(0).clip(1)
        mean = np.where(seen, x, 0.0).sum(0) / known
        own = np.where(seen, (x - mean) ** 2, 0.0).sum(0) / known + 1e-9
        filled, covariance = np.where(seen, x, mean), np.diag(own)
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
        counts = np.bincount(which.ravel(), minlength=len(patterns)).astype(np.float64)
        step = max(1, _CELLS // width**2)
        for number in range(_ROUNDS):
            law = cls(mean, covariance)
            before, filled = filled, law.fill(x)
            uncertain = np.zeros_like(covariance)
            for start in range(0, len(patterns), step):
                there = patterns[start : start + step]
                weights = law._precisions(there)
                # What is left of the variance of missing inputs, given the others.
                left = covariance - covariance @ weights @ covariance
                gone = ~there[:, :, None] & ~there[:, None, :]
                uncertain += np.einsum("p,pij->ij", counts[start : start + step], left * gone)
            mean = filled.mean(0)
            centred = filled - mean
            prior = _PRIOR_ROWS * np.diag(own)
            covariance = (centred.T @ centred + uncertain + prior) / (n + _PRIOR_ROWS)
            if number and np.abs(filled - before).max() < _SETTLED:
                break
        return cls(mean, covariance)

    def fill(self, x: Array) -> Array:
        """Return rows with missing inputs replaced by their mean given the others."""
        filled = x.copy()
        for at, seen, weights in self._rows(x):
            filled[at] = np.where(seen, x[at], self._means(x[at], seen, weights))
        return filled

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Return rows filled by the mean given the others, and the variance that this leaves."""
        filled, variance = x.copy(), np.zeros_like(x)
        for at, seen, weights in self._rows(x):
            filled[at] = np.where(seen, x[at], self._means(x[at], seen, weights))
            explained = ((self.covariance @ weights) * self.covariance).sum(2)
            variance[at] = np.where(seen, 0.0, (np.diag(self.covariance) - explained).clip(0.0))
        return filled, variance

    def _rows(self, x: Array) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_], Array]]:
        """Give the incomplete rows, some at a time, what is seen of them, and its precisions."""
        rows = np.flatnonzero(np.isnan(x).any(1))
        step = max(1, _CELLS // x.shape[1] ** 2)
        for start in range(0, len(rows), step):
            at = rows[start : start + step]
            seen = ~np.isnan(x[at])
            yield at, seen, self._precisions(seen)

    def _means(self, x: Array, seen: NDArray[np.bool_], weights: Array) -> Array:
        gaps = np.where(seen, x - self.mean, 0.0)
        return self.mean + (weights @ gaps[:, :, None])[:, :, 0] @ self.covariance

    def _precisions(self, seen: NDArray[np.bool_]) -> Array:
        """Return the inverse covariance of each row's observed inputs, zero at the others."""
        both = seen[:, :, None] & seen[:, None, :]
        among = np.where(both, self.covariance, 0.0)
        diagonal = np.arange(seen.shape[1])
        among[:, diagonal, diagonal] += np.where(seen, 0.0, 1.0)
        return np.where(both, np.linalg.inv(among), 0.0)


@dataclass(frozen=True)
class Linear:
    """Each column's mean under a normal law, given all others.

    Attributes
    ----------
    spans : tuple of slice
    mean : array of shape (width,)
    slopes : dict of arrays of shape (n_others, n_own), by column
    """

    spans: tuple[slice, ...]
    mean: Array
    slopes: dict[int, Array]

    @classmethod
    def fit(cls, law: ConditionalNormal, spans: Sequence[slice], wanted: Sequence[int]) -> Linear:
        """Work out the slopes of the wanted columns."""
        slopes: dict[int, Array] = {}
        for j in wanted:
            others = np.delete(law.covariance, spans[j], axis=0)
            among, own = _others(others, spans[j]), others[:, spans[j]]
            slopes[j] = np.asarray(np.linalg.solve(among, own), dtype=np.float64)
        return cls(tuple(spans), law.mean, slopes)

    def predict(self, j: int, others: Array) -> Array:
        """Return the expected inputs of a column, `(n_rows, n_own)`."""
        at = self.spans[j]
        return np.asarray(self.mean[at] + (others - np.delete(self.mean, at)) @ self.slopes[j])


@dataclass(frozen=True)
class Copula:
    """The mean of missing inputs if the ranks of numbers follow one normal law of all inputs.

    A Gaussian copula (Hoff, 2007; Zhao and Udell, 2020): numbers become normal scores, and a normal
    law of these says how a missing one is distributed. Its mean is that of the column's own values,
    so outliers pull less, and skewed columns stay skewed. Levels are 0 and 1, as elsewhere.

    Attributes
    ----------
    values, scores : dict of arrays, by input
        The values of a number's column, in order, and the normal score of each.
    law : ConditionalNormal
        Of the scores.
    """

    values: dict[int, Array]
    scores: dict[int, Array]
    law: ConditionalNormal

    @classmethod
    def fit(cls, x: Array, spans: Sequence[slice]) -> Copula:
        """Fit the law to rows `(n_rows, width)`, NaN for missing inputs."""
        values, scores = dict[int, Array](), dict[int, Array]()
        for i in (at.start for at in spans if at.stop - at.start == 1):
            known, counts = np.unique(x[~np.isnan(x[:, i]), i], return_counts=True)
            if len(known) > 2:
                values[i], scores[i] = known, _normal_scores(counts)
        found = cls(values, scores, ConditionalNormal(np.zeros(0), np.zeros((0, 0))))
        return replace(found, law=ConditionalNormal.fit(found._scored(x)))

    def fill(self, x: Array) -> Array:
        """Return rows with missing inputs replaced by their mean given the others."""
        mean, variance = self.law.moments(self._scored(x))
        filled = np.where(np.isnan(x), mean, x)
        for i, values in self.values.items():
            gone = np.isnan(x[:, i])
            likely = mean[gone, i, None] + np.sqrt(variance[gone, i, None]) * _NODES
            filled[gone, i] = np.interp(likely, self.scores[i], values) @ _NODE_WEIGHTS
        return filled

    def _scored(self, x: Array) -> Array:
        found = x.copy()
        for i, values in self.values.items():
            found[:, i] = np.interp(x[:, i], values, self.scores[i])  # NaN stays NaN
        return found


def _normal_scores(counts: NDArray[np.int64]) -> Array:
    """Return the mean of a standard normal law over the interval of each of a column's values."""
    shares = counts / counts.sum()
    edges = ndtri(np.cumsum(shares)[:-1].clip(1e-12, 1 - 1e-12))
    density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(-np.diff(np.concatenate([[0.0], density, [0.0]])) / shares)


@dataclass(frozen=True)
class Forest:
    """The mean of randomized trees (Geurts, Ernst and Wehenkel, 2006).

    They are scikit-learn's, and what its `ExtraTreesRegressor` would make with seed 0. That one
    clones each tree and checks its rows again: of small tables, that is half of its time.
    """

    trees: tuple[ExtraTreeRegressor, ...]

    @classmethod
    def fit(cls, x: Array, target: Array, n_trees: int, least_split: int) -> Forest:
        """Fit targets `(n_rows, n_targets)` to inputs `(n_rows, n_inputs)`."""
        rng = np.random.RandomState(0)
        x, target = x.astype(np.float32), np.ascontiguousarray(target)
        trees = []
        for _ in range(n_trees):
            seed = rng.randint(np.iinfo(np.int32).max)
            tree = ExtraTreeRegressor(
                max_features=1.0, min_samples_split=least_split, random_state=seed
            )
            trees.append(tree.fit(x, target, check_input=False))
        return cls(tuple(trees))

    def predict(self, x: Array) -> Array:
        """Return the expected targets of rows of inputs."""
        x = x.astype(np.float32)
        total = sum(tree.tree_.predict(x).reshape(len(x), -1) for tree in self.trees)
        return np.asarray(total / len(self.trees))


@dataclass(frozen=True)
class Trees:
    """One forest per column, from the inputs of all others (after Stekhoven and Bühlmann, 2012).

    They start from rows that a normal law has filled, which leaves them little to iterate. With a
    `base`, they predict what that one leaves.
    """

    spans: tuple[slice, ...]
    forests: dict[int, Forest]
    base: Linear | None

    @classmethod
    def fit(
        cls,
        x: Array,
        filled: Array,
        spans: Sequence[slice],
        wanted: Sequence[int],
        base: Linear | None,
        *,
        quick: bool = False,
    ) -> Trees:
        """Fit a forest to each of the wanted columns of rows `x`, which are `filled` to begin with.

        Tables of many cells get fewer trees, and then larger leaves. `quick` ones are few, too, and
        go over the missing cells once.
        """
        each = max(1, len(wanted) * x.shape[1])
        n = min(len(x), _MOST_ROWS, int(_TREE_WORK / (each * _LEAST_TREES)))
        x, filled = x[:n], filled[:n].copy()
        leaves = _LEAVES / max(1, len(wanted))
        most = min(_LEAST_SPLIT * leaves / n, _TREE_WORK / (each * n))
        trees = int(np.clip(most, _LEAST_TREES, _QUICK_TREES if quick else _MOST_TREES))
        least = max(_LEAST_SPLIT, int(np.ceil(2 * trees * n / leaves)))
        forests: dict[int, Forest] = {}
        found = cls(tuple(spans), forests, base)
        for _ in range(1 if quick else _PASSES):
            for j in wanted:
                known = ~np.isnan(x[:, spans[j].start])
                if not known.any():
                    continue
                others, target = _others(filled, spans[j]), x[known, spans[j]]
                if base is not None:
                    target = target - base.predict(j, others[known])
                forests[j] = Forest.fit(others[known], target, trees, least)
                if not known.all():
                    filled[~known, spans[j]] = found._predict(j, others[~known])
        return found

    def fill(self, x: Array, filled: Array, *, quick: bool = False) -> Array:
        """Return rows with missing inputs predicted, from rows that are `filled` to begin with."""
        filled = filled.copy()
        for _ in range(1 if quick else _PASSES):
            for j, at in ((j, self.spans[j]) for j in self.forests):
                gone = np.isnan(x[:, at.start])
                if gone.any():
                    filled[gone, at] = self._predict(j, _others(filled[gone], at))
        return filled

    def _predict(self, j: int, others: Array) -> Array:
        found = self.forests[j].predict(others)
        return found if self.base is None else found + self.base.predict(j, others)


@dataclass(frozen=True)
class KernelRidge:
    """Ridge regression on Gaussian kernels (Saunders, Gammerman and Vovk, 1998).

    Attributes
    ----------
    points : array of shape (n_points, n_inputs)
        Training rows, divided by `scale`, the standard deviations of their inputs.
    scale : array of shape (n_inputs,)
    width : float
        Of the kernel, in standard deviations, per root of the number of inputs.
    ridge : float
    coefficients : array of shape (n_points, n_targets)
    """

    points: Array
    scale: Array
    width: float
    ridge: float
    coefficients: Array

    @classmethod
    def fit(cls, x: Array, target: Array, like: KernelRidge | None = None) -> KernelRidge:
        """Fit targets `(n_rows, n_targets)` of mean zero to inputs `(n_rows, n_inputs)`.

        The width and the ridge are those of `like`, or have the least error of rows that are left
        out, one at a time.
        """
        x, target = x[:_KERNEL_ROWS], target[:_KERNEL_ROWS]
        spread = x.std(0)
        scale = np.where(spread > 1e-6, spread, 1.0)  # a level may be in no row that has the cell
        points = x / scale
        width, ridge = (like.width, like.ridge) if like else cls._choose(points, target)
        among = _kernel(points, points, width)
        among[np.diag_indices(len(points))] += ridge
        coefficients = linalg.solve(among, target, assume_a="pos")
        return cls(points, scale, width, ridge, coefficients)

    @staticmethod
    def _choose(points: Array, target: Array) -> tuple[float, float]:
        points, target = points[:_CHOOSING_ROWS], target[:_CHOOSING_ROWS]
        best, width, ridge = np.inf, _KERNEL_WIDTHS[-1], _RIDGES[-1]
        for each in _KERNEL_WIDTHS:
            values, vectors = np.linalg.eigh(_kernel(points, points, each))
            turned = vectors.T @ target
            for penalty in _RIDGES:
                inverse = 1 / (values.clip(0) + penalty)
                # Of rows left out, without fitting again (Craven and Wahba, 1979, equation 2.2).
                left = vectors @ (inverse[:, None] * turned) / (vectors**2 @ inverse)[:, None]
                error = float((left**2).sum())
                if error < best:
                    best, width, ridge = error, each, penalty
        return width, ridge

    def predict(self, x: Array) -> Array:
        """Return the expected targets of rows of inputs."""
        step = max(1, _KERNEL_CELLS // max(1, len(self.points)))
        found = np.empty((len(x), self.coefficients.shape[1]))
        for start in range(0, len(x), step):
            at = slice(start, start + step)
            found[at] = _kernel(x[at] / self.scale, self.points, self.width) @ self.coefficients
        return found


@dataclass(frozen=True)
class Kernels:
    """Per column, a kernel regression of what the normal law leaves, on all others."""

    base: Linear
    regressions: dict[int, KernelRidge]

    @classmethod
    def fit(cls, x: Array, filled: Array, base: Linear, like: Kernels | None = None) -> Kernels:
        """Fit the columns of `base` to rows `x`, which are `filled` to begin with.

        Widths and ridges are those of `like`, or chosen.
        """
        found = cls(base, {})
        filled = filled.copy()
        for j in base.slopes:
            at = base.spans[j]
            known = ~np.isnan(x[:, at.start])
            if not known.any():
                continue
            others = _others(filled, at)
            left = x[known, at] - base.predict(j, others[known])
            chosen = like.regressions.get(j) if like else None
            found.regressions[j] = KernelRidge.fit(others[known], left, chosen)
            filled[~known, at] = found._predict(j, others[~known])
        return found

    def fill(self, x: Array, filled: Array) -> Array:
        """Return rows with missing inputs predicted, from rows that are `filled` to begin with."""
        filled = filled.copy()
        for j in self.regressions:
            at = self.base.spans[j]
            gone = np.isnan(x[:, at.start])
            filled[gone, at] = self._predict(j, _others(filled[gone], at))
        return filled

    def _predict(self, j: int, others: Array) -> Array:
        return self.base.predict(j, others) + self.regressions[j].predict(others)


@dataclass(frozen=True)
class Members:
    """What fills rows next to a network; trees and kernels start from what a normal law fills in.

    Attributes
    ----------
    low, high : array of shape (width,)
        The least and the most that inputs of training cells are; no answer leaves them.
    normal : ConditionalNormal
    copula : Copula
    trees, trees_of_rest : Trees
        Of the inputs, and of what the normal law leaves of them.
    kernels : Kernels
        Of what the normal law leaves.
    """

    low: Array
    high: Array
    normal: ConditionalNormal
    copula: Copula
    trees: Trees
    trees_of_rest: Trees
    kernels: Kernels

    @classmethod
    def fit(
        cls, x: Array, spans: Sequence[slice], wanted: Sequence[int], like: Members | None = None
    ) -> Members:
        """Fit all to rows `(n_rows, width)`; those that are `like` others are only to be judged."""
        known = np.nan_to_num(x)  # 0 is the mean of numbers, and within every input's range
        low, high = known.min(0), known.max(0)
        normal = ConditionalNormal.fit(x)
        filled, base = normal.fill(x), Linear.fit(normal, spans, wanted)
        trees, of_rest = (
            Trees.fit(x, filled, spans, wanted, each, quick=like is not None)
            for each in (None, base)
        )
        kernels = Kernels.fit(x, filled, base, like.kernels if like else None)
        return cls(low, high, normal, Copula.fit(x, spans), trees, of_rest, kernels)

    def answers(self, x: Array, *, quick: bool = False) -> list[Array]:
        """Return the rows as the copula, both kinds of trees, and the kernels fill them."""
        filled = self.normal.fill(x)
        found = [
            self.copula.fill(x),
            self.trees.fill(x, filled, quick=quick),
            self.trees_of_rest.fill(x, filled, quick=quick),
            self.kernels.fill(x, filled),
        ]
        return [each.clip(self.low, self.high) for each in found]


def _kernel(a: Array, b: Array, width: float) -> Array:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.exp(-squares.clip(0) / (2 * width**2 * max(1, a.shape[1]))))


def _others(x: Array, at: slice) -> Array:
    return np.delete(x, at, axis=1)
