"""Rows that are encoded when they are asked for are those of the whole matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from twofold import Autoencoder
from twofold.data import sources
from twofold.data.table import Table
from twofold.schema import tensors
from twofold.schema.schema import Schema
from twofold.schema.tensors import EncodedRows

RNG = np.random.default_rng(6)
N = 300
FRAME = pd.DataFrame(
    {
        "height": RNG.normal(170, 10, N),
        "town": RNG.choice([f"t{i}" for i in range(12)], N),
        "visits": RNG.poisson(2, N),
        "member": RNG.random(N) < 0.3,
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), unit="D"),
    }
)
FRAME.loc[::7, "height"] = np.nan
FRAME.loc[::11, "town"] = None


def parts() -> tuple[Schema, Table]:
    table = sources.read(FRAME)
    return Schema.infer(table), table


def lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_LARGE", 0)
    monkeypatch.setattr(tensors, "_MUCH_LARGER", 0)


def both(monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, EncodedRows]:
    schema, table = parts()
    cpu = torch.device("cpu")
    whole = tensors.encode(schema, table, torch.float32, cpu)
    lazily(monkeypatch)
    lazy = tensors.encode(schema, table, torch.float32, cpu)
    assert isinstance(whole, torch.Tensor)
    assert isinstance(lazy, EncodedRows)
    return whole, lazy


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(nan=-99.0), b.nan_to_num(nan=-99.0))


def test_rows_by_number_by_slice_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lazy = both(monkeypatch)
    some = torch.tensor([5, 299, 0, 5])
    assert lazy.shape == tuple(whole.shape)
    assert len(lazy) == len(whole)
    assert same(lazy[some], whole[some])
    assert same(lazy[10:20], whole[10:20])
    assert same(torch.cat(list(lazy.split(64))), whole)


def test_picked_and_taken_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lazy = both(monkeypatch)
    some = torch.tensor([7, 3, 250])
    a, b = tensors.pick(lazy, some), tensors.pick(whole, some)
    assert isinstance(a, EncodedRows)
    assert same(a[:], b[:])
    out = torch.empty(3, whole.shape[1])
    tensors.take(lazy, some, out)
    assert same(out, whole[some])


def test_holes_are_found_where_the_network_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lazy = both(monkeypatch)
    assert tensors.has_holes(whole)
    assert tensors.has_holes(lazy)
    table = sources.read(FRAME.dropna())
    filled = EncodedRows(Schema.infer(table), table, torch.float32, torch.device("cpu"))
    assert not tensors.has_holes(filled)


def test_small_matrices_are_made_at_once() -> None:
    schema, table = parts()
    made = tensors.encode(schema, table, torch.float64, torch.device("cpu"))
    assert isinstance(made, torch.Tensor)
    assert made.dtype == torch.float64


@pytest.mark.parametrize("contamination", ["auto", 0.1])
def test_a_model_is_the_same_either_way(
    monkeypatch: pytest.MonkeyPatch, contamination: float | str
) -> None:
    def fit() -> Autoencoder:
        ae = Autoencoder(epochs=2, random_state=0, contamination=contamination)
        return ae.fit(FRAME)

    whole = fit()
    lazily(monkeypatch)
    lazy = fit()
    a, b = whole.network_.state_dict(), lazy.network_.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole.history_[-1]["validation_loss"] == lazy.history_[-1]["validation_loss"]
    assert whole.offset_ == pytest.approx(lazy.offset_, rel=1e-6)
    np.testing.assert_array_equal(whole.calibration_scores_, lazy.calibration_scores_)


def test_training_takes_a_flag_beyond_0_and_1_for_the_nearer_one() -> None:
    x = np.column_stack([RNG.normal(size=60), np.arange(60) % 2]).astype(np.float32)
    options = {"likelihood": {"x1": "bernoulli"}, "precision": "float32"}
    ae = Autoencoder(n_components=1, epochs=2, random_state=0, **options).fit(x)
    wild = x.copy()
    wild[:, 1] *= 5
    before = wild.copy()
    ae.partial_fit(wild)
    np.testing.assert_array_equal(wild, before)
    assert ae.history_[-1]["loss"] > -2
    clipped = tensors.encode(ae.schema_, sources.read(wild), torch.float32, torch.device("cpu"))
    assert isinstance(clipped, torch.Tensor)
    assert set(clipped[:, 1].tolist()) == {0.0, 1.0}
