"""Each kind of bottleneck does what its paper says, in small, and dead components live again."""

from __future__ import annotations

import copy
import io
import math
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor

from twofold import Autoencoder, Masking, Ordered, Plain, Sparse, Variational, load
from twofold.data.table import Table
from twofold.errors import (
    CollapsedCodeWarning,
    LosesToPCAWarning,
    OptionError,
    TooFewComponentsWarning,
)
from twofold.nn.bottleneck import from_json, to_json
from twofold.nn.bottlenecks import OrderedCode, VariationalCode
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema

Array = NDArray[Any]
RNG = np.random.default_rng(7)
ROWS = (RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 8)) + 0.3 * RNG.normal(size=(300, 8))) + 5
# All columns have as much noise beside as much signal: one noise for all is the truth.
EVEN = RNG.normal(size=(300, 3)) @ np.sign(RNG.normal(size=(3, 8))) + 0.5 * RNG.normal(
    size=(300, 8)
)
DIGITS = (load_digits().data[:800] / 16).astype(np.float32)
QUICK: dict[str, Any] = {"n_components": 4, "epochs": 3, "random_state": 0, "patience": None}
KINDS: tuple[Any, ...] = (
    Plain(),
    Sparse("l1"),
    Sparse("kl"),
    Sparse("topk", k=2),
    Variational(),
    Variational(beta=4.0, n_samples=3),
    Ordered(),
    Ordered(sizes=(1, 3)),
)
pytestmark = pytest.mark.filterwarnings(
    "ignore::twofold.errors.LosesToPCAWarning", "ignore::twofold.errors.CollapsedCodeWarning"
)


def made(kind: Any, **options: Any) -> Autoencoder:
    bends = "sigmoid" if kind == Sparse("kl") else "identity"
    return Autoencoder(**{**QUICK, "bottleneck": kind, "code_activation": bends, **options})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(3), dtype=torch.float64)


# --- all kinds


@pytest.fixture(scope="module", params=KINDS, ids=repr)
def fitted(request: pytest.FixtureRequest) -> Autoencoder:
    """A fitted model of each kind, which no test changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made(request.param).fit(ROWS)


def test_a_saved_model_scores_the_same_bits(fitted: Autoencoder, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.score_samples(ROWS).tobytes() == fitted.score_samples(ROWS).tobytes()
    assert again.get_params() == fitted.get_params()


def test_one_row_at_a_time_scores_as_all_at_once(fitted: Autoencoder) -> None:
    single = np.concatenate([fitted.score_samples(ROWS[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(single, fitted.score_samples(ROWS[:9]), rtol=1e-10)


def test_explanations_add_up(fitted: Autoencoder) -> None:
    found = fitted.explain(ROWS[:6])
    total = found.base + found.contribution.sum(axis=1)
    np.testing.assert_allclose(total, -fitted.score_samples(ROWS[:6]), rtol=1e-4)


def test_copies_go_on_alike(fitted: Autoencoder) -> None:
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    first, second = copy.deepcopy(fitted), joblib.load(buffer)
    scores = [ae.partial_fit(ROWS).score_samples(ROWS) for ae in (first, second)]
    assert scores[0].tobytes() == scores[1].tobytes()
    assert scores[0].tobytes() != fitted.score_samples(ROWS).tobytes()


def test_the_same_seed_gives_the_same_bits(
    fitted: Autoencoder, untouched_random_state: None
) -> None:
    again = clone(fitted).fit(ROWS)
    assert again.transform(ROWS).tobytes() == fitted.transform(ROWS).tobytes()
    assert again.sample(5, random_state=1).tobytes() == fitted.sample(5, random_state=1).tobytes()


def test_the_bottleneck_is_an_option_like_others(fitted: Autoencoder) -> None:
    assert clone(fitted).get_params()["bottleneck"] == fitted.bottleneck


def test_rows_with_holes_are_fine(fitted: Autoencoder) -> None:
    rows = ROWS.copy()
    rows[::3, 2] = np.nan
    ae = clone(fitted).fit(rows)
    assert np.isfinite(ae.score_samples(rows)).all()
    assert np.isfinite(ae.impute(rows)).all()


def test_corrupted_rows_are_fine(fitted: Autoencoder) -> None:
    ae = clone(fitted).set_params(corruption=Masking(0.2)).fit(ROWS)
    assert np.isfinite(ae.score_samples(ROWS)).all()


def test_new_rows_are_finite(fitted: Autoencoder) -> None:
    assert np.isfinite(fitted.sample(50, random_state=0)).all()


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_value_goes_to_plain_data_and_back(kind: Any) -> None:
    assert from_json(to_json(kind)) == kind


# --- sparse


def test_topk_keeps_the_k_of_largest_size() -> None:
    code, penalties = Sparse("topk", k=3).module(8, 5)(draw(40, 8), [])
    kept = code != 0
    assert (kept.sum(1) == 3).all()
    assert penalties == {}
    sizes = draw(40, 8).abs()
    assert (sizes[kept].reshape(40, 3).amin(1) >= sizes[~kept].reshape(40, 5).amax(1)).all()


def test_topk_codes_of_a_fitted_model_have_k_numbers() -> None:
    codes = made(Sparse("topk", k=2)).fit(ROWS).transform(ROWS)
    assert ((codes != 0).sum(1) == 2).all()


def test_topk_draws_codes_as_sparse_as_those() -> None:
    ae = made(Sparse("topk", k=2)).fit(ROWS)
    assert ((ae.network_.bottleneck.sample(30, seeded()) != 0).sum(1) == 2).all()


def test_l1_is_the_summed_size() -> None:
    code = draw(9, 4)
    _, penalties = Sparse("l1", weight=0.7).module(4, 5)(code, [])
    torch.testing.assert_close(penalties["sparsity"], 0.7 * code.abs().sum(1))


def test_hidden_layers_are_counted_where_asked_for() -> None:
    code, row, hidden = draw(9, 4), draw(9, 6), draw(9, 5)
    _, penalties = Sparse("l1", weight=1.0, hidden=True).module(4, 5)(code, [row, hidden])
    torch.testing.assert_close(penalties["sparsity"], code.abs().sum(1) + hidden.abs().sum(1))


@pytest.mark.parametrize("kind", ["l1", "kl"])
def test_more_weight_makes_codes_sparser(kind: str) -> None:
    def size(weight: float) -> float:
        bends = "sigmoid" if kind == "kl" else "relu"
        ae = made(Sparse(kind, weight=weight), code_activation=bends, epochs=15, n_components=16)
        return float(np.abs(ae.fit(DIGITS).transform(DIGITS)).mean())

    assert size(3.0) < 0.8 * size(0.01)


def test_mean_activities_reach_their_target() -> None:
    sparse = Sparse("kl", target=0.1, weight=10.0)
    ae = made(sparse, code_activation="sigmoid", n_components=12, epochs=60, batch_size=64)
    means = ae.fit(DIGITS).transform(DIGITS).mean(0)
    assert np.abs(means - 0.1).max() < 0.05


# --- variational


def module(beta: float = 1.0, n_samples: int = 1) -> VariationalCode:
    made_ = Variational(beta, n_samples).module(4, 5).double()
    made_.weight.data.copy_(0.3 * draw(4, 5))
    return made_


def test_the_divergence_is_that_of_normal_densities() -> None:
    code, mean, below = module(beta=2.0), draw(9, 4), draw(9, 5)
    _, penalties = code(mean, [below])
    spread = (0.5 * code.log_variance([below])).exp()
    posterior = torch.distributions.Normal(mean, spread)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(penalties["kl"], 2 * expected)


def test_without_a_generator_the_code_is_its_mean() -> None:
    assert torch.equal(module()(draw(9, 4), [draw(9, 5)])[0], draw(9, 4))


def test_draws_are_normal_about_the_mean() -> None:
    code, below = module(), draw(1, 5)
    mean, spread = draw(1, 4), (0.5 * code.log_variance([below])).exp()
    drawn, _ = code(mean.repeat(20_000, 1), [below.repeat(20_000, 1)], seeded())
    white = ((drawn - mean) / spread).detach()
    assert float(white.mean(0).abs().max()) < 0.03
    assert float((white.std(0) - 1).abs().max()) < 0.03


def test_the_loss_of_several_draws_is_that_of_importance_weights() -> None:
    # Burda et al., 2016, eq. 8, row by row and draw by draw.
    schema = Schema.infer(Table(ROWS))
    objective = Objective(schema, adapts=True).double()
    network = Network(8, (5,), 4, bottleneck=Variational(n_samples=3), generator=seeded()).double()
    x = torch.from_numpy(schema.to_matrix(Table(ROWS[:6]), np.float64))
    theta, penalties = network(x, seeded(1))
    found = objective.loss(theta, x, penalties)

    code = network.bottleneck
    assert isinstance(code, VariationalCode)
    *path, mean = network.path(x)
    spread = (0.5 * code.log_variance(path)).exp()
    noise = torch.randn(18, 4, generator=seeded(1), dtype=torch.float64)
    total = 0.0
    for i in range(6):
        logs = []
        for draw_ in range(3):
            z = mean[i] + spread[i] * noise[draw_ * 6 + i]
            q = torch.distributions.Normal(mean[i], spread[i]).log_prob(z).sum()
            p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
            x_hat = network.decode(z[None])[0]
            cells = -0.5 * ((x[i] - x_hat) ** 2).sum()
            logs.append(cells + p - q)
        total -= float(torch.stack(logs).detach().logsumexp(0)) - math.log(3)
    assert float(found.detach()) == pytest.approx(total / 48, rel=1e-9)


def test_the_scale_between_encoder_and_decoder_is_learned() -> None:
    ae = made(Variational(), epochs=30, hidden_layers=()).fit(ROWS * 9)
    code = ae.network_.bottleneck
    assert isinstance(code, VariationalCode)
    gain = code.log_gain.detach()
    assert float(gain.abs().max()) > 0.05
    torch.testing.assert_close(code.widen(torch.ones(1, 4))[0].detach(), gain.exp())


@pytest.fixture(scope="module")
def linear() -> Autoencoder:
    """A linear variational network on normal columns, trained to convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made(
            Variational(), n_components=3, hidden_layers=(), epochs=40, kinds="real",
            pretraining="pca", validation_fraction=0.0,
        ).fit(EVEN)  # fmt: skip


def exact_log_density(ae: Autoencoder, rows: Array) -> Array:
    """What a linear decoder with normal codes and noise says of rows, in closed form."""
    zero = torch.zeros(1, 3)
    with torch.no_grad():
        centre = ae.network_.decode(zero)[0]
        columns = ae.network_.decode(torch.eye(3)) - centre
    noise = ae.scorer_.spread.double().numpy() ** 2
    covariance = columns.double().numpy().T @ columns.double().numpy() + np.diag(noise)
    x = (rows - ae.schema_.center) / ae.schema_.scale
    found = stats.multivariate_normal(centre.double().numpy(), covariance).logpdf(x)
    return np.asarray(found - np.log(ae.schema_.scale).sum())


def test_the_bound_is_below_the_exact_density_and_near(linear: Autoencoder) -> None:
    exact = exact_log_density(linear, EVEN)
    assert linear.score(EVEN) <= exact.mean()
    assert linear.score(EVEN) == pytest.approx(exact.mean(), abs=0.2)


def test_importance_weights_come_nearer_to_the_exact_density(linear: Autoencoder) -> None:
    exact = exact_log_density(linear, EVEN)
    found = linear.log_likelihood(EVEN, 400, random_state=0)
    assert linear.score(EVEN) < found.mean() < exact.mean() + 0.01
    assert found.mean() == pytest.approx(exact.mean(), abs=0.02)


def test_its_density_is_that_of_probabilistic_pca(linear: Autoencoder) -> None:
    x = (EVEN - EVEN.mean(0)) / EVEN.std(0)
    expected = PCA(3).fit(x).score(x) - np.log(EVEN.std(0)).sum()
    assert exact_log_density(linear, EVEN).mean() == pytest.approx(expected, abs=0.1)


def test_more_draws_are_tighter_in_the_mean() -> None:
    ae = made(Variational(), epochs=20).fit(ROWS)
    few, many = (ae.log_likelihood(ROWS, n, random_state=0).mean() for n in (2, 100))
    assert ae.score(ROWS) < few + 0.2
    assert few < many


def test_the_likelihood_of_other_codes_is_refused() -> None:
    with pytest.raises(OptionError, match="Expected a variational bottleneck"):
        made(Plain()).fit(ROWS).log_likelihood(ROWS)


def test_new_codes_come_from_the_prior() -> None:
    codes = module().sample(20_000, seeded())
    np.testing.assert_allclose(codes.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(codes.std(0), 1, atol=0.03)


def test_new_rows_are_like_those_of_training(linear: Autoencoder) -> None:
    drawn = linear.sample(20_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), EVEN.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(EVEN.T), rtol=0.1, atol=0.25)


def test_more_beta_tells_less() -> None:
    def told(beta: float) -> float:
        ae = made(Variational(beta=beta), epochs=25).fit(ROWS)
        kl = ae.code_statistics(ROWS).kl
        assert kl is not None
        return float(kl.sum())

    assert told(8.0) < 0.8 * told(0.5)


def test_a_code_that_is_used_is_not_told(linear: Autoencoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapsedCodeWarning)
        clone(linear).fit(EVEN)


def test_components_in_use_vary_by_their_mean(linear: Autoencoder) -> None:
    found = linear.code_statistics(EVEN)
    assert found.n_active == int((linear.transform(EVEN).var(0) > 0.01).sum()) == 3
    assert found.kl is not None
    assert (found.kl > 0.1).all()


# --- ordered


def spectrum() -> Array:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1500, 8)) * np.array([6, 4, 2.5, 1.5, 0.3, 0.3, 0.3, 0.3])
    turned = rows @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    return np.asarray(turned / turned.std())


@pytest.fixture(scope="module")
def ordered() -> tuple[Autoencoder, Array]:
    """A linear ordered network, and rows whose components are clearly apart."""
    rows = spectrum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae = made(Ordered(), hidden_layers=(), epochs=60, kinds="real").fit(rows)
    return ae, rows


def test_components_are_those_of_pca_in_their_order(ordered: tuple[Autoencoder, Array]) -> None:
    # Rippel, Gelbart and Adams, 2014, theorem 1: orthonormal rows give PCA's components.
    ae, rows = ordered
    x = (rows - rows.mean(0)) / rows.std(0)
    expected = PCA(4).fit(x).components_
    found = ae.network_.pairs[0].weight.detach().numpy()
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs((found * expected).sum(1)).min() > 0.98


def test_shares_of_variance_are_those_of_pca(ordered: tuple[Autoencoder, Array]) -> None:
    ae, rows = ordered
    x = (rows - rows.mean(0)) / rows.std(0)
    expected = PCA(4).fit(x).explained_variance_ratio_
    np.testing.assert_allclose(ae.explained_variance_ratio_, expected, atol=0.03)


def test_codes_that_are_cut_off_become_rows(ordered: tuple[Autoencoder, Array]) -> None:
    ae, rows = ordered
    codes = ae.transform(rows)
    errors = [((ae.inverse_transform(codes[:, :k]) - rows) ** 2).sum() for k in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)


def test_codes_of_other_kinds_cannot_be_cut_off() -> None:
    from twofold.errors import DataError

    ae = made(Plain()).fit(ROWS)
    with pytest.raises(DataError, match="Expected codes with 4 components, got"):
        ae.inverse_transform(ae.transform(ROWS)[:, :2])


def test_shares_of_other_kinds_are_told_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="components are ordered"):
        _ = made(Plain()).fit(ROWS).explained_variance_ratio_


def test_the_last_components_are_dropped_at_random() -> None:
    code = torch.ones(3000, 20)
    first = OrderedCode(Ordered(n_cuts=1), 20)(code, [], seeded())[0]
    kept = (first != 0).sum(1)
    for k in (1, 2, 5, 10, 20):
        assert (kept == k).any()
    assert 0.3 < float((kept == 20).double().mean()) < 0.45
    assert (first[:, :-1] >= first[:, 1:]).all()


def test_each_row_is_cut_at_several_sizes_at_once() -> None:
    code = draw(300, 20)
    cuts = OrderedCode(Ordered(n_cuts=3), 20)(code, [], seeded())[0].view(3, 300, 20)
    assert torch.equal(torch.where(cuts != 0, code, 0.0), cuts)
    kept = (cuts != 0).sum(2).double()
    assert ((kept == 20).sum(0) >= 1).all()  # the whole code is always among them
    assert (kept.min(0).values < 20).all()


def test_named_sizes_are_cut_at_in_every_row_and_each_row_is_whole_once() -> None:
    code = draw(50, 20)
    cuts = OrderedCode(Ordered(sizes=(10, 2)), 20)(code, [], seeded())[0].view(3, 50, 20)
    for cut, size in zip(cuts, (2, 10, 20), strict=True):
        assert torch.equal(cut[:, :size], code[:, :size])
        assert not cut[:, size:].any()


def test_named_sizes_do_better_than_where_all_are_taught() -> None:
    def error(how: Ordered) -> float:
        ae = made(how, n_components=16, hidden_layers=(64, 32), epochs=30).fit(DIGITS)
        short = ae.inverse_transform(ae.transform(DIGITS)[:, :2])
        return float(((short - DIGITS) ** 2).sum())

    assert error(Ordered(sizes=(2, 8))) < 0.95 * error(Ordered())


def test_variance_between_named_sizes_belongs_to_the_next_one() -> None:
    ae = made(Ordered(sizes=(2,)), hidden_layers=()).fit(spectrum())
    ratio = ae.explained_variance_ratio_
    assert ratio[0] == 0
    assert ratio[1] > 0
    assert (ratio[2:-1] == 0).all()
    assert ratio[-1] >= 0


def test_several_cuts_are_worth_the_mean_of_their_losses() -> None:
    rows = spectrum()
    ae = made(Ordered(), hidden_layers=()).fit(rows)
    x, objective = draw(6, rows.shape[1]), ae._objective
    theta = draw(12, rows.shape[1])
    halves = [objective.loss(part, x, {}) for part in theta.split(6)]
    assert objective.loss(theta, x, {}) == pytest.approx(float(sum(halves) / 2), rel=1e-5)
    x[2, 1] = torch.nan  # a hole weighs nothing in any of them
    halves = [objective.loss(part, x, {}) for part in theta.split(6)]
    assert objective.loss(theta, x, {}) == pytest.approx(float(sum(halves) / 2), rel=1e-5)


def test_without_chance_nothing_is_dropped() -> None:
    assert torch.equal(OrderedCode(Ordered(), 4)(draw(9, 4), [])[0], draw(9, 4))


@pytest.mark.parametrize("share", [0.9, 0.95])
def test_a_share_picks_no_more_components_than_pca(share: float) -> None:
    rows = spectrum()[:500]
    ae = Autoencoder(
        n_components=share, hidden_layers=(), epochs=60, kinds="real", random_state=0
    ).fit(rows)
    x = (rows - rows.mean(0)) / rows.std(0)
    needed = int(np.searchsorted(np.cumsum(PCA().fit(x).explained_variance_ratio_), share)) + 1
    assert ae.transform(rows).shape[1] <= needed + 1
    assert ae.explained_variance_ratio_.sum() >= share


def test_a_share_that_is_not_reached_is_told() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 6))
    ae = Autoencoder(
        n_components=0.99, shortcut=False, epochs=1, learning_rate=1e-6, random_state=0
    )
    with pytest.warns(TooFewComponentsWarning, match="train for more epochs"):
        ae.fit(noise)


def test_short_codes_of_digits_beat_pca_of_that_size() -> None:
    ae = made(Ordered(), n_components=16, hidden_layers=(40,), epochs=40)
    codes = ae.fit(DIGITS).transform(DIGITS)
    for k in (1, 2, 4, 8, 16):
        pca = PCA(k).fit(DIGITS)
        best = ((pca.inverse_transform(pca.transform(DIGITS)) - DIGITS) ** 2).sum()
        assert ((ae.inverse_transform(codes[:, :k]) - DIGITS) ** 2).sum() < best


# --- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bottleneck": "sparse:kl"}, "code_activation between 0 and 1"),
        (
            {"bottleneck": Sparse("kl", hidden=True), "code_activation": "sigmoid"},
            "activities of hidden layers",
        ),
        ({"bottleneck": "variational", "code_activation": "tanh"}, "means of any size"),
        ({"bottleneck": "sparse:topk:9"}, "Expected k of at most n_components=4"),
        ({"bottleneck": "variational", "n_components": 0.9}, "has no order"),
        ({"bottleneck": "ordered:0"}, "an integer of at least 1"),
        ({"bottleneck": "ordered:2,9"}, "sizes of at most n_components=4"),
        ({"bottleneck": "ordered:2,3", "n_components": 0.9}, "the smallest of all sizes"),
        ({"bottleneck": Sparse("l1"), "n_components": 0.9}, "has no order"),
        ({"bottleneck": "variational:zero"}, "with details, got 'variational:zero'"),
        ({"bottleneck": "sparse:l3"}, r"Expected Sparse\('l1'\), 'kl' or 'topk'"),
        ({"bottleneck": "ordered:2:3"}, "with details, got 'ordered:2:3'"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Autoencoder(**QUICK | options).fit(ROWS)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Sparse("l2"), r"Expected Sparse\('l1'\)"),
        (lambda: Sparse(weight=0), "weight to be above 0"),
        (lambda: Sparse("kl", target=1), "target to be between"),
        (lambda: Sparse("topk", k=0), "k to be an integer"),
        (lambda: Sparse("topk", weight=1.0), "Expected no penalty"),
        (lambda: Sparse("l1", k=3), "k with 'topk' only"),
        (lambda: Ordered(sizes=()), "sequence of integers"),
        (lambda: Ordered(sizes=10), r"as in Ordered\(sizes=\(2, 10\)\)"),
        (lambda: Ordered(sizes=(0, 2)), "sequence of integers"),
        (lambda: Ordered(n_cuts=5, sizes=(2,)), "Leave one out"),
        (lambda: Variational(beta=0), "beta to be above 0"),
        (lambda: Variational(n_samples=0), "to be an integer"),
    ],
)
def test_a_value_of_no_meaning_is_refused(make: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


def test_a_share_cannot_be_settled_in_parts() -> None:
    with pytest.raises(OptionError, match="needs an integer n_components"):
        Autoencoder(**QUICK | {"n_components": 0.9}).partial_fit(ROWS)


@pytest.mark.parametrize("bottleneck", [Sparse("l1", weight=50.0), Ordered()])
def test_only_plain_codes_are_measured_by_pca(bottleneck: Any) -> None:
    x = np.random.RandomState(0).standard_normal((200, 3)) @ np.ones((3, 6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Autoencoder(n_components=2, epochs=1, bottleneck=bottleneck, random_state=0).fit(x)
    assert not any(issubclass(warning.category, LosesToPCAWarning) for warning in caught)
    with pytest.warns(LosesToPCAWarning):
        Autoencoder(n_components=2, shortcut=False, epochs=1, random_state=0).fit(x)
