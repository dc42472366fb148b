"""Shares add up to the score, belong to the caller's columns, and point at what is wrong."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from twofold import Autoencoder
from twofold.errors import LosesToPCAWarning
from twofold.inference import apply as inference
from twofold.inference import explain
from twofold.inference.explain import Explanation

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
Array = NDArray[Any]
N = 160
QUICK: dict[str, Any] = {"n_components": 3, "epochs": 4, "batch_size": 32, "random_state": 0}


def mixed(n: int = N, seed: int = 0) -> pd.DataFrame:
    """A frame of every kind whose columns all tell of one hidden number."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    towns = np.array(["Bonn", "Kiel", "Ulm", "Trier"])
    return pd.DataFrame(
        {
            "height": 170 + 8 * z + rng.normal(size=n),
            "weight": 70 + 9 * z + 2 * rng.normal(size=n),
            "income": 2000 + 300 * z + 200 * rng.standard_t(3, size=n),
            "visits": rng.poisson(np.exp(0.6 + 0.5 * z)),
            "smoker": rng.uniform(size=n) < 1 / (1 + np.exp(-2 * z)),
            "town": towns[np.clip(np.rint(z + 1.5), 0, 3).astype(int)],
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
            "key": [f"k{i}" for i in range(n)],
        }
    )


def with_holes(frame: pd.DataFrame, share: float = 0.15) -> pd.DataFrame:
    hidden = np.random.default_rng(4).uniform(size=frame.shape) < share
    return frame.astype({"visits": "Int64", "smoker": "boolean"}).mask(hidden)


FRAME = mixed()


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**QUICK).fit(FRAME)


def exact_scores(ae: Autoencoder, frame: Any) -> Array:
    """The scores in 64 bits, whatever the types of the columns."""
    x = torch.from_numpy(ae.schema_.to_matrix(ae.read(frame), np.float64))
    network, scorer = inference.in_dtype(ae.network_, ae.scorer_, torch.float64)
    result: Array = inference.log_density(network, scorer, x).detach().numpy()
    return result


def total(explanation: Explanation) -> Array:
    result: Array = explanation.base + explanation.contribution.sum(axis=1)
    return result


# --- adding up


ROWS = np.random.default_rng(1).normal(size=(90, 5)) @ np.random.default_rng(2).normal(size=(5, 5))


@pytest.mark.parametrize("activation", ["selu", "relu", "tanh"])
@pytest.mark.parametrize("holes", [False, True])
def test_shares_and_base_are_minus_the_score(activation: str, holes: bool) -> None:
    ae = Autoencoder(**QUICK | {"activation": activation}).fit(ROWS)
    rows = ROWS * 3  # many of them odd, some of them beyond all that was seen
    if holes:
        rows = np.where(np.random.default_rng(3).uniform(size=rows.shape) < 0.2, np.nan, rows)
    scores = ae.score_samples(rows)
    np.testing.assert_allclose(total(ae.explain(rows)), -scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "likelihood",
    [
        {},
        {"income": "student_t", "visits": "poisson"},
        {"height": "histogram", "smoker": "gaussian", "since": "student_t"},
    ],
    ids=str,
)
@pytest.mark.parametrize("holes", [False, True])
def test_shares_of_mixed_columns_add_up(likelihood: dict[str, str], holes: bool) -> None:
    frame = with_holes(FRAME) if holes else FRAME
    ae = Autoencoder(**QUICK | {"likelihood": likelihood}).fit(frame)
    frame = frame.iloc[:40]
    found = total(ae.explain(frame))
    np.testing.assert_allclose(found, -exact_scores(ae, frame), rtol=1e-9, atol=1e-9)


def test_shares_add_up_to_scores_in_32_bits_to_their_rounding(model: Autoencoder) -> None:
    scores = model.score_samples(FRAME)
    np.testing.assert_allclose(total(model.explain(FRAME)), -scores, rtol=1e-3, atol=2e-3)


def test_shares_add_up_for_absurd_cells(model: Autoencoder) -> None:
    odd = FRAME.iloc[:3].assign(height=[1e12, -1e300, 171.0], visits=[0, 10**9, 2], town="Oslo")
    np.testing.assert_allclose(total(model.explain(odd)), -exact_scores(model, odd), rtol=1e-9)


def test_shares_add_up_for_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(40, 4, 5), dtype=np.uint8)
    ae = Autoencoder(**QUICK).fit(images)
    found = ae.explain(images)
    assert found.contribution.shape == found.observed.shape == found.expected.shape == (40, 20)
    np.testing.assert_allclose(total(found), -exact_scores(ae, images), rtol=1e-9, atol=1e-9)


def test_rows_and_paths_in_parts_give_what_all_at_once_do(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = with_holes(FRAME).iloc[:30]
    whole = model.explain(frame)
    monkeypatch.setattr(explain, "_PATH_CELLS", 1000)
    monkeypatch.setattr(
        explain, "row_chunks", lambda n, width: [slice(i, min(i + 7, n)) for i in range(0, n, 7)]
    )
    parted = model.explain(frame)
    for name in ("contribution", "base"):
        np.testing.assert_allclose(
            getattr(parted, name), getattr(whole, name), rtol=1e-9, atol=1e-9
        )
    np.testing.assert_array_equal(parted.observed, whole.observed)


def test_the_quadrature_leaves_little_over(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = model.explain(FRAME).contribution
    monkeypatch.setattr(type(model.scorer_.density), "n_nodes", 400)
    fine = model.explain(FRAME).contribution
    error = np.abs(coarse - fine).max(axis=1) / np.abs(fine).max(axis=1)
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.95) < 0.05


# --- whose shares


def test_there_is_one_share_per_column_of_the_table(model: Autoencoder) -> None:
    found = model.explain(FRAME)
    assert found.columns == tuple(FRAME.columns)
    assert found.contribution.shape == found.observed.shape == found.expected.shape == FRAME.shape
    assert found.contribution.dtype == found.base.dtype == np.float64
    assert found.rows.tolist() == list(range(N))


def test_missing_and_ignored_cells_have_no_share(model: Autoencoder) -> None:
    frame = with_holes(FRAME)
    found = model.explain(frame)
    nothing = frame.isna().to_numpy() | (frame.columns == "key")
    assert not found.contribution[nothing].any()
    # Levels that are as expected have none; numbers hardly ever are.
    kinds = np.array([column.kind for column in model.schema_.columns])
    numbers = np.isin(kinds, ["real", "count", "time"])
    assert (found.contribution[:, numbers][~nothing[:, numbers]] != 0).mean() > 0.99


def test_a_row_without_cells_has_no_shares(model: Autoencoder) -> None:
    found = model.explain(with_holes(FRAME, 1.1).iloc[:2])
    assert not found.contribution.any()
    assert np.isfinite(found.base).all()


def test_observed_cells_are_the_callers_own(model: Autoencoder) -> None:
    frame = with_holes(FRAME).iloc[:20]
    found = model.explain(frame).observed
    for j, name in enumerate(frame.columns):
        expected = [None if pd.isna(cell) else cell for cell in frame[name]]
        assert found[:, j].tolist() == expected


def test_expected_cells_are_in_the_columns_own_terms(model: Autoencoder) -> None:
    expected = dict(zip(FRAME.columns, model.explain(FRAME).expected.T, strict=True))
    assert 140 < expected["height"].astype(float).mean() < 200
    assert (expected["visits"].astype(float) >= 0).all()
    assert set(expected["town"]) <= set(FRAME["town"])
    assert all(isinstance(cell, datetime) for cell in expected["since"])
    assert set(expected["key"]) == {None}


@pytest.mark.parametrize("container", [np.asarray, torch.from_numpy])
def test_numbers_are_explained_as_numbers(container: Any) -> None:
    found = Autoencoder(**QUICK).fit(ROWS).explain(container(ROWS))
    assert found.columns == tuple(f"x{i}" for i in range(5))
    np.testing.assert_array_equal(found.observed, ROWS)
    assert found.expected.dtype == np.float64


# --- what they point at


def planted(seed: int) -> tuple[Autoencoder, Array, Array]:
    """A model of eight columns that two numbers decide, and rows with one cell moved far off."""
    rng = np.random.default_rng(seed)
    angles = np.arange(8) * np.pi / 8
    loadings = np.array([np.cos(angles), np.sin(angles)])
    rows = rng.normal(size=(1200, 2)) @ loadings + 0.1 * rng.normal(size=(1200, 8))
    ae = Autoencoder(n_components=2, hidden_layers=(), epochs=40, random_state=0).fit(rows[:1000])
    odd, column = rows[1000:].copy(), rng.integers(8, size=200)
    odd[np.arange(200), column] += rng.choice([-2.5, 2.5], size=200)
    return ae, odd, column


def test_the_column_that_was_moved_has_the_largest_share() -> None:
    ae, odd, column = planted(0)
    found = ae.explain(odd)
    assert (found.contribution.argmax(axis=1) == column).mean() >= 0.95


def test_the_wrong_cell_hardly_pulls_at_what_is_expected_in_its_place() -> None:
    ae, odd, column = planted(1)
    at = np.arange(200), column
    away = np.abs(odd - ae.explain(odd).expected)[at]
    # It was moved by 2.5; its own reconstruction follows it by a quarter of that.
    assert np.median(away) > 2.1 > np.median(np.abs(odd - ae.reconstruct(odd))[at]) + 0.1


def test_the_moved_column_is_found_among_holes_too() -> None:
    ae, odd, column = planted(2)
    hidden = np.random.default_rng(5).uniform(size=odd.shape) < 0.15
    hidden[np.arange(200), column] = False
    found = ae.explain(np.where(hidden, np.nan, odd))
    assert (found.contribution.argmax(axis=1) == column).mean() >= 0.9


USUAL = FRAME[(FRAME["height"] - 170).abs() < 4].iloc[:15]


@pytest.mark.parametrize(
    ("column", "cell"),
    [("height", 120.0), ("height", 1e9), ("income", -1e5), ("visits", 40), ("since", "1999-01-01")],
)
def test_one_odd_cell_of_any_kind_is_found(model: Autoencoder, column: str, cell: Any) -> None:
    cells = pd.Series([cell] * 15, USUAL.index, dtype=FRAME[column].dtype)
    found = model.explain(USUAL.assign(**{column: cells}))
    assert np.mean([found.top(i, 1) == [column] for i in range(15)]) > 0.9


def test_a_category_never_seen_adds_to_the_oddness(model: Autoencoder) -> None:
    before, found = (model.explain(rows) for rows in (USUAL, USUAL.assign(town="Oslo")))
    town = found.columns.index("town")
    assert (found.contribution[:, town] > before.contribution[:, town]).mean() > 0.8


# --- reading


SMALL = Explanation(
    columns=("a", "b", "c"),
    observed=np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]]),
    expected=np.array([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]),
    contribution=np.array([[0.5, -1.0, 2.0], [0.25, 0.0, 0.25]]),
    base=np.array([7.0, 8.0]),
    rows=np.array([17, 41]),
)


@pytest.mark.parametrize(
    ("row", "n", "names"),
    [(0, 1, ["c"]), (0, 3, ["c", "a"]), (0, 9, ["c", "a"]), (1, 3, ["a", "c"]), (0, 0, [])],
)
def test_top_names_what_adds_to_the_oddness_the_most_first(
    row: int, n: int, names: list[str]
) -> None:
    assert SMALL.top(row, n) == names


def test_the_frame_has_a_line_per_row_and_column_the_largest_share_first() -> None:
    frame = SMALL.to_frame()
    assert list(frame.columns) == ["row", "column", "observed", "expected", "contribution"]
    assert frame["row"].tolist() == [17] * 3 + [41] * 3
    assert frame["column"].tolist() == ["c", "a", "b", "a", "c", "b"]
    assert frame["contribution"].tolist() == [2.0, 0.5, -1.0, 0.25, 0.25, 0.0]
    assert frame["observed"].fillna(-1).tolist() == [3.0, 1.0, 2.0, 4.0, 6.0, -1.0]
    assert frame["expected"].tolist() == [3.5, 1.5, 2.5, 4.5, 6.5, 5.5]


def test_the_frame_may_have_the_first_lines_of_each_row_only() -> None:
    assert SMALL.to_frame(top=1)["column"].tolist() == ["c", "a"]


def test_a_mixed_explanation_becomes_a_frame(model: Autoencoder) -> None:
    frame = model.explain(with_holes(FRAME).iloc[:3]).to_frame(top=2)
    assert len(frame) == 6
    assert frame["contribution"].is_monotonic_decreasing or frame["row"].nunique() == 3


def test_an_explanation_is_a_table_where_it_is_shown(model: Autoencoder) -> None:
    found = model.explain(mixed(12))
    text, html = repr(found), found._repr_html_()
    assert text.splitlines()[0].split() == ["row", "column", "observed", "expected", "contribution"]
    assert text.splitlines()[2].split()[:2] == ["0", found.top(0, 1)[0]]
    assert text.endswith("to_frame() has all.")
    assert html.count("<tr>") == 1 + 10 * 5
