"""What columns are taken for, and how tables become matrices and come back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.preprocessing import MinMaxScaler

from twofold import schema as schema_module
from twofold.errors import DataError
from twofold.schema import Schema, Table

RNG = np.random.default_rng(5)
REAL = RNG.normal(3.0, 2.0, size=(40, 4))
GREY = RNG.integers(0, 256, size=(30, 5, 6), dtype=np.uint8)


def table(values: Any, names: tuple[str, ...] | None = None) -> Table:
    array = np.asarray(values)
    return Table(array.reshape(len(array), -1), names, array.shape[1:])


def kinds(values: Any, **options: Any) -> set[tuple[str, str]]:
    return {(c.kind, c.likelihood) for c in Schema.infer(table(values), **options).columns}


def min_max(values: NDArray[Any]) -> NDArray[Any]:
    return (values - values.min(0)) / np.ptp(values, axis=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(REAL, ("real", "gaussian"), id="numbers of any range"),
        pytest.param(RNG.uniform(0.1, 0.9, (40, 4)), ("pixel", "bernoulli"), id="unit range"),
        pytest.param(RNG.uniform(0, 1, (40, 4)) > 0.5, ("binary", "bernoulli"), id="flags"),
        pytest.param(min_max(REAL), ("real", "gaussian"), id="min-max scaled"),
        pytest.param(min_max(REAL[:12]), ("real", "gaussian"), id="min-max scaled, few rows"),
        pytest.param(min_max(load_digits().data[:, 2:4]), ("pixel", "bernoulli"), id="grey levels"),
        pytest.param(GREY, ("pixel", "bernoulli"), id="byte images"),
        pytest.param(GREY.reshape(30, 30), ("pixel", "bernoulli"), id="flat byte images"),
        pytest.param(GREY.astype(float), ("pixel", "bernoulli"), id="images of whole numbers"),
        pytest.param(GREY / 255, ("pixel", "bernoulli"), id="images in unit range"),
        pytest.param(GREY / 999, ("pixel", "bernoulli"), id="dim images in unit range"),
        pytest.param(RNG.uniform(0, 1e-3, (40, 4)), ("real", "gaussian"), id="small numbers"),
        pytest.param(GREY.astype(float) - 128, ("real", "gaussian"), id="centred images"),
        pytest.param(GREY * 3.3, ("real", "gaussian"), id="images of other numbers"),
        pytest.param(GREY * 9.0, ("real", "gaussian"), id="images of more levels than 256"),
        pytest.param(REAL.astype(int), ("real", "gaussian"), id="whole numbers"),
        pytest.param(REAL[:, :1], ("real", "gaussian"), id="one column"),
        pytest.param(np.full((9, 3), 7.0), ("real", "gaussian"), id="nothing varies"),
        pytest.param(np.full((9, 3), 0.5), ("real", "gaussian"), id="nothing varies in unit range"),
    ],
)
def test_kind_and_likelihood_follow_from_the_values(
    values: NDArray[Any], expected: tuple[str, str]
) -> None:
    assert kinds(values) == {expected}


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_a_min_max_scaler_does_not_make_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = MinMaxScaler().fit_transform(rng.normal(7, 3, size=(200, 6)))
    assert kinds(values) == {("real", "gaussian")}


def test_flags_among_numbers_are_binary() -> None:
    values = np.column_stack([REAL, np.arange(40) % 2])
    assert [c.kind for c in Schema.infer(table(values)).columns] == ["real"] * 4 + ["binary"]


def test_a_flag_that_never_varies_is_not_binary() -> None:
    values = np.column_stack([REAL, np.ones(40)])
    assert Schema.infer(table(values)).columns[-1].kind == "real"


def test_white_is_255_in_byte_images() -> None:
    assert {c.scale for c in Schema.infer(table(GREY)).columns} == {255.0}


def test_white_is_1_in_masks_of_bytes() -> None:
    assert {c.scale for c in Schema.infer(table(GREY % 2)).columns} == {1.0}


def test_dark_byte_images_are_still_out_of_255() -> None:
    assert {c.scale for c in Schema.infer(table(GREY // 8)).columns} == {255.0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_byte_images_are_the_same_matrix_as_floats_over_255(dtype: type) -> None:
    as_bytes = Schema.infer(table(GREY)).to_matrix(table(GREY), dtype)
    floats = (GREY / 255).astype(dtype)
    as_floats = Schema.infer(table(floats)).to_matrix(table(floats), dtype)
    np.testing.assert_allclose(as_bytes, as_floats, rtol=2e-7 if dtype == np.float32 else 1e-15)


def test_likelihood_by_name_leaves_other_columns_automatic() -> None:
    values = np.column_stack([REAL[:, 0], np.arange(40) % 2, np.arange(40) % 2])
    named = table(values, ("a", "b", "c"))
    columns = Schema.infer(named, {"b": "gaussian", "a": "auto"}).columns
    assert [c.likelihood for c in columns] == ["gaussian", "gaussian", "bernoulli"]


def test_columns_without_names_are_called_x0_x1() -> None:
    assert Schema.infer(table(REAL)).names == ("x0", "x1", "x2", "x3")


def test_a_likelihood_for_no_column_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(DataError, match=r"'hieght', and the table has no such .* 'height', 'age'"):
        Schema.infer(table(REAL[:, :2], ("height", "age")), {"hieght": "gaussian"})


def test_bernoulli_outside_the_unit_range_is_refused_with_the_range() -> None:
    values = np.column_stack([np.arange(9.0), np.linspace(-0.5, 3, 9)])
    with pytest.raises(DataError, match=r"column 'b' runs from -0\.5 to 3"):
        Schema.infer(table(values, ("a", "b")), {"b": "bernoulli"})


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


def test_a_range_too_wide_for_64_bits_is_refused_by_name() -> None:
    values = np.column_stack([REAL[:, 0], np.clip(REAL[:, 1], -5, 5) * 3e307])
    with pytest.raises(DataError, match="Column 'b' spans too wide a range"):
        Schema.infer(table(values, ("a", "b")))


@pytest.mark.parametrize(("cell", "word"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_a_cell_that_is_no_number_is_told_with_column_and_row(cell: float, word: str) -> None:
    values = REAL.copy()
    values[7, 2] = cell
    schema = Schema.infer(table(REAL, tuple("abcd")))
    with pytest.raises(DataError, match=f"column 'c' holds {word} in row 107"):
        schema.to_matrix(table(values, tuple("abcd")), np.float64, first_row=100)


def test_the_number_of_columns_with_such_cells_is_told() -> None:
    values = REAL.copy()
    values[7, 1:] = np.nan
    with pytest.raises(DataError, match=r"column 1 holds NaN in row 7 \(3 columns hold such"):
        table(values).check_finite()


def test_finite_cells_whose_sum_overflows_are_finite() -> None:
    table(np.full((4, 4), 1.7e308)).check_finite()


def test_a_cell_beyond_its_training_range_is_told_with_column_row_and_range() -> None:
    schema = Schema.infer(table(GREY / 255))
    with pytest.raises(DataError, match=r"between 0 and 1 in training and holds \d+ in row 200\."):
        schema.to_matrix(table(GREY.astype(float)), np.float32, first_row=200)


def test_a_flag_of_2_is_told_among_numbers() -> None:
    values = np.column_stack([REAL, np.arange(40) % 2])
    schema = Schema.infer(table(values))
    values[3, 4] = 2
    with pytest.raises(DataError, match="Column 4 lay between 0 and 1 in training and holds 2 in"):
        schema.to_matrix(table(values), np.float64)


def test_rounding_beyond_the_unit_range_is_forgiven() -> None:
    schema = Schema.infer(table(GREY / 255))
    schema.to_matrix(table(GREY / 255 + 1e-9), np.float32)


def test_a_cell_too_far_out_for_32_bits_is_told_with_column_and_row() -> None:
    schema = Schema.infer(table(REAL * 1e-6))
    far = (REAL * 1e-6).astype(np.float32)
    far[5, 3] = 1e35
    with pytest.raises(DataError, match=r"Column 3 holds 1e\+35 in row 5, too far from its"):
        schema.to_matrix(table(far), np.float32)


def test_statistics_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Schema.infer(table(REAL))
    monkeypatch.setattr(schema_module, "_CHUNK_CELLS", 12)
    for cut, uncut in zip(Schema.infer(table(REAL)).columns, whole.columns, strict=True):
        assert cut.center == pytest.approx(uncut.center, rel=1e-14)
        assert cut.scale == pytest.approx(uncut.scale, rel=1e-14)


def test_cells_are_checked_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_module, "_CHUNK_CELLS", 12)
    values = REAL.copy()
    values[39, 0] = np.nan
    with pytest.raises(DataError, match="column 0 holds NaN in row 39"):
        table(values).check_finite()


def test_large_offsets_in_chunks_fill_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table((REAL * 100 + 1e8).astype(np.float32))
    schema = Schema.infer(rows)
    whole = schema.to_matrix(rows, np.float32)
    monkeypatch.setattr(schema_module, "_CHUNK_CELLS", 12)
    np.testing.assert_array_equal(schema.to_matrix(rows, np.float32), whole)


def test_likelihoods_give_each_columns_position() -> None:
    values = np.column_stack([np.arange(40) % 2, REAL])
    groups = Schema.infer(table(values)).likelihoods()
    assert groups == {"bernoulli": [0], "gaussian": [1, 2, 3, 4]}


def test_str_counts_kinds_and_constant_columns() -> None:
    values = np.column_stack([REAL, np.arange(40) % 2, np.ones(40)])
    text = "6 columns: 5 real (gaussian), 1 binary (bernoulli); 1 constant"
    assert str(Schema.infer(table(values))) == text


@pytest.mark.parametrize("values", [REAL, GREY, np.arange(40)[:, None] % 2])
@pytest.mark.parametrize("named", [True, False])
def test_json_gives_the_same_schema_back(values: NDArray[Any], named: bool) -> None:
    rows = table(values)
    names = tuple(f"column {i}" for i in range(rows.n_columns)) if named else None
    schema = replace(Schema.infer(replace(rows, names=names)), container="polars")
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "text"),
        ("likelihood", "poisson"),
        ("center", float("nan")),
        ("scale", 0.0),
        ("scale", -1.0),
        ("scale", "wide"),
        ("center", None),
    ],
)
def test_json_with_a_column_of_no_meaning_is_refused(field: str, value: Any) -> None:
    document = Schema.infer(table(REAL)).to_json()
    document["columns"][field][2] = value
    with pytest.raises((ValueError, TypeError)):
        Schema.from_json(document)


@pytest.mark.parametrize("shape", [[5], [2, 3], [], [-2, -2], [10**12]])
def test_json_with_rows_of_another_shape_is_refused(shape: list[int]) -> None:
    document = Schema.infer(table(REAL)).to_json() | {"row_shape": shape}
    with pytest.raises(ValueError, match="have not 4 columns"):
        Schema.from_json(document)


def test_json_with_columns_of_unlike_length_is_refused() -> None:
    document = Schema.infer(table(REAL)).to_json()
    document["columns"]["kind"].pop()
    with pytest.raises(ValueError, match="shorter|longer"):
        Schema.from_json(document)
