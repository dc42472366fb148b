"""Tables become matrices and come back, whatever their columns hold, and so do schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twofold.data import convert, sources
from twofold.data import table as table_module
from twofold.data.table import Table
from twofold.errors import DataError
from twofold.schema.schema import Schema

RNG = np.random.default_rng(5)
REAL = RNG.normal(3.0, 2.0, size=(40, 4))
GREY = RNG.integers(0, 256, size=(30, 5, 6), dtype=np.uint8)


def table(values: Any, names: tuple[str, ...] | None = None) -> Table:
    array = np.asarray(values)
    return Table(array.reshape(len(array), -1), names, array.shape[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_byte_images_are_the_same_matrix_as_floats_over_255(dtype: type) -> None:
    as_bytes = Schema.infer(table(GREY)).to_matrix(table(GREY), dtype)
    floats = (GREY / 255).astype(dtype)
    as_floats = Schema.infer(table(floats)).to_matrix(table(floats), dtype)
    np.testing.assert_allclose(as_bytes, as_floats, rtol=2e-7 if dtype == np.float32 else 1e-15)


def test_columns_without_names_are_called_x0_x1() -> None:
    assert Schema.infer(table(REAL)).names == ("x0", "x1", "x2", "x3")


def test_real_columns_are_standardised() -> None:
    matrix = Schema.infer(table(REAL)).to_matrix(table(REAL), np.float64)
    expected = (REAL - REAL.mean(0)) / REAL.std(0)
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


def test_gaussian_pixels_share_one_scale() -> None:
    columns = Schema.infer(table(GREY / 255), "gaussian").columns
    pooled = np.sqrt((GREY / 255).var(axis=0).mean())
    assert [c.scale for c in columns] == pytest.approx([pooled] * 30)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("values", [REAL, GREY / 255, REAL * 1e-12, REAL * 1e12 + 1e13])
def test_from_matrix_undoes_to_matrix(values: NDArray[Any], dtype: type, tolerance: float) -> None:
    rows = table(values.astype(dtype))
    schema = Schema.infer(rows)
    back = schema.from_matrix(schema.to_matrix(rows, dtype))
    largest = float(np.abs(rows.values).max())
    np.testing.assert_allclose(back, rows.values, rtol=0, atol=tolerance * largest)
    assert back.dtype == dtype


def test_nothing_is_copied_where_the_cells_are_the_matrix() -> None:
    rows = table((GREY / 255).astype(np.float32))
    schema = Schema.infer(rows)
    assert np.shares_memory(schema.to_matrix(rows, np.float32), rows.values)


def test_to_matrix_leaves_the_callers_rows_alone() -> None:
    values = REAL.copy()
    Schema.infer(table(values)).to_matrix(table(values), np.float64)
    np.testing.assert_array_equal(values, REAL)


def test_a_constant_column_comes_back_exactly() -> None:
    # Some of these means are off by a rounding.
    values = np.tile(RNG.uniform(size=50), (41, 1)) - 0.5
    assert (values.sum(0) / 41 != values[0]).any()
    schema = Schema.infer(table(values))
    back = schema.from_matrix(schema.to_matrix(table(values), np.float64))
    np.testing.assert_array_equal(back, values)


def test_a_constant_column_is_zero_in_the_matrix() -> None:
    values = np.tile(RNG.uniform(size=50), (41, 1)) - 0.5
    schema = Schema.infer(table(values))
    assert not schema.to_matrix(table(values), np.float64).any()


def test_constant_columns_are_named() -> None:
    values = np.column_stack([REAL[:, :2], np.full(40, 7.0)])
    assert Schema.infer(table(values, ("a", "b", "c"))).constant_columns() == ["c"]


def test_large_offsets_lose_no_digits_in_32_bits() -> None:
    rows = table((RNG.normal(0, 100, (200, 3)) + 1e8).astype(np.float32))
    schema = Schema.infer(rows)
    exact = rows.values.astype(np.float64)
    expected = (exact - exact.mean(0)) / exact.std(0)
    np.testing.assert_allclose(schema.to_matrix(rows, np.float32), expected, atol=1e-6)


def test_a_nearly_constant_column_stays_finite() -> None:
    values = np.ones((50, 2))
    values[0, 0] = 1 + 2e-16
    values[1, 1] = 1 - 2e-16
    matrix = Schema.infer(table(values)).to_matrix(table(values), np.float64)
    assert np.abs(matrix).max() < 10


@pytest.mark.parametrize("factor", [1e-310, 1e-200, 1e200], ids=str)
def test_extreme_units_are_scaled_away(factor: float) -> None:
    values = REAL * factor
    matrix = Schema.infer(table(values)).to_matrix(table(values), np.float64)
    np.testing.assert_allclose(matrix.std(axis=0), 1, rtol=1e-6)


def test_infinity_is_told_with_column_and_row() -> None:
    values = REAL.copy()
    values[3, 1], values[7, 2] = np.nan, -np.inf
    schema = Schema.infer(table(REAL, tuple("abcd")))
    with pytest.raises(DataError, match="column 'c' holds infinity in row 107"):
        schema.to_matrix(table(values, tuple("abcd")), np.float64, first_row=100)


@pytest.mark.parametrize("values", [REAL, GREY / 255, np.column_stack([REAL, np.arange(40) % 2])])
def test_a_missing_cell_is_nan_in_the_matrix_and_alone_is(values: NDArray[Any]) -> None:
    rows = table(values)
    schema = Schema.infer(rows)
    rows.values[7, 2] = np.nan
    missing = np.isnan(schema.to_matrix(rows, np.float64))
    assert np.argwhere(missing).tolist() == [[7, 2]]


def test_a_cell_beyond_its_training_range_is_told_with_column_row_and_range() -> None:
    schema = Schema.infer(table(GREY / 255))
    with pytest.raises(DataError, match=r"between 0 and 1 in training and holds \d+ in row 200\."):
        schema.to_matrix(table(GREY.astype(float)), np.float32, first_row=200)


def test_a_share_of_2_is_told_among_numbers() -> None:
    values = np.column_stack([REAL, np.linspace(0, 1, 40)])
    schema = Schema.infer(table(values), {"x4": "bernoulli"})
    values[3, 4] = 2
    with pytest.raises(DataError, match="Column 4 lay between 0 and 1 in training and holds 2 in"):
        schema.to_matrix(table(values), np.float64)


def test_what_is_no_count_is_read_as_a_number_all_the_same() -> None:
    values = RNG.poisson(2.0, size=(40, 2)).astype(float)
    schema = Schema.infer(table(values), "poisson")
    odd = np.column_stack([[-1e6, -5, -1, 0, 0.5, 1, 2.5], np.zeros(7)])
    inputs = schema.to_matrix(table(odd), np.float64)[:, 0]
    assert (np.diff(inputs) > 0).all()
    assert np.isfinite(inputs).all()


def test_rounding_beyond_the_unit_range_is_forgiven() -> None:
    schema = Schema.infer(table(GREY / 255))
    schema.to_matrix(table(GREY / 255 + 1e-9), np.float32)


def test_a_cell_too_far_out_for_32_bits_is_told_with_column_and_row() -> None:
    schema = Schema.infer(table(REAL * 1e-6))
    far = (REAL * 1e-6).astype(np.float32)
    far[5, 3] = 1e35
    with pytest.raises(DataError, match=r"Column 3 holds 1e\+35 in row 5, too far from its"):
        schema.to_matrix(table(far), np.float32)


def test_large_offsets_in_chunks_fill_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table((REAL * 100 + 1e8).astype(np.float32))
    schema = Schema.infer(rows)
    whole = schema.to_matrix(rows, np.float32)
    monkeypatch.setattr(table_module, "_CHUNK_CELLS", 12)
    np.testing.assert_array_equal(schema.to_matrix(rows, np.float32), whole)


def test_likelihoods_give_each_columns_position() -> None:
    values = np.column_stack([np.arange(40) % 2, REAL])
    groups = Schema.infer(table(values), {"x0": "bernoulli"}).likelihoods()
    assert groups == {"bernoulli": [0], "gaussian": [1, 2, 3, 4]}


def test_str_counts_kinds_and_constant_columns() -> None:
    values = np.column_stack([REAL, np.arange(40) % 2, np.ones(40)])
    text = "6 columns: 5 real (gaussian), 1 binary (gaussian); 1 constant"
    assert str(Schema.infer(table(values))) == text


# --- mixed tables


ROBUST = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
DTYPES = ("text", "category", "bool", "boolean", "Int64", "int", "float", "float32", "datetime")


@st.composite
def mixed_frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of columns of any type, in any order, with holes where the type has them."""
    n = draw(st.integers(1, 40))
    columns: dict[str, Any] = {}
    for i, dtype in enumerate(draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6))):
        columns[f"{dtype} {i}"] = draw(cells_of(dtype, n))
    return pd.DataFrame(columns)


def cells_of(dtype: str, n: int) -> st.SearchStrategy[Any]:
    texts = st.sampled_from(["Bonn", "Kiel", "Ulm", "", "ß", "7"])
    plain: dict[str, st.SearchStrategy[Any]] = {
        "text": texts,
        "category": texts,
        "bool": st.booleans(),
        "boolean": st.booleans(),
        "Int64": st.integers(-(2**40), 2**40) | st.integers(0, 5),
        "int": st.integers(-(2**40), 2**40) | st.integers(0, 5),
        "float": st.floats(-1e9, 1e9) | st.floats(0, 1),
        "float32": st.floats(-1e6, 1e6, width=32),
        "datetime": st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)).map(pd.Timestamp),
    }
    cell = plain[dtype]
    if dtype not in ("bool", "int"):
        cell = cell | st.none()
    names = {"text": "str", "float": "float64", "int": "int64", "datetime": "datetime64[us]"}
    return st.lists(cell, min_size=n, max_size=n).map(
        lambda cells: pd.Series(cells, dtype=names.get(dtype, dtype))
    )


def inferred(frame: pd.DataFrame) -> tuple[Schema, Table]:
    rows = sources.read(frame)
    try:
        return Schema.infer(rows), rows
    except DataError as error:
        assume("No column is left" not in str(error))
        raise


@given(mixed_frames())
@ROBUST
def test_observed_cells_come_back_and_missing_ones_stay_missing(frame: pd.DataFrame) -> None:
    schema, rows = inferred(frame)
    values = schema.from_matrix(schema.to_matrix(rows, np.float64))
    formats = schema.formats()
    back = convert.give_back(values, "pandas", schema.names, schema.row_shape, None, formats)
    for column in schema.columns:
        before, after = frame[column.name], back[column.name]
        if column.kind == "ignored":
            assert after.isna().all()
            continue
        known = before.notna()
        assert not (after.notna() & ~known).any()
        if column.kind != "category":
            assert after[known].notna().all()
        else:
            kept = {str(column.levels[i]) for i in column.standing if i >= 0}
            known &= before.astype(str).isin(kept)
        if column.kind in ("category", "binary") or "nt" in str(before.dtype):
            assert after[known].tolist() == before[known].tolist()
        elif column.kind == "time":
            assert (after[known] - before[known]).abs().max() <= pd.Timedelta("20us")
        else:
            given_, found = (s[known].to_numpy(np.float64) for s in (before, after))
            np.testing.assert_allclose(found, given_, rtol=1e-6, atol=1e-6 * column.scale)


@given(mixed_frames())
@ROBUST
def test_types_come_back_with_the_cells(frame: pd.DataFrame) -> None:
    schema, rows = inferred(frame)
    values = schema.from_matrix(schema.to_matrix(rows, np.float32))
    formats = schema.formats()
    back = convert.give_back(values, "pandas", schema.names, schema.row_shape, None, formats)
    modelled = [c.name for c in schema.columns if c.kind != "ignored"]
    assert back[modelled].dtypes.tolist() == frame[modelled].dtypes.tolist()


@given(mixed_frames(), st.integers(1, 7))
@ROBUST
def test_chunks_of_a_table_are_chunks_of_its_matrix(frame: pd.DataFrame, step: int) -> None:
    schema, rows = inferred(frame)
    parts = [
        schema.to_matrix(rows.slice(slice(i, i + step)), np.float64)
        for i in range(0, rows.n_rows, step)
    ]
    np.testing.assert_array_equal(np.vstack(parts), schema.to_matrix(rows, np.float64))


@given(mixed_frames())
@ROBUST
def test_json_gives_the_schema_of_a_mixed_table_back(frame: pd.DataFrame) -> None:
    schema, _ = inferred(frame)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@given(mixed_frames())
@ROBUST
def test_the_matrix_is_as_wide_as_said_and_finite_but_for_holes(frame: pd.DataFrame) -> None:
    schema, rows = inferred(frame)
    matrix = schema.to_matrix(rows, np.float32)
    assert matrix.shape == (rows.n_rows, schema.width)
    assert matrix.dtype == np.float32
    for column, at, cells in zip(schema.columns, schema.inputs, rows.values.T, strict=True):
        if column.width:
            expected = np.broadcast_to(np.isnan(cells)[:, None], matrix[:, at].shape)
            np.testing.assert_array_equal(np.isnan(matrix[:, at]), expected)
    assert not np.isinf(matrix).any()


N = 240
MIXED = pd.DataFrame(
    {
        "height": np.random.default_rng(0).normal(170, 8, N),
        "visits": np.random.default_rng(1).poisson(1.5, N),
        "town": np.array(["Bonn", "Kiel", "Ulm", "Trier"])[np.arange(N) * 5 % 11 % 4],
        "smoker": np.arange(N) % 3 == 0,
        "since": pd.date_range("2015-01-01", periods=N, freq="9D"),
        "key": [f"k{i}" for i in range(N)],
    }
)


def test_one_row_is_a_matrix_of_one_row() -> None:
    schema, rows = inferred(MIXED)
    whole = schema.to_matrix(rows, np.float64)
    one = schema.to_matrix(sources.read(MIXED.iloc[[17]]), np.float64)
    np.testing.assert_array_equal(one, whole[[17]])


def test_the_inputs_of_each_column_are_told() -> None:
    schema, _ = inferred(MIXED)
    assert [at.stop - at.start for at in schema.inputs] == [1, 1, 5, 1, 5, 0]
    assert (schema.inputs[0].start, schema.inputs[-1].stop, schema.width) == (0, 13, 13)


@pytest.mark.parametrize("text", ["Oslo", "bonn", "3"])
def test_a_category_that_training_never_saw_gets_the_last_input(text: str) -> None:
    schema, _ = inferred(MIXED)
    odd = MIXED.iloc[:1].assign(town=text)
    town = schema.to_matrix(sources.read(odd), np.float64)[0, schema.inputs[2]]
    assert town.tolist() == [0, 0, 0, 0, 1]


def test_categories_are_the_same_whatever_other_rows_come_with_them() -> None:
    schema, rows = inferred(MIXED)
    whole = schema.to_matrix(rows, np.float64)
    few = MIXED[MIXED.town != "Bonn"].iloc[::-1]
    found = schema.to_matrix(sources.read(few), np.float64)
    np.testing.assert_array_equal(found, whole[few.index])


def test_a_column_of_10_000_levels_stays_narrow_and_comes_back() -> None:
    names = np.array([f"k{i:05}" for i in range(10_000)])
    counts = np.random.default_rng(2).zipf(1.3, 30_000) % 10_000
    frame = pd.DataFrame({"it": names[np.concatenate([counts, np.arange(10_000)])]})
    schema, rows = inferred(frame)
    (column,) = schema.columns
    assert (column.kind, len(column.levels)) == ("category", 10_000)
    assert 20 < schema.width <= 65
    codes = schema.from_matrix(schema.to_matrix(rows, np.float32))[:, 0]
    common = frame["it"].isin([column.levels[i] for i in column.kept]).to_numpy()
    assert common.mean() > 0.4
    back = np.array(column.levels)[codes[common].astype(int)]
    np.testing.assert_array_equal(back, frame["it"].to_numpy()[common])
    assert np.isnan(codes[~common]).all()


def test_ignored_columns_do_not_change_the_matrix() -> None:
    schema, rows = inferred(MIXED)
    other = MIXED.assign(key=None)
    np.testing.assert_array_equal(
        schema.to_matrix(sources.read(other), np.float64), schema.to_matrix(rows, np.float64)
    )


def test_str_counts_what_is_ignored() -> None:
    schema, _ = inferred(MIXED)
    assert str(schema) == (
        "6 columns: 2 real (gaussian), 1 category (categorical), 1 binary (gaussian), "
        "1 time (gaussian), 1 ignored"
    )


# --- rows whose columns hold something else than in training


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"height": [*map(str, range(N - 1)), "n/a"]},
            rf"'height' held numbers in training and holds text here \(row {N - 1}: 'n/a'\)",
        ),
        ({"since": np.arange(N)}, r"'since' held times .* numbers here \(row 0: 0\)"),
        ({"since": ["soon"] * N}, r"'since' held times .* text here \(row 0: 'soon'\)"),
        ({"town": MIXED.since}, r"'town' held text .* times here \(row 0: a time\)"),
        ({"smoker": ["maybe"] * N}, r"'smoker' held numbers .* text here \(row 0: 'maybe'\)"),
    ],
)
def test_cells_of_another_type_are_told_by_column_row_and_cell(change: Any, text: str) -> None:
    schema, _ = inferred(MIXED)
    with pytest.raises(DataError, match=f"Column {text}"):
        schema.matched(sources.read(MIXED.assign(**change)))


def test_all_columns_of_another_type_are_told_at_once() -> None:
    schema, _ = inferred(MIXED)
    odd = MIXED.assign(height="tall", since="soon")
    with pytest.raises(DataError, match="'height' held .*; Column 'since' held"):
        schema.matched(sources.read(odd))


@pytest.mark.parametrize(
    "change",
    [
        {"key": np.arange(N)},
        {"height": None},
        {"since": np.nan},
        {"smoker": np.arange(N) % 2},
        {"visits": np.arange(N) * 1.0},
    ],
    ids=["ignored", "nothing", "no number", "0 and 1", "floats"],
)
def test_what_can_be_read_all_the_same_is_taken(change: dict[str, Any]) -> None:
    schema, _ = inferred(MIXED)
    rows = sources.read(MIXED.assign(**change))
    schema.matched(rows)
    schema.to_matrix(rows, np.float32)


def test_numbers_that_equal_no_level_of_text_are_refused() -> None:
    schema, _ = inferred(MIXED)
    with pytest.raises(DataError, match="'town' held text in training, .* holds other numbers"):
        schema.matched(sources.read(MIXED.assign(town=np.arange(N) % 4)))


def test_numbers_stand_for_the_levels_they_equal() -> None:
    codes = pd.DataFrame({"code": ["1.0", "2", "A7", "2"] * 20, "x": np.arange(80) % 9})
    schema, table = inferred(codes)
    numbers = sources.read(codes.assign(code=[1.0, 2.0, np.nan, 2.0] * 20))
    schema.matched(numbers)
    expected = schema.to_matrix(table, np.float64)
    known = np.arange(80) % 4 != 2
    np.testing.assert_array_equal(schema.to_matrix(numbers, np.float64)[known], expected[known])


def test_an_array_for_a_model_of_text_is_refused() -> None:
    schema, _ = inferred(MIXED)
    with pytest.raises(DataError, match="'town' held text in training, and an array holds numbers"):
        schema.matched(Table(np.zeros((3, 6))))


def test_text_for_a_model_of_an_array_is_refused() -> None:
    schema = Schema.infer(table(REAL[:, :1]))
    with pytest.raises(DataError, match="'x0' held numbers in training and holds text here"):
        schema.matched(sources.read(pd.DataFrame({"x0": ["a"]})))


# --- in which types cells come back


def test_cells_come_back_in_the_types_of_the_rows_at_hand() -> None:
    schema, _ = inferred(MIXED)
    rows = sources.read(MIXED.astype({"visits": "Int16", "height": "float32"}))
    formats = schema.formats(rows.formats)
    assert formats is not None
    assert [form.dtype for form in formats[:2]] == ["float32", "Int16"]


@pytest.mark.parametrize(
    ("name", "cells", "dtype"),
    [("town", np.nan, "str"), ("height", "str", "float64"), ("since", np.nan, "datetime64[us]")],
)
def test_a_column_without_cells_comes_back_in_the_type_of_training(
    name: str, cells: Any, dtype: str
) -> None:
    schema, _ = inferred(MIXED)
    empty = pd.Series(np.nan, MIXED.index, dtype=None if cells is np.nan else cells)
    rows = sources.read(MIXED.assign(**{name: empty}))
    formats = schema.formats(rows.formats)
    assert formats is not None
    assert formats[schema.names.index(name)].dtype == dtype


def test_far_pixels_and_flags_come_back_from_a_linear_matrix() -> None:
    values = np.column_stack([REAL[:, :1].repeat(5, 0), np.arange(200) == 7])
    rows = table(values)
    schema = Schema.infer(rows, "gaussian")
    matrix = schema.to_matrix(rows, np.float64)
    assert matrix[7, 1] > 12  # beyond where real columns are drawn in
    np.testing.assert_allclose(schema.from_matrix(matrix), values, atol=1e-12)


@pytest.mark.parametrize(("dtype", "unit"), [(np.float32, 1e20), (np.float64, 1e200)])
def test_whatever_the_network_says_comes_back_finite(dtype: type, unit: float) -> None:
    schema = Schema.infer(table((REAL * unit).astype(dtype)))
    found = schema.from_matrix(np.array([[3e38, -3e38, 90, 0.0]], dtype))
    assert np.isfinite(found).all()
    assert found.dtype == dtype
    assert found[0, 1] < 0 < found[0, 3]
    low, high = np.array([column.limits for column in schema.columns], dtype).T
    assert ((low <= found) & (found <= high)).all()


def test_the_matrix_of_a_column_does_not_depend_on_the_columns_beside_it() -> None:
    values = np.column_stack([REAL[:, :1].repeat(5, 0), np.arange(200) == 7]).astype(float)
    alone = pd.DataFrame(values, columns=["a", "b"])
    beside = alone.assign(town=np.array(["Bonn", "Ulm"])[np.arange(200) % 2])
    say = {"a": "gaussian", "b": "gaussian"}
    first, second = (sources.read(frame) for frame in (alone, beside))
    expected = Schema.infer(first, say).to_matrix(first, np.float64)
    found = Schema.infer(second, say).to_matrix(second, np.float64)
    np.testing.assert_allclose(found[:, :2], expected, rtol=1e-12)


@pytest.mark.parametrize("values", [REAL, np.rint(REAL), RNG.standard_t(2, (300, 2)) * 1e6])
@pytest.mark.parametrize("holes", [False, True])
def test_histograms_come_back_and_so_does_their_schema(values: NDArray[Any], holes: bool) -> None:
    values = values.copy()
    if holes:
        values[::7, 0] = np.nan
    rows = table(values)
    schema = Schema.infer(rows, "histogram")
    assert {column.likelihood for column in schema.columns} == {"histogram"}
    assert all(1 < column.width <= 16 for column in schema.columns)
    back = schema.from_matrix(schema.to_matrix(rows, np.float64))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-9)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


# --- documents


@pytest.mark.parametrize("values", [REAL, GREY, np.arange(40)[:, None] % 2])
@pytest.mark.parametrize("named", [True, False])
def test_json_gives_the_same_schema_back(values: NDArray[Any], named: bool) -> None:
    rows = table(values)
    names = tuple(f"column {i}" for i in range(rows.n_columns)) if named else None
    schema = replace(Schema.infer(replace(rows, names=names)), container="polars")
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize("shape", [[5], [2, 3], [], [-2, -2], [10**12]])
def test_json_with_rows_of_another_shape_is_refused(shape: list[int]) -> None:
    document = Schema.infer(table(REAL)).to_json() | {"row_shape": shape}
    with pytest.raises(ValueError, match="have not 4 columns"):
        Schema.from_json(document)
