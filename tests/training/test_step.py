"""Which step trains a case, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from twofold import Autoencoder, Masking
from twofold.data.table import Table
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training import step
from twofold.training.config import TrainingConfig
from twofold.training.fused import FusedStep
from twofold.training.process_group import SingleProcess
from twofold.training.shared import SharedStep

SCHEMA = Schema.infer(Table(np.random.default_rng(0).normal(size=(30, 5))))


def case(**options: Any) -> tuple[Network, Objective, TrainingConfig]:
    config = TrainingConfig.resolve(Autoencoder(**options).get_params(deep=False), 30, 5)
    network = Network(5, (), 2, activation="tanh", generator=torch.Generator().manual_seed(0))
    return network, Objective(SCHEMA), config


@pytest.fixture
def nothing_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "obstacle", lambda *case: "no compiler")


def test_several_workers_take_the_step_of_one(nothing_native: None) -> None:
    assert step.choose(*case(), workers=SingleProcess(0, 2)) == step.choose(*case())
    assert type(step.make_step(*case(), workers=SingleProcess(0, 2))) is SharedStep


def test_several_workers_count_hidden_cells_by_autograd() -> None:
    hidden = case(corruption=Masking(0.3, only_hidden=True))
    kind, reason = step.choose(*hidden, workers=SingleProcess(0, 2))
    assert (kind, reason) == ("autograd", "workers count hidden cells alone")


def test_complete_dense_rows_take_the_fused_step(nothing_native: None) -> None:
    assert type(step.make_step(*case())) is FusedStep


def test_missing_cells_take_the_fused_step(nothing_native: None) -> None:
    assert type(step.make_step(*case(), complete=False)) is FusedStep


def test_hidden_cells_are_missing_to_the_loss(nothing_native: None) -> None:
    kind, _ = step.choose(*case(corruption=Masking(0.3, only_hidden=True)))
    assert kind == "autograd"


def test_the_reason_names_what_is_in_the_way(nothing_native: None) -> None:
    assert step.choose(*case())[1] == "nothing native: no compiler"
