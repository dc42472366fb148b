"""Rows are shown with their cells, the largest error or contribution first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.report.test_document import fitted, rows
from twofold import Autoencoder
from twofold.report import examples
from twofold.report.measurements import Measurements, examine


@pytest.fixture(scope="module")
def ae() -> Autoencoder:
    return fitted(rows(), n_components=2)


@pytest.fixture(scope="module")
def found(ae: Autoencoder) -> Measurements:
    X = rows(seed=1)
    X[41, 3] += 100
    return examine(ae, X)


def test_worst_typical_and_best_rows_are_shown(ae: Autoencoder, found: Measurements) -> None:
    titles = [group["title"] for group in examples.examples(ae, found)["groups"]]
    assert titles == ["Reconstructed worst", "Typical", "Reconstructed best"]


def test_the_worst_row_is_the_changed_one(ae: Autoencoder, found: Measurements) -> None:
    card = examples.examples(ae, found)["groups"][0]["cards"][0]
    assert card["row"] == "41"
    assert card["lines"][0]["name"] == "x3"


def test_an_anomaly_is_shown_with_the_column_that_contributes_most(
    ae: Autoencoder, found: Measurements
) -> None:
    card = examples.anomalies(ae, found)["cards"][0]
    assert card["row"] == "41"
    assert card["lines"][0]["name"] == "x3"
    assert card["lines"][0]["share"].startswith("+")


def test_expected_cells_have_the_digits_of_their_column(ae: Autoencoder) -> None:
    column = ae.schema_.columns[0]
    shown = examples._expected(column, np.float64(column.center + column.scale / 7))
    assert len(shown.lstrip("−").replace(".", "")) <= 6


def test_missing_and_empty_cells_are_told_apart(ae: Autoencoder) -> None:
    column = ae.schema_.columns[0]
    assert [examples._cell(column, value) for value in (None, "", " ")] == [
        "missing",
        "empty",
        " ",
    ]


def test_rows_that_have_names_are_called_by_them() -> None:
    X = rows(seed=2)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    frame.insert(0, "key", [f"K{i:03d}" for i in range(len(X))])
    frame.loc[41, "x3"] += 100
    named = fitted(frame, n_components=2, epochs=1)
    measured = examine(named, frame)
    assert examples.anomalies(named, measured)["cards"][0]["row"] == "41 (K041)"
    worst = examples.examples(named, measured)["groups"][0]["cards"][0]
    assert worst["row"] == "41 (K041)"
