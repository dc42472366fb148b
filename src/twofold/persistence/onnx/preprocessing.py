"""A schema as PyTorch modules: cells to what the network sees and back, traceable into a graph.

`Inputs` and `Cells` do what `Schema.to_matrix` and `Schema.from_matrix` do, on tensors, and without
looking at values to choose a way. A cell is one number in its column's unit: a timestamp is seconds
since 1970 (UTC), a text a whole number, which `Inputs` and `Cells` explain. A missing cell is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from twofold.schema.column import CYCLES, MONDAY, Column

_MOST_BEYOND = 80.0  # what exp may be given beyond `far`: 32-bit numbers end soon after
_MOST_LOG = 700.0  # the same for 64-bit numbers, which counts are computed in
_COUNT_SLACK = 1e-5  # share of a count that its logarithm in 32 bits may lose


def holds_text(column: Column) -> bool:
    """Whether the cells are texts: a category some of whose levels are."""
    return any(isinstance(level, str) for level in column.levels)


class Picked(nn.Module):
    """Some columns: (batch, n) -> (batch, k); a run of them without gathering."""

    _at: Tensor | None

    def __init__(self, at: Sequence[int]) -> None:
        super().__init__()
        self._run = at[0], len(at)
        # Of the module, since the body of a loop cannot be traced with a tensor that it makes.
        is_run = list(at) == list(range(at[0], at[0] + len(at)))
        self.register_buffer("_at", None if is_run else torch.tensor(at))

    def forward(self, x: Tensor) -> Tensor:
        """Return the columns."""
        return x.narrow(1, *self._run) if self._at is None else x.index_select(1, self._at)


class Inputs(nn.Module):
    """What a network sees of cells: (batch, columns) -> (batch, width), in 32 bits.

    Parameters
    ----------
    columns : sequence of Column
        What the cells are. A text is the number of its input: 0 for the first level in `kept`, and
        `len(kept)` for any level that is not there.

    Examples
    --------
    >>> from twofold.schema.column import Column
    >>> height = Column("height", "real", "gaussian", center=170.0, scale=10.0)
    >>> Inputs([height])(torch.tensor([[180.0], [torch.nan]])).tolist()
    [[1.0], [nan]]
    """

    _owner: Tensor | None
    _order: Tensor | None

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        places: list[int] = []
        starts = _starts(columns)
        for at, inputs, alike in _groups(columns):
            parts.append(_ENCODERS[_form(alike[0])](at, alike))
            places += inputs
        for i, column in enumerate(columns):
            if column.cycles:
                parts.append(_Cycles(i, column))
                places += range(starts[i] + 1, starts[i] + column.width)
        self.parts = nn.ModuleList(parts)
        owner = [i for i, column in enumerate(columns) for _ in range(column.width)]
        self.register_buffer("_owner", _unless_identity(owner, len(columns)))
        self.register_buffer("_order", order_of(places))

    def forward(self, cells: Tensor) -> Tensor:
        """Return the inputs of the cells; those of a missing cell are NaN."""
        missing = torch.isnan(cells)
        known = torch.where(missing, 0.0, cells)
        inputs = reordered(torch.cat([part(known) for part in self.parts], 1), self._order)
        return torch.where(reordered(missing, self._owner), torch.nan, inputs)


class Cells(nn.Module):
    """The cells that inputs stand for: (batch, width) -> (batch, columns), in 64 bits.

    Parameters
    ----------
    columns : sequence of Column
        What the cells are. A category is its most probable level, a text that level's position in
        `levels`; an ignored cell is NaN.

    Examples
    --------
    >>> from twofold.schema.column import Column
    >>> height = Column("height", "real", "gaussian", center=170.0, scale=10.0)
    >>> Cells([height])(torch.tensor([[1.0]])).tolist()
    [[180.0]]
    """

    _order: Tensor | None

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        places: list[int] = []
        for at, inputs, alike in _groups(columns):
            if (form := _form(alike[0])) == "number":
                parts.append(_Unscaled(at, inputs, alike))
            else:
                parts.append(_DECODERS[form](inputs, alike))
            places += at
        ignored = [i for i, column in enumerate(columns) if not column.width]
        if ignored:
            parts.append(_Nothing(len(ignored)))
            places += ignored
        self.parts = nn.ModuleList(parts)
        self.register_buffer("_order", order_of(places))

    def forward(self, x_hat: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the cells that these inputs stand for.

        Numbers may go on as far as the rows' `own` cells, `(batch, columns)`, where these are given
        and lie further out than the columns' limits.
        """
        found = [
            part(x_hat, own) if isinstance(part, _Unscaled) else part(x_hat) for part in self.parts
        ]
        return reordered(torch.cat(found, 1), self._order)


class _Scaled(nn.Module):
    """Numbers, counts and timestamps: one input each, (batch, n) -> (batch, n)."""

    _center: Tensor | None
    _scale: Tensor | None
    _counts: Tensor | None
    _squashed: Tensor | None
    _far: Tensor

    def __init__(self, at: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked = Picked(at)
        _register_scale(self, columns)

    def forward(self, cells: Tensor) -> Tensor:
        x: Tensor = self._picked(cells)
        if self._counts is not None:
            x = torch.where(self._counts, x.sign() * x.abs().log1p(), x)
        if self._center is not None and self._scale is not None:
            x = (x.double() - self._center) / self._scale
        if self._squashed is not None:
            size = x.abs()
            far = x.sign() * (self._far + (size - self._far).clamp_min(0).log1p())
            x = torch.where(self._squashed & (size > self._far), far, x)
        return x.float()


class _Unscaled(nn.Module):
    """The way back from `_Scaled`; a timestamp's cycles follow from it."""

    _center: Tensor | None
    _scale: Tensor | None
    _counts: Tensor | None
    _squashed: Tensor | None
    _far: Tensor
    _low: Tensor | None
    _high: Tensor | None

    def __init__(self, at: Sequence[int], inputs: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked, self._own = Picked(inputs), Picked(at)
        _register_scale(self, columns)
        low, high = (_numbers(column.limits[end] for column in columns) for end in (0, 1))
        limited = bool(torch.isfinite(torch.stack([low, high])).any())
        # A graph holds numbers: what no 64-bit number passes does not limit.
        most = torch.finfo(torch.float64).max
        self.register_buffer("_low", low.clamp_min(-most) if limited else None)
        self.register_buffer("_high", high.clamp_max(most) if limited else None)

    def forward(self, x_hat: Tensor, own: Tensor | None = None) -> Tensor:
        x: Tensor = self._picked(x_hat).double()
        if self._squashed is not None:
            size = x.abs()
            beyond = (size - self._far).clamp(0, _MOST_BEYOND).expm1()
            far = x.sign() * (self._far + beyond)
            x = torch.where(self._squashed & (size > self._far), far, x)
        if self._center is not None and self._scale is not None:
            x = x * self._scale + self._center
        if self._counts is not None:
            counts = x.clamp_max(_MOST_LOG).expm1().clamp_min(0)
            whole = counts.round()
            counts = torch.where(
                (counts - whole).abs() <= _COUNT_SLACK * (1 + counts), whole, counts
            )
            x = torch.where(self._counts, counts, x)
        if self._low is not None and self._high is not None:
            low, high = self._low, self._high
            if own is not None:
                seen = self._own(own).double()
                missing = torch.isnan(seen)
                low = torch.minimum(torch.where(missing, low, seen), low)
                high = torch.maximum(torch.where(missing, high, seen), high)
            x = torch.minimum(torch.maximum(x, low), high)
        return x


class _Cycles(nn.Module):
    """Sine and cosine of each cycle that a timestamp varies in: (batch, columns) -> (batch, 2c)."""

    _turn: Tensor
    _start: Tensor

    def __init__(self, at: int, column: Column) -> None:
        super().__init__()
        self._at = at
        self.register_buffer("_turn", _numbers(CYCLES[name] for name in column.cycles))
        starts = (MONDAY if name == "week" else 0.0 for name in column.cycles)
        self.register_buffer("_start", _numbers(starts))

    def forward(self, cells: Tensor) -> Tensor:
        since = (cells.narrow(1, self._at, 1).double() - self._start) / self._turn
        angle = (2 * math.pi * (since - since.floor())).float()
        return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


class _Weights(nn.Module):
    """Histograms of equally many knots: each cell's weights, (batch, n) -> (batch, n * knots)."""

    _center: Tensor
    _scale: Tensor
    _knots: Tensor
    _shares: Tensor
    _share_scale: Tensor

    def __init__(self, at: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked = Picked(at)
        _register_knots(self, columns)

    def forward(self, cells: Tensor) -> Tensor:
        x = (self._picked(cells).double() - self._center) / self._scale
        x, knots = x[..., None], self._knots
        beyond = torch.maximum(knots[:, :1] - x, x - knots[:, -1:]).clamp_min(0)
        # A hat over each knot, from the one before to the one after; the outer ones go on level.
        gaps = knots.diff(dim=1)
        ends = torch.ones_like(beyond)
        up = torch.cat([ends, (x - knots[:, :-1]) / gaps], 2)
        down = torch.cat([(knots[:, 1:] - x) / gaps, ends], 2)
        weights = torch.minimum(up, down).clamp(0, 1) * (1 + beyond.log1p())
        return ((weights - self._shares) / self._share_scale).flatten(1).float()


class _Means(nn.Module):
    """The means of histograms: (batch, width) -> (batch, n)."""

    _center: Tensor
    _scale: Tensor
    _knots: Tensor
    _shares: Tensor
    _share_scale: Tensor
    _low: Tensor
    _high: Tensor

    def __init__(self, inputs: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked = Picked(inputs)
        _register_knots(self, columns)
        self.register_buffer("_low", _numbers(c.knots[0] for c in columns))
        self.register_buffer("_high", _numbers(c.knots[-1] for c in columns))

    def forward(self, x_hat: Tensor) -> Tensor:
        x = self._picked(x_hat).double().unflatten(1, self._knots.shape)
        weights = x * self._share_scale + self._shares
        scaled = (weights * self._knots).sum(2) / weights.sum(2)
        cells = scaled * self._scale + self._center
        return torch.minimum(torch.maximum(cells, self._low), self._high)


class _OneHot(nn.Module):
    """Categories of equally many inputs: (batch, n) -> (batch, n * inputs)."""

    _levels: Tensor

    def __init__(self, at: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked = Picked(at)
        self.register_buffer("_levels", torch.stack([_kept_cells(c) for c in columns]))

    def forward(self, cells: Tensor) -> Tensor:
        own = (self._picked(cells).double()[..., None] == self._levels).float()
        return torch.cat([own, 1 - own.sum(2, keepdim=True)], 2).flatten(1)


class _Levels(nn.Module):
    """The most probable levels of categories: (batch, width) -> (batch, n)."""

    _standing: Tensor
    _lost: Tensor | None
    _first: Tensor

    def __init__(self, inputs: Sequence[int], columns: Sequence[Column]) -> None:
        super().__init__()
        self._picked, self._width = Picked(inputs), columns[0].width
        standing = [_standing_cells(column) for column in columns]
        self.register_buffer("_standing", torch.cat(standing))
        # An input that no level stands behind is never the answer.
        lost = [[0.0] * len(c.kept) + [0.0 if c.pooled else -math.inf] for c in columns]
        self.register_buffer("_lost", torch.tensor(lost) if any(map(min, lost)) else None)
        self.register_buffer("_first", torch.arange(len(columns)) * self._width)

    def forward(self, x_hat: Tensor) -> Tensor:
        likely = self._picked(x_hat).unflatten(1, (len(self._first), self._width))
        if self._lost is not None:
            likely = likely + self._lost
        return self._standing[likely.argmax(2) + self._first]


class _Nothing(nn.Module):
    """Cells of ignored columns, which are missing."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def forward(self, x_hat: Tensor) -> Tensor:
        return x_hat.narrow(1, 0, 1).double().expand(-1, self._n) * torch.nan


_ENCODERS = {"number": _Scaled, "category": _OneHot, "histogram": _Weights}
_DECODERS = {"category": _Levels, "histogram": _Means}


def _form(column: Column) -> str:
    if column.kind == "category":
        return "category"
    return "histogram" if column.knots else "number"


def _groups(columns: Sequence[Column]) -> Iterable[tuple[list[int], list[int], list[Column]]]:
    """Give columns that are computed together: their positions, their inputs, and themselves.

    The cycles of timestamps are not part of it.
    """
    starts = _starts(columns)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, column in enumerate(columns):
        if column.width:
            form = _form(column)
            groups.setdefault((form, 1 if form == "number" else column.width), []).append(i)
    for (_, width), at in groups.items():
        inputs = [p for i in at for p in range(starts[i], starts[i] + width)]
        yield at, inputs, [columns[i] for i in at]


def _starts(columns: Sequence[Column]) -> list[int]:
    starts = [0]
    for column in columns:
        starts.append(starts[-1] + column.width)
    return starts


def order_of(places: Sequence[int]) -> Tensor | None:
    """Return where to find what belongs at 0, 1, ..., if what comes n-th belongs at `places[n]`.

    None where all is in order.
    """
    return _unless_identity(sorted(range(len(places)), key=places.__getitem__), len(places))


def _unless_identity(positions: Sequence[int], n: int) -> Tensor | None:
    return None if list(positions) == list(range(n)) else torch.tensor(positions)


def reordered(x: Tensor, order: Tensor | None) -> Tensor:
    """Return the columns in another order, if one is given."""
    return x if order is None else x.index_select(1, order)


def _numbers(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _flags(values: Iterable[bool]) -> Tensor | None:
    flags = torch.tensor(list(values))
    return flags if flags.any() else None


def _register_scale(module: nn.Module, columns: Sequence[Column]) -> None:
    """Keep what numbers are computed with: their scales, unless they all stay as they are."""
    center, scale = (_numbers(getattr(c, name) for c in columns) for name in ("center", "scale"))
    scaled = bool(center.any() or (scale != 1).any())
    module.register_buffer("_center", center if scaled else None)
    module.register_buffer("_scale", scale if scaled else None)
    module.register_buffer("_counts", _flags(c.kind == "count" for c in columns))
    module.register_buffer("_squashed", _flags(c.is_squashed for c in columns))
    module.register_buffer("_far", _numbers(c.far for c in columns))


def _register_knots(module: nn.Module, columns: Sequence[Column]) -> None:
    """Keep what histograms of equally many knots are computed with, per column and knot."""
    module.register_buffer("_center", _numbers(c.center for c in columns))
    module.register_buffer("_scale", _numbers(c.scale for c in columns))
    knots = [torch.from_numpy(c.scaled_knots) for c in columns]
    module.register_buffer("_knots", torch.stack(knots))
    module.register_buffer("_shares", torch.stack([_numbers(c.shares) for c in columns]))
    module.register_buffer("_share_scale", _numbers(c.share_scale for c in columns)[:, None])


def _kept_cells(column: Column) -> Tensor:
    """Return the cells that have an input of their own, `(k,)`."""
    if holds_text(column):
        return torch.arange(len(column.kept), dtype=torch.float64)
    return _numbers(float(column.levels[i]) for i in column.kept)


def _standing_cells(column: Column) -> Tensor:
    """Return what each input of a category stands for when cells come back, `(k + 1,)`."""
    positions = column.standing.tolist()
    if holds_text(column):
        return _numbers(positions)
    return _numbers(math.nan if i < 0 else float(column.levels[i]) for i in positions)
