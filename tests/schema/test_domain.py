"""A column's range and steps are those of its cells, and other numbers are brought to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twofold.schema.domain import Domain, nearest

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("cells", "step"),
    [
        (RNG.integers(1, 32, 500), 1.0),
        (RNG.integers(-20, 20, 500) * 5, 5.0),
        (RNG.integers(0, 5000, 500) / 100, 0.01),
        (RNG.integers(0, 5000, 500) / 4, 0.25),
        (RNG.integers(0, 50, 500) * 1000 + 7, 1000.0),
        (RNG.integers(0, 900, 500) * 86_400.0 + 1.6e9, 86_400.0),
        (RNG.integers(1, 9, 500) * 1e-6, 1e-6),
        (RNG.normal(size=500), 0.0),
        (RNG.normal(1e9, 1.0, 500), 0.0),
        (np.full(30, 4.761904762), 0.0),
        (np.array([math.nan, 3.0]), 0.0),
    ],
)
def test_the_step_is_what_all_differences_are_multiples_of(
    cells: NDArray[Any], step: float
) -> None:
    assert Domain.of(cells.astype(np.float64)).step == step


@pytest.mark.parametrize(("unit", "step"), [(0.1, 0.1), (1.0, 1.0), (math.pi, 0.0)])
def test_the_rounding_of_32_bits_is_not_taken_for_decimals(unit: float, step: float) -> None:
    cells = (RNG.integers(0, 300, 500) * unit).astype(np.float32)
    assert Domain.of(cells).step == step


def test_a_column_without_a_cell_has_no_bounds() -> None:
    domain = Domain.of(np.array([np.nan, np.nan]))
    assert domain == Domain()
    assert not domain.is_known
    assert domain.nearest(np.array([1e300])).tolist() == [1e300]


decimals = st.integers(0, 4)
whole = st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=40)
wild = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20)


@given(whole, decimals, wild)
def test_the_nearest_value_lies_in_the_range_and_on_the_grid(
    numbers: list[int], places: int, others: list[float]
) -> None:
    cells = np.array(numbers) / 10**places
    domain = Domain.of(cells)
    found = domain.nearest(np.array(others))
    assert (found >= cells.min()).all()
    assert (found <= cells.max()).all()
    assert (np.round(found, places) == found).all()
    np.testing.assert_array_equal(domain.nearest(found), found)


@given(whole, decimals)
def test_observed_cells_stay_as_they_are(numbers: list[int], places: int) -> None:
    cells = np.array(numbers) / 10**places
    np.testing.assert_array_equal(Domain.of(cells).nearest(cells), cells)


def test_columns_are_brought_to_their_own_domains_and_missing_cells_stay() -> None:
    domains = [Domain(0.0, 9.0, 1.0), Domain(-1.0, 1.0), Domain(0.1, 0.9, 0.2, 1)]
    cells = np.array([[99.0, -3.0, 0.62], [4.4, 0.123, -7.0], [np.nan, np.nan, np.nan]])
    found = nearest(cells, domains)
    assert found[:2].tolist() == [[9.0, -1.0, 0.7], [4.0, 0.123, 0.1]]
    assert np.isnan(found[2]).all()


def test_a_domain_is_widened_by_further_cells() -> None:
    days = Domain.of(np.array([3.0, 5.0]))
    assert days.step == 2.0
    assert days.widened(np.array([4.0, 31.0])) == Domain(3.0, 31.0, 1.0)
    assert days.widened(np.array([np.nan])) == days
    assert days.widened(np.array([7.0])) == Domain(3.0, 7.0, 2.0)
    assert days.widened(RNG.normal(size=50)).step == 0.0


@given(whole, decimals)
def test_a_domain_goes_to_a_document_and_back(numbers: list[int], places: int) -> None:
    domain = Domain.of(np.array(numbers) / 10**places)
    assert Domain.from_json(domain.to_json()) == domain


@pytest.mark.parametrize(
    "document",
    [
        {"low": 2.0, "high": 1.0},
        {"low": math.nan},
        {"low": 0.0, "high": 1.0, "step": -1.0},
        {"low": 0.0, "high": 1.0, "step": math.inf},
        {"low": 0.0, "step": 1.0},
        {"low": 0.0, "high": 1.0, "step": 1.0, "decimals": 99},
        {"low": 0.0, "high": 1.0, "step": 1.0, "decimals": 0.5},
        {"low": "x"},
        {"lowest": 0.0},
    ],
)
def test_a_document_that_is_not_a_domain_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Domain.from_json(document)
