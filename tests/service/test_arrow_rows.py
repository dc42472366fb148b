"""Arrow streams are read as they lie in the body, or refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import (
    ARROW,
    PARQUET,
    ROW_ROUTES,
    Asked,
    Serve,
    ask,
    ask_all,
    body,
    cells,
    good,
    people,
    post,
    refused,
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
        (lambda: text_often(100_000, 9), 413, "texts of at most 65,536 bytes"),
        (lambda: text_often(60_000, 9_000), 413, "when they are written out"),
        (nothing_often, 413, "got a request for 1,000,000"),
        (many_levels, 422, "dictionary<values=null"),
        (lists_of_nothing, 422, "Cells are numbers, text, booleans or times"),
        (many_columns, 413, "Expected a table of 3 columns, got 2,000"),
        (many_batches, 413, "at most 10,000 batches"),
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
