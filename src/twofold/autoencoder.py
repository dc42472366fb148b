"""The estimator: scikit-learn's surface over the stack; every method delegates down."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
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
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from twofold import __version__, bundle, data, fused, inference, metrics, options, training
from twofold.errors import (
    DataError,
    InterruptedWarning,
    LosesToPCAWarning,
    ModelFileError,
)
from twofold.network import Network, stack_shape
from twofold.objective import Objective
from twofold.options import option
from twofold.schema import Schema, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
_ALPHA = 0.05  # contamination="auto": probability of flagging a normal row
_LEAST_HELD_OUT = 19  # 1 / _ALPHA - 1: with fewer, the lowest score is already too high a threshold
_CALIBRATION_ROWS = 100_000  # rows enough for a threshold and a comparison
_LEAST_COMPARED = 10  # on fewer rows, who does better is chance
_PCA_MARGIN = 1.02  # a loss to PCA within 2 % on a few held-out rows is chance


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
    likelihood : "auto", "gaussian", "bernoulli" or mapping of column to name, default="auto"
        How cells are modelled: "gaussian" is squared error on standardised columns, "bernoulli"
        binary cross-entropy on values in [0, 1]. "auto" decides per column; `schema_` says how.
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
    likelihood: str | Mapping[str, str] = option("likelihood")
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
            Where the rows cannot be used: text, missing or infinite cells, fewer than two rows.
        DivergenceError
            Where the loss stops being a finite number.
        """
        options.check(self.get_params(deep=False))
        device = inference.find_device(self.device)
        with self._all_or_nothing():
            table = self._read(X, reset=True)
            rng = _random_state(self.random_state)
            self._build(table, rng, device)
            x = self._matrix(table)
            if validation_data is None:
                train, validation = self._split(x, rng)
            else:
                train = torch.from_numpy(rng.permutation(len(x)))
                validation = self._matrix(self._read(validation_data))
            plan = training.Plan.resolve(self.get_params(deep=False), len(train), x.shape[1])
            self._step = fused.make_step(self.network_, self._objective, plan)
            history = self._train(plan, x, train, validation, on_event)
            self._calibrate(x, train, validation, rng)
        _warn_of_interruption(history, plan)
        _warn_of_loss_to_pca(self.comparison_)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Pass once over the rows of X, going on from the weights there are.

        The first call infers the schema and makes the network and its optimizer, which then stay,
        whatever options are set later. Thresholds and densities are calibrated on the rows of the
        last call; a call that fails leaves the model as it was.
        """
        options.check(self.get_params(deep=False))
        first = not hasattr(self, "network_")
        with self._all_or_nothing():
            table = self._read(X, reset=first)
            rng = _random_state(self.random_state)
            if first:
                self._build(table, rng, inference.find_device(self.device))
            x = self._matrix(table)
            settings = {**self.get_params(deep=False), "epochs": 1, "schedule": "constant"}
            plan = training.Plan.resolve(settings, len(x), x.shape[1])
            if getattr(self, "_step", None) is None:
                self._step = fused.make_step(self.network_, self._objective, plan)
            rows = torch.from_numpy(rng.permutation(len(x)))
            history = self._train(plan, x, rows, None, None)
            self._calibrate(x, rows, None, rng)
        _warn_of_interruption(history, plan)
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
        schema = self.schema_
        x_hat = self._apply(
            inference.decode,
            codes.values.astype(inference.dtype_of(codes), copy=False),
            schema.width,
        )
        rows = schema.from_matrix(x_hat)
        return data.give_back(rows, schema.container, schema.names, schema.row_shape, codes.index)

    def reconstruct(self, X: Any) -> Any:
        """Return what the network makes of the rows of X, in their own units, shape and container.

        The result holds floating-point numbers: the expected value of each cell given the code.
        """
        table = self._read(X)
        x_hat = self._apply(inference.reconstruct, table, self.schema_.width)
        names = table.names or self.schema_.names
        rows = self.schema_.from_matrix(x_hat)
        return data.give_back(rows, table.container, names, table.row_shape, table.index)

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of each row in nats, `(n_rows,)`: higher is more normal.

        It is log p(row given its code) + log p(code). Real columns have a normal density around
        the reconstruction with the spread seen in training; cells in [0, 1] have minus their
        cross-entropy; codes have one normal density.
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

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples(X)`; grid search raises it."""
        return float(np.mean(self.score_samples(X)))

    def compare_pca(self, X: Any) -> metrics.Comparison:
        """Set the reconstructions of X beside those of PCA with a code of the same size."""
        table = self._read(X)
        return self._compare(self._matrix(table).cpu().numpy())

    def summary(self) -> str:
        """Return the layer table: output widths, parameter counts, and who shares which matrix."""
        check_is_fitted(self, "network_")
        return self.network_.summary(self._objective.link)

    def plot_reconstructions(self, X: Any, n_rows: int = 10) -> Figure:
        """Draw the first rows of X over their reconstructions, as images or as profiles."""
        from twofold import figures

        table = self._read(X)
        first = Table(table.values[:n_rows], table.names, table.row_shape)
        x_hat = self.schema_.from_matrix(
            self._apply(inference.reconstruct, first, self.schema_.width)
        )
        pair = {"original": first.values, "reconstruction": self.schema_.from_matrix(x_hat)}
        shape = self.schema_.row_shape
        return figures.rows(
            {title: np.reshape(rows, (len(rows), *shape)) for title, rows in pair.items()},
            names=self.schema_.names,
        )

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
        tensors = {f"network.{k}": v for k, v in self.network_.state_dict().items()}
        tensors |= {f"objective.{k}": v for k, v in self._objective.state_dict().items()}
        tensors["pca.mean"] = torch.from_numpy(self.pca_.mean)
        tensors["pca.components"] = torch.from_numpy(self.pca_.components)
        bundle.write(path, tensors, self._document(), overwrite)

    def __sklearn_tags__(self) -> sklearn.utils.Tags:
        """Say that 32-bit input gives 32-bit output."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def reconstruction_r2_(self) -> float:
        """Share of the held-out rows' variance that reconstructions keep."""
        return self.comparison_.r2

    @property
    def _n_features_out(self) -> int:
        return self.network_.n_components

    @property
    def _in_64_bit(self) -> bool:
        return self.precision == "float64"

    @property
    def _device(self) -> torch.device:
        return next(self.network_.parameters()).device

    def _read(self, X: Any, reset: bool = False) -> Table:
        """Read any source into a table, and check it against the training table."""
        if not reset:
            check_is_fitted(self, "network_")
        names = None if reset else getattr(self, "feature_names_in_", None)
        source = data.load(X, columns=names)
        container = data.container_of(source)
        if container not in ("numpy", "torch"):
            self._validated(source, reset, skip_check_array=True)
            table = data.read(source)
            if table.n_rows == 0:
                raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")
            return table
        if container == "torch" or len(getattr(source, "shape", ())) > 2:
            table = data.read(source)
            checked = self._validated(table.values, reset, ensure_all_finite=False)
            return Table(checked, None, table.row_shape, table.container)
        if isinstance(source, np.ma.MaskedArray):
            # A masked cell is a missing one, and not the number that lies below the mask.
            source = np.ma.filled(source.astype(np.result_type(source, np.float32)), np.nan)
        if isinstance(source, np.ndarray | list | tuple):
            data.require_numbers(_array(source))
        checked = self._validated(source, reset, ensure_all_finite=False)
        return data.read(checked)

    def _validated(self, X: Any, reset: bool, **checks: bool) -> Any:
        try:
            return validate_data(self, X, reset=reset, **checks)
        except ValueError as error:
            raise DataError(str(error)) from error

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put everything back, weights included, where the body does not come to its end."""
        before = self.__dict__.copy()
        modules = [before[name] for name in ("network_", "_objective") if name in before]
        states = [deepcopy(module.state_dict()) for module in modules]
        try:
            yield
        except BaseException:
            for module, state in zip(modules, states, strict=True):
                module.load_state_dict(state)
            if "_step" in before:
                before["_step"] = None  # its memory of past gradients belongs to what was undone
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _matrix(self, table: Table) -> Tensor:
        """Return what the network sees of a whole table, in its own precision and place."""
        parameter = next(self.network_.parameters())
        dtype = np.float64 if parameter.dtype == torch.float64 else np.float32
        return inference.tensor(self.schema_.to_matrix(table, dtype)).to(parameter.device)

    def _build(self, table: Table, rng: np.random.RandomState, device: torch.device) -> None:
        """Infer the schema, and make a network with fresh weights and its objective."""
        if table.n_rows < 2:
            raise DataError("Fitting needs at least 2 rows, and this table has n_samples = 1.")
        table.check_finite()
        schema = Schema.infer(table, self.likelihood)
        hidden, n_components = stack_shape(schema.width, self.hidden_layers, self.n_components)
        self.schema_ = schema
        self.history_, self.best_epoch_, self._step = [], 0, None
        self._generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        dtype = torch.float64 if self._in_64_bit else torch.float32
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

    def _split(self, x: Tensor, rng: np.random.RandomState) -> tuple[Tensor, Tensor | None]:
        """Hold out a share of the rows: the positions to train on, and the held-out rows."""
        order = torch.from_numpy(rng.permutation(len(x)))
        if self.validation_fraction == 0 or len(x) < 10:
            return order, None
        # A threshold that 5 % of normal rows fall below takes 19 others, if not a quarter of all.
        n = max(round(self.validation_fraction * len(x)), min(_LEAST_HELD_OUT, len(x) // 4))
        n = min(n, len(x) - 2)
        return order[n:], x[order[:n].to(x.device)]

    def _train(
        self,
        plan: training.Plan,
        x: Tensor,
        rows: Tensor,
        validation: Tensor | None,
        on_event: training.OnEvent | None,
    ) -> training.History:
        if on_event is None and self.verbose:
            from twofold.progress import Progress

            with Progress() as progress:
                return self._train(plan, x, rows, validation, progress)
        assert self._step is not None
        history = training.fit(
            self._step,
            self.network_,
            self._objective,
            plan,
            x,
            rows,
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
        self, x: Tensor, train: Tensor, validation: Tensor | None, rng: np.random.RandomState
    ) -> None:
        """Fit what scores need after training, set the offset, and compare with PCA."""
        inference.calibrate(self.network_, self._objective, x, train)
        every = x.cpu().numpy()
        self.pca_ = metrics.fit_pca(every, self._n_features_out, rng, rows=train.numpy())
        sample = train[:_CALIBRATION_ROWS].to(x.device)
        held_out = (x[sample] if validation is None else validation).cpu().numpy()
        if self.contamination == "auto":
            scores = self._apply(inference.log_density, held_out, 0)
            self.offset_ = metrics.conformal_offset(scores, _ALPHA)
        else:
            scores = self._apply(inference.log_density, every, 0)
            self.offset_ = float(np.percentile(scores, 100 * float(self.contamination)))
        self.comparison_ = self._compare(held_out[:_CALIBRATION_ROWS])

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

    def _document(self) -> dict[str, Any]:
        shape = [pair.n_out for pair in self.network_.pairs]
        return {
            "options": {k: bundle.plain(v) for k, v in self.get_params(deep=False).items()},
            "schema": self.schema_.to_json(),
            "feature_names": hasattr(self, "feature_names_in_"),
            "network": {"hidden_layers": shape[:-1], "n_components": shape[-1]},
            "history": self.history_,
            "best_epoch": self.best_epoch_,
            "calibration": {"offset": bundle.number(self.offset_)},
            "comparison": {k: bundle.number(v) for k, v in asdict(self.comparison_).items()},
            "versions": {
                "twofold": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
            },
        }

    @classmethod
    def _from_parts(cls, tensors: dict[str, Tensor], document: dict[str, Any]) -> Self:
        """Put a fitted estimator together from what `save` wrote."""
        values = {**document["options"]}
        if isinstance(values.get("hidden_layers"), list):
            values["hidden_layers"] = tuple(values["hidden_layers"])
        options.check(values)
        ae = cls(**values)
        ae.schema_ = Schema.from_json(document["schema"])
        ae.n_features_in_ = len(ae.schema_.columns)
        if document["feature_names"]:
            ae.feature_names_in_ = np.array(ae.schema_.names, dtype=object)
        layout = document["network"]
        if f"network.levels.{len(layout['hidden_layers'])}.weight" not in tensors:
            raise ValueError("the layers in the document are not those of the weights")
        # Built without memory, then given the tensors: a hostile layout cannot claim more of it
        # than the file holds.
        with torch.device("meta"):
            ae.network_ = Network(
                ae.schema_.width,
                layout["hidden_layers"],
                layout["n_components"],
                tied=ae.tied,
                activation=ae.activation,
                code_activation=ae.code_activation,
            )
        ae.network_.load_state_dict(bundle.part(tensors, "network."), assign=True)
        dtype = torch.float64 if ae._in_64_bit else torch.float32
        ae.network_.to(dtype)
        ae._objective = Objective(ae.schema_).to(dtype)
        ae._objective.load_state_dict(bundle.part(tensors, "objective."))
        ae.pca_ = metrics.PCA(tensors["pca.mean"].numpy(), tensors["pca.components"].numpy())
        if ae.pca_.mean.shape + ae.pca_.components.shape[1:] != (ae.schema_.width,) * 2:
            raise ValueError("the PCA in it belongs to another table")
        ae.history_ = [bundle.numbers(entry) for entry in document["history"]]
        ae.best_epoch_ = int(document["best_epoch"])
        ae.n_iter_ = max(1, len(ae.history_))
        ae.offset_ = float(document["calibration"]["offset"])
        ae.comparison_ = metrics.Comparison.from_json(document["comparison"])
        ae._generator = torch.Generator().manual_seed(len(ae.history_))
        return ae


# Warnings come last in `fit`: where they are turned into errors, the fitted model is not lost.
def _warn_of_interruption(history: training.History, plan: training.Plan) -> None:
    if history.ended == "interrupted":
        warnings.warn(
            f"Training was interrupted after {len(history.epochs)} of {plan.epochs} epochs; the "
            f"model holds the best weights until then.",
            InterruptedWarning,
            stacklevel=3,
        )


def _warn_of_loss_to_pca(comparison: metrics.Comparison) -> None:
    if comparison.n_rows < _LEAST_COMPARED:
        return
    if comparison.squared_error > _PCA_MARGIN * comparison.squared_error_pca + 1e-9:
        warnings.warn(
            f"PCA with as many components reconstructs these rows better ({comparison}). Try "
            f"more epochs, another learning_rate, or wider hidden_layers.",
            LosesToPCAWarning,
            stacklevel=3,
        )


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
    tensors, document = bundle.read(path)
    try:
        return Autoencoder._from_parts(tensors, document)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise ModelFileError(
            f"{path} does not fit together: {type(error).__name__}: {error}. It was altered; copy "
            f"the whole folder again, or fit the model anew."
        ) from error


def _array(rows: Any) -> Array:
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise DataError(f"These rows make no table, all of one length: {error}") from error


def _random_state(seed: int | np.random.RandomState | None) -> np.random.RandomState:
    # Not scikit-learn's check_random_state: for None that one draws from numpy's global state.
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
