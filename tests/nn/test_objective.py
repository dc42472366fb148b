"""The loss is the mean negative log-likelihood of the cells, as in the textbooks."""

from __future__ import annotations

import copy
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
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.nn.objective import Objective
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


def setting(values: NDArray[Any], **options: Any) -> tuple[Schema, Objective, Tensor]:
    """The schema, the objective and the matrix of a table."""
    table = Table(values)
    schema = Schema.infer(table, **options)
    matrix = torch.from_numpy(schema.to_matrix(table, np.float64))
    return schema, Objective(schema).double(), matrix


def everything(holes: float = 0.0) -> tuple[Schema, Objective, Tensor, Tensor]:
    """A table of every likelihood: its schema, objective and matrix, and what a decoder may say."""
    table = sources.read(FRAME)
    schema = Schema.infer(table, CHOICES)
    assert set(schema.likelihoods()) == set(LIKELIHOODS)
    rng = np.random.default_rng(3)
    table.values[rng.uniform(size=table.values.shape) < holes] = np.nan
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    theta = torch.from_numpy(rng.normal(size=x.shape))
    return schema, Objective(schema).double(), x, theta


def test_gaussian_loss_is_half_the_mean_squared_error() -> None:
    _, objective, x = setting(REAL)
    theta = THETA[:, :3]
    expected = 0.5 * float(((x - theta) ** 2).mean())
    assert float(objective.reconstruction(theta, x)) == pytest.approx(expected, rel=1e-14)


def test_bernoulli_loss_is_the_mean_cross_entropy() -> None:
    _, objective, x = setting(RNG.uniform(0.1, 0.9, (30, 4)), likelihood="bernoulli")
    p = 1 / (1 + np.exp(-THETA.numpy()))
    expected = -(x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p)).mean()
    assert float(objective.reconstruction(THETA, x)) == pytest.approx(expected, rel=1e-14)


def test_a_mixed_loss_is_the_mean_over_all_cells() -> None:
    _, objective, x = setting(MIXED, likelihood=AS_FLAGS)
    normal = 0.5 * (x - THETA)[:, [0, 2]] ** 2
    flags = stats.bernoulli.logpmf(x[:, [1, 3]], torch.sigmoid(THETA[:, [1, 3]]))
    expected = (float(normal.sum()) - flags.sum()) / 120
    assert float(objective.reconstruction(THETA, x)) == pytest.approx(expected, rel=1e-13)


def test_noise_weighs_gaussian_columns_as_their_density_would() -> None:
    schema, _, x = setting(MIXED, likelihood=AS_FLAGS)
    objective = Objective(schema, adapts=True).double()
    objective.noise.fill_(0.3)
    normal = stats.norm.logpdf(x[:, [0, 2]], THETA[:, [0, 2]], 0.3) + 0.5 * math.log(2 * math.pi)
    flags = stats.bernoulli.logpmf(x[:, [1, 3]], torch.sigmoid(THETA[:, [1, 3]]))
    expected = -(normal.sum() + flags.sum()) / 120
    assert float(objective.reconstruction(THETA, x)) == pytest.approx(expected, rel=1e-12)


def test_noise_is_the_spread_that_gaussian_columns_share() -> None:
    _, objective, x = setting(MIXED, likelihood=AS_FLAGS)
    objective.adapt(THETA, x)
    expected = math.sqrt(float(((x - THETA)[:, [0, 2]] ** 2).mean()))
    assert float(objective.noise) == pytest.approx(expected, rel=1e-9)


def test_noise_does_not_vanish_with_the_residuals() -> None:
    _, objective, x = setting(MIXED, likelihood=AS_FLAGS)
    objective.adapt(x, x)
    assert float(objective.noise) == pytest.approx(0.3)


def test_noise_of_other_rows_leaves_out_missing_cells() -> None:
    _, objective, x = setting(MIXED, likelihood=AS_FLAGS)
    rows = x.clone()
    rows[::3, 0], rows[5] = torch.nan, torch.nan
    objective.fit_noise(THETA, rows)
    squares = torch.nanmean((rows - THETA)[:, [0, 2]] ** 2, 0)
    assert float(objective.noise) == pytest.approx(float(squares.mean().sqrt()), rel=1e-9)
    objective.fit_noise(THETA, torch.full_like(x, torch.nan))
    assert float(objective.noise) == 1.0


@pytest.mark.parametrize(
    ("values", "likelihood", "adapts"),
    [
        (REAL, "auto", False),
        (FLAGS * 1.0, "bernoulli", False),
        (MIXED, AS_FLAGS, True),
        (REAL, "student_t", True),
    ],
)
def test_what_likelihoods_learn_is_followed_where_there_is_a_spread_to_learn(
    values: NDArray[np.float64], likelihood: str | dict[str, str], adapts: bool
) -> None:
    assert setting(values, likelihood=likelihood)[1].adapts is adapts


@pytest.mark.parametrize(
    ("likelihood", "learns"),
    [("gaussian", False), ("histogram", False), ("student_t", True)],
)
def test_only_what_has_a_spread_is_fitted_to_rows(likelihood: str, learns: bool) -> None:
    _, objective, x = setting(REAL, likelihood=likelihood)
    assert objective.learns_spread is learns
    if likelihood == "histogram":
        before = copy.deepcopy(objective.state_dict())
        objective.adapt(x + 1, x)
        assert all(torch.equal(now, before[name]) for name, now in objective.state_dict().items())


def only(x: Tensor, row: int, inputs: slice) -> Tensor:
    """The rows with every cell missing but one."""
    rest = torch.full_like(x, torch.nan)
    rest[row, inputs] = x[row, inputs]
    return rest


def test_the_loss_is_the_mean_over_the_cells_there_are() -> None:
    schema, objective, x, theta = everything(holes=0.4)
    x, theta = x[:6], theta[:6]
    objective.noise.fill_(0.6)
    losses = [
        float(objective.reconstruction(theta, only(x, row, at)))
        for row in range(6)
        for at in schema.inputs
        if at.stop > at.start and not x[row, at.start].isnan()
    ]
    assert 20 < len(losses) < 50
    expected = np.mean(losses)
    assert float(objective.reconstruction(theta, x)) == pytest.approx(expected, rel=1e-12)


def test_missing_cells_have_no_gradient_and_others_all_have() -> None:
    _, objective, x, theta = everything(holes=0.3)
    theta.requires_grad_()
    objective.reconstruction(theta, x).backward()
    assert theta.grad is not None
    assert torch.equal(theta.grad == 0, x.isnan())


def test_what_the_decoder_says_of_missing_cells_does_not_matter() -> None:
    _, objective, x, theta = everything(holes=0.3)
    wild = torch.where(x.isnan(), 1e4, theta)
    assert torch.equal(objective.reconstruction(wild, x), objective.reconstruction(theta, x))


def test_rows_without_cells_have_no_loss() -> None:
    _, objective, x, theta = everything()
    assert float(objective.reconstruction(theta, x * torch.nan)) == 0


def test_what_is_learned_is_saved_with_the_weights() -> None:
    _, objective, *_ = everything()
    kept = set(objective.state_dict())
    assert kept == {"spread", "noise"}
    assert not kept & {"log_unit", "center", "unit", "column"}  # which the schema tells
