"""Codes are modelled by normal densities, as many as it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.covariance import OAS

from twofold.nn import code_density
from twofold.nn.code_density import CodeDensity

RNG = np.random.default_rng(11)
CODES = RNG.normal(2.0, 1.0, size=(300, 4)) @ RNG.normal(size=(4, 4))


def fitted(codes: NDArray[np.float64]) -> CodeDensity:
    plain = CodeDensity(codes.shape[1]).double()
    plain.fit(torch.from_numpy(codes))
    return plain


@pytest.mark.parametrize("n_rows", [300, 12, 3], ids=lambda n: f"{n} rows")
def test_the_density_is_normal_with_the_oracle_approximating_covariance(n_rows: int) -> None:
    codes = CODES[:n_rows]
    oas = OAS().fit(codes)
    normal = stats.multivariate_normal(oas.location_, oas.covariance_)
    scores = fitted(codes).log_prob(torch.from_numpy(codes))
    np.testing.assert_allclose(scores.numpy(), normal.logpdf(codes), rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_the_density_of_many_codes_integrates_to_one(scale: float) -> None:
    codes = CODES[:, :1] * scale
    grid = np.linspace(codes.min() - 9 * codes.std(), codes.max() + 9 * codes.std(), 20_001)
    density = fitted(codes).log_prob(torch.from_numpy(grid[:, None])).exp().numpy()
    assert np.trapezoid(density, grid) == pytest.approx(1, rel=1e-6)


def test_one_component_is_normal_with_its_own_variance() -> None:
    codes = CODES[:, :1]
    expected = stats.norm.logpdf(codes[:, 0], codes.mean(), codes.std())
    scores = fitted(codes).log_prob(torch.from_numpy(codes)).numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_more_components_than_rows_have_a_finite_density() -> None:
    codes = RNG.normal(size=(5, 40))
    assert torch.isfinite(fitted(codes).log_prob(torch.from_numpy(codes))).all()


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6])
def test_codes_that_never_vary_have_a_finite_density(value: float) -> None:
    codes = np.full((20, 3), value)
    assert torch.isfinite(fitted(codes).log_prob(torch.from_numpy(codes))).all()


@pytest.mark.parametrize("value", [3.0, 1e6])
def test_rounding_of_codes_that_never_vary_costs_little(value: float) -> None:
    plain = fitted(np.full((20, 3), value))
    exact, rounded = (torch.full((1, 3), v) for v in (value, value * (1 + 1e-7)))
    assert abs(float(plain.log_prob(exact) - plain.log_prob(rounded))) < 0.1


def test_codes_farther_from_the_mean_are_less_likely() -> None:
    plain = fitted(CODES)
    ray = torch.linspace(0, 5, 20, dtype=torch.float64)[:, None]
    scores = plain.log_prob(plain.mean[0] + ray)
    assert (scores.diff() < 0).all()


def test_the_density_is_saved_with_the_weights() -> None:
    fresh = CodeDensity(4).double()
    fresh.load_state_dict(fitted(CODES).state_dict())
    codes = torch.from_numpy(CODES)
    assert torch.equal(fresh.log_prob(codes), fitted(CODES).log_prob(codes))


def clusters(n_rows: int) -> NDArray[np.float64]:
    centers = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return centers[RNG.integers(0, 3, n_rows)] + RNG.normal(size=(n_rows, 2))


def test_one_cloud_of_codes_has_one_density() -> None:
    assert len(fitted(RNG.normal(size=(400, 3))).log_weight) == 1


def test_codes_in_clusters_have_several_densities() -> None:
    plain, fresh = fitted(clusters(600)), torch.from_numpy(clusters(600))
    assert len(plain.log_weight) > 1
    # Three unit normals with equal weights: entropy log 3 + log(2 pi e).
    entropy = np.log(3) + np.log(2 * np.pi * np.e)
    assert float(plain.log_prob(fresh).mean()) == pytest.approx(-entropy, abs=0.2)


def test_two_densities_that_gain_nothing_do_not_end_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two whose fit came to nothing are one normal density, twice.
    fit = code_density._fit

    def unlucky(codes: torch.Tensor, count: int, seed: int) -> tuple[torch.Tensor, ...]:
        if count != 2:
            return fit(codes, count, seed)
        weight, mean, covariance = fit(codes, 1, seed)
        return (
            weight.repeat(2) / 2,
            mean.repeat(2, 1),
            covariance.repeat(2, 1, 1),
        )

    monkeypatch.setattr(code_density, "_fit", unlucky)
    centres = np.array([[x, y] for x in range(2) for y in range(2)])
    codes = centres[RNG.integers(0, 4, 600)] + RNG.normal(0, 0.05, (600, 2))
    assert len(fitted(codes).log_weight) >= 4


def test_a_mixture_integrates_to_one() -> None:
    plain = fitted(np.concatenate([RNG.normal(-6, 1, (300, 1)), RNG.normal(6, 2, (300, 1))]))
    assert len(plain.log_weight) > 1
    grid = np.linspace(-40, 40, 8001)
    density = plain.log_prob(torch.from_numpy(grid[:, None])).exp().numpy()
    assert np.trapezoid(density, grid) == pytest.approx(1, rel=1e-6)


def test_drawn_codes_are_like_those_of_training() -> None:
    codes = clusters(600)
    drawn = fitted(codes).sample(20_000, torch.Generator().manual_seed(1)).numpy()
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), rtol=0.05, atol=0.5)
    between = np.abs(drawn - 4.5).max(1) < 1.5  # where no training code is
    assert between.mean() < 0.01


def test_the_same_seed_draws_the_same_codes() -> None:
    plain = fitted(clusters(600))
    draws = [plain.sample(50, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_mixture_is_saved_with_the_weights() -> None:
    plain, fresh = fitted(clusters(600)), CodeDensity(2).double()
    fresh.load_state_dict(plain.state_dict())
    codes = torch.from_numpy(clusters(50))
    assert torch.equal(fresh.log_prob(codes), plain.log_prob(codes))


def test_large_codes_in_clusters_are_fitted_on_two_threads() -> None:
    # A batched general inverse fails there, and only there.
    codes = RNG.normal(size=(3000, 196)) + 9.0 * (np.arange(3000) % 2)[:, None]
    torch.set_num_threads(2)
    try:
        plain = fitted(codes)
    finally:
        torch.set_num_threads(1)
    assert torch.isfinite(plain.log_prob(torch.from_numpy(codes))).all()
