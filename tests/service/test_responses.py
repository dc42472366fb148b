"""Answers come in the type that the client asks for."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import (
    ARROW,
    JSON,
    PARQUET,
    Serve,
    ask,
    body,
    cells,
    good,
    people,
    plain_rows,
    post,
    read,
    scope_of,
)
from twofold import Autoencoder
from twofold.service import app as service


@pytest.mark.parametrize("route", ["encode", "reconstruct", "score", "impute"])
def test_answers_come_as_tables(people_app: Starlette, route: str) -> None:
    rows = {"rows": cells(people()[:6])}
    table = read(post(people_app, f"/{route}", rows, headers={"accept": ARROW}))
    found = good(post(people_app, f"/{route}", rows))
    if route == "score":
        assert table.to_pydict() == {k: v for k, v in found.items() if k != "offset"}
    else:
        key = {"encode": "codes"}.get(route, "rows")
        assert [list(row) for row in plain_rows(table)] == found[key]


def test_explanation_as_a_table_has_a_line_per_cell(people_app: Starlette) -> None:
    rows = {"rows": cells(people()[:3])}
    table = read(post(people_app, "/explain", rows, headers={"accept": ARROW}))
    found = good(post(people_app, "/explain", rows))
    frame = table.to_pandas()
    assert frame["column"].tolist() == list(people().columns) * 3
    assert frame["row"].tolist() == np.repeat(range(3), 6).tolist()
    assert frame["contribution"].tolist() == np.ravel(found["contribution"]).tolist()
    assert frame["observed"][1] == people()["town"][0]


def test_draws_as_a_table_say_which(people_app: Starlette) -> None:
    request = body(pa.Table.from_pandas(people()[:4]), ARROW)
    request["headers"]["accept"] = ARROW
    answer = ask(people_app, "POST", "/impute?n_draws=2&random_state=7", **request)
    assert read(answer)["draw"].to_pylist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("accept", [JSON, ARROW])
def test_no_codes_are_no_rows(serve: Serve, images: Autoencoder, accept: str) -> None:
    names = images.get_feature_names_out()
    request = body(pa.table({name: pa.array([], pa.float32()) for name in names}), ARROW)
    request["headers"]["accept"] = accept
    assert ask(serve(images), "POST", "/decode", **request).status_code == 200


def test_long_answer_comes_in_pieces(
    people_app: Starlette, mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SMALL_ANSWER", 10)
    monkeypatch.setattr("twofold.service.responses._PIECE_CELLS", 50)
    found = good(post(people_app, "/reconstruct", {"rows": cells(people())}))
    assert found["rows"] == cells(mixed.reconstruct(pa.Table.from_pandas(people())).to_pandas())
    table = read(post(people_app, "/score", {"rows": cells(people())}, headers={"accept": ARROW}))
    assert table["score"].to_pylist() == mixed.score_samples(people()).tolist()


def test_numbers_that_are_none_are_null(serve: Serve, floats: Autoencoder) -> None:
    app, odd = serve(floats), np.array([np.nan, np.inf, -np.inf])
    app.state.service.current.verbs["score"].run = lambda rows: {"score": odd, "label": odd}
    found = good(post(app, "/score", {"rows": [[1, 2, 3]] * 3}))
    assert found["score"] == [None, None, None]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", JSON),
        ("text/html, */*;q=0.1", JSON),
        (f"{JSON};q=0.5, {ARROW}", ARROW),
        ("application/*", JSON),
        (f"*/*, {JSON};q=0", ARROW),
        (f"{PARQUET}, {ARROW}, nonsense;q=x", ARROW),
    ],
)
def test_client_chooses_the_type(
    serve: Serve, floats: Autoencoder, accept: str, media_type: str
) -> None:
    answer = post(serve(floats), "/score", {"rows": [[1, 2, 3]]}, headers={"accept": accept})
    assert answer.headers["content-type"] == media_type


def test_client_that_stops_taking_its_answer_is_cut_off(
    serve: Serve,
    floats: Autoencoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "_SMALL_ANSWER", 1)
    answered: list[Any] = []

    parts = [{"type": "http.request", "body": b'{"rows": [[1, 2, 3]]}', "more_body": False}]

    async def receive() -> Any:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answered.append(message)
        if len(answered) > 1:
            await asyncio.Event().wait()

    scope = scope_of("POST", "/score", {"content-type": JSON})
    asyncio.run(serve(floats, timeout=0.5)(scope, receive, send))
    assert [message.get("more_body") for message in answered] == [None, True]
    assert "stopped taking its answer" in caplog.text
