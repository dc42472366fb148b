"""What the service knows of its model."""

from __future__ import annotations

import pandas as pd
from starlette.applications import Starlette

from tests.service.client import ask, good, post
from twofold import Autoencoder


def test_model_is_left_as_it_is(mixed: Autoencoder, people_app: Starlette) -> None:
    post(people_app, "/sample", {"n": 1})
    assert mixed.schema_.container == "pandas"
    assert isinstance(mixed.sample(1), pd.DataFrame)


def test_columns_are_described(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/schema"))
    by_name = {column["name"]: column for column in found["columns"]}
    assert by_name["town"]["kind"] == "category"
    assert by_name["town"]["levels"] == ["Zürich", "Bern", "New York"]
    assert by_name["visits"]["range"] == [0.0, None]
    assert by_name["smoker"]["range"] == [0.0, 1.0]
    assert by_name["joined"]["typical"].startswith("2024-")
    assert found["row_shape"] == [6]
