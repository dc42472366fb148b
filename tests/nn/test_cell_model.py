"""Means, densities and draws are those of the textbooks, in nats and in the columns' own units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from twofold.data import sources
from twofold.data.table import Table
from twofold.nn.cell_model import CellModel, observed
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.schema.column import unsquash
from twofold.schema.schema import Schema

RNG = np.random.default_rng(7)
REAL = RNG.normal(50.0, 4.0, size=(30, 3))
FLAGS = RNG.uniform(size=(30, 2)) > 0.4
MIXED = np.column_stack([REAL[:, 0], FLAGS[:, 0], REAL[:, 1], FLAGS[:, 1]])
AS_FLAGS = {"x1": "bernoulli", "x3": "bernoulli"}
THETA = torch.from_numpy(RNG.normal(size=(30, 4)))
N = 60
FRAME = pd.DataFrame(
    {
        "height": RNG.normal(170, 8, N),
        "income": RNG.standard_t(3, N) * 900 + 2000,
        "smoker": RNG.uniform(size=N) < 0.3,
        "town": np.array(["Bonn", "Kiel", "Ulm"])[RNG.integers(3, size=N)],
        "visits": RNG.poisson(2.0, N),
        "calls": RNG.negative_binomial(2, 0.4, N),
        "size": np.array(["S", "M"])[RNG.integers(2, size=N)],
        "since": pd.date_range("2019-05-03", periods=N, freq="40h"),
        "share": RNG.beta(0.3, 0.4, N),
        "grade": RNG.integers(1, 7, N) / 2,
        "key": [f"k{i}" for i in range(N)],
    }
)
CHOICES = {
    "smoker": "bernoulli",
    "income": "student_t",
    "visits": "poisson",
    "calls": "negative_binomial",
    "share": "histogram",
    "grade": "histogram",
}


def wide(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def setting(values: NDArray[Any], **options: Any) -> tuple[Schema, CellModel, Tensor]:
    """The schema, the model and the matrix of a table."""
    table = Table(values)
    schema = Schema.infer(table, **options)
    matrix = torch.from_numpy(schema.to_matrix(table, np.float64))
    return schema, CellModel(schema).double(), matrix


def everything(holes: float = 0.0) -> tuple[Schema, CellModel, Tensor, Tensor]:
    """A table of every likelihood: its schema, model and matrix, and what a decoder may say."""
    table = sources.read(FRAME)
    schema = Schema.infer(table, CHOICES)
    assert set(schema.likelihoods()) == set(LIKELIHOODS)
    rng = np.random.default_rng(3)
    table.values[rng.uniform(size=table.values.shape) < holes] = np.nan
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    theta = torch.from_numpy(rng.normal(size=x.shape))
    return schema, CellModel(schema).double(), x, theta


def test_a_mixed_mean_is_each_columns_own() -> None:
    _, model, _ = setting(MIXED, likelihood=AS_FLAGS)
    expected = THETA.clone()
    expected[:, [1, 3]] = torch.sigmoid(THETA[:, [1, 3]])
    torch.testing.assert_close(model.mean(THETA), expected)


def log_prob_of(column: str, cells: Any, theta: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The log-density of cells of one column, where the decoder says `theta` throughout."""
    schema, model, _, _ = everything()
    model.spread.copy_(torch.where(model.spread == 1, 0.7, model.spread))
    i = schema.names.index(column)
    frame = FRAME.iloc[np.zeros(len(cells), dtype=int)].assign(**{column: cells})
    table = sources.read(frame)
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    said = torch.zeros_like(x)
    said[:, schema.inputs[i]] = torch.as_tensor(theta, dtype=torch.float64)
    result: NDArray[np.float64] = model.cell_log_prob(said, x)[:, i].numpy()
    return result


@pytest.mark.parametrize("column", ["height", "income"])
@pytest.mark.parametrize("theta", [0.3, 9.8, -14.0])
def test_the_density_of_a_number_integrates_to_1_near_and_far(column: str, theta: float) -> None:
    schema, *_ = everything()
    found = schema.columns[schema.names.index(column)]
    far = 6 if column == "height" else 60
    inputs = np.linspace(theta - far, theta + far, 40_001)
    cells = unsquash(inputs) * found.scale + found.center
    density = np.exp(log_prob_of(column, cells, theta))
    assert np.trapezoid(density, cells) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("column", ["visits", "calls"])
def test_the_probabilities_of_counts_sum_to_1(column: str) -> None:
    total = np.exp(log_prob_of(column, np.arange(4000), 0.4)).sum()
    assert total == pytest.approx(1, rel=1e-6)


def test_the_probabilities_of_levels_sum_to_1() -> None:
    theta = np.array([0.3, -1.0, 0.5, 0.1])  # the last one is of all other texts
    total = np.exp(log_prob_of("town", ["Bonn", "Kiel", "Ulm", "Oslo"], theta)).sum()
    assert total == pytest.approx(1, rel=1e-12)


def test_the_probabilities_of_a_flag_sum_to_1() -> None:
    assert np.exp(log_prob_of("smoker", [True, False], 0.7)).sum() == pytest.approx(1, rel=1e-12)


def test_the_density_of_a_histogram_integrates_to_1() -> None:
    schema, *_ = everything()
    column = schema.columns[schema.names.index("share")]
    assert column.between
    theta = np.linspace(-1, 1, len(column.knots))
    cells = np.linspace(column.knots[0], column.knots[-1], 40_001)
    density = np.exp(log_prob_of("share", cells, theta))
    assert np.trapezoid(density, cells) == pytest.approx(1, rel=1e-3)


def test_the_probabilities_of_a_histogram_of_few_values_sum_to_1() -> None:
    schema, *_ = everything()
    column = schema.columns[schema.names.index("grade")]
    assert not column.between
    theta = np.linspace(-1, 1, len(column.knots))
    assert np.exp(log_prob_of("grade", column.knots, theta)).sum() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("column", ["height", "income", "share", "grade"])
def test_the_further_out_a_number_the_less_likely(column: str) -> None:
    schema, *_ = everything()
    found = schema.columns[schema.names.index(column)]
    cells = found.center + found.scale * np.geomspace(20, 1e9, 12)
    assert (np.diff(log_prob_of(column, cells, 0.1)) < 0).all()


def test_log_density_is_that_of_a_normal_in_the_columns_own_unit() -> None:
    schema, model, x = setting(REAL)
    theta = THETA[:, :3]
    model.spread.copy_(wide(0.5, 1.0, 2.0))
    mean = schema.from_matrix(theta.numpy())
    expected = stats.norm.logpdf(REAL, mean, schema.scale * np.array([0.5, 1.0, 2.0]))
    np.testing.assert_allclose(model.cell_log_prob(theta, x).numpy(), expected, rtol=1e-10)


def test_log_density_of_flags_has_no_unit() -> None:
    _, model, x = setting(MIXED, likelihood=AS_FLAGS)
    expected = stats.bernoulli.logpmf(x[:, [1, 3]], torch.sigmoid(THETA[:, [1, 3]]))
    np.testing.assert_allclose(model.cell_log_prob(THETA, x)[:, [1, 3]], expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
@pytest.mark.parametrize("likelihood", ["gaussian", "student_t", "histogram"])
def test_another_unit_shifts_the_log_density_by_its_log(factor: float, likelihood: str) -> None:
    _, one, x = setting(REAL, likelihood=likelihood)
    _, other, _ = setting(REAL * factor, likelihood=likelihood)
    theta = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    shift = one.cell_log_prob(theta, x) - other.cell_log_prob(theta, x)
    np.testing.assert_allclose(shift, math.log(factor), rtol=1e-6)


def test_the_fitted_spread_is_the_maximum_likelihood_one() -> None:
    _, model, x = setting(REAL)
    theta = THETA[:, :3]
    model.fit_spread(theta, x)
    best = model.spread.clone()

    def total(factor: float) -> float:
        model.spread.copy_(best * factor)
        return float(model.cell_log_prob(theta, x).sum())

    assert total(1.0) > max(total(0.98), total(1.02))


def test_the_fitted_spread_of_a_t_is_its_scale() -> None:
    rng = np.random.default_rng(1)
    _, model, x = setting(rng.normal(size=(20_000, 2)), likelihood="student_t")
    residual = torch.from_numpy(rng.standard_t(4, size=(20_000, 2)) * [0.2, 3.0])
    model.fit_spread(x - residual, x)
    np.testing.assert_allclose(model.spread, [0.2, 3.0], rtol=0.03)


@pytest.mark.parametrize("r", [0.8, 5.0])
def test_the_fitted_dispersion_of_counts_is_theirs(r: float) -> None:
    rng = np.random.default_rng(2)
    means = np.exp(rng.normal(0.7, 0.5, size=(30_000, 1)))
    counts = rng.negative_binomial(r, r / (r + means)).astype(float)
    schema, model, x = setting(counts, likelihood="negative_binomial")
    theta = torch.from_numpy((np.log(means) - schema.center) / schema.scale)
    model.fit_spread(theta, x)
    assert float(model.spread[0]) == pytest.approx(r, rel=0.12)


def test_counts_that_spread_like_poissons_get_its_distribution() -> None:
    rng = np.random.default_rng(2)
    schema, model, x = setting(
        rng.binomial(9, 0.3, size=(5000, 1)).astype(float), likelihood="negative_binomial"
    )
    theta = torch.full_like(x, (math.log(2.7) - schema.center[0]) / schema.scale[0])
    model.fit_spread(theta, x)
    expected = stats.poisson.logpmf(rng.binomial(9, 0.3, size=(5000, 1)), 2.7)
    assert float(model.spread[0]) > 1e3
    assert float(model.cell_log_prob(theta, x).mean()) == pytest.approx(expected.mean(), abs=0.02)


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t", "negative_binomial"])
def test_missing_cells_do_not_change_the_spread(likelihood: str) -> None:
    rng = np.random.default_rng(5)
    values = rng.negative_binomial(2, 0.4, size=(400, 1)).astype(float)
    _, model, x = setting(values, likelihood=likelihood)
    theta = torch.zeros_like(x)
    model.fit_spread(theta, x)
    expected = model.spread.clone()
    more = torch.cat([x, torch.full((300, 1), torch.nan, dtype=x.dtype)])
    model.fit_spread(torch.cat([theta, theta[:300] + 5]), more)
    torch.testing.assert_close(model.spread, expected)


def test_what_has_no_spread_to_fit_keeps_its_own() -> None:
    schema, model, x, theta = everything()
    before = model.spread.clone()
    model.fit_spread(theta, x)
    fitted = [
        c.name
        for c, at in zip(schema.columns, schema.inputs, strict=True)
        if c.width and not torch.equal(before[at], model.spread[at])
    ]
    assert fitted == ["height", "income", "calls", "since"]


def test_a_perfect_reconstruction_has_a_finite_density() -> None:
    _, model, x = setting(REAL)
    model.fit_spread(x, x)
    assert torch.isfinite(model.cell_log_prob(x, x)).all()


def test_constant_columns_have_a_finite_density() -> None:
    _, model, x = setting(np.ones((5, 3)))
    model.fit_spread(x, x)
    assert torch.isfinite(model.cell_log_prob(x, x)).all()


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_inputs_without_holes_are_handed_on(holes: float) -> None:
    *_, x, _ = everything(holes)
    filled, seen = observed(x)
    if holes:
        assert seen is not None
        assert torch.equal(seen, ~x.isnan())
        assert not filled[x.isnan()].any()
        assert torch.equal(filled[seen], x[seen])
    else:
        assert filled is x
        assert seen is None


def test_what_belongs_to_a_column_is_summed_and_handed_back() -> None:
    schema, model, x, _ = everything()
    cells = model.per_column(x)
    expected = np.column_stack([x[:, at].sum(1) for at in schema.inputs])
    np.testing.assert_allclose(cells, expected, atol=1e-12)
    for i, at in enumerate(schema.inputs):
        width = at.stop - at.start
        torch.testing.assert_close(model.per_input(cells)[:, at], cells[:, [i]].expand(N, width))


def test_the_mean_of_a_category_and_of_a_histogram_are_probabilities() -> None:
    schema, model, _, theta = everything()
    for column, at in zip(schema.columns, schema.inputs, strict=True):
        if column.likelihood == "categorical":
            mean = model.mean(theta)[:, at]
            torch.testing.assert_close(mean, theta[:, at].softmax(1))
        if column.likelihood == "histogram":
            shares = torch.tensor(column.shares, dtype=theta.dtype)
            mean = model.mean(theta)[:, at] * column.share_scale + shares
            torch.testing.assert_close(mean, (theta[:, at] + shares.log()).softmax(1))


def test_draws_of_every_column_are_cells_of_it() -> None:
    schema, model, _, theta = everything()
    x = model.draw(theta, torch.Generator().manual_seed(0))
    cells = schema.from_matrix(x.numpy())
    named = dict(zip(schema.names, cells.T, strict=True))
    assert set(named["smoker"]) <= {0.0, 1.0}
    assert set(named["town"]) <= {0.0, 1.0, 2.0}
    assert set(named["grade"]) <= set(FRAME["grade"])
    for name in ("visits", "calls"):
        np.testing.assert_array_equal(named[name], np.rint(named[name]))


def test_grey_values_are_drawn_as_their_means() -> None:
    _, model, _ = setting(RNG.integers(26, 230, (30, 16)) / 255)
    theta = THETA.repeat(1, 4)
    found = model.draw(theta, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.sigmoid(theta))


def test_units_keep_64_bits() -> None:
    schema, model, _ = setting(REAL)
    np.testing.assert_allclose(model.log_unit.numpy(), np.log(schema.scale), rtol=1e-15)


@pytest.mark.parametrize(
    ("values", "likelihood", "link"),
    [
        (REAL, "auto", "identity"),
        (FLAGS * 1.0, "bernoulli", "sigmoid"),
        (MIXED, AS_FLAGS, "identity | sigmoid"),
    ],
)
def test_link_names_the_output_activation(
    values: NDArray[np.float64], likelihood: str | dict[str, str], link: str
) -> None:
    assert setting(values, likelihood=likelihood)[1].link == link


def test_link_names_every_activation_once() -> None:
    assert everything()[1].link.split(" | ").count("softmax") == 1
