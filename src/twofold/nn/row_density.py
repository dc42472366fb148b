r"""How likely a row is: the density that scores are made of, fitted after training.

A code's coordinates have no unit of their own, but what the decoder makes of it has: x_hat, the
expected row. So a row's density is that of its expected row and of its cells around it,

    p(x) = sum over c of  w_c  p_c(x_hat)  p_c(x | x_hat)

over clusters c: whole tables are seldom one cloud, and residuals are larger in some clusters than
in others. Within a cluster, x_hat and the residuals x - x_hat of Gaussian columns are normal with
diagonal covariances; cells of other likelihoods have their own, p(cell | x_hat).

Training rows may hold anomalies, so the mixture is fitted by concentration (Rousseeuw and Van
Driessen, 1999, "A Fast Algorithm for the Minimum Covariance Determinant Estimator", theorem 1;
for mixtures Neykov, Filzmoser, Dimova and Neytchev, 2007): each step leaves out the least likely
fifth of the rows. A cluster of fewer than one row in twenty loses its place, for it may be one of
anomalies, and no variance falls below a floor: what the network explains nearly exactly would
otherwise outshout all the rest. Half of the fits have a high floor, for columns that only seem
exact because they take few values, and half a low one, so that a small error is seen in a column
that the others settle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMPONENTS = 8
FLOORS = (0.3, 0.03, 0.3, 0.03)  # least variance of each fit, in units of the input's variance
LEAST_WEIGHT = 0.05
TRIMMED = 0.2
_KNEE = 3.0  # spreads beyond which a number grows like a logarithm
_STEPS, _BURN_IN = 30, 3
_LOG_2PI = math.log(2 * math.pi)
_LEAST_SHARE = 0.1  # of their likelihood's mean variance, that inputs which hardly vary are given


class RowDensity(nn.Module):
    """The density of rows as a network sees them: expected row and residuals, in clusters.

    The score is the mean log-density over a few fits from different starts, since which clusters
    are found is partly random.

    Parameters
    ----------
    width : int
        Number of the network's inputs.
    normal : sequence of int
        The inputs whose residuals are modelled; other cells bring a likelihood of their own.
    expected : sequence of int, optional
        The inputs whose expected values are modelled; by default all.
    """

    # Of the quadrature of explanations: kinks of relu and of far cells leave a rest below 1 %.
    n_nodes = 24
    center: Tensor
    unit: Tensor
    log_weight: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(
        self, width: int, normal: Sequence[int], expected: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self._normal = torch.tensor(list(normal), dtype=torch.long)
        every = torch.arange(width) if expected is None else torch.tensor(list(expected)).long()
        self._expected, self._n_expected = every, len(every)
        m = len(every) + len(self._normal)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("unit", torch.ones(width))
        self.register_buffer("log_weight", torch.full((len(FLOORS), COMPONENTS), -math.inf))
        self.register_buffer("mean", torch.zeros(len(FLOORS), COMPONENTS, m))
        self.register_buffer("variance", torch.ones(len(FLOORS), COMPONENTS, m))

    def log_prob(self, x_hat: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return each row's log-density in nats, without other cells: (batch, width) -> (batch,).

        A missing input, which `seen` tells (None: there are none), counts what such an input counts
        on average.
        """
        u, there = self._features(x_hat, x, seen)
        clusters = self.log_weight.flatten(), self.mean.flatten(0, 1), self.variance.flatten(0, 1)
        joint = _component_log_prob(u, there, *clusters)  # (batch, width) -> (batch, all clusters)
        fits: Tensor = joint.unflatten(1, self.log_weight.shape).logsumexp(2)
        return fits.mean(1)

    @property
    def is_consistent(self) -> bool:
        """Whether what was loaded can have been fitted: finite numbers can."""
        return True

    def settled(self, x_hat: Tensor) -> Tensor:
        """Return expected inputs as they are: none of them stands for one of several levels."""
        return x_hat

    def typical(self, x_hat: Tensor, x: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what expected inputs are in each row's cluster, and how far off theirs are.

        (batch, width) each -> the clusters' means and the surprise of `x_hat` next to them in nats,
        0 where it is as far off as its like are on average: (batch, width) twice.
        """
        u, there = self._features(x_hat, x, seen)
        width = x.shape[1]
        at = self._expected.to(x.device)
        middle = x_hat.new_zeros(len(x), self._n_expected)
        surprise = torch.zeros_like(middle)
        n = self._n_expected
        for log_weight, mean, variance in zip(
            self.log_weight, self.mean, self.variance, strict=True
        ):
            share = _component_log_prob(u, there, log_weight, mean, variance).softmax(1)
            near, spread = share @ mean[:, :n], share @ variance[:, :n]
            middle += near / len(self.mean)
            surprise += 0.5 * ((u[:, :n] - near) ** 2 / spread - 1).clamp_min(0) / len(self.mean)
        if n == width:
            return self.center + self.unit * _unsquash(middle), surprise
        found = self.center[at] + self.unit[at] * _unsquash(middle)
        none = torch.zeros_like(x_hat)
        return x_hat.index_copy(1, at, found), none.index_copy(1, at, surprise)

    def _features(
        self, x_hat: Tensor, x: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return expected inputs and residuals in their units, 1 where known (None: all are)."""
        at = self._normal.to(x.device)
        residual = _squash((x - x_hat).index_select(1, at) / self.unit[at])
        place = (x_hat - self.center) / self.unit
        if self._n_expected < x.shape[1]:
            place = place.index_select(1, self._expected.to(x.device))
        u = torch.cat([_squash(place), residual], 1)
        if seen is None:
            return u, None
        there = torch.cat([torch.ones_like(place), seen[:, at].to(u.dtype)], 1)
        return u, there

    @torch.no_grad()
    def fit(
        self,
        x_hat: Tensor,
        x: Tensor,
        seen: Tensor | None,
        groups: Sequence[slice | Tensor],
        generator: torch.Generator,
    ) -> None:
        """Fit the density to training rows, (n_rows, width) each.

        `groups` are inputs of one likelihood each: among them, an input that hardly varies is given
        a share of the others' variance.
        """
        count = torch.tensor(len(x)) if seen is None else seen.sum(0).clamp_min(1)
        mean = x.sum(0, dtype=torch.float64) / count.to(x.device)
        around = (x - mean) if seen is None else torch.where(seen, x - mean, 0.0)
        variance = (around**2).sum(0) / count.to(x.device)
        for at in groups:
            variance[at] = variance[at].clamp_min(_LEAST_SHARE * variance[at].mean()) + 1e-12
        self.center.copy_(mean)
        self.unit.copy_(variance.sqrt())
        if not self._n_expected:
            return
        u, there = self._features(x_hat, x, seen)
        found = _fit_mixtures(u, there, u.new_tensor(FLOORS), generator)
        for i, (weight, means, variances) in enumerate(zip(*found, strict=True)):
            used = weight.isfinite()
            k = int(used.sum())
            self.log_weight[i] = -math.inf
            self.log_weight[i, :k] = weight[used]
            self.mean[i, :k], self.variance[i, :k] = means[used], variances[used]


def _squash(u: Tensor) -> Tensor:
    """Return the numbers, beyond the knee their logarithms: a few wild cells then decide little."""
    beyond = (u.abs() - _KNEE).clamp_min(0)
    return u.sign() * (u.abs() - beyond + beyond.log1p())


def _unsquash(u: Tensor) -> Tensor:
    beyond = (u.abs() - _KNEE).clamp_min(0)
    return u.sign() * (u.abs() - beyond + beyond.expm1())


def _component_log_prob(
    u: Tensor,
    there: Tensor | None,
    log_weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    squares: Tensor | None = None,
) -> Tensor:
    """Return log w_c + log N(u; mean_c, variance_c): (n, m) -> (n, components).

    What is not known, where `there` is 0, counts what it counts on average within the cluster. If
    the caller has the squares of `u`, both are 0 there.
    """
    inverse = 1 / variance
    logs = variance.log() + _LOG_2PI
    if squares is None:
        u = u if there is None else u * there
        squares = u**2
    square = squares @ inverse.T
    square = square - u @ (2 * mean * inverse).T
    if there is None:
        return log_weight - 0.5 * (square + (mean**2 * inverse + logs).sum(1))
    square = square + there @ (mean**2 * inverse).T
    missing = (1 - there).sum(1, keepdim=True)
    return log_weight - 0.5 * (square + missing + logs.sum(1))


def _fit_mixtures(
    u: Tensor, there: Tensor | None, floors: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture for each floor by trimmed expectation-maximisation.

    They take their steps together, for what a step takes is the time to read `u`. Returns
    log-weights (fits, components), -inf for a component that lost its place, and means and
    variances (fits, components, m).
    """
    shape = len(floors), COMPONENTS
    labels = _k_means(u, len(floors), generator)
    share = F.one_hot(labels, COMPONENTS).to(u.dtype)
    u = u if there is None else u * there
    squares = u**2
    keep = torch.ones_like(share[..., 0])
    for step in range(_STEPS):
        kept = share * keep[..., None]
        n = kept.sum(0)
        large = n >= torch.clamp_min(LEAST_WEIGHT * n.sum(1, keepdim=True), 2.0)
        large |= ~large.any(1, keepdim=True) & (n == n.amax(1, keepdim=True))
        n = n * large
        kept = (kept * large).flatten(1).T
        counts = n.view(-1, 1) if there is None else kept @ there
        counts = counts.clamp_min(1e-6)
        mean = kept @ u / counts
        variance = (kept @ squares / counts - mean**2).clamp_min(0)
        variance = (variance.unflatten(0, shape) + floors[:, None, None]).flatten(0, 1)
        log_weight = (n / n.sum(1, keepdim=True)).log()
        joint = _component_log_prob(u, there, log_weight.flatten(), mean, variance, squares)
        joint = joint.unflatten(1, shape)
        total = joint.logsumexp(2)
        share = (joint - total[..., None]).exp()
        if step >= _BURN_IN:
            least = total.kthvalue(int(TRIMMED * (len(u) - 1)) + 1, dim=0).values
            keep = (total >= least).to(u.dtype)
    return log_weight, mean.unflatten(0, shape), variance.unflatten(0, shape)


def _k_means(u: Tensor, n_fits: int, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Return the rows' clusters from several starts: (n, m) -> (n, n_fits).

    k-means++ (Arthur and Vassilvitskii, 2007), then Lloyd's steps.
    """
    shape = n_fits, COMPONENTS
    centers = torch.cat([_spread_rows(u, generator) for _ in range(n_fits)])
    labels = torch.full((len(u), n_fits), -1, device=u.device)
    for _ in range(steps):
        distance = ((centers**2).sum(1) - u @ (2 * centers).T).unflatten(1, shape)
        before, labels = labels, distance.argmin(2)
        if torch.equal(before, labels):
            break
        members = F.one_hot(labels, COMPONENTS).to(u.dtype).flatten(1)
        n = members.sum(0)
        means = members.T @ u / n.clamp_min(1)[:, None]
        centers = torch.where(n[:, None] > 0, means, centers)
    return labels


def _spread_rows(u: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows that are drawn far from each other, as k-means++ starts."""
    device = u.device
    centers = u[torch.randint(len(u), (1,), generator=generator).to(device)]
    nearest = _squared_distance(u, centers)
    for _ in range(COMPONENTS - 1):
        weight = nearest.cpu() if float(nearest.sum()) > 0 else torch.ones(len(u))
        new = u[torch.multinomial(weight, 1, generator=generator).to(device)]
        centers = torch.cat([centers, new])
        nearest = torch.minimum(nearest, _squared_distance(u, new))
    return centers


def _squared_distance(u: Tensor, row: Tensor) -> Tensor:
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(u, row, compute_mode=exact).square().squeeze(1)
