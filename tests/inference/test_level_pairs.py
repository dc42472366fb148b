"""Levels that never occur together are not put together, and those seen together are."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, load
from twofold.data import sources
from twofold.errors import LosesToPCAWarning, UnfilledWarning
from twofold.estimators import fitting
from twofold.inference.level_pairs import NEVER, NO_PAIRS, SEEN, UNSEEN, LevelPairs
from twofold.schema.schema import Schema

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
N = 700


def journeys() -> pd.DataFrame:
    """A port has its town, a class its number, and who is alone has no company."""
    rng = np.random.default_rng(0)
    port = rng.choice(list("SCQ"), N, p=[0.7, 0.2, 0.1])
    grade = rng.choice([1, 2, 3], N, p=[0.2, 0.3, 0.5])
    company = rng.poisson(0.7, N)
    return pd.DataFrame(
        {
            "port": port,
            "town": pd.Series(port).map({"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}),
            "grade": grade,
            "class": pd.Series(grade).map({1: "first", 2: "second", 3: "third"}),
            "company": company,
            "alone": company == 0,
            "fare": rng.gamma(2, 40 / grade),
            "age": rng.normal(30, 10, N),
        }
    )


ROWS = journeys()
DISCRETE = ["port", "town", "grade", "class", "company", "alone"]


def strange(frame: pd.DataFrame) -> float:
    """Share of rows with a pair of levels that no training row has."""
    bad = np.zeros(len(frame), bool)
    for a, b in combinations(DISCRETE, 2):
        seen = set(zip(ROWS[a], ROWS[b], strict=True))
        bad |= [pair not in seen for pair in zip(frame[a], frame[b], strict=True)]
    return float(bad.mean())


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        # Few epochs: the network itself is far from knowing which levels go together.
        return Autoencoder(n_components=3, epochs=8, random_state=0).fit(ROWS)


def test_new_rows_hold_pairs_that_occur(model: Autoencoder) -> None:
    new = model.sample(2000, random_state=0)
    assert strange(new) < 0.01
    for name in ("port", "class"):
        shares = new[name].value_counts(normalize=True) - ROWS[name].value_counts(normalize=True)
        assert shares.abs().max() < 0.12


def test_filled_levels_go_with_those_that_are_there(model: Autoencoder) -> None:
    holes = ROWS.copy()
    holes.loc[::2, "town"] = None
    holes.loc[1::2, "class"] = None
    holes["grade"] = holes["grade"].where(np.arange(N) % 3 > 0)
    found = model.impute(holes)
    assert (found.town == ROWS.town).all()
    filled = found["class"].map({"first": 1, "second": 2, "third": 3})
    assert (filled == found.grade).all()
    for drawn in model.impute(holes, n_draws=2, random_state=0):
        assert (drawn.town == ROWS.town).all()


def pairs_of(frame: pd.DataFrame) -> LevelPairs:
    table = sources.read(frame)
    return LevelPairs.fit(Schema.infer(table), table)


def test_absence_tells_only_where_both_levels_are_frequent() -> None:
    cells = ["a"] * 60 + ["b"] * 60 + ["c"] * 2
    other = ["x"] * 60 + ["y"] * 62
    known = pairs_of(pd.DataFrame({"cell": cells, "other": other}))
    pairs = known.pairs[: known.sizes[0], known.sizes[0] :]
    assert set(pairs.flatten()) == {NEVER, UNSEEN, SEEN}
    assert (known.pairs == known.pairs.T).all()


def test_the_best_of_the_levels_that_can_go_together_is_taken() -> None:
    pairs = np.full((4, 4), SEEN, np.uint8)
    pairs[0, 2] = pairs[2, 0] = NEVER
    known = LevelPairs((0, 1), (np.empty(0), np.empty(0)), (2, 2), pairs)
    scores = [np.zeros((3, 2)), np.array([[2.0, 1.0]] * 3)]
    levels = np.array([[0, -1], [1, -1], [0, 0]])
    assert known.settle(levels, scores, UNSEEN).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_where_no_level_can_the_one_with_fewest_conflicts_is_taken() -> None:
    pairs = np.full((6, 6), SEEN, np.uint8)
    for a, b in ((0, 4), (0, 5), (2, 4)):
        pairs[a, b] = pairs[b, a] = NEVER
    known = LevelPairs((0, 1, 2), (np.empty(0),) * 3, (2, 2, 2), pairs)
    scores = [np.zeros((1, 2)), np.zeros((1, 2)), np.array([[9.0, 1.0]])]
    assert known.settle(np.array([[0, 0, -1]]), scores, UNSEEN).tolist() == [[0, 0, 1]]


def test_cells_that_are_no_level_bar_nothing() -> None:
    known = pairs_of(pd.DataFrame({"n": [0, 1, 2, 3] * 30, "m": [0, 5, 7, 9] * 30}))
    frame = pd.DataFrame({"n": [2.0, 99.0, np.nan], "m": [np.nan, np.nan, 9.0]})
    rows = pd.DataFrame({"n": [0, 1, 2, 3] * 30, "m": [0, 5, 7, 9] * 30})
    levels = known.of(Schema.infer(sources.read(rows)), sources.read(frame))
    by_column = dict(zip(known.columns, levels.T.tolist(), strict=True))
    assert by_column == {0: [2, -2, -1], 1: [-1, -1, 3]}


def test_one_column_of_levels_has_no_pairs() -> None:
    rng = np.random.default_rng(0)
    known = pairs_of(pd.DataFrame({"x": rng.normal(size=50), "c": ["u", "v"] * 25}))
    assert known is NO_PAIRS


def test_pairs_are_saved_with_the_model(model: Autoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(300, 1), model.sample(300, 1))


# Columns of many names


def movies() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 3000
    names = np.concatenate([np.arange(1000), rng.integers(0, 1000, n - 1000)])
    budget = rng.lognormal(3, 1, n).round(1)
    return pd.DataFrame(
        {
            "director": [f"Director {i:04}" for i in rng.permutation(names)],
            "budget": budget,
            "gross": (budget * rng.lognormal(0.5, 0.5, n)).round(1),
            "genre": rng.choice(["Drama", "Comedy", "Action"], n),
        }
    )


@pytest.fixture(scope="module")
def of_movies() -> tuple[Autoencoder, pd.DataFrame]:
    frame = movies()
    frame.loc[np.random.default_rng(1).random(len(frame)) < 0.3, "director"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(n_components=4, epochs=8, random_state=0).fit(frame), frame


def test_a_rare_name_is_left_missing_and_said(of_movies: tuple[Autoencoder, pd.DataFrame]) -> None:
    model, frame = of_movies
    with pytest.warns(UnfilledWarning, match=r"column 'director': \d+ of \d+ \(860 rare"):
        found = model.impute(frame)
    filled = found.director[frame.director.isna()].dropna()
    shares = frame.director.value_counts(normalize=True)
    most = (filled.value_counts() / max(1, len(filled))).sub(2 * shares, fill_value=0)
    assert len(filled) < 0.02 * frame.director.isna().sum() or (most <= 0).all()
    assert not found.drop(columns="director").isna().any(axis=None)


def test_drawn_names_are_at_most_twice_as_common_as_in_training(
    of_movies: tuple[Autoencoder, pd.DataFrame],
) -> None:
    model, frame = of_movies
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [*model.impute(frame, n_draws=2, random_state=0), model.sample(1500, 0)]
    column, counts = model.schema_.columns[0], frame.director.value_counts()
    pooled = {column.levels[i] for i in column.pooled}
    for table in drawn:
        new = table.director if len(table) == 1500 else table.director[frame.director.isna()]
        assert new.notna().all()
        assert new[new.isin(pooled)].nunique() > 300
        first = new.index < fitting._IMPUTED_ROWS  # so many rows are drawn at a time
        for part in (new[first], new[~first]):
            rare = part[part.isin(pooled)].value_counts()
            most = np.floor(2 * len(part) / counts.sum() * counts[rare.index]).clip(lower=1)
            assert (rare <= most).all()


def test_reconstructions_do_not_make_one_name_of_all_rare_ones(
    of_movies: tuple[Autoencoder, pd.DataFrame],
) -> None:
    model, frame = of_movies
    found = model.reconstruct(frame).director
    assert found.value_counts().max() < 0.1 * len(frame) if found.notna().any() else True
    assert found.isna().mean() > 0.5
