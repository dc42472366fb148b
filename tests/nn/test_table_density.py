"""Rows with categories: rare levels are normal, contradictions are not, and numbers still count."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from twofold import Autoencoder
from twofold.data import sources
from twofold.errors import LosesToPCAWarning
from twofold.nn.row_density import RowDensity
from twofold.nn.table_density import TableDensity, density_of
from twofold.schema.schema import Schema

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
N = 800
TOWNS = {"S": "South", "C": "Cher", "Q": "Queens"}


def journeys() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    port = rng.choice(list("SCQ"), N, p=[0.72, 0.19, 0.09])
    grade = np.where(port == "Q", 3, rng.choice([1, 2, 3], N, p=[0.25, 0.2, 0.55]))
    fare = np.exp(rng.normal(4.2 - 0.9 * (grade - 1), 0.5))
    return pd.DataFrame(
        {
            "port": port,
            "town": pd.Series(port).map(TOWNS),
            "class": pd.Series(grade).map({1: "first", 2: "second", 3: "third"}),
            "fare": fare,
            "age": np.clip(rng.normal(30, 14, N), 1, 80),
            "weight": rng.normal(70, 10, N) + 0.1 * fare,
        }
    )


FRAME = journeys()


def fitted(frame: pd.DataFrame) -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(n_components=5, epochs=40, random_state=0).fit(frame)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return fitted(FRAME)


def swapped() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = rng.choice(N, 60, replace=False)
    wrong = FRAME.iloc[rows].copy()
    wrong["town"] = [rng.choice([t for t in TOWNS.values() if t != town]) for town in wrong.town]
    return wrong, rows


def test_a_level_that_every_eleventh_row_has_is_no_anomaly(model: Autoencoder) -> None:
    flagged = model.predict(FRAME) < 0
    base = (FRAME.port == "Q").mean()
    assert flagged.sum() > 0
    assert (FRAME.port[flagged] == "Q").mean() < 2 * base


def test_columns_that_agree_cost_little(model: Autoencoder) -> None:
    found = model.explain(FRAME)
    at = [found.columns.index(name) for name in ("port", "town")]
    assert found.contribution[:, at].sum(1).max() < 8


def test_what_is_expected_of_usual_rows_is_their_reconstruction(model: Autoencoder) -> None:
    usual = FRAME[model.score_samples(FRAME) > np.median(model.score_samples(FRAME))]
    found, x_hat = model.explain(usual), model.reconstruct(usual)
    for name in ("port", "town", "class"):
        expected = found.expected[:, found.columns.index(name)]
        assert np.mean(expected == x_hat[name].to_numpy()) > 0.97


def test_a_town_that_contradicts_its_port_is_found_and_named(model: Autoencoder) -> None:
    wrong, _ = swapped()
    scores = np.append(model.score_samples(wrong), model.score_samples(FRAME))
    assert roc_auc_score(np.arange(len(scores)) < len(wrong), -scores) > 0.95
    found = model.explain(wrong)
    first = [found.top(i, 1)[0] for i in range(len(wrong))]
    assert np.isin(first, ["port", "town"]).mean() > 0.9


def test_the_order_of_columns_does_not_decide(model: Autoencoder) -> None:
    names = [*FRAME.columns[::-1]]
    other, (wrong, _) = fitted(FRAME[names]), swapped()
    scores = np.append(other.score_samples(wrong[names]), other.score_samples(FRAME[names]))
    assert roc_auc_score(np.arange(len(scores)) < len(wrong), -scores) > 0.95


def test_a_number_far_out_is_an_anomaly(model: Autoencoder) -> None:
    even = FRAME.assign(fare=np.log(FRAME.fare))  # no number is far out in the training rows
    assert (fitted(even).predict(even.assign(age=120.0)) < 0).mean() > 0.95
    assert (model.predict(FRAME.assign(fare=1000.0)) < 0).mean() > 0.95
    assert (model.score_samples(FRAME[:20].assign(age=1e9)) < model.offset_).all()


def test_a_number_far_out_is_an_anomaly_next_to_a_heavy_tail(model: Autoencoder) -> None:
    assert (model.predict(FRAME[:20].assign(age=200.0)) < 0).mean() > 0.7


def test_columns_that_repeat_each_other_count_once(model: Autoencoder) -> None:
    density = model.scorer_.density
    assert isinstance(density, TableDensity)
    thrice = FRAME.assign(harbour=FRAME.port, place=FRAME.town)
    other = fitted(thrice).scorer_.density
    assert isinstance(other, TableDensity)
    sums = []
    for levels, frame in ((density.levels, FRAME), (other.levels, thrice)):
        table = sources.read(frame)
        x = Schema.infer(table).to_matrix(table, np.float32)
        sums.append(levels(torch.from_numpy(x), None).sum(1).numpy())
    np.testing.assert_allclose(*sums, atol=0.1)


def test_expected_rows_are_normal(model: Autoencoder) -> None:
    wrong, _ = swapped()
    far = FRAME[:30].assign(age=500.0, fare=1e5, port="Q", town="South")
    for frame in (wrong, far):
        found = model.explain(frame)
        flagged = model.predict(frame) < 0
        assert (-found.base[flagged] >= model.offset_ - 1e-6).all()
        total = found.base + found.contribution.sum(1)
        np.testing.assert_allclose(total, -model.score_samples(frame), rtol=1e-4, atol=1e-3)


def test_rows_with_missing_cells_compare(model: Autoencoder) -> None:
    rng = np.random.default_rng(2)
    holed = FRAME.mask(rng.random(FRAME.shape) < 0.3)
    scores = model.score_samples(holed)
    assert np.isfinite(scores).all()
    assert np.median(scores) == pytest.approx(np.median(model.score_samples(FRAME)), abs=3)


def test_a_row_that_many_rows_equal_is_not_flagged() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=400), "y": rng.normal(size=400), "kind": "usual"})
    frame.loc[:3, ["x", "y", "kind"]] = [30.0, -40.0, "special"]
    model = fitted(frame)
    assert (model.predict(frame[:4]) == 1).all()
    assert (model.predict(frame[:4].assign(x=-1e6, y=1e6)) == -1).all()


def test_only_tables_with_categories_have_it() -> None:
    numbers = Schema.infer(sources.read(FRAME[["fare", "age"]]))
    assert isinstance(density_of(numbers, [0, 1]), RowDensity)
    levels = Schema.infer(sources.read(FRAME[["port", "town"]]))
    assert isinstance(density_of(levels, []), TableDensity)


def test_a_table_of_levels_alone_scores_and_explains() -> None:
    frame = FRAME[["port", "town", "class"]]
    model = fitted(frame)
    assert np.isfinite(model.score_samples(frame)).all()
    wrong = frame.assign(town=np.roll(frame.town, 1))
    contradicts = (wrong.town != frame.town).to_numpy()
    assert model.score_samples(wrong)[contradicts].max() < model.score_samples(frame).min()
    assert np.isfinite(model.explain(wrong).contribution).all()
