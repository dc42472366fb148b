"""A scorer as a PyTorch module that can be traced: expected inputs, and how likely a row is.

`Scorer` looks at rows to spare itself work, and puts what its likelihoods say into one matrix in
place. A graph can do neither, so the same sums are taken here without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from twofold.nn.likelihoods import Likelihood
from twofold.nn.scorer import Scorer
from twofold.persistence.onnx.preprocessing import Picked, order_of, reordered


class TraceableScorer(nn.Module):
    """What a scorer says of rows, in its precision.

    Parameters
    ----------
    scorer : Scorer
        Fitted; its numbers are copied.
    """

    _order: Tensor | None

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        groups = [_Group(scorer, likelihood, at) for likelihood, at in scorer.groups]
        self.groups = nn.ModuleList(groups)
        self.register_buffer("_order", order_of([i for g in groups for i in g.inputs]))
        self.density = scorer.density
        everything = torch.ones_like(scorer._others)
        self._every, self._others = (
            _Cells(scorer, groups, counted) for counted in (everything, scorer._others)
        )

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected inputs, as `Scorer.mean` does: (batch, width) twice."""
        groups: list[_Group] = list(self.groups)  # type: ignore[arg-type]
        parts = [group.mean(group.pick(theta)).flatten(1) for group in groups]
        return reordered(torch.cat(parts, 1) if len(parts) > 1 else parts[0], self._order)

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the sum of `Scorer.log_prob`, missing inputs NaN: (batch, width) -> (batch, 1).

        It is the log-density of all cells, each under its column's likelihood.
        """
        total: Tensor = self._every(theta, x)
        return total.unsqueeze(1)

    def row_log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each row's log-density, as `Scorer.row_log_prob` does: -> (batch,)."""
        seen = ~torch.isnan(x)
        filled = torch.where(seen, x, 0.0)
        total: Tensor = self._others(theta, x)
        return total + self.density.log_prob(self.mean(theta), filled, seen)


class _Cells(nn.Module):
    """The summed log-density of some columns' cells; of all others, their change of unit alone."""

    _first: Tensor
    _absent: Tensor
    _there: Tensor
    _constant: Tensor

    def __init__(self, scorer: Scorer, groups: Sequence[_Group], counted: Tensor) -> None:
        super().__init__()
        self._counted = [g for g in groups if counted[scorer.column[g.inputs]].any()]
        for j, group in enumerate(self._counted):
            self.register_buffer(f"_weight_{j}", group.shaped(counted[scorer.column]))
        # A column is missing where its first input is.
        owner = scorer.column.tolist()
        first = {column: owner.index(column) for column in set(owner)}
        columns = sorted(column for column in first if counted[column])
        self.register_buffer("_first", torch.tensor([first[c] for c in columns], dtype=torch.long))
        self.register_buffer("_there", -scorer.log_unit[columns].clone())
        self.register_buffer("_absent", scorer.typical[columns].clone())
        self.register_buffer("_constant", -scorer.log_unit[~counted].sum())

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the sum for each row: (batch, width) twice -> (batch,)."""
        seen = ~torch.isnan(x)
        filled = torch.where(seen, x, 0.0)
        total = self._constant
        if len(self._first):
            total = total + torch.where(
                seen.index_select(1, self._first), self._there, self._absent
            ).sum(1)
        for j, group in enumerate(self._counted):
            cells = group.log_prob(group.pick(theta), group.pick(filled))
            there = group.pick(seen) & getattr(self, f"_weight_{j}")
            total = total + torch.where(there, cells, 0.0).flatten(1).sum(1)
        return total


class _Group(nn.Module):
    """Inputs of one likelihood, with what it knows of them."""

    spread: Tensor
    center: Tensor
    unit: Tensor
    knots: Tensor
    far: Tensor
    squashed: Tensor | None

    def __init__(self, scorer: Scorer, likelihood: Likelihood, at: slice | Tensor) -> None:
        super().__init__()
        self.likelihood = likelihood
        at = torch.arange(scorer.width)[at] if isinstance(at, slice) else at
        self.inputs, self.shape = at.flatten().tolist(), tuple(at.shape)
        self._picked = Picked(self.inputs)
        spread, (center, unit, knots) = scorer.about(at)
        for key, numbers in (
            ("spread", spread),
            ("center", center),
            ("unit", unit),
            ("knots", knots),
            ("far", scorer.far[at]),
        ):
            self.register_buffer(key, numbers.clone())
        squashed = None if scorer._squashed is None else scorer._squashed[at]
        self.register_buffer("squashed", squashed)

    def shaped(self, inputs: Tensor) -> Tensor:
        """Return what is said of all inputs for these: (width,) -> (1, ...), as `pick` gives."""
        return self.pick(inputs[None])

    def pick(self, x: Tensor) -> Tensor:
        """Return these inputs: (batch, width) -> (batch, inputs), or (batch, columns, levels)."""
        inputs: Tensor = self._picked(x)
        return inputs if len(self.shape) == 1 else inputs.unflatten(1, self.shape)

    def mean(self, theta: Tensor) -> Tensor:
        return self.likelihood.mean(theta, (self.center, self.unit, self.knots))

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        with _OperationsOfOnnx():
            unit = self.center, self.unit, self.knots
            cells = self.likelihood.log_prob(theta, x, self.spread, unit)
        if self.squashed is None:
            return cells
        # The density of what `columns.squash` took in, as in `Scorer.log_prob`.
        far = (x.abs() - self.far).clamp_min(0)
        return cells - torch.where(self.squashed, far, 0.0)


class _OperationsOfOnnx(TorchFunctionMode):
    """Lets likelihoods use what ONNX does not have, or only with fewer digits."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        other = _IN_ONNX.get(func)
        return other(*args) if other else func(*args, **(kwargs or {}))


def _cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    # Exporters take the logarithm of a sigmoid, which is 0 where the logits are far below 0.
    return logits.clamp_min(0) - logits * x + (-logits.abs()).exp().log1p()


def _log1p(x: Tensor) -> Tensor:
    # Exporters write log(1 + x), which has lost a small x where 32 bits hold the sum: the rate over
    # the dispersion of counts that vary little more than Poisson's.
    return (1 + x.double()).log().to(x.dtype)


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


_IN_ONNX: dict[Any, Callable[..., Tensor]] = {
    torch.lgamma: log_gamma,
    torch.log1p: _log1p,
    F.binary_cross_entropy_with_logits: _cross_entropy,
}
