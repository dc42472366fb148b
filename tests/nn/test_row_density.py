"""The density of rows: clusters found, anomalies left out, holes, and what is typical."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from twofold.nn import row_density
from twofold.nn.row_density import FLOORS, RowDensity

RNG = np.random.default_rng(4)
EVERY = [slice(None)]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(*arrays: NDArray[Any]) -> list[Tensor]:
    return [torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in arrays]


def fitted(x_hat: Tensor, x: Tensor, normal: list[int] | None = None, seed: int = 0) -> RowDensity:
    chosen = list(range(x.shape[1])) if normal is None else normal
    model = RowDensity(x.shape[1], chosen).double()
    model.fit(x_hat, x, None, EVERY, source(seed))
    return model


def cloud(n: int, width: int = 3, noise: float = 0.3) -> list[Tensor]:
    """Expected rows from a normal law, and rows around them."""
    x_hat = RNG.normal(size=(n, width))
    return tensors(x_hat, x_hat + noise * RNG.normal(size=(n, width)))


def plain(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """One cluster, one fit, nothing trimmed, no floor: a normal density in closed form."""
    settings = {"COMPONENTS": 1, "FLOORS": (0.0,), "TRIMMED": 0.0, "_KNEE": 1e9, **changes}
    for name, value in settings.items():
        monkeypatch.setattr(row_density, name, value)


def test_one_cluster_is_a_normal_density_of_expected_rows_and_residuals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain(monkeypatch)
    x_hat, x = cloud(500)
    spread = x.std(0, correction=0)
    u = torch.cat([(x_hat - x.mean(0)) / spread, (x - x_hat) / spread], 1).numpy()
    expected = stats.norm.logpdf(u, u.mean(0), u.std(0)).sum(1)
    found = fitted(x_hat, x).log_prob(x_hat, x, None)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_residuals_of_other_inputs_are_left_to_their_likelihoods() -> None:
    x_hat, x = cloud(300)
    model = fitted(x_hat, x, normal=[0])
    moved = x.clone()
    moved[:, 1:] += 5
    assert torch.equal(model.log_prob(x_hat, x, None), model.log_prob(x_hat, moved, None))
    moved[:, 0] += 5
    assert (model.log_prob(x_hat, moved, None) < model.log_prob(x_hat, x, None)).all()


def two_clouds(share: float, n: int = 1000) -> list[Tensor]:
    """Rows of which `share` lie in a cloud of their own, far off."""
    centers = np.where(RNG.random((n, 1)) < share, 8.0, 0.0)
    x_hat = centers + RNG.normal(size=(n, 4))
    return tensors(x_hat, x_hat + 0.2 * RNG.normal(size=(n, 4)))


def test_a_large_cluster_is_as_normal_as_another() -> None:
    x_hat, x = two_clouds(0.5)
    scores = fitted(x_hat, x).log_prob(x_hat, x, None)
    far = x_hat.mean(1) > 4
    assert abs(float(scores[far].mean() - scores[~far].mean())) < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_of_few_is_odd_and_not_normal(seed: int) -> None:
    x_hat, x = two_clouds(0.03)
    scores = fitted(x_hat, x, seed=seed).log_prob(x_hat, x, None)
    far = x_hat.mean(1) > 4
    assert scores[far].max() < scores[~far].quantile(0.05)


def test_anomalies_among_the_training_rows_do_not_widen_the_density() -> None:
    x_hat, x = cloud(1000)
    clean = fitted(x_hat, x).log_prob(x_hat, x, None)
    spoilt = x.clone()
    spoilt[:80] += torch.from_numpy(RNG.choice([-6.0, 6.0], size=(80, 3)))
    scores = fitted(x_hat, spoilt).log_prob(x_hat, spoilt, None)
    assert scores[:80].max() < scores[80:].quantile(0.05)
    # The others hardly score otherwise than without them (units grow with the spread).
    order = np.corrcoef(stats.rankdata(clean[80:]), stats.rankdata(scores[80:]))[0, 1]
    assert order > 0.9


def test_no_variance_falls_below_its_floor() -> None:
    x_hat, _ = cloud(400)
    model = fitted(x_hat, x_hat.clone())  # residuals are exactly zero
    for variance, floor in zip(model.variance, FLOORS, strict=True):
        assert variance.min() >= floor * (1 - 1e-9)
    assert torch.isfinite(model.log_prob(x_hat, x_hat, None)).all()


def test_a_small_error_in_a_settled_column_is_seen() -> None:
    x_hat, x = cloud(2000, noise=0.02)
    model = fitted(x_hat, x)
    wrong = x.clone()
    wrong[:, 1] += 1.0  # one standard deviation of the column, fifty of its residuals
    scores, before = model.log_prob(x_hat, wrong, None), model.log_prob(x_hat, x, None)
    assert float((scores < before.quantile(0.05)).double().mean()) > 0.9


def test_a_missing_residual_counts_what_it_counts_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain(monkeypatch)
    x_hat, x = cloud(4000)
    model = fitted(x_hat, x)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, 2] = False
    holed = model.log_prob(x_hat, torch.where(seen, x, 0.0), seen)
    whole = model.log_prob(x_hat, x, None)
    assert float(holed.mean()) == pytest.approx(float(whole.mean()), abs=1e-6)
    assert float(holed.std()) < float(whole.std())


def test_what_stands_in_a_hole_does_not_matter() -> None:
    x_hat, x = cloud(50)
    seen = torch.from_numpy(RNG.random(x.shape) < 0.7)
    model = fitted(*cloud(500))
    scores = [model.log_prob(x_hat, torch.where(seen, x, fill), seen) for fill in (0.0, 77.0)]
    torch.testing.assert_close(*scores)


def test_holes_in_the_training_rows_change_little() -> None:
    x_hat, x = cloud(3000)
    seen = torch.from_numpy(RNG.random(x.shape) < 0.8)
    model = RowDensity(3, [0, 1, 2]).double()
    model.fit(x_hat, torch.where(seen, x, 0.0), seen, EVERY, source())
    whole = fitted(x_hat, x).log_prob(x_hat, x, None)
    found = model.log_prob(x_hat, x, None)
    assert np.corrcoef(found, whole)[0, 1] > 0.97


def test_the_same_seed_finds_the_same_clusters() -> None:
    x_hat, x = two_clouds(0.4)
    a, b = (fitted(x_hat, x, seed=3) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.buffers(), b.buffers(), strict=True))


def test_fitting_touches_no_global_random_state(untouched_random_state: None) -> None:
    fitted(*cloud(60))


@pytest.mark.parametrize("n_rows", [2, 5, 30])
def test_a_few_rows_are_enough(n_rows: int) -> None:
    x_hat, x = cloud(n_rows)
    assert torch.isfinite(fitted(x_hat, x).log_prob(x_hat, x, None)).all()


def test_rows_that_never_vary_have_a_finite_density() -> None:
    (x,) = tensors(np.full((40, 2), 3.0))
    assert torch.isfinite(fitted(x, x).log_prob(x, x, None)).all()


def test_the_farther_the_less_likely_without_end() -> None:
    model = fitted(*cloud(500))
    way = torch.logspace(0.5, 8, 20, dtype=torch.float64)[:, None].expand(-1, 3)
    scores = model.log_prob(torch.zeros_like(way), way, None)
    assert (scores.diff() < 0).all()


def test_typical_is_the_mean_of_the_rows_own_cluster() -> None:
    x_hat, x = two_clouds(0.5)
    model = fitted(x_hat, x)
    middle, surprise = model.typical(x_hat, x, None)
    far = x_hat.mean(1) > 4
    assert (middle[far] - 8).abs().max() < 2
    assert middle[~far].abs().max() < 2
    odd = x_hat[~far].clone()
    odd[:, 0] = 30.0
    _, more = model.typical(odd, odd, None)
    assert (more[:, 0] > surprise[~far][:, 0]).all()
    assert (more[:, 0] > more[:, 1:].max(1).values).all()


def test_fits_are_averaged() -> None:
    x_hat, x = cloud(200)
    model = fitted(x_hat, x)
    u, known = model._features(x_hat, x, None)
    parts = [
        row_density._component_log_prob(u, known, *fit).logsumexp(1)
        for fit in zip(model.log_weight, model.mean, model.variance, strict=True)
    ]
    assert len(parts) == len(FLOORS)
    torch.testing.assert_close(model.log_prob(x_hat, x, None), torch.stack(parts).mean(0))


def test_components_weigh_one_together() -> None:
    x_hat, x = two_clouds(0.3)
    weights = fitted(x_hat, x).log_weight.exp().sum(1)
    torch.testing.assert_close(weights, torch.ones_like(weights))
    assert math.isinf(float(RowDensity(2, []).log_weight.max()))
