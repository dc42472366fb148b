"""Cells of JSON become columns of the training table's types, and columns such cells again."""

from __future__ import annotations

import math
from datetime import time
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("pydantic_core", reason="the extra 'service' is not installed")

from twofold.data import json
from twofold.data.table import Format
from twofold.errors import DataError

REAL, TEXT, TIME = (
    Format("number", "double"),
    Format("text", "string"),
    Format("time", "datetime64"),
)


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        ([1, 2.5, None], pa.float64(), pa.array([1.0, 2.5, None])),
        ([1, None], pa.int32(), pa.array([1, None], pa.int32())),
        ([1, 2**40], pa.int32(), pa.array([1, 2**40])),
        ([True, None], pa.bool_(), pa.array([True, None])),
        ([2**70, 1], pa.float64(), pa.array([2.0**70, 1.0])),
        ([None, None], pa.string(), pa.nulls(2, pa.string())),
    ],
)
def test_numbers_get_the_columns_type_where_it_holds_them(
    cells: list[Any], kind: Any, expected: Any
) -> None:
    assert json.column(cells, REAL, kind, "x").equals(expected)


def test_cells_next_to_text_become_text_as_a_file_writes_them() -> None:
    found = json.column([True, 2.0, "two", None, 2.5], TEXT, pa.string(), "x")
    assert found.to_pylist() == ["true", "2", "two", None, "2.5"]


def test_booleans_are_numbers_in_a_column_of_booleans_alone() -> None:
    flags = json.column([True, 0, None], Format("boolean", "bool"), pa.bool_(), "x")
    assert flags.to_pylist() == [1, 0, None]
    assert json.column([True, 2], REAL, pa.float64(), "x").to_pylist() == ["true", "2"]


def test_texts_become_times_where_the_column_holds_times() -> None:
    stamps = json.column(["2024-05-17T09:30:00", None], TIME, pa.timestamp("us"), "since")
    assert stamps.equals(pa.array([1_715_938_200_000_000, None], pa.timestamp("us")))
    clocks = json.column(["09:30:00"], TEXT, pa.time64("us"), "at")
    assert clocks.to_pylist() == [time(9, 30)]
    assert json.column(["soon"], TIME, pa.timestamp("us"), "since").to_pylist() == ["soon"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([1], r"Column 'x' holds \[1\] in row 8\. Cells are numbers, text, booleans or times"),
        (10**400, r"Column 'x' holds numbers too large for 64-bit floats \(row 8: 1000"),
    ],
)
def test_cells_that_no_column_holds_are_named_with_their_row(cell: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        json.column([0, cell], REAL, pa.float64(), "x", first_row=7)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1.5, None]), [1.5, None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([0, None], pa.timestamp("s")), ["1970-01-01T00:00:00", None]),
        (pa.array([0], pa.timestamp("ms", "UTC")), ["1970-01-01T00:00:00Z"]),
        (pa.array([1_500_000], pa.timestamp("us")), ["1970-01-01T00:00:01.500000"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (pa.array([1, None], pa.date32()), ["1970-01-02", None]),
        (pa.array([time(9, 30), None]), ["09:30:00", None]),
        (pa.array([90], pa.duration("s")), [90.0]),
    ],
    ids=lambda given: str(getattr(given, "type", "")),
)
def test_columns_are_written_as_cells(column: Any, expected: list[Any]) -> None:
    assert json.plain(pa.chunked_array([column])) == expected


def test_what_is_no_number_is_written_as_null() -> None:
    assert json.dumps([math.nan, math.inf, 1.0]) == b"[null,null,1.0]"


@pytest.mark.parametrize("body", [b"[NaN]", b"[1", b"[" * 5000 + b"]" * 5000, b""])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="at line 1"):
        json.loads(body)
