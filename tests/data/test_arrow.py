"""Arrow's cells become numbers without losing digits that a float can hold, and come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from twofold.data import arrow
from twofold.data.table import Format

NAN = np.nan


@pytest.mark.parametrize("unit", ["s", "ms", "us", "D"])
def test_times_of_four_centuries_come_back_exactly(unit: str) -> None:
    rng = np.random.default_rng(0)
    seconds = rng.integers(-200 * 365 * 86_400, 200 * 365 * 86_400, 1000)
    per_second = {"s": 1, "ms": 1000, "us": 1_000_000}.get(unit)
    ticks = seconds // 86_400 if per_second is None else seconds * per_second + 123_456 % per_second
    cells = arrow.seconds(ticks, unit, np.zeros(1000, dtype=bool))
    np.testing.assert_array_equal(arrow.ticks(cells, unit), ticks)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "D"])
def test_moment_beyond_all_units_is_held_within_them(unit: str) -> None:
    found = arrow.ticks(np.array([np.inf, -np.inf, 1e300, NAN]), unit)
    assert found[0] == found[2] > 0 > found[1]
    assert found[3] == 0


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
def test_whole_numbers_are_rounded_into_their_range(dtype: str) -> None:
    info = np.iinfo(dtype)
    found = arrow.whole_numbers(np.array([2.5, 3.5, NAN, 1e300, -1e300]), np.dtype(dtype))
    assert found[:3].tolist() == [2, 4, 0]
    assert found[4] == info.min
    assert info.max - 2048 < found[3] <= info.max


def test_dictionary_may_hold_nulls_and_repeat_itself() -> None:
    levels = pa.array(["a", "b", "a", None])
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, None]), levels)
    cells, form = arrow.read(arrow.chunked(column))
    np.testing.assert_array_equal(cells, [0, 1, 0, NAN, NAN])
    assert form.levels == ("a", "b")
    back = arrow.array(cells.astype(np.float64), form, column.type)
    assert back.to_pylist() == ["a", "b", "a", None, None]


def test_dictionaries_with_nulls_are_joined_and_filled() -> None:
    parts = [["a", None], ["c", "a"]]
    column = pa.chunked_array(
        [pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(p)) for p in parts]
    )
    cells, form = arrow.read(column)
    np.testing.assert_array_equal(cells, [0, NAN, 1, 0])
    filled = arrow.filled(column, np.isnan(cells), np.array([1.0]), form)
    assert filled.type == column.type
    assert filled.to_pylist() == ["a", "c", "c", "a"]


@pytest.mark.parametrize(
    ("cells", "kind", "found"),
    [
        ([1.1, 2.345, NAN], pa.decimal128(5, 2), ["1.10", "2.35", None]),
        ([1234567.1], pa.decimal128(38, 20), ["1234567.1" + "0" * 19]),
        ([1e9, -1e9], pa.decimal128(5, 2), ["999.99", "-999.99"]),
        ([149.0], pa.decimal128(5, -2), ["1E+2"]),
    ],
)
def test_decimals_have_the_digits_that_a_float_means(
    cells: list[float], kind: Any, found: list[str | None]
) -> None:
    column = arrow.array(np.array(cells), Format("number", str(kind)), kind).to_pylist()
    assert [None if cell is None else str(cell) for cell in column] == found


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.null(), pa.date32(), pa.date64()),
        *(pa.time32("ms"), pa.time64("ns"), pa.duration("us"), pa.decimal128(5, 2)),
        *(pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("s", "+05:30")),
    ],
    ids=str,
)
def test_type_is_found_by_its_name(kind: Any) -> None:
    moment = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    assert arrow.kind_of(Format("time" if moment else "number", str(kind))) == kind


def test_dictionary_type_is_found_by_its_name() -> None:
    kind = pa.dictionary(pa.int8(), pa.decimal128(3, 1), ordered=True)
    assert arrow.kind_of(Format("text", str(kind), ("1.5",), ordered=True)) == kind


def test_levels_that_float32_cannot_count_are_counted_in_64_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column = arrow.chunked(pa.array(["c", "a", "b"]))
    assert arrow.read(column)[0].dtype == np.float32
    monkeypatch.setattr(arrow, "_EXACT_LEVELS", 2)
    assert arrow.read(column)[0].dtype == np.float64


def test_text_without_levels_is_missing() -> None:
    column = arrow.array(np.array([0.0, 3.0]), Format("text", "string"), pa.string())
    assert column.null_count == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_one_type_are_read_at_once(dtype: type) -> None:
    columns = {"a": np.array([1.5, NAN, 3], dtype), "b": np.array([4, 5, 6], dtype)}
    part = pa.table(columns).set_column(1, "b", pa.array([None, 5, 6], pa.from_numpy_dtype(dtype)))
    for table in (part, pa.concat_tables([part, part]), part.slice(0, 0), part.to_batches()[0]):
        found = arrow.read_floats(table)
        assert found is not None
        pairs = [arrow.read(arrow.chunked(column)) for column in table.columns]
        np.testing.assert_array_equal(found[0], np.column_stack([cells for cells, _ in pairs]))
        assert found[0].dtype == dtype
        assert found[1] == tuple(form for _, form in pairs)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1.5], "b": [1]}),
        pa.table({"a": ["x"]}),
        pa.table({"a": pa.array([1.5], pa.float16())}),
        pa.table(
            {"a": [1.5]}, schema=pa.schema([pa.field("a", pa.float64(), metadata={"k": "v"})])
        ),
    ],
)
def test_other_tables_are_read_by_column(table: pa.Table) -> None:
    assert arrow.read_floats(table) is None
