"""Every likelihood is that of the textbooks: losses, densities and draws, in nats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from twofold.errors import OptionError
from twofold.nn.likelihoods import LIKELIHOODS, Scratch, Unit, register_likelihood


def wide(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


PLAIN = (wide(0, 0, 0), wide(1, 1, 1), wide(0, 0, 0))
LOGS = (wide(0.8, 0.5, 0.1), wide(0.5, 1.0, 0.7), wide(0, 0, 0))
KNOTS, SHARES = wide(-1.5, -0.2, 0.1, 2.0), wide(0.1, 0.4, 0.3, 0.2)
WIDTHS = wide(0.65, 0.8, 1.1, 0.95)  # half the way to both neighbours
PAIR = torch.ones(2, 3, dtype=torch.float64)
# What a decoder may say, the learned spread, and the unit: centre, scale and knots.
SETTINGS: dict[str, tuple[Tensor, Tensor, Unit]] = {
    "gaussian": (wide(-1.2, 0.3, 2.0), wide(0.4, 1.0, 2.5), PLAIN),
    "student_t": (wide(-1.2, 0.3, 2.0), wide(0.4, 1.0, 2.5), PLAIN),
    "bernoulli": (wide(-1.2, 0.3, 2.0), wide(1, 1, 1), PLAIN),
    "categorical": (
        torch.stack([wide(-1.2, 0.3, 2.0), wide(0.5, -0.5, 0.1)]),
        PAIR,
        (0 * PAIR, PAIR, 0 * PAIR),
    ),
    "histogram": (
        wide(-1.2, 0.3, 2.0, 0.4)[None],
        WIDTHS[None],
        (SHARES[None], torch.full((1, 4), 0.7, dtype=torch.float64), KNOTS[None]),
    ),
    "poisson": (wide(-1.2, 0.3, 2.0), wide(1, 1, 1), LOGS),
    "negative_binomial": (wide(-1.2, 0.3, 2.0), wide(0.7, 3.0, 200.0), LOGS),
}
# The decoder says how a row's knots differ from their shares in all rows.
PROBABILITIES = special.softmax(SETTINGS["histogram"][0][0].numpy() + np.log(SHARES.numpy()))


def rate(name: str) -> NDArray[np.float64]:
    theta, _, (center, scale, _) = SETTINGS[name]
    return np.exp((theta * scale + center).numpy())


def counts_as_inputs(name: str, counts: NDArray[np.float64]) -> Tensor:
    _, _, (center, scale, _) = SETTINGS[name]
    return (torch.from_numpy(np.log1p(counts))[:, None] - center) / scale


def test_gaussian_log_density_is_that_of_a_normal() -> None:
    theta, spread, unit = SETTINGS["gaussian"]
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)[:, None]
    found = LIKELIHOODS["gaussian"].log_prob(theta, x, spread, unit)
    np.testing.assert_allclose(found, stats.norm.logpdf(x, theta, spread), rtol=1e-12)


def test_student_t_log_density_is_that_of_4_degrees_of_freedom() -> None:
    theta, spread, unit = SETTINGS["student_t"]
    x = torch.linspace(-50, 50, 41, dtype=torch.float64)[:, None]
    found = LIKELIHOODS["student_t"].log_prob(theta, x, spread, unit)
    np.testing.assert_allclose(found, stats.t.logpdf(x, 4, theta, spread), rtol=1e-12)


def test_bernoulli_log_probability() -> None:
    theta, spread, unit = SETTINGS["bernoulli"]
    x = wide(0, 1)[:, None].expand(2, 3)
    found = LIKELIHOODS["bernoulli"].log_prob(theta.expand(2, 3), x, spread, unit)
    p = special.expit(theta.numpy())
    np.testing.assert_allclose(found, stats.bernoulli.logpmf(x, p), rtol=1e-12)


@pytest.mark.parametrize("theta", [-12.0, -0.5, 0.0, 3.0, 12.0])
def test_a_number_that_no_flag_can_be_is_less_likely_than_either(theta: float) -> None:
    x, one = wide(0, 1, -1, 2, 3, 100), torch.ones(6, dtype=torch.float64)
    log_prob = LIKELIHOODS["bernoulli"].log_prob(theta * one, x, one, (one, one, one))
    flags, others = log_prob[:2], log_prob[2:]
    assert bool((others < flags.min()).all())
    assert bool((others[1:].diff() < 0).all())


def test_categorical_log_probability_is_the_log_of_the_softmax() -> None:
    theta, spread, unit = SETTINGS["categorical"]
    probabilities = np.exp(theta.numpy()) / np.exp(theta.numpy()).sum(1, keepdims=True)
    for level in range(3):
        x = torch.zeros(1, 2, 3, dtype=torch.float64)
        x[..., level] = 1
        found = LIKELIHOODS["categorical"].log_prob(theta[None], x, spread, unit).sum(-1)
        np.testing.assert_allclose(found[0], np.log(probabilities[:, level]), rtol=1e-12)


COUNTS = np.array([0.0, 1, 2, 5, 17, 90])


def test_poisson_log_probability() -> None:
    theta, spread, unit = SETTINGS["poisson"]
    x = counts_as_inputs("poisson", COUNTS)
    found = LIKELIHOODS["poisson"].log_prob(theta.expand_as(x), x, spread, unit)
    expected = stats.poisson.logpmf(COUNTS[:, None], rate("poisson"))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_negative_binomial_log_probability() -> None:
    theta, r, unit = SETTINGS["negative_binomial"]
    x = counts_as_inputs("negative_binomial", COUNTS)
    found = LIKELIHOODS["negative_binomial"].log_prob(theta.expand_as(x), x, r, unit)
    p = r.numpy() / (r.numpy() + rate("negative_binomial"))
    expected = stats.nbinom.logpmf(COUNTS[:, None], r.numpy(), p)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_a_number_below_0_is_less_likely_than_no_count(name: str) -> None:
    theta, spread, unit = SETTINGS[name]
    below = np.array([0.0, 1, 2, 5, 100, 1e6])
    x = (-torch.from_numpy(np.log1p(below))[:, None] - unit[0]) / unit[1]
    found = LIKELIHOODS[name].log_prob(theta.expand_as(x), x, spread, unit)
    assert bool((found.diff(dim=0) < 0).all())


def test_a_histograms_density_is_a_line_between_its_knots() -> None:
    theta, spread, unit = SETTINGS["histogram"]
    heights = PROBABILITIES / WIDTHS.numpy()
    at = np.array([-1.5, -1.0, -0.2, 0.0, 0.1, 1.7, 2.0])
    place = np.interp(at, KNOTS, np.arange(4))
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(4)), 0)
    x = (torch.from_numpy(weights)[:, None] - unit[0]) / unit[1]
    found = LIKELIHOODS["histogram"].log_prob(theta[None].expand(7, 1, 4), x, spread, unit)
    np.testing.assert_allclose(found.sum((1, 2)), np.log(np.interp(at, KNOTS, heights)), rtol=1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_minimises_the_loss(name: str) -> None:
    theta, spread, unit = SETTINGS[name]
    theta = theta[None].clone().requires_grad_()
    x = LIKELIHOODS[name].mean(theta, unit).detach()
    LIKELIHOODS[name].loss(theta, x, spread, unit).sum().backward()
    torch.testing.assert_close(theta.grad, torch.zeros_like(theta), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "histogram"])
def test_loss_and_log_density_of_unit_spread_differ_by_a_constant(name: str) -> None:
    theta, spread, unit = SETTINGS[name]
    one = torch.ones_like(spread)
    hot = torch.eye(3, dtype=torch.float64)
    x = hot[:, None].expand(3, 2, 3) if name == "categorical" else hot
    total = LIKELIHOODS[name].loss(theta.expand_as(x), x, one, unit)
    total = total + LIKELIHOODS[name].log_prob(theta.expand_as(x), x, one, unit)
    torch.testing.assert_close(total, total.flatten()[0].expand_as(total))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("of", ["loss", "log_prob"])
def test_gradients_are_those_of_finite_differences(name: str, of: str) -> None:
    theta, spread, unit = SETTINGS[name]
    theta = theta[None].clone().requires_grad_()
    x = torch.linspace(0.1, 0.9, theta.numel(), dtype=torch.float64).reshape(theta.shape)
    function = getattr(LIKELIHOODS[name], of)

    def in_theta(theta: Tensor) -> Tensor:
        result: Tensor = function(theta, x, spread, unit)
        return result

    assert torch.autograd.gradcheck(in_theta, theta)


DRAWS = 40_000
# The variance of a draw, in the unit of what `moments_of` takes it to.
VARIANCES: dict[str, Callable[[], NDArray[np.float64]]] = {
    "gaussian": lambda: SETTINGS["gaussian"][1].numpy() ** 2,
    "student_t": lambda: 2 * SETTINGS["student_t"][1].numpy() ** 2,
    "bernoulli": lambda: (p := special.expit(SETTINGS["bernoulli"][0].numpy())) * (1 - p),
    "categorical": lambda: (p := special.softmax(SETTINGS["categorical"][0].numpy(), 1)) * (1 - p),
    "poisson": lambda: rate("poisson"),
    "negative_binomial": lambda: (
        rate("negative_binomial")
        + rate("negative_binomial") ** 2 / SETTINGS["negative_binomial"][1].numpy()
    ),
}


def drawn(name: str, seed: int = 0) -> NDArray[np.float64]:
    theta, spread, unit = SETTINGS[name]
    many = theta.expand(DRAWS, *theta.shape)
    generator = torch.Generator().manual_seed(seed)
    x = LIKELIHOODS[name].draw(many, spread, unit, generator)
    counts = np.expm1((x * unit[1] + unit[0]).numpy())
    return counts if name in ("poisson", "negative_binomial") else x.numpy()


@pytest.mark.parametrize("name", VARIANCES)
def test_draws_have_the_mean_and_the_variance(name: str) -> None:
    theta, _, unit = SETTINGS[name]
    x = drawn(name)
    counts = name in ("poisson", "negative_binomial")
    mean = rate(name) if counts else LIKELIHOODS[name].mean(theta, unit).numpy()
    variance = VARIANCES[name]()
    assert (np.abs(x.mean(0) - mean) < 5 * np.sqrt(variance / DRAWS)).all()
    np.testing.assert_allclose(x.var(0), variance, rtol=0.25 if name == "student_t" else 0.06)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_drawn_counts_are_whole(name: str) -> None:
    counts = drawn(name)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert counts.min() >= 0


def test_drawn_categories_are_one_level_each() -> None:
    x = drawn("categorical")
    assert (np.sort(x, axis=-1) == [0, 0, 1]).all()


def test_draws_of_a_t_have_its_tails() -> None:
    x, (theta, spread, _) = drawn("student_t"), SETTINGS["student_t"]
    standard = ((x - theta.numpy()) / spread.numpy()).ravel()
    assert stats.kstest(standard, stats.t(4).cdf).pvalue > 1e-3


def test_draws_of_a_histogram_lie_as_its_density_says() -> None:
    _, scale, _ = SETTINGS["histogram"][2]
    places = (drawn("histogram") * scale.numpy() + SHARES.numpy())[:, 0] @ KNOTS.numpy()
    grid = np.linspace(-1.5, 2.0, 2001)
    density = np.interp(grid, KNOTS, PROBABILITIES / WIDTHS.numpy())
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    assert below[-1] == pytest.approx(1, rel=1e-3)
    assert stats.kstest(places, lambda at: np.interp(at, grid, below)).pvalue > 1e-3


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_follow_their_generator_alone(name: str, untouched_random_state: None) -> None:
    np.testing.assert_array_equal(drawn(name, 1), drawn(name, 1))
    assert (drawn(name, 1) != drawn(name, 2)).any()


@pytest.mark.parametrize("theta", [-200.0, 200.0])
def test_bernoulli_loss_keeps_its_digits_far_out(theta: float) -> None:
    far = torch.full((2, 4), theta, dtype=torch.float32)
    wrong = torch.full((2, 4), float(theta < 0))
    one = torch.ones(4)
    assert (
        LIKELIHOODS["bernoulli"].loss(far, wrong, one, (one, one, one)).tolist()
        == [[200.0] * 4] * 2
    )


@pytest.mark.parametrize("name", [name for name, one in LIKELIHOODS.items() if one.is_fused])
def test_a_residual_is_the_gradient_of_the_loss(name: str) -> None:
    theta, spread, unit = SETTINGS[name]
    x = wide(0.1, 0.8, 0.3)
    leaf = theta.clone().requires_grad_()
    loss = LIKELIHOODS[name].loss(leaf, x, spread, unit).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    residual = theta.clone()
    total = LIKELIHOODS[name].residual(residual, x.expand_as(theta), Scratch(x))
    torch.testing.assert_close(residual, gradient)
    torch.testing.assert_close(total, loss.detach())


@pytest.mark.parametrize("name", ["gaussian", "student_t", "bernoulli", "categorical"])
def test_theta_at_a_mean_gives_that_mean_back(name: str) -> None:
    mean = wide(0.2, 0.5, 0.3)
    theta = LIKELIHOODS[name].theta_at(mean)
    torch.testing.assert_close(LIKELIHOODS[name].mean(theta, PLAIN), mean)


def test_theta_of_a_histogram_is_about_the_shares_of_all_rows() -> None:
    _, _, unit = SETTINGS["histogram"]
    theta = LIKELIHOODS["histogram"].theta_at(wide(0.1, -0.2, 0.3, 0.0)[None])
    mean = LIKELIHOODS["histogram"].mean(theta, unit)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["gaussian", "auto", "Own", "", "own:1"])
def test_a_name_that_is_taken_or_no_word_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"Choose another"):
        register_likelihood(name, LIKELIHOODS["gaussian"])


def test_a_likelihood_without_a_residual_says_so() -> None:
    with pytest.raises(OptionError, match="Expected StudentT to have the method residual"):
        LIKELIHOODS["student_t"].residual(torch.zeros(2), torch.zeros(2), Scratch(torch.zeros(2)))
