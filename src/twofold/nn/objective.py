"""What training minimises: each column's loss under its likelihood, and the code's penalties.

Everything is in nats. The loss is the mean over all cells, so that a learning rate means the same
for a table of ten columns and for an image, and reads like the loss other libraries print. A
missing cell is NaN and weighs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from twofold.nn.cell_model import CellModel, observed
from twofold.schema.schema import Schema

# Of numbers next to cells of other likelihoods: a code that has to tell more of a number costs more
# in categories than it is worth (docs/defaults.md).
_LEAST_NOISE = 0.3
_LEAST_NOISE_ALONE = 0.05


class Objective(CellModel):
    """The training loss of a table.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.
    adapts : bool
        The noise of Gaussian columns is learned even if all columns are Gaussian. A divergence
        is weighed by it (Rybkin, Daniilidis and Levine, 2021, "Simple and Effective VAE
        Training with Calibrated Decoders", eq. 5).

    Attributes
    ----------
    learns_spread : bool
        Whether `adapt` finds anything to fit: histograms and categories have no spread.
    counts_spread : bool
        Whether the loss depends on a spread: for Gaussian columns, their common noise takes its
        place.
    """

    noise: Tensor

    def __init__(self, schema: Schema, adapts: bool = False) -> None:
        super().__init__(schema)
        self.adapts = adapts or self.needs_weights
        self._n_modelled = sum(column.width > 0 for column in schema.columns)
        self.learns_spread = self.adapts and any(one.learns_spread for one, _ in self.groups)
        self.counts_spread = any(
            one.learns_spread and not one.shares_noise for one, _ in self.groups
        )
        self.register_buffer("noise", torch.ones(()))

    def loss(self, theta: Tensor, x: Tensor, penalties: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss per cell in nats, penalties included, which training minimises.

        Penalties are `(n_rows,)` in nats per row. `theta` may hold several codes' worth for each
        row of `x`, below one another: they count alike, or if they are draws, whose log-ratio of
        densities is the penalty `kl`, by their importance weights.
        """
        seen_x, seen = observed(x)
        n_cells = self._n_cells(seen_x, seen)
        n_codes = len(theta) // max(1, len(x))
        if n_codes > 1:
            seen_x, seen = (
                seen_x.repeat(n_codes, 1),
                None if seen is None else seen.repeat(n_codes, 1),
            )
            if not penalties:
                return self.total(theta, seen_x, seen) / (n_codes * n_cells)
            rows = self._input_losses(theta, seen_x, seen).sum(1)
            log_weights = -(rows + sum(penalties.values())).reshape(n_codes, -1)
            return (math.log(n_codes) - log_weights.logsumexp(0)).sum() / n_cells
        total = self.total(theta, seen_x, seen)
        for penalty in penalties.values():
            total = total + penalty.sum()
        return total / n_cells

    def row_losses(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the loss of each row in nats: (batch, width) twice -> (batch,).

        Of several codes' worth for each row, below one another, it is the mean.
        """
        n_codes = len(theta) // max(1, len(x))
        losses = self._input_losses(theta, *observed(x.repeat(n_codes, 1))).sum(1)
        return losses.reshape(n_codes, -1).mean(0)

    def reconstruction(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the mean loss over all cells there are, in nats: (batch, width) twice -> ()."""
        x, seen = observed(x)
        return self.total(theta, x, seen) / self._n_cells(x, seen)

    def total(self, theta: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return the loss of all cells, in nats; `observed` gives `x` and `seen`."""
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        for likelihood, at in self.groups:
            loss = likelihood.loss(theta[:, at], x[:, at], *self.about(at))
            if seen is not None:
                loss = torch.where(seen[:, at], loss, 0.0)
            if likelihood.shares_noise and self.adapts:
                known = loss.numel() if seen is None else seen[:, at].sum()
                total = total + loss.sum() / self.noise**2 + known * self.noise.log()
            else:
                total = total + loss.sum()
        return total

    def _input_losses(self, theta: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return what each input adds to the loss, in nats: (batch, width) twice -> same."""
        losses = torch.empty_like(theta)
        for likelihood, at in self.groups:
            loss = likelihood.loss(theta[:, at], x[:, at], *self.about(at))
            if likelihood.shares_noise and self.adapts:
                loss = loss / self.noise**2 + self.noise.log()
            losses[:, at] = loss
        return losses if seen is None else torch.where(seen, losses, 0.0)

    def n_cells(self, x: Tensor) -> int | Tensor:
        """Return how many cells there are in the rows `x`: what their loss is a mean over."""
        return self._n_cells(*observed(x))

    @torch.no_grad()
    def adapt(self, theta: Tensor, x: Tensor) -> None:
        """Weigh likelihoods against each other as training rows say: (batch, width) twice.

        All Gaussian columns share one `noise` while training. So they keep the weights that squared
        error gives them among themselves, and weigh against others by information.
        """
        self.fit_spread(theta, x)
        self._fit_noise()

    def continue_from(self, fitted: CellModel) -> None:
        """Continue from the spreads of a fitted model of the same columns."""
        self.spread.copy_(fitted.spread)
        self._fit_noise()

    @torch.no_grad()
    def fit_noise(self, theta: Tensor, x: Tensor) -> None:
        """Fit the noise that Gaussian columns share to these rows: (batch, width) twice."""
        x, seen = observed(x)
        seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
        gaps = torch.where(seen, (theta - x) ** 2, 0.0).sum(0) / seen.sum(0)
        self._set_noise([gaps[at] for likelihood, at in self.groups if likelihood.shares_noise])

    def _fit_noise(self) -> None:
        self._set_noise(
            [self.spread[at] ** 2 for likelihood, at in self.groups if likelihood.shares_noise]
        )

    @torch.no_grad()
    def _set_noise(self, squares: list[Tensor]) -> None:
        if squares:
            least = _LEAST_NOISE if self.needs_weights else _LEAST_NOISE_ALONE
            # A column without a cell has no square.
            noise = torch.cat(squares).nanmean().sqrt().clamp_min(least)
            self.noise.copy_(noise.nan_to_num(1.0))

    @property
    def is_clipped(self) -> bool:
        """Whether a gradient longer than 1 is scaled down to that."""
        return any(likelihood.is_clipped for likelihood, _ in self.groups)

    @property
    def cells_per_row(self) -> int:
        """How many cells a complete row has for the loss; each may be several inputs."""
        return self.width if self._one_to_one else self._n_modelled

    def _n_cells(self, x: Tensor, seen: Tensor | None) -> int | Tensor:
        if seen is None:
            return len(x) * self.cells_per_row
        if self._one_to_one:
            return seen.sum().clamp_min(1)
        return self.cells_seen(seen).sum().clamp_min(1)
