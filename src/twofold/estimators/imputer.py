"""Imputation inside a scikit-learn pipeline."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from twofold.errors import OptionError
from twofold.estimators import fitting
from twofold.estimators.autoencoder import Autoencoder
from twofold.inference import sampling
from twofold.nn.corruption import Masking
from twofold.training.progress import shown

_NETWORKS = 3  # whose answers are averaged: a third takes half as much off as a second


def filling_autoencoder(random_state: int | None = None) -> Autoencoder:
    """Return the unfitted autoencoder that imputes best, as `Imputer` uses it.

    It learns what it is for: each row hides up to half of its cells, and the loss counts these
    alone. Numbers are histograms, for an imputed value is the mean of many possible values, and
    their density is seldom normal. The code is wide, since hidden cells cannot be copied. Of few
    rows it would learn cells by heart: the weights kept are those best on held-out rows. All that
    costs time: some two minutes on one core for 20,000 rows of 16 columns.

    Examples
    --------
    >>> filling_autoencoder(random_state=0).likelihood
    'histogram'
    """
    return Autoencoder(
        n_components=256,
        hidden_layers=(256, 256),
        activation="gelu",
        code_activation="gelu",
        likelihood="histogram",
        corruption=Masking(0.5, up_to=True, only_hidden=True),
        learning_rate=3e-3,
        batch_size=256,
        random_state=random_state,
    )


class Imputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills missing cells by what the rest of their row lets expect, as a step of a pipeline.

    Cells that are there stay as they are, and the result comes in the container and the types of
    X. Columns that the autoencoder ignores, such as those without any cell, keep their missing
    values.

    By default, five answers are mixed: the mean of three networks made for the purpose, a Gaussian
    copula of all columns, trees, trees of what a normal law leaves, and kernels. How much each
    counts in a column is settled by cells that were hidden on purpose, of rows that the member was
    not fitted to. With an `autoencoder`, `transform(X)` is its `impute(X)`.

    Parameters
    ----------
    autoencoder : Autoencoder or None, default=None
        What fills the cells alone; a clone of it is fitted. None is `filling_autoencoder()`
        together with the regressions.
    random_state : int, RandomState or None, default=None
        Seed of the default autoencoder.
    verbose : int, default=0
        1 shows progress: of the networks, and of what is fitted next to them.

    Attributes
    ----------
    autoencoder_ : Autoencoder
        The fitted clone.
    networks_ : list of Network
        Its network, and those of two more seeds, trained on the same rows. With an `autoencoder`,
        its network alone.
    regressions_ : Regressions or None
        What fills cells next to the networks, and `weights`, one row per column.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from twofold import Autoencoder, Imputer
    >>> x = np.linspace(-2, 2, 400)
    >>> X = np.column_stack([x, x**2, np.sin(x), np.cos(x)])
    >>> y = X.sum(axis=1)
    >>> X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    >>> ae = Autoencoder(n_components=1, hidden_layers=(16,), random_state=0)
    >>> model = make_pipeline(Imputer(ae), Ridge()).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """

    def __init__(
        self,
        autoencoder: Autoencoder | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.autoencoder = autoencoder
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a clone of the autoencoder to the rows of X, whose cells may be missing.

        Parameters
        ----------
        X : as in `Autoencoder.fit`
        y : ignored

        Raises
        ------
        OptionError
            If `autoencoder` is not one, or `random_state` not a seed.
        DataError
            If the rows cannot be used.
        """
        wanted = self.autoencoder
        if wanted is None:
            seed = int(sampling.random_state(self.random_state).randint(2**31 - 1))
            wanted = filling_autoencoder(random_state=seed)
        if not isinstance(wanted, Autoencoder):
            raise OptionError(f"Expected autoencoder to be an Autoencoder or None, got {wanted!r}.")
        with shown((), self.verbose) as callbacks:
            ae = self.autoencoder_ = clone(wanted).fit(X, callbacks=callbacks)
            self.networks_, self.regressions_ = [ae.network_], None
            if self.autoencoder is None:
                rows, data, rng = fitting.drawn_again(ae, X)
                self.networks_ += fitting.siblings(ae, data, _NETWORKS - 1, rng, callbacks)
                self.regressions_ = fitting.regressions(ae, self.networks_, rows, data, callbacks)
        self.n_features_in_ = self.autoencoder_.n_features_in_
        if hasattr(self.autoencoder_, "feature_names_in_"):
            self.feature_names_in_ = self.autoencoder_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit
        return self

    def transform(self, X: Any) -> Any:
        """Return X with its missing cells filled, in its own container and types."""
        check_is_fitted(self)
        ae, members = self.autoencoder_, (self.networks_, self.regressions_)
        (filled,) = fitting.filled(ae, X, lambda table: [fitting.mixed(ae, *members, table)])
        return filled

    def __sklearn_tags__(self) -> sklearn.utils.Tags:
        """Say that missing cells are welcome, and that numbers keep their type."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
