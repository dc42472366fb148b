"""How well the decoder's output explains the cells: one likelihood per column.

Everything is in nats. The loss that training minimises is the mean over all cells, so that a
learning rate means the same for a table of ten columns and for an image, and reads like the loss
other libraries print. A missing cell is NaN and weighs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.nn.likelihoods import LIKELIHOODS, Likelihood, Unit
from twofold.nn.row_density import RowDensity
from twofold.schema.column import FAR
from twofold.schema.schema import Schema


class Objective(nn.Module):
    """What training minimises and what a row's score is made of: each column's likelihood.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.
    adapts : bool
        The noise of Gaussian columns is learned even where all columns are Gaussian. A divergence
        is weighed against it (Rybkin, Daniilidis and Levine, 2021, "Simple and Effective VAE
        Training with Calibrated Decoders", eq. 5).
    """

    spread: Tensor
    noise: Tensor
    typical: Tensor
    rounds: Tensor
    log_unit: Tensor
    center: Tensor
    unit: Tensor
    knots: Tensor
    column: Tensor
    _others: Tensor

    def __init__(self, schema: Schema, adapts: bool = False) -> None:
        super().__init__()
        self.n_columns, self.width = len(schema.columns), schema.width
        self.row_shape = schema.row_shape
        self.groups = _groups(schema)
        used = {id(likelihood): likelihood for likelihood, _ in self.groups}.values()
        # Columns of one likelihood need no weighing against others.
        self.adapts = adapts or len(used) > 1 or not all(one.is_fixed for one in used)
        widths = torch.tensor([column.width for column in schema.columns])

        def per_input(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).repeat_interleave(widths)

        columns = schema.columns
        self.register_buffer("spread", torch.ones(schema.width))
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("typical", torch.zeros(self.n_columns))
        # How often missing cells are filled by reconstructions; `inference.calibrate` finds out.
        self.register_buffer("rounds", torch.tensor(1))
        # A density per centimetre is not one per standard deviation: this is the change of unit.
        has_unit = [
            c.width > 0 and LIKELIHOODS[c.likelihood].has_unit and (c.between or not c.knots)
            for c in columns
        ]
        logs = [math.log(c.scale) if u else 0.0 for c, u in zip(columns, has_unit, strict=True)]
        log_unit = torch.tensor(logs, dtype=torch.float64)
        self.register_buffer("log_unit", log_unit, persistent=False)
        far = [c.is_squashed and u for c, u in zip(columns, has_unit, strict=True)]
        self._squashed = torch.tensor(far).repeat_interleave(widths) if any(far) else None
        self.register_buffer("center", per_input([c.center for c in columns]), False)
        self.register_buffer("unit", per_input([c.scale for c in columns]), False)
        self.register_buffer("knots", per_input([0.0] * self.n_columns), persistent=False)
        for column, at in zip(columns, schema.inputs, strict=True):
            if column.knots:
                knots = torch.from_numpy(column.scaled_knots)
                self.center[at] = torch.tensor(column.shares, dtype=torch.float64)
                self.unit[at] = column.share_scale
                self.knots[at] = knots
                # The area under each hat of height 1: half the way to both neighbours.
                gaps = F.pad(knots.diff(), (1, 1))
                self.spread[at] = (gaps[:-1] + gaps[1:]).float() / 2 if column.between else 0.0
        owner = torch.arange(self.n_columns).repeat_interleave(widths)
        self.register_buffer("column", owner, persistent=False)
        self._one_to_one = bool((widths == 1).all())
        self._n_modelled = int((widths > 0).sum())
        # Grey values are modelled by a law over black and white: what is shown is its mean.
        kinds = torch.tensor([c.kind == "pixel" for c in columns]).repeat_interleave(widths)
        self._grey = kinds if kinds.any() else None
        normal = torch.zeros(schema.width, dtype=torch.bool)
        for likelihood, inputs in self.groups:
            normal[inputs] = likelihood.in_row_density
        self.density = RowDensity(schema.width, normal.nonzero().squeeze(1).tolist())
        # Columns whose cells have a likelihood of their own, besides the density.
        others = torch.ones(self.n_columns, dtype=torch.bool)
        others[owner[normal]] = False
        self.register_buffer("_others", others, persistent=False)

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
                return self._total(theta, seen_x, seen) / (n_codes * n_cells)
            rows = self._input_losses(theta, seen_x, seen).sum(1)
            log_weights = -(rows + sum(penalties.values())).reshape(n_codes, -1)
            return (math.log(n_codes) - log_weights.logsumexp(0)).sum() / n_cells
        total = self._total(theta, seen_x, seen)
        for penalty in penalties.values():
            total = total + penalty.sum()
        return total / n_cells

    def reconstruction(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the mean loss over all cells there are, in nats: (batch, width) twice -> ()."""
        x, seen = observed(x)
        return self._total(theta, x, seen) / self._n_cells(x, seen)

    def _total(self, theta: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return the loss of all cells together, in nats."""
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        for likelihood, at in self.groups:
            loss = likelihood.loss(theta[:, at], x[:, at], *self._about(at))
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
            loss = likelihood.loss(theta[:, at], x[:, at], *self._about(at))
            if likelihood.shares_noise and self.adapts:
                loss = loss / self.noise**2 + self.noise.log()
            losses[:, at] = loss
        return losses if seen is None else torch.where(seen, losses, 0.0)

    def n_cells(self, x: Tensor) -> int | Tensor:
        """Return how many cells there are in the rows `x`: what their loss is a mean over."""
        return self._n_cells(*observed(x))

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected inputs, `(batch, width)`: what a reconstruction holds."""
        if len(self.groups) == 1 and isinstance(self.groups[0][1], slice):
            likelihood, at = self.groups[0]
            return likelihood.mean(theta, self._about(at)[1])
        x_hat = torch.empty_like(theta)
        for likelihood, at in self.groups:
            x_hat[:, at] = likelihood.mean(theta[:, at], self._about(at)[1])
        return x_hat

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each cell's log-density in nats and in the column's own unit.

        (batch, width) twice -> (batch, n_columns). For a missing cell it is the column's mean over
        the training rows, so that rows with and without missing cells compare.
        """
        x, seen = observed(x)
        result = torch.empty_like(theta)
        for likelihood, at in self.groups:
            result[:, at] = likelihood.log_prob(theta[:, at], x[:, at], *self._about(at))
        if self._squashed is not None:
            # The density of what `columns.squash` took in: minus the log of its slope's inverse.
            far = (x.abs() - FAR).clamp_min(0)
            result = result - torch.where(self._squashed.to(x.device), far, 0.0)
        cells = self.per_column(result) - self.log_unit
        if seen is None:
            return cells
        return torch.where(self.cells_seen(seen), cells, self.typical)

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

    def draw(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Return random inputs under the likelihoods, `(batch, width)`; grey values are means."""
        # On the processor, where the generator is: a seed means the same wherever the network is.
        said = theta.cpu()
        x = torch.empty_like(said)
        for likelihood, at in self.groups:
            spread, unit = self._about(at)
            center, scale, knots = (part.cpu() for part in unit)
            about = spread.cpu(), (center, scale, knots)
            x[:, at] = likelihood.draw(said[:, at], *about, generator)
        x = x.to(theta.device)
        if self._grey is None:
            return x
        return torch.where(self._grey.to(theta.device), self.mean(theta), x)

    def per_column(self, inputs: Tensor) -> Tensor:
        """Sum what belongs to one column: (batch, width) -> (batch, n_columns)."""
        if self._one_to_one:
            return inputs
        sums = inputs.new_zeros(inputs.shape[0], self.n_columns)
        return sums.index_add_(1, self.column, inputs)

    def per_input(self, cells: Tensor) -> Tensor:
        """Hand a column's number to each of its inputs: (batch, n_columns) -> (batch, width)."""
        return cells if self._one_to_one else cells[:, self.column]

    def cells_seen(self, seen: Tensor) -> Tensor:
        """Return which cells are there, from which inputs are: ignored columns have none."""
        return seen if self._one_to_one else self.per_column(seen.float()) > 0

    @property
    def link(self) -> str:
        """The output layer's activation in words, for the layer table."""
        return " | ".join(dict.fromkeys(likelihood.link for likelihood, _ in self.groups))

    @torch.no_grad()
    def fit_spread(self, theta: Tensor, x: Tensor) -> None:
        """Fit what is learned per column to training rows: (batch, width) twice.

        For a normal residual that is its standard deviation (maximum likelihood), for the others
        what their likelihoods say.
        """
        x, seen = observed(x)
        seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
        for likelihood, at in self.groups:
            unit = self._about(at)[1]
            best = likelihood.fit_spread(theta[:, at], x[:, at], seen[:, at], unit)
            if best is not None:
                self.spread[at] = best.to(self.spread.dtype)

    @torch.no_grad()
    def adapt(self, theta: Tensor, x: Tensor) -> None:
        """Weigh likelihoods against each other as training rows say: (batch, width) twice.

        All Gaussian columns share one `noise` while training. So they keep the weights that squared
        error gives them among themselves, and weigh against others by information.
        """
        self.fit_spread(theta, x)
        shared = [self.spread[at] for likelihood, at in self.groups if likelihood.shares_noise]
        if shared:
            self.noise.copy_((torch.cat(shared) ** 2).mean().sqrt().clamp_min(0.05))

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

    def _about(self, at: slice | Tensor) -> tuple[Tensor, Unit]:
        return self.spread[at], (self.center[at], self.unit[at], self.knots[at])

    def _n_cells(self, x: Tensor, seen: Tensor | None) -> int | Tensor:
        if seen is None:
            return x.numel() if self._one_to_one else len(x) * self._n_modelled
        if self._one_to_one:
            return seen.sum().clamp_min(1)
        return self.cells_seen(seen).sum().clamp_min(1)


def observed(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the inputs with zero for missing ones, and which are there (None: all of them)."""
    traced = torch.compiler.is_compiling()  # a graph serves complete rows and others
    if not traced and not torch.isnan(x.sum()):  # one number says so, and takes no memory
        return x, None
    missing = torch.isnan(x)
    if not traced and not missing.any():
        return x, None
    return torch.where(missing, 0.0, x), ~missing


def _groups(schema: Schema) -> list[tuple[Likelihood, slice | Tensor]]:
    """Return each likelihood's inputs; of those modelled jointly one group per width.

    A slice stands for all inputs, so that nothing is gathered.
    """
    groups: list[tuple[Likelihood, slice | Tensor]] = []
    for name, positions in schema.likelihoods().items():
        spans = [schema.inputs[position] for position in positions]
        likelihood = LIKELIHOODS[name]
        if likelihood.is_joint:
            by_width: dict[int, list[list[int]]] = {}
            for span in spans:
                by_width.setdefault(span.stop - span.start, []).append(
                    list(range(span.start, span.stop))
                )
            groups += [(likelihood, torch.tensor(rows)) for rows in by_width.values()]
            continue
        inputs = [i for span in spans for i in range(span.start, span.stop)]
        whole = len(inputs) == schema.width
        groups.append((likelihood, slice(None) if whole else torch.tensor(inputs)))
    return groups
