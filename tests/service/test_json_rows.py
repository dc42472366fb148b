"""Rows in JSON meet the checks that rows in Python meet."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette

from tests.service.client import JSON, ROW_ROUTES, Serve, ask, good, objects, people, post, refused
from twofold import Autoencoder
from twofold.errors import TwofoldError


def test_columns_of_objects_may_come_in_any_order(people_app: Starlette) -> None:
    rows = objects(people()[:4])
    turned = [dict(reversed(row.items())) for row in rows]
    first, second = (good(post(people_app, "/score", {"rows": r})) for r in (rows, turned))
    assert first == second


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_json_cells_of_the_wrong_sort_are_named(
    people_app: Starlette, mixed: Autoencoder, route: str
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
        ([[1, 2, 3], [1, 2]], "Expected 3 cells in row 1, got 2."),
        (
            [[1, 2, 3], {"a": 1}],
            "Expected lists of cells or objects, all of one sort, got an object as row 1.",
        ),
        (
            [{"a": 1, "b": 2, "c": 3}, [1, 2, 3]],
            "Expected lists of cells or objects, all of one sort, got a list as row 1.",
        ),
        ([{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2}], "Column 'c' is in row 0, and not in row 1."),
        ([[1, 2, [3]]], "Column 'c' holds [3] in row 0."),
        ([[1, 2, {"x": 1}]], "Column 'c' holds {'x': 1} in row 0."),
        ([[1, 2, 10**400]], "Column 'c' holds numbers too large for 64-bit floats (row 0: 1000"),
        (
            [3],
            "Expected lists of cells or objects, all of one sort, got a number as row 0.",
        ),
        ("x", "Expected a list of rows as 'rows', got text."),
        (None, "Expected a list of rows as 'rows', got null."),
    ],
)
def test_rows_that_are_none_are_refused(
    serve: Serve, floats: Autoencoder, rows: Any, said: str
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
def test_errors_of_arrays_are_pythons(serve: Serve, array: Autoencoder, rows: Any) -> None:
    with pytest.raises(TwofoldError) as raised:
        array.score_samples(rows if rows else np.empty(0))
    assert refused(post(serve(array), "/score", {"rows": rows}), 422)["error"] == str(raised.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 2, 3, {}]], "Expected numbers in row 0, got an object."),
        ([[1, 2, 3, 10**400]], "These rows hold numbers too large for 64-bit floats."),
        ([{"x0": 1}], "These rows have no column 'x1'."),
        ([{"x0": 1, "x1": 1, "x2": 1, "x3": 1, "y": 1}], "These rows have an unknown column 'y'."),
    ],
)
def test_arrays_that_python_cannot_hold_are_refused(
    serve: Serve, array: Autoencoder, rows: Any, said: str
) -> None:
    assert refused(post(serve(array), "/score", {"rows": rows}), 422)["error"].startswith(said)


@pytest.mark.parametrize("codes", [[[1.0]], [[1.0, None]], [[1.0, "x"]], [[1.0], [1.0, 2.0]], []])
def test_errors_of_codes_are_pythons(serve: Serve, floats: Autoencoder, codes: Any) -> None:
    given = [[np.nan if cell is None else cell for cell in row] for row in codes]
    with pytest.raises(TwofoldError) as raised:
        floats.inverse_transform(given)
    found = refused(post(serve(floats), "/decode", {"codes": codes}), 422)
    assert found["error"] == str(raised.value)


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


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b'{"rows": [' + b"[]," * 600_000 + b"[]]}", 422, "Expected 3 cells in row 0, got 0"),
        (
            b'{"rows": [["' + b"x" * 1_000_000 + b'", 2, 3]]}',
            413,
            "bytes in row 0 of the body, got more",
        ),
        (b'{"rows": [{"a": 1, "b": 2, "c": 3, "a": 4}]}', 422, "has a name twice"),
        (b'{"rows": [{"a": 1, "b": ":", "c": 3, "a": 4}]}', 422, "has a name twice"),
        (b'{"rows": [[1, 2, 3]], "rows": [[1, 2, 3]]}', 422, "has a name twice"),
        (
            b'{"rows": [{' + b",".join(b'"%d": 1' % i for i in range(300)) + b"}]}",
            422,
            "Expected rows of 3 columns, got 300",
        ),
        (b'{"rows": [[1, 2, 3]]' + b" " * 70_000 + b"x}", 400, "expected `,` or `}`"),
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
