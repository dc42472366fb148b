"""Tables say where a cell is no number, and show their cells as a reader knows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.data import table as table_module
from twofold.data.table import Format, Table, cells, row_chunks
from twofold.errors import DataError

NUMBERS = np.random.default_rng(5).normal(3.0, 2.0, size=(40, 4))
NUMBER, TEXT = Format("number", "float64"), Format("text", "str", ("Bonn", "Ulm"))


def with_cell(cell: float, row: int, column: int | slice) -> NDArray[np.float64]:
    values = NUMBERS.copy()
    values[row, column] = cell
    return values


@pytest.mark.parametrize(("cell", "word"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_a_cell_that_is_no_number_is_told_with_column_and_row(cell: float, word: str) -> None:
    rows = Table(with_cell(cell, 7, 2), tuple("abcd"))
    with pytest.raises(DataError, match=rf"column 'c' holds {word} in row 107\. Fill or drop"):
        rows.check_finite(first_row=100)


def test_the_number_of_columns_with_such_cells_is_told() -> None:
    with pytest.raises(DataError, match=r"column 1 holds NaN in row 7 \(3 columns hold such"):
        Table(with_cell(np.nan, 7, slice(1, None))).check_finite()


def test_missing_cells_are_fine_where_they_are_allowed() -> None:
    Table(with_cell(np.nan, 7, 2)).check_finite(missing=True)


def test_infinity_is_told_even_where_cells_may_be_missing_before_it() -> None:
    values = with_cell(np.nan, 3, 1)
    values[7, 2] = np.inf
    with pytest.raises(DataError, match="column 2 holds infinity in row 7"):
        Table(values).check_finite(missing=True)


def test_finite_cells_whose_sum_overflows_are_finite() -> None:
    Table(np.full((4, 4), 1.7e308)).check_finite()


@pytest.mark.parametrize("missing", [True, False])
def test_cells_are_checked_in_every_chunk(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_CHUNK_CELLS", 12)
    with pytest.raises(DataError, match="column 0 holds infinity in row 39"):
        Table(with_cell(np.inf, 39, 0)).check_finite(missing=missing)


def test_chunks_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_CHUNK_CELLS", 12)
    starts, parts = zip(*row_chunks(NUMBERS), strict=True)
    assert starts == tuple(range(0, 40, 3))
    np.testing.assert_array_equal(np.concatenate(parts), NUMBERS)


def test_rows_wider_than_a_chunk_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_CHUNK_CELLS", 3)
    assert [len(rows) for _, rows in row_chunks(NUMBERS)] == [1] * 40


def test_a_slice_is_over_the_same_memory() -> None:
    part = Table(NUMBERS, tuple("abcd"), index=range(40)).slice(slice(3, 5))
    assert np.shares_memory(part.values, NUMBERS)
    assert (part.n_rows, part.n_columns, part.names) == (2, 4, tuple("abcd"))


def test_cells_of_an_array_are_its_numbers() -> None:
    assert cells(NUMBERS, None) is NUMBERS


def test_cells_of_numbers_and_flags_stay_numbers() -> None:
    formats = (NUMBER, Format("boolean", "bool"), NUMBER, NUMBER)
    assert cells(NUMBERS, formats) is NUMBERS


def shown(column: list[float], form: Format) -> list[Any]:
    values = np.column_stack([column, np.zeros(len(column))])
    result: list[Any] = cells(values, (form, TEXT))[:, 0].tolist()
    return result


def test_text_cells_are_shown_as_text_and_missing_ones_as_none() -> None:
    assert shown([1.0, np.nan, 0.0], TEXT) == ["Ulm", None, "Bonn"]


def test_times_are_shown_as_moments() -> None:
    moments = shown([86_400.25, np.nan], Format("time", "datetime64[us]"))
    assert moments == [datetime(1970, 1, 2, 0, 0, 0, 250_000), None]


def test_numbers_beside_text_stay_numbers() -> None:
    assert shown([1.5, np.nan], NUMBER) == [1.5, None]


def test_text_without_levels_is_all_missing() -> None:
    assert shown([np.nan, np.nan], Format("text", "str")) == [None, None]


def test_time_beyond_the_calendar_is_held_within_it() -> None:
    formats = (Format("time", "datetime64[us]"),)
    found = cells(np.array([[1e300], [-1e300], [0.0]]), formats)
    assert found[2, 0] == datetime(1970, 1, 1)
    assert found[0, 0] > 0 > found[1, 0]  # microseconds, where Python has no datetime
