"""The estimator: scikit-learn's surface over the stack; every method delegates down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, overload

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn import base
from sklearn.utils.validation import check_is_fitted

from twofold import metrics, options
from twofold.data.chunks import in_parts, together
from twofold.data.table import Table
from twofold.errors import ModelFileError, OptionError
from twofold.estimators import fitting, validation
from twofold.estimators.figures import Plots
from twofold.formatting import Text
from twofold.inference import apply as inference
from twofold.inference import calibration, code_statistics, explain, neighbors, sampling
from twofold.nn import layers
from twofold.nn.bottleneck import BottleneckSpec
from twofold.nn.corruption import Corruption
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.nn.scorer import Scorer
from twofold.options import ActivationName, Kind, LikelihoodName, option
from twofold.persistence import model as modelfile
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.training.autograd import Step
from twofold.training.checkpoint import open_run
from twofold.training.events import Callback
from twofold.training.progress import shown

if TYPE_CHECKING:
    import pandas as pd

    from twofold.report.checks import Finding

Array = NDArray[Any]
Likelihoods: TypeAlias = LikelihoodName | Mapping[str, LikelihoodName]
# Rows come in the container that rows came in, which a type checker cannot know: any of its uses is
# right, and arrays and frames are offered.
Rows: TypeAlias = "Array | pd.DataFrame | Any"
Result = TypeVar("Result")
Seed = int | np.random.RandomState | None


@options.documented
@dataclass(eq=False, repr=False, kw_only=True)
class Autoencoder(
    Plots,
    base.ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    base.TransformerMixin,  # type: ignore[misc]
    base.OutlierMixin,  # type: ignore[misc]
    base.BaseEstimator,  # type: ignore[misc]
):
    """A stacked autoencoder whose decoder reuses the encoder's weights, transposed.

    A symmetric stack of layers narrows a row to a short code, and the same matrices widen it back.
    One fitted object gives codes, reconstructions and anomaly scores.

    Parameters
    ----------
    {options}

    Attributes
    ----------
    network_ : Network
        The trained PyTorch module.
    schema_ : Schema
        What each column is, and how it is scaled and modelled.
    history_ : list of dict
        Per epoch: `epoch`, `loss` and `validation_loss` (nats per cell), `learning_rate`,
        `seconds`, of a sparse code also `dead_units`, components that were never active.
    best_epoch_, n_iter_ : int
        Epoch whose weights were kept, counted from 1 (0 for those that training
        started with), and number of epochs run, those of a cool-down left out.
    offset_ : float
        Score below which a row is an anomaly, in nats.
    calibration_scores_ : array
        Scores of the held-out rows (of training rows if none were held out), in order.
    comparison_ : Comparison
        The network compared with PCA of the same code size, on the same rows.
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
    >>> ae.transform(X).shape, ae.reconstruct(X).shape
    ((200, 2), (200, 8))
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
    hidden_layers: Sequence[layers.Spec | str] = option("hidden_layers")
    shortcut: bool | Literal["auto"] = option("shortcut")
    tied: bool = option("tied")
    activation: ActivationName | Literal["auto"] = option("activation")
    code_activation: ActivationName = option("code_activation")
    kinds: Kind | Mapping[str, Kind] = option("kinds")
    likelihood: Likelihoods = option("likelihood")
    bottleneck: BottleneckSpec | str = option("bottleneck")
    corruption: Corruption | str | None = option("corruption")
    pretraining: str | None = option("pretraining")
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = option("optimizer")
    learning_rate: float | Literal["auto"] = option("learning_rate")
    momentum: float = option("momentum")
    nesterov: bool = option("nesterov")
    schedule: Literal["constant", "one-cycle"] = option("schedule")
    batch_size: int | Literal["auto"] = option("batch_size")
    epochs: int | Literal["auto"] = option("epochs")
    weight_decay: float | Literal["auto"] = option("weight_decay")
    validation_fraction: float = option("validation_fraction")
    patience: int | Literal["auto"] | None = option("patience")
    donors: int = option("donors")
    contamination: float | Literal["auto"] = option("contamination")
    device: str = option("device")
    precision: Literal["float32", "bfloat16", "float64", "auto"] = option("precision")
    random_state: int | np.random.RandomState | None = option("random_state")
    warm_start: bool = option("warm_start")
    verbose: int = option("verbose")

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
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
        y : ignored
        sample_weight : array of shape (n_rows,), optional
            How much each row counts: one of weight 2 counts as two equal rows, of weight 0 as none.
        validation_data : as X, optional
            Held-out rows, in place of `validation_fraction` of X.
        callbacks : sequence of callable
            Each is called with every `training.Event`, in place of what `verbose` shows;
            `twofold.callbacks` has some.
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
        OptionError, DataError
            If an option is invalid, or the rows cannot be used; all mistakes are listed.
        DivergenceError
            If the loss stops being a finite number.

        Notes
        -----
        In a group of workers, the main worker's model alone is complete.
        """
        options.check(self.get_params(deep=False))
        inference.find_device(self.device)  # before any work is done
        model = modelfile.plain(self.get_params(deep=False))
        saved = open_run(checkpoint, resume, checkpoint_seconds, model)
        with fitting.restore_on_failure(self), shown(callbacks, self.verbose) as callbacks:
            rng = fitting.random_state(self.random_state, saved)
            fraction = self.validation_fraction if validation_data is None else 0.0
            first = not (self.warm_start and self.__sklearn_is_fitted__())
            rows = validation.weighted(
                validation.training_rows(self, X, rng, fraction, reset=first), sample_weight
            )
            fitting.begin(self, rows, rng, first)
            data = fitting.split(self, rows, validation_data)
            trainer = fitting.trainer(self, data, callbacks, saved)
            history = fitting.train(self, trainer, data)
            if not trainer.workers.is_main:
                return self
            fitting.keep_share(self, self.n_components if first else None, data.probe())
            fitting.calibrate(self, rows, data, rng)
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
            fitting.begin(self, rows, rng, first)
            data = fitting.split(self, rows)
            trainer = fitting.trainer(self, data, callbacks, epochs=1, schedule="constant")
            trainer.step = getattr(self, "_step", None)
            history = fitting.train(self, trainer, data)
            fitting.calibrate(self, rows, data, rng)
        history.warn_if_interrupted(trainer)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit to X and label its rows: +1 for normal, -1 for anomalies."""
        return self.fit(X).predict(X)

    def transform(self, X: Any) -> Array:
        """Return the codes of the rows of X, `(n_rows, n_components)`."""
        return self._apply(inference.encode, X)

    def inverse_transform(self, X: Any) -> Rows:
        """Return the rows that codes stand for, in the training table's units and container."""
        return self._decoded(X)

    def _decoded(self, X: Any, observed: bool = False) -> Any:
        """Return the rows that codes stand for; with `observed`, in values that were observed."""
        check_is_fitted(self, "network_")
        with fitting.undisturbed(self):
            codes, index = validation.codes(self.network_, X)
            x_hat = inference.apply(inference.decode, self.network_, self.scorer_, codes)
            observed = observed or self.schema_.formats() is not None
            cells = self.schema_.from_matrix(x_hat, observed)
            return validation.give_back(self.schema_, cells, index=index)

    def reconstruct(self, X: Any) -> Rows:
        """Return the reconstructions of the rows of X, in their own units, shape and container.

        A cell is its expected value given the code, a category its most probable one. In frames and
        files it is one that its column can have: in the observed range, which reaches from the
        training cells to the row's own, and as whole or rounded as training cells. Columns that are
        ignored come back empty.
        """

        def verb(table: Table, _: Any) -> Any:
            x_hat = self._run(inference.reconstruct, table)
            observed = table.formats is not None
            cells = self.schema_.from_matrix(x_hat, observed, own=table.values)
            return validation.give_back(self.schema_, cells, table)

        return together(self._each(verb, X))

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of each row in nats, `(n_rows,)`: higher is more normal.

        It is the density of the expected row, the decoder's output for the row's code, and of the
        cells around it (`twofold.nn.row_density`). Of a table with categories, it is a sum of
        logarithms: of the tail share of its numbers, and of the probabilities of its levels, each
        given one other column (`twofold.nn.table_density`). A missing cell counts what its column's
        cells count on average, so that rows with different missing values compare.
        """
        return self._apply(inference.log_density, X)

    def log_likelihood(self, X: Any, n_samples: int = 50, random_state: Seed = None) -> Array:
        """Return each row's log-density by importance weights, of a variational network.

        `score_samples` is the evidence lower bound; this is a tighter one, on average, the more
        codes are drawn for each row (Burda, Grosse and Salakhutdinov, 2016, theorem 1): figures in
        papers use 5,000 of them.

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

        Returned are `observed`, `expected` and `contribution` per row and column, and `base` per
        row: `base + contribution.sum(axis=1)` is `-score_samples(X)` to rounding.
        """
        with fitting.undisturbed(self):
            table = self.read(X)
            parts = self.network_, self.scorer_, self.schema_
            return explain.explain(*parts, table, self.offset_)

    @overload
    def impute(self, X: Any, n_draws: Literal[1] = 1, random_state: Seed = None) -> Rows: ...

    @overload
    def impute(self, X: Any, n_draws: int, random_state: Seed = None) -> list[Rows]: ...

    def impute(self, X: Any, n_draws: int = 1, random_state: Seed = None) -> Rows | list[Rows]:
        """Impute missing values of X from the observed values of the same row.

        With `n_draws` of 1, cells are filled by their best values. With more, a list of as many
        tables comes back, filled by random draws that differ as much as the cells are uncertain
        (multiple imputation; Rubin, 1987). Drawn numbers are those of training rows, `donors` of
        which the model keeps. Tables come in the container and the types of X; observed cells are
        the same, bit by bit.

        Warns
        -----
        UnfilledWarning
            If cells stay missing, since they most probably hold one of several rare levels that
            share one input.
        """
        check_is_fitted(self, "network_")
        options.require_integer("n_draws", n_draws)
        rng = sampling.random_state(random_state)

        def draws(table: Table) -> list[Array]:
            parts = fitting.imputed(self, table, n_draws, sampling.torch_generator(rng))
            cells = np.concatenate([part for _, part in parts])
            return np.split(cells, n_draws)

        tables = fitting.filled(self, X, draws)
        return tables[0] if n_draws == 1 else tables

    def sample(self, n: int, random_state: Seed = None) -> Rows:
        """Draw `n` new rows, in the training table's units, types and container.

        Codes are drawn from the density of the training rows' codes, cells from their likelihoods
        given the code: categories are categories, counts whole, and pixels the means of theirs.
        """
        check_is_fitted(self, "network_")
        generator = sampling.torch_generator(sampling.random_state(random_state))
        with fitting.undisturbed(self):
            cells = np.concatenate(list(fitting.sampled(self, n, generator)))
            return validation.give_back(self.schema_, cells)

    def interpolate(self, a: Any, b: Any, steps: int = 10) -> Rows:
        """Return `steps` rows from one row to another, on a straight line between their codes."""
        ends = [self.transform(a), self.transform(b)]
        return self._decoded(sampling.interpolation(ends, steps), observed=True)

    def traverse(
        self, row: Any, component: int, steps: int = 10, reach: float = 2.0
    ) -> tuple[Array, Rows]:
        """Return what becomes of a row when one component of its code changes.

        The component, counted from 0, takes `steps` values around its mean, as far as `reach`
        standard deviations of training codes. Returned are the values, and the decoded rows in the
        training table's units, types and container.
        """
        code = self.transform(row)
        values, codes = sampling.traversal(self.network_, code, component, steps, reach)
        return values, self.inverse_transform(codes)

    def nearest(self, X: Any, among: Any, n: int = 5) -> tuple[Array, NDArray[np.int64]]:
        """Find the rows of `among` whose codes are nearest to those of the rows of X.

        Returned are Euclidean distances between codes and positions in `among`, nearest first,
        `(n_rows, n)` each.
        """
        return neighbors.nearest(self.transform(X), self.transform(among), n)

    def code_map(self, X: Any, method: str = "auto", random_state: Seed = None) -> Array:
        """Return a place in the plane for each row of X, `(n_rows, 2)`, by its code.

        The method "codes" takes codes of two components as they are, "pca" the plane of their
        largest variance; "tsne" keeps neighbours together (van der Maaten and Hinton, 2008) and
        takes a minute for 10,000 rows. "auto" is "codes" for two components, else "pca".
        """
        rng = sampling.random_state(random_state)
        return neighbors.on_a_map(self.transform(X), method, rng)

    def code_statistics(self, X: Any) -> code_statistics.CodeStatistics:
        """Measure what each component of the code does over the rows of X.

        Returned are `mean`, `std` and `active`, the share of rows in which a component is active,
        for a variational network `kl`, the nats that it tells, and `n_active`, how many are used.
        """
        table = self.read(X)
        return code_statistics.of_table(self.network_, self.scorer_, self.schema_, table)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples(X)`, which grid search maximises."""
        return float(np.mean(self.score_samples(X)))

    def compare_pca(self, X: Any) -> metrics.Comparison:
        """Compare the reconstructions of X with those of PCA with a code of the same size."""
        x = self._matrix(self.read(X))[:].cpu().numpy()
        return calibration.compare(self.network_, self.scorer_, self.schema_, self.pca_, x)

    def summary(self, X: Any = None) -> str:
        """Return the layer table: output widths, parameter counts, and which matrix is shared.

        With X, it is that of the network that `fit(X)` would train, and nothing is fitted.
        """
        ae = self
        if X is not None:
            options.check(self.get_params(deep=False))
            ae, rng = base.clone(self), sampling.random_state(self.random_state)
            fitting.build(ae, validation.training_rows(ae, X, rng, 0.0, reset=True), rng)
            return Text(ae.network_.summary(ae._objective.link))
        check_is_fitted(self, "network_")
        return Text(self.network_.summary(self.scorer_.link))

    def report(
        self,
        X: Any,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> list[Finding]:
        """Write an HTML report about the model and the rows of X; it loads no external resources.

        X are rows to judge the model by, ideally ones that it has not seen. `progress` is called
        with a line now and then, if it takes more than two seconds. Returned is what needs
        attention and what to do, as on the page: `text`, `advice`, and whether it is `urgent`. An
        OutputExistsError is raised if the file exists and `overwrite` is false.
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
            If the folder cannot be written.
        """
        check_is_fitted(self, "network_")
        modelfile.save(path, fitting.state_of(self), overwrite)

    def export_onnx(
        self, path: str | os.PathLike[str], part: str = "all", *, overwrite: bool = False
    ) -> None:
        """Write the model as one ONNX graph from cells to cells, for machines without twofold.

        The part "all" takes rows and gives codes, reconstruction, score and decision; "encoder"
        gives the codes alone, "scorer" score and decision; "decoder" takes codes and gives the
        reconstruction. The file is written whole or not at all; needed is the extra `onnx`.

        Raises
        ------
        OptionError
            If the model cannot be a graph; the message says why.
        OutputExistsError
            If the file exists and `overwrite` is false.
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

        A new repository "user/name" is private unless `private` is false (None: the hub's default):
        a model holds the names of its columns and the categories in them. `revision` is a branch;
        `token` is by default the one that `hf auth login` keeps, or `HF_TOKEN`; `endpoint` is the
        address of another hub. Raised is what `twofold.persistence.hub.push_to_hub` raises.
        """
        from twofold.persistence import hub

        commit = {"revision": revision, "commit_message": commit_message}
        connection = {"token": token, "endpoint": endpoint}
        return hub.push_to_hub(self, repo_id, private, commit, connection)

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
        """Read a model from the Hugging Face Hub ("user/name"), or from a folder of that name.

        `revision` is a branch, tag or commit; a commit's hash always means the same model. Other
        parameters are those of `push_to_hub`; downloads are kept in `cache_dir`. Raised is what
        `twofold.persistence.hub.fetch` raises.
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
        """Return the rows of any source as a table, in the types of the training table."""
        check_is_fitted(self, "network_")
        return self.schema_.matched(validation.table(self, X, reset=False))

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
        with fitting.undisturbed(self):
            source = validation.open_rows(self, X)
            return [made for _, made in in_parts(source, lambda part: verb(self.read(part), part))]

    def _apply(self, function: inference.Function, X: Any) -> Array:
        """Apply a function of the rows as the network sees them to the rows of X."""
        parts = self._each(lambda table, _: self._run(function, table), X)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, function: inference.Function, table: Table, first_row: int = 0) -> Array:
        parts = self.network_, self.scorer_, self.schema_
        return inference.apply_to_table(function, *parts, table, first_row)

    def _matrix(self, table: Table) -> tensors.Rows:
        """Return what the network sees of a table, in its own precision and place."""
        parameter = next(self.network_.parameters())
        return tensors.encode(self.schema_, table, parameter.dtype, parameter.device)


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
        return fitting.from_state(Autoencoder, modelfile.load(path))
    except OptionError as error:
        raise ModelFileError(
            f"{path} does not fit together: {error!s:.2000} It was altered; copy the whole "
            f"folder again, or fit the model again."
        ) from error
