"""Rows in batches: each row once, in an order that a generator settles, alone or in shares."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from twofold.data.table import Table
from twofold.schema.schema import Schema
from twofold.training.batches import Selection, TrainingData, fingerprint

X = torch.arange(50.0, dtype=torch.float64)[:, None]


def split(fraction: float, n_rows: int = 50) -> TrainingData:
    return TrainingData.split(X[:n_rows], np.random.RandomState(0), fraction)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("skip", [0, 2])
def test_the_parts_of_all_workers_make_the_batches_of_one(size: int, skip: int) -> None:
    x = torch.arange(50.0)[:, None]

    def batches(selection: Selection) -> list[list[float]]:
        made = selection.batches(8, torch.Generator().manual_seed(3), _room, skip)
        return [batch[:, 0].tolist() for batch in made]

    whole = batches(Selection(x, torch.arange(45)))
    shares = [batches(Selection(x, torch.arange(45)).share(i, size)) for i in range(size)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole


def _room(n_rows: int) -> torch.Tensor:
    return torch.empty(n_rows, 1)


def test_every_row_is_trained_on_or_held_out() -> None:
    data = split(0.4)
    assert data.held_out is not None
    rows = torch.cat([data.rows.head(50), data.held_out[:]])
    assert rows[:, 0].sort().values.tolist() == X[:, 0].tolist()


def test_few_rows_are_all_trained_on() -> None:
    assert split(0.5, n_rows=9).held_out is None


@pytest.mark.parametrize(("n_rows", "expected"), [(20, 5), (50, 12), (10, 2)])
def test_a_small_share_still_holds_out_a_quarter_of_few_rows(n_rows: int, expected: int) -> None:
    held_out = split(0.01, n_rows).held_out
    assert held_out is not None
    assert len(held_out) == expected


def test_two_rows_are_left_to_train_on() -> None:
    assert len(split(0.99, n_rows=20).rows) == 2


def test_missing_cells_make_the_data_incomplete() -> None:
    x = X.clone()
    x[3] = torch.nan
    assert not TrainingData.split(x, np.random.RandomState(0), 0.0).complete


def test_a_trained_network_is_measured_on_held_out_rows() -> None:
    data = split(0.4)
    assert data.held_out is not None
    assert torch.equal(data.probe(), data.held_out[:])


def test_one_changed_cell_changes_the_fingerprint() -> None:
    schema = Schema.infer(Table(X.numpy()))
    changed = X.clone()
    changed[7] += 1
    before, after = (
        fingerprint(schema, Selection(x, torch.arange(50)), None) for x in (X, changed)
    )
    assert {name for name in before if before[name] != after[name]} == {"the cells"}


def test_copies_of_a_row_are_held_out_together() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    data = TrainingData.split(x, np.random.RandomState(0), 0.1, apart=True)
    assert data.held_out is not None
    held, train = data.held_out[:], x[data.positions]
    assert 24 <= len(held) < 30
    assert len(held) + len(train) == 240
    assert not {tuple(row) for row in held.tolist()} & {tuple(row) for row in train.tolist()}


def test_rows_that_differ_are_held_out_as_they_come() -> None:
    x = torch.arange(300.0).reshape(100, 3)
    together, alone = (
        TrainingData.split(x, np.random.RandomState(0), 0.1, apart=apart) for apart in (True, False)
    )
    assert torch.equal(together.positions, alone.positions)
