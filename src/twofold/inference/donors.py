"""Draws of numbers that exist: each is the cell of a training row whose prediction is near.

Predictive mean matching (Little, 1988, "Missing-Data Adjustments in Large Surveys", section 4): of
some training rows, the cells and what the network predicts for them are kept. A cell to be drawn
takes the value of one of the rows whose prediction is nearest to its own. So draws are skewed,
rounded and bounded as the column is, whatever its likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.inference.apply import complete, decode, encode
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.schema.schema import Schema

Array = NDArray[np.float64]
_NEAREST = 5  # rows to take a value from, as many as mice does (van Buuren, 2018, section 3.4)
_FOLDS = 5  # parts of a row's cells that are hidden in turn


@dataclass(frozen=True)
class Donors:
    """Cells of training rows, and what the network predicts for them.

    Attributes
    ----------
    columns : tuple of int
        Positions in the schema: numbers and times that vary.
    values : array of shape (n_rows, len(columns))
        The cells, NaN for missing ones.
    hidden : array of shape (n_rows, len(columns))
        Predictions from the rest of the row, a fifth of which was hidden with the cell.
    own : array of shape (n_rows, len(columns))
        Reconstructions of the cells.
    """

    columns: tuple[int, ...]
    values: Array
    hidden: Array
    own: Array

    @property
    def n_rows(self) -> int:
        """Number of training rows that are kept."""
        return len(self.values)

    def has(self, j: int) -> bool:
        """Whether the j-th column has a value in some row."""
        return not np.isnan(self.values[:, j]).all()

    def match(
        self, j: int, predictions: Array, rng: np.random.Generator, *, own: bool = False
    ) -> Array:
        """Return a value of the j-th column for each prediction, at random from the nearest rows.

        With `own`, predictions are reconstructions, else they are of cells that are missing.
        """
        known = ~np.isnan(self.values[:, j])
        among = (self.own if own else self.hidden)[known, j]
        order = np.argsort(among, kind="stable")
        among, values = among[order], self.values[known, j][order]
        # Of many rows with one prediction, a random one: its neighbours are as good as any other.
        first, last = (np.searchsorted(among, predictions, side) for side in ("left", "right"))
        at = first + np.floor(rng.random(len(predictions)) * (last - first + 1)).astype(np.int64)
        k = min(_NEAREST, len(among))
        near = at[:, None] + np.arange(-k, k)
        inside = (near >= 0) & (near < len(among))
        near = near.clip(0, len(among) - 1)
        far = np.where(inside, np.abs(among[near] - predictions[:, None]), np.inf)
        nearest = np.argpartition(far, k - 1, axis=1)[:, :k]
        chosen = nearest[np.arange(len(at)), rng.integers(0, k, len(at))]
        return np.asarray(values[near[np.arange(len(at)), chosen]])


def matched_columns(schema: Schema) -> tuple[int, ...]:
    """Return the columns that donors have values for: numbers and times of tables, that vary."""
    if not schema.is_table:
        return ()
    return tuple(
        i
        for i, column in enumerate(schema.columns)
        if column.kind in ("real", "count", "time") and not column.constant
    )


def predictions(schema: Schema, x_hat: NDArray[np.float32], columns: tuple[int, ...]) -> Array:
    """Return one number per cell that predictions are compared by, `(n_rows, len(columns))`."""
    found = np.empty((len(x_hat), len(columns)))
    for j, i in enumerate(columns):
        column, at = schema.columns[i], schema.inputs[i]
        found[:, j] = column.decode(x_hat[:, at]) if column.knots else x_hat[:, at.start]
    return found


@torch.no_grad()
def fit_donors(
    network: Network, scorer: Scorer, schema: Schema, values: Array, x: Tensor
) -> Donors:
    """Keep the cells of training rows, `(n_rows, n_columns)`, and predict them from `x`."""
    columns = matched_columns(schema)
    if not columns or not len(x):
        empty = np.empty((0, len(columns)))
        return Donors(columns, empty, empty, empty)
    own = decode(network, scorer, encode(network, scorer, x))
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand((len(x), scorer.n_columns), generator=generator)
    folds = (draws.argsort(1).argsort(1) % _FOLDS).to(x.device)
    hidden = torch.empty_like(x)
    for fold in range(min(_FOLDS, scorer.n_columns)):
        gone = (folds == fold)[:, scorer.column]
        rest = torch.where(gone, torch.nan, x)
        x_hat = decode(
            network,
            scorer,
            network.encode(complete(network, scorer, rest), seen=network.seen(rest))[0],
        )
        hidden = torch.where(gone, x_hat, hidden)
    kept = values[:, list(columns)].astype(np.float64)
    both = (predictions(schema, part.cpu().numpy(), columns) for part in (hidden, own))
    return Donors(columns, kept, *both)
