"""What surrounds training in a fit: the schema, the network, the size of the code, warnings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from twofold import metrics
from twofold.data.table import Table
from twofold.errors import DataError, OptionError, TooFewComponentsWarning
from twofold.inference import apply as inference
from twofold.inference import calibration, code_statistics, sampling
from twofold.nn import bottleneck, corruption, layers
from twofold.nn.bottleneck import is_share
from twofold.nn.corruption import Gaussian
from twofold.nn.network import Network, stack_shape
from twofold.nn.objective import Objective
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.training import pretraining
from twofold.training.checkpoint import Checkpoint
from twofold.training.process_group import current_workers
from twofold.training.streaming import Stream

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder

_SIZE_ROWS = 5_000  # enough to tell how many components keep a share of the variance


@contextmanager
def restore_on_failure(estimator: Any) -> Iterator[None]:
    """Restore the estimator, weights included, if the body raises."""
    before = estimator.__dict__.copy()
    modules = [before[name] for name in ("network_", "_objective") if name in before]
    states = [deepcopy(module.state_dict()) for module in modules]
    try:
        yield
    except BaseException:
        for module, state in zip(modules, states, strict=True):
            module.load_state_dict(state)
        if "_step" in before:
            before["_step"] = None  # its memory of past gradients belongs to what was undone
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise


def random_state(
    seed: int | np.random.RandomState | None, saved: Checkpoint | None
) -> np.random.RandomState:
    """Return the generator of a fit: as in the interrupted run, and the same in all workers."""
    rng = sampling.random_state(seed)
    if saved is not None:
        saved.follow(rng)
    current_workers().synchronize_random_state(rng)
    return rng


def sample_of(rows: Table | Stream) -> Table:
    """Return rows in memory: all, or the sample of a stream."""
    return rows.sample if isinstance(rows, Stream) else rows


def infer_schema(ae: Autoencoder, rows: Table | Stream) -> Schema:
    """Infer what each column is, from the rows and the options.

    Raises
    ------
    DataError
        If there are fewer than two rows, infinite cells, or no column to learn from.
    """
    table = sample_of(rows)
    statistics = rows.statistics if isinstance(rows, Stream) else None
    if table.n_rows < 2:
        raise DataError("Fitting needs at least 2 rows, and this table has n_samples = 1.")
    table.check_finite(missing=True)
    sequences = layers.reads_sequences(ae.hidden_layers)
    schema = Schema.infer(table, ae.likelihood, ae.kinds, statistics, sequences=sequences)
    noise = corruption.resolve(ae.corruption)
    return replace(schema, noise=noise.scale) if isinstance(noise, Gaussian) else schema


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
    rows: Table | Stream,
    rng: np.random.RandomState,
) -> int | None:
    """Return the size of the code to train: for a share of the variance, a little over PCA's."""
    if not is_share(n_components):
        return None if n_components is None else int(n_components)
    matrix = tensors.encode(schema, sample_of(rows), torch.float32, torch.device("cpu"))
    sample = matrix[torch.from_numpy(rng.permutation(len(matrix))[:_SIZE_ROWS])]
    enough = metrics.n_components_for(sample.cpu().numpy(), float(n_components))
    # Some more than are enough for PCA on these very rows: held-out rows are harder to keep.
    return min(matrix.shape[1], math.ceil(1.25 * enough) + 1)


def build_network(
    ae: Autoencoder, schema: Schema, size: int | None, generator: torch.Generator
) -> Network:
    """Make the network that the options ask for, with fresh weights."""
    spec = bottleneck.resolve(ae.bottleneck, ae.n_components)
    spec.check(ae.activation, ae.code_activation)
    hidden, n_components = stack_shape(
        schema.width, ae.hidden_layers, size, ae.corruption is not None
    )
    return Network(
        schema.width,
        hidden,
        n_components,
        tied=bool(ae.tied),
        activation=ae.activation,
        code_activation=ae.code_activation,
        bottleneck=spec,
        row_shape=schema.row_shape,
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
    corruption.require_meaning(noise, names, objective, ae.schema_.is_image)


def warn_about_quality(ae: Autoencoder, rows: Tensor) -> None:
    """Warn if the code is unused on the rows, or PCA reconstructs better."""
    code_statistics.warn_if_collapsed(ae.network_, ae.scorer_, rows)
    # Elsewhere, the squared error of clean rows is not what training minimises.
    plain = ae.network_.bottleneck.is_plain
    if plain and not ae.scorer_.needs_weights and ae.corruption is None:
        ae.comparison_.warn_if_worse()


def keep_share(
    n_components: int | float | None, network: Network, schema: Schema, rows: Tensor
) -> None:
    """Cut the code to the components that keep a share of the variance, if one was asked for."""
    if not is_share(n_components):
        return
    kept = inference.variance_kept(network, calibration.unfitted_scorer(network, schema), rows)
    enough = torch.nonzero(kept >= n_components)
    if len(enough):
        network.cut(int(enough[0]) + 1)
        return
    warnings.warn(
        f"{len(kept)} components keep {float(kept[-1]):.3g} of the held-out rows' variance and "
        f"not {n_components:.3g}, for which PCA needs fewer. All of them are kept; train for more "
        f"epochs, or ask for a smaller share.",
        TooFewComponentsWarning,
        stacklevel=3,
    )
