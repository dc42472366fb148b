"""The service answers what Python answers, in the same words, and lives through bad input."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from starlette.routing import Route
from typer.testing import CliRunner

from twofold import Autoencoder
from twofold.cli import main
from twofold.errors import LosesToPCAWarning, OptionError, TwofoldError
from twofold.service import app as service
from twofold.service import batching, metrics, middleware, server, upload_limits
from twofold.service import model as verbs
from twofold.service.errors import Refusal

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
NUMBERS = "application/octet-stream"
ROW_ROUTES = ("encode", "reconstruct", "score", "explain", "impute")


def people(seed: int = 0) -> pd.DataFrame:
    """A column of every sort, and a few holes."""
    rng, n = np.random.default_rng(seed), 120
    start = datetime(2024, 1, 1)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n).round(1),
            "town": rng.choice(["Zürich", "Bern", "New York"], n, p=[0.5, 0.3, 0.2]),
            "visits": rng.negative_binomial(2, 0.6, n),
            "joined": [start + timedelta(hours=int(h)) for h in rng.integers(0, 2000, n)],
            "smoker": rng.random(n) < 0.4,
            "weight": rng.normal(70, 9, n).astype("float32"),
        }
    )
    frame.loc[3, ["age", "town"]] = None
    frame.loc[5, "joined"] = None
    return frame


def fitted(rows: Any, **options: Any) -> Autoencoder:
    ae = Autoencoder(**{"epochs": 2, "random_state": 0, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return ae.fit(rows)


@pytest.fixture(scope="module")
def mixed() -> Autoencoder:
    return fitted(people())


@pytest.fixture(scope="module")
def array() -> Autoencoder:
    return fitted(np.random.default_rng(0).normal(size=(80, 4)), n_components=2)


@pytest.fixture(scope="module")
def images() -> Autoencoder:
    x = np.random.default_rng(0).random((60, 4, 5), dtype=np.float32)
    return fitted(x, n_components=3)


@pytest.fixture(scope="module")
def floats() -> Autoencoder:
    rng = np.random.default_rng(0)
    return fitted(pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"]), n_components=2)


@pytest.fixture
def serve() -> Iterator[Callable[..., FastAPI]]:
    """Make applications whose threads end with the test."""
    made: list[FastAPI] = []

    def make(ae: Autoencoder, **settings: Any) -> FastAPI:
        made.append(service.create_app(ae, **settings))
        return made[-1]

    yield make
    for app in made:
        app.state.service.close()


@pytest.fixture(scope="module")
def people_app(mixed: Autoencoder) -> Iterator[FastAPI]:
    app = service.create_app(mixed)
    yield app
    app.state.service.close()


Asked = tuple[str, str, dict[str, Any]]


def ask_all(app: FastAPI, requests: list[Asked]) -> list[httpx.Response]:
    """Send requests at the same time."""

    async def run() -> list[httpx.Response]:
        # Errors that the application should have answered fail the test.
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.request(m, p, **k) for m, p, k in requests))

    return asyncio.run(run())


def ask(app: FastAPI, method: str, path: str, **given: Any) -> httpx.Response:
    return ask_all(app, [(method, path, given)])[0]


def post(app: FastAPI, path: str, document: Any = None, **given: Any) -> httpx.Response:
    return ask(app, "POST", path, json=document, **given)


def good(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == JSON
    return json.loads(answer.text, parse_constant=pytest.fail)


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of an error, which has the form of all errors."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    document = answer.json()
    assert set(document) == {"error", "column", "fix"}
    assert document["error"]
    assert document["fix"]
    return dict(document)


def cells(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows as JSON has them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return [list(row) for row in json.loads(json.dumps(_plain(table)))]


def _plain(table: pa.Table) -> list[tuple[Any, ...]]:
    def cell(value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else value

    columns = ([cell(value) for value in column.to_pylist()] for column in table.columns)
    return list(zip(*columns, strict=True))


def objects(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in cells(frame)]


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def body(table: pa.Table, media_type: str) -> dict[str, Any]:
    write = stream if media_type == ARROW else parquet
    return {"content": write(table), "headers": {"content-type": media_type}}


def read(answer: httpx.Response) -> pa.Table:
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == ARROW:
        return pa.ipc.open_stream(answer.content).read_all()
    assert answer.headers["content-type"] == PARQUET
    return pq.read_table(io.BytesIO(answer.content))


def as_arrow(ae: Autoencoder) -> Autoencoder:
    """The model whose rows from codes are Arrow tables, as the service's are."""
    return verbs.Verbs(ae).model


# The same as in Python


@pytest.mark.parametrize("form", [cells, objects])
@pytest.mark.parametrize("n", [1, 7, 120])
def test_scores_are_pythons(people_app: FastAPI, mixed: Autoencoder, form: Any, n: int) -> None:
    frame = people()[:n]
    found = good(post(people_app, "/score", {"rows": form(frame)}))
    assert found["score"] == mixed.score_samples(frame).tolist()
    assert found["p_value"] == mixed.anomaly_pvalue(frame).tolist()
    assert found["label"] == mixed.predict(frame).tolist()
    assert found["offset"] == mixed.offset_


def test_codes_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/encode", {"rows": cells(people())}))
    assert found["codes"] == mixed.transform(people()).tolist()
    assert found["names"] == list(mixed.get_feature_names_out())


def test_reconstructions_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/reconstruct", {"rows": cells(people())}))
    assert found["columns"] == list(people().columns)
    frame = mixed.reconstruct(pa.Table.from_pandas(people())).to_pandas()
    assert found["rows"] == cells(frame)


def test_decoded_codes_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    codes = mixed.transform(people()).astype(float)
    found = good(post(people_app, "/decode", {"codes": codes.tolist()}))
    assert found["rows"] == cells(mixed.inverse_transform(codes))


def test_fillings_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/impute", {"rows": cells(people())}))
    assert found["rows"] == cells(mixed.impute(people()))
    for given, filled in zip(cells(people()), found["rows"], strict=True):
        assert [f for g, f in zip(given, filled, strict=True) if g is not None] == [
            g for g in given if g is not None
        ]


def test_draws_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    request = {"rows": cells(people()), "n_draws": 3, "random_state": 7}
    found = good(post(people_app, "/impute", request))
    drawn = mixed.impute(people(), n_draws=3, random_state=7)
    assert found["draws"] == [cells(frame) for frame in drawn]
    assert found["draws"][0] != found["draws"][1]


def test_new_rows_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/sample", {"n": 5, "random_state": 3}))
    assert found["rows"] == cells(mixed.sample(5, random_state=3))


def test_explanations_are_pythons(people_app: FastAPI, mixed: Autoencoder) -> None:
    frame = people()[:9]
    found = good(post(people_app, "/explain", {"rows": cells(frame)}))
    expected = mixed.explain(frame)
    assert found["columns"] == list(expected.columns)
    for name in ("contribution", "base"):
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    np.testing.assert_allclose(found["score"], mixed.score_samples(frame), rtol=1e-4)
    assert found["observed"][0][1] == frame["town"][0]
    assert found["observed"][3][:2] == [None, None]
    assert found["observed"][0][3] == frame["joined"][0].isoformat()
    assert found["expected"][3][0] == expected.expected[3, 0]


def test_explanations_add_up_to_the_score(people_app: FastAPI) -> None:
    found = good(post(people_app, "/explain", {"rows": cells(people()[:9])}))
    sums = np.array(found["base"]) + np.sum(found["contribution"], axis=1)
    np.testing.assert_allclose(sums, -np.array(found["score"]), rtol=1e-12)


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_model_of_an_array_answers_as_python_does(
    serve: Callable[..., FastAPI], array: Autoencoder, route: str
) -> None:
    x = np.random.default_rng(1).normal(size=(5, 4))
    x[0, 1] = np.nan
    rows = [[None if np.isnan(cell) else cell for cell in row] for row in x.tolist()]
    found = good(post(serve(array), f"/{route}", {"rows": rows}))
    expected = {
        "encode": lambda: found["codes"] == array.transform(x).tolist(),
        "reconstruct": lambda: found["rows"] == array.reconstruct(x).tolist(),
        "score": lambda: found["score"] == array.score_samples(x).tolist(),
        "explain": lambda: found["base"] == array.explain(x).base.tolist(),
        "impute": lambda: found["rows"] == array.impute(x).tolist(),
    }
    assert expected[route]()
    by_name = [dict(zip(array.schema_.names, row, strict=True)) for row in rows]
    assert good(post(serve(array), f"/{route}", {"rows": by_name})) == found


def test_columns_of_objects_may_come_in_any_order(people_app: FastAPI) -> None:
    rows = objects(people()[:4])
    turned = [dict(reversed(row.items())) for row in rows]
    first, second = (good(post(people_app, "/score", {"rows": r})) for r in (rows, turned))
    assert first == second


def test_images_are_images(serve: Callable[..., FastAPI], images: Autoencoder) -> None:
    x = np.random.default_rng(1).random((3, 4, 5))
    app = serve(images)
    nested = good(post(app, "/reconstruct", {"rows": x.tolist()}))
    assert nested["row_shape"] == [4, 5]
    assert nested["rows"] == images.reconstruct(x).reshape(3, 20).tolist()
    flat = good(post(app, "/reconstruct", {"rows": x.reshape(3, 20).tolist()}))
    assert flat["rows"] == nested["rows"]


def test_frame_whose_columns_are_numbered(serve: Callable[..., FastAPI]) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)))
    ae = fitted(frame, n_components=2)
    found = good(post(serve(ae), "/score", {"rows": frame[:3].to_numpy().tolist()}))
    assert found["score"] == ae.score_samples(frame[:3]).tolist()


def test_model_is_left_as_it_is(mixed: Autoencoder, people_app: FastAPI) -> None:
    post(people_app, "/sample", {"n": 1})
    assert mixed.schema_.container == "pandas"
    assert isinstance(mixed.sample(1), pd.DataFrame)


@pytest.mark.parametrize("route", ROW_ROUTES)
@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
def test_uploads_are_answered_like_json(people_app: FastAPI, route: str, media_type: str) -> None:
    table = pa.Table.from_pandas(people()[:6], preserve_index=False)
    # Other columns are left alone, and the model's found by name.
    table = table.select(table.column_names[::-1]).append_column("more", pa.array(range(6)))
    found = good(ask(people_app, "POST", f"/{route}", **body(table, media_type)))
    assert found == good(post(people_app, f"/{route}", {"rows": cells(people()[:6])}))


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
@pytest.mark.parametrize("route", ["encode", "reconstruct", "score", "impute"])
def test_answers_come_as_tables(people_app: FastAPI, route: str, media_type: str) -> None:
    rows = {"rows": cells(people()[:6])}
    table = read(post(people_app, f"/{route}", rows, headers={"accept": media_type}))
    found = good(post(people_app, f"/{route}", rows))
    if route == "score":
        assert table.to_pydict() == {k: v for k, v in found.items() if k != "offset"}
    else:
        key = {"encode": "codes"}.get(route, "rows")
        assert [list(row) for row in _plain(table)] == found[key]


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
def test_explanation_as_a_table_has_a_line_per_cell(people_app: FastAPI, media_type: str) -> None:
    rows = {"rows": cells(people()[:3])}
    table = read(post(people_app, "/explain", rows, headers={"accept": media_type}))
    found = good(post(people_app, "/explain", rows))
    frame = table.to_pandas()
    assert frame["column"].tolist() == list(people().columns) * 3
    assert frame["row"].tolist() == np.repeat(range(3), 6).tolist()
    assert frame["contribution"].tolist() == np.ravel(found["contribution"]).tolist()
    assert frame["observed"][1] == people()["town"][0]


def test_draws_as_a_table_say_which(people_app: FastAPI) -> None:
    request = body(pa.Table.from_pandas(people()[:4]), ARROW)
    request["headers"]["accept"] = ARROW
    answer = ask(people_app, "POST", "/impute?n_draws=2&random_state=7", **request)
    assert read(answer)["draw"].to_pylist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_codes_may_come_as_a_table(people_app: FastAPI, mixed: Autoencoder) -> None:
    codes = mixed.transform(people()[:4])
    table = pa.table(dict(zip(mixed.get_feature_names_out(), codes.T, strict=True)))
    found = good(ask(people_app, "POST", "/decode", **body(table, ARROW)))
    assert found["rows"] == cells(mixed.inverse_transform(codes))


@pytest.mark.parametrize("accept", [JSON, ARROW, PARQUET, NUMBERS])
def test_no_codes_are_no_rows(
    serve: Callable[..., FastAPI], images: Autoencoder, accept: str
) -> None:
    names = images.get_feature_names_out()
    request = body(pa.table({name: pa.array([], pa.float32()) for name in names}), ARROW)
    request["headers"]["accept"] = accept
    assert ask(serve(images), "POST", "/decode", **request).status_code == 200


@pytest.mark.parametrize("route", ["encode", "decode", "reconstruct"])
def test_numbers_come_bare(serve: Callable[..., FastAPI], images: Autoencoder, route: str) -> None:
    app, x = serve(images), np.random.default_rng(1).random((3, 4, 5))
    given = {"codes": images.transform(x).tolist()} if route == "decode" else {"rows": x.tolist()}
    answer = post(app, f"/{route}", given, headers={"accept": NUMBERS})
    assert answer.status_code == 200
    n_rows, n_columns = map(int, answer.headers["x-shape"].split(","))
    matrix = np.frombuffer(answer.content, "<f4").reshape(n_rows, n_columns)
    plain = good(post(app, f"/{route}", given))
    np.testing.assert_array_equal(
        matrix, np.float32(plain["codes" if route == "encode" else "rows"])
    )


def test_rows_with_text_are_no_matrix(people_app: FastAPI) -> None:
    rows = {"rows": cells(people()[:2])}
    answer = post(people_app, "/reconstruct", rows, headers={"accept": NUMBERS})
    assert refused(answer, 406)["column"] == "town"


def test_long_answer_comes_in_pieces(
    people_app: FastAPI, mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SMALL_ANSWER", 10)
    monkeypatch.setattr("twofold.service.responses._PIECE_CELLS", 50)
    found = good(post(people_app, "/reconstruct", {"rows": cells(people())}))
    assert found["rows"] == cells(mixed.reconstruct(pa.Table.from_pandas(people())).to_pandas())
    table = read(post(people_app, "/score", {"rows": cells(people())}, headers={"accept": ARROW}))
    assert table["score"].to_pylist() == mixed.score_samples(people()).tolist()


def test_long_body_is_read_in_a_thread(
    people_app: FastAPI, mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SMALL_BODY", 10)
    monkeypatch.setattr(service, "_LOOSE_ROWS", 10)
    found = good(post(people_app, "/score", {"rows": cells(people())}))
    assert found["score"] == mixed.score_samples(people()).tolist()


@pytest.mark.parametrize("loose", [10, 256])
def test_long_request_is_computed_in_parts(
    serve: Callable[..., FastAPI], mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch, loose: int
) -> None:
    monkeypatch.setattr(verbs, "_EXPLAINED_CELLS", 400)
    monkeypatch.setattr(service, "_LOOSE_ROWS", loose)
    app = serve(mixed)
    assert 1 < app.state.service.verbs.most_explained < 60
    found = good(post(app, "/explain", {"rows": cells(people())}))
    np.testing.assert_allclose(found["base"], mixed.explain(people()).base)
    assert found["observed"][119][1] == people()["town"][119]


def test_parts_of_different_types_are_computed_as_one(
    serve: Callable[..., FastAPI], mixed: Autoencoder
) -> None:
    app = serve(mixed)
    object.__setattr__(app.state.service._impute, "most_rows", 10)
    # Numbers in place of text, all of which are missing in some parts.
    table = pa.Table.from_pandas(people(), preserve_index=False)
    table = table.set_column(1, "town", pa.array([8000] * 15 + [None] * 105, pa.int64()))
    with pytest.raises(TwofoldError) as raised:
        mixed.impute(table)
    found = refused(ask(app, "POST", "/impute", **body(table, ARROW)), 422)
    assert found["error"] == str(raised.value)
    numbers = table.set_column(1, "town", pa.nulls(120))
    found = good(ask(app, "POST", "/impute", **body(numbers, ARROW)))
    assert found["rows"] == cells(mixed.impute(numbers).to_pandas())


def test_part_that_fails_names_the_row_of_the_whole(
    serve: Callable[..., FastAPI], floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_EXPLAINED_CELLS", 30)
    monkeypatch.setattr(service, "_LOOSE_ROWS", 10)
    rows = np.zeros((50, 3)).tolist()
    rows[40][1] = np.inf
    table = pa.table(pd.DataFrame(rows, columns=["a", "b", "c"]))
    with pytest.raises(TwofoldError, match="in row 40") as raised:
        floats.explain(table)
    answer = ask(serve(floats), "POST", "/explain", **body(table, ARROW))
    assert refused(answer, 422)["error"] == str(raised.value)


def test_numbers_that_are_none_are_null(
    serve: Callable[..., FastAPI], floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = np.array([np.nan, np.inf, -np.inf])
    monkeypatch.setattr(verbs.Verbs, "score", lambda self, rows: {"score": odd, "label": odd})
    found = good(post(serve(floats), "/score", {"rows": [[1, 2, 3]] * 3}))
    assert found["score"] == [None, None, None]


# What the service tells of itself


def test_model_is_described(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/model"))
    assert found["options"]["epochs"] == 2
    assert found["offset"] == mixed.offset_
    assert found["layers"][0]["width"] == mixed.schema_.width
    assert found["comparison"]["r2"] == mixed.comparison_.r2
    assert len(found["training"]["history"]) == 2
    assert found["versions"]["twofold"]


def test_columns_are_described(people_app: FastAPI, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/schema"))
    by_name = {column["name"]: column for column in found["columns"]}
    assert by_name["town"]["kind"] == "category"
    assert by_name["town"]["levels"] == ["Zürich", "Bern", "New York"]
    assert by_name["visits"]["range"] == [0.0, None]
    assert by_name["smoker"]["range"] == [0.0, 1.0]
    assert by_name["joined"]["typical"].startswith("2024-")
    assert found["row_shape"] == [6]


def test_service_is_healthy(people_app: FastAPI) -> None:
    assert good(ask(people_app, "GET", "/healthz")) == {"status": "ok"}


def test_metrics_count(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    app = serve(floats)
    post(app, "/score", {"rows": [[1, 2, 3]] * 4})
    post(app, "/score", {"rows": 3})
    ask(app, "GET", "/nowhere")
    text = ask(app, "GET", "/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['twofold_requests_total{route="/score",status="200"}'] == "1"
    assert lines['twofold_requests_total{route="/score",status="422"}'] == "1"
    assert lines['twofold_requests_total{route="other",status="404"}'] == "1"
    assert lines['twofold_rows_total{route="/score"}'] == "4"
    assert lines['twofold_request_seconds_count{route="/score"}'] == "2"
    assert lines['twofold_batch_requests_count{verb="score"}'] == "1"
    assert lines['twofold_batch_rows_sum{verb="score"}'] == "4.0"
    assert lines["twofold_waiting_requests"] == "0"
    assert lines["twofold_held_bytes"] == "0"


def test_metrics_are_in_prometheus_format() -> None:
    counts = metrics.Meter({})
    counts.request('/a"b\\c\nd', 200, 0.003)
    counts.call("score", 3, 5)
    sample = re.compile(r'[a-z_]+(\{(\w+="(\\.|[^"\\\n])*",?)+\})? (\d+(\.\d+)?|[\d.]+e-\d+)')
    for line in counts.text().splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line
    buckets = re.findall(r'seconds_bucket\{.*le="(.*?)"\} (\d)', counts.text())
    assert [n for _, n in buckets] == ["0"] * 2 + ["1"] * (len(buckets) - 2)


# Errors in the library's words

BAD_ROWS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "text in a column of numbers": lambda f: f.assign(age=["x", *["1"] * (len(f) - 1)]),
    "numbers in a column of times": lambda f: f.assign(joined=1.5),
    "a missing column": lambda f: f.drop(columns="age"),
    "a column more": lambda f: f.assign(other=1.0),
    "no rows": lambda f: f[:0],
    "infinity": lambda f: f.assign(age=[np.inf, *[1.0] * (len(f) - 1)]),
}


@pytest.mark.parametrize("mistake", BAD_ROWS)
@pytest.mark.parametrize("route", ROW_ROUTES)
def test_errors_are_pythons(
    people_app: FastAPI, mixed: Autoencoder, route: str, mistake: str
) -> None:
    frame = BAD_ROWS[mistake](people()[:4])
    table = pa.Table.from_pandas(frame, preserve_index=False)
    methods = {"encode": "transform", "score": "score_samples"}
    with pytest.raises(TwofoldError) as raised:
        getattr(mixed, methods.get(route, route))(table)
    given = body(table, ARROW)
    if mistake == "a column more":
        # In a file, the model's columns are picked; in JSON, it may be a misspelt one.
        given = {"json": {"rows": objects(frame)}}
    found = refused(ask(people_app, "POST", f"/{route}", **given), 422)
    assert found["error"] == str(raised.value)


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_json_cells_of_the_wrong_sort_are_named(
    people_app: FastAPI, mixed: Autoencoder, route: str
) -> None:
    rows = objects(people()[:4])
    rows[2]["age"] = "old"
    found = refused(post(people_app, f"/{route}", {"rows": rows}), 422)
    assert found["error"].startswith(
        "Column 'age' held numbers in training and holds text here (row 2: 'old')."
    )
    assert found["column"] == "age"
    assert found["fix"].startswith("Correct these cells")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 2, 3], [1, 2]], "Row 1 has 2 cells, and the model has 3 columns."),
        ([[1, 2, 3], {"a": 1}], "Row 1 is an object, and rows are lists of cells or objects"),
        ([{"a": 1, "b": 2, "c": 3}, [1, 2, 3]], "Row 1 is a list, and rows are"),
        ([{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2}], "Column 'c' is in row 0, and not in row 1."),
        ([[1, 2, [3]]], "Column 'c' holds [3] in row 0."),
        ([[1, 2, {"x": 1}]], "Column 'c' holds {'x': 1} in row 0."),
        ([[1, 2, 10**400]], "Column 'c' holds numbers too large for 64-bit floats (row 0: 1000"),
        ([3], "Row 0 is a number, and rows are"),
        ("x", "'rows' is text, and must be a list of rows."),
        (None, "'rows' is null, and must be a list of rows."),
    ],
)
def test_rows_that_are_none_are_refused(
    serve: Callable[..., FastAPI], floats: Autoencoder, rows: Any, said: str
) -> None:
    assert refused(post(serve(floats), "/score", {"rows": rows}), 422)["error"].startswith(said)


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3], [1, 2, 3, 4]],
        [[1, 2, 3]],
        [1, 2, 3, 4],
        [[1, 2, 3, "x"]],
        [[1, 2, 3, [1]]],
        [],
    ],
)
def test_errors_of_arrays_are_pythons(
    serve: Callable[..., FastAPI], array: Autoencoder, rows: Any
) -> None:
    with pytest.raises(TwofoldError) as raised:
        array.score_samples(rows if rows else np.empty(0))
    assert refused(post(serve(array), "/score", {"rows": rows}), 422)["error"] == str(raised.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 2, 3, {}]], "Row 0 holds an object in place of a cell."),
        ([[1, 2, 3, 10**400]], "These rows hold numbers too large for 64-bit floats."),
        ([{"x0": 1}], "These rows have no column 'x1'."),
        ([{"x0": 1, "x1": 1, "x2": 1, "x3": 1, "y": 1}], "These rows have an unknown column 'y'."),
    ],
)
def test_arrays_that_python_cannot_hold_are_refused(
    serve: Callable[..., FastAPI], array: Autoencoder, rows: Any, said: str
) -> None:
    assert refused(post(serve(array), "/score", {"rows": rows}), 422)["error"].startswith(said)


@pytest.mark.parametrize("codes", [[[1.0]], [[1.0, None]], [[1.0, "x"]], [[1.0], [1.0, 2.0]], []])
def test_errors_of_codes_are_pythons(
    serve: Callable[..., FastAPI], floats: Autoencoder, codes: Any
) -> None:
    given = [[np.nan if cell is None else cell for cell in row] for row in codes]
    with pytest.raises(TwofoldError) as raised:
        floats.inverse_transform(given)
    found = refused(post(serve(floats), "/decode", {"codes": codes}), 422)
    assert found["error"] == str(raised.value)


@pytest.mark.parametrize(
    ("route", "given", "said"),
    [
        ("score", {"rows": [[1, 2, 3]], "n": 1}, "There is no field 'n'; this route takes 'rows'."),
        ("score", {}, "'rows' is null"),
        ("score", [], "The body is a list"),
        ("decode", {"rows": []}, "There is no field 'rows'"),
        ("sample", {}, "The body lacks the field 'n'."),
        ("sample", {"n": 1.5}, "n must be a whole number; got 1.5."),
        ("sample", {"n": True}, "n must be a whole number; got true."),
        ("sample", {"n": 0}, "n must be an integer of at least 1, got 0."),
        ("sample", {"n": 1, "random_state": -1}, "random_state must be "),
        ("sample", {"n": 1, "random_state": 2**40}, "random_state=1099511627776 is no seed."),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": 0}, "n_draws=0 must be a whole number"),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": "2x"}, "n_draws must be a whole number"),
    ],
)
def test_fields_and_parameters_are_checked(
    serve: Callable[..., FastAPI], floats: Autoencoder, route: str, given: Any, said: str
) -> None:
    assert refused(post(serve(floats), f"/{route}", given), 422)["error"].startswith(said)


@pytest.mark.parametrize("query", ["n_draws=2", "x=1"])
def test_query_string_is_checked(
    serve: Callable[..., FastAPI], floats: Autoencoder, query: str
) -> None:
    answer = post(serve(floats), f"/score?{query}", {"rows": [[1, 2, 3]]})
    assert "this route takes none" in refused(answer, 422)["error"]


def test_parameter_may_be_given_once(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    answer = post(serve(floats), "/impute?n_draws=2", {"rows": [[1, 2, 3]], "n_draws": 2})
    assert "n_draws is given twice" in refused(answer, 422)["error"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"rows": [[NaN, 1, 2]]}',
        b'{"rows": [[1, 2, 3]]} x',
        b"\xff\xfe",
        b'{"rows": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"rows": [[' + b"1" * 10_000 + b", 2, 3]]}",
        b'{"rows": [["\\ud800", 2, 3]]}',
    ],
)
def test_broken_json_is_refused(
    serve: Callable[..., FastAPI], floats: Autoencoder, content: bytes
) -> None:
    answer = ask(serve(floats), "POST", "/score", content=content, headers={"content-type": JSON})
    assert refused(answer, 400)["error"].startswith("The body cannot be read as JSON: ")


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
@pytest.mark.parametrize("route", ["score", "decode"])
def test_broken_uploads_are_refused(
    serve: Callable[..., FastAPI], floats: Autoencoder, route: str, media_type: str
) -> None:
    app, headers = serve(floats), {"content-type": media_type}
    whole = body(pa.table({name: [1.0, 2.0] for name in "abc"}), media_type)["content"]
    rng = np.random.default_rng(0)
    broken = [b"", b"PAR1", b"x" * 100, whole[:-20], whole[: len(whole) // 2], whole[::-1]]
    for _ in range(60):
        bytes_ = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            bytes_[place] = rng.integers(0, 256)
        broken.append(bytes(bytes_))
    requests: list[Asked] = [
        ("POST", f"/{route}", {"content": content, "headers": headers}) for content in broken
    ]
    statuses = {answer.status_code for answer in ask_all(app, requests)}
    assert statuses <= {200, 400, 413, 422}
    assert 400 in statuses


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/csv"}, 415),
        ({}, 415),
        ({"content-type": JSON, "content-encoding": "gzip"}, 415),
        ({"content-type": JSON, "accept": "text/html"}, 406),
        ({"content-type": JSON, "accept": f"{NUMBERS}"}, 406),
        ({"content-type": JSON, "accept": f"{JSON};q=0"}, 406),
    ],
)
def test_types_that_are_not_known_are_refused(
    serve: Callable[..., FastAPI], floats: Autoencoder, headers: dict[str, str], status: int
) -> None:
    answer = ask(serve(floats), "POST", "/score", content=b'{"rows": [[1,2,3]]}', headers=headers)
    refused(answer, status)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", JSON),
        ("text/html, */*;q=0.1", JSON),
        (f"{JSON};q=0.5, {ARROW}", ARROW),
        ("application/*", JSON),
        (f"*/*, {JSON};q=0", ARROW),
        (f"{PARQUET}, nonsense;q=x", PARQUET),
    ],
)
def test_client_chooses_the_type(
    serve: Callable[..., FastAPI], floats: Autoencoder, accept: str, media_type: str
) -> None:
    answer = post(serve(floats), "/score", {"rows": [[1, 2, 3]]}, headers={"accept": accept})
    assert answer.headers["content-type"] == media_type


def test_unknown_path_and_method_are_refused(people_app: FastAPI) -> None:
    assert "Not Found" in refused(ask(people_app, "GET", "/nowhere"), 404)["error"]
    answer = ask(people_app, "GET", "/score")
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_no_cors_header_is_ever_sent(people_app: FastAPI) -> None:
    answer = ask(people_app, "GET", "/healthz", headers={"origin": "http://elsewhere"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_failure_of_the_service_is_told_without_details(
    serve: Callable[..., FastAPI], floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, rows: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(verbs.Verbs, "score", broken)
    answer = post(serve(floats), "/score", {"rows": [[1, 2, 3]]})
    refused(answer, 500)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("text", "column", "fix"),
    [
        ("Column 'a b' holds x. Do this. And that.", "a b", "Do this. And that."),
        ("Column 'it's' is bad: y. Correct it.", "it's", "Correct it."),
        ("Column 1 holds infinity in row 2. Replace it.", "it's", "Replace it."),
        ("Column 'a b' is x. Column 'z' is y. Drop them.", "a b", "Drop them."),
        ("Names do not match:\n- z\n- y\n", "z", "Correct what the error names"),
        ("X has 2 features, but 5 are expected.", None, "Correct what the error names"),
    ],
)
def test_advice_and_column_are_found_in_errors(text: str, column: str | None, fix: str) -> None:
    found = Refusal.of(TwofoldError(text), ["a b", "it's"]).document()
    assert found["error"] == text
    assert found["column"] == column
    assert found["fix"].startswith(fix)


# Limits


def test_too_many_rows_are_refused(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    app = serve(floats, max_rows=5)
    rows = {"rows": [[1, 2, 3]] * 6}
    assert "6 rows, and at most 5" in refused(post(app, "/score", rows), 413)["error"]
    table = pa.table({name: np.zeros(6) for name in "abc"})
    for media_type in (ARROW, PARQUET):
        refused(ask(app, "POST", "/score", **body(table, media_type)), 413)
    refused(post(app, "/sample", {"n": 6}), 413)
    refused(post(app, "/impute", {"rows": [[1, 2, None]] * 3, "n_draws": 2}), 413)
    good(post(app, "/score", {"rows": [[1, 2, 3]] * 5}))


def test_cells_are_bounded_like_bytes(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    refused(post(serve(floats, max_bytes=300), "/sample", {"n": 101}), 413)


def test_long_body_is_refused(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    app = serve(floats, max_bytes=1000)
    answer = ask(app, "POST", "/score", content=b" " * 1001, headers={"content-type": JSON})
    assert "larger than 1,000 bytes" in refused(answer, 413)["error"]


def test_long_body_is_refused_while_it_comes(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 100

    async def receive() -> Any:
        chunk = await anext(body, b"")
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    body = chunks()
    scope = scope_of("POST", "/score", {"content-type": JSON})
    asyncio.run(serve(floats, max_bytes=1000)(scope, receive, send))
    assert answered[0]["status"] == 413
    assert sent == 11


def scope_of(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    raw = [(name.encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    return {**scope, "query_string": b"", "headers": raw, "http_version": "1.1", "root_path": ""}


def test_slow_body_is_given_up(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    answered: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answered.append(message)

    scope = scope_of("POST", "/score", {"content-type": JSON})
    asyncio.run(serve(floats, timeout=0.05)(scope, receive, send))
    assert answered[0]["status"] == 408
    assert (b"connection", b"close") in answered[0]["headers"]


def test_client_that_stops_taking_its_answer_is_cut_off(
    serve: Callable[..., FastAPI],
    floats: Autoencoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "_SMALL_ANSWER", 1)
    answered: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"rows": [[1, 2, 3]]}', "more_body": False}

    async def send(message: Any) -> None:
        answered.append(message)
        if len(answered) > 1:
            await asyncio.Event().wait()

    scope = scope_of("POST", "/score", {"content-type": JSON})
    asyncio.run(serve(floats, timeout=0.5)(scope, receive, send))
    assert [message.get("more_body") for message in answered] == [None, True]
    assert "stopped taking its answer" in caplog.text


def test_client_that_goes_away_is_let_go(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = scope_of("POST", "/score", {"content-type": JSON})
    app = serve(floats)
    asyncio.run(app(scope, receive, send))
    assert 'route="/score",status="499"' in ask(app, "GET", "/metrics").text


def test_long_bodies_are_bounded_together(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    app = serve(floats, max_bytes=200_000)
    held = middleware.Held(app.state.service.memory)
    held.grow_to(4 * 200_000 + 2**16)
    body = b'{"rows": [[1,2,3]]' + b" " * 100_000 + b"}"
    answer = ask(app, "POST", "/score", content=body, headers={"content-type": JSON})
    refused(answer, 503)
    assert answer.headers["retry-after"] == "1"
    good(post(app, "/score", {"rows": [[1, 2, 3]]}))  # a short one goes through
    held.release()
    good(ask(app, "POST", "/score", content=body, headers={"content-type": JSON}))


class Gate:
    """Holds the thread that computes until it is opened."""

    def __init__(self, app: FastAPI) -> None:
        self._closed, self.reached = threading.Event(), threading.Event()
        verb = app.state.service.verbs
        self._score, verb_of = verb.score, app.state.service._score
        self.calls: list[int] = []
        object.__setattr__(verb_of, "run", self._run)

    def _run(self, rows: Any) -> Any:
        rows = service._table(rows)
        self.calls.append(len(rows))
        self.reached.set()
        assert self._closed.wait(20)
        return self._score(rows)

    def open(self) -> None:
        self._closed.set()


def test_request_that_waits_too_long_is_told_so(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    app = serve(floats, timeout=0.1)
    gate = Gate(app)
    request = ("POST", "/score", {"json": {"rows": [[1, 2, 3]]}})
    first, second = ask_all(app, [request, ("POST", "/encode", request[2])])
    gate.open()
    assert "not done within 0.1 seconds" in refused(first, 504)["error"]
    assert "waited 0.1 seconds" in refused(second, 503)["error"]


def test_service_answers_while_it_computes(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    app = serve(floats)
    gate = Gate(app)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            scoring = asyncio.create_task(client.post("/score", json={"rows": [[1, 2, 3]]}))
            await asyncio.to_thread(gate.reached.wait, 20)
            answer = await client.get("/healthz")
            gate.open()
            assert (await scoring).status_code == 200
            return answer

    good(asyncio.run(run()))


def test_queue_is_bounded(
    serve: Callable[..., FastAPI], floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_MOST_WAITING", 0)
    answer = post(serve(floats), "/score", {"rows": [[1, 2, 3]]})
    assert answer.headers["retry-after"] == "1"
    refused(answer, 503)


# Uploads that would not fit into memory


ONE = pa.table({name: [1.0] for name in "abc"})


def compressed(media_type: str) -> bytes:
    zeros = pa.table({name: np.zeros(400_000) for name in "abc"})
    if media_type == ARROW:
        return stream(zeros, compression="zstd")
    return parquet(zeros, compression="zstd", use_dictionary=False)


def long_text_often(media_type: str) -> bytes:
    numbers = pa.array(np.zeros(9_000, np.int32))
    text = pa.DictionaryArray.from_arrays(numbers, pa.array(["x" * 100_000]))
    table = pa.table({"a": text, "b": np.zeros(9_000), "c": np.zeros(9_000)})
    return stream(table) if media_type == ARROW else parquet(table)


def nothing_often(media_type: str) -> bytes:
    return stream(pa.table({name: pa.nulls(10**6) for name in "abc"}))


def many_levels(media_type: str) -> bytes:
    levels = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.nulls(200_000))
    return stream(ONE.set_column(0, "a", levels))


def lists_of_nothing(media_type: str) -> bytes:
    lists = pa.FixedSizeListArray.from_arrays(pa.nulls(2**30), 2**30)
    return stream(ONE.set_column(0, "a", lists))


def one_long_list(media_type: str) -> bytes:
    return parquet(ONE.set_column(0, "a", pa.array([[0.0] * 300_000])))


def repeated_beginnings(media_type: str) -> bytes:
    texts = pa.array(["y" * 5_000 + str(i) for i in range(500)])
    table = pa.table({"a": texts, "b": np.zeros(500), "c": np.zeros(500)})
    return parquet(table, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})


def more_rows_than_there_are(media_type: str) -> bytes:
    whole = parquet(ONE)
    assert whole.count(b"\x16\x02") >= 3  # numbers of rows and cells, zigzag
    return whole.replace(b"\x16\x02", b"\x16\xfe\xff\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    ("swelling", "media_type", "status"),
    [
        (compressed, ARROW, 413),
        (compressed, PARQUET, 413),
        (long_text_often, ARROW, 413),
        (long_text_often, PARQUET, 413),
        (nothing_often, ARROW, 413),
        (many_levels, ARROW, 413),
        (lists_of_nothing, ARROW, 413),
        (one_long_list, PARQUET, 422),
        (repeated_beginnings, PARQUET, 413),
        (more_rows_than_there_are, PARQUET, 400),
    ],
)
def test_upload_that_swells_is_refused(
    serve: Callable[..., FastAPI],
    floats: Autoencoder,
    swelling: Callable[[str], bytes],
    media_type: str,
    status: int,
) -> None:
    app, content = serve(floats, max_bytes=600_000, max_rows=100_000), swelling(media_type)
    assert len(content) < 600_000
    before = pa.total_allocated_bytes()
    request = {"content": content, "headers": {"content-type": media_type}}
    # Others are served meanwhile.
    refusal, other = ask_all(
        app, [("POST", "/score", request), ("POST", "/score", {"json": {"rows": [[1, 2, 3]]}})]
    )
    refused(refusal, status)
    good(other)
    assert pa.total_allocated_bytes() - before < 5_000_000


def test_json_of_empty_lists_is_refused(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    content = b'{"rows": [' + b"[]," * 600_000 + b"[]]}"
    answer = ask(serve(floats), "POST", "/score", content=content, headers={"content-type": JSON})
    assert "more lists and objects" in refused(answer, 413)["error"]


def test_compressed_rows_are_read(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    table = pa.table({name: np.arange(2000.0) for name in "abc"})
    app = serve(floats)
    plain = good(ask(app, "POST", "/score", **body(table, ARROW)))
    for compression in ("lz4", "zstd"):
        content = stream(table, compression=compression)
        answer = ask(app, "POST", "/score", content=content, headers={"content-type": ARROW})
        assert good(answer) == plain
    for settings in ({"compression": "gzip"}, {"data_page_version": "2.0", "row_group_size": 300}):
        content = parquet(table, **settings)
        answer = ask(app, "POST", "/score", content=content, headers={"content-type": PARQUET})
        assert good(answer) == plain


def test_declared_size_of_a_stream_is_that_of_its_buffers() -> None:
    table = pa.table({"a": np.arange(1000.0), "t": ["word"] * 1000})
    for compression in (None, "zstd"):
        message = list(pa.ipc.MessageReader.open_stream(stream(table, compression=compression)))[1]
        batch = upload_limits._Batch.of(message.metadata.to_pybytes())
        assert batch is not None
        assert (batch.n_rows, batch.most_rows, batch.compressed) == (1000, 1000, bool(compression))
        size = sum(b.size for c in table.columns for b in c.chunk(0).buffers() if b is not None)
        assert abs(batch.expanded(message.body) - size) < 200


def test_dictionary_from_deltas_is_refused() -> None:
    sink = io.BytesIO()
    kind = pa.dictionary(pa.int32(), pa.string())
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    schema = pa.schema([("a", kind)])
    with pa.ipc.new_stream(sink, schema, options=options) as out:
        for n in (1, 2):
            levels = pa.array([f"l{i}" for i in range(n)])
            column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), levels)
            out.write_batch(pa.record_batch([column], schema=schema))
    with pytest.raises(Refusal, match="deltas"):
        upload_limits.check_stream(pa.py_buffer(sink.getvalue()), upload_limits.Bounds(10, 10**6))


def test_text_that_points_out_of_its_buffer_is_refused(people_app: FastAPI) -> None:
    table = pa.Table.from_pandas(people()[:1].assign(town="x" * 4321), preserve_index=False)
    content, offsets = stream(table), struct.pack("<ii", 0, 4321)
    before, _, after = content.rpartition(offsets)
    content = before + struct.pack("<ii", 0, 10**6) + after
    answer = ask(people_app, "POST", "/score", content=content, headers={"content-type": ARROW})
    found = refused(answer, 400)
    assert "cannot be read as an Arrow stream" in found["error"]


def test_page_header_that_is_cut_off_is_refused() -> None:
    for data in (
        b"",
        b"\x15",
        b"\x15\xff",
        b"\x1c" * 100,
        b"\x19\xf5\xff\xff\xff\x0f",
        b"\x1d\x00",
    ):
        with pytest.raises(struct.error):
            upload_limits._Thrift(data, 0).read()


def test_twice_named_column_is_refused(people_app: FastAPI) -> None:
    table = pa.Table.from_pandas(people()[:1], preserve_index=False)
    twice = pa.Table.from_arrays(
        [*table.columns, table.column(0)], names=[*table.column_names, "age"]
    )
    answer = ask(people_app, "POST", "/score", **body(twice, ARROW))
    assert "more than one column 'age'" in refused(answer, 422)["error"]


# Joined requests


def test_waiting_requests_share_a_call(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    app = serve(floats)
    gate = Gate(app)
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 3)).round(3) for n in (1, 2, 3, 4, 5, 1, 1, 2)]

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [asyncio.create_task(client.post("/score", json={"rows": rows[0].tolist()}))]
            await asyncio.to_thread(gate.reached.wait, 20)
            asked += [
                asyncio.create_task(client.post("/score", json={"rows": part.tolist()}))
                for part in rows[1:]
            ]
            while app.state.service.worker.n_waiting < len(rows) - 1:
                await asyncio.sleep(0)
            gate.open()
            return await asyncio.gather(*asked)

    answers = asyncio.run(run())
    assert gate.calls == [1, sum(map(len, rows[1:]))]
    for part, answer in zip(rows, answers, strict=True):
        frame = pd.DataFrame(part, columns=["a", "b", "c"])
        np.testing.assert_allclose(good(answer)["score"], floats.score_samples(frame), rtol=1e-12)


def together(app: FastAPI, requests: list[Asked]) -> list[httpx.Response]:
    """Send requests that all wait for one that is being computed."""
    worker = app.state.service.worker
    opened = threading.Event()

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            blocker = asyncio.create_task(worker.call(lambda: opened.wait(20)))
            asked = [asyncio.create_task(client.request(m, p, **k)) for m, p, k in requests]
            while worker.n_waiting < len(requests) and not all(task.done() for task in asked):
                await asyncio.sleep(0)
            opened.set()
            await blocker
            return await asyncio.gather(*asked)

    return asyncio.run(run())


@pytest.mark.parametrize("route", ROW_ROUTES)
@pytest.mark.parametrize("batch_seconds", [0.002, 0.0])
def test_joined_requests_get_the_answers_that_they_get_alone(
    serve: Callable[..., FastAPI], mixed: Autoencoder, route: str, batch_seconds: float
) -> None:
    app = serve(mixed, batch_seconds=batch_seconds)
    parts = [people(seed)[a:b] for seed, (a, b) in enumerate([(0, 1), (3, 9), (5, 6), (9, 30)])]
    requests: list[Asked] = []
    for part in parts:
        requests.append(("POST", f"/{route}", {"json": {"rows": cells(part)}}))
        requests.append(("POST", f"/{route}", body(pa.Table.from_pandas(part), ARROW)))
    joined = together(app, requests)
    for request, answer in zip(requests, joined, strict=True):
        alone = good(ask_all(app, [request])[0])
        for name, values in good(answer).items():
            _assert_close(values, alone[name])


def _assert_close(a: Any, b: Any) -> None:
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)
    elif isinstance(a, str) and a[:2] == "20":
        assert abs(datetime.fromisoformat(a) - datetime.fromisoformat(b)) < timedelta(minutes=5)
    else:
        assert a == b


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_bad_request_does_not_spoil_its_neighbours(
    serve: Callable[..., FastAPI], mixed: Autoencoder, route: str
) -> None:
    app = serve(mixed)
    rows = objects(people()[:8])
    contents = [json.dumps({"rows": given}) for given in (rows[:3], rows[3:5], rows[5:])]
    contents[1] = re.sub('"weight": [0-9.]+', '"weight": 1e999', contents[1])
    requests: list[Asked] = [
        ("POST", f"/{route}", {"content": content, "headers": {"content-type": JSON}})
        for content in contents
    ]
    first, second, third = together(app, requests)
    good(first)
    found = refused(second, 422)
    assert found["column"] == "weight"
    assert "in row 0" in found["error"]
    good(third)


def test_neighbours_levels_are_not_told(serve: Callable[..., FastAPI], mixed: Autoencoder) -> None:
    app = serve(mixed)
    requests: list[Asked] = []
    for secret in ("mine", "yours"):
        frame = (
            people()[:4].assign(town=["Bern", secret, None, "Bern"]).astype({"town": "category"})
        )
        request = body(pa.Table.from_pandas(frame, preserve_index=False), ARROW)
        request["headers"]["accept"] = ARROW
        requests.append(("POST", "/impute", request))
    for answer, other in zip(together(app, requests), ("yours", "mine"), strict=True):
        assert other.encode() not in answer.content
        assert other not in read(answer)["town"].chunk(0).dictionary.to_pylist()


# Who may ask


def test_token_is_asked_for(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    app = serve(floats, token="a secret")
    for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "a secret"}):
        for method, path in (("POST", "/score"), ("GET", "/model"), ("GET", "/nowhere")):
            answer = ask(app, method, path, headers=headers)
            refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} a secret"}
        good(post(app, "/score", {"rows": [[1, 2, 3]]}, headers=headers))
    good(ask(app, "GET", "/healthz"))


def test_routes_that_are_added_stand_behind_the_token(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    app = serve(floats, token="a-secret")
    app.router.routes.append(Route("/more", service._endpoint(app.state.service.healthy, [])))
    refused(ask(app, "GET", "/more"), 401)
    good(ask(app, "GET", "/more", headers={"authorization": "Bearer a-secret"}))


def test_other_names_of_the_host_are_refused(
    serve: Callable[..., FastAPI], floats: Autoencoder
) -> None:
    app = serve(floats, hosts=server.own_names("127.0.0.1"))
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        good(ask(app, "GET", "/healthz", headers={"host": host}))
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        refused(ask(app, "GET", "/healthz", headers={"host": host}), 421)
    assert server.own_names("0.0.0.0") is None


@pytest.mark.parametrize(
    "settings",
    [
        {"max_rows": 0},
        {"max_bytes": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"batch_seconds": -1},
        {"token": ""},
        {"token": " x"},
    ],
)
def test_settings_without_meaning_are_refused(
    floats: Autoencoder, settings: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        service.create_app(floats, **settings)


# The contract


def test_every_route_is_in_the_document(people_app: FastAPI) -> None:
    document = good(ask(people_app, "GET", "/openapi.json"))
    routes = {route.path for route in people_app.routes if isinstance(route, Route)}
    assert set(document["paths"]) == routes
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "200" in operation["responses"]


@pytest.mark.parametrize("which", ["mixed", "array", "images"])
def test_examples_are_valid_and_true(
    serve: Callable[..., FastAPI], request: pytest.FixtureRequest, which: str
) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="it checks examples by their schemas")
    app = serve(request.getfixturevalue(which))
    for path, methods in app.openapi()["paths"].items():
        if "post" not in methods:
            continue
        given = methods["post"]["requestBody"]["content"][JSON]
        jsonschema.validate(given["example"], given["schema"])
        found = good(post(app, path, given["example"]))
        answer = methods["post"]["responses"]["200"]["content"][JSON]
        jsonschema.validate(answer["example"], answer["schema"])
        for name, values in found.items():
            _assert_close(values, answer["example"][name])


def test_document_asks_for_the_token(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    document = serve(floats, token="a-secret").openapi()
    assert document["paths"]["/score"]["post"]["security"] == [{"token": []}]
    assert "401" in document["paths"]["/score"]["post"]["responses"]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_answers_to_random_requests_keep_to_the_document(
    serve: Callable[..., FastAPI], mixed: Autoencoder
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="it makes requests from the document")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    app = serve(mixed, max_rows=50)
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    checks = [
        schemathesis.checks.not_a_server_error,
        *(
            getattr(schemathesis.specs.openapi.checks, name)
            for name in (
                "status_code_conformance",
                "content_type_conformance",
                "response_schema_conformance",
            )
        ),
    ]
    seen: set[int] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=5,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def run(case: Any) -> None:
                answer = case.call()
                seen.add(answer.status_code)
                case.validate_response(answer, checks=checks)

            # Some routes take nothing that could be wrong.
            with contextlib.suppress(Unsatisfiable):
                run()
    assert {200, 422} <= seen
    assert max(seen) < 500


# A real server


def start(model: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    command = [
        sys.executable,
        "-c",
        "from twofold.cli.main import main; main()",
        "serve",
        str(model),
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r" at http://127\.0\.0\.1:(\d+) ", line)
    if found is None:
        process.kill()
        pytest.fail(f"{line}{process.communicate()[1]}")
    return process, int(found[1])


def raw_request(rows: list[list[float]]) -> bytes:
    content = json.dumps({"rows": rows}).encode()
    head = f"POST /score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {JSON}\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answer_of(client: socket.socket) -> bytes:
    """Read one answer, or what comes until the connection is closed."""
    read = b""
    while part := client.recv(2**16):
        read += part
        head, _, rest = read.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(rest) == int(length[1]):
            break
    return read


def test_server_drains_when_it_is_asked_to_end(floats: Autoencoder, tmp_path: Path) -> None:
    floats.save(tmp_path / "model")
    process, port = start(tmp_path / "model")
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        quick, accepted = (stack.enter_context(connect(port)) for _ in range(2))
        request = raw_request([[1.0, 2.0, 3.0]])
        accepted.sendall(request[:-5])
        quick.sendall(request)
        assert answer_of(quick).startswith(b"HTTP/1.1 200 OK")  # so the other has arrived too
        process.send_signal(signal.SIGTERM)
        while is_listening(port):
            assert process.poll() is None
        accepted.sendall(request[-5:])
        assert answer_of(accepted).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_server_gives_slow_clients_up(serve: Callable[..., FastAPI], floats: Autoencoder) -> None:
    request = raw_request([[1.0, 2.0, 3.0]])

    async def talk(port: int, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await reader.read()  # until the connection is closed
        writer.close()
        await writer.wait_closed()
        return answer

    async def run(port: int) -> list[bytes]:
        sent = (b"", b"POST /sc", request[:-5])
        return await asyncio.gather(*(talk(port, part) for part in sent))

    with server.running(serve(floats, timeout=0.3), timeout=0.3) as address:
        answers = asyncio.run(run(int(address.rpartition(":")[2])))
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["fix"]


def is_listening(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["--host", "127.0.0.1"], False),
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--token", "a-secret"], False),
    ],
)
def test_command_warns_where_everybody_may_ask(
    floats: Autoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    warned: bool,
) -> None:
    served: list[FastAPI] = []
    monkeypatch.setattr(server, "serve", lambda app, listener, **settings: served.append(app))
    monkeypatch.setattr(server, "listen", lambda host, port: contextlib.nullcontext())
    floats.save(tmp_path / "model")
    result = CliRunner().invoke(main.app, ["serve", str(tmp_path / "model"), *words])
    assert result.exit_code == 0, result.output
    assert ("everyone who reaches 0.0.0.0 can use this service" in result.stderr) == warned
    hosts = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "any.example"}[words[1]]
    status = ask(served[0], "GET", "/model", headers={"host": hosts}).status_code
    assert status == (401 if "--token" in words else 200)


def test_command_takes_the_token_from_the_environment(
    floats: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[FastAPI] = []
    monkeypatch.setattr(server, "serve", lambda app, listener, **settings: served.append(app))
    monkeypatch.setattr(server, "listen", lambda host, port: contextlib.nullcontext())
    monkeypatch.setenv("TWOFOLD_TOKEN", "a-secret")
    floats.save(tmp_path / "model")
    words = ["serve", str(tmp_path / "model"), "--port", "0", "--max-rows", "2"]
    result = CliRunner().invoke(main.app, words)
    assert result.exit_code == 0, result.output
    headers = {"host": "localhost", "authorization": "Bearer a-secret"}
    answer = post(served[0], "/score", {"rows": [[1, 2, 3]] * 3}, headers=headers)
    assert "at most 2 are taken" in refused(answer, 413)["error"]
    served[0].state.service.close()


def test_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match="between 0 and 65535"):
        server.listen("127.0.0.1", port)


def test_answers_are_sent_at_once() -> None:
    with server.listen("127.0.0.1", 0) as listener:
        # asyncio switches Nagle's algorithm off for sockets that say what they speak.
        assert listener.proto == socket.IPPROTO_TCP
