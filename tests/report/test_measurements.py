from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from twofold import Autoencoder, metrics
from twofold.report import measurements
from twofold.report.measurements import Measurements, examine


def fitted(X: Any, **options: Any) -> Autoencoder:
    settings = {"epochs": 2, "random_state": 0, "n_components": 2} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so short a training loses to PCA
        return Autoencoder(**settings).fit(X)


def rows(n: int = 400, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(2, 5))
    return rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 5))


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    table = pd.DataFrame(rows(n), columns=list("abcde"))
    table["city"] = rng.choice(["Oslo", "Porto", "Turin"], n)
    table["flag"] = rng.random(n) < 0.2
    table["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, n), unit="D")
    return table


@pytest.fixture(scope="module")
def plain() -> Autoencoder:
    return fitted(rows())


@pytest.fixture(scope="module")
def mixed() -> Autoencoder:
    return fitted(frame())


@pytest.fixture(scope="module")
def found(plain: Autoencoder) -> Measurements:
    return examine(plain, rows(seed=1))


def test_scores_and_labels_are_the_model_s(found: Measurements, plain: Autoencoder) -> None:
    X = rows(seed=1)
    np.testing.assert_array_equal(found.scores.rows.score, plain.score_samples(X))
    np.testing.assert_array_equal(found.scores.rows.p_value, plain.anomaly_pvalue(X))
    np.testing.assert_array_equal(found.scores.rows.is_anomaly, plain.predict(X) == -1)


def test_scores_are_the_same_in_parts(
    found: Measurements, plain: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.data.sources.row_chunks", lambda n, width: iter([slice(0, 64)]))
    monkeypatch.setattr(measurements, "_SCORED_CELLS", 0)
    parts = examine(plain, rows(seed=1)).scores.rows.score
    np.testing.assert_allclose(parts, found.scores.rows.score, rtol=1e-12)


def test_the_comparison_is_the_model_s(found: Measurements, plain: Autoencoder) -> None:
    both = plain.compare_pca(rows(seed=1))
    assert found.comparison.squared_error == pytest.approx(both.squared_error)
    assert found.comparison.r2_pca == pytest.approx(both.r2_pca)


def test_columns_errors_add_up_to_the_rows(found: Measurements) -> None:
    both, columns = found.comparison, found.columns
    assert (columns.variance * (1 - columns.kept)).sum() == pytest.approx(both.squared_error)
    assert found.errors.mean() == pytest.approx(both.squared_error)
    assert found.column_errors[1].sum() == pytest.approx(both.squared_error_pca)


def test_typical_errors_are_in_the_column_s_unit(plain: Autoencoder, found: Measurements) -> None:
    X = rows(seed=1)
    off = np.median(np.abs(X - plain.reconstruct(X)), axis=0)
    np.testing.assert_allclose(found.columns.typical, off, rtol=1e-6)


def test_typical_errors_of_levels_are_shares(mixed: Autoencoder) -> None:
    X = frame()
    wrong = (mixed.reconstruct(X)[["city", "flag"]] != X[["city", "flag"]]).mean()
    np.testing.assert_allclose(examine(mixed, X).columns.typical[5:7], wrong)


def test_shown_rows_are_the_worst_typical_and_best(found: Measurements) -> None:
    order = np.argsort(-found.errors)
    shown = {name: found.errors[at].tolist() for name, at in found.shown.items()}
    assert shown["worst"] == found.errors[order[:3]].tolist()
    assert shown["best"] == found.errors[order[::-1][:3]].tolist()
    assert shown["typical"][1] == pytest.approx(float(np.median(found.errors)), rel=0.02)


def test_no_row_is_shown_twice(plain: Autoencoder) -> None:
    for n in range(1, 8):
        shown = examine(plain, rows(n)).shown
        every = np.concatenate([*shown.values()]).tolist()
        assert len(every) == len(set(every)) == min(n, 3 * max(1, n // 3))


def test_the_oddest_rows_are_explained(found: Measurements, plain: Autoencoder) -> None:
    X = rows(seed=1)
    oddest = np.argsort(plain.score_samples(X))[:10]
    assert found.explanation.rows.tolist() == oddest.tolist()
    expected = plain.explain(X[oddest])
    np.testing.assert_allclose(found.explanation.contribution, expected.contribution)


def test_observed_cells_are_those_of_the_rows(found: Measurements) -> None:
    chosen = np.concatenate([*found.shown.values()])
    np.testing.assert_array_equal(found.observed, rows(seed=1)[chosen])


def test_a_row_without_a_score_is_the_oddest(
    plain: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = type(plain).score_samples

    def broken(self: Autoencoder, X: Any) -> Any:
        scores = score(self, X)
        scores[7] = np.nan
        return scores

    monkeypatch.setattr(type(plain), "score_samples", broken)
    done = examine(plain, rows())
    assert done.scores.rows.most_anomalous(1) == 7
    assert done.scores.rows.is_anomaly[7]


def test_rows_like_those_of_training_have_not_moved(mixed: Autoencoder) -> None:
    done = examine(mixed, frame()[::2]).columns
    assert not done.is_shifted.any()
    assert not done.unseen.any()


def test_columns_that_moved_are_found(mixed: Autoencoder) -> None:
    X = frame()
    X["b"] += 2 * X["b"].std()
    X["city"] = "Porto"
    X["flag"] = True
    X["when"] += pd.Timedelta(days=400)
    done = examine(mixed, X).columns
    moved = np.array(mixed.schema_.names)[done.is_shifted]
    assert moved.tolist() == ["b", "city", "flag", "when"]
    assert done.shift[1] == pytest.approx(2, abs=0.2)
    assert done.shift[5] == pytest.approx(2 / 3, abs=0.1)


def test_levels_that_training_did_not_have_are_counted(mixed: Autoencoder) -> None:
    X = frame()
    X.loc[:6, "city"] = "Bergen"
    assert examine(mixed, X).columns.unseen.tolist() == [0, 0, 0, 0, 0, 7, 0, 0]


def test_missing_cells_are_counted(plain: Autoencoder) -> None:
    X = rows()
    X[:100, 3] = np.nan
    assert examine(plain, X).columns.missing.tolist() == [0, 0, 0, 0.25, 0]


def test_the_sample_is_drawn_without_repeats(
    plain: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "SAMPLE_ROWS", 50)
    done = examine(plain, rows())
    assert len(set(done.sample.tolist())) == len(done.errors) == 50
    assert len(done.scores.rows.score) == 400
    assert done.components.marked.shape == (10, 2)


def test_what_to_expect_goes_by_contamination(found: Measurements) -> None:
    n = len(found.scores.held_out)
    assert found.scores.expected == max(1, int(0.05 * (n + 1))) / (n + 1)
    assert examine(fitted(rows(), contamination=0.2), rows()).scores.expected == 0.2


@pytest.mark.parametrize("move", [0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize(("n", "m"), [(400, 300), (25, 2000)])
def test_the_gap_of_two_distributions_is_smirnov_s(n: int, m: int, move: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=n), rng.normal(size=m) + move
    gap, chance = measurements._smirnov(a, b)
    known = ks_2samp(a, b, method="exact")
    assert gap == pytest.approx(known.statistic)
    assert chance == pytest.approx(known.pvalue, abs=0.02)


@pytest.mark.parametrize("kind", ["pandas", "numpy", "torch", "polars", "arrow"])
def test_rows_are_taken_from_any_container(kind: str) -> None:
    import polars
    import pyarrow
    import torch

    table = pd.DataFrame(rows(9), columns=list("abcde"))
    source = {
        "pandas": table,
        "numpy": table.to_numpy(),
        "torch": torch.tensor(table.to_numpy()),
        "polars": polars.from_pandas(table),
        "arrow": pyarrow.Table.from_pandas(table),
    }[kind]
    picked = measurements.taken(source, np.array([5, 2]))
    part = measurements.taken(source, slice(3, 7))
    for taken, wanted in ((picked, [5, 2]), (part, [3, 4, 5, 6])):
        values = taken.to_pandas() if kind in ("polars", "arrow") else taken
        np.testing.assert_array_equal(np.asarray(values), table.to_numpy()[wanted])


def test_p_values_are_conformal(found: Measurements) -> None:
    wanted = metrics.conformal_pvalue(found.scores.rows.score, found.scores.held_out)
    np.testing.assert_array_equal(found.scores.rows.p_value, wanted)
