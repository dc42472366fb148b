"""Bodies are read within limits, whatever they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.service.client import (
    ARROW,
    JSON,
    PARQUET,
    Serve,
    ask,
    body,
    good,
    post,
    refused,
    scope_of,
)
from twofold import Autoencoder


@pytest.mark.parametrize(
    ("route", "given", "said"),
    [
        ("score", {"rows": [[1, 2, 3]], "n": 1}, "Expected the fields 'rows', got 'n'."),
        ("score", {}, "Expected a list of rows as 'rows', got none"),
        ("score", [], "Expected an object with 'rows' as the body, got a list"),
        ("decode", {"rows": []}, "Expected the fields 'codes', got 'rows'"),
        ("sample", {}, "Expected the number of rows as 'n', got none."),
        ("sample", {"n": 1.5}, "Expected an integer for n, got 1.5."),
        ("sample", {"n": True}, "Expected an integer for n, got true."),
        ("sample", {"n": "3"}, "Expected an integer for n, got '3'."),
        ("sample", {"n": [3]}, "Expected an integer for n, got a list."),
        ("sample", {"n": 0}, "Expected n to be an integer of at least 1, got 0."),
        ("sample", {"n": 1, "random_state": -1}, "Expected random_state to be "),
        (
            "sample",
            {"n": 1, "random_state": 2**40},
            "Expected random_state to be a seed, got 1099511627776.",
        ),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": 0}, "Expected n_draws to be an integer"),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": "2x"}, "Expected an integer for n_draws"),
    ],
)
def test_fields_and_parameters_are_checked(
    serve: Serve, floats: Autoencoder, route: str, given: Any, said: str
) -> None:
    assert refused(post(serve(floats), f"/{route}", given), 422)["error"].startswith(said)


@pytest.mark.parametrize("query", ["n_draws=2", "x=1"])
def test_query_string_is_checked(serve: Serve, floats: Autoencoder, query: str) -> None:
    answer = post(serve(floats), f"/score?{query}", {"rows": [[1, 2, 3]]})
    assert "Expected no parameters" in refused(answer, 422)["error"]


def test_parameter_may_be_given_once(serve: Serve, floats: Autoencoder) -> None:
    answer = post(serve(floats), "/impute?n_draws=2", {"rows": [[1, 2, 3]], "n_draws": 2})
    assert "Expected n_draws once" in refused(answer, 422)["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/csv"}, 415),
        ({}, 415),
        ({"content-type": JSON, "content-encoding": "gzip"}, 415),
        ({"content-type": JSON, "accept": "text/html"}, 406),
        ({"content-type": JSON, "accept": PARQUET}, 406),
        ({"content-type": JSON, "accept": f"{JSON};q=0"}, 406),
    ],
)
def test_types_that_are_not_known_are_refused(
    serve: Serve, floats: Autoencoder, headers: dict[str, str], status: int
) -> None:
    answer = ask(serve(floats), "POST", "/score", content=b'{"rows": [[1,2,3]]}', headers=headers)
    refused(answer, status)


def test_too_many_rows_are_refused(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_rows=5)
    rows = {"rows": [[1, 2, 3]] * 6}
    assert (
        "at most 5 rows at a time, got a request for 6"
        in refused(post(app, "/score", rows), 413)["error"]
    )
    table = pa.table({name: np.zeros(6) for name in "abc"})
    refused(ask(app, "POST", "/score", **body(table, ARROW)), 413)
    refused(post(app, "/sample", {"n": 6}), 413)
    refused(post(app, "/impute", {"rows": [[1, 2, None]] * 3, "n_draws": 2}), 413)
    good(post(app, "/score", {"rows": [[1, 2, 3]] * 5}))


def test_cells_are_bounded_like_bytes(serve: Serve, floats: Autoencoder) -> None:
    refused(post(serve(floats, max_bytes=300), "/sample", {"n": 101}), 413)


def test_long_body_is_refused(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_bytes=1000)
    answer = ask(app, "POST", "/score", content=b" " * 1001, headers={"content-type": JSON})
    assert "at most 1,000 bytes" in refused(answer, 413)["error"]


def test_long_body_is_refused_while_it_comes(serve: Serve, floats: Autoencoder) -> None:
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


def test_slow_body_is_given_up(serve: Serve, floats: Autoencoder) -> None:
    answered: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answered.append(message)

    scope = scope_of("POST", "/score", {"content-type": JSON})
    asyncio.run(serve(floats, timeout=0.05)(scope, receive, send))
    assert answered[0]["status"] == 408
    assert (b"connection", b"close") in answered[0]["headers"]
