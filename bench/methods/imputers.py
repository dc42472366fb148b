"""Imputers: `(X, seed) -> X` with its holes filled; X is a matrix or a data frame.

Methods that know numbers alone get a frame's text columns as one column of 0 and 1 per level.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.method import Method

Array = NDArray[Any]


def impute_with_twofold(X: Any, seed: int) -> Any:
    """What the bench means by imputing with twofold; the one place that says so."""
    from twofold import Imputer

    return Imputer(random_state=seed).fit_transform(X)


def plain_twofold(X: Any, seed: int) -> Any:
    """An autoencoder of default options, which was not made for filling holes."""
    from twofold import Autoencoder

    return Autoencoder(random_state=seed).fit(X).impute(X)


def column_mean(X: Any, seed: int) -> Array:
    x = numbers(X)
    return np.where(np.isnan(x), np.nanmean(x, axis=0), x)


def nearest_neighbours(X: Any, seed: int) -> Array:
    """Mean of the five nearest rows that have the cell, as scikit-learn's default is."""
    from sklearn.impute import KNNImputer

    return KNNImputer().fit_transform(numbers(X))


def bayesian_ridge(X: Any, seed: int) -> Array:
    """scikit-learn's counterpart of MICE, kept within each column's observed range."""
    from sklearn.linear_model import BayesianRidge

    return _iterative(numbers(X), BayesianRidge(), seed, max_iter=10)


def forest(X: Any, seed: int) -> Array:
    """Random forests column by column, four rounds.

    After Stekhoven and Bühlmann, 2012, "MissForest".
    """
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(n_estimators=30, n_jobs=1, random_state=seed)
    return _iterative(numbers(X), trees, seed, max_iter=4)


def _iterative(x: Array, estimator: Any, seed: int, max_iter: int) -> Array:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(
        estimator,
        max_iter=max_iter,
        random_state=seed,
        min_value=np.nanmin(x, axis=0),
        max_value=np.nanmax(x, axis=0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it would go on changing after so many rounds
        return imputer.fit_transform(x)


def numbers(X: Any) -> Array:
    """Return a frame as a matrix: its numbers first, in order, then its levels as 0 and 1."""
    if isinstance(X, np.ndarray):
        return X
    import pandas

    return pandas.get_dummies(X, dtype=float).to_numpy(dtype=np.float64)


IMPUTERS = {
    "twofold": Method(impute_with_twofold),
    "twofold, default Autoencoder": Method(plain_twofold),
    "column mean": Method(column_mean, "scikit-learn", (numbers,)),
    "nearest neighbours": Method(nearest_neighbours, "scikit-learn", (numbers,)),
    "IterativeImputer, BayesianRidge": Method(
        bayesian_ridge, "scikit-learn", (_iterative, numbers)
    ),
    "IterativeImputer, random forest": Method(forest, "scikit-learn", (_iterative, numbers)),
}
