"""Regressions fill cells next to a network, weighed by hidden cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from twofold.data.sources import read
from twofold.inference.regressions import Inputs, Regressions
from twofold.schema.schema import Schema

RNG = np.random.default_rng(0)


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
    hidden = np.stack([np.arange(2000).reshape(400, 5) % 2 == turn for turn in range(2)])
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
    # Twice the number plus one: whoever knows the normal law knows it, a mean does not.
    assert weights[1, 1] + weights[1, 3] + weights[1, 4] > 0.7
    assert weights[1, 2] < 0.3
    assert weights[1, 0] < 0.2
    # Columns without a missing cell have neither trees nor kernels.
    assert (weights[:, 2:][[0, 3]] == 0).all()


def test_missing_cells_are_filled_by_all_members(
    weighed: tuple[Regressions, Schema, pd.DataFrame],
) -> None:
    regressions, schema, frame = weighed
    rows = read(frame)
    x_hat = np.tile(np.nanmean(schema.to_matrix(rows, np.float64), 0), (400, 1))
    cells = schema.from_matrix(regressions.fill(schema, rows, x_hat))
    np.testing.assert_allclose(cells[::5, 1], 2 * frame["number"][::5] + 1, atol=0.4)
    assert (cells[1::5, 2] == np.round(frame["offset"][1::5] / 10)).mean() > 0.9
