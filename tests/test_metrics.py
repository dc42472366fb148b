"""Errors, the PCA baseline and the threshold are what they say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.metrics import r2_score

from twofold import metrics
from twofold.errors import LosesToPCAWarning
from twofold.metrics import (
    PCA,
    Scores,
    compare,
    conformal_offset,
    conformal_pvalue,
    fit_pca,
    is_anomaly,
    squared_error,
)

RNG = np.random.default_rng(17)
# Columns of unlike spread, so that the components are well apart.
ROWS = RNG.normal(size=(200, 12)) * np.geomspace(4, 0.1, 12) @ RNG.normal(size=(12, 12)) + 5


def seed() -> np.random.RandomState:
    return np.random.RandomState(0)


def projector(components: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(components.T @ components)


def test_squared_error_sums_columns_and_averages_rows() -> None:
    x, x_hat = RNG.normal(size=(2, 9, 4))
    assert squared_error(x, x_hat) == pytest.approx(((x - x_hat) ** 2).sum(1).mean(), rel=1e-14)


def test_squared_error_does_not_depend_on_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, x_hat = RNG.normal(size=(2, 9, 4))
    whole = squared_error(x, x_hat)
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", 8)
    assert squared_error(x, x_hat) == pytest.approx(whole, rel=1e-14)


def test_squared_error_of_32_bit_rows_adds_in_64_bits() -> None:
    x = np.full((1, 1_000_000), 0.1, dtype=np.float32)
    expected = 1_000_000 * float(np.float32(0.1)) ** 2
    assert squared_error(x, np.zeros_like(x)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_components", [1, 3, 12])
def test_exact_pca_spans_what_scikit_learns_does(n_components: int) -> None:
    own, theirs = fit_pca(ROWS, n_components, seed()), SklearnPCA(n_components).fit(ROWS)
    difference = projector(own.components) - projector(theirs.components_)
    assert np.abs(difference).max() < 1e-9


def test_exact_pca_orders_components_by_variance() -> None:
    own, theirs = fit_pca(ROWS, 4, seed()), SklearnPCA(4).fit(ROWS)
    cosines = np.abs((own.components * theirs.components_).sum(1))
    assert cosines == pytest.approx(1, abs=1e-9)


def test_pca_reconstructs_as_scikit_learns_does() -> None:
    theirs = SklearnPCA(3).fit(ROWS)
    expected = theirs.inverse_transform(theirs.transform(ROWS))
    np.testing.assert_allclose(fit_pca(ROWS, 3, seed()).reconstruct(ROWS), expected, atol=1e-9)


def test_exact_pca_in_32_bits_reconstructs_almost_as_well() -> None:
    narrow = ROWS.astype(np.float32)
    own = fit_pca(narrow, 3, seed())
    best = squared_error(ROWS, fit_pca(ROWS, 3, seed()).reconstruct(ROWS))
    assert own.components.dtype == np.float32
    assert squared_error(narrow, own.reconstruct(narrow)) == pytest.approx(best, rel=1e-4)


def test_randomised_pca_reconstructs_almost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = RNG.normal(size=(300, 80)) * np.geomspace(4, 0.1, 80) @ RNG.normal(size=(80, 80))
    exact = squared_error(rows, fit_pca(rows, 10, seed()).reconstruct(rows))
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 50)
    randomised = squared_error(rows, fit_pca(rows, 10, seed()).reconstruct(rows))
    assert exact * (1 - 1e-9) < randomised < exact * 1.02


def test_randomised_components_are_orthonormal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 5)
    components = fit_pca(ROWS, 4, seed()).components
    np.testing.assert_allclose(components @ components.T, np.eye(4), atol=1e-12)


def test_randomised_pca_of_few_rows_has_as_many_components_as_there_are_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 5)
    assert fit_pca(ROWS[:4], 10, seed()).components.shape == (4, 12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_components_of_one_column_can_become_a_tensor(dtype: type) -> None:
    components = fit_pca(ROWS[:, :1].astype(dtype), 1, seed()).components
    assert torch.from_numpy(components).shape == (1, 1)


@pytest.mark.parametrize("exact", [True, False])
def test_pca_of_fewer_rows_than_components_loses_nothing(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 100 if exact else 5)
    rows = ROWS[:4]
    assert squared_error(rows, fit_pca(rows, 6, seed()).reconstruct(rows)) < 1e-18


def test_pca_of_a_large_table_takes_a_sample_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.tile(ROWS, (20, 1)) + RNG.normal(scale=0.01, size=(4000, 12))
    monkeypatch.setattr(metrics, "_EXACT_CELL_PRODUCTS", 0)
    sampled = fit_pca(rows, 3, seed())
    best = squared_error(rows, SklearnPCA(3).fit(rows).inverse_transform(_codes(rows)))
    error = squared_error(rows, sampled.reconstruct(rows))
    assert best < error < 1.05 * best


def _codes(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(SklearnPCA(3).fit_transform(rows))


def test_pca_draws_from_its_generator_alone(
    monkeypatch: pytest.MonkeyPatch, untouched_random_state: None
) -> None:
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 5)
    monkeypatch.setattr(metrics, "_EXACT_CELL_PRODUCTS", 0)
    fit_pca(np.tile(ROWS, (30, 1)), 3, seed())


def test_compare_gives_both_errors() -> None:
    x_hat = ROWS + 0.5
    pca = fit_pca(ROWS, 3, seed())
    found = compare(ROWS, x_hat, pca)
    expected = (12 * 0.25, squared_error(ROWS, pca.reconstruct(ROWS)))
    assert (found.squared_error, found.squared_error_pca) == pytest.approx(expected)


def test_compare_gives_the_share_of_variance_kept() -> None:
    pca = fit_pca(ROWS, 3, seed())
    expected = r2_score(ROWS, pca.reconstruct(ROWS), multioutput="variance_weighted")
    assert compare(ROWS, ROWS, pca).r2_pca == pytest.approx(expected, rel=1e-10)


def test_a_perfect_reconstruction_keeps_all_variance() -> None:
    assert compare(ROWS, ROWS, fit_pca(ROWS, 3, seed())).r2 == 1


def test_rows_without_variance_have_no_share_of_it() -> None:
    rows = np.ones((5, 3))
    assert np.isnan(compare(rows, rows, fit_pca(rows, 1, seed())).r2)


@pytest.mark.parametrize(
    ("own", "pca", "ratio"), [(1.0, 2.0, 0.5), (3.0, 2.0, 1.5), (1.0, 0.0, np.inf), (0, 0, 1.0)]
)
def test_ratio_is_the_networks_error_as_a_share_of_pcas(
    own: float, pca: float, ratio: float
) -> None:
    assert metrics.Comparison(1, 1, own, pca, 0.0, 0.0).ratio == ratio


def test_a_comparison_reads_as_a_sentence() -> None:
    text = str(metrics.Comparison(3, 1200, 1.5, 2.25, 0.9, 0.85))
    assert text == (
        "squared error per row, 1,200 rows, 3 components: network 1.5 (R2 0.9000), "
        "PCA 2.25 (R2 0.8500)"
    )


@pytest.mark.parametrize(
    ("n", "alpha", "place"),
    [(99, 0.05, 5), (100, 0.05, 5), (119, 0.05, 6), (199, 0.01, 2), (19, 0.05, 1), (5, 0.05, 1)],
)
def test_the_offset_is_the_kth_smallest_score(n: int, alpha: float, place: int) -> None:
    scores = np.random.default_rng(n).permutation(n) + 1.0
    assert conformal_offset(scores, alpha) == place


@pytest.mark.parametrize("n", [19, 50, 118, 119, 700])
def test_false_alarms_on_fresh_rows_stay_at_the_stated_rate(n: int) -> None:
    rng, alpha, repetitions = np.random.default_rng(n), 0.05, 4000
    # The chance of a false alarm given the threshold is the distribution function at it: with
    # uniform scores that is the threshold, so that no fresh rows need to be drawn.
    rates = [conformal_offset(rng.uniform(size=n), alpha) for _ in range(repetitions)]
    noise = 4 * np.std(rates) / np.sqrt(repetitions)
    assert np.mean(rates) < alpha + noise
    assert np.mean(rates) > alpha - 1 / (n + 1) - noise


def test_the_pvalue_counts_the_held_out_scores_that_are_not_higher() -> None:
    held_out = RNG.permutation(np.repeat(np.arange(10.0), 2))
    scores = np.array([4.0, 4.5, -1.0, 9.0, 100.0])
    expected = [(1 + (held_out <= score).sum()) / 21 for score in scores]
    np.testing.assert_allclose(conformal_pvalue(scores, held_out), expected, rtol=1e-15)


@pytest.mark.parametrize("score", [np.nan, -np.inf, -1e300])
def test_no_pvalue_is_below_one_share_and_what_is_no_number_has_it(score: float) -> None:
    assert conformal_pvalue([score], np.arange(99.0)).tolist() == [0.01]


@pytest.mark.parametrize("n", [10, 99, 230])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_pvalues_of_fresh_rows_are_uniform_or_above(n: int, alpha: float) -> None:
    rng, repetitions = np.random.default_rng(n), 400
    flagged = [
        (conformal_pvalue(rng.normal(size=50), rng.normal(size=n)) <= alpha).mean()
        for _ in range(repetitions)
    ]
    noise = 4 * np.std(flagged) / np.sqrt(repetitions) + 1e-12
    assert alpha - 1 / (n + 1) - noise < np.mean(flagged) < alpha + noise


def test_a_row_below_the_offset_has_a_pvalue_of_at_most_alpha() -> None:
    held_out = RNG.normal(size=137)
    offset = conformal_offset(held_out, 0.05)
    scores = np.linspace(-4, 4, 801)
    below = scores < offset
    pvalues = conformal_pvalue(scores, held_out)
    assert pvalues[below].max() <= 0.05 < pvalues[~below].min()


# --- missing cells


HOLES = np.where(np.random.default_rng(2).uniform(size=ROWS.shape) < 0.1, np.nan, ROWS)


def test_missing_cells_have_no_error() -> None:
    x_hat = ROWS + 0.5
    expected = 0.25 * (~np.isnan(HOLES)).sum() / len(ROWS)
    assert squared_error(HOLES, x_hat) == pytest.approx(expected, rel=1e-12)


def test_pca_of_rows_with_holes_is_that_of_rows_filled_by_the_mean() -> None:
    mean = np.nanmean(HOLES, axis=0)
    filled = np.where(np.isnan(HOLES), mean, HOLES)
    expected = SklearnPCA(3).fit(filled)
    own = fit_pca(HOLES, 3, seed())
    np.testing.assert_allclose(own.mean, mean, rtol=1e-12)
    assert np.abs(projector(own.components) - projector(expected.components_)).max() < 1e-9
    again = expected.inverse_transform(expected.transform(filled))
    np.testing.assert_allclose(own.reconstruct(HOLES), again, atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_pca_of_a_column_without_cells_is_finite(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_EXACT_WIDTH", 100 if exact else 5)
    rows = np.column_stack([ROWS, np.full(200, np.nan)])
    assert np.isfinite(fit_pca(rows, 3, seed()).reconstruct(rows)).all()


def test_compare_counts_the_cells_there_are() -> None:
    pca = fit_pca(HOLES, 3, seed())
    found = compare(HOLES, ROWS, pca)
    seen = ~np.isnan(HOLES)
    total = ((HOLES - np.nanmean(HOLES, axis=0))[seen] ** 2).sum()
    lost = ((HOLES - pca.reconstruct(HOLES))[seen] ** 2).sum()
    assert (found.squared_error, found.r2) == (0, 1)
    assert found.squared_error_pca == pytest.approx(lost / 200, rel=1e-12)
    assert found.r2_pca == pytest.approx(1 - lost / total, rel=1e-12)


def test_comparing_leaves_the_rows_alone() -> None:
    rows = HOLES.copy()
    compare(rows, ROWS, fit_pca(rows, 3, seed()))
    np.testing.assert_array_equal(rows, HOLES)


def test_pca_is_plain_arrays() -> None:
    pca = PCA(np.zeros(2), np.eye(2))
    np.testing.assert_array_equal(pca.reconstruct(np.ones((3, 2))), np.ones((3, 2)))


@pytest.mark.parametrize(
    ("n_rows", "error", "warns"), [(9, 5.0, False), (10, 5.0, True), (500, 1.01, False)]
)
def test_a_loss_to_pca_is_told_where_it_is_more_than_chance(
    n_rows: int, error: float, warns: bool
) -> None:
    comparison = metrics.Comparison(2, n_rows, error, 1.0, 0.0, 0.8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison.warn_if_worse()
    assert [w.category for w in caught] == [LosesToPCAWarning] * warns


def test_no_loss_is_told_where_both_keep_everything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.Comparison(2, 500, 1e-6, 1e-15, 0.99999, 1.0).warn_if_worse()


def test_a_row_without_a_score_is_the_most_anomalous() -> None:
    scores = Scores.of(np.array([0.5, np.nan, -7.0, -np.inf]), np.arange(99.0), 0.0)
    assert scores.label.tolist() == [1, -1, -1, -1]
    assert scores.anomalies.tolist() == [1, 2, 3]
    assert scores.most_anomalous(2).tolist() == [1, 3]
    assert scores.p_value[1] == scores.p_value.min() == 0.01


def test_a_row_at_the_offset_is_normal() -> None:
    assert not is_anomaly(np.array([1.5]), 1.5).any()


def test_a_comparison_is_a_table_in_notebooks() -> None:
    html = compare(ROWS, ROWS, fit_pca(ROWS, 2, seed()))._repr_html_()
    assert html.count("<tr>") == 3
    assert "100 %" in html
    assert "200 rows, 2 components" in html
