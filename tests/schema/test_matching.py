"""Cells of other types than in training mean what they mean alone, or are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold.data import sources
from twofold.errors import DataError
from twofold.schema import matching
from twofold.schema.schema import Schema

TRAINED = pd.DataFrame(
    {
        "town": ["Bonn", "Kiel", "Ulm", "Kiel"] * 5,
        "paid": ["yes", "no", "no", "yes"] * 5,
        "height": [1.5, 1.75, 2.0, 1.25] * 5,
        "since": pd.to_datetime(["2024-05-17", "2024-05-18", "2024-06-01", "2024-07-01"] * 5),
    }
)


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.infer(sources.read(TRAINED))


def matched(schema: Schema, **cells: Any) -> Any:
    """The matrix of four rows of training, some of whose columns have other cells."""
    table = schema.matched(sources.read(TRAINED[:4].assign(**cells)))
    return schema.to_matrix(table, np.float64)


@pytest.mark.parametrize(
    "cells",
    [
        {"height": ["1.5", "1.75", "2.0", "1.250"]},
        {"paid": [True, False, False, True]},
        {"paid": ["YES", "No", " no ", "yes"]},
        {"since": ["2024-05-17", "2024-05-18", "2024-06-01", "2024-07-01"]},
        {"town": pd.Categorical(["Bonn", "Kiel", "Ulm", "Kiel"], ["Ulm", "Kiel", "Bonn"])},
    ],
    ids=lambda cells: next(iter(cells)),
)
def test_cells_of_another_type_mean_the_same(schema: Schema, cells: dict[str, Any]) -> None:
    assert (matched(schema, **cells) == matched(schema)).all()


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            {"height": ["1.5", "tall", "2.0", "1.25"]},
            r"'height' held numbers in training and holds text here \(row 1: 'tall'\)",
        ),
        (
            {"since": [1.0, 2.0, 3.0, 4.0]},
            r"'since' held times in training and holds numbers here \(row 0: 1\)",
        ),
        ({"town": [1.0, 2.0, 3.0, 4.0]}, "'town' held text in training, .*pass its cells as text"),
        (
            {"since": TRAINED["since"][:4].dt.tz_localize("UTC")},
            "held times without a zone in training and holds times with a zone here",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_cells_that_do_not_say_what_they_mean_are_named(
    schema: Schema, cells: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        matched(schema, **cells)


def test_all_such_columns_are_named_together(schema: Schema) -> None:
    with pytest.raises(DataError, match="(?s)'height' held.*'since' held.*Correct these cells"):
        matched(schema, height=["tall"] * 4, since=[1.0] * 4)


def test_a_level_of_two_meanings_has_none() -> None:
    assert matching.places(["yes", "true", "no"], [True, "no", "yes"]) == [None, 2, 0]
