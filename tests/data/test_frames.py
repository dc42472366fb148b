"""Frames of every type become tables and come back equal, and only their missing cells change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.data import filling, frames
from twofold.data.table import Format, Table
from twofold.errors import DataError, MissingExtraError

NAN = np.nan
MOMENTS = ["2020-10-25 02:30:07", None, "1931-12-31 23:59:59"]
UNITS = ("s", "ms", "us", "ns")


def objects(*cells: Any) -> pd.Series:
    return pd.Series(list(cells), dtype=object)


def categories(codes: list[int], levels: Any, ordered: bool = False) -> pd.Series:
    return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=ordered))


def arrow_backed(array: Any) -> pd.Series:
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))


PANDAS: dict[str, pd.Series] = {
    **{kind: pd.Series([1.5, NAN, -2], dtype=kind) for kind in ("float16", "float32", "float64")},
    **{
        kind: pd.Series([1, 0, 7], dtype=kind)
        for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{
        kind: pd.Series([1, None, 7], dtype=kind)
        for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt64", "Float32", "Float64")
    },
    "largest exact": pd.Series([2**53, 0, -(2**53)]),
    "bool": pd.Series([True, False, True]),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "str": pd.Series(["größe", None, ""], dtype="str"),
    "str in Python": pd.Series(["b", None, 'a"\n'], dtype=pd.StringDtype("python", na_value=NAN)),
    "string": pd.Series(["b", None, ""], dtype="string"),
    "string in Python": pd.Series(["b", None, "a"], dtype=pd.StringDtype("python")),
    "text": objects("b", None, "a"),
    "text with nan": objects("b", NAN, "a"),
    "text with NA": objects("b", pd.NA, "a"),
    "whole numbers": objects(1, None, 3),
    "numbers": objects(1.5, NAN, 3.0),
    "booleans": objects(True, None, False),
    "decimals": objects(Decimal("1.25"), None, Decimal("-3.00")),
    "dates": objects(date(2020, 1, 31), None, date(1950, 1, 1)),
    "moments": objects(datetime(2020, 1, 31, 5), None, datetime(1950, 1, 1)),
    "moments with NaT": objects(datetime(2020, 1, 31, 5), pd.NaT, datetime(1950, 1, 1)),
    "moments in a zone": objects(datetime(2020, 1, 1, tzinfo=UTC), None, None),
    "times of day": objects(time(5, 6, 7, 8), None, time(0)),
    "durations": objects(timedelta(1, 2, 3), None, timedelta(-1)),
    "nothing": objects(None, None, None),
    "category": categories([0, -1, 2], ["b", "unused", "a"]),
    "ordered category": categories([0, -1, 2], ["b", "unused", "a"], ordered=True),
    "category of objects": categories([0, -1, 1], pd.Index(["x", "y"], dtype=object)),
    "category of string": categories([0, -1, 1], pd.Index(["x", "y"], dtype="string")),
    "category of both": categories([0, -1, 1], pd.Index([1, "y"], dtype=object)),
    "category of int64": categories([0, -1, 1], [3, 1]),
    "category of int8": categories([0, -1, 1], pd.Index([3, 1], dtype="int8")),
    "category of floats": categories([0, -1, 1], [3.5, 1.0]),
    "category of booleans": categories([0, -1, 1], [True, False]),
    "category of intervals": pd.Series(pd.cut([1.0, NAN, 3.3], 3)),
    "category of whole intervals": pd.Series(pd.cut([1, 2, 3], [0, 1, 3], right=False)),
    "category of moments": categories([0, -1, 1], pd.to_datetime(["2020-01-01", "2021-06-01"])),
    "category of zones": categories(
        [0, -1], pd.to_datetime(["2020-01-01"]).tz_localize("Asia/Tokyo")
    ),
    "category of periods": categories([0, -1, 1], pd.period_range("2020", periods=2, freq="M")),
    "category of durations": categories([0, -1, 1], pd.to_timedelta([1, 2], unit="s")),
    "category of nothing": pd.Series([None, None], dtype="category"),
    **{f"datetime64[{u}]": pd.Series(pd.to_datetime(MOMENTS)).astype(f"M8[{u}]") for u in UNITS},
    **{
        f"datetime64[{u}, Berlin]": pd.Series(
            pd.to_datetime(MOMENTS).tz_localize("UTC").tz_convert("Europe/Berlin").as_unit(u)
        )
        for u in UNITS
    },
    "offset": pd.Series(pd.to_datetime(["2020-10-25 02:30:07+05:30", None])),
    **{
        f"timedelta64[{u}]": pd.Series(pd.to_timedelta([1, None, -86400], unit="s")).astype(
            f"m8[{u}]"
        )
        for u in UNITS
    },
    "period": pd.Series(pd.PeriodIndex(["2020-01", None, "1950-12"], freq="M")),
    "quarter": pd.Series(pd.PeriodIndex(["2020Q1", None, "1950Q4"], freq="Q-NOV")),
    "sparse": pd.Series(pd.arrays.SparseArray([1.5, NAN, 0])),
    "sparse integers": pd.Series(pd.arrays.SparseArray([1, 0, 0])),
    "sparse booleans": pd.Series(pd.arrays.SparseArray([True, False, False])),
    "int64[pyarrow]": arrow_backed(pa.array([1, None, 3])),
    "string[pyarrow]": arrow_backed(pa.array(["b", None, "a"])),
    "bool[pyarrow]": arrow_backed(pa.array([True, None, False])),
    "float[pyarrow]": arrow_backed(pa.array([1.5, None, 3], pa.float32())),
    "timestamp[pyarrow]": arrow_backed(pa.array([10**15, None], pa.timestamp("us", "UTC"))),
    "date32[pyarrow]": arrow_backed(pa.array([date(2020, 1, 31), None])),
    "decimal[pyarrow]": arrow_backed(pa.array([Decimal("1.25"), None])),
    "dictionary[pyarrow]": arrow_backed(pa.array(["b", None, "a"]).dictionary_encode()),
    "null[pyarrow]": arrow_backed(pa.nulls(3)),
}
_NUMERIC = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16")
ARROW: dict[str, pa.Array] = {
    **{name: pa.array([1, None, 7]).cast(name) for name in (*_NUMERIC, "float32", "float64")},
    **{str(t): pa.array([1, None, 86399], t) for t in (pa.time32("s"), pa.time64("us"))},
    **{f"timestamp[{u}]": pa.array([10**9, None, -7], pa.timestamp(u)) for u in UNITS},
    **{f"timestamp[{u}, tz]": pa.array([1, None], pa.timestamp(u, "Asia/Tokyo")) for u in UNITS},
    **{f"duration[{u}]": pa.array([10**9, None, -7], pa.duration(u)) for u in UNITS},
    "date32": pa.array([18000, None, -7], pa.date32()),
    "date64": pa.array([86_400_000, None, 0], pa.date64()),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["größe", None, ""]),
    "large_string": pa.array(["b", None, "a"], pa.large_string()),
    "string_view": pa.array(["b", None, "a"], pa.string_view()),
    "decimal128": pa.array([Decimal("1234567.10"), None], pa.decimal128(38, 10)),
    "decimal256": pa.array([Decimal("1.25"), None, Decimal("-7")], pa.decimal256(50, 20)),
    "null": pa.nulls(3),
    "dictionary": pa.array(["b", None, "a"]).dictionary_encode(),
    "ordered dictionary": pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0], pa.int8()), pa.array(["b", "a", "unused"]), ordered=True
    ),
    "dictionary of int64": pa.array([5, None, 2]).dictionary_encode(),
    "dictionary of dates": pa.array([date(2020, 1, 1), None]).dictionary_encode(),
    "dictionary of decimals": pa.array([Decimal("1.25"), None]).dictionary_encode(),
}
POLARS: dict[str, pl.Series] = {
    **{
        str(t): pl.Series([1, None, 7], dtype=t)
        for t in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16)
    },
    **{
        str(t): pl.Series([1, None, 7], dtype=t)
        for t in (pl.UInt32, pl.UInt64, pl.Float32, pl.Float64)
    },
    "Boolean": pl.Series([True, None, False]),
    "String": pl.Series(["größe", None, ""]),
    "Categorical": pl.Series(["b", None, "a"], dtype=pl.Categorical),
    "Enum": pl.Series(["b", None, "a"], dtype=pl.Enum(["b", "unused", "a"])),
    "Date": pl.Series([date(2020, 1, 1), None, date(1950, 1, 1)]),
    "Time": pl.Series([time(1, 2, 3, 4), None, time(0)]),
    **{f"Datetime {u}": pl.Series([10**9, None, -7]).cast(pl.Datetime(u)) for u in UNITS[1:]},
    **{
        f"Datetime {u} in a zone": pl.Series([1, None]).cast(pl.Datetime(u, "Asia/Tokyo"))
        for u in UNITS[1:]
    },
    **{f"Duration {u}": pl.Series([10**9, None, -7]).cast(pl.Duration(u)) for u in UNITS[1:]},
    "Decimal": pl.Series([Decimal("1.25"), None, Decimal("-7.00")]),
    "Null": pl.Series([None, None]),
}
CASES = [
    pytest.param(container, column, id=f"{container}-{name}")
    for container, columns in (("pandas", PANDAS), ("arrow", ARROW), ("polars", POLARS))
    for name, column in columns.items()
]


def frame_of(container: str, column: Any, rows: slice = slice(None)) -> Any:
    if container == "pandas":
        part = column.iloc[rows]
        return pd.DataFrame({"c": part}).set_axis(["k"] * len(part))  # the index may repeat
    part = column[rows]
    return pl.DataFrame({"c": part}) if container == "polars" else pa.table({"c": part})


def back(table: Table) -> Any:
    assert table.formats is not None
    assert table.names is not None
    return frames.give_back(table.values, table.container, table.names, table.index, table.formats)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
        return
    assert found.equals(expected)
    assert found.schema == expected.schema


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(0, 1), slice(1, 2), slice(0, 0)],
    ids=["all", "one row", "all missing", "no rows"],
)
@pytest.mark.parametrize(("container", "column"), CASES)
def test_column_comes_back_as_it_was(container: str, column: Any, rows: slice) -> None:
    frame = frame_of(container, column, rows)
    assert_same(back(frames.read(frame, container)), frame)


@pytest.mark.parametrize(("container", "column"), CASES)
def test_only_missing_cells_are_filled(container: str, column: Any) -> None:
    frame = frame_of(container, column)
    table = frames.read(frame, container)
    known = table.values[~np.isnan(table.values)]
    wanted = np.where(np.isnan(table.values), known[:1] if len(known) else NAN, table.values)
    filled = filling.fill(frame, table, wanted)
    np.testing.assert_array_equal(frames.read(filled, container).values, wanted)
    assert_same(back(table), frame)  # the caller's own is as before
    kept = np.flatnonzero(~np.isnan(table.values[:, 0]))
    if container == "pandas":
        assert filled["c"].dtype == frame["c"].dtype
        pd.testing.assert_frame_equal(filled.iloc[kept], frame.iloc[kept])
    else:
        assert filled.schema == frame.schema
        before, after = ([one["c"][int(row)] for row in kept] for one in (frame, filled))
        assert before == after


CELLS: dict[str, tuple[Any, Any, Any]] = {
    "text": (st.text(st.characters(codec="utf-8"), max_size=5), pl.String, pa.string()),
    "integers": (st.integers(-(2**53), 2**53), pl.Int64, pa.int64()),
    "floats": (st.floats(allow_nan=False), pl.Float64, pa.float64()),
    "booleans": (st.booleans(), pl.Boolean, pa.bool_()),
    "dates": (st.dates(), pl.Date, pa.date32()),
    # Up to here microseconds are exact.
    "moments": (
        st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
        pl.Datetime("us"),
        pa.timestamp("us"),
    ),
    "times of day": (st.times(), pl.Time, pa.time64("us")),
}


@pytest.mark.parametrize("kind", CELLS)
def test_any_cells_come_back(kind: str) -> None:
    cells, polars_dtype, arrow_type = CELLS[kind]

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(st.lists(st.none() | cells, max_size=8))
    def check(column: list[Any]) -> None:
        for container, frame in {
            "pandas": pd.DataFrame({"c": objects(*column)}),
            "polars": pl.DataFrame({"c": pl.Series(column, dtype=polars_dtype)}),
            "arrow": pa.table({"c": pa.array(column, arrow_type)}),
        }.items():
            assert_same(back(frames.read(frame, container)), frame)

    check()


# What the numbers of a table say


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"c": ["b", "a", None, "ä"]}),
        pd.DataFrame({"c": objects("b", "a", None, "ä")}),
        pl.DataFrame({"c": ["b", "a", None, "ä"]}),
        pl.DataFrame({"c": pl.Series(["b", "a", None, "ä"], dtype=pl.Categorical)}),
        pa.table({"c": ["b", "a", None, "ä"]}),
    ],
)
def test_text_is_counted_in_the_order_of_its_letters(frame: Any) -> None:
    container = type(frame).__module__.partition(".")[0].replace("pyarrow", "arrow")
    table = frames.read(frame, container)
    assert table.formats is not None
    assert table.formats[0].levels == ("a", "b", "ä")
    np.testing.assert_array_equal(table.values[:, 0], [1, 0, NAN, 2])


@pytest.mark.parametrize(
    ("container", "column", "levels", "ordered"),
    [
        ("pandas", PANDAS["category"], ("b", "unused", "a"), False),
        ("pandas", PANDAS["ordered category"], ("b", "unused", "a"), True),
        ("pandas", PANDAS["category of int8"], (3, 1), False),
        ("polars", POLARS["Enum"], ("b", "unused", "a"), True),
        ("arrow", ARROW["ordered dictionary"], ("b", "a", "unused"), True),
        ("arrow", ARROW["dictionary of dates"], ("2020-01-01",), False),
    ],
)
def test_declared_categories_keep_their_order(
    container: str, column: Any, levels: tuple[Any, ...], ordered: bool
) -> None:
    table = frames.read(frame_of(container, column), container)
    assert table.formats is not None
    assert (table.formats[0].levels, table.formats[0].ordered) == (levels, ordered)


def test_text_that_looks_like_numbers_is_text() -> None:
    table = frames.read(pd.DataFrame({"c": ["12", "7"]}), "pandas")
    assert table.formats == (Format("text", "str", ("12", "7")),)


@pytest.mark.parametrize(
    ("column", "seconds"),
    [
        (pd.Series(pd.to_datetime(["1970-01-02 00:00:01.5"])), 86401.5),
        (pd.Series(pd.to_datetime(["1970-01-02"]).tz_localize("Asia/Tokyo")), 54000),
        (objects(date(1970, 1, 3)), 2 * 86400),
        (pd.Series(pd.PeriodIndex(["1970-02"], freq="M")), 31 * 86400),
        (pd.Series(pd.to_timedelta([-1500], unit="ms")), -1.5),
        (objects(time(1, 0, 0, 500_000)), 3600.5),
    ],
)
def test_times_are_seconds(column: pd.Series, seconds: float) -> None:
    assert frames.read(pd.DataFrame({"c": column}), "pandas").values.tolist() == [[seconds]]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("datetime64[s]", "time"),
        ("dates", "time"),
        ("period", "time"),
        ("timedelta64[s]", "number"),
        ("times of day", "number"),
        ("booleans", "boolean"),
        ("sparse booleans", "boolean"),
        ("decimals", "number"),
        ("nothing", "number"),
        ("category of int64", "text"),
    ],
)
def test_type_of_a_column(column: str, kind: str) -> None:
    formats = frames.read(pd.DataFrame({"c": PANDAS[column]}), "pandas").formats
    assert formats is not None
    assert formats[0].type == kind


SMALL = ["float32", "float16", "int16", "uint16", "Int8", "str", "boolean", "category", "nothing"]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ([*SMALL, "sparse booleans"], "f4"),
        ([*SMALL, "int32"], "f8"),
        ([*SMALL, "datetime64[s]"], "f8"),
        ([*SMALL, "whole numbers"], "f8"),
    ],
)
def test_table_is_as_wide_as_its_columns_need(names: list[str], kept: str) -> None:
    frame = pd.DataFrame({name: PANDAS[name] for name in names})
    assert frames.read(frame, "pandas").values.dtype == kept


def test_columns_of_unlike_chunks_are_joined() -> None:
    column = pa.chunked_array(
        [pa.array(["x", None]).dictionary_encode(), pa.array(["z", "x"]).dictionary_encode()]
    )
    table = frames.read(pa.table({"c": column}), "arrow")
    np.testing.assert_array_equal(table.values[:, 0], [0, NAN, 1, 0])


# What is no table


ODD: list[tuple[Any, str]] = [
    (objects(*range(17), "n/a", 5), r"holds numbers and text \(row 17: 'n/a'\)"),
    (objects("a", None, "b", 3, "c"), r"holds text and numbers \(row 3: 3\)"),
    (objects(True, True, "x"), r"holds booleans and text \(row 2: 'x'\)"),
    (objects(date(2020, 1, 1), 1), r"holds dates and numbers \(row 1: 1\)"),
    (objects(date(2020, 1, 1), datetime(2020, 1, 1)), "holds dates and times"),
    (
        objects(datetime(2020, 1, 1), None, datetime(2020, 1, 1, tzinfo=UTC)),
        r"holds times with and without a time zone \(row 2: ",
    ),
    (objects(1, [2]), r"holds \[2\] in row 1"),
    (objects(None, {"x": 1}), r"holds \{'x': 1\} in row 1"),
    (objects((1, 2)), r"holds \(1, 2\) in row 0"),
    (objects("a", b"b"), "holds b'b' in row 1"),
    (objects(1j), "holds 1j in row 0"),
    (objects("a", "\ud800"), r"holds text that cannot be read \(row 1: '\\ud800'\)"),
    (objects(1, 10**400), r"holds numbers too large for 64-bit floats \(row 1: 10000"),
    (pd.Series([1j]), r"holds 1j in row 0 \(type complex128\)"),
    (pd.Series(pd.interval_range(0, 2)), r"holds \(0, 1\] in row 0"),
    (categories([1, 0], [(1, 2), (3, 4)]), r"holds the category \(1, 2\) in row 1"),
    (pa.array([None, [1]]), r"holds \[1\] in row 1"),
    (pa.array([None, None], pa.list_(pa.int8())), "is of the type list"),
    (pa.array([b"x"]), "holds b'x' in row 0"),
    (
        pa.array([time(3)]).dictionary_encode(),
        r"holds datetime.time\(3, 0\) in row 0 \(type dictionary",
    ),
    (pl.Series([None, [1]]), r"holds \[1\] in row 1"),
    (pl.Series([None, object()], dtype=pl.Object), "holds <object object at .* in row 1"),
]


@pytest.mark.parametrize(("column", "message"), ODD)
def test_column_that_means_nothing_is_named(column: Any, message: str) -> None:
    container = {"pandas": "pandas", "polars": "polars"}.get(type(column).__module__[:6], "arrow")
    with pytest.raises(DataError, match=f"Column 'c' {message}"):
        frames.read(frame_of(container, column), container)


def test_objects_that_are_numbers_of_several_types_are_numbers() -> None:
    column = objects(True, 2, Decimal("0.5"), Fraction(1, 4), np.float32(3), None, 2**70)
    values = frames.read(pd.DataFrame({"c": column}), "pandas").values[:, 0]
    np.testing.assert_array_equal(values, [1, 2, 0.5, 0.25, 3, NAN, 2.0**70])


def test_every_column_that_means_nothing_is_told_with_its_remedy() -> None:
    frame = pd.DataFrame({"a": objects([1]), "b": [1.0], "c": objects({}), "d": objects(b"")})
    frame["e"] = objects("x")
    frame.loc[1] = [None, 2.0, None, None, 5]
    with pytest.raises(DataError) as raised:
        frames.read(frame, "pandas")
    text = str(raised.value)
    assert [name for name in "abcde" if f"Column '{name}' holds" in text] == ["a", "c", "d", "e"]
    assert text.count("take it apart") == 1
    assert "correct the cells of the other kind or leave them" in text


def test_many_mistakes_are_told_in_a_message_that_ends() -> None:
    frame = pd.DataFrame({f"c{i}": objects([1]) for i in range(100)})
    with pytest.raises(DataError, match="80 columns more"):
        frames.read(frame, "pandas")


# Going back


def given_back(container: str, cells: list[float], *form: Any) -> Any:
    values = np.array(cells)[:, None]
    return frames.give_back(values, container, ["c"], None, [Format(*form)])


@pytest.mark.parametrize(
    ("dtype", "cells", "expected"),
    [
        ("int8", [1.4, 200.0, -np.inf], [1, 127, -128]),
        ("uint8", [-3.0, 254.6], [0, 255]),
        ("int64", [1e30, -1e30], [2**63 - 1024, -(2**63)]),
        ("uint64", [1e30, -1.0], [2**64 - 2048, 0]),
    ],
)
@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_whole_numbers_stay_in_the_range_of_their_type(
    container: str, dtype: str, cells: list[float], expected: list[int]
) -> None:
    name = dtype.replace("i", "I").replace("u", "U") if container == "polars" else dtype
    frame = given_back(container, cells, "number", name)
    assert list(frame["c"].to_pylist() if container == "arrow" else frame["c"]) == expected


def test_integers_of_pandas_that_turn_out_missing_are_floats() -> None:
    column = given_back("pandas", [1.4, NAN], "number", "int64")["c"]
    np.testing.assert_array_equal(column, [1.0, NAN])


def test_booleans_of_pandas_that_turn_out_missing_are_nullable() -> None:
    column = given_back("pandas", [0.7, 0.2, NAN], "boolean", "bool")["c"]
    pd.testing.assert_series_equal(
        column, pd.Series([True, False, None], dtype="boolean", name="c")
    )


def test_nanoseconds_are_given_where_a_float_holds_them() -> None:
    exact = given_back("arrow", [1.000000001], "time", "timestamp[ns]")
    assert exact["c"].cast("int64").to_pylist() == [1_000_000_001]
    today = given_back("arrow", [1.7e9 + 0.123456], "time", "timestamp[ns]")
    assert today["c"].cast("int64").to_pylist() == [1_700_000_000_123_456_000]


def test_time_of_day_stays_within_the_day() -> None:
    frame = given_back("polars", [-5.0, 1e6], "number", "Time")
    assert frame["c"].to_list() == [time(0), time(23, 59, 59, 999_999)]


def test_column_that_was_all_missing_may_hold_numbers() -> None:
    for container, name in (("arrow", "null"), ("polars", "Null"), ("pandas", "object[null]")):
        frame = given_back(container, [1.5, NAN], "number", name)
        cells = frame["c"].to_pylist() if container == "arrow" else list(frame["c"])
        assert cells == [1.5, None]


def test_columns_of_one_name_go_back_to_pandas() -> None:
    frame = pd.DataFrame([[1, "x"], [2, "y"]], columns=["a", "a"]).astype(object)
    assert_same(back(frames.read(frame, "pandas")), frame)


def test_container_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(frames, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"Install 'twofold\[polars\]'"):
        given_back("polars", [1.0], "number", "Float64")


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
@pytest.mark.parametrize("kind", ["number", "boolean", "text", "time", "what"])
@pytest.mark.parametrize("levels", [(), ("a", "b"), (1, 2.5), (1, "a")])
def test_format_of_any_wording_gives_back_some_column(
    container: str, kind: str, levels: tuple[Any, ...]
) -> None:
    for name in (
        *("", "read_csv(source='x')", "DataFrame", "DataType", "int64", "Int64", "uint8", "V100"),
        *("S5", "string", "str", "object", "object[list<item: int8>]", "halffloat", "binary"),
        *("category", "category[what]", "category[interval[int64]]", "interval[int64]", "Struct"),
        *("timestamp[us, tz=No/Where]", "datetime64[us, No/Where]", "datetime64[D]", "Enum"),
        *("Datetime(time_unit='us', time_zone='No/Where')", "timedelta64[D]", "period[M]"),
        *("decimal128(99, 2)", "Decimal(precision=99, scale=3)", "Sparse[int]", "complex128"),
        *("dictionary<values=int64, indices=int8, ordered=0>", "List(Int64)", "Array(Int64, 3)"),
        *("dictionary<values=string, indices=string, ordered=0>", "Null", "null", "int8[pyarrow]"),
    ):
        values = np.array([[0.0], [1.0], [NAN]])
        found = frames.give_back(values, container, ["c"], None, [Format(kind, name, levels)])
        assert len(found) == 3


# Arrow tables of other containers' columns


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (Format("number", "Int16"), pa.int16()),
        (Format("number", "Float32"), pa.float32()),
        (Format("number", "int64[pyarrow]"), pa.int64()),
        (Format("number", "object[decimal128(3, 2), nan]"), pa.decimal128(3, 2)),
        (Format("number", "Decimal(precision=9, scale=2)"), pa.decimal128(9, 2)),
        (Format("number", "timedelta64[us]"), pa.float64()),
        (Format("boolean", "boolean"), pa.bool_()),
        (Format("text", "str", ("a",)), pa.string()),
        (Format("text", "category", ("a",)), pa.string()),
        (Format("text", "category", (1, 2)), pa.int64()),
        (Format("text", "category", (1, "a")), pa.string()),
        (Format("text", "Enum", ("a",)), pa.string()),
        (Format("time", "datetime64[ms, Europe/Berlin]"), pa.timestamp("ms", "Europe/Berlin")),
        (Format("time", "Datetime(time_unit='ns', time_zone=None)"), pa.timestamp("ns")),
        (Format("time", "Date"), pa.date32()),
        (Format("time", "period[M]"), pa.timestamp("us")),
    ],
)
def test_column_of_any_container_goes_to_arrow(form: Format, kind: Any) -> None:
    table = frames.to_arrow(np.array([[0.0], [NAN]]), ["c"], [form])
    assert table["c"].type == kind
    assert table["c"].null_count == 1
