"""How usual a row's levels are: each given that of the column that says most about it.

A code that copies a category explains every level of it, so a network's own likelihood does not see
that a town contradicts its port. And a rare level is not an anomaly as long as the rest of the
row goes with it. So a category or flag `a` counts log p(a | b), where `b` is the column with which
it shares the most information, and p is made of the training rows' counts. Summed over columns that
is a pseudo-likelihood (Besag, 1975, "Statistical Analysis of Non-Lattice Data", section 3) with one
neighbour each: columns that repeat each other count once, and the rarity of their level not at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from twofold.schema.schema import Schema

KNOTS = 8  # soft bins of a number that a level is seen given
_SMOOTHING = 1.0  # rows, with the column's own shares, that each level of the other column gets
_NUMBERS = ("real", "count", "time")
_ROUNDING = 1e-6  # of a number in 32 bits, about 16 times over


class LevelModel(nn.Module):
    """Log-probabilities of categories and flags, given one other column each.

    Parameters
    ----------
    schema : Schema
        Says which columns have levels.
    """

    _one_hots: Tensor
    _flags: Tensor
    _numbers: Tensor
    _first: Tensor
    _unit: Tensor
    _own: Tensor
    _inside: Tensor
    knots: Tensor
    table: Tensor
    marginal: Tensor
    source: Tensor
    partner: Tensor
    has_partner: Tensor
    typical: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        columns = list(enumerate(schema.columns))
        categories = [i for i, c in columns if c.kind == "category"]
        flags = [i for i, c in columns if c.kind == "binary" and c.width == 1]
        numbers = [i for i, c in columns if c.kind in _NUMBERS and c.width and not c.knots]
        if not categories:
            flags, numbers = [], []
        self.targets = (*categories, *flags)
        sizes = [schema.columns[i].width for i in categories]
        sizes += [2] * len(flags) + [KNOTS] * len(numbers)
        self._sizes, self._owners = sizes, [*categories, *flags, *numbers]
        self._starts = [sum(sizes[:j]) for j in range(len(sizes))]

        def fixed(name: str, values: list[int]) -> None:
            self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)

        spans = [schema.inputs[i] for i in categories]
        fixed("_one_hots", [at for span in spans for at in range(span.start, span.stop)])
        fixed("_flags", [schema.inputs[i].start for i in flags])
        fixed("_numbers", [schema.inputs[i].start for i in numbers])
        fixed("_first", [schema.inputs[i].start for i in self._owners])
        units = [(schema.columns[i].center, schema.columns[i].scale) for i in flags]
        self.register_buffer("_unit", torch.tensor(units).reshape(-1, 2), persistent=False)
        n, most = len(self.targets), max([0, *sizes[: len(self.targets)]])
        own = torch.zeros(n, most, dtype=torch.long)
        inside = torch.zeros(n, most)
        for j in range(n):
            own[j, : sizes[j]] = self._starts[j] + torch.arange(sizes[j])
            inside[j, : sizes[j]] = 1.0
        self.register_buffer("_own", own, persistent=False)
        self.register_buffer("_inside", inside, persistent=False)
        widest = max([0, *sizes])
        self.register_buffer("knots", torch.arange(float(KNOTS)).repeat(len(numbers), 1))
        self.register_buffer("table", torch.zeros(n, most, widest))
        self.register_buffer("marginal", torch.zeros(n, most))
        self.register_buffer("source", torch.zeros(n, widest, dtype=torch.long))
        self.register_buffer("partner", torch.zeros(n, dtype=torch.long))
        self.register_buffer("has_partner", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("typical", torch.zeros(n))

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return each level's log-probability in nats, (batch, width) -> (batch, n_targets).

        A missing one, which `seen` tells per input (None: there are none), counts what its column
        counts on average. Given a missing one, a level counts its share of all rows.
        """
        levels = self._levels(x)
        own = levels[:, self._own] * self._inside  # (batch, n_targets, levels)
        alone = (own * self.marginal).sum(2)
        given = torch.einsum("bnt,nts->bns", own, self.table)
        given = (given * levels[:, self.source]).sum(2)
        if seen is None:
            return torch.where(self.has_partner, given, alone)
        there = seen.index_select(1, self._first)
        known = self.has_partner & there.index_select(1, self.partner)
        cells = torch.where(known, given, alone)
        return torch.where(there[:, : len(self.targets)], cells, self.typical)

    @property
    def is_consistent(self) -> bool:
        """Whether what was loaded names columns and levels that there are, in order of knots."""
        within = (self.source >= 0) & (self.source < max(1, sum(self._sizes)))
        known = (self.partner >= 0) & (self.partner < max(1, len(self._sizes)))
        return bool(within.all() and known.all() and (self.knots.diff(dim=1) > 0).all())

    def _levels(self, x: Tensor) -> Tensor:
        """Return how much each level of each column is there: (batch, width) -> (batch, levels)."""
        parts = [x.index_select(1, self._one_hots)]
        if len(self._flags):
            share = x.index_select(1, self._flags) * self._unit[:, 1] + self._unit[:, 0]
            share = share.clamp(0, 1)
            parts.append(torch.stack([1 - share, share], 2).flatten(1))
        if len(self._numbers):
            cells = x.index_select(1, self._numbers)[..., None]
            gaps = self.knots.diff(dim=1)
            # A hat over each knot; those at the ends go on level.
            level = torch.ones_like(cells)
            up = torch.cat([level, (cells - self.knots[:, :-1]) / gaps], 2)
            down = torch.cat([(self.knots[:, 1:] - cells) / gaps, level], 2)
            parts.append(torch.minimum(up, down).clamp(0, 1).flatten(1))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def fit(self, x: Tensor, seen: Tensor | None) -> None:
        """Count the levels of training rows, (n_rows, width), and choose a column for each."""
        seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
        for j, at in enumerate(self._numbers.tolist()):
            self.knots[j] = _quantiles(x[seen[:, at], at])
        levels = self._levels(x).double()
        there = seen[:, self._first]
        for j in range(len(self.targets)):
            own = self._part(levels, j) * there[:, j, None]
            share = (own.sum(0) + 1e-3) / (own.sum() + 1e-3 * own.shape[1])
            self.marginal[j, : own.shape[1]] = share.log().to(self.marginal.dtype)
            best = 0.0
            self.has_partner[j] = False
            for k in range(len(self._sizes)):
                if k == j:
                    continue
                both = (there[:, j] & there[:, k])[:, None]
                counts = (own * both).T @ (self._part(levels, k) * both)
                if (gain := _information(counts)) > best:
                    best = gain
                    smooth = counts + _SMOOTHING * share[:, None]
                    table = (smooth / smooth.sum(0)).log()
                    n, m = table.shape
                    self.table[j].zero_()
                    self.table[j, :n, :m] = table.to(self.table.dtype)
                    self.source[j].zero_()
                    self.source[j, :m] = self._starts[k] + torch.arange(m, device=x.device)
                    self.partner[j], self.has_partner[j] = k, True
        cells = self(x, seen).double()
        own_there = there[:, : len(self.targets)]
        sums = torch.where(own_there, cells, 0.0).sum(0)
        self.typical.copy_(sums / own_there.sum(0).clamp_min(1))

    def _part(self, levels: Tensor, j: int) -> Tensor:
        return levels[:, self._starts[j] : self._starts[j] + self._sizes[j]]

    @torch.no_grad()
    def most_probable(self, x_hat: Tensor) -> Tensor:
        """Return the inputs with one level in each category and flag: the best, given the others'.

        Each in turn is the one that its own probability and that given the other column make most
        probable, (batch, width) -> (batch, width).
        """
        x = x_hat.clone()
        prior = self._levels(x_hat).clamp_min(1e-6).log()
        for given in (False, True):
            for j in range(len(self.targets)):
                score = self._part(prior, j)
                n = score.shape[1]
                if given and self.has_partner[j]:
                    other = self._levels(x)[:, self.source[j]]
                    score = score + other @ self.table[j, :n].T
                best = torch.nn.functional.one_hot(score.argmax(1), n).to(x.dtype)
                at = int(self._first[j])
                if j < len(self.targets) - len(self._flags):
                    x[:, at : at + n] = best
                else:
                    center, scale = self._unit[j - len(self.targets) + len(self._flags)]
                    x[:, at] = (best[:, 1] - center) / scale
        return x


def _quantiles(cells: Tensor) -> Tensor:
    """Return knots at quantiles of the cells, each above the one before in 32 bits too."""
    if len(cells) == 0:
        return torch.arange(float(KNOTS), device=cells.device)
    shares = torch.linspace(0, 1, KNOTS, dtype=torch.float64, device=cells.device)
    found = torch.quantile(cells[:100_000].double(), shares)
    least = _resolution(found)
    found = found[_far_from_next(found, least)]
    beyond = torch.arange(1, KNOTS + 1 - len(found), device=cells.device)
    return torch.cat([found, found[-1] + beyond * max(1.0, least)])


def _resolution(found: Tensor, relative: float = _ROUNDING) -> float:
    """Return how far numbers must be apart to differ by more than rounding."""
    return relative * (1 + float(found.abs().max()))


def _far_from_next(ordered: Tensor, least: float) -> Tensor:
    """Return which of rising numbers are more than `least` below the next; the last one is."""
    return torch.cat([ordered.diff() > least, ordered.new_ones(1, dtype=torch.bool)])


def _information(counts: Tensor) -> float:
    """Return the mutual information in nats that counts show beyond what randomness shows.

    Independent columns show (K - 1)(K' - 1) / 2n on average (Miller, 1955). What is less than three
    standard deviations more than that, in the chi-square law that 2n times it has, counts as none.
    """
    n = counts.sum()
    if n < 1:
        return 0.0
    share = counts / n
    rows, columns = share.sum(1, keepdim=True), share.sum(0, keepdim=True)
    ratio = share / (rows * columns).clamp_min(1e-300)
    found = torch.where(share > 0, share * ratio.clamp_min(1e-300).log(), 0.0).sum()
    used = (int((rows > 0).sum()) - 1) * (int((columns > 0).sum()) - 1)
    beyond = float(2 * n * found) - used
    return beyond / (2 * float(n)) if beyond > 3 * math.sqrt(2 * used) + 3 else 0.0


class Tempering(nn.Module):
    """Numbers on the scale of their own tails: the logarithm of the share of rows not above.

    In nats, densities of numbers can outweigh any level; on this scale they do not. Below all
    training rows it goes on like a logarithm. Each of the `n` numbers of a row has a scale, on
    which numbers that differ by less than `rounding`, of their size, are one.
    """

    at: Tensor
    log_share: Tensor

    def __init__(self, n: int = 1, n_knots: int = 33, rounding: float = _ROUNDING) -> None:
        super().__init__()
        self._rounding = rounding
        self.register_buffer("at", torch.arange(float(n_knots)).repeat(n, 1))
        self.register_buffer("log_share", torch.linspace(-1, 0, n_knots).repeat(n, 1))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the tempered numbers: (batch, n) -> (batch, n)."""
        gaps = self.at.diff(dim=1)
        slopes = self.log_share.diff(dim=1) / gaps
        steps = torch.minimum((numbers[..., None] - self.at[:, :-1]).clamp_min(0), gaps)
        below = (self.at[:, 0] - numbers).clamp_min(0) / (self.at[:, -1] - self.at[:, 0])
        return self.log_share[:, 0] + (steps * slopes).sum(2) - torch.log1p(KNOTS * below)

    @torch.no_grad()
    def fit(self, numbers: Tensor, seen: Tensor | None = None) -> None:
        """Take the shares from training rows, (n_rows, n); `seen` tells which numbers are there."""
        for j in range(len(self.at)):
            known = numbers[:, j] if seen is None else numbers[seen[:, j], j]
            if not len(known):
                continue
            ordered = known.double().sort().values
            n, n_knots = len(ordered), self.at.shape[1]
            shares = torch.logspace(0, 1, n_knots, base=1 / (n + 1), dtype=torch.float64).flip(0)
            found = torch.quantile(ordered[:: max(1, n // 100_000)], shares.clamp(0, 1).to(ordered))
            least = _resolution(found, self._rounding) + 1e-3 * float(found[-1] - found[0])
            # Where many rows are equal, their number is at the share of them all.
            last = _far_from_next(found, least)
            found, shares = found[last], shares[last]
            more = torch.arange(1, n_knots - len(found) + 1)
            self.at[j].copy_(torch.cat([found, found[-1] + least * more]))
            self.log_share[j].copy_(torch.cat([shares.log(), torch.zeros(len(more))]))
