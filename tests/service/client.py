"""Requests to the service in this process, and models to serve."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.applications import Starlette

from twofold import Autoencoder
from twofold.errors import LosesToPCAWarning
from twofold.service import model as verbs

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
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


Serve = Callable[..., Starlette]
Asked = tuple[str, str, dict[str, Any]]


def ask_all(app: Starlette, requests: list[Asked]) -> list[httpx.Response]:
    """Send requests at the same time."""

    async def run() -> list[httpx.Response]:
        # Errors that the application should have answered fail the test.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.request(m, p, **k) for m, p, k in requests))

    return asyncio.run(run())


def ask(app: Starlette, method: str, path: str, **given: Any) -> httpx.Response:
    return ask_all(app, [(method, path, given)])[0]


def post(app: Starlette, path: str, document: Any = None, **given: Any) -> httpx.Response:
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
    return [list(row) for row in json.loads(json.dumps(plain_rows(table)))]


def plain_rows(table: pa.Table) -> list[tuple[Any, ...]]:
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
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


def as_arrow(ae: Autoencoder) -> Autoencoder:
    """The model whose rows from codes are Arrow tables, as the service's are."""
    return verbs.ServedModel(ae).model


def scope_of(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    raw = [(name.encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    return {**scope, "query_string": b"", "headers": raw, "http_version": "1.1", "root_path": ""}


class Gate:
    """Holds the thread that computes until it is opened."""

    def __init__(self, app: Starlette) -> None:
        self._closed, self.reached = threading.Event(), threading.Event()
        verb = app.state.service.current.verbs["score"]
        self._score, verb.run = verb.run, self._run
        self.calls: list[int] = []

    def _run(self, rows: Any) -> Any:
        self.calls.append(len(rows))
        self.reached.set()
        assert self._closed.wait(20)
        return self._score(rows)

    def open(self) -> None:
        self._closed.set()


def together(app: Starlette, requests: list[Asked]) -> list[httpx.Response]:
    """Send requests that all wait for one that is being computed."""
    worker = app.state.service.worker
    begun, opened = threading.Event(), threading.Event()

    def blocked() -> Iterator[None]:
        begun.set()
        opened.wait(20)
        yield

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            blocker = asyncio.create_task(worker.call(blocked()))
            await asyncio.to_thread(begun.wait, 20)
            asked = [asyncio.create_task(client.request(m, p, **k)) for m, p, k in requests]
            while worker.n_waiting < len(requests) and not all(task.done() for task in asked):
                await asyncio.sleep(0)
            opened.set()
            await blocker
            return await asyncio.gather(*asked)

    return asyncio.run(run())


def assert_close(a: Any, b: Any) -> None:
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)
    elif isinstance(a, str) and a[:2] == "20":
        assert abs(datetime.fromisoformat(a) - datetime.fromisoformat(b)) < timedelta(minutes=5)
    else:
        assert a == b
