"""The estimator: scikit-learn's surface over the stack; every method delegates down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

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

from twofold import metrics, options
from twofold.data import convert
from twofold.data.files import in_parts, together
from twofold.data.table import Table
from twofold.errors import ModelFileError, OptionError
from twofold.estimators import fitting, validation
from twofold.formatting import Text
from twofold.inference import apply as inference
from twofold.inference import calibration, code_statistics, explain, neighbors, sampling
from twofold.nn import layers, row_density
from twofold.nn.bottleneck import BottleneckSpec
from twofold.nn.corruption import Corruption
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.nn.scorer import Scorer
from twofold.nn.threads import few_for
from twofold.options import option
from twofold.persistence import model as modelfile
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.training import pretraining
from twofold.training.autograd import Step
from twofold.training.batches import TrainingData, fingerprint
from twofold.training.checkpoint import open_run
from twofold.training.config import TrainingConfig
from twofold.training.events import Callback
from twofold.training.progress import shown
from twofold.training.streaming import Stream
from twofold.training.trainer import History, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from twofold.report.checks import Finding

Array = NDArray[Any]
Result = TypeVar("Result")
Seed = int | np.random.RandomState | None


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
    n_components : int, float or None, default=None
        Size of the code; None is a quarter of the inputs, rounded up. A share between 0 and 1 is
        the smallest ordered code that keeps that share of the held-out rows' variance.
    hidden_layers : tuple or "halving", default="halving"
        The encoder's hidden layers, mirrored in the decoder: widths of dense ones,
        `twofold.Conv(16, 3, stride=2)` ("conv:16:3:2") for images and `twofold.Recurrent(64)`
        ("recurrent:64") for sequences. "halving" halves the width until the code.
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
    bottleneck : "plain", "sparse", "variational", "ordered" or object, default="plain"
        What is done to the code: `twofold.Sparse` ("sparse:l1:0.1", "sparse:kl:0.1",
        "sparse:topk:32") lets few components be active, `twofold.Variational` ("variational:1")
        draws the code near a normal density, `twofold.Ordered` orders components as PCA does.
    corruption : None, name ("masking", "swap", "gaussian", ...) or object, default=None
        Noise on the inputs while training, whose clean cells the network has to give back; with its
        number as "masking:0.3", or an object such as `twofold.Masking(0.3)`.
    pretraining : None, "pca", "layerwise" or "layerwise:10", default=None
        Where training begins. "pca" is a closed form with the error of PCA of the same code size
        (near it, where cells are not modelled by squared error). "layerwise" trains one level at a
        time, for a quarter of the epochs each or so many as are given, before all together.
    optimizer : "adam", "adamw", "muon" or "sgd", default="adam"
        With "muon" (Jordan et al., 2024) weight matrices move in all directions alike: fewer epochs
        for a wide network, each of which takes longer.
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
    donors : int, default=1000
        Training rows whose numbers and times the model keeps, so that draws of `impute` and
        `sample` take values that exist (predictive mean matching; Little, 1988). They are part of
        the model's folder; 0 keeps none, and draws come from the likelihoods.
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
        `seconds`. Pretraining is not in it. Of a sparse code also `dead_units`, the
        components that were never active; those of the first half of the epochs are revived.
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
        The network compared with PCA of the same code size, on the held-out rows (on training
        rows if none were held out).
    reconstruction_r2_ : float
        Share of those rows' variance that reconstructions keep.
    scorer_ : Scorer
        Scores rows: spreads of residuals, the density of rows, and how cells are imputed.
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
        scorer_: Scorer = field(init=False)
        _objective: Objective = field(init=False)
        _calibration: calibration.Calibration = field(init=False)
        _step: Step | None = field(init=False)
        _generator: torch.Generator = field(init=False)

    n_components: int | float | None = option("n_components")
    hidden_layers: str | tuple[layers.Spec | str, ...] = option("hidden_layers")
    tied: bool = option("tied")
    activation: str = option("activation")
    code_activation: str = option("code_activation")
    kinds: str | Mapping[str, str] = option("kinds")
    likelihood: str | Mapping[str, str] = option("likelihood")
    bottleneck: BottleneckSpec | str = option("bottleneck")  # noqa: RUF009
    corruption: Corruption | str | None = option("corruption")  # noqa: RUF009
    pretraining: str | None = option("pretraining")
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
    donors: int = option("donors")
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
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 60.0,
    ) -> Self:
        """Train on the rows of X.

        Parameters
        ----------
        X : array, images (n, height, width), sequences (n, steps, channels), frame, tensor or path
            Rows to learn from.
        y : ignored
        validation_data : as X, optional
            Held-out rows, in place of `validation_fraction` of X.
        callbacks : sequence of callable
            Each is called with every `training.Event`, in place of what `verbose` shows.
        checkpoint : path-like, optional
            Directory for checkpoints; see `resume`.
        resume : bool, default=False
            Continue from the newest checkpoint, if there is one, with the same options and rows. On
            the same machine the model is the same, bit by bit, as that of an uninterrupted run.
        checkpoint_seconds : float, default=60.0
            Time between two checkpoints within an epoch.

        Raises
        ------
        CheckpointError
            If the checkpoints are of other options or rows, or cannot be read or written.
        OptionError
            If an option is invalid; all invalid ones are listed.
        DataError
            If the rows cannot be used: infinite cells, columns that mix numbers and text, fewer
            than two rows, no column to learn from.
        DivergenceError
            If the loss stops being a finite number.

        Notes
        -----
        In a group of workers, which `twofold.distributed.launch` starts, all call with the same
        options and rows, and the main worker's model alone is complete.
        """
        options.check(self.get_params(deep=False))
        device = inference.find_device(self.device)
        model = modelfile.plain(self.get_params(deep=False))
        saved = open_run(checkpoint, resume, checkpoint_seconds, model)
        with fitting.restore_on_failure(self), shown(callbacks, self.verbose) as callbacks:
            rng = fitting.random_state(self.random_state, saved)
            fraction = self.validation_fraction if validation_data is None else 0.0
            rows = validation.training_rows(self, X, rng, fraction, reset=True)
            self._build(rows, rng, device)
            data = self._split(rows, rng, fraction, validation_data)
            config = self._config(data)
            trainer = Trainer(
                self.network_, self._objective, config, self._generator, callbacks, saved
            )
            history = self._train(trainer, data)
            if not trainer.workers.is_main:
                return self
            fitting.keep_share(self.n_components, self.network_, self.schema_, data.probe())
            self._calibrate(rows, data, rng)
        # Last, so that nothing is lost where warnings are turned into errors.
        history.warn_if_interrupted(trainer)
        fitting.warn_about_quality(self, data.probe())
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Pass once over the rows of X, continuing from the present weights.

        The first call infers the schema and makes the network and its optimizer, which then stay,
        whatever options are set later. Thresholds and densities are calibrated on the rows of the
        last call; a call that fails leaves the model as it was.
        """
        options.check(self.get_params(deep=False))
        first = not hasattr(self, "network_")
        with fitting.restore_on_failure(self), shown((), self.verbose) as callbacks:
            rng = sampling.random_state(self.random_state)
            rows = validation.training_rows(self, X, rng, 0.0, reset=first)
            if first:
                fitting.require_settled_size(self.n_components)
                self._build(rows, rng, inference.find_device(self.device))
            else:
                self.schema_ = self.schema_.widened(fitting.sample_of(rows))
                self._objective.spread.copy_(self.scorer_.spread)
            data = self._split(rows, rng, 0.0)
            config = self._config(data, epochs=1, schedule="constant")
            trainer = Trainer(self.network_, self._objective, config, self._generator, callbacks)
            trainer.step = getattr(self, "_step", None)
            history = self._train(trainer, data)
            self._calibrate(rows, data, rng)
        history.warn_if_interrupted(trainer)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit to X and label its rows: +1 for normal, -1 for anomalies."""
        return self.fit(X).predict(X)

    def transform(self, X: Any) -> Array:
        """Return the codes of the rows of X, `(n_rows, n_components)`."""
        return self._apply(inference.encode, X)

    def inverse_transform(self, X: Any) -> Any:
        """Return rows in the training table's units, shape and container for the codes X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_components)
            Codes; of an ordered code, the first components alone are enough.
        """
        return self._decoded(X)

    def _decoded(self, X: Any, observed: bool = False) -> Any:
        """Return the rows that codes stand for; with `observed`, in values that were observed."""
        check_is_fitted(self, "network_")
        codes, index = validation.codes(self.network_, X)
        x_hat = inference.apply(inference.decode, self.network_, self.scorer_, codes)
        cells = self.schema_.from_matrix(x_hat)
        cells = self.schema_.observed(cells) if observed else cells
        return validation.give_back(self.schema_, cells, index=index)

    def reconstruct(self, X: Any) -> Any:
        """Return the reconstructions of the rows of X, in their own units, shape and container.

        A cell is its expected value given the code, a category its most probable one. Frames keep
        their types, so integers come back rounded; arrays come back as floating-point numbers.
        Columns that are ignored come back empty.
        """

        def verb(table: Table, _: Any) -> Any:
            x_hat = self._run(inference.reconstruct, table)
            return validation.give_back(self.schema_, self.schema_.from_matrix(x_hat), table)

        return together(self._each(verb, X))

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of each row in nats, `(n_rows,)`: higher is more normal.

        It is the density of the expected row, which is the decoder's output for the row's code, and
        of the cells around it, each under its column's likelihood; `twofold.nn.row_density` has the
        formula. A missing cell counts what its column's cells count on average, so that rows with
        different missing values compare.
        """
        return self._apply(inference.log_density, X)

    def log_likelihood(self, X: Any, n_samples: int = 50, random_state: Seed = None) -> Array:
        """Return each row's log-density by importance weights, of a variational network.

        `score_samples` is the evidence lower bound; this is a tighter one, on average, the more
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
            If the bottleneck is not variational, so that there is no posterior to draw from.
        """
        generator = sampling.torch_generator(sampling.random_state(random_state))
        return self._apply(inference.importance_sampler(n_samples, generator), X)

    def decision_function(self, X: Any) -> Array:
        """Return `score_samples(X) - offset_`: below 0 is an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return +1 for normal rows and -1 for anomalies, `(n_rows,)`."""
        return np.where(metrics.is_anomaly(self.score_samples(X), self.offset_), -1, 1)

    def anomaly_pvalue(self, X: Any) -> NDArray[np.float64]:
        """Return how likely a normal row is to be at least as anomalous as each row of X.

        The rows are ranked among the held-out ones: flagging rows with a p-value of at most 0.01
        flags a normal row with a probability of at most 1 % (Vovk, Gammerman and Shafer, 2005,
        section 2), provided that the held-out rows are like those to come. With n held-out rows the
        least p-value is 1 / (n + 1).
        """
        return metrics.conformal_pvalue(self.score_samples(X), self.calibration_scores_)

    def explain(self, X: Any) -> explain.Explanation:
        """Attribute each row's anomaly score to its columns.

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
        table = self.read(X)
        parts = self.network_, self.scorer_, self.schema_
        return explain.explain(*parts, table, self.offset_)

    def impute(self, X: Any, n_draws: int = 1, random_state: Seed = None) -> Any:
        """Impute missing values of X from the observed values of the same row.

        Parameters
        ----------
        X : as in `fit`
            Rows with missing cells (NaN, None, empty).
        n_draws : int, default=1
            With 1, cells are filled by their best values. With more, a list of as many tables comes
            back, filled by random draws that differ as much as the cells are uncertain (multiple
            imputation; Rubin, 1987). Drawn numbers are those of training rows, `donors` of which
            the model keeps.
        random_state : int, RandomState or None
            Seed of the draws.

        Returns
        -------
        table, or list of tables
            In the container and the types of X; observed cells are the same, bit by bit.

        Warns
        -----
        UnfilledWarning
            If cells stay missing, since they most probably hold one of several rare levels that
            share one input.
        """
        check_is_fitted(self, "network_")
        if n_draws < 1:
            raise OptionError(f"n_draws={n_draws} must be a whole number of at least 1.")
        rng = sampling.random_state(random_state)
        unfilled = sampling.Unfilled(self.schema_)

        def draws(table: Table, part: Any) -> list[Any]:
            generator = sampling.torch_generator(rng)
            function = sampling.imputer(None if n_draws == 1 else generator)
            drawn = (self._run(function, table) for _ in range(n_draws))
            numbers = None if n_draws == 1 else sampling.numpy_generator(generator)
            formats = self.schema_.formats(table.formats)
            filled = []
            for x in drawn:
                cells = sampling.cells(self.schema_, self._calibration.cells, x, table, numbers)
                unfilled.add(table.values, cells)
                filled.append(convert.fill(part, table, cells, formats))
            return filled

        tables = [together(parts) for parts in zip(*self._each(draws, X), strict=True)]
        unfilled.warn()
        return tables[0] if n_draws == 1 else tables

    def sample(self, n: int, random_state: Seed = None) -> Any:
        """Draw `n` new rows, in the training table's units, types and container.

        Codes are drawn from the density fitted to the codes of the training rows, cells from their
        likelihoods given the code, so categories are categories and counts are whole. Pixels are
        the means of theirs.
        """
        check_is_fitted(self, "network_")
        generator = sampling.torch_generator(sampling.random_state(random_state))
        x = sampling.sample(self.network_, self.scorer_, n, generator)
        numbers = sampling.numpy_generator(generator)
        cells = sampling.cells(self.schema_, self._calibration.cells, x, rng=numbers)
        return validation.give_back(self.schema_, cells)

    def interpolate(self, a: Any, b: Any, steps: int = 10) -> Any:
        """Return `steps` rows on the way from the row `a` to the row `b`, both ends included.

        The way is straight in the space of codes; `a` and `b` are tables of one row each.
        """
        ends = [self.transform(a), self.transform(b)]
        return self._decoded(sampling.interpolation(ends, steps), observed=True)

    def traverse(
        self, row: Any, component: int, steps: int = 10, reach: float = 2.0
    ) -> tuple[Array, Any]:
        """Return what becomes of a row when one component of its code changes.

        Parameters
        ----------
        row : table of one row
            Where the traversal starts.
        component : int
            Which component changes, counted from 0.
        steps : int, default=10
        reach : float, default=2.0
            How far to go to both sides of its mean, in standard deviations of training codes.

        Returns
        -------
        values : array of shape (steps,)
            The values of the component.
        rows
            The decoded rows, in the training table's units, types and container.
        """
        code = self.transform(row)
        values, codes = sampling.traversal(self.network_, code, component, steps, reach)
        return values, self.inverse_transform(codes)

    def nearest(self, X: Any, among: Any, n: int = 5) -> tuple[Array, NDArray[np.int64]]:
        """Find the rows of `among` whose codes are nearest to those of the rows of X.

        Returns
        -------
        distances, positions : arrays of shape (n_rows, n)
            Euclidean distances between codes, and positions in `among`, nearest first.
        """
        return neighbors.nearest(self.transform(X), self.transform(among), n)

    def code_map(self, X: Any, method: str = "auto", random_state: Seed = None) -> Array:
        """Return a place in the plane for each row of X, `(n_rows, 2)`, by its code.

        Parameters
        ----------
        X : as in `fit`
        method : "auto", "codes", "pca" or "tsne", default="auto"
            "codes" takes codes of two components as they are, "pca" the plane of their largest
            variance, "tsne" keeps neighbours together (van der Maaten and Hinton, 2008) and takes
            a minute for 10,000 rows. "auto" is "codes" for two components, else "pca".
        random_state : int, RandomState or None
            Seed of "tsne".
        """
        rng = sampling.random_state(random_state)
        return neighbors.on_a_map(self.transform(X), method, rng)

    def code_statistics(self, X: Any) -> code_statistics.CodeStatistics:
        """Measure what each component of the code does over the rows of X.

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
        table = self.read(X)
        return code_statistics.of_table(self.network_, self.scorer_, self.schema_, table)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples(X)`, which grid search maximises."""
        return float(np.mean(self.score_samples(X)))

    def compare_pca(self, X: Any) -> metrics.Comparison:
        """Compare the reconstructions of X with those of PCA with a code of the same size."""
        matrix = self._matrix(self.read(X))[:].cpu().numpy()
        return calibration.compare(self.network_, self.scorer_, self.pca_, matrix)

    def summary(self) -> str:
        """Return the layer table: output widths, parameter counts, and which matrix is shared."""
        check_is_fitted(self, "network_")
        return Text(self.network_.summary(self.scorer_.link))

    def plot_reconstructions(self, X: Any, n_rows: int = 10) -> Figure:
        """Draw the first rows of X over their reconstructions, as images or as profiles."""
        from twofold.report import plots

        first = self.read(X).slice(slice(n_rows))
        x, x_hat = (
            self.schema_.to_matrix(first, np.float64),
            self._run(inference.reconstruct, first),
        )
        return plots.matrices(self.schema_, {"original": x, "reconstruction": x_hat})

    def plot_codes(
        self, X: Any, color: Any = None, method: str = "auto", random_state: Seed = None
    ) -> Figure:
        """Draw the rows of X on a map of their codes.

        `color` is a number or a word for each row, by default its score; `method` and
        `random_state` are those of `code_map`.
        """
        from twofold.report import plots

        table = self.read(X)
        rng = sampling.random_state(random_state)
        places = neighbors.on_a_map(self._run(inference.encode, table), method, rng)
        titles = neighbors.axis_titles(self._n_features_out, method)
        if color is None:
            scores = self._run(inference.log_density, table)
            return plots.places(places, scores, "score (nats)", titles)
        name = str(getattr(color, "name", None) or "")
        return plots.places(places, np.asarray(color), name, titles)

    def plot_traversals(
        self, row: Any, components: Sequence[int] | None = None, steps: int = 10
    ) -> Figure:
        """Draw what becomes of a row as some components change, by default each of the first 5."""
        from twofold.report import plots

        chosen = range(min(5, self._n_features_out)) if components is None else components
        rows = {f"component {i}": self.read(self.traverse(row, i, steps)[1]) for i in chosen}
        stacks = {title: self.schema_.to_matrix(t, np.float64) for title, t in rows.items()}
        return plots.matrices(self.schema_, stacks)

    def plot_history(self) -> Figure:
        """Draw the loss per epoch on training and held-out rows."""
        from twofold.report import plots

        check_is_fitted(self, "network_")
        return plots.history({"": self.history_}, best_epoch=self.best_epoch_)

    def report(
        self,
        X: Any,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> list[Finding]:
        """Write an HTML report about the model and the rows of X; it loads no external resources.

        Parameters
        ----------
        X : as in `fit`
            Rows to judge the model by, ideally ones that it has not seen.
        path : path-like
            The file to write, whole or not at all.
        overwrite : bool, default=False
            Whether an existing file may be replaced.
        progress : callable, optional
            Called with a line about the progress now and then, if it takes more than two seconds.

        Returns
        -------
        list of Finding
            What needs attention and what to do, as on the page: `text`, `advice`, and whether it
            is `urgent`.

        Raises
        ------
        OutputExistsError
            If the file exists and `overwrite` is false, or is a folder.
        DataError
            If the rows cannot be used, or the file cannot be written.
        """
        from twofold.report import document

        check_is_fitted(self, "network_")
        return document.write(self, X, path, overwrite, progress=progress)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to the folder `path`, whole or not at all.

        Raises
        ------
        OutputExistsError
            If `path` exists and `overwrite` is false.
        ModelFileError
            If the folder cannot be written, for example because the disk is full.
        """
        check_is_fitted(self, "network_")
        parts = modelfile.ModelState(
            options=self.get_params(deep=False),
            schema=self.schema_,
            feature_names=hasattr(self, "feature_names_in_"),
            network=self.network_,
            calibration=self._calibration,
            history=self.history_,
            best_epoch=self.best_epoch_,
        )
        modelfile.save(path, parts, overwrite)

    def export_onnx(
        self, path: str | os.PathLike[str], part: str = "all", *, overwrite: bool = False
    ) -> None:
        """Write the model as one ONNX graph from cells to cells, for machines without twofold.

        Parameters
        ----------
        path : path-like
            The file to write, whole or not at all.
        part : "all", "encoder", "decoder" or "scorer", default="all"
            "all" takes rows and gives codes, reconstruction, score and decision; "encoder" gives
            the codes alone, "scorer" score and decision; "decoder" takes codes and gives the
            reconstruction.
        overwrite : bool, default=False
            Whether an existing file may be replaced.

        Raises
        ------
        OptionError
            If the model cannot be a graph; the message says why.
        OutputExistsError
            If the file exists and `overwrite` is false, or is a folder.
        DataError
            If the file cannot be written.
        MissingExtraError
            If the extra `onnx` is not installed.
        """
        from twofold.persistence.onnx import export

        export.onnx(self, path, part, overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = True,
        revision: str | None = None,
        commit_message: str = "Upload a twofold model",
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub with a model card; return its address.

        Parameters
        ----------
        repo_id : str
            "user/name" of the repository, which is created if it does not exist.
        private : bool or None, default=True
            Whether a new repository is private; None is the hub's default. A model holds the names
            of its columns and the categories in them.
        revision : str, optional
            Branch; by default the main one.
        commit_message : str
            Commit message in the repository.
        token : str, optional
            Access token; by default the one that `hf auth login` keeps, or `HF_TOKEN`.
        endpoint : str, optional
            Address of another hub.

        Raises
        ------
        ModelFileError
            If the hub cannot be reached or refuses.
        MissingExtraError
            If the extra `hub` is not installed.
        """
        from twofold.persistence import hub

        return hub.push_to_hub(
            self,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
            endpoint=endpoint,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        *,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        endpoint: str | None = None,
    ) -> Autoencoder:
        """Read a model from the Hugging Face Hub, or from a folder.

        Parameters
        ----------
        source : str or path-like
            "user/name" of a repository, or a model's folder, which takes precedence.
        revision : str, optional
            Branch, tag or commit. A commit's hash always means the same model.
        token : str, optional
            Access token; by default the one that `hf auth login` keeps, or `HF_TOKEN`.
        cache_dir : path-like, optional
            Where downloads are kept; by default where the hub's library keeps them.
        endpoint : str, optional
            Address of another hub.

        Raises
        ------
        ModelFileError
            If there is no such model, the hub cannot be reached, or the download is not a model.
        MissingExtraError
            If the extra `hub` is not installed and the source is not a folder.
        """
        from twofold.persistence import hub

        folder = hub.fetch(source, revision, token=token, cache_dir=cache_dir, endpoint=endpoint)
        return load(folder)

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

    def read(self, X: Any) -> Table:
        """Return the rows of any source as a table, checked against the training table."""
        check_is_fitted(self, "network_")
        table = validation.table(self, X, reset=False)
        self.schema_.require_types(table)
        return table

    def __sklearn_tags__(self) -> sklearn.utils.Tags:
        """Declare that 32-bit input gives 32-bit output, and that missing values are accepted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a trained network."""
        return hasattr(self, "network_")

    @property
    def _n_features_out(self) -> int:
        return self.network_.n_components

    def _each(self, verb: Callable[[Table, Any], Result], X: Any) -> list[Result]:
        """Return what the verb makes of each part of X; rows in memory are one part."""
        check_is_fitted(self, "network_")
        source = validation.open_rows(self, X)
        return [made for _, made in in_parts(source, lambda part: verb(self.read(part), part))]

    def _apply(self, function: inference.Function, X: Any) -> Array:
        """Apply a function of the rows as the network sees them to the rows of X."""
        return np.concatenate(self._each(lambda table, _: self._run(function, table), X))

    def _run(self, function: inference.Function, table: Table) -> Array:
        return inference.apply_to_table(function, self.network_, self.scorer_, self.schema_, table)

    def _matrix(self, table: Table) -> tensors.Rows:
        """Return what the network sees of a table, in its own precision and place."""
        parameter = next(self.network_.parameters())
        return tensors.encode(self.schema_, table, parameter.dtype, parameter.device)

    def _set_calibration(self, found: calibration.Calibration) -> None:
        self._calibration, self.scorer_ = found, found.scorer
        self.pca_, self.comparison_, self.offset_ = found.pca, found.comparison, found.offset
        self.calibration_scores_ = found.scores

    def _build(
        self, rows: Table | Stream, rng: np.random.RandomState, device: torch.device
    ) -> None:
        """Infer the schema, and make a network with fresh weights and its objective."""
        self.schema_ = fitting.infer_schema(self, rows)
        size = fitting.n_components_to_train(self.n_components, self.schema_, rows, rng)
        self.history_, self.best_epoch_, self._step = [], 0, None
        self._generator = sampling.torch_generator(rng)
        network = fitting.build_network(self, self.schema_, size, self._generator)
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.network_ = network.to(device=device, dtype=dtype)
        self._objective = fitting.objective_of(self.network_, self.schema_)
        fitting.require_meaning(self, self.network_, self._objective)

    def _split(
        self,
        rows: Table | Stream,
        rng: np.random.RandomState,
        fraction: float,
        validation_data: Any = None,
    ) -> TrainingData:
        """Return the rows to train on, and those that are held out."""
        if isinstance(rows, Stream):
            parameter = next(self.network_.parameters())
            data = rows.draw(self.schema_, parameter.dtype, parameter.device)
        else:
            data = TrainingData.split(self._matrix(rows), rng, fraction)
        if validation_data is None:
            return data
        return replace(data, held_out=self._matrix(self.read(validation_data)))

    def _config(self, data: TrainingData, **changed: Any) -> TrainingConfig:
        params = {**self.get_params(deep=False), **changed}
        return TrainingConfig.resolve(params, len(data.rows), self.schema_.width)

    def _train(self, trainer: Trainer, data: TrainingData) -> History:
        """Pretrain fresh weights, train, and note what happened."""
        if trainer.checkpoint is not None:
            trainer.checkpoint.claim("data", fingerprint(self.schema_, data.rows, data.held_out))
            trainer.checkpoint.claim("training", trainer.config.to_json())
        past, history = len(self.history_), History(ended="interrupted")
        how = None if past else self.pretraining
        if not pretraining.start(how, trainer, data, self.get_params(deep=False)):
            history = trainer.fit(data)
        self._step = trainer.step
        self.history_ = [*self.history_, *history.entries(after=past)]
        self.best_epoch_, self.n_iter_ = past + history.best_epoch, max(1, len(self.history_))
        return history

    def _calibrate(
        self, rows: Table | Stream, data: TrainingData, rng: np.random.RandomState
    ) -> None:
        """Fit what scores need after training, set the offset, and compare with PCA."""
        # Densities are mixtures, each step of whose fit is such a product.
        step = row_density.COMPONENTS * len(data.positions) * self.schema_.width
        with few_for(step, libraries=True):
            found = calibration.calibrate(
                self.network_,
                self.schema_,
                data,
                rows.tables() if isinstance(rows, Stream) else [rows],
                fitting.sample_of(rows),
                donors=self.donors,
                contamination=self.contamination,
                rng=rng,
                generator=self._generator,
            )
        self._set_calibration(found)

    @classmethod
    def _from_parts(cls, parts: modelfile.ModelState) -> Self:
        """Put a fitted estimator together from what `save` wrote."""
        options.check(parts.options)
        ae = cls(**parts.options)
        ae.schema_, ae.network_ = parts.schema, parts.network
        ae._set_calibration(parts.calibration)
        ae._objective = fitting.objective_of(ae.network_, ae.schema_)
        ae._objective.continue_from(ae.scorer_)
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
        If the folder is missing, cut off, altered, or written by another version's format.
    """
    try:
        return Autoencoder._from_parts(modelfile.load(path))
    except OptionError as error:
        raise ModelFileError(
            f"{path} does not fit together: {error!s:.2000} It was altered; copy the whole "
            f"folder again, or fit the model again."
        ) from error
