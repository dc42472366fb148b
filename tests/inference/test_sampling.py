"""Holes are filled by what the row lets expect, draws are as uncertain as cells, rows are new."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold import Autoencoder
from twofold.data import sources
from twofold.data.table import Table
from twofold.errors import LosesToPCAWarning, OptionError
from twofold.inference import calibration, sampling
from twofold.nn.network import Network
from twofold.schema.schema import Schema

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
Array = NDArray[Any]
# Two numbers decide twelve columns, up to noise that is alike in all of them.
WIDTH, NOISE = 12, 0.3
ANGLES = np.arange(WIDTH) * np.pi / WIDTH
LOADINGS = np.array([np.cos(ANGLES), np.sin(ANGLES)])
COVARIANCE = LOADINGS.T @ LOADINGS + NOISE**2 * np.eye(WIDTH)
LINEAR: dict[str, Any] = {
    "n_components": 2,
    "hidden_layers": (),
    "epochs": 60,
    "random_state": 0,
    "precision": "float64",
}


def gaussian_rows(n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ LOADINGS + NOISE * rng.normal(size=(n, WIDTH)) + 5


def conditional(rows: Array, hidden: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean and standard deviation of each hidden cell given the rest of its row."""
    means, spreads = np.full(rows.shape, np.nan), np.full(rows.shape, np.nan)
    for i, out in enumerate(hidden):
        weights = COVARIANCE[np.ix_(out, ~out)] @ np.linalg.inv(COVARIANCE[np.ix_(~out, ~out)])
        means[i, out] = 5 + weights @ (rows[i, ~out] - 5)
        rest = COVARIANCE[np.ix_(out, out)] - weights @ COVARIANCE[np.ix_(~out, out)]
        spreads[i, out] = np.sqrt(np.diagonal(rest))
    return means[hidden], spreads[hidden]


@pytest.fixture(scope="module")
def linear() -> Autoencoder:
    """A linear model of the Gaussian table, which no test changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**LINEAR).fit(gaussian_rows(2000))


def holed(rows: Array, share: float = 0.1) -> tuple[Array, NDArray[np.bool_]]:
    hidden = np.random.default_rng(7).uniform(size=rows.shape) < share
    return np.where(hidden, np.nan, rows), hidden


# --- holes


def test_holes_are_filled_by_what_the_rest_of_the_row_lets_expect(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(300, 1))
    expected, _ = conditional(rows, hidden)
    found = linear.impute(rows)[hidden]
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.25 * NOISE
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_cells_that_are_there_are_the_same_bits(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(300, 1))
    found = linear.impute(rows)
    assert found[~hidden].tobytes() == rows[~hidden].tobytes()
    assert not np.isnan(found).any()


def test_a_row_is_filled_alike_whatever_rows_come_with_it(linear: Autoencoder) -> None:
    rows, _ = holed(gaussian_rows(60, 1))
    one_by_one = np.concatenate([linear.impute(row[None]) for row in rows])
    np.testing.assert_allclose(one_by_one, linear.impute(rows), rtol=1e-12)


def test_imputing_leaves_the_callers_rows_alone(linear: Autoencoder) -> None:
    rows, _ = holed(gaussian_rows(50, 1))
    before = rows.copy()
    linear.impute(rows)
    linear.impute(rows, n_draws=2)
    np.testing.assert_array_equal(rows, before)


def test_filling_is_the_reconstruction_of_the_row_as_it_is_read(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(50, 1))
    expected = linear.schema_.observed(linear.reconstruct(rows))[hidden]
    np.testing.assert_allclose(linear.impute(rows)[hidden], expected, rtol=1e-9)


def test_rows_without_a_cell_are_filled_with_something_usual(linear: Autoencoder) -> None:
    found = linear.impute(np.full((2, WIDTH), np.nan))
    assert np.abs(found - 5).max() < 1


# --- draws


def test_draws_are_as_uncertain_as_the_cells_are(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(60, 2))
    draws = np.stack([table[hidden] for table in linear.impute(rows, 200, random_state=0)])
    means, spreads = conditional(rows, hidden)
    error = draws.mean(0) - means
    assert np.sqrt(np.mean(error**2)) < 0.3 * NOISE
    # A code is taken for certain, so draws vary somewhat less than the cells do.
    assert 0.75 < np.mean(draws.std(0) / spreads) < 1.15


def test_draws_do_not_follow_each_other(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(100, 2))
    first, second = (t[hidden] for t in linear.impute(rows, 2, random_state=0))
    best = linear.impute(rows)[hidden]
    assert abs(np.corrcoef(first - best, second - best)[0, 1]) < 0.3


def test_the_one_cell_that_is_left_tells_all_draws() -> None:
    z = np.random.default_rng(0).normal(size=(3000, 1))
    rows = np.hstack([z, z, z, z]) + 0.1 * np.random.default_rng(1).normal(size=(3000, 4))
    ae = Autoencoder(**LINEAR | {"n_components": 1}).fit(rows)
    holes = rows[:200].copy()
    holes[:, 1:] = np.nan
    for table in ae.impute(holes, 3, random_state=0):
        away = table[:, 1:] - table[:, :1]
        assert 0.06 < np.abs(away).mean() < 0.12  # of cells it is 0.11
        # What is uncertain about the row is common to its holes.
        assert np.corrcoef(away.T)[np.triu_indices(3, 1)].min() > 0.05


def test_each_draw_keeps_the_cells_that_are_there(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(50, 1))
    for table in linear.impute(rows, n_draws=3):
        assert table[~hidden].tobytes() == rows[~hidden].tobytes()
        assert not np.isnan(table).any()


def test_draws_differ(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(50, 1))
    first, second = linear.impute(rows, 2, random_state=0)
    assert (first[hidden] != second[hidden]).mean() > 0.7  # five training rows lend a cell


def test_the_same_seed_gives_the_same_draws(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(50, 1))
    first, again, other = (linear.impute(rows, 2, random_state=seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first[hidden] != other[hidden]).mean() > 0.7


def test_without_a_seed_draws_are_new_each_time(linear: Autoencoder) -> None:
    rows, hidden = holed(gaussian_rows(20, 1))
    first, second = (linear.impute(rows, 2)[0] for _ in range(2))
    assert (first[hidden] != second[hidden]).mean() > 0.7


@pytest.mark.parametrize("n_draws", [0, -3])
def test_no_draws_are_refused(n_draws: int, linear: Autoencoder) -> None:
    with pytest.raises(
        OptionError, match=rf"Expected n_draws to be an integer of at least 1, got {n_draws}"
    ):
        linear.impute(gaussian_rows(3), n_draws)


def test_drawing_touches_no_global_random_state(
    linear: Autoencoder, untouched_random_state: None
) -> None:
    rows, _ = holed(gaussian_rows(20, 1))
    linear.impute(rows, n_draws=2)
    linear.sample(5)


# --- new rows


def test_new_rows_have_the_means_and_the_covariance_of_the_table(linear: Autoencoder) -> None:
    rows = linear.sample(20_000, random_state=0)
    np.testing.assert_allclose(rows.mean(0), 5, atol=0.06)
    np.testing.assert_allclose(np.cov(rows.T), COVARIANCE, atol=0.08)


def test_new_rows_score_like_the_tables(linear: Autoencoder) -> None:
    new = linear.score_samples(linear.sample(2000, random_state=1))
    own = linear.score_samples(gaussian_rows(2000, 3))
    assert new.mean() == pytest.approx(own.mean(), abs=0.25 * own.std())


def test_as_many_rows_come_as_asked_for(
    linear: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_CHUNK_ROWS", 7)
    rows = linear.sample(30, random_state=0)
    assert rows.shape == (30, WIDTH)
    assert len(np.unique(rows, axis=0)) == 30  # of two, one cell may come from the same row


def test_the_same_seed_gives_the_same_rows(linear: Autoencoder) -> None:
    first, again, other = (linear.sample(9, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


@pytest.mark.parametrize("n", [0, -1])
def test_no_rows_are_refused(n: int, linear: Autoencoder) -> None:
    with pytest.raises(OptionError, match=f"Expected n to be an integer of at least 1, got {n}"):
        linear.sample(n)


# --- the way between two rows


def test_the_way_ends_at_the_reconstructions(linear: Autoencoder) -> None:
    a, b = np.split(gaussian_rows(2, 4), 2)
    way = linear.interpolate(a, b, 7)
    assert way.shape == (7, WIDTH)
    np.testing.assert_allclose(way[[0]], linear.reconstruct(a), rtol=1e-12)
    np.testing.assert_allclose(way[[-1]], linear.reconstruct(b), rtol=1e-12)


def test_the_way_is_straight_in_codes_and_evenly_walked(linear: Autoencoder) -> None:
    a, b = np.split(gaussian_rows(2, 4), 2)
    steps = np.diff(linear.interpolate(a, b, 9), axis=0)  # straight in rows too: it is linear
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-9)


@pytest.mark.parametrize(
    ("n_a", "n_b", "steps", "said"),
    [(1, 1, 1, "steps .*at least 2, got 1"), (2, 1, 5, "2 and 1 rows"), (1, 3, 5, "1 and 3 rows")],
)
def test_a_way_takes_two_rows_and_two_steps(
    n_a: int, n_b: int, steps: int, said: str, linear: Autoencoder
) -> None:
    with pytest.raises(OptionError, match=said):
        linear.interpolate(gaussian_rows(n_a), gaussian_rows(n_b), steps)


# --- where chance comes from


def test_a_seed_stands_for_a_generator_of_its_own(untouched_random_state: None) -> None:
    first, again = (sampling.random_state(7).normal(size=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (sampling.random_state(None).normal(size=3) != first).all()


def test_a_generator_stands_for_itself() -> None:
    rng = np.random.RandomState(0)
    assert sampling.random_state(rng) is rng


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(OptionError, match=f"Expected random_state to be a seed, got {seed}"):
        sampling.random_state(seed)


# --- one likelihood after another


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t", "histogram", "poisson"])
def test_draws_fill_holes_alone(likelihood: str) -> None:
    rng = np.random.default_rng(0)
    table = Table(rng.poisson(3, size=(40, 6)).astype(float))
    schema = Schema.infer(table, likelihood)
    network = Network(schema.width, (), 2, generator=torch.Generator().manual_seed(0)).double()
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    scorer = calibration.fit_scorer(network, schema, x, torch.arange(40))
    table.values[rng.uniform(size=(40, 6)) < 0.3] = np.nan
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    seen = ~x.isnan()

    def drawn(seed: int) -> Tensor:
        with torch.inference_mode():
            return sampling.imputer(torch.Generator().manual_seed(seed))(network, scorer, x)

    for part in drawn(0).split(x.shape[1], 1):  # best values, and draws
        assert torch.equal(part[seen], x[seen])
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert torch.isfinite(drawn(0)).all()


def test_counts_are_drawn_whole_and_categories_known() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"visits": rng.poisson(1.5, 300) * 1.0, "town": rng.choice(["Bonn", "Ulm"], 300)}
    )
    ae = Autoencoder(n_components=2, epochs=2, random_state=0).fit(frame)
    holes = frame.mask(rng.uniform(size=frame.shape) < 0.3)
    for table in [*ae.impute(holes, 3, random_state=0), ae.sample(300, random_state=0)]:
        assert (table["visits"] == np.rint(table["visits"])).all()
        assert table["visits"].min() >= 0
        assert set(table["town"]) == {"Bonn", "Ulm"}


def test_no_name_is_drawn_over_twice_as_often_as_in_training() -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 101) ** 0.6
    frame = pd.DataFrame({"x": rng.normal(size=600), "name": None})
    known = rng.random(600) < 0.6
    names = rng.choice(100, 600, p=shares / shares.sum())
    frame.loc[known, "name"] = [f"name {i}" for i in names[known]]
    frame["y"] = rng.normal(size=600)
    ae = Autoencoder(n_components=2, hidden_layers=(8,), epochs=3, random_state=0).fit(frame)
    assert len(ae.schema_.columns[1].pooled) > 1
    counts = frame["name"].value_counts()
    for filled in ae.impute(frame, n_draws=3, random_state=0):
        drawn = filled["name"][~known].value_counts()
        most = 2 * counts[drawn.index] / counts.sum() * (~known).sum()
        assert (drawn <= np.ceil(most)).all()


def test_names_that_are_certain_are_drawn_however_many_they_are() -> None:
    names = ["a"] * 60 + ["b"] * 60 + [f"name {i // 2}" for i in range(200)]
    column = Schema.infer(sources.read(pd.DataFrame({"name": names}))).columns[0]
    assert len(column.pooled) > 1
    n, slot, rng = 50, column.kept.index(column.levels.index("a")), np.random.default_rng(0)
    shares = np.full((n, len(column.kept) + 1), 0.001)
    shares[:, slot] = 0.9
    chosen = np.full(n, slot)
    assert set(sampling._dealt(column, chosen, shares, rng)) == {column.kept[slot]}
    shares[:, slot] = 0.2
    drawn = sampling._dealt(column, chosen, shares, rng)
    assert np.mean(drawn == column.kept[slot]) <= 2 * 60 / len(names)
