"""What a fitted model does: codes, reconstructions, scores, reasons, fillings and new rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from twofold import metrics
from twofold.data import sources
from twofold.data.files import OpenFiles, in_parts, opened, together
from twofold.data.table import Table
from twofold.errors import DataError, OptionError
from twofold.estimators import reading
from twofold.inference import apply as inference
from twofold.inference import calibration, explain, neighbors, sampling
from twofold.inference import code_statistics as activity
from twofold.nn.bottleneck import OrderedCode, VariationalCode
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.persistence import model as modelfile
from twofold.schema import tensors
from twofold.schema.schema import Schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
Result = TypeVar("Result")


class FittedModel(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    OutlierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Every verb of a trained stack; `Autoencoder` adds the options and how it is trained."""

    network_: Network
    schema_: Schema
    history_: list[dict[str, float]]
    best_epoch_: int
    n_iter_: int
    offset_: float
    calibration_scores_: NDArray[np.float64]
    comparison_: metrics.Comparison
    pca_: metrics.PCA
    _objective: Objective
    _calibration: calibration.Calibration

    def transform(self, X: Any) -> Array:
        """Return the codes of the rows of X, `(n_rows, n_components)`."""
        X = self._open(X)
        if isinstance(X, OpenFiles):
            return self._by_parts(self.transform, X)
        table = self._read(X)
        return self._apply(inference.encode, table, self._n_features_out)

    def inverse_transform(self, X: Any) -> Any:
        """Return rows in the training table's units, shape and container for the codes X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_components)
            Codes; of an ordered code, also its first components alone.
        """
        check_is_fitted(self, "network_")
        given = sources.read(X)
        k, ordered = self._n_features_out, isinstance(self.network_.bottleneck, OrderedCode)
        if given.values.ndim != 2 or not (
            given.n_columns == k or (ordered and 0 < given.n_columns < k)
        ):
            raise DataError(
                f"Codes have {k} components{' or fewer' if ordered else ''}, and these have the "
                f"shape {tuple(given.values.shape)}."
            )
        given.check_finite()
        values = given.values.astype(inference.dtype_of(given), copy=False)
        x_hat = self._apply(
            inference.decode, np.pad(values, ((0, 0), (0, k - values.shape[1]))), self.schema_.width
        )
        return reading.give_back(self.schema_, x_hat, index=given.index)

    def reconstruct(self, X: Any) -> Any:
        """Return what the network makes of the rows of X, in their own units, shape and container.

        A cell is its expected value given the code, a category its most probable level. Frames keep
        their types, so whole numbers come back rounded; arrays come back as floating-point numbers.
        Columns that are ignored come back empty.
        """
        X = self._open(X)
        if isinstance(X, OpenFiles):
            return self._by_parts(self.reconstruct, X)
        table = self._read(X)
        return reading.give_back(
            self.schema_, self._apply(inference.reconstruct, table, self.schema_.width), table
        )

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of each row in nats, `(n_rows,)`: higher is more normal.

        It is the density of the expected row, which is what the decoder makes of the row's code,
        and of the cells around it, each under its column's likelihood; `twofold.nn.row_density` has
        the formula. A missing cell counts what its column's cells count on average, so that rows
        with different holes compare.
        """
        X = self._open(X)
        if isinstance(X, OpenFiles):
            return self._by_parts(self.score_samples, X)
        return self._apply(inference.log_density, self._read(X), 0)

    def log_likelihood(
        self,
        X: Any,
        n_samples: int = 50,
        random_state: int | np.random.RandomState | None = None,
    ) -> Array:
        """Return each row's log-density by importance weights, of a variational network.

        `score_samples` is the evidence lower bound; this is a tighter one, in the mean, the more
        codes are drawn for each row (Burda, Grosse and Salakhutdinov, 2016, theorem 1).

        Parameters
        ----------
        X : as in `fit`
        n_samples : int, default=50
            Codes drawn per row; figures in papers use 5,000.
        random_state : int, RandomState or None

        Raises
        ------
        OptionError
            Where the bottleneck is not variational, so that there is no posterior to draw from.
        """
        table = self._read(X)
        if not isinstance(self.network_.bottleneck, VariationalCode):
            raise OptionError(
                "log_likelihood draws codes about the encoder's output, and only a variational "
                "bottleneck says how far. Fit with bottleneck='variational', or use score_samples."
            )
        if n_samples < 1:
            raise OptionError(f"n_samples={n_samples} must be a whole number of at least 1.")
        generator = sampling.torch_generator(sampling.random_state(random_state))
        return self._apply(inference.importance_sampler(n_samples, generator), table, 0)

    def decision_function(self, X: Any) -> Array:
        """Return `score_samples(X) - offset_`: below 0 is an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return +1 for normal rows and -1 for anomalies, `(n_rows,)`."""
        return np.where(metrics.is_anomaly(self.score_samples(X), self.offset_), -1, 1)

    def anomaly_pvalue(self, X: Any) -> NDArray[np.float64]:
        """Return how likely a normal row is to be at least as odd as each row of X, `(n_rows,)`.

        The rows are ranked among the held-out ones: flagging rows with a p-value of at most 0.01
        flags a normal row with a probability of at most 1 % (Vovk, Gammerman and Shafer, 2005,
        section 2), provided that the held-out rows are like those to come. With n held-out rows the
        least p-value is 1 / (n + 1).
        """
        return metrics.conformal_pvalue(self.score_samples(X), self.calibration_scores_)

    def explain(self, X: Any) -> explain.Explanation:
        """Tell which columns make each row of X odd, and what was expected in their place.

        Returns
        -------
        Explanation
            With `observed`, `expected` and `contribution` per row and column, and `base` per row:
            `base + contribution.sum(axis=1)` is `-score_samples(X)` to rounding.

        Examples
        --------
        >>> import numpy as np
        >>> from twofold import Autoencoder
        >>> x = np.random.default_rng(0).normal(size=(500, 1))
        >>> X = np.hstack([x, x**2, np.sin(x), np.exp(x)])
        >>> ae = Autoencoder(random_state=0).fit(X)
        >>> X[7, 2] += 5
        >>> ae.explain(X[7:8]).top(0, 1)
        ['x2']
        """
        table = self._read(X)
        return explain.explain(self.network_, self._objective, self.schema_, table)

    def impute(
        self, X: Any, n_draws: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Any:
        """Fill the missing cells of X by what the rest of their row lets expect.

        Parameters
        ----------
        X : as in `fit`
            Rows with missing cells (NaN, None, empty).
        n_draws : int, default=1
            With 1, cells are filled by their best values. With more, a list of so many tables comes
            back, filled by random draws that differ as much as the cells are uncertain (multiple
            imputation; Rubin, 1987).
        random_state : int, RandomState or None
            Seed of the draws.

        Returns
        -------
        table, or list of tables
            In the container and the types of X; cells that were there are the same, bit by bit.
        """
        check_is_fitted(self, "network_")
        if n_draws < 1:
            raise OptionError(f"n_draws={n_draws} must be a whole number of at least 1.")
        source, rng = self._open(X), sampling.random_state(random_state)
        if isinstance(source, OpenFiles):
            drawn = self._parts(lambda part: self.impute(part, n_draws, rng), source)
            if n_draws == 1:
                return together(drawn)
            return [together(parts) for parts in zip(*drawn, strict=True)]
        table = self._read(source)
        generator = sampling.torch_generator(rng)
        tables = []
        for _ in range(n_draws):
            function = sampling.imputer(None if n_draws == 1 else generator)
            x = self._apply(function, table, self.schema_.width)
            tables.append(sources.fill(source, table, *self.schema_.cells(x, table)))
        return tables[0] if n_draws == 1 else tables

    def sample(self, n: int, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draw `n` new rows, in the training table's units, types and container.

        Codes are drawn from the density fitted to the codes of the training rows, cells from their
        likelihoods given the code, so categories are categories and counts are whole. Pixels are
        the means of theirs.
        """
        check_is_fitted(self, "network_")
        if n < 1:
            raise OptionError(f"n={n} rows cannot be drawn; ask for at least 1.")
        generator = sampling.torch_generator(sampling.random_state(random_state))
        return reading.give_back(
            self.schema_, sampling.sample(self.network_, self._objective, n, generator)
        )

    def interpolate(self, a: Any, b: Any, steps: int = 10) -> Any:
        """Return `steps` rows on the way from the row `a` to the row `b`, both ends included.

        The way is straight in the space of codes; `a` and `b` are tables of one row each.
        """
        ends = [self.transform(a), self.transform(b)]
        if steps < 2 or any(len(codes) != 1 for codes in ends):
            raise OptionError(
                f"interpolate goes from one row to another in at least 2 steps, and was given "
                f"{len(ends[0])} and {len(ends[1])} rows and {steps} steps."
            )
        way = np.linspace(0, 1, steps, dtype=ends[0].dtype)[:, None]
        return self.inverse_transform((1 - way) * ends[0] + way * ends[1])

    def traverse(
        self, row: Any, component: int, steps: int = 10, reach: float = 2.0
    ) -> tuple[Array, Any]:
        """Return what becomes of a row when one component of its code moves.

        Parameters
        ----------
        row : table of one row
            Where the traversal starts.
        component : int
            Which component moves, counted from 0.
        steps : int, default=10
        reach : float, default=2.0
            How far it goes to both sides of its mean, in standard deviations of training codes.

        Returns
        -------
        values : array of shape (steps,)
            What the component was set to.
        rows
            The decoded rows, in the training table's units, types and container.
        """
        code = self.transform(row)
        if len(code) != 1 or steps < 2:
            raise OptionError(
                f"traverse goes from one row in at least 2 steps, and was given {len(code)} rows "
                f"and {steps} steps."
            )
        if not 0 <= component < code.shape[1]:
            raise OptionError(f"There is no component {component}: codes have {code.shape[1]}.")
        mean, spread = sampling.code_moments(self.network_)
        way = mean[component] + reach * spread[component] * np.linspace(-1, 1, steps)
        values = way.astype(code.dtype)
        moved = np.repeat(code, steps, axis=0)
        moved[:, component] = values
        return values, self.inverse_transform(moved)

    def nearest(self, X: Any, among: Any, n: int = 5) -> tuple[Array, NDArray[np.int64]]:
        """Find the rows of `among` whose codes are nearest to those of the rows of X.

        Returns
        -------
        distances, positions : arrays of shape (n_rows, n)
            Euclidean distances between codes, and positions in `among`, nearest first.
        """
        return neighbors.nearest(self.transform(X), self.transform(among), n)

    def code_map(
        self,
        X: Any,
        method: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> Array:
        """Return a place in the plane for each row of X, `(n_rows, 2)`, by its code.

        Parameters
        ----------
        X : as in `fit`
        method : "auto", "codes", "pca" or "tsne", default="auto"
            "codes" takes codes of two components as they are, "pca" the plane of their largest
            variance, "tsne" keeps neighbours together (van der Maaten and Hinton, 2008) and takes
            a minute for 10,000 rows. "auto" is "codes" where there are two components, else "pca".
        random_state : int, RandomState or None
            Seed of "tsne".
        """
        rng = sampling.random_state(random_state)
        return neighbors.on_a_map(self.transform(X), method, rng)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples(X)`; grid search raises it."""
        return float(np.mean(self.score_samples(X)))

    def compare_pca(self, X: Any) -> metrics.Comparison:
        """Set the reconstructions of X beside those of PCA with a code of the same size."""
        matrix = self._matrix(self._read(X))[:].cpu().numpy()
        return calibration.compare(self.network_, self._objective, self.pca_, matrix)

    def summary(self) -> str:
        """Return the layer table: output widths, parameter counts, and who shares which matrix."""
        check_is_fitted(self, "network_")
        return self.network_.summary(self._objective.link)

    def plot_reconstructions(self, X: Any, n_rows: int = 10) -> Figure:
        """Draw the first rows of X over their reconstructions, as images or as profiles."""
        from twofold.report import plots

        first, schema = self._read(X).slice(slice(n_rows)), self.schema_
        x_hat = self._apply(inference.reconstruct, first, schema.width)
        pair = {"original": schema.to_matrix(first, np.float64), "reconstruction": x_hat}
        drawn = {title: schema.drawn(matrix) for title, matrix in pair.items()}
        return plots.rows(drawn, names=[schema.names[i] for i in schema.shown])

    def plot_codes(
        self,
        X: Any,
        color: Any = None,
        method: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> Figure:
        """Draw the rows of X on a map of their codes.

        `color` is a number or a word for each row, by default its score; `method` and
        `random_state` are those of `code_map`.
        """
        from twofold.report import plots

        table = self._read(X)
        rng = sampling.random_state(random_state)
        found = self._apply(inference.encode, table, self._n_features_out)
        if color is None:
            shades, title = self._apply(inference.log_density, table, 0), "score (nats)"
        else:
            shades, title = np.asarray(color), str(getattr(color, "name", None) or "")
        return plots.places(neighbors.on_a_map(found, method, rng), shades, title)

    def plot_traversals(
        self, row: Any, components: Sequence[int] | None = None, steps: int = 10
    ) -> Figure:
        """Draw what becomes of a row when each of some components moves; by default the first 5."""
        from twofold.report import plots

        chosen = range(min(5, self._n_features_out)) if components is None else components
        drawn = {}
        for component in chosen:
            moved = self._read(self.traverse(row, component, steps)[1])
            matrix = self.schema_.to_matrix(moved, np.float64)
            drawn[f"component {component}"] = self.schema_.drawn(matrix)
        return plots.rows(drawn, names=[self.schema_.names[i] for i in self.schema_.shown])

    def code_statistics(self, X: Any) -> activity.CodeStatistics:
        """Tell what each component of the code does over the rows of X.

        Returns
        -------
        CodeStatistics
            With `mean`, `std` and `active`, the share of rows in which a component is active, for
            a variational network `kl`, the nats that it tells, and `n_active`, how many are in use.

        Examples
        --------
        >>> import numpy as np
        >>> from twofold import Autoencoder, Sparse
        >>> X = np.random.default_rng(0).normal(size=(300, 8))
        >>> ae = Autoencoder(n_components=8, bottleneck=Sparse("topk", k=2), random_state=0)
        >>> float(ae.fit(X).code_statistics(X).active.sum())
        2.0
        """
        table = self._read(X)
        return activity.of_table(self.network_, self._objective, self.schema_, table)

    def plot_history(self) -> Figure:
        """Draw the loss per epoch on training and held-out rows."""
        from twofold.report import plots

        check_is_fitted(self, "network_")
        return plots.history({"": self.history_}, best_epoch=self.best_epoch_)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to the folder `path`, whole or not at all.

        Raises
        ------
        OutputExistsError
            Where `path` exists and `overwrite` is false.
        ModelFileError
            Where the folder cannot be written, for example because the disk is full.
        """
        check_is_fitted(self, "network_")
        parts = modelfile.Parts(
            options=self.get_params(deep=False),
            schema=self.schema_,
            feature_names=hasattr(self, "feature_names_in_"),
            network=self.network_,
            objective=self._objective,
            calibration=self._calibration,
            history=self.history_,
            best_epoch=self.best_epoch_,
        )
        modelfile.save(path, parts, overwrite)

    def __sklearn_tags__(self) -> sklearn.utils.Tags:
        """Say that 32-bit input gives 32-bit output, and that missing cells are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def reconstruction_r2_(self) -> float:
        """Share of the held-out rows' variance that reconstructions keep."""
        return self.comparison_.r2

    @property
    def explained_variance_ratio_(self) -> NDArray[np.float64]:
        """Share of the held-out rows' variance that each component of an ordered code adds."""
        ratio = self._calibration.explained_variance_ratio if self.__sklearn_is_fitted__() else None
        if ratio is None:
            raise AttributeError(
                "explained_variance_ratio_ belongs to fitted models whose components are ordered: "
                "fit with bottleneck='ordered'."
            )
        return ratio

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a trained network."""
        return hasattr(self, "network_")

    @property
    def _n_features_out(self) -> int:
        return self.network_.n_components

    def read(self, X: Any) -> Table:
        """Return the rows of any source as a table, checked against the training table."""
        return self._read(X)

    def _open(self, X: Any) -> Any:
        """Return rows in memory as they are, or the open files where they do not fit into it."""
        check_is_fitted(self, "network_")
        return opened(X, reading.names_of(self))

    def _parts(self, verb: Callable[[Any], Any], files: OpenFiles) -> list[Any]:
        return [result for _, result in in_parts(files, verb)]

    def _by_parts(self, verb: Callable[[Any], Result], files: OpenFiles) -> Result:
        """Apply a verb to rows that stay on disk, part by part, and return all it gives."""
        whole: Result = together(self._parts(verb, files))
        return whole

    def _read(self, X: Any, reset: bool = False) -> Table:
        """Read any source into a table, and check it against the training table."""
        if not reset:
            check_is_fitted(self, "network_")
        table = reading.table(self, X, reset)
        if not reset:
            self.schema_.require_types(table)
        return table

    def _matrix(self, table: Table) -> tensors.Rows:
        """Return what the network sees of a table, in its own precision and place."""
        parameter = next(self.network_.parameters())
        return tensors.encode(self.schema_, table, parameter.dtype, parameter.device)

    def _set_calibration(self, found: calibration.Calibration) -> None:
        self._calibration = found
        self.pca_, self.comparison_, self.offset_ = found.pca, found.comparison, found.offset
        self.calibration_scores_ = found.scores

    def _apply(self, function: inference.Function, x: Array | Table, width: int) -> Array:
        """Run a matrix or a table through `function`; the result has `width` columns, or none."""
        if isinstance(x, Table):
            return inference.apply_to_table(
                function, self.network_, self._objective, self.schema_, x, width
            )
        return inference.apply(function, self.network_, self._objective, x, width)
