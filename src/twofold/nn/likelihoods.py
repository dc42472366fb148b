"""The likelihoods: how a cell is modelled, given the decoder's output for it.

`LIKELIHOODS` holds one record per likelihood, and nothing that depends on the likelihood is written
elsewhere: the loss, the mean, the log-density and the draw of cells, how cells are scaled for it
and which kinds it suits, where pretraining begins, and the residual of the fused training step.
`register_likelihood` adds another one. Everything is in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import registry
from twofold.errors import OptionError
from twofold.registry import Registry
from twofold.schema.column import Column

# Residuals smaller than this share of a column's spread are rounding.
_LEAST_SCALE = 1e-3
# Degrees of freedom of the heavy-tailed density. Four is the least whole number with a finite
# fourth moment, and near what is found in real tables (Lange, Little and Taylor, 1989, section 5).
_FREEDOM = 4.0
_LEAST_SHARE = 1e-5  # of a knot that hardly any cell is at
_LARGEST_LOG_RATE = 20.0  # keeps exp from overflowing early in training
_DISPERSIONS = 1e-2, 1e4  # at the upper end the negative binomial is Poisson's distribution
_DAMPING = 0.1  # added to a cell's variance, so that rare flags do not outweigh all others
_FACTORS = 32  # probabilities that are multiplied before one logarithm is taken

Unit = tuple[Tensor, Tensor, Tensor]
Range = tuple[float | None, float | None]


class Likelihood(ABC):
    """A model of a cell, given numbers `theta` from the decoder, as many as the cell has inputs.

    `x` and `theta` are `(batch, inputs)`; for likelihoods that model a column's inputs jointly,
    `(batch, columns, inputs)`. `spread` is what is learned per input, `unit` the centre and the
    scale of the column's inputs and, of a histogram, its knots in standard deviations, `spread`
    then being how many of those each knot stands for. An export to ONNX traces `mean` and
    `log_prob`, so these are made of PyTorch's operations and do not look at values.

    Attributes
    ----------
    kinds : tuple of str
        The kinds of columns that it can model.
    default_for : tuple of str
        The kinds that it models by default.
    cells : "numbers", "shares", "knots" or "levels"
        What the network sees of a cell: a number, standardised (the logarithm of a count); a number
        between 0 and 1; the weights of a histogram's knots; or one input per level of a category.
        Knots and levels are modelled jointly.
    link : str
        The activation that `mean` amounts to, for the layer table.
    has_unit : bool
        If its densities are per unit of the column.
    is_fixed : bool
        If a table of such columns alone is trained with nothing learned but the weights.
    shares_noise : bool
        If its columns share one learned variance while training together with other likelihoods.
    in_row_density : bool
        If its residuals are part of the density of rows, in place of `log_prob`.
    is_fused : bool
        If it has a `residual`, which the fused training step uses.
    mean_is_theta : bool
        If `mean` returns `theta` itself.
    has_gain : bool
        If `theta` changes more or less than `slope` says farther from the column's mean.
    is_clipped : bool
        If a single cell's gradient can be so large that gradients are clipped.
    kernel : int or None
        Its number in the native training step; without one, that step is not used.
    """

    kinds: tuple[str, ...] = ("real", "time")
    default_for: tuple[str, ...] = ()
    cells: str = "numbers"
    link: str = "identity"
    has_unit: bool = False
    is_fixed: bool = False
    shares_noise: bool = False
    in_row_density: bool = False
    is_fused: bool = False
    mean_is_theta: bool = False
    has_gain: bool = False
    is_clipped: bool = False
    kernel: int | None = None

    def __init_subclass__(cls) -> None:
        """Leave the native step to the class that names its kernel: a subclass may differ."""
        super().__init_subclass__()
        if "kernel" not in vars(cls):
            cls.kernel = None

    @property
    def is_joint(self) -> bool:
        """Whether a column's inputs are modelled jointly."""
        return self.cells in ("knots", "levels")

    @property
    def learns_spread(self) -> bool:
        """Whether a spread is learned."""
        return type(self).fit_spread is not Likelihood.fit_spread

    @abstractmethod
    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the expected inputs, what a reconstruction holds."""

    @abstractmethod
    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-density per input, in nats."""

    @abstractmethod
    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return random inputs."""

    def loss(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return nats per input in the form that training minimises."""
        return -self.log_prob(theta, x, spread, unit)

    def fit_spread(self, theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor | None:
        """Return the spread that explains the inputs in `seen` best; None if none is learned."""
        return None

    def cell_range(self, column: Column) -> Range:
        """Return the least and the greatest cell that it can model; None without such a limit."""
        return None, None

    def theta_at(self, mean: Tensor) -> Tensor:
        """Return the theta at which cells have this mean, where pretraining by PCA begins."""
        return mean

    def slope(self, mean: Tensor, share: Tensor, scale: Tensor) -> Tensor:
        """Return how theta changes with the mean, near the mean of the column."""
        return torch.ones_like(mean)

    def kernel_terms(self, spread: Tensor, unit: Unit) -> tuple[Tensor, Tensor, Tensor]:
        """Return what its kernel takes per input besides `theta`, `x`, the centre and the scale.

        That is a number of its own, what is added to `theta`, and what is added to the loss.
        """
        zeros = torch.zeros_like(spread)
        return zeros, zeros, zeros

    def residual(self, theta: Tensor, x: Tensor, scratch: Scratch) -> Tensor:
        """Turn `theta` into its gradient in place and return the summed loss.

        All are flat, except for likelihoods that model a column's inputs jointly.
        """
        raise OptionError(
            f"Expected {type(self).__name__} to have the method residual, got a likelihood without "
            f"it. Define it, or leave is_fused out."
        )


class Scratch:
    """Memory for one number per cell of `x`, flat, and constants where the cells are."""

    def __init__(self, x: Tensor) -> None:
        # What follows the cells stays 1, and fills the last products up.
        self.factors = x.new_ones(_FACTORS, math.ceil(x.numel() / _FACTORS))
        self.cells = self.factors.view(-1)[: x.numel()]
        self.zero, self.one = x.new_zeros(()), x.new_ones(())


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


class Gaussian(Likelihood):
    """A normal density; its loss is half the squared error."""

    kinds = ("real", "time", "binary", "pixel")
    default_for = ("real", "time", "binary")
    has_unit = is_fixed = shares_noise = in_row_density = is_fused = mean_is_theta = True
    kernel = 0

    def loss(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return minus the log-density of a unit normal, without the constant."""
        return 0.5 * (x - theta) ** 2

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return theta."""
        return theta

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-density of a normal."""
        return -0.5 * ((x - theta) / spread) ** 2 - spread.log() - 0.5 * math.log(2 * math.pi)

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return draws from the normal."""
        return theta + spread * _normal(theta, generator)

    def fit_spread(self, theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
        """Return the residuals' standard deviations."""
        squares = torch.where(seen, (x - theta) ** 2, 0.0).sum(0, dtype=torch.float64)
        return (squares / seen.sum(0).clamp_min(1)).sqrt().clamp_min(_LEAST_SCALE)

    def residual(self, theta: Tensor, x: Tensor, scratch: Scratch) -> Tensor:
        """Turn theta into theta - x."""
        theta.sub_(x)
        return torch.dot(theta, theta).mul_(0.5)


class StudentT(Likelihood):
    """Student's t with 4 degrees of freedom: a normal with heavy tails."""

    kinds = ("real", "time", "binary", "pixel")
    has_unit = in_row_density = mean_is_theta = True
    kernel = 4

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return theta."""
        return theta

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-density of a t with scale `spread`.

        Lange, Little and Taylor, 1989, "Robust Statistical Modeling Using the t Distribution",
        eq. 1.
        """
        tail = torch.log1p(((x - theta) / spread) ** 2 / _FREEDOM)
        return -self._offset(spread) - (_FREEDOM + 1) / 2 * tail

    def kernel_terms(self, spread: Tensor, unit: Unit) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scale, and what does not depend on the cell."""
        return spread, torch.zeros_like(spread), self._offset(spread)

    def _offset(self, spread: Tensor) -> Tensor:
        nu = _FREEDOM
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
        return spread.log() - constant

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return normal draws, each divided by the root of a chi-square one."""
        half = torch.full_like(theta, _FREEDOM / 2)
        chi_square = 2 * torch._standard_gamma(half, generator=generator)
        return theta + spread * _normal(theta, generator) * (_FREEDOM / chi_square).sqrt()

    def fit_spread(self, theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
        """Return the scales by expectation-maximisation: far residuals weigh less.

        The same paper, section 3.
        """
        squares = torch.where(seen, (x - theta) ** 2, 0.0).double()
        count = seen.sum(0).clamp_min(1)
        variance = (squares.sum(0) / count).clamp_min(_LEAST_SCALE**2)
        for _ in range(30):
            weight = (_FREEDOM + 1) / (_FREEDOM + squares / variance)
            variance = ((weight * squares).sum(0) / count).clamp_min(_LEAST_SCALE**2)
        return variance.sqrt()


class Bernoulli(Likelihood):
    """Binary cross-entropy on values between 0 and 1; theta is the log-odds."""

    kinds = ("binary", "pixel", "real")
    default_for = ("pixel",)
    cells, link = "shares", "sigmoid"
    is_fixed = is_fused = has_gain = True
    kernel = 1

    def loss(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the cross-entropy; from log-odds, cells near 0 and 1 lose no digits."""
        return F.binary_cross_entropy_with_logits(theta, x, reduction="none")

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the probability of 1."""
        return torch.sigmoid(theta)

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-probability; a number that no flag can be is less likely than either."""
        inside = x.clamp(0, 1)
        beyond = (x - inside).abs() * (1 + theta.abs())
        return -self.loss(theta, inside, spread, unit) - beyond

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return zeros and ones."""
        uniform = torch.rand(theta.shape, generator=generator, dtype=theta.dtype)
        return (uniform < torch.sigmoid(theta)).to(theta.dtype)

    def cell_range(self, column: Column) -> Range:
        """Return black and white, or 0 and 1."""
        return (0.0, column.scale) if column.kind != "binary" else (0.0, 1.0)

    def theta_at(self, mean: Tensor) -> Tensor:
        """Return the log-odds."""
        return mean.clamp(1e-3, 1 - 1e-3).logit()

    def slope(self, mean: Tensor, share: Tensor, scale: Tensor) -> Tensor:
        """Return one over the variance."""
        return 1 / (mean * (1 - mean) + _DAMPING)

    def residual(self, theta: Tensor, x: Tensor, scratch: Scratch) -> Tensor:
        """Turn theta into sigmoid(theta) - x.

        The loss log(1 + e^theta) - x theta is max(theta, 0) - x theta - log q, with
        q = sigmoid(|theta|). No q is below 1/2, so a product of 32 is far from underflow, and one
        logarithm does for all.
        """
        cells = scratch.cells
        linear = torch.maximum(theta, scratch.zero, out=cells).sum().sub_(torch.dot(theta, x))
        p = theta.sigmoid_()
        torch.maximum(p, torch.sub(scratch.one, p, out=cells), out=cells)
        p.sub_(x)
        return linear.sub_(scratch.factors.prod(0).log_().sum())


def _draw_level(theta: Tensor, generator: torch.Generator) -> Tensor:
    """Return one-hot draws: the largest log-probability plus Gumbel noise (Gumbel, 1954)."""
    uniform = torch.rand(theta.shape, generator=generator, dtype=theta.dtype).clamp_min(1e-20)
    best = (theta - (-uniform.log()).log()).argmax(-1)
    return F.one_hot(best, theta.shape[-1]).to(theta.dtype)


class Categorical(Likelihood):
    """Cross-entropy over the levels of a category."""

    kinds = default_for = ("category",)
    cells, link = "levels", "softmax"
    has_gain = is_fused = True
    kernel = 2

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the levels' probabilities."""
        return theta.softmax(-1)

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-probability of the level there is, and 0 for the others."""
        return x * F.log_softmax(theta, -1)

    def residual(self, theta: Tensor, x: Tensor, scratch: Scratch) -> Tensor:
        """Turn `theta` into its gradient in place and return the summed loss; 0 for no level."""
        log_p = F.log_softmax(theta, -1)
        loss = torch.dot(x.flatten(), log_p.flatten()).neg()
        torch.mul(log_p.exp_(), x.sum(-1, keepdim=True), out=theta).sub_(x)
        return loss

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return one-hot levels."""
        return _draw_level(theta, generator)

    def theta_at(self, mean: Tensor) -> Tensor:
        """Return the logarithms of the levels' shares."""
        return mean.clamp_min(1e-3).log()

    def slope(self, mean: Tensor, share: Tensor, scale: Tensor) -> Tensor:
        """Return one over the variance of each level's input."""
        return 1 / (mean * (1 - mean) + _DAMPING)


class Histogram(Likelihood):
    """A piecewise linear density over the knots of a number's axis.

    Theta says how a row's probabilities differ from the knots' shares in all rows.
    """

    kinds = ("real", "count")
    cells, link = "knots", "softmax"
    has_unit = has_gain = is_clipped = True
    kernel = 3

    def loss(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return cross-entropy plus the squared error of the mean, in standard deviations.

        Cross-entropy takes all wrong knots for equally wrong, and the squared error does not; the
        same probabilities are best for both.
        """
        log_p, weights = F.log_softmax(_logits(theta, unit), -1), _as_weights(x, unit)
        off = ((log_p.exp() - weights) * unit[2]).sum(-1, keepdim=True)
        return weights * (off**2 - log_p)

    def kernel_terms(self, spread: Tensor, unit: Unit) -> tuple[Tensor, Tensor, Tensor]:
        """Return the knots' places and the logarithms of their shares."""
        nothing = torch.zeros_like(spread)
        return unit[2], _logits(nothing, unit), nothing

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the knots' probabilities, scaled as weights are."""
        return _from_weights(_logits(theta, unit).softmax(-1), unit)

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log of a density that integrates to 1.

        A knot's probability lies under a hat, as wide as the way to both neighbours; the weights of
        a cell are the hats' heights at it. Where all values are knots (spread 0), it is the log of
        a probability. Weights that add up to more than 1 say how far beyond the knots a cell lies:
        one nat per standard deviation.
        """
        weights = _as_weights(x, unit)
        total = weights.sum(-1, keepdim=True).clamp_min(1)
        share = weights / total
        height = _logits(theta, unit).softmax(-1) / torch.where(spread > 0, spread, 1.0)
        beyond = torch.expm1((total - 1).clamp_max(80.0))
        return share * ((share * height).sum(-1, keepdim=True).clamp_min(1e-30).log() - beyond)

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Draw a knot, then a place under its hat: the way to a neighbour, and to which one."""
        knot = _draw_level(_logits(theta, unit), generator)
        shape = (2, *theta.shape[:-1], 1)
        uniform = torch.rand(shape, generator=generator, dtype=theta.dtype)
        away = torch.where(spread > 0, knot, 0.0) * (1 - uniform[0].sqrt())
        gaps = F.pad(unit[2].diff(dim=-1), (1, 1))
        left = gaps[..., :-1] > uniform[1] * (gaps[..., :-1] + gaps[..., 1:])
        down, up = torch.where(left, away, 0.0), torch.where(left, 0.0, away)
        weights = knot - away + F.pad(down[..., 1:], (0, 1)) + F.pad(up[..., :-1], (1, 0))
        return _from_weights(weights, unit)

    def cell_range(self, column: Column) -> Range:
        """Return the first and the last knot."""
        return column.knots[0], column.knots[-1]

    def theta_at(self, mean: Tensor) -> Tensor:
        """Return zeros: the shares in all rows."""
        return torch.zeros_like(mean)

    def slope(self, mean: Tensor, share: Tensor, scale: Tensor) -> Tensor:
        """Return one over the variance of each knot's weight, in its input's unit."""
        return scale / (share * (1 - share) + _DAMPING)


def _logits(theta: Tensor, unit: Unit) -> Tensor:
    return theta + unit[0].clamp_min(_LEAST_SHARE).log()


def _as_weights(x: Tensor, unit: Unit) -> Tensor:
    return x * unit[1] + unit[0]


def _from_weights(weights: Tensor, unit: Unit) -> Tensor:
    return (weights - unit[0]) / unit[1]


class Poisson(Likelihood):
    """Poisson counts; theta is the standardised logarithm of the rate."""

    kinds = ("count",)
    link = "exp"
    kernel = 5

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the rate, as an input."""
        return _as_input(_rate(theta, unit), unit)

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-probability of the count."""
        count, log_rate = _count(x, unit), (theta * unit[1] + unit[0]).clamp_max(_LARGEST_LOG_RATE)
        return count * log_rate - log_rate.exp() - torch.lgamma(count + 1) - _below(x, unit)

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return random counts, as inputs."""
        return _as_input(torch.poisson(_rate(theta, unit), generator=generator), unit)

    def cell_range(self, column: Column) -> Range:
        """Return 0 and no upper limit."""
        return 0.0, None


class NegativeBinomial(Likelihood):
    """Counts that vary more than Poisson's; the spread is their dispersion r.

    Mean m and variance m + m^2 / r (Hilbe, 2011, "Negative Binomial Regression", eq. 8.9 with
    r = 1 / alpha).
    """

    kinds = default_for = ("count",)
    link = "exp"
    kernel = 6

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        """Return the rate, as an input."""
        return _as_input(_rate(theta, unit), unit)

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        """Return the log-probability of the count."""
        count, rate, r = _count(x, unit), _rate(theta, unit), spread
        ways = _log_rising(r, count) - torch.lgamma(count + 1)
        share = count * (rate / (r + rate)).clamp_min(1e-30).log()
        return ways - r * torch.log1p(rate / r) + share - _below(x, unit)

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        """Return Poisson counts whose rates are drawn from a gamma density (Hilbe, section 8.2)."""
        r = spread.expand_as(theta).contiguous()
        rate = _rate(theta, unit) * torch._standard_gamma(r, generator=generator) / r
        return _as_input(torch.poisson(rate, generator=generator), unit)

    def kernel_terms(self, spread: Tensor, unit: Unit) -> tuple[Tensor, Tensor, Tensor]:
        """Return the dispersion."""
        nothing = torch.zeros_like(spread)
        return spread, nothing, nothing

    def fit_spread(self, theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
        """Return the dispersion by moments: the variance beyond Poisson's is m^2 / r."""
        rate, count = _rate(theta, unit).double(), _count(x, unit).double()
        beyond = torch.where(seen, (count - rate) ** 2 - rate, 0.0).sum(0)
        squares = torch.where(seen, rate**2, 0.0).sum(0)
        least, most = _DISPERSIONS
        return torch.where(beyond > 0, squares / beyond.clamp_min(1e-12), most).clamp(least, most)

    def cell_range(self, column: Column) -> Range:
        """Return 0 and no upper limit."""
        return 0.0, None


def _rate(theta: Tensor, unit: Unit) -> Tensor:
    return torch.exp((theta * unit[1] + unit[0]).clamp_max(_LARGEST_LOG_RATE))


def _count(x: Tensor, unit: Unit) -> Tensor:
    return torch.expm1(x * unit[1] + unit[0]).clamp_min(0)


def _below(x: Tensor, unit: Unit) -> Tensor:
    """Return how far a number is below 0, which no count can be: a nat for each."""
    return torch.expm1(-(x * unit[1] + unit[0]).clamp_max(0))


def _as_input(count: Tensor, unit: Unit) -> Tensor:
    return (torch.log1p(count) - unit[0]) / unit[1]


def _log_rising(r: Tensor, count: Tensor) -> Tensor:
    """Return log Gamma(r + count) - log Gamma(r), to the last digits of 32 bits.

    Where r is large both terms are, and their difference has lost its digits. There it is taken
    term by term in Stirling's series (Abramowitz and Stegun, 1964, 6.1.41).
    """
    z = r.clamp_min(10.0)
    rest = 1 / (12 * (z + count)) - 1 / (12 * z) - (1 / (z + count) ** 3 - 1 / z**3) / 360
    large = count * ((z + count).log() - 1) + (z - 0.5) * torch.log1p(count / z) + rest
    return torch.where(r > 10.0, large, torch.lgamma(r + count) - torch.lgamma(r))


LIKELIHOODS: Registry[Likelihood] = registry.LIKELIHOODS


def register_likelihood(name: str, likelihood: Likelihood) -> None:
    """Add a likelihood, which the option `likelihood` then knows by this name.

    A model that uses it can be loaded wherever it has been registered.

    Raises
    ------
    OptionError
        If the name is taken, or cannot be an option's value.
    """
    LIKELIHOODS.add(name, likelihood)


for _name, _record in {
    "gaussian": Gaussian(),
    "student_t": StudentT(),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
    "histogram": Histogram(),
    "poisson": Poisson(),
    "negative_binomial": NegativeBinomial(),
}.items():
    register_likelihood(_name, _record)
