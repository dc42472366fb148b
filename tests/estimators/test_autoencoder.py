"""The estimator: scikit-learn's contract, every container, clear errors, and nothing ever lost."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.base import clone
from sklearn.covariance import OAS
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from twofold import Autoencoder, load, metrics
from twofold.errors import (
    DataError,
    DivergenceError,
    InterruptedWarning,
    LosesToPCAWarning,
    OptionError,
    TwofoldError,
)
from twofold.inference import apply as inference
from twofold.metrics import conformal_offset
from twofold.training import trainer
from twofold.training.events import Event

# Most of these trainings are far too short to beat PCA; the warning has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
Array = NDArray[Any]
RNG = np.random.default_rng(21)
ROWS = RNG.normal(size=(90, 6)) @ RNG.normal(size=(6, 6)) * 4 + 30
NAMES = ["height", "weight", "age", "income", "steps", "pulse"]
FRAME = pd.DataFrame(ROWS, columns=NAMES, index=np.arange(90) * 2 + 7)
IMAGES = RNG.integers(0, 256, size=(40, 5, 6), dtype=np.uint8)
# A curve in space: one number says where on it a row is, and no straight line does.
CURVE = np.column_stack([f(np.linspace(-3, 3, 400)) for f in (np.sin, np.cos, np.tanh)])
QUICK: dict[str, Any] = {
    "n_components": 2,
    "hidden_layers": "halving",
    "shortcut": False,
    "activation": "selu",
    "epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}
LINEAR: dict[str, Any] = {"hidden_layers": (), "likelihood": "gaussian", "precision": "float64"}
DIVERGES: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e30}


@pytest.fixture(scope="module")
def fitted() -> Autoencoder:
    """A fitted model that no test changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**QUICK).fit(ROWS)


def weights(ae: Autoencoder) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in ae.network_.state_dict().values()]


# --- scikit-learn


# That a weight of 2 is worth two equal rows, bit by bit and in whatever order: what is trained on
# batches in random order can be so only on average, and what is held out is held out with all of
# its copies. scikit-learn does not check its own stochastic solvers for it; test_fitting.py has
# what holds here.
BY_BATCHES = {"check_sample_weight_equivalence_on_dense_data": "trained on batches"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_passes_every_check_of_scikit_learn() -> None:
    results = check_estimator(
        Autoencoder(epochs=2), on_fail=None, expected_failed_checks=BY_BATCHES
    )
    failed = [(r["check_name"], str(r["exception"])) for r in results if r["status"] == "failed"]
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert not failed
    assert skipped <= {"check_array_api_input"}  # scikit-learn runs it where an array API is on
    assert len(results) > 45


def test_passes_scikit_learns_checks_of_outliers_with_their_share() -> None:
    checks = estimator_checks_generator(Autoencoder(epochs=2, contamination=0.1))
    about = [(ae, check) for ae, check in checks if "outlier" in check.func.__name__]
    for ae, check in about:
        check(ae)
    assert len(about) > 1


def test_works_in_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), Autoencoder(**QUICK))
    assert pipeline.fit(ROWS).transform(ROWS).shape == (90, 2)


def test_a_pipeline_inverts() -> None:
    pipeline = make_pipeline(StandardScaler(), Autoencoder(**QUICK)).fit(ROWS)
    assert pipeline.inverse_transform(pipeline.transform(ROWS)).shape == ROWS.shape


def test_grid_search_finds_the_size_of_the_code() -> None:
    rows = np.random.default_rng(0).normal(size=(150, 2)) @ np.random.default_rng(1).normal(
        size=(2, 8)
    ) + 0.05 * np.random.default_rng(2).normal(size=(150, 8))
    base = Autoencoder(**QUICK | LINEAR | {"epochs": 40, "learning_rate": 0.05})
    search = GridSearchCV(base, {"n_components": [1, 2]}, cv=3).fit(rows)
    assert search.best_params_ == {"n_components": 2}


def test_score_is_the_mean_of_score_samples(fitted: Autoencoder) -> None:
    assert fitted.score(ROWS) == pytest.approx(fitted.score_samples(ROWS).mean(), rel=1e-12)


def test_set_output_pandas_keeps_the_index() -> None:
    codes = Autoencoder(**QUICK).set_output(transform="pandas").fit(FRAME).transform(FRAME)
    assert list(codes.columns) == ["autoencoder0", "autoencoder1"]
    assert codes.index.equals(FRAME.index)


def test_set_output_polars() -> None:
    ae = Autoencoder(**QUICK).set_output(transform="polars").fit(ROWS)
    codes = ae.transform(ROWS)
    assert isinstance(codes, pl.DataFrame)
    assert codes.columns == ["autoencoder0", "autoencoder1"]


def test_codes_in_a_frame_invert_like_codes_in_an_array(fitted: Autoencoder) -> None:
    codes = fitted.transform(ROWS)
    expected = fitted.inverse_transform(codes)
    np.testing.assert_array_equal(fitted.inverse_transform(pd.DataFrame(codes)), expected)


def test_feature_names_out(fitted: Autoencoder) -> None:
    assert list(fitted.get_feature_names_out()) == ["autoencoder0", "autoencoder1"]


def test_feature_names_in_are_the_columns() -> None:
    assert list(Autoencoder(**QUICK).fit(FRAME).feature_names_in_) == NAMES


def test_clone_keeps_every_option() -> None:
    ae = Autoencoder(**QUICK | {"hidden_layers": (5, 4), "likelihood": {"age": "gaussian"}})
    assert clone(ae).get_params() == ae.get_params()


def test_refitting_with_the_same_seed_gives_the_same_bits(fitted: Autoencoder) -> None:
    again = clone(fitted).fit(ROWS)
    assert weights(again) == weights(fitted)
    assert (again.offset_, again.reconstruction_r2_) == (fitted.offset_, fitted.reconstruction_r2_)


def test_fitting_twice_forgets_the_first_time() -> None:
    once, twice = Autoencoder(**QUICK).fit(ROWS), Autoencoder(**QUICK).fit(ROWS * 2).fit(ROWS)
    assert weights(once) == weights(twice)


def test_another_seed_gives_another_model(fitted: Autoencoder) -> None:
    assert weights(Autoencoder(**QUICK | {"random_state": 1}).fit(ROWS)) != weights(fitted)


def test_without_a_seed_every_fit_is_another() -> None:
    options = QUICK | {"random_state": None}
    first, second = (weights(Autoencoder(**options).fit(ROWS)) for _ in range(2))
    assert first != second


def test_a_random_state_object_goes_on_between_fits() -> None:
    ae = Autoencoder(**QUICK | {"random_state": np.random.RandomState(0)})
    assert weights(ae.fit(ROWS)) != weights(ae.fit(ROWS))


@pytest.mark.parametrize("seed", [None, 0])
def test_no_verb_touches_the_global_random_state(
    seed: int | None, untouched_random_state: None
) -> None:
    ae = Autoencoder(**QUICK | {"random_state": seed}).fit(ROWS).partial_fit(ROWS)
    ae.reconstruct(ROWS)
    ae.predict(ROWS)
    ae.compare_pca(ROWS)


def test_fitting_does_not_change_the_rows() -> None:
    rows = ROWS.astype(np.float32)
    before = rows.copy()
    Autoencoder(**QUICK).fit(rows).reconstruct(rows)
    np.testing.assert_array_equal(rows, before)


def test_rows_that_cannot_be_written_to_are_read(fitted: Autoencoder) -> None:
    rows = (IMAGES / 255).astype(np.float32)
    rows.flags.writeable = False
    Autoencoder(**QUICK).fit(rows).transform(rows)


# --- containers


def test_codes_are_a_matrix(fitted: Autoencoder) -> None:
    assert fitted.transform(ROWS).shape == (90, 2)


@pytest.mark.parametrize("verb", ["transform", "reconstruct", "score_samples"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_precision_of_the_rows_is_that_of_the_answer(
    verb: str, dtype: type, precision: str
) -> None:
    ae = Autoencoder(**QUICK | {"precision": precision}).fit(ROWS)
    assert getattr(ae, verb)(ROWS.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_of_codes_is_that_of_the_rows(dtype: type, fitted: Autoencoder) -> None:
    assert fitted.inverse_transform(np.zeros((3, 2), dtype)).dtype == dtype


def test_64_bit_rows_are_computed_in_64_bits(fitted: Autoencoder) -> None:
    assert next(fitted.network_.parameters()).dtype == torch.float32
    x = (ROWS - fitted.schema_.center) / fitted.schema_.scale
    for pair, activation in zip(fitted.network_.pairs, (torch.selu, torch.clone), strict=True):
        weight, bias = pair.weight.double(), pair.encoder_bias.double()
        x = activation(torch.as_tensor(x) @ weight.T + bias).detach()
    np.testing.assert_allclose(fitted.transform(ROWS), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("of", ["images", "flat rows"])
def test_rows_come_back_in_the_shape_they_had(of: str) -> None:
    ae = Autoencoder(**QUICK).fit(IMAGES)
    rows = IMAGES if of == "images" else IMAGES.reshape(40, 30)
    assert ae.reconstruct(rows).shape == rows.shape


def test_codes_of_images_become_images() -> None:
    ae = Autoencoder(**QUICK).fit(IMAGES)
    assert ae.inverse_transform(ae.transform(IMAGES)).shape == (40, 5, 6)


def test_byte_images_are_float_images_over_255() -> None:
    floats = (IMAGES / 255).astype(np.float32)
    codes = Autoencoder(**QUICK).fit(IMAGES).transform(IMAGES)
    np.testing.assert_allclose(codes, Autoencoder(**QUICK).fit(floats).transform(floats), atol=1e-5)


def test_byte_images_come_back_in_grey_values() -> None:
    found = Autoencoder(**QUICK | {"epochs": 60}).fit(IMAGES).reconstruct(IMAGES)
    assert 100 < found.mean() < 155


def test_a_pandas_frame_comes_back_with_names_and_index() -> None:
    found = Autoencoder(**QUICK).fit(FRAME).reconstruct(FRAME)
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == NAMES
    assert found.index.equals(FRAME.index)


def test_a_polars_frame_comes_back_with_names() -> None:
    frame = pl.from_pandas(FRAME)
    found = Autoencoder(**QUICK).fit(frame).reconstruct(frame)
    assert isinstance(found, pl.DataFrame)
    assert found.columns == NAMES


def test_an_arrow_table_comes_back_with_names() -> None:
    table = pa.table(dict(zip(NAMES, ROWS.T, strict=True)))
    found = Autoencoder(**QUICK).fit(table).reconstruct(table)
    assert isinstance(found, pa.Table)
    assert found.column_names == NAMES


def test_a_tensor_comes_back() -> None:
    rows = torch.from_numpy(ROWS).float().requires_grad_()
    found = Autoencoder(**QUICK).fit(rows).reconstruct(rows)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32


CONTAINERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "torch": lambda frame: torch.from_numpy(frame.to_numpy().copy()),
    "list": lambda frame: frame.to_numpy().tolist(),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_container_does_not_change_the_model(container: str, fitted: Autoencoder) -> None:
    assert weights(Autoencoder(**QUICK).fit(CONTAINERS[container](FRAME))) == weights(fitted)


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_codes_become_rows_of_the_training_container(container: str, tmp_path: Path) -> None:
    rows = CONTAINERS[container](FRAME)
    ae = Autoencoder(**QUICK).fit(rows)
    ae.save(tmp_path / "model")
    codes = ae.transform(rows)
    assert type(load(tmp_path / "model").inverse_transform(codes)) is type(rows)


def test_reconstruct_is_inverse_transform_of_transform(fitted: Autoencoder) -> None:
    found = fitted.inverse_transform(fitted.transform(ROWS))
    np.testing.assert_allclose(fitted.reconstruct(ROWS), found, rtol=1e-12)


@pytest.mark.parametrize("container", ["array", "frame"])
def test_a_row_further_out_than_all_others_is_not_reconstructed_at_their_end(
    container: str,
) -> None:
    rng = np.random.default_rng(0)
    way, names = np.array([1.0, 2.0, -3.0, 0.5]), list("abcd")
    rows = rng.lognormal(0, 1, (300, 1)) * way + 0.1 * rng.normal(size=(300, 4))
    far = np.vstack([300 * way, rows[:1]])
    made = (lambda x: x) if container == "array" else partial(pd.DataFrame, columns=names)
    ae = Autoencoder(n_components=1, random_state=0).fit(made(rows))
    found = np.asarray(ae.reconstruct(made(far)))
    ends = np.asarray(ae.inverse_transform(ae.transform(made(far))))
    # Codes alone know no more than where the training rows end.
    assert (np.abs(ends[0]) < 150 * np.abs(way)).all()
    assert (np.abs(found[0]) > 150 * np.abs(way)).all()
    assert (np.abs(found[0]) <= 300 * np.abs(way) * (1 + 1e-9)).all()
    np.testing.assert_allclose(found[1], ends[1])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_the_table_in_it(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        FRAME.to_csv(path, index=False)
    else:
        pa.parquet.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), path)
    expected = Autoencoder(**QUICK).fit(FRAME).transform(FRAME)
    np.testing.assert_allclose(Autoencoder(**QUICK).fit(path).transform(path), expected, rtol=1e-9)


@pytest.mark.parametrize("verb", ["transform", "reconstruct", "score_samples"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_one_row_at_a_time_gives_what_all_at_once_do(
    verb: str, dtype: type, tolerance: float
) -> None:
    rows = np.column_stack([ROWS, ROWS[:, 0] > ROWS[:, 1]]).astype(dtype)
    ask = getattr(Autoencoder(**QUICK).fit(rows), verb)
    one_by_one = np.concatenate([ask(row[None]) for row in rows])
    np.testing.assert_allclose(one_by_one, ask(rows), rtol=tolerance, atol=tolerance)


def test_chunks_give_what_all_at_once_do(
    fitted: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted.score_samples(ROWS)

    def sevens(n_rows: int, width: int) -> list[slice]:
        return [slice(i, min(i + 7, n_rows)) for i in range(0, n_rows, 7)]

    monkeypatch.setattr(inference, "row_chunks", sevens)
    np.testing.assert_allclose(fitted.score_samples(ROWS), expected, rtol=1e-12)


# --- rows that cannot be used


@pytest.mark.parametrize(
    "verb",
    ["fit", "partial_fit", "transform", "score_samples", "predict", "explain", "impute"],
)
def test_an_infinite_cell_is_told_by_column_and_row(verb: str) -> None:
    ae = Autoencoder(**QUICK).fit(FRAME)
    bad = FRAME.copy()
    bad.iloc[41, 2], bad.iloc[17, 3] = np.inf, np.nan
    with pytest.raises(DataError, match="column 'age' holds infinity in row 41"):
        getattr(ae, verb)(bad)


def test_the_row_is_counted_over_all_chunks(
    fitted: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "row_chunks", lambda n, width: [slice(0, 50), slice(50, n)])
    bad = ROWS.copy()
    bad[77, 3] = np.inf
    with pytest.raises(DataError, match="column 3 holds infinity in row 77"):
        fitted.transform(bad)


@pytest.mark.parametrize("verb", ["transform", "partial_fit", "reconstruct", "score", "predict"])
def test_another_width_is_refused(verb: str) -> None:
    ae = Autoencoder(**QUICK).fit(ROWS)
    with pytest.raises(DataError, match=r"X has 5 features, but .* expecting 6 features"):
        getattr(ae, verb)(ROWS[:, :5])


def test_columns_of_other_names_are_refused() -> None:
    ae = Autoencoder(**QUICK).fit(FRAME)
    with pytest.raises(DataError, match=r"(?s)feature names.*- heigth"):
        ae.transform(FRAME.rename(columns={"height": "heigth"}))


def test_validation_rows_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="X has 5 features"):
        Autoencoder(**QUICK).fit(ROWS, validation_data=ROWS[:, :5])


@pytest.mark.parametrize(
    "rows",
    [
        FRAME.assign(city=[1.5, "Bonn"] * 45),
        pl.DataFrame({"size": ROWS[:, 0], "city": [b"Bonn"] * 90}),
        pa.table({"size": ROWS[:, 0], "city": [["Bonn"]] * 90}),
    ],
    ids=["numbers and text", "bytes", "lists"],
)
def test_a_column_of_no_meaning_is_told_by_name(rows: Any) -> None:
    with pytest.raises(DataError, match="'city' holds .*row [01]"):
        Autoencoder(**QUICK).fit(rows)


def test_text_in_an_array_is_told_by_place() -> None:
    rows = ROWS.astype(object)
    rows[5, 1] = "n/a"
    with pytest.raises(DataError, match="Column 1 holds 'n/a' in row 5"):
        Autoencoder(**QUICK).fit(rows)


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:0],
        ROWS[:, :0],
        FRAME.iloc[:0],
        FRAME.iloc[:, :0],
        pl.DataFrame(),
        IMAGES[:0],
        [],
        [[]],
    ],
    ids=["rows", "columns", "pandas rows", "pandas columns", "polars", "images", "list", "lists"],
)
def test_an_empty_table_is_refused(rows: Any) -> None:
    with pytest.raises(
        DataError, match=r"minimum of 1 is required|Expected 2D array|Expected at least one row"
    ):
        Autoencoder(**QUICK).fit(rows)


def test_a_masked_cell_is_a_missing_one() -> None:
    hidden = np.arange(540).reshape(90, 6) == 100
    masked = np.ma.masked_array(np.where(hidden, 1e30, ROWS), mask=hidden)
    expected = Autoencoder(**QUICK).fit(np.where(hidden, np.nan, ROWS))
    assert weights(Autoencoder(**QUICK).fit(masked)) == weights(expected)
    filled = expected.impute(masked)
    assert 0 < filled[16, 4] < 60
    np.testing.assert_array_equal(np.asarray(filled)[~hidden], ROWS[~hidden])


def test_rows_of_unlike_length_are_refused() -> None:
    with pytest.raises(DataError, match="Expected rows of equal length"):
        Autoencoder(**QUICK).fit([[1.0, 2.0], [3.0]])


def test_one_row_is_too_few_to_fit() -> None:
    with pytest.raises(DataError, match="at least 2 rows"):
        Autoencoder(**QUICK).fit(ROWS[:1])


def test_a_single_row_out_of_its_table_is_refused() -> None:
    with pytest.raises(DataError, match="Expected 2D array, got 1D array"):
        Autoencoder(**QUICK).fit(ROWS[0])


def test_a_path_to_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        Autoencoder(**QUICK).fit(tmp_path / "nowhere.csv")


def test_pixels_out_of_255_for_a_model_of_unit_range_are_refused() -> None:
    ae = Autoencoder(**QUICK).fit(IMAGES / 255)
    with pytest.raises(DataError, match="lay between 0 and 1 in training and holds .* Scale these"):
        ae.transform(IMAGES.astype(float))


def test_a_code_wider_than_the_table_is_refused() -> None:
    with pytest.raises(OptionError, match="n_components=7 is more than the 6 inputs"):
        Autoencoder(**QUICK | {"n_components": 7}).fit(ROWS)


def test_a_misspelt_column_in_likelihood_is_refused() -> None:
    with pytest.raises(DataError, match="likelihood names 'hieght', and the table has no such"):
        Autoencoder(**QUICK | {"likelihood": {"hieght": "gaussian"}}).fit(FRAME)


def test_bernoulli_for_wide_ranging_columns_is_refused() -> None:
    with pytest.raises(DataError, match=r"models values in \[0, 1\], and column 'x0' runs from"):
        Autoencoder(**QUICK | {"likelihood": "bernoulli"}).fit(ROWS)


@pytest.mark.parametrize("device", ["gpuu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(OptionError, match=f"got device='{device}' .*Try 'cpu'"):
        Autoencoder(**QUICK | {"device": device}).fit(ROWS)


@pytest.mark.parametrize("shape", [(2,), (4, 3), (4, 3, 1)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...], fitted: Autoencoder) -> None:
    with pytest.raises(DataError, match="Expected codes with 2 components"):
        fitted.inverse_transform(np.zeros(shape))


def test_codes_that_are_no_numbers_are_refused(fitted: Autoencoder) -> None:
    with pytest.raises(DataError, match="column 1 holds NaN in row 0"):
        fitted.inverse_transform(np.array([[0.0, np.nan]]))


@pytest.mark.parametrize(
    "verb",
    [
        lambda ae: ae.transform(ROWS),
        lambda ae: ae.inverse_transform(ROWS[:, :2]),
        lambda ae: ae.score_samples(ROWS),
        lambda ae: ae.summary(),
        lambda ae: ae.save("nowhere"),
        lambda ae: ae.plot_history(),
        lambda ae: ae.compare_pca(ROWS),
        lambda ae: ae.get_feature_names_out(),
    ],
)
def test_an_unfitted_model_says_so(verb: Callable[[Autoencoder], object]) -> None:
    with pytest.raises(NotFittedError):
        verb(Autoencoder())


# --- rows that are odd, and work


ODD = {
    "one column constant": np.column_stack([ROWS, np.full(90, 3.3)]),
    "all columns constant": np.full((30, 4), 7.0),
    "one column": ROWS[:, :1],
    "two rows": ROWS[:2],
    "two rows alike": np.tile(ROWS[:1], (2, 1)),
    "fewer rows than a batch": ROWS[:9],
    "more columns than rows": RNG.normal(size=(8, 50)),
    "large offsets": (ROWS + 1e7).astype(np.float32),
    "tiny numbers": ROWS * 1e-200,
    "huge numbers": ROWS * 1e200,
    "a nearly constant column": np.column_stack([ROWS, 1 + 1e-15 * RNG.normal(size=90)]),
    "an outlier": np.vstack([ROWS, np.full((1, 6), 1e9)]),
    "whole numbers": ROWS.astype(np.int64),
    "half precision": ROWS.astype(np.float16),
    "flags": ROWS > 30,
    "no order in memory": np.asfortranarray(ROWS)[::2, ::-1],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_give_finite_answers(name: str) -> None:
    rows = ODD[name]
    ae = Autoencoder(**QUICK | {"n_components": 1}).fit(rows)
    for answer in (ae.transform(rows), ae.reconstruct(rows), ae.score_samples(rows)):
        assert np.isfinite(answer).all()
    assert np.isfinite(ae.offset_)


@pytest.mark.parametrize("value", [3.3, -2e-9, 1e9 / 3])
def test_a_constant_column_is_reconstructed_almost_exactly(value: float) -> None:
    rows = np.column_stack([ROWS, np.full(90, value)])
    found = Autoencoder(**QUICK).fit(rows).reconstruct(rows)
    np.testing.assert_allclose(found[:, 6], value, rtol=0.01)


@pytest.mark.parametrize("value", [3.3, -2e-9, 1e9 / 3])
def test_a_constant_column_is_as_usual_in_another_precision(value: float) -> None:
    rows = np.column_stack([ROWS, np.full(90, value)])
    ae = Autoencoder(**QUICK).fit(rows)
    narrow = ae.score_samples(rows.astype(np.float32))
    np.testing.assert_allclose(narrow, ae.score_samples(rows), atol=0.01)


@pytest.mark.parametrize("value", [3.3, 0.0])
def test_another_value_in_a_constant_column_is_an_anomaly(value: float) -> None:
    rows = np.column_stack([ROWS, np.full(90, value)])
    ae = Autoencoder(**QUICK).fit(rows)
    rows[:, 6] += 1
    assert set(ae.predict(rows)) == {-1}


def test_a_wide_table_is_compared_with_randomised_pca() -> None:
    rows = RNG.normal(size=(20, 2500))
    ae = Autoencoder(**QUICK | {"hidden_layers": (8,)}).fit(rows)
    assert ae.pca_.components.shape == (2, 2500)


def test_holding_out_nearly_all_rows_leaves_some_to_train_on() -> None:
    ae = Autoencoder(**QUICK | {"validation_fraction": 0.99}).fit(ROWS[:20])
    assert np.isfinite(ae.history_[0]["loss"])


def test_a_row_beyond_all_numbers_is_an_anomaly(fitted: Autoencoder) -> None:
    assert fitted.predict(np.full((1, 6), 1e300)).tolist() == [-1]


def test_a_row_whose_score_is_no_number_is_an_anomaly(fitted: Autoencoder) -> None:
    ae = copy.deepcopy(fitted)
    ae.network_.pairs[0].decoder_bias.data.fill_(torch.nan)
    assert set(ae.predict(ROWS)) == {-1}


# --- tied stays tied


def saved(ae: Autoencoder, tmp_path: Path) -> Autoencoder:
    ae.save(tmp_path / "model")
    return load(tmp_path / "model")


def dumped(ae: Autoencoder, tmp_path: Path) -> Autoencoder:
    buffer = io.BytesIO()
    joblib.dump(ae, buffer)
    buffer.seek(0)
    loaded: Autoencoder = joblib.load(buffer)
    return loaded


def doubled(ae: Autoencoder, tmp_path: Path) -> Autoencoder:
    ae = copy.deepcopy(ae).set_params(precision="float64")
    ae.network_.double()
    ae._objective.double()
    ae._step = None
    return ae


WAYS: dict[str, Callable[[Autoencoder, Path], Autoencoder]] = {
    "deepcopy": lambda ae, tmp_path: copy.deepcopy(ae),
    "clone and refit": lambda ae, tmp_path: clone(ae).fit(ROWS),
    "double": doubled,
    "save and load": saved,
    "partial_fit": lambda ae, tmp_path: copy.deepcopy(ae).partial_fit(ROWS),
    "joblib": dumped,
}


@pytest.fixture(params=WAYS)
def reborn(request: pytest.FixtureRequest, fitted: Autoencoder, tmp_path: Path) -> Autoencoder:
    """A fitted model that went through something, and then trained on."""
    return WAYS[request.param](fitted, tmp_path).partial_fit(ROWS)


def test_training_on_after_a_round_trip_moves_the_weights(
    reborn: Autoencoder, fitted: Autoencoder
) -> None:
    before, after = (ae.network_.pairs[0].weight.detach().float() for ae in (fitted, reborn))
    assert not torch.allclose(before, after, rtol=1e-4)


def test_after_a_round_trip_and_training_decode_is_the_adjoint_of_encode(
    reborn: Autoencoder,
) -> None:
    network = copy.deepcopy(reborn.network_).double()
    for pair in network.pairs:
        pair.encoder_bias.data.zero_()
        pair.decoder_bias.data.zero_()
        x, h = torch.randn(2, 7, 50, dtype=torch.float64, generator=torch.Generator())
        x, h = x[:, : pair.n_in], h[:, : pair.n_out]
        torch.testing.assert_close((pair.encode(x) * h).sum(), (x * pair.decode(h)).sum())


def test_after_a_round_trip_decode_follows_the_encoders_matrix(reborn: Autoencoder) -> None:
    codes = reborn.transform(ROWS)
    before = reborn.inverse_transform(codes)
    with torch.no_grad():
        reborn.network_.pairs[0].weight += 1
    assert not np.allclose(reborn.inverse_transform(codes), before, rtol=0.01)


def test_after_a_round_trip_there_is_one_entry_per_matrix(reborn: Autoencoder) -> None:
    names = [name for name in reborn.network_.state_dict() if name.endswith(".weight")]
    assert names == ["levels.0.weight", "levels.1.weight"]


def test_after_a_round_trip_the_number_of_parameters_is_the_same(reborn: Autoencoder) -> None:
    assert reborn.network_.n_parameters == 6 * 3 + 3 * 2 + (3 + 6) + (2 + 3)


@pytest.mark.parametrize("how", ["deepcopy", "joblib"])
def test_a_copy_goes_on_as_the_original_would(
    how: str, fitted: Autoencoder, tmp_path: Path
) -> None:
    first, second = (WAYS[how](fitted, tmp_path).partial_fit(ROWS) for _ in range(2))
    assert weights(first) == weights(second)


def test_training_a_copy_leaves_the_original_alone(fitted: Autoencoder) -> None:
    before = weights(fitted)
    copy.deepcopy(fitted).partial_fit(ROWS)
    assert weights(fitted) == before


# --- training through the estimator


def test_validation_data_replaces_the_held_out_fraction() -> None:
    ae = Autoencoder(**QUICK | {"epochs": 2, "patience": None})
    ae.fit(ROWS, validation_data=ROWS[:10])
    x = torch.from_numpy(ae.schema_.to_matrix(ae.read(ROWS[:10]), np.float32))
    expected = trainer.evaluate(ae.network_, ae._objective, x)
    assert ae.history_[-1]["validation_loss"] == pytest.approx(expected, rel=1e-6)


def test_with_validation_data_every_row_is_trained_on() -> None:
    events: list[Event] = []
    Autoencoder(**QUICK).fit(ROWS, validation_data=ROWS[:10], callbacks=[events.append])
    assert {event.steps for event in events} == {int(np.ceil(90 / 16))}


def test_a_fraction_of_the_rows_is_held_out() -> None:
    events: list[Event] = []
    Autoencoder(**QUICK | {"validation_fraction": 0.5}).fit(ROWS, callbacks=[events.append])
    assert {event.steps for event in events} == {int(np.ceil(45 / 16))}


def test_a_fraction_of_zero_trains_on_every_row() -> None:
    ae = Autoencoder(**QUICK | {"validation_fraction": 0.0}).fit(ROWS)
    assert "validation_loss" not in ae.history_[0]


def test_the_weights_that_stay_are_those_of_the_best_epoch() -> None:
    options = {"learning_rate": 0.3, "schedule": "constant", "epochs": 60, "patience": 3}
    ae = Autoencoder(**QUICK | options).fit(ROWS, validation_data=ROWS[:20])
    x = torch.from_numpy(ae.schema_.to_matrix(ae.read(ROWS[:20]), np.float32))
    losses = [entry["validation_loss"] for entry in ae.history_]
    assert trainer.evaluate(ae.network_, ae._objective, x) == min(losses) != losses[-1]
    assert ae.best_epoch_ == 1 + int(np.argmin(losses))


def test_the_history_counts_epochs_from_1(fitted: Autoencoder) -> None:
    assert [entry["epoch"] for entry in fitted.history_] == [1, 2, 3]
    assert fitted.n_iter_ == 3


def test_the_history_goes_on_over_partial_fit(fitted: Autoencoder) -> None:
    ae = copy.deepcopy(fitted).partial_fit(ROWS).partial_fit(ROWS)
    assert [entry["epoch"] for entry in ae.history_] == [1, 2, 3, 4, 5]
    assert (ae.n_iter_, ae.best_epoch_) == (5, 5)


def test_partial_fit_learns() -> None:
    ae = Autoencoder(**QUICK | {"learning_rate": 0.01})
    for _ in range(30):
        ae.partial_fit(ROWS)
    assert ae.history_[-1]["loss"] < 0.7 * ae.history_[0]["loss"]


def test_partial_fit_keeps_the_network_of_the_first_call() -> None:
    ae = Autoencoder(**QUICK).partial_fit(ROWS)
    ae.set_params(n_components=4, precision="float64").partial_fit(ROWS)
    assert ae.network_.n_components == 2
    assert next(ae.network_.parameters()).dtype == torch.float32


def test_partial_fit_keeps_the_schema_of_the_first_rows() -> None:
    ae = Autoencoder(**QUICK).partial_fit(ROWS)
    first, then = ae.schema_.columns, ae.partial_fit(ROWS * 2).schema_.columns
    # Only the observed range grows.
    assert [replace(c, domain=first[i].domain) for i, c in enumerate(then)] == list(first)


@pytest.mark.filterwarnings("error::twofold.errors.LosesToPCAWarning")
def test_a_model_that_loses_to_pca_warns_with_both_errors() -> None:
    hopeless = QUICK | {"epochs": 1, "learning_rate": 1e-6}
    with pytest.warns(LosesToPCAWarning, match=r"network [\d.]+ \(R2 .*PCA [\d.]+ \(R2") as caught:
        Autoencoder(**hopeless).fit(ROWS)
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("error::twofold.errors.LosesToPCAWarning")
def test_a_model_that_beats_pca_does_not_warn() -> None:
    ae = Autoencoder(n_components=1, hidden_layers=(20,), activation="tanh", random_state=0)
    comparison = ae.fit(CURVE).compare_pca(CURVE)
    assert comparison.ratio < 0.5


@pytest.mark.filterwarnings("error::twofold.errors.LosesToPCAWarning")
def test_the_defaults_beat_pca_on_images_of_digits() -> None:
    digits = load_digits().images.astype(np.float32) / 16
    ae = Autoencoder(n_components=10, random_state=0).fit(digits)
    assert ae.compare_pca(digits).ratio < 0.9


def test_where_warnings_are_errors_the_model_is_not_lost() -> None:
    ae = Autoencoder(**QUICK | {"epochs": 1, "learning_rate": 1e-6})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LosesToPCAWarning):
            ae.fit(ROWS)
    assert np.isfinite(ae.score_samples(ROWS)).all()


def interrupt_at(epoch: int) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == epoch:
            raise KeyboardInterrupt

    return on_event


def test_an_interrupted_fit_warns() -> None:
    ae = Autoencoder(**QUICK | {"epochs": 9})
    with pytest.warns(InterruptedWarning, match="interrupted after 2 of 9 epochs; the model holds"):
        ae.fit(ROWS, callbacks=[interrupt_at(2)])


@pytest.mark.filterwarnings("ignore::twofold.errors.InterruptedWarning")
def test_an_interrupted_fit_holds_the_best_weights_until_then() -> None:
    ae = Autoencoder(**QUICK | {"learning_rate": 0.5, "schedule": "constant", "epochs": 30})
    ae.fit(ROWS, validation_data=ROWS[:20], callbacks=[interrupt_at(7)])
    x = torch.from_numpy(ae.schema_.to_matrix(ae.read(ROWS[:20]), np.float32))
    losses = [entry["validation_loss"] for entry in ae.history_]
    assert len(losses) == 7
    assert trainer.evaluate(ae.network_, ae._objective, x) <= min(losses)  # the start counts too


@pytest.mark.filterwarnings("ignore::twofold.errors.InterruptedWarning")
def test_an_interrupted_model_can_be_used_and_saved(tmp_path: Path) -> None:
    ae = Autoencoder(**QUICK).fit(ROWS, callbacks=[interrupt_at(1)])
    ae.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(ROWS), ae.predict(ROWS))


def test_on_event_receives_what_happens_from_start_to_end() -> None:
    kinds: list[str] = []
    Autoencoder(**QUICK).fit(ROWS, callbacks=[lambda event: kinds.append(event.kind)])
    assert [kind for kind in kinds if kind != "step"] == ["start", *["epoch"] * 3, "end"]


# --- what fails leaves what was there


def test_divergence_names_place_and_cause() -> None:
    text = r"got (NaN|infinite) at epoch 1, step \d. The likely cause is learning_rate=1e\+30"
    with pytest.raises(DivergenceError, match=text):
        Autoencoder(**QUICK | DIVERGES).fit(ROWS)


FAILURES: dict[str, Callable[[Autoencoder], object]] = {
    "fit diverges": lambda ae: ae.set_params(**DIVERGES).fit(ROWS * 2),
    "fit meets infinity": lambda ae: ae.fit(np.where(ROWS > 40, np.inf, ROWS)),
    "fit meets no cell": lambda ae: ae.fit(ROWS * np.nan),
    "fit meets bad validation rows": lambda ae: ae.fit(ROWS, validation_data=ROWS * np.inf),
    "fit meets one row": lambda ae: ae.fit(ROWS[:1, :3]),
    "fit meets a bad option": lambda ae: ae.set_params(n_components=99).fit(ROWS[:, :3]),
    "partial_fit diverges": lambda ae: ae.set_params(learning_rate=1e30).partial_fit(ROWS),
    "partial_fit meets infinity": lambda ae: ae.partial_fit(np.where(ROWS > 40, np.inf, ROWS)),
    "partial_fit meets text": lambda ae: ae.partial_fit(pd.DataFrame(ROWS).astype(str) + " m"),
    "partial_fit meets another width": lambda ae: ae.partial_fit(ROWS[:, :3]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_that_fails_leaves_the_fitted_model(name: str, fitted: Autoencoder) -> None:
    ae = copy.deepcopy(fitted)
    with pytest.raises(TwofoldError):
        FAILURES[name](ae)
    assert weights(ae) == weights(fitted)
    np.testing.assert_array_equal(ae.score_samples(ROWS), fitted.score_samples(ROWS))
    assert (ae.offset_, ae.history_, ae.n_features_in_) == (fitted.offset_, fitted.history_, 6)


@pytest.mark.parametrize("verb", ["fit", "partial_fit"])
def test_a_first_call_that_fails_leaves_the_model_unfitted(verb: str) -> None:
    ae = Autoencoder(**QUICK | DIVERGES)
    before = set(vars(ae))
    with pytest.raises(DivergenceError):
        getattr(ae, verb)(ROWS)
    assert set(vars(ae)) == before


def test_a_failure_after_training_leaves_the_fitted_model(
    fitted: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ae = copy.deepcopy(fitted)

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "fit_pca", fail)
    with pytest.raises(KeyboardInterrupt):
        ae.partial_fit(ROWS * 1.1)
    assert weights(ae) == weights(fitted)
    np.testing.assert_array_equal(ae.score_samples(ROWS), fitted.score_samples(ROWS))


def test_training_goes_on_after_a_failure(fitted: Autoencoder) -> None:
    ae = copy.deepcopy(fitted)
    with pytest.raises(DivergenceError):
        ae.set_params(learning_rate=1e30).partial_fit(ROWS)
    ae.set_params(learning_rate=0.01).partial_fit(ROWS)
    assert np.isfinite(ae.history_[-1]["loss"])


# --- scores


@pytest.fixture(scope="module")
def exact() -> Autoencoder:
    """A small Gaussian model in 64 bits, trained on every row."""
    options = {"precision": "float64", "validation_fraction": 0.0, "epochs": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**QUICK | options).fit(ROWS)


def drawn_in(u: Array) -> Array:
    size = np.abs(u)
    return np.sign(u) * np.where(size > 3, 3 + np.log1p(np.maximum(size - 3, 0)), size)


def test_score_is_the_density_of_expected_rows_and_residuals_in_clusters(
    exact: Autoencoder,
) -> None:
    rows = ROWS * 1.5  # some of them far out
    density = {k: v.numpy() for k, v in exact.scorer_.density.state_dict().items()}
    scale = exact.schema_.scale
    x_hat = (exact.reconstruct(rows) - exact.schema_.center) / scale
    residual = (rows - exact.schema_.center) / scale - x_hat
    u = drawn_in(
        np.hstack([(x_hat - density["center"]) / density["unit"], residual / density["unit"]])
    )
    fits = []
    for weight, means, variances in zip(
        density["log_weight"], density["mean"], density["variance"], strict=True
    ):
        cells = stats.norm.logpdf(u[:, None], means, np.sqrt(variances))
        fits.append(special.logsumexp(weight + cells.sum(2), axis=1))
    expected = np.mean(fits, axis=0) - np.log(scale).sum()
    np.testing.assert_allclose(exact.score_samples(rows), expected, rtol=1e-9)


def test_codes_are_modelled_by_a_normal_density(exact: Autoencoder) -> None:
    codes = exact.transform(ROWS)
    oas = OAS().fit(codes)
    expected = stats.multivariate_normal(oas.location_, oas.covariance_).logpdf(codes)
    density = exact.network_.bottleneck.density
    assert density is not None
    found = density.log_prob(torch.from_numpy(codes))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_another_unit_shifts_scores_by_its_log(exact: Autoencoder) -> None:
    factors = np.array([100, 1e-3, 1, 2.54, 60, 1e6])
    other = clone(exact).fit(ROWS * factors)
    shift = exact.score_samples(ROWS) - other.score_samples(ROWS * factors)
    np.testing.assert_allclose(shift, np.log(factors).sum(), atol=1e-6)


def test_another_origin_does_not_change_scores(exact: Autoencoder) -> None:
    other = clone(exact).fit(ROWS + 500)
    np.testing.assert_allclose(
        other.score_samples(ROWS + 500), exact.score_samples(ROWS), atol=1e-6
    )


def test_a_linear_model_finds_odd_rows_as_well_as_probabilistic_pca() -> None:
    rng = np.random.default_rng(4)
    # Columns that share as much as each other, so that noise is alike in all, as that model says.
    angles = np.arange(8) * np.pi / 8
    loadings = 2 * np.array([np.cos(angles), np.sin(angles)])
    rows = rng.normal(size=(400, 2)) @ loadings + rng.normal(size=(400, 8))
    rows = (rows - rows.mean(0)) / rows.std(0)
    options = {"epochs": 200, "learning_rate": 0.02, "validation_fraction": 0.0}
    ae = Autoencoder(**QUICK | LINEAR | options).fit(rows)
    strange = np.vstack([rows, rng.normal(size=(100, 8)) * 3])
    found, expected = ae.score_samples(strange), PCA(2).fit(rows).score_samples(strange)
    odd = np.arange(500) >= 400
    assert roc_auc_score(odd, -found) > roc_auc_score(odd, -expected) - 0.005
    assert stats.spearmanr(found, expected).statistic > 0.85


def test_stranger_rows_score_lower(exact: Autoencoder) -> None:
    ray = ROWS.mean(0) + np.linspace(0, 20, 15)[:, None] * ROWS.std(0) * [1, -1, 1, 1, -1, 1]
    assert (np.diff(exact.score_samples(ray)) < 0).all()


def test_decision_is_score_minus_offset(fitted: Autoencoder) -> None:
    expected = fitted.score_samples(ROWS) - fitted.offset_
    np.testing.assert_array_equal(fitted.decision_function(ROWS), expected)


def test_predict_is_minus_1_where_the_decision_is_below_zero(fitted: Autoencoder) -> None:
    expected = np.where(fitted.decision_function(ROWS) < 0, -1, 1)
    np.testing.assert_array_equal(fitted.predict(ROWS), expected)


def test_fit_predict_is_fit_then_predict(fitted: Autoencoder) -> None:
    np.testing.assert_array_equal(clone(fitted).fit_predict(ROWS), fitted.predict(ROWS))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_contamination_is_the_share_of_training_rows_flagged(share: float) -> None:
    labels = Autoencoder(**QUICK | {"contamination": share}).fit_predict(ROWS)
    assert (labels == -1).mean() == pytest.approx(share, abs=1 / 90)


def test_the_offset_is_conformal_on_the_held_out_rows() -> None:
    fresh = RNG.normal(size=(60, 6)) * ROWS.std(0) + ROWS.mean(0)
    ae = Autoencoder(**QUICK | {"precision": "float64"}).fit(ROWS, validation_data=fresh)
    expected = conformal_offset(ae.score_samples(fresh), 0.05)
    assert ae.offset_ == pytest.approx(expected, rel=1e-12)


def test_r2_is_the_share_of_the_held_out_rows_variance() -> None:
    fresh = ROWS[:30]
    ae = Autoencoder(**QUICK | {"precision": "float64"}).fit(ROWS, validation_data=fresh)
    lost = (((fresh - ae.reconstruct(fresh)) / ae.schema_.scale) ** 2).sum()
    total = (((fresh - fresh.mean(0)) / ae.schema_.scale) ** 2).sum()
    assert ae.reconstruction_r2_ == pytest.approx(1 - lost / total, rel=1e-9)


def test_compare_pca_sets_both_beside_each_other(fitted: Autoencoder) -> None:
    x = (ROWS - fitted.schema_.center) / fitted.schema_.scale
    x_hat = (fitted.reconstruct(ROWS) - fitted.schema_.center) / fitted.schema_.scale
    found = fitted.compare_pca(ROWS)
    assert (found.n_rows, found.n_components) == (90, 2)
    assert found.squared_error == pytest.approx(((x - x_hat) ** 2).sum(1).mean(), rel=1e-4)


def test_the_pca_beside_it_is_fitted_to_the_training_rows() -> None:
    options = {"precision": "float64", "validation_fraction": 0.0}
    ae = Autoencoder(**QUICK | options).fit(ROWS)
    x = (ROWS - ROWS.mean(0)) / ROWS.std(0)
    theirs = PCA(2).fit(x).components_
    own = ae.pca_.components
    np.testing.assert_allclose(own.T @ own, theirs.T @ theirs, atol=1e-9)


def test_summary_is_the_layer_table_with_the_output_activation() -> None:
    text = Autoencoder(**QUICK).fit(IMAGES).summary()
    assert "output" in text
    assert "sigmoid" in text
    assert text.endswith("parameters, tied weights")


@pytest.mark.parametrize(
    "rows", [FRAME, pl.from_pandas(FRAME), IMAGES, torch.from_numpy(ROWS)], ids=lambda r: type(r)
)
def test_reconstructions_are_drawn_for_every_container(rows: Any) -> None:
    figure = Autoencoder(**QUICK).fit(rows).plot_reconstructions(rows, n_rows=3)
    assert figure.axes


def test_what_is_drawn_are_the_rows_and_their_reconstructions(fitted: Autoencoder) -> None:
    figure = fitted.plot_reconstructions(ROWS, n_rows=2)
    x_hat = fitted.reconstruct(ROWS[:2])
    for row in range(2):
        original, reconstruction = figure.axes[row].get_lines()
        np.testing.assert_allclose(original.get_ydata(), ROWS[row], rtol=1e-9)
        np.testing.assert_allclose(reconstruction.get_ydata(), x_hat[row], rtol=1e-6)


def test_the_history_is_drawn(fitted: Autoencoder) -> None:
    assert fitted.plot_history().axes


def test_a_network_that_ended_at_the_mean_row_is_told_of_its_long_steps() -> None:
    digits = load_digits().data.astype(np.float32) / 16
    ae = Autoencoder(
        hidden_layers=(64, 48, 32),
        n_components=8,
        activation="gelu",
        likelihood="bernoulli",
        learning_rate=0.1,
        batch_size=32,
        epochs=5,
        patience=None,
        random_state=0,
    )
    with pytest.warns(LosesToPCAWarning, match="hardly depend on the row.*smaller learning"):
        ae.fit(digits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae.set_params(learning_rate=0.02).fit(digits)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_one_image_by_itself_is_refused_with_what_to_do(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random((20, *shape))
    ae = Autoencoder(n_components=2, hidden_layers=(), epochs=1, random_state=0).fit(images)
    for one in (images[0], torch.from_numpy(images[0])):
        with pytest.raises(DataError, match=r"a single one of shape.*Pass X\[None\]"):
            ae.transform(one)
    assert ae.transform(images[0][None]).shape == (1, 2)


def test_an_image_of_one_line_is_a_row() -> None:
    lines = np.random.default_rng(0).random((20, 1, 5))
    ae = Autoencoder(n_components=2, hidden_layers=(), epochs=1, random_state=0).fit(lines)
    assert ae.transform(lines[0]).shape == (1, 2)
