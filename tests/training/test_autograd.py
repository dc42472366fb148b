"""The plain step: room for batches, what it forgets, and where its gradient stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold import Autoencoder
from twofold.data.table import Table
from twofold.nn.corruption import Masking
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training.autograd import AutogradStep, corrupt
from twofold.training.config import TrainingConfig

ROWS = np.random.default_rng(0).normal(size=(30, 5))
SCHEMA = Schema.infer(Table(ROWS))
X = torch.from_numpy(SCHEMA.to_matrix(Table(ROWS), np.float64))


def make(**options: Any) -> AutogradStep:
    settings = Autoencoder(batch_size=8, **options).get_params(deep=False)
    config = TrainingConfig.resolve(settings, 30, 5)
    network = Network(5, (), 2, activation="tanh", generator=torch.Generator().manual_seed(0))
    return AutogradStep(network.double(), Objective(SCHEMA).double(), config)


def weights(step: AutogradStep) -> Tensor:
    return torch.cat([p.detach().flatten() for p in step.network.parameters()])


def test_the_buffer_grows_with_the_batch() -> None:
    assert make().buffer(20).shape == (20, 5)


def test_a_missing_cell_leaves_the_update_finite() -> None:
    step, x = make(), X[:8].clone()
    x[2, 3] = torch.nan
    step.update(x, 0.1)
    assert weights(step).isfinite().all()


def test_an_empty_batch_leaves_plain_gradient_descent_where_it_is() -> None:
    step = make(optimizer="sgd")
    before = weights(step)
    step.update(X[:0], 0.1)
    assert torch.equal(weights(step), before)


def test_a_copy_of_the_state_makes_the_same_update() -> None:
    step, copy = make(), make()
    step.update(X[:8], 0.1)
    copy.network.load_state_dict(step.network.state_dict())
    copy.load_state_dict({name: value.clone() for name, value in step.state_dict().items()})
    for each in (step, copy):
        each.update(X[8:16], 0.1)
    assert torch.equal(weights(step), weights(copy))


def test_without_corruption_rows_are_their_own_target() -> None:
    given, target = corrupt(None, X, Objective(SCHEMA), torch.Generator())
    assert given is target is X


def test_corruption_leaves_the_target_clean() -> None:
    objective, noise = Objective(SCHEMA).double(), Masking(0.5)
    given, target = corrupt(noise, X, objective, torch.Generator().manual_seed(0))
    assert torch.equal(target, X)
    assert not torch.equal(given, X)
