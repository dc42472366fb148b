"""Regressions fill cells next to a network: each member by itself, and how they are weighed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from twofold.data.sources import read
from twofold.inference.regressions import ConditionalNormal, Forest, Inputs, Regressions, Trees
from twofold.schema.schema import Schema

RNG = np.random.default_rng(0)
COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 2.0, 0.5], [0.3, 0.5, 1.5]])
ROWS = RNG.multivariate_normal([1.0, -2.0, 0.5], COVARIANCE, 1500)


def test_normal_law_is_found_in_incomplete_rows() -> None:
    law = ConditionalNormal.fit(np.where(RNG.random(ROWS.shape) < 0.3, np.nan, ROWS))
    np.testing.assert_allclose(law.covariance, COVARIANCE, atol=0.2)
    np.testing.assert_allclose(law.mean, [1.0, -2.0, 0.5], atol=0.1)


def test_missing_inputs_are_regressed_on_the_others_of_their_row() -> None:
    law = ConditionalNormal(np.array([1.0, -2.0, 0.5]), COVARIANCE)
    filled = law.fill(np.array([[2.0, np.nan, 1.5], [np.nan] * 3, [1.0, 2.0, 3.0]]))
    slopes = np.linalg.solve(COVARIANCE[np.ix_([0, 2], [0, 2])], COVARIANCE[[0, 2], 1])
    np.testing.assert_allclose(filled[0], [2.0, -2.0 + slopes @ [1.0, 1.0], 1.5])
    np.testing.assert_allclose(filled[1:], [[1.0, -2.0, 0.5], [1.0, 2.0, 3.0]])


def test_normal_law_bears_columns_that_repeat_others() -> None:
    x = np.column_stack([ROWS, ROWS[:, 0], 1 - ROWS[:, 0]])[:300]
    x[::3, 0] = np.nan
    filled = ConditionalNormal.fit(x).fill(x)
    np.testing.assert_allclose(filled[::3, 0], ROWS[:300:3, 0], atol=0.2)


def test_a_column_without_a_cell_in_some_rows_is_borne() -> None:
    x = ROWS[:60].copy()
    x[:, 1] = np.nan
    filled = ConditionalNormal.fit(x).fill(x)
    assert np.isfinite(filled).all()
    spans = [slice(0, 1), slice(1, 2), slice(2, 3)]
    trees = Trees.fit(x, filled, spans, [0, 1])
    assert list(trees.forests) == [0]
    np.testing.assert_array_equal(trees.fill(x, filled), filled)


@pytest.mark.parametrize("columns", [[2], [1, 2]], ids=["one target", "two targets"])
def test_a_forest_is_that_of_scikit_learn(columns: list[int]) -> None:
    x, target = ROWS[:200, :1], ROWS[:200, columns]
    theirs = ExtraTreesRegressor(6, min_samples_split=10, random_state=0)
    theirs.fit(x, target[:, 0] if len(columns) == 1 else target)
    found = Forest.fit(x, target, 6, 10).predict(ROWS[200:300, :1])
    np.testing.assert_allclose(found, theirs.predict(ROWS[200:300, :1]).reshape(100, -1))


def test_trees_follow_a_step() -> None:
    x = np.column_stack([ROWS[:, 0], np.sign(ROWS[:, 0] - 1)])
    given = x.copy()
    given[::4, 1] = np.nan
    begin = np.nan_to_num(given)
    trees = Trees.fit(given, begin, [slice(0, 1), slice(1, 2)], [1])
    assert np.abs(trees.fill(given, begin)[::4, 1] - x[::4, 1]).mean() < 0.05
    assert list(trees.forests) == [1]


def table() -> pd.DataFrame:
    level = RNG.choice(["a", "b", "c"], 400)
    number = RNG.normal(size=400)
    frame = pd.DataFrame({"number": number, "double": 2 * number + 1, "level": level, "one": 3.0})
    frame["offset"] = np.select([level == "a", level == "b"], [0.0, 10.0], 20.0)
    frame.loc[::5, "double"] = np.nan
    frame.loc[1::5, "level"] = None
    return frame


def test_inputs_come_back_as_a_networks() -> None:
    rows = read(table())
    schema = Schema.infer(rows, "histogram", "auto")
    inputs = Inputs.fit(schema, rows)
    x = inputs.matrix(schema, rows)
    assert [schema.columns[i].name for i in inputs.columns] == [
        "number",
        "double",
        "level",
        "offset",
    ]
    assert np.isnan(x).any(0).tolist() == [False, True] + [True] * 4 + [False]
    x_hat = schema.to_matrix(rows, np.float64)
    known = np.nan_to_num(x)
    back = inputs.of_network(schema, inputs.to_network(schema, known, x_hat))
    np.testing.assert_allclose(back[:, [0, 2, 3, 4, 6]], known[:, [0, 2, 3, 4, 6]], atol=1e-6)


@pytest.fixture(scope="module")
def weighed() -> tuple[Regressions, Schema, pd.DataFrame]:
    frame = table()
    rows = read(frame)
    schema = Schema.infer(rows, "gaussian", "auto")
    training, held_out = rows.take(np.arange(300)), rows.take(np.arange(300, 400))
    hidden = np.stack([np.arange(500).reshape(100, 5) % 2 == turn for turn in range(2)])
    # A network that always gives the column's mean.
    x = schema.to_matrix(rows, np.float64)
    mean = np.tile(np.nanmean(x, 0), (100, 1))
    inputs = Inputs.fit(schema, training)
    fitted = Regressions.fit(schema, training, held_out, hidden, [mean, mean], inputs)
    return fitted, schema, frame


def test_members_count_as_much_as_held_out_cells_say(
    weighed: tuple[Regressions, Schema, pd.DataFrame],
) -> None:
    regressions, _, _ = weighed
    weights = regressions.weights
    np.testing.assert_allclose(weights.sum(1), 1.0)
    assert (weights >= 0).all()
    # Twice the number plus one: the normal law knows it, trees nearly, and a mean does not.
    assert weights[1, 1] > weights[1, 2] > 0.2 > weights[1, 0]
    assert (weights[:, 2][[0, 3]] == 0).all()  # columns without a missing cell have no trees


def test_missing_cells_are_filled_by_all_members(
    weighed: tuple[Regressions, Schema, pd.DataFrame],
) -> None:
    regressions, schema, frame = weighed
    rows = read(frame)
    x_hat = np.tile(np.nanmean(schema.to_matrix(rows, np.float64), 0), (400, 1))
    cells = schema.from_matrix(regressions.fill(schema, rows, x_hat))
    np.testing.assert_allclose(cells[::5, 1], 2 * frame["number"][::5] + 1, atol=0.4)
    assert (cells[1::5, 2] == np.round(frame["offset"][1::5] / 10)).mean() > 0.9
