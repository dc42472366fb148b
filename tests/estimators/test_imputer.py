"""The imputer is a step of scikit-learn's pipelines, and fills what the autoencoder would."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from twofold import Autoencoder, Imputer
from twofold.errors import DataError, InterruptedWarning, OptionError
from twofold.estimators import fitting
from twofold.inference import apply as inference
from twofold.training.trainer import History

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
QUICK = Autoencoder(n_components=2, epochs=2, random_state=0)
RNG = np.random.default_rng(4)
COMPLETE = RNG.normal(size=(80, 2)) @ RNG.normal(size=(2, 5)) + 3
HOLES = RNG.random(COMPLETE.shape) < 0.1
X = np.where(HOLES, np.nan, COMPLETE)
Y = COMPLETE[:, 0] - COMPLETE[:, 1]
NAMES = ["height", "weight", "age", "income", "steps"]
FRAME = pd.DataFrame(X, columns=NAMES, index=np.arange(80) * 2 + 7)


def mixed() -> pd.DataFrame:
    frame = FRAME[["height", "weight"]].copy()
    frame["city"] = pd.Categorical(np.resize(["Zürich", "Bern", "Zürich"], 80))
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(80) % 31, unit="D")
    frame.loc[frame.index[3], ["city", "day"]] = None
    return frame


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_passes_every_check_of_scikit_learn() -> None:
    results = check_estimator(Imputer(Autoencoder(epochs=2)), on_fail=None)
    failed = [(r["check_name"], str(r["exception"])) for r in results if r["status"] == "failed"]
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert not failed
    assert skipped <= {"check_array_api_input"}  # scikit-learn runs it where an array API is on
    assert len(results) > 40


def test_fills_what_the_autoencoder_fills() -> None:
    filled = Imputer(QUICK).fit_transform(X)
    np.testing.assert_array_equal(filled, clone(QUICK).fit(X).impute(X))
    np.testing.assert_array_equal(filled[~HOLES], X[~HOLES])
    assert not np.isnan(filled).any()


@pytest.fixture
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another autoencoder stand in for the filling one, which takes its time."""

    def quick(random_state: int | None = None) -> Autoencoder:
        return Autoencoder(n_components=2, epochs=2, random_state=random_state)

    monkeypatch.setattr("twofold.estimators.imputer.filling_autoencoder", quick)


@pytest.mark.usefixtures("quick_network")
def test_by_default_regressions_fill_next_to_a_network() -> None:
    imputer = Imputer(random_state=0)
    filled = imputer.fit_transform(X)
    np.testing.assert_array_equal(filled[~HOLES], X[~HOLES])
    # Five columns of two causes: nearly all follows from the others, which two epochs do not tell.
    alone = Imputer(QUICK).fit_transform(X)
    assert ((filled - COMPLETE)[HOLES] ** 2).sum() < 0.5 * ((alone - COMPLETE)[HOLES] ** 2).sum()
    np.testing.assert_allclose(imputer.regressions_.weights.sum(1), 1.0)
    np.testing.assert_array_equal(filled, Imputer(random_state=0).fit_transform(X))
    assert Imputer(QUICK).fit(X).regressions_ is None


@pytest.mark.usefixtures("quick_network")
def test_by_default_networks_of_several_seeds_are_averaged() -> None:
    imputer = Imputer(random_state=0).fit(X)
    ae, networks = imputer.autoencoder_, imputer.networks_
    assert networks[0] is ae.network_
    weights = [next(network.parameters()).detach() for network in networks]
    assert len({float(weight.sum()) for weight in weights}) == len(networks) > 1
    table = ae.read(X)
    alone = [fitting.expected(ae, [network], table) for network in networks]
    np.testing.assert_allclose(fitting.expected(ae, networks, table), np.mean(alone, 0), rtol=1e-5)
    given = Imputer(QUICK).fit(X)
    assert given.networks_ == [given.autoencoder_.network_]


def test_networks_are_trained_apart_from_the_fitted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ae = clone(QUICK).fit(X)
    before = ae.reconstruct(X), len(ae.history_)
    _, data, rng = fitting.drawn_again(ae, X)
    assert len(fitting.siblings(ae, data, 2, rng)) == 2
    np.testing.assert_array_equal(ae.reconstruct(X), before[0])
    assert len(ae.history_) == before[1]

    def interrupted(*_: Any) -> History:
        return History(ended="interrupted")

    monkeypatch.setattr(fitting, "train", interrupted)
    with pytest.warns(InterruptedWarning, match="interrupted after 0 of 2 epochs"):
        assert len(fitting.siblings(ae, data, 2, rng)) == 1


@pytest.mark.usefixtures("quick_network")
def test_by_default_frames_keep_their_types() -> None:
    frame = mixed()
    imputer = Imputer(random_state=0)
    filled = imputer.fit_transform(frame)
    assert filled.dtypes.equals(frame.dtypes)
    assert not filled.isna().any(axis=None)
    again: Imputer = pickle.loads(pickle.dumps(imputer))
    assert again.transform(frame).equals(filled)


@pytest.mark.parametrize("rows", [X, FRAME, mixed()], ids=["numpy", "pandas", "mixed"])
def test_members_are_weighed_on_the_rows_that_training_held_out(rows: Any) -> None:
    ae = clone(QUICK).fit(rows)
    training, held_out = fitting.rows_of(*fitting.drawn_again(ae, rows)[:2])
    assert training.n_rows + held_out.n_rows == len(rows)
    x = ae.schema_.to_matrix(held_out, np.float64)
    scores = ae.scorer_, ae.calibration_scores_
    found = inference.apply(inference.log_density, ae.network_, scores[0], x)
    np.testing.assert_allclose(np.sort(found), scores[1], rtol=1e-3)


def test_leaves_the_given_autoencoder_alone() -> None:
    given = clone(QUICK)
    assert Imputer(given).fit(X).autoencoder_ is not given
    assert not hasattr(given, "network_")


@pytest.mark.parametrize("rows", [X, FRAME], ids=["numpy", "pandas"])
def test_is_a_step_of_a_pipeline(rows: Any) -> None:
    pipeline = make_pipeline(Imputer(QUICK), StandardScaler(), Ridge()).fit(rows, Y)
    assert pipeline.predict(rows).shape == (80,)
    assert pipeline.score(rows, Y) > 0.5


def test_grid_search_reaches_the_autoencoders_options() -> None:
    pipeline = make_pipeline(Imputer(QUICK), Ridge())
    grid = {"imputer__autoencoder__n_components": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    fitted = search.best_estimator_.named_steps["imputer"].autoencoder_
    assert fitted.n_components == search.best_params_["imputer__autoencoder__n_components"]


def test_frame_keeps_its_types_index_and_names() -> None:
    frame = mixed()
    filled = Imputer(QUICK).fit_transform(frame)
    assert filled.dtypes.equals(frame.dtypes)
    assert filled.index.equals(frame.index)
    assert not filled.isna().any(axis=None)
    assert not frame.loc[:, "height"].equals(filled["height"])


@pytest.mark.parametrize("rows", [X, FRAME, pl.DataFrame(X, schema=NAMES)], ids=["np", "pd", "pl"])
@pytest.mark.parametrize("wanted", ["pandas", "polars"])
def test_set_output_settles_the_container(rows: Any, wanted: str) -> None:
    imputer = Imputer(QUICK).set_output(transform=wanted)
    filled = imputer.fit_transform(rows)
    assert type(filled).__module__.partition(".")[0] == wanted
    assert list(filled.columns) == list(imputer.get_feature_names_out())
    np.testing.assert_allclose(filled.to_numpy(), Imputer(QUICK).fit_transform(X))


def test_set_output_keeps_the_types_of_a_frame() -> None:
    frame = mixed()
    filled = Imputer(QUICK).set_output(transform="pandas").fit_transform(frame)
    assert filled.dtypes.equals(frame.dtypes)


def test_names_are_those_of_the_input() -> None:
    assert Imputer(QUICK).fit(FRAME).get_feature_names_out().tolist() == NAMES
    assert Imputer(QUICK).fit(X).get_feature_names_out().tolist() == [f"x{i}" for i in range(5)]


def test_fitting_anew_forgets_the_names() -> None:
    imputer = Imputer(QUICK).fit(FRAME).fit(X)
    assert not hasattr(imputer, "feature_names_in_")
    assert imputer.get_feature_names_out()[0] == "x0"


def test_column_without_a_cell_stays_empty() -> None:
    rows = X.copy()
    rows[:, 2] = np.nan
    filled = Imputer(QUICK).fit_transform(rows)
    assert np.isnan(filled).any(axis=0).tolist() == [False, False, True, False, False]


def test_precision_stays() -> None:
    assert Imputer(QUICK).fit_transform(X.astype(np.float32)).dtype == np.float32


def test_survives_pickling() -> None:
    imputer = Imputer(QUICK).fit(X)
    again: Imputer = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(X), imputer.transform(X))


def test_refuses_another_estimator() -> None:
    with pytest.raises(OptionError, match="to be an Autoencoder or None, got Ridge()"):
        Imputer(Ridge()).fit(X)  # type: ignore[arg-type]


def test_refuses_to_transform_unfitted() -> None:
    with pytest.raises(NotFittedError):
        Imputer().transform(X)


def test_refuses_other_columns() -> None:
    imputer = Imputer(QUICK).fit(FRAME)
    with pytest.raises(DataError, match="feature names"):
        imputer.transform(FRAME.rename(columns={"age": "years"}))


def test_global_random_state_is_left_alone(untouched_random_state: None) -> None:
    Imputer(QUICK).fit_transform(X)


def test_reads_files(tmp_path: Any) -> None:
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    imputer = Imputer(QUICK).fit(tmp_path / "x.csv")
    filled: NDArray[Any] = imputer.transform(tmp_path / "x.csv").to_pandas().to_numpy()
    np.testing.assert_allclose(filled, Imputer(QUICK).fit_transform(X), rtol=1e-6)


def test_progress_is_shown_of_all_that_is_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    Imputer(QUICK).fit(X)
    assert capsys.readouterr().err == ""
    Imputer(random_state=0, verbose=1).fit(X)
    lines = capsys.readouterr().err.splitlines()
    begins = [line.split()[:2] for line in lines]
    for words in ("epoch 1/400", "network 2 of 3: epoch 1/400", "network 3 of 3: epoch 400/400"):
        assert any(line.startswith(f"{words} ") for line in lines), (words, begins)
    assert [line for line in lines if line.startswith("regressions: ")][-1].startswith(
        "regressions: fit 6/6"
    )
