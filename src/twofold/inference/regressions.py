"""What a cell is given the rest of its row, by regressions: they fill cells next to a network.

Small tables have too few rows for a network to learn all conditionals from, and on many of them a
normal law or trees do better. So several members fill a row, and how much each counts is settled
per column by cells of held-out rows that were hidden on purpose (stacking; Wolpert, 1992, "Stacked
Generalization"; Breiman, 1996, "Stacked Regressions", for weights that are not negative).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.tree import ExtraTreeRegressor

from twofold.data.table import Table
from twofold.schema.schema import Schema

Array = NDArray[np.float64]
_CELLS = 4_000_000  # of the matrices of some rows' normal laws
_WORK = 3e9  # multiplications per round of `ConditionalNormal.fit`: a few seconds
_ROUNDS, _SETTLED = 20, 1e-3  # of that fit; what cells may still change by, in deviations
_PRIOR_ROWS = 2.0  # rows that columns without any correlation count as
_MOST_WIDTH = 128  # inputs; with more, a normal law has more to fit than most tables tell
_MOST_ROWS = 20_000  # that trees are fitted to
_TREE_WORK = 2e8  # rows, times trees, columns and inputs, of one pass: some 20 seconds
_LEAVES = 3_000_000  # of all trees together: some 400 MB
_LEAST_SPLIT = 10  # rows that a node needs to be split: cells are seldom without noise
_MOST_TREES, _LEAST_TREES = 40, 8
_PASSES = 2  # of the trees over a row's missing cells
_POOLED_CELLS = 30.0  # cells that those of all columns count as in the weights of each
# Of the network, the normal law and the trees, and how many cells weights have to gain their whole
# error on to outvote it: held-out rows are few, and what members differ by is mostly noise.
_PRIOR_WEIGHTS, _PRIOR_CELLS = np.array([0.2, 0.4, 0.4]), 15.0


@dataclass(frozen=True)
class Inputs:
    """How a table's cells become inputs of regressions: numbers standardised, levels as 0 and 1.

    Attributes
    ----------
    columns : tuple of int
        Positions in the schema; left out are columns that are ignored or constant.
    spans : tuple of slice
        Where the inputs of each of them lie.
    center, scale : array of shape (width,)
        Mean and standard deviation of the training cells; 0 and 1 for levels.
    """

    columns: tuple[int, ...]
    spans: tuple[slice, ...]
    center: Array
    scale: Array

    @classmethod
    def fit(cls, schema: Schema, table: Table) -> Inputs:
        """Settle the inputs of a training table."""
        columns, spans, centers, scales = [], [], list[float](), list[float]()
        for i, column in enumerate(schema.columns):
            if column.width == 0 or column.constant:
                continue
            start, width = len(centers), 1
            center, scale = 0.0, 1.0
            if column.kind == "category":
                width = column.width
            else:
                cells = table.values[:, i].astype(np.float64)
                center, scale = float(np.nanmean(cells)), float(np.nanstd(cells)) or 1.0
            columns.append(i)
            spans.append(slice(start, start + width))
            centers += [center] * width
            scales += [scale] * width
        return cls(tuple(columns), tuple(spans), np.array(centers), np.array(scales))

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.center)

    @property
    def is_narrow(self) -> bool:
        """Whether there are few enough inputs to regress each on all others."""
        return len(self.columns) > 1 and self.width <= _MOST_WIDTH

    def matrix(self, schema: Schema, table: Table) -> Array:
        """Return the inputs of a table's rows, `(n_rows, width)`; NaN for missing cells."""
        x = np.empty((table.n_rows, self.width))
        for i, at in zip(self.columns, self.spans, strict=True):
            if schema.columns[i].kind == "category":
                slots = schema.slots(table, i)
                x[:, at] = np.arange(at.stop - at.start) == slots[:, None]
                x[slots < 0, at] = np.nan
            else:
                x[:, at.start] = table.values[:, i]
        return (x - self.center) / self.scale

    def of_network(self, schema: Schema, x_hat: NDArray[Any]) -> Array:
        """Return the same inputs from those of a network, `(n_rows, schema.width)`."""
        x = np.empty((len(x_hat), self.width))
        for i, at in zip(self.columns, self.spans, strict=True):
            column, own = schema.columns[i], x_hat[:, schema.inputs[i]]
            x[:, at] = own if column.kind == "category" else column.decode(own)[:, None]
        return (x - self.center) / self.scale

    def to_network(self, schema: Schema, x: Array, x_hat: NDArray[Any]) -> NDArray[Any]:
        """Return a network's inputs with these cells in them."""
        cells, found = x * self.scale + self.center, x_hat.copy()
        for i, at in zip(self.columns, self.spans, strict=True):
            column, own = schema.columns[i], cells[:, at]
            if column.kind != "category":
                own = column.encode(own[:, 0].clip(column.domain.low, column.domain.high), ())
            found[:, schema.inputs[i]] = own
        return found


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
        rows = np.flatnonzero(np.isnan(x).any(1))
        step = max(1, _CELLS // x.shape[1] ** 2)
        for start in range(0, len(rows), step):
            at = rows[start : start + step]
            seen = ~np.isnan(x[at])
            gaps = np.where(seen, x[at] - self.mean, 0.0)
            pulled = (self._precisions(seen) @ gaps[:, :, None])[:, :, 0] @ self.covariance
            filled[at] = np.where(seen, x[at], self.mean + pulled)
        return filled

    def _precisions(self, seen: NDArray[np.bool_]) -> Array:
        """Return the inverse covariance of each row's observed inputs, zero at the others."""
        both = seen[:, :, None] & seen[:, None, :]
        among = np.where(both, self.covariance, 0.0)
        diagonal = np.arange(seen.shape[1])
        among[:, diagonal, diagonal] += np.where(seen, 0.0, 1.0)
        return np.where(both, np.linalg.inv(among), 0.0)


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

    They start from rows that a normal law has filled, which leaves them little to iterate.
    """

    spans: tuple[slice, ...]
    forests: dict[int, Forest]

    @classmethod
    def fit(cls, x: Array, filled: Array, spans: Sequence[slice], wanted: Sequence[int]) -> Trees:
        """Fit a forest to each of the wanted columns of rows `x`, which are `filled` to begin with.

        Tables of many cells get fewer trees, and then larger leaves.
        """
        each = max(1, len(wanted) * x.shape[1])
        n = min(len(x), _MOST_ROWS, int(_TREE_WORK / (each * _LEAST_TREES)))
        x, filled = x[:n], filled[:n].copy()
        leaves = _LEAVES / max(1, len(wanted))
        most = min(_LEAST_SPLIT * leaves / n, _TREE_WORK / (each * n))
        trees = int(np.clip(most, _LEAST_TREES, _MOST_TREES))
        least = max(_LEAST_SPLIT, int(np.ceil(2 * trees * n / leaves)))
        forests: dict[int, Forest] = {}
        for _ in range(_PASSES):
            for j in wanted:
                known = ~np.isnan(x[:, spans[j].start])
                if not known.any():
                    continue
                others = _others(filled, spans[j])
                forests[j] = Forest.fit(others[known], x[known, spans[j]], trees, least)
                if not known.all():
                    filled[~known, spans[j]] = forests[j].predict(others[~known])
        return cls(tuple(spans), forests)

    def fill(self, x: Array, filled: Array) -> Array:
        """Return rows with missing inputs predicted, from rows that are `filled` to begin with."""
        filled = filled.copy()
        for _ in range(_PASSES):
            for j, forest in self.forests.items():
                at = self.spans[j]
                gone = np.isnan(x[:, at.start])
                if gone.any():
                    found = forest.predict(_others(filled[gone], at))
                    # Pickles of earlier versions hold scikit-learn's forests.
                    filled[gone, at] = found.reshape(-1, at.stop - at.start)
        return filled


@dataclass(frozen=True)
class Regressions:
    """What fills rows next to a network, and how much each member counts.

    Attributes
    ----------
    inputs : Inputs
    normal : ConditionalNormal
    trees : Trees
    weights : array of shape (n_columns, 3)
        Those of the network, of the normal law and of the trees, per column; their sum is 1.
    """

    inputs: Inputs
    normal: ConditionalNormal
    trees: Trees
    weights: Array

    @classmethod
    def fit(
        cls,
        schema: Schema,
        training: Table,
        held_out: Table,
        hidden: NDArray[np.bool_],
        network: Sequence[NDArray[Any]],
        inputs: Inputs,
    ) -> Regressions:
        """Fit the members to training rows, weigh them on held-out ones, and fit them to both.

        Parameters
        ----------
        schema : Schema
        training, held_out : Table
            In both, cells may be missing.
        hidden : array of shape (n_folds, n_rows, n_columns)
            Which cells of the held-out rows are hidden in each turn.
        network : sequence of arrays of shape (n_rows, schema.width)
            The network's expected inputs of the held-out rows, with those cells hidden.
        inputs : Inputs
            What the members see of the rows.
        """
        x, judged = inputs.matrix(schema, training), inputs.matrix(schema, held_out)
        gone = [np.isnan(x[:, at.start]).any() for at in inputs.spans]
        wanted = [j for j, some in enumerate(gone) if some] or list(range(len(inputs.spans)))
        members = _members(inputs, x, wanted)
        columns = list(inputs.columns)
        found = np.full((3, *judged.shape), np.nan)
        for mask, x_hat in zip(hidden[:, :, columns], network, strict=True):
            wide = np.repeat(mask, [at.stop - at.start for at in inputs.spans], 1)
            given = np.where(wide, np.nan, judged)
            filled = members[0].fill(given)
            answers = (inputs.of_network(schema, x_hat), filled, members[1].fill(given, filled))
            for own, answer in zip(found, answers, strict=True):
                own[wide] = answer[wide]
        weights = _weights(found, judged, inputs.spans, [j in wanted for j in range(len(columns))])
        every = np.concatenate([x, judged])
        return cls(inputs, *_members(inputs, every, wanted), weights)

    def fill(self, schema: Schema, table: Table, x_hat: NDArray[Any]) -> NDArray[Any]:
        """Return a network's inputs `x_hat` of these rows with all members in missing cells."""
        x = self.inputs.matrix(schema, table)
        filled = self.normal.fill(x)
        answers = self.inputs.of_network(schema, x_hat), filled, self.trees.fill(x, filled)
        mixed = np.zeros_like(x)
        for j, at in enumerate(self.inputs.spans):
            for weight, answer in zip(self.weights[j], answers, strict=True):
                mixed[:, at] += weight * answer[:, at]
        both = np.where(np.isnan(x), mixed, x)
        return self.inputs.to_network(schema, both, x_hat)


def _others(x: Array, at: slice) -> Array:
    return np.delete(x, at, axis=1)


def _members(inputs: Inputs, x: Array, wanted: Sequence[int]) -> tuple[ConditionalNormal, Trees]:
    normal = ConditionalNormal.fit(x)
    return normal, Trees.fit(x, normal.fill(x), inputs.spans, wanted)


def _weights(found: Array, true: Array, spans: Sequence[slice], has_trees: Sequence[bool]) -> Array:
    """Return the weights of each column's members, from what they made of hidden cells.

    The cells of all columns count in each of them like some cells more, and fixed weights, too:
    weights by few cells alone would follow their noise.
    """
    known = ~np.isnan(found[0]) & ~np.isnan(true)
    errors = []
    for at in spans:
        rows = known[:, at.start]
        gaps = (found[:, rows, at] - true[rows, at]).reshape(len(found), -1)
        own = gaps @ gaps.T
        # In units of its members' mean error per cell, so that no column outweighs the others.
        errors.append(own * (rows.sum() / max(float(np.trace(own)) / len(own), 1e-12)))
    total = max(1, int(known[:, [at.start for at in spans]].sum()))
    shared = _POOLED_CELLS * np.sum(errors, 0) / total
    return np.array(
        [
            _least(own + shared, [True, True, trees])
            for own, trees in zip(errors, has_trees, strict=True)
        ]
    )


def _least(errors: Array, usable: Sequence[bool]) -> Array:
    """Return weights, not negative and of sum 1, with the least error.

    Parameters
    ----------
    errors : array of shape (3, 3)
        Summed products of members' errors.
    usable : sequence of bool
        Which members have an answer.
    """
    at = np.flatnonzero(usable)
    product = (errors + _PRIOR_CELLS * np.eye(len(errors)))[np.ix_(at, at)]
    value = _PRIOR_CELLS * _PRIOR_WEIGHTS[at]
    # As least squares; the sum is made 1 by a row that outweighs all others.
    root = np.linalg.cholesky(product).T
    heavy = 1e3 * np.sqrt(np.trace(product))
    matrix = np.vstack([root, np.full(len(at), heavy)])
    found = np.zeros(len(usable))
    found[at], _ = nnls(matrix, np.append(np.linalg.solve(root.T, value), heavy))
    return np.asarray(found / found.sum())
