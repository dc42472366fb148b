"""The estimator: scikit-learn's surface over the stack; every method delegates down."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from twofold import metrics, options
from twofold.data.table import Table
from twofold.errors import DataError, ModelFileError, OptionError, TooFewComponentsWarning
from twofold.estimators import reading, rollback
from twofold.estimators.sharing import SharedModel
from twofold.inference import apply as inference
from twofold.inference import calibration, code_statistics, sampling
from twofold.nn import bottleneck, corruption, layers, row_density
from twofold.nn.bottleneck import PlainCode, Spec, Variational, is_share, require_meaning
from twofold.nn.corruption import Corruption, Gaussian
from twofold.nn.network import Network, stack_shape
from twofold.nn.objective import Objective
from twofold.nn.threads import few_for
from twofold.options import option
from twofold.persistence import model as modelfile
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.training import batches, fused, loop, pretraining
from twofold.training.checkpoint import Checkpoint
from twofold.training.config import Plan
from twofold.training.process_group import Team
from twofold.training.streaming import Stream

_CUT_ROWS = 5_000  # enough to tell what components keep


@dataclass(eq=False, repr=False, kw_only=True)
class Autoencoder(SharedModel):
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
        _step: loop.Step | None = field(init=False)
        _generator: torch.Generator = field(init=False)

    n_components: int | float | None = option("n_components")
    hidden_layers: str | tuple[layers.Spec | str, ...] = option("hidden_layers")
    tied: bool = option("tied")
    activation: str = option("activation")
    code_activation: str = option("code_activation")
    kinds: str | Mapping[str, str] = option("kinds")
    likelihood: str | Mapping[str, str] = option("likelihood")
    bottleneck: Spec | str = option("bottleneck")  # noqa: RUF009
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
        on_event: loop.OnEvent | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 60.0,
        team: Team | None = None,
    ) -> Self:
        """Train on the rows of X.

        Parameters
        ----------
        X : array, images (n, height, width), sequences (n, steps, channels), frame, tensor or path
            Rows to learn from.
        y : ignored
        validation_data : as X, optional
            Held-out rows, in place of `validation_fraction` of X.
        on_event : callable, optional
            Receives every `training.Event`, in place of what `verbose` shows.
        checkpoint : path-like, optional
            Folder in which to keep what a run that was ended, by whatever, can go on from.
        resume : bool, default=False
            Go on from the newest checkpoint, where there is one, with the same options and rows. On
            the same machine the model is the same, bit by bit, as if the run had not been ended.
        checkpoint_seconds : float, default=60.0
            Time between two checkpoints within an epoch.
        team : Team, optional
            Processes that train together, which `twofold.distributed.launch` starts. All call with
            the same options and rows; the first one's model is complete, and those of the others
            are not.

        Raises
        ------
        CheckpointError
            Where the checkpoints are of other options or rows, or cannot be read or written.
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
        saved = None
        if team is None or team.leads:
            saved = self._checkpoint(checkpoint, resume, checkpoint_seconds)
        with rollback.all_or_nothing(self):
            rng = sampling.random_state(self.random_state)
            if saved is not None:
                saved.follow(rng)
            if team is not None:
                rng.set_state(team.of_first(rng.get_state()))
            fraction = self.validation_fraction if validation_data is None else 0.0
            table = reading.training_rows(self, X, rng, fraction, reset=True)
            self._build(table, rng, device)
            drawn = self._draw(table, rng, fraction)
            if validation_data is not None:
                drawn = replace(drawn, held_out=self._matrix(self._read(validation_data)))
            held_out = drawn.held_out
            plan = Plan.resolve(self.get_params(deep=False), len(drawn.rows), self.schema_.width)
            self._step = self._make_step(plan, drawn.complete, team)
            history = self._train(plan, drawn, on_event, saved, team)
            if team is not None and not team.leads:
                return self
            self._cut(drawn.rows.head(_CUT_ROWS) if held_out is None else held_out)
            self._calibrate(table, drawn, rng)
        # Last, so that nothing is lost where warnings are turned into errors.
        history.warn_if_interrupted(plan, saved)
        settled_on = drawn.rows.head(_CUT_ROWS) if held_out is None else held_out[:_CUT_ROWS]
        code_statistics.warn_if_collapsed(self.network_, self._objective, settled_on)
        # Elsewhere, the squared error of clean rows is not what training lowers.
        plain = type(self.network_.bottleneck) is PlainCode
        if plain and not self._objective.adapts and self.corruption is None:
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
            rng = sampling.random_state(self.random_state)
            table = reading.training_rows(self, X, rng, 0.0, reset=first)
            if first:
                if is_share(self.n_components):
                    raise OptionError(
                        f"n_components={self.n_components!r} settles the size after training, "
                        f"which partial_fit never ends. Give the number of components."
                    )
                self._build(table, rng, inference.find_device(self.device))
            else:
                sample = table.sample if isinstance(table, Stream) else table
                self.schema_.require_types(sample)
            drawn = self._draw(table, rng, 0.0)
            settings = {**self.get_params(deep=False), "epochs": 1, "schedule": "constant"}
            plan = Plan.resolve(settings, len(drawn.rows), self.schema_.width)
            step = getattr(self, "_step", None)
            if step is None or (isinstance(step, fused.FusedStep) and not drawn.complete):
                self._step = self._make_step(plan, drawn.complete)
            history = self._train(plan, drawn, None)
            self._calibrate(table, drawn, rng)
        history.warn_if_interrupted(plan)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit to X and label its rows: +1 for normal, -1 for anomalies."""
        return self.fit(X).predict(X)

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
            "user/name" of a repository, or a model's folder, which goes first.
        revision : str, optional
            Branch, tag or commit. A commit's hash always means the same model.
        token : str, optional
            Access token; by default the one that `hf auth login` keeps, or `HF_TOKEN`.
        cache_dir : path-like, optional
            Where downloads are kept; by default where the hub's library keeps them.
        endpoint : str, optional
            Address of the hub, for one of your own.

        Raises
        ------
        ModelFileError
            Where there is no such model, the hub cannot be reached, or what came is no model.
        MissingExtraError
            Where the extra `hub` is not installed and the source is no folder.
        """
        from twofold.persistence import hub

        folder = hub.fetch(source, revision, token=token, cache_dir=cache_dir, endpoint=endpoint)
        return load(folder)

    def _build(
        self, table: Table | Stream, rng: np.random.RandomState, device: torch.device
    ) -> None:
        """Infer the schema, and make a network with fresh weights and its objective."""
        statistics = table.statistics if isinstance(table, Stream) else None
        table = table.sample if isinstance(table, Stream) else table
        if table.n_rows < 2:
            raise DataError("Fitting needs at least 2 rows, and this table has n_samples = 1.")
        table.check_finite(missing=True)
        sequences = layers.reads_sequences(self.hidden_layers)
        schema = Schema.infer(table, self.likelihood, self.kinds, statistics, sequences=sequences)
        if isinstance(self._noise, Gaussian):
            schema = replace(schema, noise=self._noise.scale)
        spec = bottleneck.resolve(self.bottleneck, self.n_components)
        require_meaning(spec, self.activation, self.code_activation)
        size = self._size(tensors.encode(schema, table, torch.float32, torch.device("cpu")), rng)
        hidden, n_components = stack_shape(
            schema.width, self.hidden_layers, size, self.corruption is not None
        )
        self.schema_ = schema
        self.history_, self.best_epoch_, self._step = [], 0, None
        self._generator = sampling.torch_generator(rng)
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.network_ = Network(
            schema.width,
            hidden,
            n_components,
            tied=bool(self.tied),
            activation=self.activation,
            code_activation=self.code_activation,
            bottleneck=spec,
            row_shape=schema.row_shape,
            generator=self._generator,
        ).to(device=device, dtype=dtype)
        # A divergence from the prior weighs against the noise of the cells, which is to be learned.
        adapts = isinstance(spec, Variational)
        self._objective = Objective(schema, adapts).to(device=device, dtype=dtype)
        pretraining.require_meaning(self.pretraining, self.network_)
        names = [name for name, _ in self._objective.groups]
        corruption.require_meaning(self._noise, names, self._objective, schema.is_image)

    def _size(self, matrix: tensors.Rows, rng: np.random.RandomState) -> int | None:
        """Return the size of code to train: for a share, the one with which PCA keeps it."""
        if not is_share(self.n_components):
            return None if self.n_components is None else int(self.n_components)
        sample = matrix[torch.from_numpy(rng.permutation(len(matrix))[:_CUT_ROWS])]
        enough = metrics.n_components_for(sample.cpu().numpy(), float(self.n_components))
        # Some more than are enough for PCA on these very rows: held-out rows are harder to keep.
        return min(matrix.shape[1], math.ceil(1.25 * enough) + 1)

    def _cut(self, held_out: tensors.Rows) -> None:
        """Keep as many components as the share in `n_components` takes."""
        if not is_share(self.n_components):
            return
        kept = inference.variance_kept(self.network_, self._objective, held_out[:_CUT_ROWS])
        enough = torch.nonzero(kept >= self.n_components)
        if len(enough):
            self.network_.cut(int(enough[0]) + 1)
            return
        warnings.warn(
            f"{len(kept)} components keep {float(kept[-1]):.3g} of the held-out rows' variance and "
            f"not {self.n_components:.3g}, for which PCA needs fewer. All of them are kept; train "
            f"for more epochs, or ask for a smaller share.",
            TooFewComponentsWarning,
            stacklevel=3,
        )

    @property
    def _noise(self) -> Corruption | None:
        return corruption.resolve(self.corruption)

    def _checkpoint(
        self, folder: str | os.PathLike[str] | None, resume: bool, seconds: float
    ) -> Checkpoint | None:
        """Open the folder for checkpoints, and make sure that they are of these options."""
        if folder is None:
            if resume:
                raise OptionError(
                    "resume goes on from checkpoints: name their folder by checkpoint."
                )
            return None
        if not seconds >= 0:
            raise OptionError(f"checkpoint_seconds={seconds!r} must be a number of at least 0.")
        saved = Checkpoint(folder, resume=resume, seconds=seconds)
        about_the_model = self.get_params(deep=False)
        for name in ("device", "verbose"):
            del about_the_model[name]
        saved.claim("options", modelfile.plain(about_the_model))
        return saved

    def _make_step(self, plan: Plan, complete: bool, team: Team | None = None) -> loop.Step:
        return fused.make_step(
            self.network_,
            self._objective,
            plan,
            complete=complete,
            corruption=self._noise,
            generator=self._generator if team is None else team.chance,
            team=team,
        )

    def _draw(
        self, table: Table | Stream, rng: np.random.RandomState, fraction: float
    ) -> batches.Drawn:
        """Draw the rows that are held out, and leave the others to train on."""
        if isinstance(table, Stream):
            parameter = next(self.network_.parameters())
            return table.draw(self.schema_, parameter.dtype, parameter.device)
        x = self._matrix(table)
        train, held_out = loop.split(x, rng, fraction)
        return batches.Drawn(
            batches.Selection(x, train), held_out, x, train, not tensors.has_holes(x)
        )

    def _train(
        self,
        plan: Plan,
        drawn: batches.Drawn,
        on_event: loop.OnEvent | None,
        saved: Checkpoint | None = None,
        team: Team | None = None,
    ) -> loop.History:
        if on_event is None and self.verbose and (team is None or team.leads):
            from twofold.training.progress import Progress

            with Progress() as progress:
                return self._train(plan, drawn, progress, saved, team)
        assert self._step is not None
        chosen, validation = drawn.rows, drawn.held_out
        interrupted = self._pretrain(plan, drawn, on_event, saved, team)
        if saved is not None:
            saved.claim("data", batches.fingerprint(self.schema_, chosen, validation))
            saved.claim("plan", asdict(plan))
        history = loop.History(ended="interrupted")
        if not interrupted:
            history = loop.fit(
                self._step,
                self.network_,
                self._objective,
                plan,
                chosen if team is None else chosen.share(team.rank, team.size),
                validation,
                self._generator,
                on_event,
                saved,
                team,
            )
        past = len(self.history_)
        entries = [{**entry, "epoch": entry["epoch"] + past} for entry in history.epochs]
        self.history_ = self.history_ + entries
        self.best_epoch_, self.n_iter_ = past + history.best_epoch, max(1, len(self.history_))
        return history

    def _pretrain(
        self,
        plan: Plan,
        drawn: batches.Drawn,
        on_event: loop.OnEvent | None,
        saved: Checkpoint | None,
        team: Team | None,
    ) -> bool:
        """Bring fresh weights to where training begins; tell whether the user ended it there."""
        resumed = saved is not None and saved.found is not None
        if team is not None:
            resumed = team.of_first(resumed)
        if self.pretraining is None or self.history_ or resumed:
            return False
        return pretraining.start(
            self.pretraining,
            self.network_,
            self._objective,
            self.get_params(deep=False),
            plan,
            drawn,
            self._noise,
            self._generator,
            on_event,
            team,
        )

    def _calibrate(
        self, table: Table | Stream, drawn: batches.Drawn, rng: np.random.RandomState
    ) -> None:
        """Fit what scores need after training, set the offset, and compare with PCA."""
        # Densities are mixtures, each step of whose fit is such a product.
        step = row_density.COMPONENTS * len(drawn.positions) * self.schema_.width
        with few_for(step, libraries=True):
            found = calibration.calibrate(
                self.network_,
                self._objective,
                self.schema_,
                table.tables() if isinstance(table, Stream) else [table],
                drawn.x,
                drawn.positions,
                drawn.held_out,
                contamination=self.contamination,
                rng=rng,
                generator=self._generator,
            )
        self._set_calibration(found)

    @classmethod
    def _from_parts(cls, parts: modelfile.Parts) -> Self:
        """Put a fitted estimator together from what `save` wrote."""
        options.check(parts.options)
        ae = cls(**parts.options)
        ae.schema_, ae.network_, ae._objective = parts.schema, parts.network, parts.objective
        ae._set_calibration(parts.calibration)
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
            f"{path} does not fit together: {error!s:.2000} It was altered; copy the whole "
            f"folder again, or fit the model anew."
        ) from error
