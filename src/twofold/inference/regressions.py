"""What a cell is given the rest of its row, by regressions: they fill cells next to a network.

Small tables have too few rows for a network to learn all conditionals from, and on many of them a
normal law, trees or kernels do better. So several members fill a row, and how much each counts is
settled per column by cells that were hidden on purpose, of rows that the member was not fitted to
(stacking; Wolpert, 1992, "Stacked Generalization"; Breiman, 1996, "Stacked Regressions", for
weights that are not negative).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from twofold.data.table import Table
from twofold.inference.conditionals import Members
from twofold.schema.schema import Schema

Array = NDArray[np.float64]
_MOST_WIDTH = 128  # inputs; with more, a normal law has more to fit than most tables tell
_PARTS = 5  # in which all rows are judged, if all are
_POOLED_CELLS = 30.0  # cells that those of all columns count as in the weights of each
# Weights lean on fixed ones, as if these had been found on so many cells: where few cells speak,
# what members differ by is mostly noise. That of the network is fixed next to the others together,
# which have equal ones.
_PRIOR_CELLS, _PRIOR_NETWORK = 15.0, 0.2


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
class Regressions:
    """What fills rows next to a network, and how much each member counts.

    Attributes
    ----------
    inputs : Inputs
    members : Members
    weights : array of shape (n_columns, 5)
        Those of the network, the copula, the trees, the trees of what the normal law leaves, and
        the kernels, per column; their sum is 1.
    """

    inputs: Inputs
    members: Members
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
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Regressions:
        """Weigh the members by hidden cells of rows that they were not fitted to; fit them to all.

        The network has such cells in the held-out rows alone. The others are fitted quickly: if
        cells of all rows are hidden, each fifth of these is filled by members that were fitted to
        the rest (cross-validation, as in Breiman, 1996).

        Parameters
        ----------
        schema : Schema
        training, held_out : Table
            In both, cells may be missing.
        hidden : array of shape (n_turns, n_judged, n_columns)
            Which cells are hidden in each turn, of the held-out rows or of all, training ones
            first.
        network : sequence of arrays of shape (n_held_out, schema.width)
            The network's expected inputs of the held-out rows, with those cells hidden.
        inputs : Inputs
            What the members see of the rows.
        watch : callable
            Called with how many fits of the members are done, and how many there are.
        """
        spans, n = inputs.spans, held_out.n_rows
        x = inputs.matrix(schema, training)
        every = np.concatenate([x, inputs.matrix(schema, held_out)])
        gone = [np.isnan(x[:, at.start]).any() for at in spans]
        wanted = [j for j, some in enumerate(gone) if some] or list(range(len(spans)))
        wide = np.repeat(hidden[:, :, inputs.columns], [at.stop - at.start for at in spans], 2)
        judged = every[len(every) - wide.shape[1] :]
        part = np.zeros(len(judged), dtype=np.int64)
        crossed = len(judged) > n
        if crossed:
            part = np.random.RandomState(0).permutation(len(judged)) % _PARTS
        n_fits = int(part.max()) + 2
        watch(0, n_fits)
        final = Members.fit(every, spans, wanted)
        found = np.empty((4, *judged.shape))
        for number in range(n_fits - 1):
            watch(number + 1, n_fits)
            rows, rest = np.flatnonzero(part == number), part != number
            others = every[rest] if crossed else x
            members = Members.fit(others, spans, wanted, like=final)
            mask = wide[:, rows]
            given = np.where(mask, np.nan, judged[rows])
            answers = members.answers(given.reshape(-1, x.shape[1]), quick=True)
            for own, answer in zip(found, answers, strict=True):
                own[rows] = np.where(mask, answer.reshape(mask.shape), 0.0).sum(0)
        watch(n_fits, n_fits)
        by_network = np.zeros_like(judged[-n:])
        for mask, x_hat in zip(wide[:, -n:], network, strict=True):
            by_network[mask] = inputs.of_network(schema, x_hat)[mask]
        true = np.where(wide.any(0), judged, np.nan)
        usable = np.isin(np.arange(len(spans)), wanted)
        weights = _all_weights(found, by_network, true, spans, usable)
        return cls(inputs, final, weights)

    def fill(self, schema: Schema, table: Table, x_hat: NDArray[Any]) -> NDArray[Any]:
        """Return a network's inputs `x_hat` of these rows with all members in missing cells."""
        x = self.inputs.matrix(schema, table)
        answers = self.inputs.of_network(schema, x_hat), *self.members.answers(x)
        mixed = np.zeros_like(x)
        for j, at in enumerate(self.inputs.spans):
            for weight, answer in zip(self.weights[j], answers, strict=True):
                mixed[:, at] += weight * answer[:, at]
        both = np.where(np.isnan(x), mixed, x)
        return self.inputs.to_network(schema, both, x_hat)


def _all_weights(
    found: Array, network: Array, true: Array, spans: Sequence[slice], usable: NDArray[np.bool_]
) -> Array:
    """Return the weights of all members, `(n_columns, 5)`, the network's first.

    Those of the regressions next to each other come from all judged rows, `(4, n_rows, width)`;
    that of the network next to them from the last ones, for which there is its answer.
    """
    every = np.ones_like(usable)
    equal = np.full(len(found), 1 / len(found))
    among = _weights(found, true, spans, [every, usable, usable, usable], equal)
    last = slice(len(true) - len(network), None)
    together = np.zeros_like(network)
    for weights, at in zip(among, spans, strict=True):
        for weight, own in zip(weights, found, strict=True):
            together[:, at] += weight * own[last, at]
    prior = np.array([_PRIOR_NETWORK, 1 - _PRIOR_NETWORK])
    both = np.stack([network, together])
    alone = _weights(both, true[last], spans, [every, every], prior)
    return np.hstack([alone[:, :1], alone[:, 1:] * among])


def _weights(
    found: Array,
    true: Array,
    spans: Sequence[slice],
    usable: Sequence[NDArray[np.bool_]],
    prior: Array,
) -> Array:
    """Return the weights of each column's members, from what they made of hidden cells.

    The cells of all columns count in each of them like some cells more, and fixed weights, too:
    weights by few cells alone would follow their noise.
    """
    known = ~np.isnan(true)
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
            _least(own + shared, has, prior)
            for own, has in zip(errors, np.transpose(usable), strict=True)
        ]
    )


def _least(errors: Array, usable: NDArray[np.bool_], prior: Array) -> Array:
    """Return weights, not negative and of sum 1, with the least error.

    Parameters
    ----------
    errors : array of shape (n_members, n_members)
        Summed products of members' errors.
    usable : array of shape (n_members,)
        Which members have an answer.
    prior : array of shape (n_members,)
        The weights to lean on.
    """
    at = np.flatnonzero(usable)
    product = (errors + _PRIOR_CELLS * np.eye(len(errors)))[np.ix_(at, at)]
    value = _PRIOR_CELLS * prior[at]
    # As least squares; the sum is made 1 by a row that outweighs all others.
    root = np.linalg.cholesky(product).T
    heavy = 1e3 * np.sqrt(np.trace(product))
    matrix = np.vstack([root, np.full(len(at), heavy)])
    found = np.zeros(len(usable))
    found[at], _ = nnls(matrix, np.append(np.linalg.solve(root.T, value), heavy))
    return np.asarray(found / found.sum())
