"""Metrics in plain numpy, and PCA, the baseline that every stack has to beat."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twofold.errors import LosesToPCAWarning
from twofold.formatting import html_table, number, percent

Array = NDArray[Any]
_CHUNK_CELLS = 4_000_000  # keeps the temporary arrays of one pass near 64 MB
_LEAST_COMPARED = 10  # on fewer rows, which is better is within sampling error
_KEPT_WHOLE = 1e-4  # of the variance, lost
_LOSS_MARGIN = 0.01  # nats per cell: what 2 % of a number's squared error are
_PCA_MARGIN = 1.02  # a loss to PCA within 2 % on a few held-out rows is within sampling error
_ALIKE = 0.05  # R2 up to which a network gives little but the mean row
_EXACT_WIDTH = 2048  # above this many columns the covariance is too large to decompose
_EXACT_CELL_PRODUCTS = 2e11  # and above this much work PCA is fitted to a sample of the rows


def squared_error(x: ArrayLike, x_hat: ArrayLike) -> float:
    """Return the squared error summed over a row's columns, averaged over the rows.

    Missing cells, which are NaN, count nothing.

    Examples
    --------
    >>> squared_error([[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]])
    0.5
    """
    x, x_hat = np.asarray(x), np.asarray(x_hat)
    step = max(1, _CHUNK_CELLS // max(1, x.shape[1]))
    total = 0.0
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        total += float(np.nansum(np.subtract(x[rows], x_hat[rows], dtype=np.float64) ** 2))
    return total / len(x)


@dataclass(frozen=True)
class PCA:
    """Principal components of the training matrix: the closed-form linear code of the same size.

    `components` has orthonormal rows, `(n_components, width)`, or fewer where a wide table has
    fewer rows; `mean` is `(width,)`.
    """

    mean: Array
    components: Array

    def reconstruct(self, x: Array) -> Array:
        """Return the rows projected on the components, `(n_rows, width)`.

        A missing cell, which is NaN, stands at its mean.
        """
        centred = _centred(x, self.mean)
        return (centred @ self.components.T) @ self.components + self.mean


def n_components_for(x: Array, share: float) -> int:
    """Return how many principal components keep a share of the variance of `x`.

    Examples
    --------
    >>> n_components_for(np.diag([3.0, 2.0, 1.0]), 0.95)
    2
    """
    rows = _centred(x, np.nanmean(x, axis=0)).astype(np.float64)
    narrow = rows if rows.shape[0] < rows.shape[1] else rows.T
    variances = np.linalg.eigvalsh(narrow @ narrow.T)[::-1].clip(0)
    kept = np.cumsum(variances) / max(float(variances.sum()), 1e-30)
    return min(int(np.searchsorted(kept, share)) + 1, int(x.shape[1]))


def fit_pca(
    x: Array,
    n_components: int,
    random_state: np.random.RandomState,
    rows: NDArray[np.int64] | None = None,
) -> PCA:
    """Fit PCA to rows of `x`, `(n_rows, width)` (Pearson, 1901; Hotelling, 1933).

    Up to 2,048 columns the decomposition of the covariance is exact, and where the table is so
    large that this would take more than seconds it is that of a random sample of the rows. Wider
    tables use a randomised range finder with two power iterations (Halko, Martinsson and Tropp,
    2011, algorithm 4.4). `rows` are the positions of the rows to use; without it, all are.
    """
    width = x.shape[1]
    chosen = np.arange(len(x)) if rows is None else rows
    affordable = max(2 * width, int(_EXACT_CELL_PRODUCTS / (2 * width**2)), 1000)
    if width > _EXACT_WIDTH:
        affordable = 4000
    if len(chosen) > affordable:
        chosen = chosen[random_state.permutation(len(chosen))[:affordable]]
    parts = np.array_split(np.sort(chosen), math.ceil(len(chosen) * width / _CHUNK_CELLS))
    sums = np.sum([np.nansum(x[part], axis=0, dtype=np.float64) for part in parts], axis=0)
    known = np.sum([(~np.isnan(x[part])).sum(axis=0) for part in parts], axis=0)
    mean = sums / np.maximum(known, 1)
    short_mean = mean.astype(x.dtype)
    if width <= _EXACT_WIDTH:
        covariance = np.zeros((width, width))
        for part in parts:
            centred = _centred(x[part], short_mean)
            covariance += centred.T @ centred
        _, vectors = np.linalg.eigh(covariance)
        components = vectors[:, ::-1][:, :n_components].T
    else:
        centred = _centred(x[np.sort(chosen)], short_mean)
        components = _range_finder(centred, n_components, random_state)
    # A copy: NumPy leaves a negative stride to a length of 1, which PyTorch refuses.
    return PCA(short_mean, np.array(components, dtype=x.dtype, order="C"))


def _centred(x: Array, mean: Array) -> Array:
    """Return the rows around the mean, at which missing cells stand."""
    centred = x - mean
    centred[np.isnan(centred)] = 0
    return np.asarray(centred)


def _range_finder(centred: Array, k: int, random_state: np.random.RandomState) -> Array:
    n, width = centred.shape
    # No more directions than rows: n rows span no more.
    probe = random_state.standard_normal((width, min(k + 10, width, n))).astype(centred.dtype)
    for _ in range(2):
        probe, _ = np.linalg.qr(centred.T @ (centred @ probe))
    _, _, rows = np.linalg.svd(centred @ probe, full_matrices=False)
    return np.asarray(rows @ probe.T)[:k]


@dataclass(frozen=True)
class Comparison:
    """A network compared with PCA of the same code size, on the same rows.

    Squared errors are summed over columns and averaged over rows, in the network's units: [0, 1]
    for pixels and flags, standard deviations for real columns. `r2` is the share of the rows'
    variance that the reconstruction keeps. Where columns have several likelihoods, `loss` and
    `loss_pca` are in nats per cell, as training weighs them, and decide; elsewhere they are NaN.
    """

    n_components: int
    n_rows: int
    squared_error: float
    squared_error_pca: float
    r2: float
    r2_pca: float
    loss: float = math.nan
    loss_pca: float = math.nan

    def warn_if_worse(self) -> None:
        """Warn if PCA does better, beyond sampling error."""
        worse = self.squared_error > _PCA_MARGIN * self.squared_error_pca
        # Where both keep all there is, who is nearer is rounding and the length of training.
        matters = not self.r2 > 1 - _KEPT_WHOLE
        if not math.isnan(self.loss_pca):
            worse = not self.loss <= self.loss_pca + _LOSS_MARGIN
        if worse and matters and self.n_rows >= _LEAST_COMPARED:
            remedy = "Try more epochs, another learning_rate, or wider hidden_layers."
            if self.r2 < _ALIKE:
                remedy = (
                    "Reconstructions hardly depend on the row, which happens if the learning rate "
                    "is too high. Try a smaller learning_rate, then more epochs."
                )
            warnings.warn(
                f"PCA with as many components reconstructs these rows better ({self}). {remedy}",
                LosesToPCAWarning,
                stacklevel=4,
            )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Comparison:
        """Read back the fields, of which those that are not finite were written as text."""
        counts = (int(document[name]) for name in ("n_components", "n_rows"))
        names = ("squared_error", "squared_error_pca", "r2", "r2_pca")
        found = cls(*counts, *(float(document[name]) for name in names))
        own, pca = (float(document.get(name, "nan")) for name in ("loss", "loss_pca"))
        return found if math.isnan(pca) else replace(found, loss=own, loss_pca=pca)

    @property
    def ratio(self) -> float:
        """The network's error as a share of PCA's; below 1 the network is better."""
        if self.squared_error_pca == 0:
            return np.inf if self.squared_error else 1.0
        return self.squared_error / self.squared_error_pca

    def _repr_html_(self) -> str:
        rows = [
            ("network", number(self.squared_error, 4), percent(self.r2)),
            ("PCA", number(self.squared_error_pca, 4), percent(self.r2_pca)),
        ]
        note = f"{self.n_rows:,} rows, {self.n_components:,} components"
        return html_table(("", "squared error per row", "variance kept"), rows, (1, 2), note)

    def __str__(self) -> str:
        text = (
            f"squared error per row, {self.n_rows:,} rows, {self.n_components:,} components: "
            f"network {self.squared_error:.4g} (R2 {self.r2:.4f}), "
            f"PCA {self.squared_error_pca:.4g} (R2 {self.r2_pca:.4f})"
        )
        if math.isnan(self.loss_pca):
            return text
        return f"{text}; loss in nats per cell: network {self.loss:.4g}, PCA {self.loss_pca:.4g}"


def compare(x: Array, x_hat: Array, pca: PCA) -> Comparison:
    """Compare reconstructions `x_hat` of the rows `x`, both `(n_rows, width)`, with PCA's."""
    known = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    mean = np.nansum(x, axis=0, dtype=np.float64) / known
    variance = squared_error(x, np.broadcast_to(mean, x.shape))
    errors = squared_error(x, x_hat), squared_error(x, pca.reconstruct(x))
    r2, r2_pca = (1 - error / variance if variance else float("nan") for error in errors)
    return Comparison(len(pca.components), len(x), *errors, r2, r2_pca)


def by_rank(scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores that can be ordered: a row without one (NaN) ranks below all others.

    It lies so far out that its score cannot be computed.
    """
    scores = np.asarray(scores, dtype=np.float64)
    return np.where(np.isnan(scores), -np.inf, scores)


def is_anomaly(score: NDArray[Any], offset: float) -> NDArray[np.bool_]:
    """Return which rows score below the offset, or so far below that they have no score (NaN)."""
    return np.asarray(~(score - offset >= 0))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of rows and what follows from them.

    Attributes
    ----------
    score, p_value : float64 arrays of shape (n_rows,)
    is_anomaly : array of bool, (n_rows,)

    Examples
    --------
    >>> scores = Scores.of(np.array([0.5, np.nan, -7.0]), np.arange(9.0), 0.0)
    >>> scores.label.tolist(), scores.most_anomalous(2).tolist()
    ([1, -1, -1], [1, 2])
    """

    score: NDArray[Any]
    p_value: NDArray[np.float64]
    is_anomaly: NDArray[np.bool_]

    @classmethod
    def of(cls, score: NDArray[Any], calibration_scores: ArrayLike, offset: float) -> Scores:
        """Rank scores among those of the calibration rows; below `offset` is an anomaly."""
        p_value = conformal_pvalue(score, calibration_scores)
        return cls(score, p_value, is_anomaly(score, offset))

    @property
    def label(self) -> NDArray[np.int64]:
        """1 for normal rows and -1 for anomalies, `(n_rows,)`."""
        return np.where(self.is_anomaly, -1, 1)

    @property
    def anomalies(self) -> NDArray[np.int64]:
        """Row numbers of the anomalies, in the order of the rows."""
        return np.flatnonzero(self.is_anomaly)

    def most_anomalous(self, n: int | None = None) -> NDArray[np.int64]:
        """Return the numbers of the rows with the lowest scores, the lowest first."""
        return np.argsort(by_rank(self.score), kind="stable")[:n]


def conformal_pvalue(scores: ArrayLike, held_out: ArrayLike) -> NDArray[np.float64]:
    """Return, per score, how likely a row of the held-out rows' source scores as low, `(n_rows,)`.

    With n held-out scores it is (1 + how many are not higher) / (n + 1): a fresh row from the same
    source has a p-value of at most `alpha` with probability at most `alpha` (Vovk, Gammerman and
    Shafer, 2005, "Algorithmic Learning in a Random World", section 2). Held-out scores in order
    save sorting them.

    Examples
    --------
    >>> conformal_pvalue([0.5, 9.5, -7.0], range(9)).tolist()
    [0.2, 1.0, 0.1]
    """
    known = np.sort(np.asarray(held_out, dtype=np.float64))
    lower = np.searchsorted(known, by_rank(scores), side="right")
    return (1 + lower) / (len(known) + 1)


def conformal_offset(held_out: ArrayLike, alpha: float) -> float:
    """Return the score below which a normal row falls with probability at most `alpha`.

    With n held-out scores this is the k-th smallest, k = floor(alpha (n + 1)): a fresh row from the
    same source ranks below it with probability at most k / (n + 1) (Vovk, Gammerman and Shafer,
    2005, "Algorithmic Learning in a Random World", section 2). With fewer held-out rows than
    1 / alpha the smallest score is the best there is.

    Examples
    --------
    >>> conformal_offset(range(99), 0.05)
    4.0
    """
    scores = np.sort(np.asarray(held_out, dtype=np.float64))
    k = max(1, int(np.floor(alpha * (len(scores) + 1) + 1e-9)))
    return float(scores[k - 1])
