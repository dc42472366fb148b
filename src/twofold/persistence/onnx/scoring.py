"""An objective as a PyTorch module that can be traced: expected inputs, and how likely a row is.

`Objective` looks at rows to spare itself work, and puts what its likelihoods say into one matrix in
place. A graph can do neither, so the same sums are taken here without.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from twofold.nn.likelihoods import Likelihood
from twofold.nn.objective import Objective
from twofold.persistence.onnx.preprocessing import order_of, picked, reordered
from twofold.schema.column import FAR


class Scorer(nn.Module):
    """What an objective says of rows, in its precision.

    Parameters
    ----------
    objective : Objective
        Fitted; its numbers are copied.
    every : bool
        Whether every column's own likelihood counts, as in the bound of a variational network.
        Otherwise residuals of normal columns are part of the rows' density.
    """

    _order: Tensor | None
    _first: Tensor
    _absent: Tensor
    _there: Tensor
    _constant: Tensor

    def __init__(self, objective: Objective, every: bool = False) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            _Group(objective, likelihood, at) for likelihood, at in objective.groups
        )
        self.register_buffer("_order", order_of([i for g in self._parts for i in g.inputs]))
        self.density = None if every else objective.density
        counted = torch.ones_like(objective._others) if every else objective._others
        self._counted = [g for g in self._parts if counted[objective.column[g.inputs[0]]]]
        # A column is missing where its first input is.
        owner = objective.column.tolist()
        first = {column: owner.index(column) for column in set(owner)}
        columns = sorted(column for column in first if counted[column])
        self.register_buffer("_first", torch.tensor([first[c] for c in columns], dtype=torch.long))
        self.register_buffer("_there", -objective.log_unit[columns].clone())
        self.register_buffer("_absent", objective.typical[columns].clone())
        self.register_buffer("_constant", -objective.log_unit[~counted].sum())

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected inputs, as `Objective.mean` does: (batch, width) twice."""
        parts = [group.mean(group.pick(theta)).flatten(1) for group in self._parts]
        return reordered(torch.cat(parts, 1) if len(parts) > 1 else parts[0], self._order)

    def forward(self, theta: Tensor, x_hat: Tensor, x: Tensor) -> Tensor:
        """Return each row's log-density, as `Objective.row_log_prob` does, missing inputs NaN.

        (batch, width) each -> (batch,). `x_hat` is `mean(theta)`. With `every` it is the sum of
        `Objective.log_prob`.
        """
        seen = ~torch.isnan(x)
        filled = torch.where(seen, x, 0.0)
        total = self._constant
        if len(self._first):
            total = total + torch.where(
                seen.index_select(1, self._first), self._there, self._absent
            ).sum(1)
        for group in self._counted:
            cells = group.log_prob(group.pick(theta), group.pick(filled))
            total = total + torch.where(group.pick(seen), cells, 0.0).flatten(1).sum(1)
        if self.density is None:
            return total
        return total + self.density.log_prob(x_hat, filled, seen)

    @property
    def _parts(self) -> list[_Group]:
        return list(self.groups)  # type: ignore[arg-type]


class _Group(nn.Module):
    """Inputs of one likelihood, with what it knows of them."""

    spread: Tensor
    center: Tensor
    unit: Tensor
    knots: Tensor
    squashed: Tensor | None

    def __init__(self, objective: Objective, likelihood: Likelihood, at: slice | Tensor) -> None:
        super().__init__()
        self.likelihood = likelihood
        at = torch.arange(objective.width)[at] if isinstance(at, slice) else at
        self.inputs, self.shape = at.flatten().tolist(), tuple(at.shape)
        spread, (center, unit, knots) = objective._about(at)
        for key, numbers in (
            ("spread", spread),
            ("center", center),
            ("unit", unit),
            ("knots", knots),
        ):
            self.register_buffer(key, numbers.clone())
        squashed = None if objective._squashed is None else objective._squashed[at]
        self.register_buffer("squashed", squashed)

    def pick(self, x: Tensor) -> Tensor:
        """Return these inputs: (batch, width) -> (batch, inputs), or (batch, columns, levels)."""
        inputs = picked(x, self.inputs)
        return inputs if len(self.shape) == 1 else inputs.unflatten(1, self.shape)

    def mean(self, theta: Tensor) -> Tensor:
        return self.likelihood.mean(theta, (self.center, self.unit, self.knots))

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        with _OperationsOfOnnx():
            unit = self.center, self.unit, self.knots
            cells = self.likelihood.log_prob(theta, x, self.spread, unit)
        if self.squashed is None:
            return cells
        # The density of what `columns.squash` took in, as in `Objective.log_prob`.
        far = (x.abs() - FAR).clamp_min(0)
        return cells - torch.where(self.squashed, far, 0.0)


class _OperationsOfOnnx(TorchFunctionMode):
    """Lets likelihoods use what ONNX does not have, or only with fewer digits."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.lgamma:
            return log_gamma(args[0])
        if func is F.binary_cross_entropy_with_logits:
            return _cross_entropy(*args)
        return func(*args, **(kwargs or {}))


def _cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    # Exporters take the logarithm of a sigmoid, which is 0 where the logits are far below 0.
    return logits.clamp_min(0) - logits * x + (-logits.abs()).exp().log1p()


def log_gamma(x: Tensor) -> Tensor:
    """Return log Gamma(x) of positive numbers, in 64 bits.

    Stirling's series (Abramowitz and Stegun, 1964, 6.1.41) at x + 7, where three terms leave an
    error below 1e-9, less the logarithm of x (x + 1) ... (x + 6) (6.1.16).

    Examples
    --------
    >>> round(log_gamma(torch.tensor(5.0)).exp().item(), 6)
    24.0
    """
    x = x.double()
    outer = x * (x + 6)  # (x + 1) (x + 5) is 5 more, (x + 2) (x + 4) is 8 more
    shift = outer * (outer + 5) * (outer + 8) * (x + 3)
    z = x + 7
    inverse = 1 / z
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    return (z - 0.5) * z.log() - z + (0.5 * math.log(2 * math.pi) + series - shift.log())
