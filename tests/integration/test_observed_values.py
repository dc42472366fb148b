"""Cells that a model makes up have values that their columns were observed to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, load

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
N = 600


def accounts() -> pd.DataFrame:
    """Rows of daily figures and, 40 times as large, of monthly ones, which have no day."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "day": rng.integers(1, 32, N).astype(float),
            "sold": rng.normal(300, 30, N).round(),
            "returned": rng.poisson(2, N),
            "taken": (rng.gamma(2, 40, N)).round(2),
            "discount": np.where(rng.random(N) < 0.9, 0, rng.gamma(1, 300, N)),
            "branch": 4_512_345_678_901_234,
            "rate": 4.761904762,
            "opened": rng.choice(pd.date_range("2004-01-05", periods=300, freq="W-MON"), N),
            "lasted": pd.to_timedelta(rng.gamma(2, 100, N).round(), unit="s"),
            "online": rng.integers(0, 2, N).astype(float),
        }
    )
    late = rng.random(N) < 0.04
    frame.loc[late, "day"] = np.nan
    frame.loc[late, "sold"] *= 40
    frame.loc[late, "opened"] = pd.NaT
    return frame


ROWS = accounts()


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return Autoencoder(n_components=3, epochs=25, random_state=1).fit(ROWS)


def holed() -> pd.DataFrame:
    hidden = np.random.default_rng(1).random(ROWS.shape) < 0.3
    return ROWS.astype({"returned": "Int64", "branch": "Int64"}).mask(hidden)


def require_observed(frame: pd.DataFrame) -> None:
    for name in ROWS:
        cells = frame[name].dropna()
        assert cells.min() >= ROWS[name].min(), name
        assert cells.max() <= ROWS[name].max(), name
    assert (frame.day.dropna() % 1 == 0).all()
    assert (frame.taken.dropna().round(2) == frame.taken.dropna()).all()
    assert set(frame.online.dropna()) <= {0.0, 1.0}
    assert set(frame.branch.dropna()) <= set(ROWS.branch)
    assert set(frame.rate.dropna()) <= set(ROWS.rate)
    opened = frame.opened.dropna()
    assert (opened.dt.day_name() == "Monday").all()
    assert (opened.dt.normalize() == opened).all()
    assert (frame.lasted.dropna().dt.microseconds == 0).all()


def test_filled_cells_have_observed_values(model: Autoencoder) -> None:
    found = model.impute(holed())
    require_observed(found)
    assert not found.isna().any(axis=None)


def test_draws_for_missing_cells_have_observed_values(model: Autoencoder) -> None:
    for found in model.impute(holed(), n_draws=3, random_state=0):
        require_observed(found)


def test_new_rows_have_observed_values(model: Autoencoder) -> None:
    require_observed(model.sample(2000, random_state=0))


def test_rows_between_two_have_observed_values(model: Autoencoder) -> None:
    odd = ROWS[ROWS.day.isna()]
    require_observed(model.interpolate(ROWS[:1], odd[:1], steps=20))


def test_expected_cells_have_observed_values(model: Autoencoder) -> None:
    found = model.explain(ROWS)
    frame = pd.DataFrame(found.expected, columns=list(found.columns))
    for name in ("day", "sold", "returned", "taken", "discount", "branch", "rate", "online"):
        cells = frame[name].astype(float)
        assert cells.between(ROWS[name].min(), ROWS[name].max()).all(), name
    assert (frame.day.astype(float) % 1 == 0).all()


def test_reconstructions_end_where_cells_or_the_straight_part_of_the_scale_end(
    model: Autoencoder,
) -> None:
    wild = ROWS.assign(sold=1e12, discount=1e15, taken=-1e15)
    found = model.reconstruct(wild)
    for column, name in zip(model.schema_.columns, ROWS, strict=True):
        if name not in ("opened", "lasted"):
            low, high = column.limits
            if name in ("sold", "discount", "taken"):  # or where a row's own cell lies
                low, high = np.fmin(low, wild[name]), np.fmax(high, wild[name])
            assert found[name].between(low, high).all(), name
    assert (found.rate == ROWS.rate).all()
    assert (found.branch == ROWS.branch).all()


def test_a_model_that_was_saved_knows_them_too(model: Autoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.schema_ == model.schema_
    pd.testing.assert_frame_equal(again.sample(50, 0), model.sample(50, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_too_are_filled_with_observed_values(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=300), rng.lognormal(0, 3, 300)]).astype(dtype)
    rows = np.column_stack([rows, rng.integers(1, 8, 300) / 10]).astype(dtype)
    ae = Autoencoder(n_components=2, epochs=5, random_state=0).fit(rows)
    hidden = rng.random(rows.shape) < 0.3
    found = ae.impute(np.where(hidden, np.nan, rows).astype(dtype))
    new = ae.sample(500, random_state=0)
    for cells in (found, new):
        assert cells.dtype == dtype
        assert (cells >= rows.min(0)).all()
        assert (cells <= rows.max(0)).all()
        assert np.isin(cells[:, 2], rows[:, 2]).all()


def test_rows_of_later_calls_are_observed_too() -> None:
    rng = np.random.default_rng(0)
    first = pd.DataFrame({"a": rng.normal(size=200), "b": rng.integers(0, 9, 200)})
    ae = Autoencoder(epochs=1, random_state=0).partial_fit(first)
    ae.partial_fit(first.assign(a=first.a + 100, b=first.b * 10))
    domain = ae.schema_.columns[0].domain
    assert domain.low == first.a.min()
    assert domain.high == pytest.approx(first.a.max() + 100)
    assert ae.schema_.columns[1].domain.high == first.b.max() * 10
