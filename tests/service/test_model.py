"""What the service knows of its model."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import ask, good, people, post
from twofold import Autoencoder
from twofold.service.model import ServedModel
from twofold.service.requests import finished


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


def test_draws_of_many_rows_are_those_of_python(
    mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunks(n: int, width: int) -> Iterator[slice]:
        return (slice(i, min(i + 50, n)) for i in range(0, n, 50))

    served = ServedModel(mixed)
    for module in ("data.sources", "inference.apply", "inference.sampling"):
        monkeypatch.setattr(f"twofold.{module}.row_chunks", chunks)
    table = pa.Table.from_pandas(people(), preserve_index=False)
    steps = served.draws(table, 2, 7)
    found = finished(steps)
    for ours, python in zip(found, mixed.impute(table, n_draws=2, random_state=7), strict=True):
        assert ours.to_pydict() == python.to_pydict()


def test_new_rows_in_parts_are_those_of_python(
    mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.inference.sampling._CHUNK_ROWS", 7)
    found = finished(ServedModel(mixed).sample(30, 3))
    assert found.to_pydict() == ServedModel(mixed).model.sample(30, 3).to_pydict()
