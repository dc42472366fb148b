"""The estimator: scikit-learn's surface over the stack; every method delegates down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from twofold import (
    corruption,
    data,
    explain,
    fused,
    generate,
    inference,
    metrics,
    modelfile,
    options,
    reading,
    rollback,
    rows,
    training,
)
from twofold.corruption import Corruption
from twofold.errors import DataError, ModelFileError, OptionError
from twofold.network import Network, stack_shape
from twofold.objective import Objective
from twofold.options import option
from twofold.schema import Schema
from twofold.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
_ALPHA = 0.05  # contamination="auto": probability of flagging a normal row
_CALIBRATION_ROWS = 100_000  # rows enough for a threshold and a comparison


@dataclass(eq=False, repr=False, kw_only=True)
class Autoencoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    OutlierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A stacked autoencoder whose decoder reuses the encoder's weights, transposed.

    A symmetric stack of layers narrows a row to a short code, and the same matrices widen it back.
    One fitted object gives codes, reconstructions and anomaly scores.

    Parameters
    ----------
    n_components : int or None, default=None
        Size of the code; None is a quarter of the inputs, rounded up.
    hidden_layers : tuple of int or "halving", default="halving"
        Widths of the encoder's hidden layers, mirrored in the decoder. "halving" halves the width
        until the code.
    tied : bool, default=True
        The decoder reuses the encoder's weights, with biases of its own. Half the parameters.
    activation, code_activation : str, default="selu" and "identity"
        "identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid" or
        "softplus".
    kinds : "auto", name or mapping of column to name, default="auto"
        What columns are: "real", "count", "binary", "category", "pixel", "time", or "ignored" for
        one that is left out. "auto" decides from their types and cells; `schema_` says how.
    likelihood : "auto", name or mapping of column to name, default="auto"
        How cells are modelled: "gaussian" is squared error on standardised columns, "student_t" the
        same with heavy tails, "bernoulli" binary cross-entropy on values in [0, 1], "categorical"
        cross-entropy over levels, "histogram" cross-entropy over up to 16 knots on a number's axis;
        "poisson" and "negative_binomial" are for counts. "auto" decides per column from its kind.
    corruption : None, "masking", "swap", "gaussian", "salt-and-pepper" or object, default=None
        Noise on the inputs while training, whose clean cells the network has to give back; with its
        number as "masking:0.3", or an object such as `twofold.Masking(0.3)`.
    optimizer : "adam", "adamw" or "sgd", default="adam"
    learning_rate : float or "auto", default="auto"
        Step size; with the one-cycle schedule, its peak.
    momentum : float, default=0.0
        Share of the last update that is kept, with `optimizer="sgd"`.
    nesterov : bool, default=False
        Nesterov's momentum, with `optimizer="sgd"`.
    schedule : "one-cycle" or "constant", default="one-cycle"
    batch_size : int or "auto", default="auto"
        Rows per update.
    epochs : int or "auto", default="auto"
        Passes over the training rows.
    weight_decay : float, default=0.0
        Pull of the weight matrices towards zero.
    validation_fraction : float, default=0.1
        Share of the rows held out for early stopping and calibration; at least 19 rows, or a
        quarter of a table too small for that, unless it is 0.
    patience : int or None, default=10
        Epochs without a better validation loss before training stops; the best weights are kept.
        None trains all epochs and keeps the last weights.
    contamination : float or "auto", default="auto"
        "auto" flags a normal row with probability at most 5 %, calibrated on the held-out rows (of
        tables under 76 rows, more: their held-out quarter is too small to set that threshold). A
        number in (0, 0.5] is the share of the training rows to flag.
    device : str, default="auto"
        "auto" takes a GPU where there is one.
    precision : "float32", "bfloat16", "float64" or "auto", default="float32"
        Number format while training. "bfloat16" multiplies with 8 significant bits and keeps the
        weights in float32; "auto" does so where the processor has the instructions and the batches
        are large enough.
    random_state : int, RandomState or None, default=None
        Seed; the same seed gives the same model. No global random state is touched.
    verbose : int, default=0
        1 shows training progress.

    Attributes
    ----------
    network_ : Network
        The trained PyTorch module.
    schema_ : Schema
        What each column is, and how it is scaled and modelled.
    history_ : list of dict
        Per epoch: `epoch`, `loss` and `validation_loss` (nats per cell), `learning_rate`,
        `seconds`.
    best_epoch_ : int
        Epoch whose weights were kept, counted from 1.
    n_iter_ : int
        Epochs run.
    offset_ : float
        Score below which a row is an anomaly, in nats.
    calibration_scores_ : array
        Scores of the held-out rows (of training rows where none were held out), in order: what
        `anomaly_pvalue` ranks a row among.
    comparison_ : Comparison
        The network beside PCA of the same code size on the held-out rows (on training rows where
        none were held out).
    reconstruction_r2_ : float
        Share of those rows' variance that reconstructions keep.
    pca_ : PCA
        The baseline of the same code size, fitted to the training rows.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    References
    ----------
    G. E. Hinton and R. R. Salakhutdinov, 2006, "Reducing the Dimensionality of Data with Neural
    Networks". P. Vincent et al., 2010, "Stacked Denoising Autoencoders", section 2 (tied weights).

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    >>> ae = Autoencoder(n_components=2, epochs=2, random_state=0).fit(X)
    >>> ae.transform(X).shape
    (200, 2)
    >>> ae.reconstruct(X).shape
    (200, 8)
    """

    if TYPE_CHECKING:
        # Only for the type checker: in a dataclass's body they would become options.
        network_: Network = field(init=False)
        schema_: Schema = field(init=False)
        history_: list[dict[str, float]] = field(init=False)
        best_epoch_: int = field(init=False)
        n_iter_: int = field(init=False)
        offset_: float = field(init=False)
        calibration_scores_: NDArray[np.float64] = field(init=False)
        comparison_: metrics.Comparison = field(init=False)
        pca_: metrics.PCA = field(init=False)
        _objective: Objective = field(init=False)
        _step: training.Step | None = field(init=False)
        _generator: torch.Generator = field(init=False)

    n_components: int | None = option("n_components")
    hidden_layers: str | tuple[int, ...] = option("hidden_layers")
    tied: bool = option("tied")
    activation: str = option("activation")
    code_activation: str = option("code_activation")
    kinds: str | Mapping[str, str] = option("kinds")
    likelihood: str | Mapping[str, str] = option("likelihood")
    corruption: Corruption | str | None = option("corruption")  # noqa: RUF009
    optimizer: str = option("optimizer")
    learning_rate: float | str = option("learning_rate")
    momentum: float = option("momentum")
    nesterov: bool = option("nesterov")
    schedule: str = option("schedule")
    batch_size: int | str = option("batch_size")
    epochs: int | str = option("epochs")
    weight_decay: float = option("weight_decay")
    validation_fraction: float = option("validation_fraction")
    patience: int | None = option("patience")
    contamination: float | str = option("contamination")
    device: str = option("device")
    precision: str = option("precision")
    random_state: int | np.random.RandomState | None = option("random_state")  # noqa: RUF009
    verbose: int = option("verbose")

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        on_event: training.OnEvent | None = None,
    ) -> Self:
        """Train on the rows of X.

        Parameters
        ----------
        X : array, images (n, height, width), data frame, tensor or path
            Rows to learn from.
        y : ignored
        validation_data : as X, optional
            Held-out rows, in place of `validation_fraction` of X.
        on_event : callable, optional
            Receives every `training.Event`, in place of what `verbose` shows.

        Raises
        ------
        OptionError
            Where an option means nothing; all such options are listed.
        DataError
            Where the rows cannot be used: infinite cells, columns that mix numbers and text, fewer
            than two rows, no column to learn from.
        DivergenceError
            Where the loss stops being a finite number.
        """
        options.check(self.get_params(deep=False))
        device = inference.find_device(self.device)
        with rollback.all_or_nothing(self):
            table = self._read(X, reset=True)
            rng = generate.random_state(self.random_state)
            self._build(table, rng, device)
            x = self._matrix(table)
            if validation_data is None:
                train, validation = training.split(x, rng, self.validation_fraction)
            else:
                train = torch.from_numpy(rng.permutation(len(x)))
                validation = self._matrix(self._read(validation_data))
            plan = training.Plan.resolve(self.get_params(deep=False), len(train), x.shape[1])
            complete = not rows.has_holes(x)
            self._step = self._make_step(plan, complete)
            history = self._train(plan, x, train, validation, on_event)
            self._calibrate(table, x, train, validation, rng)
        # Last, so that nothing is lost where warnings are turned into errors.
        history.warn_if_interrupted(plan)
        # Elsewhere, the squared error of clean rows is not what training lowers.
        if not self._objective.adapts and self.corruption is None:
            self.comparison_.warn_if_worse()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Pass once over the rows of X, going on from the weights there are.

        The first call infers the schema and makes the network and its optimizer, which then stay,
        whatever options are set later. Thresholds and densities are calibrated on the rows of the
        last call; a call that fails leaves the model as it was.
        """
        options.check(self.get_params(deep=False))
        first = not hasattr(self, "network_")
        with rollback.all_or_nothing(self):
            table = self._read(X, reset=first)
            rng = generate.random_state(self.random_state)
            if first:
                self._build(table, rng, inference.find_device(self.device))
            x = self._matrix(table)
            settings = {**self.get_params(deep=False), "epochs": 1, "schedule": "constant"}
            plan = training.Plan.resolve(settings, len(x), x.shape[1])
            complete = not rows.has_holes(x)
            step = getattr(self, "_step", None)
            if step is None or (isinstance(step, fused.FusedStep) and not complete):
                self._step = self._make_step(plan, complete)
            order = torch.from_numpy(rng.permutation(len(x)))
            history = self._train(plan, x, order, None, None)
            self._calibrate(table, x, order, None, rng)
        history.warn_if_interrupted(plan)
        return self

    def transform(self, X: Any) -> Array:
        """Return the codes of the rows of X, `(n_rows, n_components)`."""
        table = self._read(X)
        return self._apply(inference.encode, table, self._n_features_out)

    def inverse_transform(self, X: Any) -> Any:
        """Return rows in the training table's units, shape and container for the codes X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_components)
            Codes.
        """
        check_is_fitted(self, "network_")
        codes = data.read(X)
        if codes.values.ndim != 2 or codes.n_columns != self._n_features_out:
            raise DataError(
                f"Codes have {self._n_features_out} components, and these have the shape "
                f"{tuple(codes.values.shape)}."
            )
        codes.check_finite()
        x_hat = self._apply(
            inference.decode,
            codes.values.astype(inference.dtype_of(codes), copy=False),
            self.schema_.width,
        )
        return reading.give_back(self.schema_, x_hat, index=codes.index)

    def reconstruct(self, X: Any) -> Any:
        """Return what the network makes of the rows of X, in their own units, shape and container.

        A cell is its expected value given the code, a category its most probable level. Frames keep
        their types, so whole numbers come back rounded; arrays come back as floating-point numbers.
        Columns that are ignored come back empty.
        """
        table = self._read(X)
        return reading.give_back(
            self.schema_, self._apply(inference.reconstruct, table, self.schema_.width), table
        )

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of each row in nats, `(n_rows,)`: higher is more normal.

        It is the density of the expected row, which is what the decoder makes of the row's code,
        and of the cells around it, each under its column's likelihood; `twofold.density` has the
        formula. A missing cell counts what its column's cells count on average, so that rows with
        different holes compare.
        """
        return self._apply(inference.log_density, self._read(X), 0)

    def decision_function(self, X: Any) -> Array:
        """Return `score_samples(X) - offset_`: below 0 is an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return +1 for normal rows and -1 for anomalies, `(n_rows,)`."""
        # A row so far out that its score is no number is not normal either.
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit to X and label its rows: +1 for normal, -1 for anomalies."""
        return self.fit(X).predict(X)

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
        source = data.load(X, columns=getattr(self, "feature_names_in_", None))
        table = self._read(source)
        generator = generate.torch_generator(generate.random_state(random_state))
        tables = []
        for _ in range(n_draws):
            function = generate.imputer(None if n_draws == 1 else generator)
            x = self._apply(function, table, self.schema_.width)
            tables.append(data.fill(source, table, *self.schema_.cells(x, table)))
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
        generator = generate.torch_generator(generate.random_state(random_state))
        return reading.give_back(
            self.schema_, generate.sample(self.network_, self._objective, n, generator)
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

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples(X)`; grid search raises it."""
        return float(np.mean(self.score_samples(X)))

    def compare_pca(self, X: Any) -> metrics.Comparison:
        """Set the reconstructions of X beside those of PCA with a code of the same size."""
        table = self._read(X)
        return self._compare(self._matrix(table)[:].cpu().numpy())

    def summary(self) -> str:
        """Return the layer table: output widths, parameter counts, and who shares which matrix."""
        check_is_fitted(self, "network_")
        return self.network_.summary(self._objective.link)

    def plot_reconstructions(self, X: Any, n_rows: int = 10) -> Figure:
        """Draw the first rows of X over their reconstructions, as images or as profiles."""
        from twofold import figures

        first, schema = self._read(X).slice(slice(n_rows)), self.schema_
        x_hat = self._apply(inference.reconstruct, first, schema.width)
        pair = {"original": schema.to_matrix(first, np.float64), "reconstruction": x_hat}
        drawn = {title: schema.drawn(matrix) for title, matrix in pair.items()}
        return figures.rows(drawn, names=[schema.names[i] for i in schema.shown])

    def plot_history(self) -> Figure:
        """Draw the loss per epoch on training and held-out rows."""
        from twofold import figures

        check_is_fitted(self, "network_")
        return figures.history({"": self.history_}, best_epoch=self.best_epoch_)

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
            pca=self.pca_,
            comparison=self.comparison_,
            offset=self.offset_,
            calibration_scores=self.calibration_scores_,
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
    def _n_features_out(self) -> int:
        return self.network_.n_components

    def _read(self, X: Any, reset: bool = False) -> Table:
        """Read any source into a table, and check it against the training table."""
        if not reset:
            check_is_fitted(self, "network_")
        table = reading.table(self, X, reset)
        if not reset:
            self.schema_.require_types(table)
        return table

    def _matrix(self, table: Table) -> rows.Rows:
        """Return what the network sees of a table, in its own precision and place."""
        parameter = next(self.network_.parameters())
        return rows.encode(self.schema_, table, parameter.dtype, parameter.device)

    def _build(self, table: Table, rng: np.random.RandomState, device: torch.device) -> None:
        """Infer the schema, and make a network with fresh weights and its objective."""
        if table.n_rows < 2:
            raise DataError("Fitting needs at least 2 rows, and this table has n_samples = 1.")
        table.check_finite(missing=True)
        schema = Schema.infer(table, self.likelihood, self.kinds)
        hidden, n_components = stack_shape(
            schema.width, self.hidden_layers, self.n_components, self.corruption is not None
        )
        self.schema_ = schema
        self.history_, self.best_epoch_, self._step = [], 0, None
        self._generator = generate.torch_generator(rng)
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.network_ = Network(
            schema.width,
            hidden,
            n_components,
            tied=bool(self.tied),
            activation=self.activation,
            code_activation=self.code_activation,
            generator=self._generator,
        ).to(device=device, dtype=dtype)
        self._objective = Objective(schema).to(device=device, dtype=dtype)

    def _make_step(self, plan: training.Plan, complete: bool) -> training.Step:
        return fused.make_step(
            self.network_,
            self._objective,
            plan,
            complete=complete,
            corruption=corruption.resolve(self.corruption),
            generator=self._generator,
        )

    def _train(
        self,
        plan: training.Plan,
        x: rows.Rows,
        order: Tensor,
        validation: rows.Rows | None,
        on_event: training.OnEvent | None,
    ) -> training.History:
        if on_event is None and self.verbose:
            from twofold.progress import Progress

            with Progress() as progress:
                return self._train(plan, x, order, validation, progress)
        assert self._step is not None
        history = training.fit(
            self._step,
            self.network_,
            self._objective,
            plan,
            x,
            order,
            validation,
            self._generator,
            on_event,
        )
        past = len(self.history_)
        entries = [{**entry, "epoch": entry["epoch"] + past} for entry in history.epochs]
        self.history_ = self.history_ + entries
        self.best_epoch_, self.n_iter_ = past + history.best_epoch, max(1, len(self.history_))
        return history

    def _calibrate(
        self,
        table: Table,
        x: rows.Rows,
        train: Tensor,
        validation: rows.Rows | None,
        rng: np.random.RandomState,
    ) -> None:
        """Fit what scores need after training, set the offset, and compare with PCA."""
        inference.calibrate(self.network_, self._objective, x, train, self._generator)
        sample = train[:_CALIBRATION_ROWS]
        if isinstance(x, Tensor):
            matrix, used = x.cpu().numpy(), train.numpy()
        else:
            matrix, used = x[sample].cpu().numpy(), None
        self.pca_ = metrics.fit_pca(matrix, self._n_features_out, rng, rows=used)
        held = x[sample.to(x.device)] if validation is None else validation[:_CALIBRATION_ROWS]
        held_out = held.cpu().numpy()
        scores = self._apply(inference.log_density, held_out, 0)
        self.calibration_scores_ = np.sort(scores.astype(np.float64))
        if self.contamination == "auto":
            self.offset_ = metrics.conformal_offset(scores, _ALPHA)
        else:
            scores = self._apply(inference.log_density, table, 0)
            self.offset_ = float(np.percentile(scores, 100 * float(self.contamination)))
        self.comparison_ = self._compare(held_out)

    def _compare(self, x: Array) -> metrics.Comparison:
        x_hat = self._apply(inference.reconstruct, x, x.shape[1])
        return metrics.compare(x, x_hat, self.pca_)

    def _apply(self, function: inference.Function, x: Array | Table, width: int) -> Array:
        """Run a matrix or a table through `function`; the result has `width` columns, or none."""
        if isinstance(x, Table):
            return inference.apply_to_table(
                function, self.network_, self._objective, self.schema_, x, width
            )
        return inference.apply(function, self.network_, self._objective, x, width)

    @classmethod
    def _from_parts(cls, parts: modelfile.Parts) -> Self:
        """Put a fitted estimator together from what `save` wrote."""
        options.check(parts.options)
        ae = cls(**parts.options)
        ae.schema_, ae.network_, ae._objective = parts.schema, parts.network, parts.objective
        ae.pca_, ae.comparison_, ae.offset_ = parts.pca, parts.comparison, parts.offset
        ae.calibration_scores_ = parts.calibration_scores
        ae.n_features_in_ = len(ae.schema_.columns)
        if parts.feature_names:
            ae.feature_names_in_ = np.array(ae.schema_.names, dtype=object)
        ae.history_, ae.best_epoch_ = parts.history, parts.best_epoch
        ae.n_iter_ = max(1, len(ae.history_))
        ae._generator = torch.Generator().manual_seed(len(ae.history_))
        return ae


def load(path: str | os.PathLike[str]) -> Autoencoder:
    """Read a model that `Autoencoder.save` wrote; on any machine, without running code from it.

    Parameters
    ----------
    path : path-like
        The model's folder.

    Raises
    ------
    ModelFileError
        Where the folder is missing, cut off, altered, or written by a newer version.
    """
    try:
        return Autoencoder._from_parts(modelfile.load(path))
    except OptionError as error:
        raise ModelFileError(
            f"{path} does not fit together: {error} It was altered; copy the whole folder again, "
            f"or fit the model anew."
        ) from error
