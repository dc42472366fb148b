"""What the decoder's output says of a row's cells: each column under its likelihood, in nats.

A missing cell is NaN.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.nn.likelihoods import LIKELIHOODS, Likelihood, Unit
from twofold.schema.schema import Schema


class CellModel(nn.Module):
    """A table's columns, each under its likelihood: what `Objective` and `Scorer` have in common.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.

    Attributes
    ----------
    spread : Tensor
        What is learned per input besides the weights, `(width,)`.
    needs_weights : bool
        Whether likelihoods have to be weighed against each other in a loss.
    """

    spread: Tensor
    log_unit: Tensor
    center: Tensor
    unit: Tensor
    knots: Tensor
    far: Tensor
    column: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.n_columns, self.width = len(schema.columns), schema.width
        self.row_shape = schema.row_shape
        self.groups = _groups(schema)
        used = {id(likelihood): likelihood for likelihood, _ in self.groups}.values()
        # Columns of one likelihood need no weighing against others.
        self.needs_weights = len(used) > 1 or not all(one.is_fixed for one in used)
        widths = torch.tensor([column.width for column in schema.columns])

        def per_input(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).repeat_interleave(widths)

        columns = schema.columns
        self.register_buffer("spread", torch.ones(schema.width))
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
        self.register_buffer("far", per_input([c.far for c in columns]), persistent=False)
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
        # Grey values are modelled by a law over black and white: what is shown is its mean.
        kinds = torch.tensor([c.kind == "pixel" for c in columns]).repeat_interleave(widths)
        self._grey = kinds if kinds.any() else None

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected inputs, `(batch, width)`: what a reconstruction holds."""
        if len(self.groups) == 1 and isinstance(self.groups[0][1], slice):
            likelihood, at = self.groups[0]
            return likelihood.mean(theta, self.about(at)[1])
        x_hat = torch.empty_like(theta)
        for likelihood, at in self.groups:
            x_hat[:, at] = likelihood.mean(theta[:, at], self.about(at)[1])
        return x_hat

    def cell_log_prob(self, theta: Tensor, x: Tensor, missing: Tensor | float = 0.0) -> Tensor:
        """Return each cell's log-density in nats and in the column's own unit.

        (batch, width) twice -> (batch, n_columns); missing cells count as `missing`.
        """
        x, seen = observed(x)
        result = torch.empty_like(theta)
        for likelihood, at in self.groups:
            result[:, at] = likelihood.log_prob(theta[:, at], x[:, at], *self.about(at))
        if self._squashed is not None:
            # The density of what `columns.squash` took in: minus the log of its slope's inverse.
            far = (x.abs() - self.far).clamp_min(0)
            result = result - torch.where(self._squashed.to(x.device), far, 0.0)
        cells = self.per_column(result) - self.log_unit
        if seen is None:
            return cells
        return torch.where(self.cells_seen(seen), cells, missing)

    def draw(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Return random inputs under the likelihoods, `(batch, width)`; grey values are means."""
        # On the processor, where the generator is: a seed means the same wherever the network is.
        said = theta.cpu()
        x = torch.empty_like(said)
        for likelihood, at in self.groups:
            spread, unit = self.about(at)
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
            unit = self.about(at)[1]
            best = likelihood.fit_spread(theta[:, at], x[:, at], seen[:, at], unit)
            if best is not None:
                self.spread[at] = best.to(self.spread.dtype)

    def about(self, at: slice | Tensor) -> tuple[Tensor, Unit]:
        """Return the spread and the unit of the inputs of a group."""
        return self.spread[at], (self.center[at], self.unit[at], self.knots[at])


def observed(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the inputs with zero for missing ones, and which are there (None: all of them)."""
    traced = torch.compiler.is_compiling()  # a graph serves incomplete and complete rows
    if not traced and not torch.isnan(x.sum()):  # one number tells it, and takes no memory
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
