"""Bodies are read within limits, whatever they hold."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import (
    ARROW,
    JSON,
    NUMBERS,
    PARQUET,
    ROW_ROUTES,
    Asked,
    Serve,
    ask,
    ask_all,
    body,
    cells,
    good,
    objects,
    people,
    post,
    refused,
    scope_of,
    stream,
)
from twofold import Autoencoder


@pytest.mark.parametrize("route", ROW_ROUTES)
@pytest.mark.parametrize("media_type", [ARROW])
def test_uploads_are_answered_like_json(people_app: Starlette, route: str, media_type: str) -> None:
    table = pa.Table.from_pandas(people()[:6], preserve_index=False)
    # Other columns are left alone, and the model's found by name.
    table = table.select(table.column_names[::-1]).append_column("more", pa.array(range(6)))
    found = good(ask(people_app, "POST", f"/{route}", **body(table, media_type)))
    assert found == good(post(people_app, f"/{route}", {"rows": cells(people()[:6])}))


def test_codes_may_come_as_a_table(people_app: Starlette, mixed: Autoencoder) -> None:
    codes = mixed.transform(people()[:4])
    table = pa.table(dict(zip(mixed.get_feature_names_out(), codes.T, strict=True)))
    found = good(ask(people_app, "POST", "/decode", **body(table, ARROW)))
    assert found["rows"] == cells(mixed.inverse_transform(codes))


@pytest.mark.parametrize(
    ("route", "given", "said"),
    [
        ("score", {"rows": [[1, 2, 3]], "n": 1}, "Expected the fields 'rows', got 'n'."),
        ("score", {}, "'rows' is missing"),
        ("score", [], "The body is a list"),
        ("decode", {"rows": []}, "Expected the fields 'codes', got 'rows'"),
        ("sample", {}, "The field 'n' is missing."),
        ("sample", {"n": 1.5}, "n must be an integer; got 1.5."),
        ("sample", {"n": True}, "n must be an integer; got true."),
        ("sample", {"n": "3"}, "n must be an integer; got '3'."),
        ("sample", {"n": [3]}, "n must be an integer; got a list."),
        ("sample", {"n": 0}, "n must be an integer of at least 1, got 0."),
        ("sample", {"n": 1, "random_state": -1}, "random_state must be "),
        ("sample", {"n": 1, "random_state": 2**40}, "random_state=1099511627776 is not a seed."),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": 0}, "n_draws=0 must be a whole number"),
        ("impute", {"rows": [[1, 2, 3]], "n_draws": "2x"}, "n_draws must be an integer"),
    ],
)
def test_fields_and_parameters_are_checked(
    serve: Serve, floats: Autoencoder, route: str, given: Any, said: str
) -> None:
    assert refused(post(serve(floats), f"/{route}", given), 422)["error"].startswith(said)


@pytest.mark.parametrize("query", ["n_draws=2", "x=1"])
def test_query_string_is_checked(serve: Serve, floats: Autoencoder, query: str) -> None:
    answer = post(serve(floats), f"/score?{query}", {"rows": [[1, 2, 3]]})
    assert "this route takes none" in refused(answer, 422)["error"]


def test_parameter_may_be_given_once(serve: Serve, floats: Autoencoder) -> None:
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
def test_broken_json_is_refused(serve: Serve, floats: Autoencoder, content: bytes) -> None:
    answer = ask(serve(floats), "POST", "/score", content=content, headers={"content-type": JSON})
    assert refused(answer, 400)["error"].startswith("The body cannot be read as JSON: ")


@pytest.mark.parametrize("media_type", [ARROW])
@pytest.mark.parametrize("route", ["score", "decode"])
def test_broken_uploads_are_refused(
    serve: Serve, floats: Autoencoder, route: str, media_type: str
) -> None:
    app, headers = serve(floats), {"content-type": media_type}
    whole = body(pa.table({name: [1.0, 2.0] for name in "abc"}), media_type)["content"]
    rng = np.random.default_rng(0)
    broken = [b"", b"x" * 100, whole[:-20], whole[: len(whole) // 2], whole[::-1]]
    for _ in range(60):
        bytes_ = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            bytes_[place] = rng.integers(0, 256)
        broken.append(bytes(bytes_))
    requests: list[Asked] = [
        ("POST", f"/{route}", {"content": content, "headers": headers}) for content in broken
    ]
    statuses = {answer.status_code for answer in ask_all(app, requests)}
    assert statuses <= {200, 400, 413, 415, 422}
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
    serve: Serve, floats: Autoencoder, headers: dict[str, str], status: int
) -> None:
    answer = ask(serve(floats), "POST", "/score", content=b'{"rows": [[1,2,3]]}', headers=headers)
    refused(answer, status)


def test_too_many_rows_are_refused(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_rows=5)
    rows = {"rows": [[1, 2, 3]] * 6}
    assert "6 rows, and at most 5" in refused(post(app, "/score", rows), 413)["error"]
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
    assert "larger than 1,000 bytes" in refused(answer, 413)["error"]


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


ONE = pa.table({name: [1.0] for name in "abc"})


def compressed() -> bytes:
    return stream(pa.table({name: np.zeros(400_000) for name in "abc"}), compression="zstd")


def text_often(n_letters: int, n_rows: int) -> bytes:
    numbers = pa.array(np.zeros(n_rows, np.int32))
    text = pa.DictionaryArray.from_arrays(numbers, pa.array(["x" * n_letters]))
    return stream(pa.table({"a": text, "b": np.zeros(n_rows), "c": np.zeros(n_rows)}))


def nothing_often() -> bytes:
    return stream(pa.table({name: pa.nulls(10**6) for name in "abc"}))


def many_levels() -> bytes:
    levels = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.nulls(200_000))
    return stream(ONE.set_column(0, "a", levels))


def lists_of_nothing() -> bytes:
    lists = pa.FixedSizeListArray.from_arrays(pa.nulls(2**30), 2**30)
    return stream(ONE.set_column(0, "a", lists))


def many_columns() -> bytes:
    return stream(pa.table({f"c{i}": pa.nulls(1) for i in range(2_000)}))


def many_batches() -> bytes:
    sink = io.BytesIO()
    schema = pa.schema([("a", pa.null())])
    with pa.ipc.new_stream(sink, schema) as out:
        for _ in range(10_001):
            out.write_batch(pa.record_batch([pa.nulls(1)], schema=schema))
    return sink.getvalue()


def deltas() -> bytes:
    sink = io.BytesIO()
    kind = pa.dictionary(pa.int32(), pa.string())
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    schema = pa.schema([("a", kind)])
    with pa.ipc.new_stream(sink, schema, options=options) as out:
        for n in (1, 2):
            levels = pa.array([f"l{i}" for i in range(n)])
            column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), levels)
            out.write_batch(pa.record_batch([column], schema=schema))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (compressed, 415, "compressed"),
        (deltas, 415, "deltas"),
        (lambda: text_often(100_000, 9), 413, "a text of more than 65,536 bytes"),
        (lambda: text_often(60_000, 9_000), 413, "when they are written out"),
        (nothing_often, 413, "1,000,000 rows"),
        (many_levels, 422, "dictionary<values=null"),
        (lists_of_nothing, 422, "Cells are numbers, text, booleans or times"),
        (many_columns, 413, "2,000 columns, and the model 3"),
        (many_batches, 413, "more than 10,000 batches"),
    ],
)
def test_stream_that_swells_is_refused(
    serve: Serve, floats: Autoencoder, content: Callable[[], bytes], status: int, said: str
) -> None:
    app, sent = serve(floats, max_bytes=2_000_000, max_rows=100_000), content()
    assert len(sent) < 2_000_000
    before = pa.total_allocated_bytes()
    request = {"content": sent, "headers": {"content-type": ARROW}}
    # Others are served meanwhile.
    refusal, other = ask_all(
        app, [("POST", "/score", request), ("POST", "/score", {"json": {"rows": [[1, 2, 3]]}})]
    )
    assert said in refused(refusal, status)["error"]
    good(other)
    assert pa.total_allocated_bytes() - before < 5_000_000


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b'{"rows": [' + b"[]," * 600_000 + b"[]]}", 422, "Row 0 has 0 cells"),
        (b'{"rows": [["' + b"x" * 1_000_000 + b'", 2, 3]]}', 413, "Row 0 of the body is longer"),
        (b'{"rows": [{"a": 1, "b": 2, "c": 3, "a": 4}]}', 422, "names a column twice"),
        (b'{"rows": [{"a": 1, "b": ":", "c": 3, "a": 4}]}', 422, "names a column twice"),
        (b'{"rows": [[1, 2, 3]], "rows": [[1, 2, 3]]}', 422, "'rows' is given twice"),
        (
            b'{"rows": [{' + b",".join(b'"%d": 1' % i for i in range(300)) + b"}]}",
            422,
            "300 columns",
        ),
        (b'{"rows": [[1, 2, 3]]' + b" " * 70_000 + b"x}", 400, "not well-formed"),
    ],
)
def test_json_that_is_not_rows_is_refused(
    serve: Serve, floats: Autoencoder, content: bytes, status: int, said: str
) -> None:
    answer = ask(serve(floats), "POST", "/score", content=content, headers={"content-type": JSON})
    assert said in refused(answer, status)["error"]


def test_text_with_colons_is_not_a_name(people_app: Starlette, mixed: Autoencoder) -> None:
    rows = [row | {"town": 'a":"b'} for row in objects(people()[:3])]
    found = good(post(people_app, "/score", {"rows": rows}))
    assert found["score"] == mixed.score_samples(people()[:3].assign(town='a":"b')).tolist()


def test_long_body_is_read_in_pieces(people_app: Starlette, mixed: Autoencoder) -> None:
    frame = pd.concat([people(seed) for seed in range(20)], ignore_index=True)
    content = json.dumps({"rows": objects(frame)}).encode()
    assert len(content) > 3 * 2**16
    found = good(ask(people_app, "POST", "/score", content=content, headers={"content-type": JSON}))
    np.testing.assert_allclose(found["score"], mixed.score_samples(frame), rtol=1e-5)


@pytest.mark.parametrize("row", [3, 1_500, 2_399])
def test_fault_in_a_long_body_is_named_by_its_row(
    people_app: Starlette, mixed: Autoencoder, row: int
) -> None:
    frame = pd.concat([people(seed) for seed in range(20)], ignore_index=True)
    rows = objects(frame)
    rows[row]["age"] = "old"
    found = refused(post(people_app, "/score", {"rows": rows}), 422)
    assert f"(row {row}: 'old')" in found["error"]
    rows[row]["age"] = [1]
    found = refused(post(people_app, "/score", {"rows": rows}), 422)
    assert f"holds [1] in row {row}." in found["error"]


def test_parquet_and_compressed_bodies_are_not_read(serve: Serve, floats: Autoencoder) -> None:
    answer = ask(serve(floats), "POST", "/score", **body(ONE, PARQUET))
    assert ARROW in refused(answer, 415)["fix"]


def test_text_that_points_out_of_its_buffer_is_refused(people_app: Starlette) -> None:
    table = pa.Table.from_pandas(people()[:1].assign(town="x" * 4321), preserve_index=False)
    content, offsets = stream(table), struct.pack("<ii", 0, 4321)
    before, _, after = content.rpartition(offsets)
    content = before + struct.pack("<ii", 0, 10**6) + after
    answer = ask(people_app, "POST", "/score", content=content, headers={"content-type": ARROW})
    found = refused(answer, 400)
    assert "cannot be read as an Arrow stream" in found["error"]


def test_twice_named_column_is_refused(people_app: Starlette) -> None:
    table = pa.Table.from_pandas(people()[:1], preserve_index=False)
    twice = pa.Table.from_arrays(
        [*table.columns, table.column(0)], names=[*table.column_names, "age"]
    )
    answer = ask(people_app, "POST", "/score", **body(twice, ARROW))
    assert "more than one column 'age'" in refused(answer, 422)["error"]
