"""Losses, means and densities are those of the textbooks, in nats and in the columns' own units."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from twofold.objective import LIKELIHOODS, Objective
from twofold.schema import Schema, Table

RNG = np.random.default_rng(7)
REAL = RNG.normal(50.0, 4.0, size=(30, 3))
FLAGS = RNG.uniform(size=(30, 2)) > 0.4
MIXED = np.column_stack([REAL[:, 0], FLAGS[:, 0], REAL[:, 1], FLAGS[:, 1]])
THETA = torch.from_numpy(RNG.normal(size=(30, 4)))


def setting(values: NDArray[np.float64]) -> tuple[Schema, Objective, Tensor]:
    """The schema, the objective and the matrix of a table."""
    table = Table(values)
    schema = Schema.infer(table)
    matrix = torch.from_numpy(schema.to_matrix(table, np.float64))
    return schema, Objective(schema).double(), matrix


def test_gaussian_loss_is_half_the_mean_squared_error() -> None:
    _, objective, x = setting(REAL)
    theta = THETA[:, :3]
    expected = 0.5 * float(((x - theta) ** 2).mean())
    assert float(objective.reconstruction(theta, x)) == pytest.approx(expected, rel=1e-14)


def test_bernoulli_loss_is_the_mean_cross_entropy() -> None:
    _, objective, x = setting(RNG.uniform(0.1, 0.9, (30, 4)))
    p = 1 / (1 + np.exp(-THETA.numpy()))
    expected = -(x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p)).mean()
    assert float(objective.reconstruction(THETA, x)) == pytest.approx(expected, rel=1e-14)


def test_a_mixed_loss_is_the_mean_over_all_cells() -> None:
    _, objective, x = setting(MIXED)
    normal = 0.5 * (x - THETA)[:, [0, 2]] ** 2
    flags = stats.bernoulli.logpmf(x[:, [1, 3]], torch.sigmoid(THETA[:, [1, 3]]))
    expected = (float(normal.sum()) - flags.sum()) / 120
    assert float(objective.reconstruction(THETA, x)) == pytest.approx(expected, rel=1e-13)


def test_a_mixed_mean_is_each_columns_own() -> None:
    _, objective, _ = setting(MIXED)
    expected = THETA.clone()
    expected[:, [1, 3]] = torch.sigmoid(THETA[:, [1, 3]])
    torch.testing.assert_close(objective.mean(THETA), expected)


@pytest.mark.parametrize("theta", [-200.0, 200.0])
def test_bernoulli_loss_keeps_its_digits_far_out(theta: float) -> None:
    far = torch.full((2, 4), theta, dtype=torch.float32)
    wrong = torch.full((2, 4), float(theta < 0))
    assert LIKELIHOODS["bernoulli"].loss(far, wrong).tolist() == [[200.0] * 4] * 2


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_minimises_the_loss(name: str) -> None:
    theta = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    x = LIKELIHOODS[name].mean(theta).detach()
    LIKELIHOODS[name].loss(theta, x).sum().backward()
    torch.testing.assert_close(theta.grad, torch.zeros_like(theta))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_loss_and_log_density_of_unit_scale_differ_by_a_constant(name: str) -> None:
    theta, x = THETA[0], torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    one = torch.ones_like(x)
    total = LIKELIHOODS[name].loss(theta, x) + LIKELIHOODS[name].log_prob(theta, x, one)
    torch.testing.assert_close(total, total[0].expand(4))


def test_log_density_is_that_of_a_normal_in_the_columns_own_unit() -> None:
    schema, objective, x = setting(REAL)
    theta = THETA[:, :3]
    objective.fit_scale(torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64))
    mean = schema.from_matrix(theta.numpy())
    expected = stats.norm.logpdf(REAL, mean, schema.scale * np.array([0.5, 1.0, 2.0]))
    np.testing.assert_allclose(objective.log_prob(theta, x).numpy(), expected, rtol=1e-10)


def test_log_density_of_flags_has_no_unit() -> None:
    _, objective, x = setting(MIXED)
    expected = stats.bernoulli.logpmf(x[:, [1, 3]], torch.sigmoid(THETA[:, [1, 3]]))
    np.testing.assert_allclose(objective.log_prob(THETA, x)[:, [1, 3]], expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
def test_another_unit_shifts_the_log_density_by_its_log(factor: float) -> None:
    _, one, x = setting(REAL)
    _, other, _ = setting(REAL * factor)
    shift = one.log_prob(THETA[:, :3], x) - other.log_prob(THETA[:, :3], x)
    np.testing.assert_allclose(shift, math.log(factor), rtol=1e-6)


def test_the_fitted_scale_is_the_maximum_likelihood_spread() -> None:
    _, objective, x = setting(REAL)
    theta = THETA[:, :3]
    squares = ((x - theta) ** 2).mean(0)

    def total(factor: float) -> float:
        objective.fit_scale(squares * factor)
        return float(objective.log_prob(theta, x).sum())

    assert total(1.0) > max(total(0.95), total(1.05))


def test_a_perfect_reconstruction_has_a_finite_density() -> None:
    _, objective, x = setting(REAL)
    objective.fit_scale(torch.zeros(3, dtype=torch.float64))
    assert torch.isfinite(objective.log_prob(x, x)).all()


def test_constant_columns_have_a_finite_density() -> None:
    _, objective, x = setting(np.ones((5, 3)))
    objective.fit_scale(torch.zeros(3, dtype=torch.float64))
    assert torch.isfinite(objective.log_prob(x, x)).all()


def test_the_scale_is_saved_with_the_weights() -> None:
    _, objective, _ = setting(REAL)
    assert list(objective.state_dict()) == ["scale"]


def test_a_copy_in_another_precision_gives_the_same_densities() -> None:
    _, objective, x = setting(MIXED)
    narrow = copy.deepcopy(objective).float()
    expected = objective.log_prob(THETA, x).float()
    torch.testing.assert_close(narrow.log_prob(THETA.float(), x.float()), expected)


def test_units_keep_64_bits() -> None:
    schema, objective, _ = setting(REAL)
    np.testing.assert_allclose(objective.log_unit.numpy(), np.log(schema.scale), rtol=1e-15)


@pytest.mark.parametrize(
    ("values", "link"),
    [(REAL, "identity"), (FLAGS * 1.0, "sigmoid"), (MIXED, "identity | sigmoid")],
)
def test_link_names_the_output_activation(values: NDArray[np.float64], link: str) -> None:
    assert setting(values)[1].link == link
