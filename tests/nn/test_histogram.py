"""A histogram's inputs are weights of knots, and its density is that of the cells."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twofold import Autoencoder, load
from twofold.data.table import Table
from twofold.errors import DataError, ModelFileError
from twofold.nn.objective import Objective
from twofold.schema.column import MOST_KNOTS, Column, knots_of
from twofold.schema.schema import Schema

RNG = np.random.default_rng(5)
N = 400
SKEWED = RNG.gamma(2.0, 3.0, size=N)
GRADES = RNG.integers(1, 7, size=N) / 2
X = np.column_stack([SKEWED, GRADES])
SCHEMA = Schema.infer(Table(X), "histogram")
PRICE, GRADE = SCHEMA.columns
OBJECTIVE = Objective(SCHEMA).double()
THETA = torch.from_numpy(RNG.normal(size=(1, SCHEMA.width)))


def theta(n: int) -> torch.Tensor:
    return THETA.expand(n, -1)


def rows(cells: NDArray[np.float64], grade: float = 2.0) -> torch.Tensor:
    """What the network sees of prices, beside one grade."""
    return matrix(np.column_stack([cells, np.full(len(cells), grade)]))


def matrix(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(SCHEMA.to_matrix(Table(values), np.float64))


def test_few_distinct_values_are_the_knots() -> None:
    assert GRADE.knots == (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    assert not GRADE.between


def test_many_distinct_values_have_knots_at_quantiles() -> None:
    assert len(PRICE.knots) == MOST_KNOTS
    assert PRICE.between
    assert (PRICE.knots[0], PRICE.knots[-1]) == (SKEWED.min(), SKEWED.max())
    counts, _ = np.histogram(SKEWED, PRICE.knots)
    assert counts.max() - counts.min() <= 2


def test_knots_that_ties_would_take_go_to_the_widest_gaps() -> None:
    values = np.concatenate([np.zeros(900), RNG.random(100)])
    knots, between = knots_of(values, 0.0, 1.0)
    assert between
    assert len(set(knots)) == MOST_KNOTS


def test_knots_that_scaling_would_merge_are_one() -> None:
    assert knots_of(np.array([0.0, 1e-300, 1.0]), 0.0, 1.0) == ((0.0, 1.0), False)


def test_weights_are_the_cell_again() -> None:
    weights = PRICE.weights(SKEWED)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert ((weights > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(weights @ PRICE.knots, SKEWED)


def test_inputs_are_the_cell_again() -> None:
    x = SCHEMA.to_matrix(Table(X), np.float64)
    np.testing.assert_allclose(SCHEMA.from_matrix(x), X)


def test_inputs_of_a_column_vary_by_one_about_zero() -> None:
    x = SCHEMA.to_matrix(Table(X), np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-12)
    assert x[:, SCHEMA.inputs[1]].var(axis=0).sum() == pytest.approx(1.0)
    assert 0.5 < x[:, SCHEMA.inputs[0]].var(axis=0).sum() < 1.0


def test_a_missing_cell_is_missing_in_all_its_inputs() -> None:
    x = PRICE.encode(np.array([np.nan, 3.0]), ())
    assert np.isnan(x[0]).all()
    assert not np.isnan(x[1]).any()


def test_what_comes_back_lies_within_the_knots() -> None:
    far = np.array([-1e9, 1e9])
    assert PRICE.decode(PRICE.encode(far, ())).tolist() == [SKEWED.min(), SKEWED.max()]


def test_the_density_integrates_to_one() -> None:
    low, high = SKEWED.min(), SKEWED.max()
    cells = np.linspace(low, high, 20_001)
    log = OBJECTIVE.cell_log_prob(theta(len(cells)), rows(cells))[:, 0]
    assert float(np.trapezoid(log.exp().numpy(), cells)) == pytest.approx(1.0, abs=1e-4)


def test_discrete_values_have_probabilities() -> None:
    x = matrix(np.column_stack([np.full(6, 4.0), GRADE.knots]))
    log = OBJECTIVE.cell_log_prob(theta(6), x)[:, 1]
    shares = torch.tensor(GRADE.shares).double()
    torch.testing.assert_close(log, (THETA[0, -6:] + shares.log()).log_softmax(0))


def test_cells_are_the_less_likely_the_further_out() -> None:
    far = SKEWED.max() + PRICE.scale * np.array([0.0, 1.0, 5.0, 1e5])
    log = OBJECTIVE.cell_log_prob(theta(4), rows(far))[:, 0]
    torch.testing.assert_close(log[0] - log, torch.tensor([0.0, 1.0, 5.0, 1e5]).double())


def test_the_mean_of_draws_is_the_reconstruction() -> None:
    draws = OBJECTIVE.draw(theta(20_000), torch.Generator().manual_seed(0))
    drawn = SCHEMA.from_matrix(draws.numpy())
    assert set(np.unique(drawn[:, 1]).round(9)) == set(GRADE.knots)
    assert len(np.unique(drawn[:, 0])) > 19_000
    assert drawn[:, 1].mean() == pytest.approx(
        SCHEMA.from_matrix(OBJECTIVE.mean(THETA).numpy())[0, 1], abs=0.03
    )


def test_draws_have_the_density() -> None:
    draws = SCHEMA.from_matrix(OBJECTIVE.draw(theta(40_000), torch.Generator()).numpy())[:, 0]
    cells = np.linspace(SKEWED.min(), SKEWED.max(), 20_001)
    log = OBJECTIVE.cell_log_prob(theta(len(cells)), rows(cells))[:, 0]
    chance = np.cumsum(log.exp().numpy()) * (cells[1] - cells[0])
    drawn = np.searchsorted(np.sort(draws), cells) / len(draws)
    assert np.abs(drawn - chance).max() < 0.01  # Kolmogorov and Smirnov's bound at 1 in 1,500


def test_the_truth_has_the_least_loss() -> None:
    best = THETA.clone().requires_grad_()
    OBJECTIVE.reconstruction(best, OBJECTIVE.mean(THETA)).backward()
    assert best.grad is not None
    torch.testing.assert_close(best.grad, torch.zeros_like(best))


def test_a_decoder_that_says_nothing_gives_the_mean_of_all_rows() -> None:
    nothing = OBJECTIVE.mean(torch.zeros(1, SCHEMA.width).double()).numpy()
    np.testing.assert_allclose(SCHEMA.from_matrix(nothing)[0], X.mean(axis=0))


def test_near_knots_are_less_wrong_than_far_ones() -> None:
    x = matrix(np.array([[4.0, 0.5]]))
    near, far = torch.zeros(2, 1, SCHEMA.width).double()
    near[:, -5], far[:, -1] = 4.0, 4.0
    assert OBJECTIVE.reconstruction(near, x) < OBJECTIVE.reconstruction(far, x)


def test_a_missing_cell_weighs_nothing() -> None:
    full, holed = matrix(np.array([[4.0, 1.0]])), matrix(np.array([[4.0, np.nan]]))
    alone = float(OBJECTIVE.reconstruction(THETA, holed))
    other = float(OBJECTIVE.reconstruction(THETA, matrix(np.array([[np.nan, 1.0]]))))
    assert float(OBJECTIVE.reconstruction(THETA, full)) == pytest.approx((alone + other) / 2)


def test_a_constant_column_is_one_knot() -> None:
    schema = Schema.infer(Table(np.column_stack([SKEWED, np.full(N, 7.0)])), "histogram")
    assert schema.columns[1].knots == (7.0,)
    assert schema.columns[1].decode(np.zeros((2, 1))).tolist() == [7.0, 7.0]


def test_one_column_by_name() -> None:
    columns = Schema.infer(Table(X, ("price", "grade")), {"price": "histogram"}).columns
    assert [c.likelihood for c in columns] == ["histogram", "gaussian"]


def test_counts_can_have_one() -> None:
    counts = Table(RNG.poisson(3.0, size=(N, 1)).astype(np.float64))
    (column,) = Schema.infer(counts, "histogram", "count").columns
    assert (column.kind, column.likelihood) == ("count", "histogram")
    assert column.decode(column.encode(np.array([0.0, 2.0]), ())) == pytest.approx([0.0, 2.0])


def test_other_kinds_cannot() -> None:
    flags = Table((X > 2).astype(np.float64))
    with pytest.raises(DataError, match="does not model column 'x0', whose kind is 'binary'"):
        Schema.infer(flags, {"x0": "histogram"}, {"x0": "binary"})


@pytest.mark.parametrize("column", [PRICE, GRADE], ids=["between", "discrete"])
def test_json_gives_the_column_back(column: Column) -> None:
    assert Column.from_json(json.loads(json.dumps(column.to_json()))) == column


@pytest.mark.parametrize(
    "change",
    [
        {"knots": []},
        {"knots": [1.0, 1.0]},
        {"knots": [2.0, 1.0]},
        {"knots": [0.0, float("inf")]},
        {"knots": ["1", "2"]},
        {"knots": [True]},
        {"knots": [1.0], "between": True},
        {"between": "yes"},
        {"likelihood": "gaussian"},
        {"shares": []},
        {"shares": [2.0] * 16},
    ],
)
def test_altered_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="knots"):
        Column.from_json(copy.deepcopy(PRICE.to_json()) | change)


def test_says_where_its_knots_are() -> None:
    assert GRADE.describe() == "at 6 knots, 0.5 to 3"
    assert PRICE.describe().startswith("between 16 knots, ")


@pytest.fixture(scope="module")
def fitted() -> Autoencoder:
    wide = np.column_stack([X, X[:, 0] * 2 + 1, RNG.normal(size=N)])
    wide[RNG.random(wide.shape) < 0.1] = np.nan
    likelihood = {"x0": "histogram", "x1": "histogram", "x2": "histogram", "x3": "gaussian"}
    return Autoencoder(likelihood=likelihood, epochs=3, random_state=0).fit(wide)


def test_a_model_is_the_same_after_saving(fitted: Autoencoder, tmp_path: Any) -> None:
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    new = np.array([[3.0, 1.5, np.nan, 0.0], [1e4, 9.0, 2.0, np.nan]])
    np.testing.assert_array_equal(again.score_samples(new), fitted.score_samples(new))
    np.testing.assert_array_equal(again.impute(new), fitted.impute(new))


def test_a_model_with_altered_knots_is_refused(fitted: Autoencoder, tmp_path: Any) -> None:
    fitted.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    document = json.loads(path.read_text())
    document["schema"]["columns"][0]["knots"].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(ModelFileError):
        load(tmp_path / "model")


def test_the_score_counts_histograms(fitted: Autoencoder) -> None:
    near = np.array([[3.0, 1.5, 7.0, 0.0]])
    far = near + np.array([[50 * PRICE.scale, 0.0, 0.0, 0.0]])
    assert fitted.score_samples(far) < fitted.score_samples(near) - 40


def test_shares_of_the_score_add_up(fitted: Autoencoder) -> None:
    new = np.array([[3.0, 1.5, 8.0, 0.0], [40.0, 1.0, np.nan, 1.0]])
    told = fitted.explain(new)
    np.testing.assert_allclose(
        told.base + told.contribution.sum(axis=1), -fitted.score_samples(new), rtol=1e-6
    )


def test_draws_and_new_rows_lie_within_the_knots(fitted: Autoencoder) -> None:
    rows = fitted.sample(50, random_state=0)
    assert SKEWED.min() <= rows[:, 0].min() <= rows[:, 0].max() <= SKEWED.max()
    holes = np.full((5, 4), np.nan)
    holes[:, 3] = 0.0
    first, second = fitted.impute(holes, n_draws=2, random_state=0)
    assert not np.isnan(first).any()
    assert not np.array_equal(first, second)
