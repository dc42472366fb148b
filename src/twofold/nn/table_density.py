"""How likely a row with categories is: its numbers by their density, its levels by counts.

The density of expected rows and residuals (`twofold.nn.row_density`) is of numbers alone: in it, an
input that is 1 in few rows has hardly any variance, and every rare level would be an anomaly. It is
tempered, so that numbers and levels weigh alike, and levels bring log-probabilities of their own
(`twofold.nn.level_model`). So a score of such a table is a sum of tail shares and probabilities in
nats, and not a log-density per unit.

A number far out does not hide behind one with a heavy tail: the tail share of the density and those
of the single numbers are joined by their harmonic mean, which the least of them decides (Wilson,
2019, "The harmonic mean p-value for combining dependent tests").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twofold.nn.level_model import LevelModel, Tempering
from twofold.nn.row_density import RowDensity
from twofold.schema.schema import Schema

_NUMBERS = ("real", "time", "pixel")


class TableDensity(nn.Module):
    """The density of rows with categories, in the form of `RowDensity`.

    Parameters
    ----------
    schema : Schema
        With a category.
    normal : sequence of int
        The inputs whose residuals are normal.
    """

    n_nodes = 96  # as of `RowDensity`: tail shares and soft bins have more kinks
    _kept: Tensor
    _at: Tensor

    def __init__(self, schema: Schema, normal: Sequence[int]) -> None:
        super().__init__()
        # Log-densities are sums, whose rounding depends on which other rows there are.
        self.levels, self.tempering = LevelModel(schema), Tempering(rounding=1e-3)
        pairs = list(zip(schema.columns, schema.inputs, strict=True))
        numbers = [
            i
            for c, at in pairs
            if c.kind in _NUMBERS and not c.knots
            for i in range(at.start, at.stop)
        ]
        self.numbers = RowDensity(schema.width, sorted({*normal} & {*numbers}), numbers)
        self._has_numbers = bool(numbers)
        self.register_buffer("_at", torch.tensor(numbers, dtype=torch.long), persistent=False)
        self.tails = Tempering(2 * len(numbers), n_knots=17)
        pooled = [bool(column.pooled) or column.kind != "category" for column in schema.columns]
        last = [at.stop - 1 for (_, at), many in zip(pairs, pooled, strict=True) if not many]
        kept = torch.ones(schema.width)
        kept[last] = 0.0  # inputs that no training row sets
        self.register_buffer("_kept", kept, persistent=False)

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns whose levels it has probabilities for."""
        return self.levels.targets

    @property
    def is_consistent(self) -> bool:
        """Whether what was loaded can have been fitted."""
        rise = all(bool((one.at.diff(dim=1) > 0).all()) for one in (self.tempering, self.tails))
        return self.levels.is_consistent and rise

    @property
    def center(self) -> Tensor:
        """Mean of each input over the training rows, `(width,)`."""
        return self.numbers.center

    @property
    def unit(self) -> Tensor:
        """Standard deviation of each input over the training rows, `(width,)`."""
        return self.numbers.unit

    def log_prob(self, x_hat: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return each row's score in nats, without other cells: (batch, width) -> (batch,)."""
        levels: Tensor = self.levels(x, seen).sum(1)
        if not self._has_numbers:
            return levels
        joint: Tensor = self.tempering(self.numbers.log_prob(x_hat, x, seen)[:, None])[:, 0]
        both, there = self._both_ends(x, seen)
        tails: Tensor = self.tails(both)
        if there is not None:
            tails = torch.where(there, tails, 0.0)
        alone = math.log(tails.shape[1]) - torch.logsumexp(-tails, 1)
        return levels + math.log(2) - torch.logaddexp(-joint, -alone)

    def _both_ends(self, x: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return a row's numbers and their opposites, and which are there (None: all of them)."""
        numbers = x.index_select(1, self._at)
        if seen is None:
            return torch.cat([numbers, -numbers], 1), None
        there = seen.index_select(1, self._at)
        return torch.cat([numbers, -numbers], 1), torch.cat([there, there], 1)

    def typical(self, x_hat: Tensor, x: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return expected inputs in each row's cluster, and how far off they are.

        As `RowDensity.typical`; levels are as they are expected, without those that never occurred.
        """
        x_hat = x_hat * self._kept
        if not self._has_numbers:
            return x_hat, torch.zeros_like(x_hat)
        return self.numbers.typical(x_hat, x, seen)

    def settled(self, x_hat: Tensor) -> Tensor:
        """Return expected inputs with one level in each category and flag: (batch, width) twice."""
        return self.levels.most_probable(x_hat)

    @torch.no_grad()
    def fit(
        self,
        x_hat: Tensor,
        x: Tensor,
        seen: Tensor | None,
        groups: Sequence[slice | Tensor],
        generator: torch.Generator,
    ) -> None:
        """Fit it to training rows, (n_rows, width) each, as `RowDensity.fit`."""
        self.numbers.fit(x_hat, x, seen, groups, generator)
        if self._has_numbers:
            self.tempering.fit(self.numbers.log_prob(x_hat, x, seen)[:, None])
            self.tails.fit(*self._both_ends(x, seen))
        self.levels.fit(x, seen)


def density_of(schema: Schema, normal: Sequence[int]) -> RowDensity | TableDensity:
    """Return the density that rows of a schema have, not yet fitted."""
    if schema.is_table and any(column.kind == "category" for column in schema.columns):
        return TableDensity(schema, normal)
    return RowDensity(schema.width, normal)
