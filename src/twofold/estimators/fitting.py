"""What surrounds training in a fit: the schema, the network, the size of the code, warnings."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold import metrics, options
from twofold.data import convert
from twofold.data.chunks import together
from twofold.data.sources import row_chunks
from twofold.data.table import Table
from twofold.errors import (
    DataError,
    IgnoredColumnsWarning,
    OptionError,
    TooFewComponentsWarning,
    TwofoldError,
)
from twofold.estimators import validation
from twofold.inference import apply as inference
from twofold.inference import calibration, code_statistics, sampling
from twofold.inference.regressions import Inputs, Regressions
from twofold.nn import bottleneck, corruption, layers, row_density
from twofold.nn.bottleneck import is_share
from twofold.nn.corruption import Masking
from twofold.nn.network import Network, resolve_activation, stack_shape, takes_shortcut
from twofold.nn.objective import Objective
from twofold.nn.threads import few_for
from twofold.persistence.model import ModelState
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.training import pretraining
from twofold.training.batches import InMemory, Source, TrainingData, fingerprint
from twofold.training.checkpoint import Checkpoint
from twofold.training.config import TrainingConfig
from twofold.training.events import Callback, Event
from twofold.training.process_group import current_workers
from twofold.training.trainer import History, Trainer

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder

logger = logging.getLogger(__name__)

_LEAST_HIDDEN = 0.05  # share of the cells
_SHARE = 0.8  # of the variance, that PCA keeps with a code of the default size

Array = NDArray[Any]
_TURNS = 5  # parts of a row's cells that are hidden in turn
_FEW_ROWS = 2_000  # with more, held-out rows alone tell what members are worth
_SHOWN = 5  # columns in a warning
_SIZE_ROWS = 5_000  # enough to tell how many components keep a share of the variance
_IMPUTED_ROWS = 2_048  # at a time: some 50 milliseconds


@contextmanager
def restore_on_failure(estimator: Any) -> Iterator[None]:
    """Restore the estimator, weights included, if the body raises.

    `_fits` is uneven meanwhile, which `undisturbed` sees in other threads.
    """
    before = estimator.__dict__.copy()
    n_fits = before.get("_fits", 0)
    estimator._fits = n_fits + 1
    modules = [before[name] for name in ("network_", "_objective") if name in before]
    states = [deepcopy(module.state_dict()) for module in modules]
    try:
        yield
    except BaseException:
        for module, state in zip(modules, states, strict=True):
            module.load_state_dict(state)
        if "_step" in before:
            before["_step"] = None  # its memory of past gradients belongs to what was undone
        for name in estimator.__dict__.keys() - before.keys():
            del estimator.__dict__[name]
        estimator.__dict__.update(before)
        raise
    finally:
        if "network_" in estimator.__dict__:
            estimator._fits = n_fits + 2
        else:
            estimator.__dict__.pop("_fits", None)


@contextmanager
def undisturbed(estimator: Any) -> Iterator[None]:
    """Raise TwofoldError if the estimator is fitted while the body reads it.

    Its attributes are replaced one after the other, so the result would be of neither model.
    """
    before = estimator.__dict__.get("_fits", 0)
    changed = None
    try:
        if before % 2 == 0:
            yield
    except Exception as error:
        if estimator.__dict__.get("_fits", 0) == before:
            raise
        changed = error
    if before % 2 or estimator.__dict__.get("_fits", 0) != before:
        raise TwofoldError(
            "Expected an estimator that stays as it is, got one that is being fitted in another "
            "thread or by a callback. Call it when the fit has ended, or load the model a second "
            "time."
        ) from changed


def random_state(
    seed: int | np.random.RandomState | None, saved: Checkpoint | None
) -> np.random.RandomState:
    """Return the generator of a fit: as in the interrupted run, and the same in all workers."""
    rng = sampling.random_state(seed)
    if saved is not None:
        saved.follow(rng)
    current_workers().synchronize_random_state(rng)
    return rng


def infer_schema(ae: Autoencoder, rows: Source) -> Schema:
    """Infer what each column is, from the rows and the options.

    Raises
    ------
    DataError
        If there are fewer than two rows, infinite cells, or no column to learn from.
    """
    table = rows.sample
    if table.n_rows < 2:
        raise DataError("Expected at least 2 rows to fit, got n_samples = 1. Add rows.")
    table.check_finite(missing=True)
    sequences = layers.reads_sequences(ae.hidden_layers)
    schema = Schema.infer(table, ae.likelihood, ae.kinds, rows.statistics, sequences=sequences)
    noise = corruption.resolve(ae.corruption)
    return schema if noise is None else replace(schema, noise=noise.noise)


def require_settled_size(n_components: int | float | None) -> None:
    """Raise OptionError if the size of the code is known only after training."""
    if is_share(n_components):
        raise OptionError(
            f"partial_fit needs an integer n_components, got {n_components!r}. A share of the "
            f"variance is only supported by fit."
        )


def n_components_to_train(
    n_components: int | float | None,
    schema: Schema,
    rows: Source,
    rng: np.random.RandomState,
) -> int | None:
    """Return the size of the code to train: for a share of the variance, a little over PCA's.

    If nothing is said, it is what a table holds: as many components as PCA needs for four fifths of
    the variance, with each column counting alike, however many inputs it has, and at most one per
    column. None for pixels and sequences, whose columns are not things of their own.
    """
    if n_components is not None and not is_share(n_components):
        return int(n_components)
    if n_components is None and not schema.is_table:
        return None
    matrix = tensors.encode(schema, rows.sample, torch.float32, torch.device("cpu"))
    sample = matrix[torch.from_numpy(rng.permutation(len(matrix))[:_SIZE_ROWS])].numpy()
    if n_components is None:
        columns = [at for at in schema.inputs if at.stop > at.start]
        known = ~np.isnan(sample)
        mean = np.where(known, sample, 0).sum(0, dtype=np.float64) / known.sum(0).clip(1)
        sample = np.where(known, sample - mean, 0)
        for at in columns:
            sample[:, at] /= math.sqrt(float((sample[:, at] ** 2).mean(0).sum())) or 1.0
        enough = min(len(columns), metrics.n_components_for(sample, _SHARE))
        logger.info(
            "n_components=%d: with as many, PCA keeps %g %% of what the table's %d columns hold",
            enough,
            100 * _SHARE,
            len(columns),
        )
        return enough
    enough = metrics.n_components_for(sample, float(n_components))
    # Some more than are enough for PCA on these very rows: held-out rows are harder to keep.
    return min(matrix.shape[1], math.ceil(1.25 * enough) + 1)


def build_network(
    ae: Autoencoder,
    schema: Schema,
    size: int | None,
    generator: torch.Generator,
) -> Network:
    """Make the network that the options ask for, with fresh weights.

    Of tables, "auto" is a wide network with a shortcut.
    """
    is_table = schema.is_table
    spec = bottleneck.resolve(ae.bottleneck, ae.n_components)
    activation = resolve_activation(ae.activation, is_table)
    spec.check(activation, ae.code_activation)
    hidden, n_components = stack_shape(
        schema.width, ae.hidden_layers, size, ae.corruption is not None, is_table
    )
    shortcut = takes_shortcut(
        ae.shortcut,
        hidden,
        is_table=is_table,
        code_activation=ae.code_activation,
        bottleneck=spec,
        pretraining=ae.pretraining,
    )
    return Network(
        schema.width,
        hidden,
        n_components,
        tied=bool(ae.tied),
        activation=activation,
        code_activation=ae.code_activation,
        bottleneck=spec,
        row_shape=schema.row_shape,
        shortcut=shortcut,
        generator=generator,
    )


def objective_of(network: Network, schema: Schema) -> Objective:
    """Return what training minimises, where the network is, and as precise."""
    # A divergence from the prior weighs against the noise of the cells, which is to be learned.
    parameter = next(network.parameters())
    objective = Objective(schema, adapts=network.bottleneck.has_posterior)
    return objective.to(device=parameter.device, dtype=parameter.dtype)


def require_meaning(ae: Autoencoder, network: Network, objective: Objective) -> None:
    """Raise OptionError if pretraining or corruption do not fit the network and the columns."""
    pretraining.require_meaning(ae.pretraining, network)
    noise, names = corruption.resolve(ae.corruption), list(ae.schema_.likelihoods())
    if noise is not None:
        noise.check(names, objective, ae.schema_.is_image)


def warn_about_quality(ae: Autoencoder, rows: Tensor) -> None:
    """Warn if columns were left out for a few cells, the code is unused, or PCA is better."""
    unlike = [f"{name!r} {note}" for name, note in ae.schema_.unlike.items()]
    if unlike:
        n, more = len(unlike), f"; and {len(unlike) - _SHOWN} more" * (len(unlike) > _SHOWN)
        warnings.warn(
            f"{n} column{'s are' if n > 1 else ' is'} ignored for some of the cells: "
            f"{'; '.join(unlike[:_SHOWN])}{more}.",
            IgnoredColumnsWarning,
            stacklevel=3,
        )
    code_statistics.warn_if_collapsed(ae.network_, ae.scorer_, rows)
    # Elsewhere, what training minimises is not the error of clean rows.
    if ae.network_.bottleneck.is_plain and ae.corruption is None:
        ae.comparison_.warn_if_worse()


def build(ae: Autoencoder, rows: Source, rng: np.random.RandomState) -> None:
    """Infer the schema, and make a network with fresh weights and its objective."""
    device = inference.find_device(ae.device)
    ae.schema_ = infer_schema(ae, rows)
    size = n_components_to_train(ae.n_components, ae.schema_, rows, rng)
    ae.history_, ae.best_epoch_, ae._step = [], 0, None
    ae._generator = sampling.torch_generator(rng)
    dtype = torch.float64 if ae.precision == "float64" else torch.float32
    network = build_network(ae, ae.schema_, size, ae._generator)
    ae.network_ = network.to(device=device, dtype=dtype)
    ae._objective = objective_of(ae.network_, ae.schema_)
    require_meaning(ae, ae.network_, ae._objective)


def begin(ae: Autoencoder, rows: Source, rng: np.random.RandomState, first: bool) -> None:
    """Make what is to be trained, at the first time; later let what there is take these rows."""
    if first:
        build(ae, rows.repeated() if isinstance(rows, InMemory) else rows, rng)
        return
    ae.schema_ = ae.schema_.widened(rows.sample)
    ae._objective.spread.copy_(ae.scorer_.spread)


def split(ae: Autoencoder, rows: Source, validation_data: Any = None) -> TrainingData:
    """Return the rows to train on, and those that are held out: a fraction, or others."""
    parameter = next(ae.network_.parameters())
    data = rows.draw(ae.schema_, parameter.dtype, parameter.device)
    if validation_data is None:
        return data
    return replace(data, held_out=ae._matrix(validation.held_out(ae, validation_data)))


def trainer(
    ae: Autoencoder,
    data: TrainingData,
    callbacks: Sequence[Callback] = (),
    saved: Checkpoint | None = None,
    **changed: Any,
) -> Trainer:
    """Return what trains the network as the options say, of which some are `changed`.

    A wide network with a shortcut gives back all that it sees, and would not learn what to make of
    the zeros in place of missing cells: where there are some, more are hidden while it trains.
    """
    if ae.network_.shortcut is not None and ae.corruption is None and not data.complete:
        missing = float(torch.isnan(data.rows.head(_SIZE_ROWS)).double().mean())
        changed["corruption"] = Masking(min(0.5, max(_LEAST_HIDDEN, missing)))
    params = {**ae.get_params(deep=False), **changed}
    columns = [at for at in ae.schema_.inputs if at.stop > at.start]
    config = TrainingConfig.resolve(
        params,
        len(data.rows),
        ae.schema_.width,
        ae.network_.fan_in,
        n_columns=None if ae.network_.shortcut is None else len(columns),
    )
    if saved is not None:
        saved.claim("data", fingerprint(ae.schema_, data.rows, data.held_out))
        saved.claim("training", config.to_json())
    return Trainer(ae.network_, ae._objective, config, ae._generator, callbacks, saved)


def train(ae: Autoencoder, trainer: Trainer, data: TrainingData) -> History:
    """Pretrain fresh weights, train, and note what happened."""
    past, history = len(ae.history_), History(ended="interrupted")
    how = ae.pretraining
    if past or not pretraining.start(how, trainer, data, ae.get_params(deep=False)):
        history = trainer.fit(data)
        starts_as_pca = ae.network_.shortcut is not None and data.held_out is not None
        if starts_as_pca and trainer.config.keeps_best and not past:
            if history.best_epoch and not pretraining.beats_pca(trainer, data):
                history.best_epoch = 0
            if not history.best_epoch:
                pretraining.settle_for_pca(trainer, data)
            elif history.ended == "all epochs done" and trainer.config.cooldown:
                trainer.cool_down(data, history)
    ae._step = trainer.step
    ae.history_ = [*ae.history_, *history.entries(after=past)]
    ae.best_epoch_, ae.n_iter_ = past + history.best_epoch, max(1, len(ae.history_))
    return history


def calibrate(
    ae: Autoencoder, rows: Source, data: TrainingData, rng: np.random.RandomState
) -> None:
    """Fit what scores need after training, set the offset, and compare with PCA."""
    # Densities are mixtures, each step of whose fit is such a product.
    step = row_density.COMPONENTS * len(data.positions) * ae.schema_.width
    with few_for(step, libraries=True):
        found = calibration.calibrate(
            ae.network_,
            ae.schema_,
            data,
            rows.tables(),
            rows.sample,
            donors=ae.donors,
            contamination=ae.contamination,
            rng=rng,
            generator=ae._generator,
        )
    _set_calibration(ae, found)


def _set_calibration(ae: Autoencoder, found: calibration.Calibration) -> None:
    ae._calibration, ae.scorer_ = found, found.scorer
    ae.pca_, ae.comparison_, ae.offset_ = found.pca, found.comparison, found.offset
    ae.calibration_scores_ = found.scores


def imputed(
    ae: Autoencoder, table: Table, n_draws: int, generator: torch.Generator
) -> Iterator[tuple[slice, Array]]:
    """Give the cells of a table with missing ones filled: by best values, or by several draws.

    They come some rows at a time, with the place of these: the whole table, as often as is drawn.
    """
    best = n_draws == 1
    function = sampling.imputer(None if best else generator)
    numbers = None if best else sampling.numpy_generator(generator)
    for _ in range(n_draws):
        for at in row_chunks(table.n_rows, ae.network_.widest, _IMPUTED_ROWS):
            part = table.slice(at)
            x = ae._run(function, part, at.start)
            yield at, sampling.cells(ae.schema_, ae._calibration.cells, x, part, numbers)


def sampled(ae: Autoencoder, n: int, generator: torch.Generator) -> Iterator[Array]:
    """Give the cells of new rows, some rows at a time."""
    for x in sampling.sample(ae.network_, ae.scorer_, n, generator):
        numbers = sampling.numpy_generator(generator)
        yield sampling.cells(ae.schema_, ae._calibration.cells, x, rng=numbers)


def filled(ae: Autoencoder, X: Any, fill: Callable[[Table], list[Array]]) -> list[Any]:
    """Return copies of the rows of X with missing cells filled, one for each table of cells."""
    unfilled = sampling.Unfilled(ae.schema_)

    def tables(table: Table, part: Any) -> list[Any]:
        found = fill(table)
        for cells in found:
            unfilled.add(table.values, cells)
        formats = ae.schema_.formats(table.formats)
        return [convert.fill(part, table, cells, formats) for cells in found]

    made = [together(parts) for parts in zip(*ae._each(tables, X), strict=True)]
    unfilled.warn()
    return made


def drawn_again(ae: Autoencoder, X: Any) -> tuple[Source, TrainingData, np.random.RandomState]:
    """Return the rows of a `fit` of a size of code, those it held out among them, as it drew them.

    The estimator has a seed. The generator that drew them comes, too, for what is drawn next.
    """
    rng = random_state(ae.random_state, None)
    rows = validation.training_rows(ae, X, rng, ae.validation_fraction, reset=False)
    sampling.torch_generator(rng)  # the one that `build` makes
    return rows, split(ae, rows), rng


def rows_of(rows: Source, data: TrainingData) -> tuple[Table, Table]:
    """Return the rows that a `fit` trained on, and those that it held out, as tables."""
    table = rows.sample
    train = np.sort(data.positions.numpy())
    train = train[train < table.n_rows]
    rest = np.setdiff1d(np.arange(table.n_rows), train)
    if not len(rest):  # those of files, which are a sample, are all trained on
        train, rest = np.split(train, [len(train) - len(train) // 10])
    return table.take(train), table.take(rest)


def siblings(
    ae: Autoencoder,
    data: TrainingData,
    n: int,
    rng: np.random.RandomState,
    callbacks: Sequence[Callback] = (),
) -> list[Network]:
    """Train `n` more networks like that of a fitted estimator, on the same rows.

    They begin with other random weights and meet the rows in another order. If the user
    interrupts, those that there are by then are enough. Events call them "network 2 of 3", and so
    on.
    """
    networks = []
    for number in range(n):
        other = copy(ae)
        other.history_, other.best_epoch_, other._step = [], 0, None
        other._generator = sampling.torch_generator(rng)
        network = build_network(ae, ae.schema_, ae.network_.n_components, other._generator)
        other.network_ = network.to(next(ae.network_.parameters()))
        other._objective = objective_of(other.network_, ae.schema_)
        run = trainer(other, data, callbacks)
        run.stage = f"network {number + 2} of {n + 1}"
        history = train(other, run, data)
        networks.append(other.network_)
        if history.is_interrupted:
            history.warn_if_interrupted(run)
            break
    return networks


def expected(ae: Autoencoder, networks: Sequence[Network], table: Table) -> Array:
    """Return the inputs of a table's rows, missing ones by the mean of what networks expect."""
    parts = ae.scorer_, ae.schema_, table
    answers = [inference.apply_to_table(sampling.imputer(), one, *parts) for one in networks]
    return np.asarray(np.mean(answers, axis=0))


def mixed(
    ae: Autoencoder, networks: Sequence[Network], members: Regressions | None, table: Table
) -> Array:
    """Return the cells of a table with missing ones filled by networks and regressions."""
    x = expected(ae, networks, table)
    if members is not None:
        x = members.fill(ae.schema_, table, x)
    return sampling.cells(ae.schema_, ae._calibration.cells, x, table)


def regressions(
    ae: Autoencoder,
    networks: Sequence[Network],
    rows: Source,
    data: TrainingData,
    callbacks: Sequence[Callback] = (),
) -> Regressions | None:
    """Fit what fills cells next to networks, and weigh all by hidden cells.

    None for images and sequences, and for tables too wide for it. Events of it count fits.
    """
    if not ae.schema_.is_table:
        return None
    training, held_out = rows_of(rows, data)
    every = replace(training, values=np.concatenate([training.values, held_out.values]))
    inputs = Inputs.fit(ae.schema_, every)
    if not inputs.is_narrow:
        return None
    rng = np.random.RandomState(0)
    judged = every if every.n_rows <= _FEW_ROWS else held_out
    draws = rng.uniform(size=judged.values.shape).argsort(1).argsort(1)
    hidden = np.stack([draws % _TURNS == turn for turn in range(_TURNS)])
    values = held_out.values
    answers = [
        expected(ae, networks, replace(held_out, values=np.where(gone, np.nan, values)))
        for gone in hidden[:, -held_out.n_rows :]
    ]
    begun = time.perf_counter()

    def watch(done: int, total: int) -> None:
        seconds, kind = time.perf_counter() - begun, "epoch" if done else "start"
        event = Event(kind, done, total, 1, 1, {}, 0.0, seconds, 0.0, "regressions", "fit")
        for callback in callbacks:
            callback(event)

    return Regressions.fit(ae.schema_, training, held_out, hidden, answers, inputs, watch)


def state_of(ae: Autoencoder) -> ModelState:
    """Return everything that makes a fitted estimator."""
    return ModelState(
        options=ae.get_params(deep=False),
        schema=ae.schema_,
        feature_names=hasattr(ae, "feature_names_in_"),
        network=ae.network_,
        calibration=ae._calibration,
        history=ae.history_,
        best_epoch=ae.best_epoch_,
    )


def from_state(kind: type[Autoencoder], state: ModelState) -> Autoencoder:
    """Return the fitted estimator that a state makes."""
    options.check(state.options)
    ae = kind(**state.options)
    ae.schema_, ae.network_ = state.schema, state.network
    _set_calibration(ae, state.calibration)
    ae._objective = objective_of(ae.network_, ae.schema_)
    ae._objective.continue_from(ae.scorer_)
    ae.n_features_in_ = len(ae.schema_.columns)
    if state.feature_names:
        ae.feature_names_in_ = np.array(ae.schema_.names, dtype=object)
    ae.history_, ae.best_epoch_ = state.history, state.best_epoch
    ae.n_iter_ = max(1, len(ae.history_))
    ae._generator = torch.Generator().manual_seed(len(ae.history_))
    return ae


def keep_share(ae: Autoencoder, n_components: int | float | None, rows: Tensor) -> None:
    """Cut the code to the components that keep a share of the variance, if one was asked for."""
    if not is_share(n_components):
        return
    network = ae.network_
    kept = inference.variance_kept(network, calibration.unfitted_scorer(network, ae.schema_), rows)
    enough = torch.nonzero(kept >= n_components)
    if len(enough):
        network.cut(int(enough[0]) + 1)
        ae._step = None  # its optimizer remembers gradients of what is cut off
        return
    warnings.warn(
        f"{len(kept)} components keep {float(kept[-1]):.3g} of the held-out rows' variance and "
        f"not {n_components:.3g}, for which PCA needs fewer. All of them are kept; train for more "
        f"epochs, or ask for a smaller share.",
        TooFewComponentsWarning,
        stacklevel=3,
    )
