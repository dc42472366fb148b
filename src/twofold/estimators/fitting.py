"""What surrounds training in a fit: all or nothing, and the size of a code that keeps a share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold import metrics
from twofold.errors import TooFewComponentsWarning
from twofold.inference import apply as inference
from twofold.nn.bottleneck import is_share
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema import tensors
from twofold.training.batches import Drawn

_PROBE_ROWS = 5_000  # enough to measure what components keep


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


def probe(drawn: Drawn) -> Tensor:
    """Return rows to measure a trained network on: held-out ones, else some of the training."""
    return drawn.rows.head(_PROBE_ROWS) if drawn.held_out is None else drawn.held_out[:_PROBE_ROWS]


def n_components_to_train(
    n_components: int | float | None, matrix: tensors.Rows, rng: np.random.RandomState
) -> int | None:
    """Return the size of the code to train: for a share of the variance, a little over PCA's."""
    if not is_share(n_components):
        return None if n_components is None else int(n_components)
    sample = matrix[torch.from_numpy(rng.permutation(len(matrix))[:_PROBE_ROWS])]
    enough = metrics.n_components_for(sample.cpu().numpy(), float(n_components))
    # Some more than are enough for PCA on these very rows: held-out rows are harder to keep.
    return min(matrix.shape[1], math.ceil(1.25 * enough) + 1)


def keep_share(
    n_components: int | float | None, network: Network, objective: Objective, rows: Tensor
) -> None:
    """Cut the code to the components that keep a share of the variance, if one was asked for."""
    if not is_share(n_components):
        return
    kept = inference.variance_kept(network, objective, rows)
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
