"""Requests share calls, take turns, and get their own answers."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import (
    ARROW,
    JSON,
    ROW_ROUTES,
    Asked,
    Gate,
    Serve,
    ask,
    ask_all,
    assert_close,
    body,
    cells,
    good,
    objects,
    people,
    post,
    read,
    refused,
    scope_of,
    together,
)
from twofold import Autoencoder
from twofold.errors import TwofoldError
from twofold.service import batching, json_rows
from twofold.service import model as verbs


@pytest.mark.parametrize("piece", [100, 2**16])
def test_long_request_is_computed_in_parts(
    serve: Serve, mixed: Autoencoder, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(verbs, "_EXPLAINED_CELLS", 400)
    monkeypatch.setattr(json_rows, "_PIECE_BYTES", piece)
    monkeypatch.setattr(json_rows, "_COLUMN_BYTES", 0)
    app = serve(mixed)
    assert 1 < app.state.service.current.verbs["explain"].most_rows < 60
    found = good(post(app, "/explain", {"rows": cells(people())}))
    np.testing.assert_allclose(found["base"], mixed.explain(people()).base)
    assert found["observed"][119][1] == people()["town"][119]


def test_parts_of_different_types_are_computed_as_one(serve: Serve, mixed: Autoencoder) -> None:
    app = serve(mixed)
    app.state.service.current.verbs["impute"].step = 10
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
    serve: Serve, floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_EXPLAINED_CELLS", 30)
    rows = np.zeros((50, 3)).tolist()
    rows[40][1] = np.inf
    table = pa.table(pd.DataFrame(rows, columns=["a", "b", "c"]))
    with pytest.raises(TwofoldError, match="in row 40") as raised:
        floats.explain(table)
    answer = ask(serve(floats), "POST", "/explain", **body(table, ARROW))
    assert refused(answer, 422)["error"] == str(raised.value)


def test_request_that_waits_too_long_is_told_so(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, timeout=0.1)
    gate = Gate(app)
    request = ("POST", "/score", {"json": {"rows": [[1, 2, 3]]}})
    first, second = ask_all(app, [request, ("POST", "/encode", request[2])])
    gate.open()
    assert "not done within 0.1 seconds" in refused(first, 504)["error"]
    assert "waited 0.1 seconds" in refused(second, 503)["error"]


def test_service_answers_while_it_computes(serve: Serve, floats: Autoencoder) -> None:
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
    serve: Serve, floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_MOST_WAITING", 0)
    answer = post(serve(floats), "/score", {"rows": [[1, 2, 3]]})
    assert answer.headers["retry-after"] == "1"
    refused(answer, 503)


def test_waiting_requests_share_a_call(serve: Serve, floats: Autoencoder) -> None:
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


@pytest.mark.parametrize("route", ROW_ROUTES)
@pytest.mark.parametrize("batch_seconds", [0.002, 0.0])
def test_joined_requests_get_the_answers_that_they_get_alone(
    serve: Serve, mixed: Autoencoder, route: str, batch_seconds: float
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
            assert_close(values, alone[name])


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_bad_request_does_not_spoil_its_neighbours(
    serve: Serve, mixed: Autoencoder, route: str
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


def test_neighbours_levels_are_not_told(serve: Serve, mixed: Autoencoder) -> None:
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


def test_long_requests_that_take_turns_share_no_call(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats)
    app.state.service.current.verbs["score"].step = 10
    app.state.service.current.verbs["score"].most_rows = 10
    table = pa.table({name: np.arange(25.0) for name in "abc"})
    requests: list[Asked] = [("POST", "/score", body(table, ARROW)) for _ in range(4)]
    for answer in together(app, requests):
        np.testing.assert_allclose(good(answer)["score"], floats.score_samples(table))


def test_requests_of_many_rows_share_no_call(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats)
    verb, calls = app.state.service.current.verbs["score"], list[int]()
    score, verb.run = verb.run, lambda rows: calls.append(len(rows)) or score(rows)
    few, many = (pa.table({name: np.arange(float(n)) for name in "abc"}) for n in (100, 300))
    requests: list[Asked] = [("POST", "/score", body(t, ARROW)) for t in (few, few, many, many)]
    for answer in together(app, requests):
        good(answer)
    assert sorted(calls) == [200, 300, 300]


async def asked(app: Starlette, path: str, document: Any, gone: asyncio.Event) -> list[Any]:
    """Send a request whose client goes away when the event is set; return what was sent to it."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": json.dumps(document).encode(), "more_body": False}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of("POST", path, {"content-type": JSON}), receive, send)
    return sent


MANY_DRAWS = {"rows": [[None, None, None]], "n_draws": 100_000}


@pytest.mark.parametrize(
    ("path", "document"), [("/impute", MANY_DRAWS), ("/sample", {"n": 90_000})]
)
def test_short_requests_have_their_turn_between_the_pieces_of_a_long_one(
    serve: Serve, floats: Autoencoder, monkeypatch: pytest.MonkeyPatch, path: str, document: Any
) -> None:
    monkeypatch.setattr("twofold.inference.sampling._CHUNK_ROWS", 16)
    app, gone = serve(floats), asyncio.Event()

    async def run() -> httpx.Response:
        long = asyncio.create_task(asked(app, path, document, gone))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [await client.post("/score", json={"rows": [[1, 2, 3]]}) for _ in range(5)]
        assert not long.done()
        gone.set()
        assert await long == []
        return answers[-1]

    good(asyncio.run(run()))
    # It has left the queue with all that it held.
    assert app.state.service.worker.n_waiting == 0
    assert app.state.service.account.used == 0


def test_late_request_leaves_the_queue(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, timeout=0.3)
    assert "not done within 0.3 seconds" in refused(post(app, "/impute", MANY_DRAWS), 504)["error"]
    assert app.state.service.worker.n_waiting == 0
    assert app.state.service.account.used == 0
    good(post(app, "/score", {"rows": [[1, 2, 3]]}))


def test_closing_drops_what_is_under_way(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats)

    async def run() -> list[Any]:
        long = asyncio.create_task(asked(app, "/impute", MANY_DRAWS, asyncio.Event()))
        while not any(job.started for job in app.state.service.worker._jobs):
            await asyncio.sleep(0)
        app.state.service.close()
        return await long

    messages = asyncio.run(run())
    assert messages[0]["status"] == 503
    assert b"The service is ending" in messages[1]["body"]
