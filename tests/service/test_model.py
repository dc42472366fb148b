"""What the service knows of its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import Serve, ask, fitted, good, people, post
from twofold import Autoencoder
from twofold.errors import OptionError, TwofoldError
from twofold.service.memory import Account, Share
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
    assert by_name["visits"]["range"] == [0, mixed.schema_.columns[2].domain.high]
    assert by_name["joined"]["range"][0].startswith("2024-01-01")
    assert by_name["town"]["range"] == [None, None]
    assert by_name["smoker"]["range"] == [0.0, 1.0]
    assert by_name["joined"]["typical"].startswith("2024-")
    assert found["row_shape"] == [6]


def test_draws_of_many_rows_are_those_of_python(
    mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunks(n: int, *about: int) -> Iterator[slice]:
        return (slice(i, min(i + 50, n)) for i in range(0, n, 50))

    served, share = ServedModel(mixed), Share(Account(2**30))
    for module in ("estimators.fitting", "inference.apply", "inference.sampling"):
        monkeypatch.setattr(f"twofold.{module}.row_chunks", chunks)
    table = pa.Table.from_pandas(people(), preserve_index=False)
    found = finished(served.draws(table, 2, 7, share))["draws"]
    for ours, python in zip(found, mixed.impute(table, n_draws=2, random_state=7), strict=True):
        assert ours.to_pydict() == python.to_pydict()


def test_new_rows_in_parts_are_those_of_python(
    mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.inference.sampling._CHUNK_ROWS", 7)
    found = finished(ServedModel(mixed).sample(30, 3, Share(Account(2**30))))
    assert found["rows"].to_pydict() == ServedModel(mixed).model.sample(30, 3).to_pydict()


def test_model_is_described(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/model"))
    assert found["options"]["epochs"] == 2
    assert found["offset"] == mixed.offset_
    assert found["layers"][0]["width"] == mixed.schema_.width
    assert found["comparison"]["r2"] == mixed.comparison_.r2
    assert len(found["training"]["history"]) == 2
    assert found["versions"]["twofold"]
    assert (found["version"], found["replaced"]) == (None, False)


def test_replaced_folder_is_noticed_and_loaded_again(
    serve: Serve, floats: Autoencoder, tmp_path: Path
) -> None:
    floats.save(tmp_path / "model")
    app = serve(tmp_path / "model")
    rows = {"rows": [[1, 2, 3]]}
    before = good(ask(app, "GET", "/model"))
    assert before["version"]
    assert not before["replaced"]
    rng = np.random.default_rng(5)
    other = fitted(pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"]), n_components=1)
    other.save(tmp_path / "model", overwrite=True)
    assert good(ask(app, "GET", "/model"))["replaced"]
    first = good(post(app, "/score", rows))["score"]
    app.state.service.reload()
    after = good(ask(app, "GET", "/model"))
    assert after["version"] != before["version"]
    assert not after["replaced"]
    assert good(post(app, "/score", rows))["score"] != first
    assert len(good(post(app, "/encode", rows))["names"]) == 1


def test_folder_that_cannot_be_loaded_leaves_the_model(
    serve: Serve, floats: Autoencoder, tmp_path: Path
) -> None:
    floats.save(tmp_path / "model")
    app = serve(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{")
    with pytest.raises(TwofoldError):
        app.state.service.reload()
    assert good(ask(app, "GET", "/model"))["replaced"]
    good(post(app, "/score", {"rows": [[1, 2, 3]]}))


def test_model_from_memory_is_not_loaded_again(serve: Serve, floats: Autoencoder) -> None:
    with pytest.raises(OptionError, match="from memory"):
        serve(floats).state.service.reload()
