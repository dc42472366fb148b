"""What was never observed: values for missing cells, new rows, and generators of random numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.sources import row_chunks
from twofold.data.table import Table
from twofold.errors import OptionError, UnfilledWarning
from twofold.inference.apply import Function, complete, impute
from twofold.inference.donors import Donors, predictions
from twofold.inference.level_pairs import MISSING, SEEN, UNSEEN, LevelPairs
from twofold.nn.cell_model import observed
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.options import require_integer
from twofold.schema.column import Column
from twofold.schema.schema import Schema

Array = NDArray[Any]
_CHUNK_ROWS = 4096
_LEAST_SHARE = 0.5  # probability of a level that fills a cell of a column with pooled levels
_MOST_POOLED = 1.5
_MOST_OVER = 2.0  # times a level's share in training that draws may have of it
_SHOWN = 10  # columns that a warning names


def random_state(seed: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return the generator that a seed stands for, or the generator itself.

    Raises
    ------
    OptionError
        Where the seed is out of the range that numpy takes.
    """
    if isinstance(seed, np.random.RandomState):
        return seed
    try:
        # Not scikit-learn's check_random_state: for None that one draws from numpy's global state.
        return np.random.RandomState(seed)
    except ValueError as error:
        raise OptionError(f"Expected random_state to be a seed, got {seed!r}. {error}.") from error


def torch_generator(rng: np.random.RandomState) -> torch.Generator:
    """Return a generator of torch that `rng` seeds."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Return a generator of NumPy that one of torch seeds."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


@dataclass(frozen=True)
class TrainingCells:
    """What draws know of training cells: numbers that donors have, and levels that go together."""

    donors: Donors
    pairs: LevelPairs


class Unfilled:
    """Counts the missing cells that stay missing, since which pooled level they hold is unknown."""

    def __init__(self, schema: Schema) -> None:
        self._columns = {i: c for i, c in enumerate(schema.columns) if len(c.pooled) > 1}
        self._counts = dict.fromkeys(self._columns, (0, 0))

    def add(self, values: Array, filled: Array) -> None:
        """Count the cells of a table and of what fills it, `(n_rows, n_columns)` each."""
        for i, (left, missing) in self._counts.items():
            gone = np.isnan(values[:, i])
            still = int(np.isnan(filled[gone, i]).sum())
            self._counts[i] = left + still, missing + int(gone.sum())

    def warn(self) -> None:
        """Warn of the columns in which cells stay missing, and say why."""
        parts = [
            f"column {self._columns[i].name!r}: {left:,} of {missing:,} ({self._columns[i].note})"
            for i, (left, missing) in self._counts.items()
            if left
        ]
        if parts:
            more = "" if len(parts) <= _SHOWN else f"; and {len(parts) - _SHOWN:,} more columns"
            warnings.warn(
                f"Missing cells stay missing where the model cannot tell which rare level to fill "
                f"in. {'; '.join(parts[:_SHOWN])}{more}. Draws (n_draws=2 or more) fill them in, "
                f"each level as often as it occurred.",
                UnfilledWarning,
                stacklevel=4,
            )


def imputer(generator: torch.Generator | None = None) -> Function:
    """Return the function that fills a batch's missing inputs: by best values, or by draws.

    With a generator, best values and draws from the likelihoods come side by side, (batch, width)
    -> (batch, 2 * width). Draws follow a chain that goes from the row to its code and back to cells
    drawn from their likelihoods, which replace the missing ones again and again; its stationary
    law is the one of the missing cells given the rest (Rezende, Mohamed and Wierstra, 2014,
    "Stochastic Backpropagation", appendix F). It is as long as the best values are refined, for it
    would run off where they do.
    """

    def fill(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
        if generator is None:
            return impute(network, scorer, x)
        _, seen = observed(x)
        if seen is None:
            return torch.cat([x, x], 1)
        filled = x_hat = complete(network, scorer, x)
        for _ in range(int(scorer.rounds)):
            theta = network.decode(network.encode(filled, seen=seen)[0])
            x_hat = torch.where(seen, filled, scorer.mean(theta))
            filled = torch.where(seen, filled, scorer.draw(theta, generator))
        return torch.cat([x_hat, filled], 1)

    return fill


def cells(
    schema: Schema,
    known: TrainingCells,
    x: Array,
    table: Table | None = None,
    rng: np.random.Generator | None = None,
) -> Array:
    """Return the cells, `(n_rows, n_columns)`, that the inputs from `imputer` or `sample` become.

    Numbers have values that were observed in their column, and levels go together with those that
    the row of the table has. A level that is one of several pooled ones stays missing. With `rng`,
    numbers are those of donors, and pooled levels are dealt out as often as they occurred. Without
    a table, all cells are new.
    """
    parts = []
    for at in row_chunks(len(x), schema.width):
        part = None if table is None else table.slice(at)
        parts.append(_cells(schema, known, x[at], part, rng))
    return np.concatenate(parts)


def _cells(
    schema: Schema,
    known: TrainingCells,
    x: Array,
    table: Table | None,
    rng: np.random.Generator | None,
) -> Array:
    x_hat, x_drawn = x[:, : schema.width], x[:, -schema.width :]
    expected = schema.from_matrix(x_drawn)
    found = schema.observed(expected)
    if rng is not None and known.donors.n_rows:
        near = predictions(schema, x_hat, known.donors.columns)
        for j, i in enumerate(known.donors.columns):
            if known.donors.has(j):
                found[:, i] = known.donors.match(j, near[:, j], rng, own=table is None)
        expected = found
    pairs = known.pairs
    levels = np.full((len(x), len(pairs.columns)), MISSING)
    if table is not None and pairs.columns:
        levels = pairs.of(schema, table)
    scores = [
        _log_probabilities(schema.columns[i], x_hat[:, schema.inputs[i]], rng)
        if schema.columns[i].kind == "category"
        else -np.abs(expected[:, i, None] - values)
        for i, values in zip(pairs.columns, pairs.values, strict=True)
    ]
    settled = pairs.settle(levels, scores, SEEN if table is None else UNSEEN)
    for j, (i, values) in enumerate(zip(pairs.columns, pairs.values, strict=True)):
        column, open_ = schema.columns[i], levels[:, j] == MISSING
        chosen = settled[open_, j]
        found[open_, i] = (
            column.level_cells(column.standing[chosen]) if len(values) == 0 else values[chosen]
        )
    for i, column in enumerate(schema.columns):
        if rng is None or len(column.pooled) < 2:
            continue
        at, among = schema.inputs[i], list(pairs.columns)
        chosen = settled[:, among.index(i)] if i in among else x_drawn[:, at].argmax(1)
        open_ = slice(None) if table is None else np.isnan(table.values[:, i])
        shares = x_hat[open_, at]
        found[open_, i] = column.level_cells(_dealt(column, chosen[open_], shares, rng))
    return found


def _log_probabilities(
    column: Column, shares: Array, rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """Return the logarithms of levels' probabilities; with noise, the largest is a draw."""
    logs = np.log(np.maximum(shares.astype(np.float64), 1e-30))
    if rng is not None:
        logs += rng.gumbel(size=logs.shape)  # the Gumbel-max trick (Gumbel, 1954)
    if not column.pooled:
        logs[:, -1] = -np.inf
    elif rng is None and len(column.pooled) > 1:
        # A name among a thousand that is likelier than each other one is hardly ever right.
        logs[shares.max(1) < _LEAST_SHARE, -1] = 0.0
    return logs


def _dealt(
    column: Column, chosen: NDArray[np.int64], shares: Array, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the levels for a category's inputs, no guess over twice as often as in training.

    A network that cannot tell which of a thousand names a cell holds gives some of them too much.
    The least probable of their cells, by `shares`, hold a pooled level instead, but none whose
    level is more probable than all others together. Pooled levels are dealt out as often as they
    occurred, and to no larger a share of the cells than half as many again as in training: what is
    left over is dealt to the other levels.
    """
    counts = np.array(column.counts, dtype=np.float64)
    kept, rare = (np.array(places) for places in (column.kept, column.pooled))
    share, n_pooled = len(chosen) / counts.sum(), float(counts[rare].sum())
    caps = np.floor(_MOST_OVER * share * counts).clip(1)
    most = caps[kept]
    levels = np.append(kept, -1)[chosen]
    for slot in range(len(kept)):
        rows = np.flatnonzero(chosen == slot)
        most[slot] = max(most[slot], np.count_nonzero(shares[rows, slot] > _LEAST_SHARE))
        order = np.argsort(-shares[rows, slot], kind="stable")
        levels[rows[order[int(most[slot]) :]]] = -1
    rows = rng.permutation(np.flatnonzero(levels < 0))
    within = (caps[rare] / counts[rare]).min()  # of as many as there were, each below its cap
    n_rare = max(1.0, min(math.ceil(_MOST_POOLED * share * n_pooled), within * n_pooled))
    n = min(len(rows), int(n_rare))
    levels[rows[:n]] = _systematic(rare, counts[rare], n, rng)
    free = most - [np.count_nonzero(levels == level) for level in kept]
    levels[rows[n:]] = _systematic(kept, free.clip(0), len(rows) - n, rng)
    return levels


def _systematic(
    levels: NDArray[np.int64], weights: Array, n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `n` levels, each as often as its weight says, rounded up or down.

    This is systematic sampling (Madow, 1949), of levels in random order; so is its result.
    """
    if not n:
        return levels[:0]
    order = rng.permutation(len(levels))
    ends = np.cumsum(weights[order] if weights.any() else np.ones(len(levels)))
    places = (np.arange(n) + rng.random()) * (ends[-1] / n)
    return rng.permutation(
        levels[order][np.searchsorted(ends, places, side="right").clip(max=len(levels) - 1)]
    )


@torch.no_grad()
def code_moments(network: Network) -> tuple[Array, Array]:
    """Return each component's mean and standard deviation over training codes, or of the prior."""
    density = network.bottleneck.density
    if density is None:
        return np.zeros(network.n_components), np.ones(network.n_components)
    mean, spread = density.moments()
    return np.asarray(mean.cpu()), np.asarray(spread.cpu())


def interpolation(ends: Sequence[Array], steps: int) -> Array:
    """Return `steps` codes on the straight line from the first of two codes to the second.

    Raises
    ------
    OptionError
        If an end is not a single code, or `steps` is less than 2.
    """
    require_integer("steps", steps, 2)
    if any(len(codes) != 1 for codes in ends):
        raise OptionError(
            f"Expected tables of one row each, got {len(ends[0])} and {len(ends[1])} rows. Pass "
            f"slices such as X[:1]."
        )
    way = np.linspace(0, 1, steps, dtype=ends[0].dtype)[:, None]
    return np.asarray((1 - way) * ends[0] + way * ends[1])


def traversal(
    network: Network, code: Array, component: int, steps: int, reach: float
) -> tuple[Array, Array]:
    """Return values of one component around its mean, and the code with each of them in its place.

    Raises
    ------
    OptionError
        If `code` is not a single one, it has no such component, or `steps` is less than 2.
    """
    require_integer("steps", steps, 2)
    if len(code) != 1:
        raise OptionError(
            f"Expected a table of one row, got {len(code)} rows. Pass a slice such as X[:1]."
        )
    require_integer("component", component, 0, code.shape[1] - 1)
    mean, spread = code_moments(network)
    values = mean[component] + reach * spread[component] * np.linspace(-1, 1, steps)
    moved = np.repeat(code, steps, axis=0)
    moved[:, component] = values
    return values.astype(code.dtype), moved


def sample(
    network: Network, scorer: Scorer, n_rows: int, generator: torch.Generator
) -> Iterator[Array]:
    """Draw codes from their density; give their expected inputs and draws from the likelihoods.

    Both are `(n_rows, width)` and come side by side, `(n_rows, 2 * width)`, some rows at a time.

    Raises
    ------
    OptionError
        If `n_rows` is less than 1.
    """
    require_integer("n", n_rows)
    most = min(_CHUNK_ROWS, network.rows_per_pass)
    for start in range(0, n_rows, most):
        with torch.no_grad():
            code = network.bottleneck.sample(min(most, n_rows - start), generator)
            theta = network.decode(code)
            both = torch.cat([scorer.mean(theta), scorer.draw(theta, generator)], 1)
        yield np.asarray(both.cpu())
