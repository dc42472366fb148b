"""Drawn numbers are cells of training rows whose predictions are near."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, load
from twofold.errors import LosesToPCAWarning
from twofold.inference.donors import Donors, matched_columns

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
RNG = np.random.default_rng(0)
N = 800


def donors(values: list[float], predictions: list[float]) -> Donors:
    column = np.array(predictions)[:, None]
    return Donors((0,), np.array(values)[:, None], column, column)


def test_a_value_comes_from_one_of_the_five_nearest_predictions() -> None:
    known = donors(list(range(100)), [float(i) for i in range(100)])
    found = known.match(0, np.full(4000, 50.0), np.random.default_rng(0))
    assert set(found) <= {48.0, 49.0, 50.0, 51.0, 52.0}
    assert np.bincount(found.astype(int))[48:53].min() > 600


def test_predictions_beyond_all_others_take_values_at_the_end() -> None:
    known = donors(list(range(100)), [float(i) for i in range(100)])
    rng = np.random.default_rng(0)
    assert set(known.match(0, np.full(500, -1e9), rng)) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert set(known.match(0, np.full(500, 1e9), rng)) == {95.0, 96.0, 97.0, 98.0, 99.0}


def test_of_many_rows_with_one_prediction_each_lends_its_value() -> None:
    known = donors(list(range(200)), [1.0] * 200)
    found = known.match(0, np.ones(20_000), np.random.default_rng(0))
    counts = np.bincount(found.astype(int), minlength=200)
    assert counts[5:-5].min() > 40


def test_missing_cells_lend_nothing() -> None:
    known = donors([1.0, np.nan, 3.0], [0.0, 0.1, 0.2])
    assert set(known.match(0, np.full(50, 0.1), np.random.default_rng(0))) == {1.0, 3.0}
    assert not donors([np.nan, np.nan], [0.0, 1.0]).has(0)


def skewed() -> pd.DataFrame:
    z = RNG.normal(size=N)
    return pd.DataFrame(
        {
            "a": z,
            "b": z + 0.3 * RNG.normal(size=N),
            "spent": np.where(RNG.random(N) < 0.5, 0.0, np.exp(2 + z + RNG.normal(size=N))),
            "when": pd.to_datetime("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D"),
            "flag": RNG.integers(0, 2, N),
            "same": 7.5,
        }
    )


ROWS = skewed()


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(n_components=3, epochs=40, random_state=0).fit(ROWS)


def holed() -> pd.DataFrame:
    return ROWS.mask(np.random.default_rng(1).random(ROWS.shape) < 0.3)


def test_numbers_and_times_that_vary_have_donors(model: Autoencoder) -> None:
    names = [model.schema_.names[i] for i in matched_columns(model.schema_)]
    assert names == ["a", "b", "spent", "when"]
    assert model._calibration.cells.donors.n_rows == 720  # those that are trained on


def test_drawn_numbers_are_training_cells(model: Autoencoder) -> None:
    drawn = [*model.impute(holed(), n_draws=2, random_state=0), model.sample(500, random_state=0)]
    for table in drawn:
        for name in ("a", "spent", "when"):
            assert table[name].isin(ROWS[name]).all()


def test_draws_have_the_shape_of_their_column(model: Autoencoder) -> None:
    new = model.sample(4000, random_state=0)
    assert (new.spent == 0).mean() == pytest.approx((ROWS.spent == 0).mean(), abs=0.1)
    assert new.a.corr(new.b) == pytest.approx(ROWS.a.corr(ROWS.b), abs=0.1)


def test_a_model_without_donors_draws_from_likelihoods() -> None:
    ae = Autoencoder(n_components=3, epochs=5, donors=0, random_state=0).fit(ROWS)
    assert ae._calibration.cells.donors.n_rows == 0
    new = ae.sample(200, random_state=0)
    inside = new.a.between(ROWS.a.min(), ROWS.a.max(), inclusive="neither")
    assert not new.a[inside].isin(ROWS.a).any()
    assert new.a.between(ROWS.a.min(), ROWS.a.max()).all()


def test_donors_are_saved_with_the_model(model: Autoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    for ours, theirs in zip(
        model.impute(holed(), 2, random_state=3),
        again.impute(holed(), 2, random_state=3),
        strict=True,
    ):
        pd.testing.assert_frame_equal(ours, theirs)


def test_images_and_sequences_have_none() -> None:
    images = RNG.random((60, 4, 4)).astype(np.float32)
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(images)
    assert matched_columns(ae.schema_) == ()
    assert ae.sample(3, random_state=0).shape == (3, 4, 4)
