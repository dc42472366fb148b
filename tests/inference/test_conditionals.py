"""Models of a cell given the rest of its row, each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from twofold.inference.conditionals import (
    ConditionalNormal,
    Copula,
    Forest,
    KernelRidge,
    Kernels,
    Linear,
    Trees,
)

RNG = np.random.default_rng(0)
COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 2.0, 0.5], [0.3, 0.5, 1.5]])
ROWS = RNG.multivariate_normal([1.0, -2.0, 0.5], COVARIANCE, 1500)


def test_normal_law_is_found_in_incomplete_rows() -> None:
    law = ConditionalNormal.fit(np.where(RNG.random(ROWS.shape) < 0.3, np.nan, ROWS))
    np.testing.assert_allclose(law.covariance, COVARIANCE, atol=0.2)
    np.testing.assert_allclose(law.mean, [1.0, -2.0, 0.5], atol=0.1)


def test_missing_inputs_are_regressed_on_the_others_of_their_row() -> None:
    law = ConditionalNormal(np.array([1.0, -2.0, 0.5]), COVARIANCE)
    filled = law.fill(np.array([[2.0, np.nan, 1.5], [np.nan] * 3, [1.0, 2.0, 3.0]]))
    slopes = np.linalg.solve(COVARIANCE[np.ix_([0, 2], [0, 2])], COVARIANCE[[0, 2], 1])
    np.testing.assert_allclose(filled[0], [2.0, -2.0 + slopes @ [1.0, 1.0], 1.5])
    np.testing.assert_allclose(filled[1:], [[1.0, -2.0, 0.5], [1.0, 2.0, 3.0]])


def test_normal_law_bears_columns_that_repeat_others() -> None:
    x = np.column_stack([ROWS, ROWS[:, 0], 1 - ROWS[:, 0]])[:300]
    x[::3, 0] = np.nan
    filled = ConditionalNormal.fit(x).fill(x)
    np.testing.assert_allclose(filled[::3, 0], ROWS[:300:3, 0], atol=0.2)


def test_a_column_without_a_cell_in_some_rows_is_borne() -> None:
    x = ROWS[:60].copy()
    x[:, 1] = np.nan
    filled = ConditionalNormal.fit(x).fill(x)
    assert np.isfinite(filled).all()
    spans = [slice(0, 1), slice(1, 2), slice(2, 3)]
    trees = Trees.fit(x, filled, spans, [0, 1], None)
    assert list(trees.forests) == [0]
    np.testing.assert_array_equal(trees.fill(x, filled), filled)


@pytest.mark.parametrize("columns", [[2], [1, 2]], ids=["one target", "two targets"])
def test_a_forest_is_that_of_scikit_learn(columns: list[int]) -> None:
    x, target = ROWS[:200, :1], ROWS[:200, columns]
    theirs = ExtraTreesRegressor(6, min_samples_split=10, random_state=0)
    theirs.fit(x, target[:, 0] if len(columns) == 1 else target)
    found = Forest.fit(x, target, 6, 10).predict(ROWS[200:300, :1])
    np.testing.assert_allclose(found, theirs.predict(ROWS[200:300, :1]).reshape(100, -1))


def test_trees_follow_a_step() -> None:
    x = np.column_stack([ROWS[:, 0], np.sign(ROWS[:, 0] - 1)])
    given = x.copy()
    given[::4, 1] = np.nan
    begin = np.nan_to_num(given)
    trees = Trees.fit(given, begin, [slice(0, 1), slice(1, 2)], [1], None)
    assert np.abs(trees.fill(given, begin)[::4, 1] - x[::4, 1]).mean() < 0.05
    assert list(trees.forests) == [1]


def test_slopes_are_those_of_rows_that_lack_one_column() -> None:
    law = ConditionalNormal(np.array([1.0, -2.0, 0.5]), COVARIANCE)
    filled = law.fill(np.array([[2.0, np.nan, 1.5]]))
    linear = Linear.fit(law, [slice(0, 1), slice(1, 2), slice(2, 3)], [1])
    np.testing.assert_allclose(linear.predict(1, np.array([[2.0, 1.5]])), filled[:, [1]])


def test_trees_add_what_the_normal_law_leaves() -> None:
    x = np.column_stack([ROWS[:, 0], 3 * ROWS[:, 0] + np.sign(ROWS[:, 0] - 1)])
    given = x.copy()
    given[::4, 1] = np.nan
    law = ConditionalNormal.fit(given)
    begin, spans = law.fill(given), [slice(0, 1), slice(1, 2)]
    gaps = [
        np.abs(Trees.fit(given, begin, spans, [1], base).fill(given, begin) - x)[::4, 1].mean()
        for base in (Linear.fit(law, spans, [1]), None)
    ]
    assert gaps[0] < 0.1
    assert gaps[0] < 0.7 * gaps[1]


def test_a_copula_fills_what_is_expected_of_skewed_numbers() -> None:
    logs = RNG.multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]], 4000)
    x = np.exp(logs)
    given = x.copy()
    given[::4, 0] = np.nan
    copula = Copula.fit(given, [slice(0, 1), slice(1, 2)])
    gone = np.isnan(given[:, 0])
    expected = np.exp(0.8 * logs[gone, 1] + (1 - 0.8**2) / 2)
    found = copula.fill(given)[gone, 0]
    usual = expected < 10
    np.testing.assert_allclose(found[usual], expected[usual], rtol=0.25)
    np.testing.assert_array_equal(copula.fill(given)[~gone], x[~gone])
    assert found.max() <= np.nanmax(given[:, 0])


def test_the_variance_that_a_normal_law_leaves() -> None:
    law = ConditionalNormal(np.array([1.0, -2.0, 0.5]), COVARIANCE)
    x = np.array([[2.0, np.nan, 1.5], [np.nan] * 3, [1.0, 2.0, 3.0]])
    filled, variance = law.moments(x)
    np.testing.assert_array_equal(filled, law.fill(x))
    among, own = COVARIANCE[np.ix_([0, 2], [0, 2])], COVARIANCE[[0, 2], 1]
    np.testing.assert_allclose(variance[0], [0, 2.0 - own @ np.linalg.solve(among, own), 0])
    np.testing.assert_allclose(variance[1:], [np.diag(COVARIANCE), [0, 0, 0]])


def test_kernel_regression_follows_a_curve() -> None:
    x = np.linspace(-3, 3, 200)[:, None]
    noise = np.random.default_rng(1).normal(0, 0.1, x.shape)
    found = KernelRidge.fit(x[::2], np.sin(x[::2]) + noise[::2]).predict(x[1::2])
    assert np.abs(found - np.sin(x[1::2])).mean() < 0.06


def test_kernel_regression_of_noise_is_nearly_its_mean() -> None:
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(150, 4)), rng.normal(size=(150, 1))
    found = KernelRidge.fit(x, target - target.mean()).predict(rng.normal(size=(150, 4)))
    assert np.abs(found).mean() < 0.3


def test_kernels_add_what_the_normal_law_leaves() -> None:
    x = np.column_stack([ROWS[:, :2], ROWS[:, 0] + 0.5 * ROWS[:, 0] ** 2])[:400]
    given = x.copy()
    given[::4, 2] = np.nan
    law = ConditionalNormal.fit(given)
    begin = law.fill(given)
    linear = Linear.fit(law, [slice(0, 1), slice(1, 2), slice(2, 3)], [2])
    kernels = Kernels.fit(given, begin, linear)
    found = kernels.fill(given, begin)
    gaps = np.abs(begin - x)[::4, 2].mean(), np.abs(found - x)[::4, 2].mean()
    assert gaps[1] < 0.2 * gaps[0]
    np.testing.assert_array_equal(np.delete(found, 2, 1), np.delete(begin, 2, 1))


def test_kernels_bear_an_input_that_does_not_vary() -> None:
    x = np.column_stack([ROWS[:100, 0], np.full(100, 0.3), np.sin(ROWS[:100, 0])])
    fitted = KernelRidge.fit(x[:, :2], x[:, 2:] - x[:, 2:].mean())
    assert np.abs(fitted.predict(np.array([[1.0, 1.3]]))).max() < 1.0
