"""Levels count what they are given the column that says most about them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from twofold.data import sources
from twofold.nn.level_model import KNOTS, LevelModel, Tempering, _quantiles
from twofold.schema.schema import Schema

N = 1000


def journeys() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    port = rng.choice(list("SCQ"), N, p=[0.7, 0.2, 0.1])
    grade = rng.choice([1.0, 2.0, 3.0], N, p=[0.2, 0.3, 0.5])
    return pd.DataFrame(
        {
            "port": port,
            "town": pd.Series(port).map({"S": "South", "C": "Cher", "Q": "Queens"}),
            "fare": rng.gamma(4, 40 / grade**2),
            "noise": rng.choice(list("uvw"), N),
            "flag": rng.random(N) < 0.3,
            "class": pd.Series(grade).map({1: "first", 2: "second", 3: "third"}),
        }
    )


FRAME = journeys()
TABLE = sources.read(FRAME)
SCHEMA = Schema.infer(TABLE)
X = torch.from_numpy(SCHEMA.to_matrix(TABLE, np.float64))


@pytest.fixture(scope="module")
def model() -> LevelModel:
    found = LevelModel(SCHEMA).double()
    found.fit(X, None)
    return found


def cells(model: LevelModel, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    table = sources.read(frame)
    x = torch.from_numpy(SCHEMA.to_matrix(table, np.float64))
    seen = ~x.isnan()
    found = model(torch.where(seen, x, 0.0), None if seen.all() else seen).numpy()
    return {SCHEMA.names[i]: found[:, j] for j, i in enumerate(model.targets)}


def test_each_level_is_given_by_the_column_that_says_most(model: LevelModel) -> None:
    names = {}
    for j, i in enumerate(model.targets):
        partner = model._owners[int(model.partner[j])]
        names[SCHEMA.names[i]] = SCHEMA.names[partner] if model.has_partner[j] else None
    assert names["port"] == "town"
    assert names["town"] == "port"
    assert names["class"] == "fare"
    assert names["noise"] is None


def test_a_rare_level_that_the_row_agrees_with_costs_nothing(model: LevelModel) -> None:
    found = cells(model, FRAME)
    both = found["port"] + found["town"]
    assert both.min() > -0.1
    assert both[FRAME.port == "Q"].min() > -0.1


def test_a_level_that_contradicts_the_other_costs_nats(model: LevelModel) -> None:
    found = cells(model, FRAME.assign(town=np.roll(FRAME.town, 1)))
    wrong = FRAME.town != np.roll(FRAME.town, 1)
    assert found["town"][wrong].max() < -3
    assert found["port"][wrong].max() < -3


def test_a_level_without_another_column_counts_its_share(model: LevelModel) -> None:
    share = (FRAME.noise == "u").mean()
    found = cells(model, FRAME)["noise"][FRAME.noise == "u"]
    np.testing.assert_allclose(found, math.log(share), atol=1e-3)


def test_given_what_is_missing_a_level_counts_its_share(model: LevelModel) -> None:
    found = cells(model, FRAME.assign(town=None))
    share = (FRAME.port == "Q").mean()
    np.testing.assert_allclose(found["port"][FRAME.port == "Q"], math.log(share), atol=1e-3)
    column = [SCHEMA.names[i] for i in model.targets].index("town")
    np.testing.assert_allclose(found["town"], float(model.typical[column]))


def test_a_level_that_was_never_seen_costs_nats(model: LevelModel) -> None:
    found = cells(model, FRAME.assign(port="Z"))
    assert found["port"].max() < -5


def test_the_most_probable_levels_go_together(model: LevelModel) -> None:
    x_hat = X.clone()
    at = SCHEMA.inputs[0]
    x_hat[:, at] = 1 / 3
    settled = model.most_probable(x_hat)
    np.testing.assert_array_equal(
        SCHEMA.from_matrix(settled.numpy())[:, 0], SCHEMA.from_matrix(X.numpy())[:, 0]
    )
    one_hot = settled[:, at]
    assert set(one_hot.flatten().tolist()) == {0.0, 1.0}


def test_two_hundred_levels_are_counted() -> None:
    rng = np.random.default_rng(0)
    code = rng.integers(0, 200, 4000)
    frame = pd.DataFrame({"code": [f"c{i:03}" for i in code], "group": [f"g{i % 7}" for i in code]})
    table = sources.read(frame)
    schema = Schema.infer(table)
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    found = LevelModel(schema).double()
    found.fit(x, None)
    assert found.has_partner.all()
    assert torch.isfinite(found(x, None)).all()


NEAR = {
    "apart by rounding alone": np.repeat([-1.4, 0.72506, 0.72506 + 1e-15, 4.3], 25),
    "apart less than 32 bits tell": np.repeat([-1.0, 0.5, 0.5 + 1e-9, 2.0], 25),
    "so large that 1 is lost": np.repeat([0.0, 3e9], 50),
    "equal": np.full(100, 7.0),
}


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_knots_rise_in_the_precision_of_the_file(name: str, dtype: torch.dtype) -> None:
    found = _quantiles(torch.from_numpy(NEAR[name]).to(dtype))
    assert len(found) == KNOTS
    assert (found.to(torch.float32).diff() > 0).all()


def test_a_table_without_categories_has_no_levels() -> None:
    frame = pd.DataFrame({"x": np.arange(50) % 7 + 0.5, "flag": np.arange(50) % 2})
    assert LevelModel(Schema.infer(sources.read(frame))).targets == ()


def test_rounding_is_not_stretched_to_a_tail() -> None:
    scores = torch.tensor([[2.0057], [2.0057 + 1e-5], [2.0057 - 1e-5]])
    tempering = Tempering(rounding=1e-3)
    tempering.fit(scores)
    assert tempering(scores).std() < 0.02


def test_tempered_scores_are_logarithms_of_tail_shares() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(-50, 20, (5000, 1)))
    tempering = Tempering().double()
    tempering.fit(scores)
    found = tempering(scores).numpy()
    rank = scores.argsort(0).argsort(0).numpy() + 1
    usual = rank > 30
    np.testing.assert_allclose(found[usual], np.log(rank / 5001)[usual], atol=0.15)
    far = tempering(torch.tensor([[-1e3], [-1e6]], dtype=torch.float64))
    assert -25 < far[1] < far[0] < found.min()
    ordered = tempering(torch.linspace(-300, 100, 500, dtype=torch.float64)[:, None])
    assert (ordered.diff(dim=0) >= 0).all()


def test_the_commonest_number_is_no_tail_though_it_is_the_least() -> None:
    numbers = torch.cat([torch.zeros(300), torch.rand(700) + 0.5])[:, None]
    tempering = Tempering()
    tempering.fit(numbers)
    assert tempering(torch.zeros(1, 1)).exp().item() == pytest.approx(0.3, abs=0.06)
