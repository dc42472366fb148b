"""What scores rows after training: each column's likelihood as it was fitted, and rows' density."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.nn.cell_model import CellModel, observed
from twofold.nn.table_density import TableDensity, density_of
from twofold.schema.schema import Schema


class Scorer(CellModel):
    """What a trained network's output says of rows; `inference.calibration` fits it.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.

    Attributes
    ----------
    typical : Tensor
        What a missing cell counts: the mean log-density of its column, `(n_columns,)`.
    rounds : Tensor
        How often reconstructions replace a row's missing cells, ().
    density : RowDensity or TableDensity
        The density of rows: of expected rows, and of residuals around them.
    mode : Tensor
        The training row with the highest score, `(width,)`.
    """

    typical: Tensor
    rounds: Tensor
    mode: Tensor
    _others: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        self.register_buffer("typical", torch.zeros(self.n_columns))
        self.register_buffer("rounds", torch.tensor(1))
        self.register_buffer("mode", torch.zeros(schema.width))
        normal = torch.zeros(schema.width, dtype=torch.bool)
        for likelihood, inputs in self.groups:
            normal[inputs] = likelihood.in_row_density
        self.density = density_of(schema, normal.nonzero().squeeze(1).tolist())
        # Columns whose cells have a likelihood of their own besides the density.
        others = torch.ones(self.n_columns, dtype=torch.bool)
        others[self.column[normal]] = False
        if isinstance(self.density, TableDensity):
            others[list(self.density.columns)] = False
        self.register_buffer("_others", others, persistent=False)

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each cell's log-density in nats and in the column's own unit.

        (batch, width) twice -> (batch, n_columns). For a missing cell it is the column's mean over
        the training rows, so that rows with different missing values compare.
        """
        return self.cell_log_prob(theta, x, self.typical)

    def row_log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each row's log-density in nats, its score: (batch, width) twice -> (batch,)."""
        filled, seen = observed(x)
        cells = self.log_prob(theta, x)
        others = torch.where(self._others, cells, -self.log_unit).sum(1)
        return others + self.density.log_prob(self.mean(theta), filled, seen)

    @torch.no_grad()
    def fit_density(self, theta: Tensor, x: Tensor, generator: torch.Generator) -> None:
        """Fit the rows' density to training rows: (batch, width) twice."""
        filled, seen = observed(x)
        groups = [at.flatten() if isinstance(at, Tensor) else at for _, at in self.groups]
        self.density.fit(self.mean(theta), filled, seen, groups, generator)

    @torch.no_grad()
    def fit_typical(self, theta: Tensor, x: Tensor) -> None:
        """Set what a missing cell counts: the mean log-density of its column in these rows."""
        _, seen = observed(x)
        cells = self.log_prob(theta, x).double()
        if seen is None:
            self.typical.copy_(cells.mean(0))
            return
        there = self.cells_seen(seen)
        sums = torch.where(there, cells, 0.0).sum(0)
        self.typical.copy_(sums / there.sum(0).clamp_min(1))
