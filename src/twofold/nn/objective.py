"""How well the decoder's output explains the cells: one likelihood per column.

`LIKELIHOODS` is the one source of truth for what a likelihood is. Everything is in nats. The loss
that training lowers is the mean over all cells, so that a learning rate means the same for a table
of ten columns and for an image, and reads like the loss other libraries print. A missing cell is
NaN and weighs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.nn.row_density import RowDensity
from twofold.schema.column import FAR
from twofold.schema.schema import Schema

# Residuals smaller than this share of a column's spread are not told apart from rounding.
_LEAST_SCALE = 1e-3
# Degrees of freedom of the heavy-tailed density. Four is the least whole number with a finite
# fourth moment, and near what is found in real tables (Lange, Little and Taylor, 1989, section 5).
_FREEDOM = 4.0
_LEAST_SHARE = 1e-5  # of a knot that hardly any cell is at
_LARGEST_LOG_RATE = 20.0  # keeps exp from overflowing while training looks for its way
_DISPERSIONS = 1e-2, 1e4  # at the upper end the negative binomial is Poisson's distribution

Unit = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Likelihood:
    """A model of a cell, given numbers `theta` from the decoder, as many as the cell has inputs.

    `x` and `theta` are `(batch, inputs)`, for categories `(batch, columns, levels)` and for
    histograms `(batch, columns, knots)`. `spread` is what is learned per input, `unit` the centre
    and the scale of the column's inputs and, of a histogram, its knots in standard deviations,
    `spread` then being how many of those each knot stands for.

    Attributes
    ----------
    loss : callable
        `(theta, x, spread, unit)` to nats per input, the form that training lowers.
    mean : callable
        `(theta, unit)` to the expected input, what a reconstruction holds.
    log_prob : callable
        `(theta, x, spread, unit)` to log-density per input, in nats.
    draw : callable
        `(theta, spread, unit, generator)` to random inputs.
    fit : callable or None
        `(theta, x, seen, unit)` to the spread that explains the inputs that `seen` marks best.
    has_unit : bool
        Whether its densities are per unit of the column.
    link : str
        The activation that `mean` amounts to, for the layer table.
    """

    loss: Callable[[Tensor, Tensor, Tensor, Unit], Tensor]
    mean: Callable[[Tensor, Unit], Tensor]
    log_prob: Callable[[Tensor, Tensor, Tensor, Unit], Tensor]
    draw: Callable[[Tensor, Tensor, Unit, torch.Generator], Tensor]
    fit: Callable[[Tensor, Tensor, Tensor, Unit], Tensor] | None
    has_unit: bool
    link: str


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def _gaussian_loss(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # Minus the log-density of a unit normal, without the constant: half the squared error.
    return 0.5 * (x - theta) ** 2


def _gaussian_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    return -0.5 * ((x - theta) / spread) ** 2 - spread.log() - 0.5 * math.log(2 * math.pi)


def _gaussian_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    return theta + spread * _normal(theta, source)


def _gaussian_fit(theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
    squares = torch.where(seen, (x - theta) ** 2, 0.0).sum(0, dtype=torch.float64)
    return (squares / seen.sum(0).clamp_min(1)).sqrt().clamp_min(_LEAST_SCALE)


def _student_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # Lange, Little and Taylor, 1989, "Robust Statistical Modeling Using the t Distribution", eq. 1.
    nu = _FREEDOM
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    tail = torch.log1p(((x - theta) / spread) ** 2 / nu)
    return constant - spread.log() - (nu + 1) / 2 * tail


def _student_loss(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    return -_student_log_prob(theta, x, spread, unit)


def _student_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    half = torch.full_like(theta, _FREEDOM / 2)
    chi_square = 2 * torch._standard_gamma(half, generator=source)
    return theta + spread * _normal(theta, source) * (_FREEDOM / chi_square).sqrt()


def _student_fit(theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
    # Expectation-maximisation: far residuals weigh less (the same paper, section 3).
    squares = torch.where(seen, (x - theta) ** 2, 0.0).double()
    count = seen.sum(0).clamp_min(1)
    variance = (squares.sum(0) / count).clamp_min(_LEAST_SCALE**2)
    for _ in range(30):
        weight = (_FREEDOM + 1) / (_FREEDOM + squares / variance)
        variance = ((weight * squares).sum(0) / count).clamp_min(_LEAST_SCALE**2)
    return variance.sqrt()


def _bernoulli_loss(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # theta is the log-odds, so cells near 0 and 1 lose no digits.
    return F.binary_cross_entropy_with_logits(theta, x, reduction="none")


def _bernoulli_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # A whole number that no flag can be is less likely than either of those it can be.
    inside = x.clamp(0, 1)
    beyond = (x - inside).abs() * (1 + theta.abs())
    return -_bernoulli_loss(theta, inside, spread, unit) - beyond


def _bernoulli_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    chance = torch.rand(theta.shape, generator=source, dtype=theta.dtype)
    return (chance < torch.sigmoid(theta)).to(theta.dtype)


def _categorical_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    return x * F.log_softmax(theta, -1)


def _categorical_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    # The largest of log-probabilities plus Gumbel noise is a draw (Gumbel, 1954).
    chance = torch.rand(theta.shape, generator=source, dtype=theta.dtype).clamp_min(1e-20)
    best = (theta - (-chance.log()).log()).argmax(-1)
    return F.one_hot(best, theta.shape[-1]).to(theta.dtype)


def _logits(theta: Tensor, unit: Unit) -> Tensor:
    # The decoder says how a row differs from all rows.
    return theta + unit[0].clamp_min(_LEAST_SHARE).log()


def _as_weights(x: Tensor, unit: Unit) -> Tensor:
    return x * unit[1] + unit[0]


def _from_weights(weights: Tensor, unit: Unit) -> Tensor:
    return (weights - unit[0]) / unit[1]


def _histogram_loss(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # Cross-entropy takes all wrong knots for equally wrong. The squared error of the mean, in
    # standard deviations, tells near from far; the same probabilities are best for both.
    log_p, weights = F.log_softmax(_logits(theta, unit), -1), _as_weights(x, unit)
    off = ((log_p.exp() - weights) * unit[2]).sum(-1, keepdim=True)
    return weights * (off**2 - log_p)


def _histogram_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # A knot's probability lies under a hat, as wide as the way to both neighbours; the weights of a
    # cell are the hats' heights at it. So this is the log of a piecewise linear density that
    # integrates to 1, or of a probability where all values are knots (spread 0). Weights that add
    # up to more than 1 tell how far beyond the knots a cell lies: one nat per standard deviation.
    weights = _as_weights(x, unit)
    total = weights.sum(-1, keepdim=True).clamp_min(1)
    share = weights / total
    height = _logits(theta, unit).softmax(-1) / torch.where(spread > 0, spread, 1.0)
    beyond = torch.expm1((total - 1).clamp_max(80.0))
    return share * ((share * height).sum(-1, keepdim=True).clamp_min(1e-30).log() - beyond)


def _histogram_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    # A knot, then a place under its hat: how far on the way to a neighbour, and to which one.
    knot = _categorical_draw(_logits(theta, unit), spread, unit, source)
    chance = torch.rand((2, *theta.shape[:-1], 1), generator=source, dtype=theta.dtype)
    away = torch.where(spread > 0, knot, 0.0) * (1 - chance[0].sqrt())
    gaps = F.pad(unit[2].diff(dim=-1), (1, 1))
    left = gaps[..., :-1] > chance[1] * (gaps[..., :-1] + gaps[..., 1:])
    down, up = torch.where(left, away, 0.0), torch.where(left, 0.0, away)
    weights = knot - away + F.pad(down[..., 1:], (0, 1)) + F.pad(up[..., :-1], (1, 0))
    return _from_weights(weights, unit)


def _rate(theta: Tensor, unit: Unit) -> Tensor:
    return torch.exp((theta * unit[1] + unit[0]).clamp_max(_LARGEST_LOG_RATE))


def _count(x: Tensor, unit: Unit) -> Tensor:
    return torch.expm1(x * unit[1] + unit[0]).clamp_min(0)


def _below(x: Tensor, unit: Unit) -> Tensor:
    """Return how far a number is below 0, which no count can be: a nat for each."""
    return torch.expm1(-(x * unit[1] + unit[0]).clamp_max(0))


def _as_input(count: Tensor, unit: Unit) -> Tensor:
    return (torch.log1p(count) - unit[0]) / unit[1]


def _poisson_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    count, log_rate = _count(x, unit), (theta * unit[1] + unit[0]).clamp_max(_LARGEST_LOG_RATE)
    return count * log_rate - log_rate.exp() - torch.lgamma(count + 1) - _below(x, unit)


def _poisson_draw(theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator) -> Tensor:
    return _as_input(torch.poisson(_rate(theta, unit), generator=source), unit)


def _log_rising(r: Tensor, count: Tensor) -> Tensor:
    """Return log Gamma(r + count) - log Gamma(r), to the last digits of 32 bits.

    Where r is large both terms are, and their difference has lost its digits. There it is taken
    term by term in Stirling's series (Abramowitz and Stegun, 1964, 6.1.41).
    """
    z = r.clamp_min(10.0)
    rest = 1 / (12 * (z + count)) - 1 / (12 * z) - (1 / (z + count) ** 3 - 1 / z**3) / 360
    large = count * ((z + count).log() - 1) + (z - 0.5) * torch.log1p(count / z) + rest
    return torch.where(r > 10.0, large, torch.lgamma(r + count) - torch.lgamma(r))


def _negative_binomial_log_prob(theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
    # Mean m and variance m + m^2 / r; Hilbe, 2011, "Negative Binomial Regression", eq. 8.9 with
    # r = 1 / alpha.
    count, rate, r = _count(x, unit), _rate(theta, unit), spread
    ways = _log_rising(r, count) - torch.lgamma(count + 1)
    chance = count * (rate / (r + rate)).clamp_min(1e-30).log()
    return ways - r * torch.log1p(rate / r) + chance - _below(x, unit)


def _negative_binomial_draw(
    theta: Tensor, spread: Tensor, unit: Unit, source: torch.Generator
) -> Tensor:
    # A Poisson count whose rate is itself drawn from a gamma density (Hilbe, section 8.2).
    r = spread.expand_as(theta).contiguous()
    rate = _rate(theta, unit) * torch._standard_gamma(r, generator=source) / r
    return _as_input(torch.poisson(rate, generator=source), unit)


def _negative_binomial_fit(theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
    # By moments: the variance beyond Poisson's is m^2 / r.
    rate, count = _rate(theta, unit).double(), _count(x, unit).double()
    beyond = torch.where(seen, (count - rate) ** 2 - rate, 0.0).sum(0)
    squares = torch.where(seen, rate**2, 0.0).sum(0)
    least, most = _DISPERSIONS
    return torch.where(beyond > 0, squares / beyond.clamp_min(1e-12), most).clamp(least, most)


LIKELIHOODS: dict[str, Likelihood] = {
    "gaussian": Likelihood(
        _gaussian_loss,
        lambda theta, unit: theta,
        _gaussian_log_prob,
        _gaussian_draw,
        _gaussian_fit,
        True,
        "identity",
    ),
    "student_t": Likelihood(
        _student_loss,
        lambda theta, unit: theta,
        _student_log_prob,
        _student_draw,
        _student_fit,
        True,
        "identity",
    ),
    "bernoulli": Likelihood(
        _bernoulli_loss,
        lambda theta, unit: torch.sigmoid(theta),
        _bernoulli_log_prob,
        _bernoulli_draw,
        None,
        False,
        "sigmoid",
    ),
    "categorical": Likelihood(
        lambda theta, x, spread, unit: -_categorical_log_prob(theta, x, spread, unit),
        lambda theta, unit: theta.softmax(-1),
        _categorical_log_prob,
        _categorical_draw,
        None,
        False,
        "softmax",
    ),
    "histogram": Likelihood(
        _histogram_loss,
        lambda theta, unit: _from_weights(_logits(theta, unit).softmax(-1), unit),
        _histogram_log_prob,
        _histogram_draw,
        None,
        True,
        "softmax",
    ),
    "poisson": Likelihood(
        lambda theta, x, spread, unit: -_poisson_log_prob(theta, x, spread, unit),
        lambda theta, unit: _as_input(_rate(theta, unit), unit),
        _poisson_log_prob,
        _poisson_draw,
        None,
        False,
        "exp",
    ),
    "negative_binomial": Likelihood(
        lambda theta, x, spread, unit: -_negative_binomial_log_prob(theta, x, spread, unit),
        lambda theta, unit: _as_input(_rate(theta, unit), unit),
        _negative_binomial_log_prob,
        _negative_binomial_draw,
        _negative_binomial_fit,
        False,
        "exp",
    ),
}


class Objective(nn.Module):
    """What training lowers and what a row's score is made of: each column under its likelihood.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.
    adapts : bool
        The noise of Gaussian columns is learned even where all columns are Gaussian. A divergence
        beside them is weighed by it (Rybkin, Daniilidis and Levine, 2021, "Simple and Effective VAE
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
        names = [name for name, _ in self.groups]
        # Columns of one likelihood need no weighing against others.
        self.adapts = (
            adapts or len(set(names)) > 1 or not {"gaussian", "bernoulli"}.issuperset(names)
        )
        widths = torch.tensor([column.width for column in schema.columns])

        def per_input(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).repeat_interleave(widths)

        columns = schema.columns
        self.register_buffer("spread", torch.ones(schema.width))
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("typical", torch.zeros(self.n_columns))
        # How often reconstructions are put into a row's holes; `inference.calibrate` finds out.
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
        for name, inputs in self.groups:
            normal[inputs] = name in ("gaussian", "student_t")
        self.density = RowDensity(schema.width, normal.nonzero().squeeze(1).tolist())
        # Columns whose cells have a likelihood of their own beside the density.
        others = torch.ones(self.n_columns, dtype=torch.bool)
        others[owner[normal]] = False
        self.register_buffer("_others", others, persistent=False)

    def loss(self, theta: Tensor, x: Tensor, penalties: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss per cell in nats, penalties included, which training lowers.

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
        for name, at in self.groups:
            loss = LIKELIHOODS[name].loss(theta[:, at], x[:, at], *self._about(at))
            if seen is not None:
                loss = torch.where(seen[:, at], loss, 0.0)
            if name == "gaussian" and self.adapts:
                known = loss.numel() if seen is None else seen[:, at].sum()
                total = total + loss.sum() / self.noise**2 + known * self.noise.log()
            else:
                total = total + loss.sum()
        return total

    def _input_losses(self, theta: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return what each input adds to the loss, in nats: (batch, width) twice -> same."""
        losses = torch.empty_like(theta)
        for name, at in self.groups:
            loss = LIKELIHOODS[name].loss(theta[:, at], x[:, at], *self._about(at))
            if name == "gaussian" and self.adapts:
                loss = loss / self.noise**2 + self.noise.log()
            losses[:, at] = loss
        return losses if seen is None else torch.where(seen, losses, 0.0)

    def n_cells(self, x: Tensor) -> int | Tensor:
        """Return how many cells there are in the rows `x`: what their loss is a mean over."""
        return self._n_cells(*observed(x))

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected inputs, `(batch, width)`: what a reconstruction holds."""
        if len(self.groups) == 1 and isinstance(self.groups[0][1], slice):
            name, at = self.groups[0]
            return LIKELIHOODS[name].mean(theta, self._about(at)[1])
        x_hat = torch.empty_like(theta)
        for name, at in self.groups:
            x_hat[:, at] = LIKELIHOODS[name].mean(theta[:, at], self._about(at)[1])
        return x_hat

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each cell's log-density in nats and in the column's own unit.

        (batch, width) twice -> (batch, n_columns). For a missing cell it is the column's mean over
        the training rows, so that rows with holes compare with rows without.
        """
        x, seen = observed(x)
        result = torch.empty_like(theta)
        for name, at in self.groups:
            result[:, at] = LIKELIHOODS[name].log_prob(theta[:, at], x[:, at], *self._about(at))
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
        for name, at in self.groups:
            spread, unit = self._about(at)
            center, scale, knots = (part.cpu() for part in unit)
            about = spread.cpu(), (center, scale, knots)
            x[:, at] = LIKELIHOODS[name].draw(said[:, at], *about, generator)
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
        return " | ".join(dict.fromkeys(LIKELIHOODS[name].link for name, _ in self.groups))

    @torch.no_grad()
    def fit_spread(self, theta: Tensor, x: Tensor) -> None:
        """Fit what is learned per column to training rows: (batch, width) twice.

        For a normal residual that is its standard deviation (maximum likelihood), for the others
        what their likelihoods say.
        """
        x, seen = observed(x)
        seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
        for name, at in self.groups:
            fit = LIKELIHOODS[name].fit
            if fit is not None:
                best = fit(theta[:, at], x[:, at], seen[:, at], self._about(at)[1])
                self.spread[at] = best.to(self.spread.dtype)

    @torch.no_grad()
    def adapt(self, theta: Tensor, x: Tensor) -> None:
        """Weigh likelihoods against each other as training rows say: (batch, width) twice.

        All Gaussian columns share one `noise` while training. So they keep the weights that squared
        error gives them among themselves, and weigh against others by information.
        """
        self.fit_spread(theta, x)
        normal = [at for name, at in self.groups if name == "gaussian"]
        if normal:
            self.noise.copy_((self.spread[normal[0]] ** 2).mean().sqrt().clamp_min(0.05))

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
    traced = torch.compiler.is_compiling()  # a graph serves rows with holes and without
    if not traced and not torch.isnan(x.sum()):  # one number tells it, and takes no memory
        return x, None
    missing = torch.isnan(x)
    if not traced and not missing.any():
        return x, None
    return torch.where(missing, 0.0, x), ~missing


def _groups(schema: Schema) -> list[tuple[str, slice | Tensor]]:
    """Return each likelihood's inputs; of categories and histograms one group per width.

    A slice stands for all inputs, so that nothing is gathered.
    """
    groups: list[tuple[str, slice | Tensor]] = []
    for name, positions in schema.likelihoods().items():
        spans = [schema.inputs[position] for position in positions]
        if name in ("categorical", "histogram"):
            by_width: dict[int, list[list[int]]] = {}
            for span in spans:
                by_width.setdefault(span.stop - span.start, []).append(
                    list(range(span.start, span.stop))
                )
            groups += [(name, torch.tensor(rows)) for rows in by_width.values()]
            continue
        inputs = [i for span in spans for i in range(span.start, span.stop)]
        whole = len(inputs) == schema.width
        groups.append((name, slice(None) if whole else torch.tensor(inputs)))
    return groups
