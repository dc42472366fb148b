"""The estimator on tables of all kinds of columns, with and without holes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from twofold import Autoencoder
from twofold.data import sources
from twofold.data.table import Table
from twofold.errors import DataError, LosesToPCAWarning
from twofold.inference import apply as inference
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training.autograd import AutogradStep
from twofold.training.batches import Selection, TrainingData
from twofold.training.config import TrainingConfig
from twofold.training.fused import FusedStep
from twofold.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
Array = NDArray[Any]
N = 240
QUICK: dict[str, Any] = {"n_components": 4, "epochs": 5, "batch_size": 32, "random_state": 0}
LINEAR: dict[str, Any] = {"hidden_layers": (), "likelihood": "gaussian", "precision": "float64"}
TOWNS = np.array(["Bonn", "Kiel", "Ulm", "Trier"])


def mixed(n: int = N, seed: int = 0) -> pd.DataFrame:
    """A frame of every kind whose columns all tell of one hidden number."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    sizes = np.clip(np.rint(z + 1), 0, 2).astype(int)
    return pd.DataFrame(
        {
            "height": 170 + 8 * z + rng.normal(size=n),
            "weight": (70 + 9 * z + 2 * rng.normal(size=n)).astype(np.float32),
            "visits": rng.poisson(np.exp(0.6 + 0.5 * z)),
            "smoker": rng.uniform(size=n) < 1 / (1 + np.exp(-2 * z)),
            "town": TOWNS[np.clip(np.rint(z + 1.5), 0, 3).astype(int)],
            "size": pd.Categorical.from_codes(sizes, ["S", "M", "L"], ordered=True),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
            "points": pd.array(np.rint(40 + 10 * z).astype(int), dtype="Int64"),
            "key": [f"k{i}" for i in range(n)],
        }
    )


NULLABLE = {"visits": "Int64", "smoker": "boolean"}


def with_holes(frame: pd.DataFrame, share: float = 0.15, seed: int = 4) -> pd.DataFrame:
    hidden = np.random.default_rng(seed).uniform(size=frame.shape) < share
    return frame.astype(NULLABLE).mask(hidden)


FRAME, HOLES = mixed(), with_holes(mixed())
MODELLED = [name for name in FRAME.columns if name != "key"]


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    """A model of the frame without holes, which no test changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**QUICK).fit(FRAME)


def fitted_with_holes(seed: int) -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(n_components=4, epochs=25, batch_size=64, random_state=seed).fit(
            with_holes(mixed(1500, 8), 0.05)
        )


@pytest.fixture(scope="module")
def trained() -> Autoencoder:
    """A model of many more rows, trained long enough to be good at them."""
    return fitted_with_holes(0)


@pytest.fixture(scope="module")
def several(trained: Autoencoder) -> list[Autoencoder]:
    """That model, and those of four other seeds."""
    return [trained, *(fitted_with_holes(seed) for seed in range(1, 5))]


# --- fitting


def test_every_kind_is_found(model: Autoencoder) -> None:
    kinds = {column.name: column.kind for column in model.schema_.columns}
    assert kinds == {
        "height": "real",
        "weight": "real",
        "visits": "real",
        "smoker": "binary",
        "town": "category",
        "size": "category",
        "since": "time",
        "points": "real",
        "key": "ignored",
    }


def test_the_network_sees_as_many_inputs_as_the_schema_says(model: Autoencoder) -> None:
    assert model.network_.width == model.schema_.width == 1 + 1 + 1 + 1 + 5 + 4 + 5 + 1
    assert model.n_features_in_ == 9


@pytest.mark.parametrize("frame", [FRAME, HOLES], ids=["whole", "holes"])
def test_training_lowers_the_loss(frame: pd.DataFrame) -> None:
    ae = Autoencoder(**QUICK | {"epochs": 12, "patience": None}).fit(frame)
    losses = [entry["validation_loss"] for entry in ae.history_]
    # From one epoch to the next columns are weighed anew, so that the first ones do not compare.
    assert losses[-1] < losses[2]
    assert all(np.isfinite(losses))


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = (Autoencoder(**QUICK).fit(HOLES).score_samples(HOLES) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_verb_touches_the_global_random_state(
    model: Autoencoder, untouched_random_state: None
) -> None:
    ae = Autoencoder(**QUICK | {"epochs": 1, "random_state": None}).fit(HOLES)
    ae.partial_fit(HOLES)
    for verb in (ae.impute, ae.explain, ae.reconstruct, ae.anomaly_pvalue, ae.compare_pca):
        verb(HOLES.iloc[:9])
    ae.impute(HOLES.iloc[:9], n_draws=2)
    ae.sample(3)


CONTAINERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_container_does_not_change_the_model(container: str) -> None:
    rows = CONTAINERS[container](HOLES)
    expected = Autoencoder(**QUICK).fit(HOLES)
    found = Autoencoder(**QUICK).fit(rows)
    np.testing.assert_allclose(found.transform(rows), expected.transform(HOLES), rtol=1e-4)


def test_a_model_of_one_container_takes_another(model: Autoencoder) -> None:
    rows = pl.from_pandas(HOLES)
    np.testing.assert_allclose(model.transform(rows), model.transform(HOLES), rtol=1e-5, atol=1e-6)
    assert isinstance(model.reconstruct(rows), pl.DataFrame)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("real", ["real", "real", "real"]), ({"smoker": "count"}, ["real", "real", "count"])],
)
def test_kinds_are_as_the_caller_says(said: Any, expected: list[str]) -> None:
    numbers = FRAME[["height", "visits", "smoker"]]
    ae = Autoencoder(**QUICK | {"n_components": 1, "kinds": said}).fit(numbers)
    assert [column.kind for column in ae.schema_.columns] == expected


def test_a_kind_that_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="Column 'town' cannot be 'count': its cells are text"):
        Autoencoder(**QUICK | {"kinds": {"town": "count"}}).fit(FRAME)


def test_a_column_that_turned_to_text_is_told_with_row_and_cell(model: Autoencoder) -> None:
    points = FRAME["points"].astype("str").where(np.arange(N) != 41, "n/a")
    with pytest.raises(
        DataError, match=r"'points' held numbers in training and holds text here \(row 41: 'n/a'\)"
    ):
        model.score_samples(FRAME.assign(points=points))


def test_partial_fit_goes_on_from_rows_without_holes_to_rows_with_them() -> None:
    ae = Autoencoder(**QUICK).partial_fit(FRAME)
    for _ in range(3):
        ae.partial_fit(HOLES)
    assert len(ae.history_) == 4
    assert np.isfinite(ae.score_samples(HOLES)).all()


def test_partial_fit_knows_categories_of_the_first_rows_only() -> None:
    ae = Autoencoder(**QUICK).partial_fit(FRAME)
    schema = ae.schema_
    assert ae.partial_fit(FRAME.assign(town="Oslo")).schema_ == schema


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_table_of_mostly_holes_gives_finite_answers(share: float) -> None:
    frame = with_holes(FRAME, share)
    ae = Autoencoder(**QUICK).fit(frame)
    for answer in (ae.transform(frame), ae.score_samples(frame), ae.anomaly_pvalue(frame)):
        assert np.isfinite(answer).all()


def test_validation_rows_may_have_holes_and_new_categories() -> None:
    ae = Autoencoder(**QUICK).fit(FRAME, validation_data=HOLES.assign(town="Oslo"))
    assert np.isfinite(ae.history_[-1]["validation_loss"])


@pytest.mark.parametrize(("likelihood", "most"), [("gaussian", 0.3), ("student_t", 0.01)])
def test_one_absurd_cell_does_not_spoil_the_training(likelihood: str, most: float) -> None:
    rng = np.random.default_rng(3)
    clean = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(300, 6))
    absurd = clean.copy()
    absurd[17, 3] = 1e12
    options = QUICK | {"n_components": 2, "epochs": 30, "likelihood": likelihood}
    expected = Autoencoder(**options).fit(clean)
    found = Autoencoder(**options).fit(absurd)
    others = np.arange(300) != 17
    scale = clean[others].std(0)
    error = [
        np.mean(((ae.reconstruct(clean) - clean)[others] / scale) ** 2) for ae in (expected, found)
    ]
    assert error[1] < error[0] + most
    assert found.score_samples(absurd).argmin() == 17
    assert found.anomaly_pvalue(absurd[[17]])[0] < 0.05


# --- reconstructions


def test_reconstructions_have_the_frames_types_names_and_index(model: Autoencoder) -> None:
    frame = FRAME.set_index(np.arange(N) * 3)
    found = model.reconstruct(frame)
    assert list(found.columns) == list(frame.columns)
    assert found[MODELLED].dtypes.tolist() == frame[MODELLED].dtypes.tolist()
    assert found.index.equals(frame.index)
    assert not found[MODELLED].isna().any().any()
    assert found["key"].isna().all()


def test_reconstructions_are_near_and_categories_mostly_right(trained: Autoencoder) -> None:
    frame = mixed(400, 5)
    found = trained.reconstruct(frame)
    for name in ("height", "weight", "points"):
        left = (found[name].astype(float) - frame[name].astype(float)).std()
        assert left < 0.6 * frame[name].astype(float).std()
    assert (found["town"] == frame["town"]).mean() > 0.7
    assert (found["smoker"] == frame["smoker"]).mean() > 0.7
    assert np.corrcoef(found["visits"], frame["visits"])[0, 1] > 0.5


# --- holes


INT64 = 2**53 + np.arange(1, N + 1, dtype=np.int64) * 3


def big() -> pd.DataFrame:
    """A frame with whole numbers that 64-bit floats cannot hold, of which some are missing."""
    numbers = pd.array(INT64, dtype="Int64")
    numbers[::7] = pd.NA
    return HOLES.assign(big=numbers, whole=INT64, key=FRAME["key"])


IMPUTED: dict[str, Callable[[pd.DataFrame], Any]] = {
    **CONTAINERS,
    "record batch": lambda frame: (
        pa.Table.from_pandas(frame, preserve_index=False).combine_chunks().to_batches()[0]
    ),
}


def as_pandas(rows: Any) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows
    table = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
    return pd.DataFrame({n: table.column(n).to_pylist() for n in table.schema.names}, dtype=object)


@pytest.mark.parametrize("container", IMPUTED)
def test_observed_cells_are_the_same_and_nothing_missing_is_left(container: str) -> None:
    rows = IMPUTED[container](big())
    ae = Autoencoder(**QUICK).fit(rows)
    drawn = ae.impute(rows, n_draws=2, random_state=0)
    assert len(drawn) == 2
    for filled in [ae.impute(rows), *drawn]:
        assert type(filled) is type(rows)
        before, after = as_pandas(rows), as_pandas(filled)
        assert list(after.columns) == list(before.columns)
        for name in before.columns:
            known = before[name].notna()
            assert after.loc[known, name].tolist() == before.loc[known, name].tolist()
        assert not after.isna().any().any()


@pytest.mark.parametrize("container", CONTAINERS)
def test_imputed_frames_have_the_callers_types(container: str, model: Autoencoder) -> None:
    rows = CONTAINERS[container](HOLES)
    filled = model.impute(rows)
    if container == "arrow":
        assert filled.schema.equals(rows.schema)
    else:
        assert list(filled.dtypes) == list(rows.dtypes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_imputed_arrays_have_the_same_bits_elsewhere(dtype: type) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 5)).astype(dtype)
    hidden = np.random.default_rng(1).uniform(size=rows.shape) < 0.2
    rows[hidden] = np.nan
    found = Autoencoder(**QUICK | {"n_components": 2}).fit(rows).impute(rows)
    assert found.dtype == dtype
    assert found[~hidden].tobytes() == rows[~hidden].tobytes()
    assert np.isfinite(found).all()


def test_imputed_images_keep_their_shape() -> None:
    images = np.random.default_rng(0).uniform(size=(40, 4, 5))
    images[3, 1, 2] = np.nan
    found = Autoencoder(**QUICK).fit(images).impute(images)
    assert found.shape == images.shape
    assert np.argwhere(found != images).tolist() == [[3, 1, 2]]
    assert 0 <= found[3, 1, 2] <= 1


def test_imputed_categories_are_told_by_name_whatever_the_callers_levels(
    trained: Autoencoder,
) -> None:
    whole = mixed(200, 6)
    frame = whole.assign(town=whole["town"].where(np.arange(200) % 2 == 0))
    few = frame[(frame["town"] != "Bonn") & (frame["town"] != "Ulm")].iloc[::-1]
    expected = trained.reconstruct(few).loc[few["town"].isna(), "town"]
    assert set(expected) >= {"Bonn", "Ulm"}
    for rows in (few, few.astype({"town": "category"}), few.astype({"town": object})):
        found = trained.impute(rows)
        assert found.loc[few["town"].isna(), "town"].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["float64", "object", "str", "category"])
@pytest.mark.parametrize(("column", "of"), [("town", "str"), ("height", "float64")])
def test_a_column_without_cells_is_filled_as_what_it_was_in_training(
    column: str, of: str, dtype: str, model: Autoencoder
) -> None:
    rows = FRAME.assign(**{column: pd.Series([None] * N, dtype=dtype)})
    found = model.impute(rows)[column]
    assert not found.isna().any()
    if of == "str":
        assert set(found) <= set(TOWNS)
    else:
        assert found.astype("float64").between(100, 240).all()


def test_numbers_for_a_column_of_text_are_refused(model: Autoencoder) -> None:
    rows = FRAME.assign(town=np.where(np.arange(N) % 2, 7.0, np.nan))
    with pytest.raises(DataError, match=r"'town' held text in training.*pass its cells as text"):
        model.impute(rows)


def test_text_for_a_column_of_numbers_is_refused() -> None:
    # Numbers that are texts of training are taken; what fills the column's other cells is not one.
    ae = Autoencoder(**QUICK).fit(FRAME.assign(town=FRAME["town"].replace("Bonn", "7")))
    rows = FRAME.assign(town=np.where(np.arange(N) % 2, 7.0, np.nan))
    with pytest.raises(DataError, match="missing cells that would become text: .*'.*Pass the col"):
        ae.impute(rows)


def test_what_is_imputed_is_near_what_was_hidden(trained: Autoencoder) -> None:
    frame = mixed(400, 7)
    holes = with_holes(frame, 0.1, seed=9)
    filled = trained.impute(holes)
    for name in ("height", "weight"):
        hidden = holes[name].isna()
        left = (filled.loc[hidden, name] - frame.loc[hidden, name]).std()
        assert left < 0.75 * frame[name].std()
    hidden = holes["town"].isna()
    right = (filled.loc[hidden, "town"] == frame.loc[hidden, "town"]).mean()
    assert right > frame["town"].value_counts(normalize=True).max() + 0.05


# --- new rows


@pytest.mark.parametrize("container", CONTAINERS)
def test_new_rows_have_the_training_tables_types(container: str) -> None:
    rows = CONTAINERS[container](FRAME)
    new = Autoencoder(**QUICK).fit(rows).sample(30, random_state=0)
    assert type(new) is type(rows)
    assert new.shape == (30, 9)
    if container == "arrow":
        assert new.schema.types == rows.schema.types
    else:
        assert list(new.dtypes) == list(rows.dtypes)


def test_new_rows_hold_known_categories_whole_counts_and_flags(model: Autoencoder) -> None:
    new = model.sample(500, random_state=0)
    assert set(new["town"]) == set(TOWNS)
    assert set(new["size"]) == {"S", "M", "L"}
    assert new["visits"].min() >= 0
    assert set(new["smoker"]) == {True, False}
    assert not new[MODELLED].isna().any().any()


def test_new_counts_in_an_array_are_whole() -> None:
    rows = np.random.default_rng(0).poisson(2.0, size=(200, 4)).astype(float)
    ae = Autoencoder(**QUICK | {"n_components": 2}).fit(rows)
    new = ae.sample(300, random_state=0)
    np.testing.assert_array_equal(new, np.rint(new))
    assert new.min() >= 0


def test_new_rows_are_like_the_tables(trained: Autoencoder) -> None:
    frame, new = mixed(1500, 8), trained.sample(1500, random_state=0)
    for name in ("height", "weight"):
        assert new[name].mean() == pytest.approx(
            frame[name].mean(), abs=float(0.2 * frame[name].std())
        )
        assert new[name].std() == pytest.approx(frame[name].std(), rel=0.25)
    assert new["visits"].mean() == pytest.approx(frame["visits"].mean(), rel=0.25)
    assert new["smoker"].mean() == pytest.approx(frame["smoker"].mean(), abs=0.1)
    shares = [rows["town"].value_counts(normalize=True)[TOWNS] for rows in (frame, new)]
    np.testing.assert_allclose(*shares, atol=0.1)
    correlations = [np.corrcoef(rows["height"], rows["weight"])[0, 1] for rows in (frame, new)]
    assert correlations[1] == pytest.approx(correlations[0], abs=0.2)


def test_the_way_between_two_rows_ends_at_their_reconstructions(model: Autoencoder) -> None:
    a, b = FRAME.iloc[:1], FRAME.iloc[1:2]
    way = model.interpolate(a, b, 5)
    ends = pd.concat([model.reconstruct(a), model.reconstruct(b)], ignore_index=True)
    for column in model.schema_.columns:
        if column.domain.is_known and column.kind != "time":
            cells = ends[column.name].astype(float).to_numpy()
            ends[column.name] = pd.array(column.domain.nearest(cells), ends[column.name].dtype)
    found = way.iloc[[0, -1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.drop(columns="since"), ends.drop(columns="since"))
    assert (found["since"] - ends["since"]).abs().max() < pd.Timedelta("13h")  # rounded to days


# --- scores


def test_a_row_alone_scores_as_among_others(model: Autoencoder) -> None:
    x = torch.from_numpy(model.schema_.to_matrix(model.read(HOLES.iloc[:50]), np.float64))
    network, objective = inference.in_dtype(model.network_, model.scorer_, torch.float64)
    together = inference.log_density(network, objective, x)
    alone = torch.cat([inference.log_density(network, objective, row[None]) for row in x])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)


def test_a_row_alone_is_read_as_among_others(model: Autoencoder) -> None:
    rows = HOLES.iloc[:25]
    one_by_one = np.concatenate([model.score_samples(rows.iloc[[i]]) for i in range(25)])
    np.testing.assert_allclose(one_by_one, model.score_samples(rows), rtol=1e-4, atol=1e-4)


def gaussian_rows(n: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    angles = np.arange(10) * np.pi / 10
    loadings = np.array([np.cos(angles), np.sin(angles)])
    return rng.normal(size=(n, 2)) @ loadings + 0.4 * rng.normal(size=(n, 10))


def test_rows_with_different_holes_compare() -> None:
    ae = Autoencoder(**QUICK | LINEAR | {"n_components": 2, "epochs": 40})
    ae.fit(gaussian_rows(1500, 0))
    rows = gaussian_rows(800, 1)
    whole = ae.score_samples(rows)
    for share in (0.1, 0.3):
        hidden = np.random.default_rng(2).uniform(size=rows.shape) < share
        found = ae.score_samples(np.where(hidden, np.nan, rows))
        assert found.mean() == pytest.approx(whole.mean(), abs=0.35 * whole.std())
        assert found.std() < 1.1 * whole.std()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_holes_do_not_make_a_row_an_anomaly(share: float, several: list[Autoencoder]) -> None:
    # 5 % is nominal. A single fit flags 6 to 12 % of such rows, so several are held to a mean.
    rows = with_holes(mixed(1000, 5), share)
    assert np.mean([(ae.predict(rows) == -1).mean() for ae in several]) < 0.1


def test_an_odd_cell_of_any_kind_lowers_the_score(trained: Autoencoder) -> None:
    usual = mixed(300, 9)
    usual = usual[(usual["height"] - 170).abs() < 4].iloc[:40]
    before = trained.score_samples(usual)
    for column, cell in (("height", 250.0), ("visits", 60), ("points", 10**6)):
        dtype = usual[column].dtype
        odd = usual.assign(**{column: pd.Series([cell] * 40, usual.index, dtype=dtype)})
        assert (trained.score_samples(odd) < before).mean() > 0.95, column
    assert (trained.score_samples(usual.assign(town="Oslo")) < before).mean() > 0.7


# --- p-values


def test_pvalues_of_fresh_normal_rows_are_uniform() -> None:
    flagged, fresh = [], 40
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(140, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(140, 5))
        options = {"n_components": 1, "epochs": 2, "validation_fraction": 0.4}
        ae = Autoencoder(**QUICK | LINEAR | options).fit(rows[:100])
        assert len(ae.calibration_scores_) == 40
        flagged.append((ae.anomaly_pvalue(rows[100:]) <= 0.05).mean())
    # With 40 held-out rows the rate is 2 / 41, and over rows of one fit it is beta-binomial.
    a, b = 2, 39
    spread = stats.betabinom(fresh, a, b).std() / fresh / np.sqrt(30)
    assert np.mean(flagged) == pytest.approx(2 / 41, abs=3 * spread)


def test_pvalues_rank_a_row_among_the_held_out_ones(model: Autoencoder) -> None:
    scores, held_out = model.score_samples(HOLES), model.calibration_scores_
    expected = [(1 + (held_out <= score).sum()) / (len(held_out) + 1) for score in scores]
    np.testing.assert_allclose(model.anomaly_pvalue(HOLES), expected, rtol=1e-12)
    assert (np.diff(held_out) >= 0).all()


def test_no_row_is_odder_than_the_held_out_rows_can_tell(model: Autoencoder) -> None:
    absurd = FRAME.iloc[:3].assign(height=1e9, visits=10**6)
    least = 1 / (len(model.calibration_scores_) + 1)
    assert model.anomaly_pvalue(absurd).tolist() == [least] * 3


def test_pvalues_are_calibrated_on_the_rows_that_were_not_trained_on() -> None:
    ae = Autoencoder(**QUICK | {"epochs": 2}).fit(FRAME, validation_data=HOLES.iloc[:50])
    scores = np.sort(ae.score_samples(HOLES.iloc[:50]).astype(float))
    np.testing.assert_allclose(ae.calibration_scores_, scores, rtol=1e-5)


# --- scikit-learn


def test_a_mixed_frame_goes_through_a_pipeline() -> None:
    pipeline = make_pipeline(Autoencoder(**QUICK), LogisticRegression())
    label = FRAME["height"] > 170
    rows = HOLES.drop(columns="height")
    assert pipeline.fit(rows, label).score(rows, label) > 0.6


def test_clone_keeps_kinds_and_likelihoods() -> None:
    ae = Autoencoder(**QUICK, kinds={"key": "ignored"}, likelihood={"visits": "poisson"})
    assert clone(ae).get_params() == ae.get_params()
    assert clone(ae).fit(FRAME).schema_ == ae.fit(FRAME).schema_


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output_gives_codes_in_a_frame(container: str, model: Autoencoder) -> None:
    codes = copy.deepcopy(model).set_output(transform=container).transform(HOLES)
    assert list(codes.columns) == list(model.get_feature_names_out())
    assert np.isfinite(np.asarray(codes)).all()


def test_the_columns_names_are_those_of_the_frame(model: Autoencoder) -> None:
    assert list(model.feature_names_in_) == list(FRAME.columns)
    with pytest.raises(DataError, match="(?s)feature names.*- town"):
        model.transform(FRAME.drop(columns="town"))


def test_a_mixed_table_that_loses_to_pca_is_warned_about() -> None:
    options = QUICK | {"epochs": 1, "learning_rate": 1e-6, "shortcut": False}
    with pytest.warns(LosesToPCAWarning, match="nats per cell"):
        ae = Autoencoder(**options).fit(FRAME)
    assert ae.comparison_.loss > ae.comparison_.loss_pca


@pytest.mark.parametrize("frame", [FRAME, HOLES], ids=["whole", "holes"])
def test_reconstructions_are_drawn(frame: pd.DataFrame, model: Autoencoder) -> None:
    assert model.plot_reconstructions(frame, n_rows=4).axes


def test_the_layer_table_names_the_output_of_every_kind(model: Autoencoder) -> None:
    for word in ("identity", "softmax"):
        assert word in model.summary()


# --- the fused step


def test_columns_are_weighed_alike_by_both_steps() -> None:
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(40, 3)), rng.uniform(size=(40, 3)) > 0.4])
    table = Table(values)
    schema = Schema.infer(table, dict.fromkeys(("x3", "x4", "x5"), "bernoulli"))
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    plan = TrainingConfig("sgd", 0.2, 0.9, False, "constant", 8, 1, 0.0, None)
    found = []
    for kind in (AutogradStep, FusedStep):
        network = Network(6, (5,), 2, generator=torch.Generator().manual_seed(0)).double()
        objective = Objective(schema, adapts=True).double()
        objective.noise.fill_(0.35)
        step = kind(network, objective, plan)
        losses = [float(step.update(batch, 0.01)) for batch in x.split(8)]
        objective.noise.fill_(0.2)  # as an epoch's end does
        losses += [float(step.update(batch, 0.01)) for batch in x.split(8)]
        found.append((losses, [p.detach().clone() for p in network.parameters()]))
    (losses, own), (fused_losses, fused) = found
    np.testing.assert_allclose(fused_losses, losses, rtol=1e-9)
    for a, b in zip(own, fused, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)


def test_training_weighs_columns_anew_after_every_epoch() -> None:
    # Numbers without each other's help, so that their noise is not the least one.
    mixed = FRAME.assign(weight=FRAME["weight"].to_numpy()[np.random.RandomState(0).permutation(N)])
    table = sources.read(mixed[["height", "weight", "smoker"]])
    schema = Schema.infer(table, {"smoker": "bernoulli"})
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    network = Network(3, (), 1, generator=torch.Generator().manual_seed(0)).double()
    objective = Objective(schema, adapts=True).double()
    plan = TrainingConfig("adam", 0.02, 0.0, False, "constant", 32, 15, 0.0, None)
    positions = torch.arange(N)
    data = TrainingData(Selection(x, positions), None, x, positions, complete=False)
    Trainer(network, objective, plan, torch.Generator()).fit(data)
    residual = (x - network(x)[0]).detach()[:, :2]
    expected = float((residual**2).mean().sqrt())
    assert float(objective.noise) == pytest.approx(expected, rel=0.05)
    assert 0.35 < expected < 0.9
