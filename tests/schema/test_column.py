"""A column's cells become inputs and come back, and a document that is no column is refused."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from twofold.data.table import Format
from twofold.schema.column import CYCLES, FAR, KINDS, Column, likelihoods_of, squash, unsquash

REAL = Column("age", "real", "gaussian", 40.0, 10.0)
COUNT = Column("visits", "count", "negative_binomial", 0.8, 0.5)
TOWN = Column(
    "town",
    "category",
    "categorical",
    levels=("Bonn", "Kiel", "Ulm", "Trier"),
    kept=(2, 0),
    counts=(5, 0, 9, 1),
    format=Format("text", "str"),
)
GRADE = Column(
    "grade", "category", "categorical", levels=(1.0, 2.5, 3.0), kept=(1, 0, 2), counts=(3, 4, 2)
)
DAY = Column(
    "day",
    "time",
    "gaussian",
    1.7e9,
    1e7,
    cycles=("day", "week", "year"),
    format=Format("time", "datetime64[us]"),
)
KEY = Column(
    "key", "ignored", "none", format=Format("text", "str"), note="looks like an identifier"
)
MONDAY = 1_704_067_200.0  # 2024-01-01, 00:00 UTC


# --- squashing


numbers = arrays(np.float64, 20, elements=st.floats(-1e300, 1e300))


@given(numbers)
def test_squashing_is_undone(scaled: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(unsquash(squash(scaled)), scaled, rtol=1e-12, atol=1e-300)


@given(numbers)
def test_squashing_keeps_the_order(scaled: NDArray[np.float64]) -> None:
    assert (np.diff(squash(np.sort(scaled))) >= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_near_the_centre_are_left_alone(dtype: type) -> None:
    near = np.linspace(-FAR, FAR, 41, dtype=dtype)
    assert squash(near) is near
    assert unsquash(near) is near


def test_far_numbers_grow_like_a_logarithm() -> None:
    assert squash(np.array([1e12])) == pytest.approx(FAR + np.log(1e12))


def test_the_slope_does_not_jump_at_the_end_of_the_near_range() -> None:
    step = 1e-6
    inner, outer = np.diff(squash(np.array([FAR - step, FAR, FAR + step])))
    assert outer == pytest.approx(inner, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squashing_keeps_precision_and_missing_cells(dtype: type) -> None:
    both = squash(np.array([np.nan, 50.0], dtype)), unsquash(np.array([np.nan, 15.0], dtype))
    for found in both:
        assert found.dtype == dtype
        assert np.isnan(found).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whatever_the_network_says_comes_back_finite(dtype: type) -> None:
    wild = np.array([1e30, -1e30, 700.0, 90.0], dtype)
    assert np.isfinite(unsquash(wild)).all()


# --- numbers


def test_a_real_cell_is_centred_and_scaled() -> None:
    assert REAL.encode(np.array([40.0, 55.0]), ()).tolist() == [[0.0], [1.5]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["real", "binary"])
def test_whatever_the_network_says_is_a_number_in_the_columns_unit(kind: str, dtype: type) -> None:
    wide = Column("mass", kind, "gaussian", 1e6, 1e20 if dtype == np.float32 else 1e200)
    found = wide.decode(np.array([[3.3e38], [-3.3e38], [80.0]], dtype))
    assert np.isfinite(found).all()
    assert found[1] < 0 < found[2] < found[0]


def test_a_real_cell_far_out_is_drawn_in_and_comes_back() -> None:
    inputs = REAL.encode(np.array([1e9]), ())
    assert 25 < inputs.item() < 35
    assert REAL.decode(inputs) == pytest.approx(1e9)


@pytest.mark.parametrize("kind", ["binary", "pixel"])
def test_a_rare_flag_is_not_taken_for_far_out(kind: str) -> None:
    flag = Column("flag", kind, "gaussian", 0.001, 0.03)
    inputs = flag.encode(np.array([1.0]), ())
    assert inputs.item() == pytest.approx(0.999 / 0.03)
    assert flag.decode(inputs) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_come_back_whole(dtype: type) -> None:
    counts = np.array([*range(300), 12_345, 999_999], dtype=np.float64)
    found = COUNT.decode(COUNT.encode(counts, ()).astype(dtype))
    np.testing.assert_array_equal(found, counts)


def test_expected_counts_need_not_be_whole() -> None:
    found = COUNT.decode(COUNT.encode(np.array([0.4, 2.5, 1000.3]), ()))
    np.testing.assert_allclose(found, [0.4, 2.5, 1000.3], rtol=1e-12)


def test_counts_are_never_negative_nor_infinite() -> None:
    found = COUNT.decode(np.array([[-1e30], [-5.0], [1e30]]))
    assert (found[:2] == 0).all()
    assert np.isfinite(found).all()


# --- categories


def test_each_kept_level_has_an_input_in_order_and_all_others_the_last() -> None:
    inputs = TOWN.encode(np.array([0.0, 1.0, 2.0, 3.0]), TOWN.levels)
    assert inputs.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]


def test_levels_are_told_by_the_cell_and_not_by_its_position() -> None:
    inputs = TOWN.encode(np.array([0.0, 1.0, 2.0]), ("Ulm", "Oslo", "Bonn"))
    assert inputs.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_a_missing_category_is_missing_in_every_input() -> None:
    inputs = TOWN.encode(np.array([np.nan, 2.0]), TOWN.levels)
    assert np.isnan(inputs).all(axis=1).tolist() == [True, False]


def test_a_column_without_levels_is_all_missing() -> None:
    assert np.isnan(TOWN.encode(np.array([np.nan, np.nan]), ())).all()


def test_the_most_probable_level_comes_back_and_for_others_the_only_one() -> None:
    found = TOWN.decode(np.array([[0.6, 0.4, 0.0], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5]]))
    assert [TOWN.levels[int(i)] for i in found] == ["Ulm", "Bonn", "Trier"]


def test_which_of_several_pooled_levels_it_is_cannot_be_said() -> None:
    town = replace(TOWN, counts=(5, 2, 9, 1))
    found = town.decode(np.array([[0.6, 0.4, 0.0], [0.2, 0.3, 0.5]]))
    np.testing.assert_array_equal(found, [2.0, np.nan])


def test_where_every_level_is_kept_none_of_the_others_comes_back() -> None:
    assert GRADE.decode(np.array([[0.2, 0.1, 0.3, 0.4]])).tolist() == [3.0]


@pytest.mark.parametrize("levels", [("1", "2.5", "x"), ("7", "1", "2.5")])
def test_a_text_category_of_numbers_is_found_in_columns_of_numbers(levels: Any) -> None:
    text = replace(TOWN, levels=levels, kept=(0, 1, 2), counts=(3, 2, 1))
    inputs = text.encode(np.array([0.0, 1.0]), (1.0, 2.5))
    assert inputs.argmax(axis=1).tolist() == [levels.index("1"), levels.index("2.5")]


# --- times


def test_a_time_turns_from_midnight_monday_and_new_year() -> None:
    inputs = DAY.encode(np.array([MONDAY, MONDAY + 43_200, MONDAY + 3.5 * 86_400]), ())
    assert inputs.shape == (3, 7)
    np.testing.assert_allclose(inputs[:, 1:3], [[0, 1], [0, -1], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(inputs[[0, 2], 3:5], [[0, 1], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(inputs[0, 5:7], [0, 1], atol=0.01)  # leap days move it by hours


def test_the_same_place_in_every_turn_is_the_same_input() -> None:
    for i, turn in enumerate(CYCLES.values()):
        inputs = DAY.encode(np.array([MONDAY, MONDAY + 5 * turn]), ())
        np.testing.assert_allclose(*inputs[:, 1 + 2 * i : 3 + 2 * i], atol=1e-6)


def test_a_time_comes_back_by_its_moment() -> None:
    moments = MONDAY + np.array([-3e8, 0, 12_345.678, 9e8])
    found = DAY.decode(DAY.encode(moments, ()))
    np.testing.assert_allclose(found, moments, rtol=0, atol=1e-5)


# --- every kind


COLUMNS = [REAL, COUNT, TOWN, GRADE, DAY, replace(DAY, cycles=()), KEY]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_the_width_is_the_number_of_inputs(column: Column) -> None:
    if column.width:
        levels = column.levels if column.kind == "category" else ()
        assert column.encode(np.array([0.0, np.nan]), levels).shape == (2, column.width)
    assert len(column.decode(np.zeros((2, column.width)))) == 2


@pytest.mark.parametrize("column", [REAL, COUNT, DAY, TOWN, GRADE], ids=lambda column: column.name)
def test_missing_cells_are_missing_in_every_input_and_come_back_missing(column: Column) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = column.encode(np.array([np.nan, 2.0]), column.levels)
        assert np.isnan(inputs).all(axis=1).tolist() == [True, False]
        assert np.isnan(column.decode(inputs)).tolist() == [True, False]


def test_an_ignored_column_comes_back_missing() -> None:
    assert np.isnan(KEY.decode(np.zeros((3, 0)))).all()


def test_every_kind_has_a_likelihood() -> None:
    assert all(map(likelihoods_of, KINDS))


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_description_is_a_line_of_words(column: Column) -> None:
    assert column.describe()
    assert "\n" not in column.describe()


# --- documents


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_json_gives_the_same_column_back(column: Column) -> None:
    assert Column.from_json(json.loads(json.dumps(column.to_json()))) == column


def test_json_holds_what_is_unusual_only() -> None:
    assert REAL.to_json() == {
        "name": "age",
        "kind": "real",
        "likelihood": "gaussian",
        "center": 40.0,
        "scale": 10.0,
    }


HOSTILE: dict[str, tuple[Column, dict[str, Any]]] = {
    "unknown kind": (REAL, {"kind": "os.system"}),
    "kind of a list": (REAL, {"kind": ["real"]}),
    "likelihood of another kind": (REAL, {"likelihood": "poisson"}),
    "no likelihood": (REAL, {"likelihood": "none"}),
    "center that is no number": (REAL, {"center": float("nan")}),
    "endless center": (REAL, {"center": float("inf")}),
    "no center": (REAL, {"center": None}),
    "scale of zero": (REAL, {"scale": 0.0}),
    "negative scale": (REAL, {"scale": -1.0}),
    "scale that is no number": (REAL, {"scale": float("nan")}),
    "scale of text": (REAL, {"scale": "wide"}),
    "unknown field": (REAL, {"code": "import os"}),
    "real that turns": (REAL, {"cycles": ["day"]}),
    "real that is text": (REAL, {"format": {"type": "text", "dtype": "str"}}),
    "unknown type": (REAL, {"format": {"type": "bytes", "dtype": "S"}}),
    "dtype of a list": (REAL, {"format": {"type": "number", "dtype": ["f"]}}),
    "unknown part of a format": (REAL, {"format": {"type": "number", "code": "os"}}),
    "format of text": (REAL, {"format": "float64"}),
    "time of numbers": (REAL, {"kind": "time", "format": {"type": "number", "dtype": "f"}}),
    "unknown turn": (DAY, {"cycles": ["moon"]}),
    "turns of a number": (DAY, {"cycles": 3}),
    "kept out of range": (TOWN, {"kept": [0, 4]}),
    "kept below 0": (TOWN, {"kept": [-1]}),
    "kept of halves": (TOWN, {"kept": [0.5]}),
    "kept twice": (TOWN, {"kept": [1, 1]}),
    "kept of truths": (TOWN, {"kept": [True]}),
    "too few counts": (TOWN, {"counts": [5, 0, 9]}),
    "negative counts": (TOWN, {"counts": [5, 0, 9, -1]}),
    "counts of text": (TOWN, {"counts": ["5", "0", "9", "1"]}),
    "fewer levels": (TOWN, {"levels": ["Bonn"]}),
    "no levels": (TOWN, {"levels": [], "kept": [], "counts": []}),
    "levels of lists": (TOWN, {"levels": [[], [], [], []]}),
    "levels of a number": (TOWN, {"levels": 4}),
    "text among numbers": (GRADE, {"levels": [1.0, "2", 3.0]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_document_that_is_no_column_is_refused(name: str) -> None:
    column, change = HOSTILE[name]
    with pytest.raises((ValueError, TypeError, KeyError)):
        Column.from_json({**column.to_json(), **change})


@pytest.mark.parametrize("name", ["name", "kind", "likelihood"])
def test_a_document_without_what_every_column_has_is_refused(name: str) -> None:
    document = REAL.to_json()
    del document[name]
    with pytest.raises(TypeError, match=name):
        Column.from_json(document)


def test_a_refused_column_is_told_by_name() -> None:
    with pytest.raises(ValueError, match="column 'town' keeps levels that it does not have"):
        Column.from_json({**TOWN.to_json(), "kept": [7]})
