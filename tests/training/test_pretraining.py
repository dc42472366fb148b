"""Pretraining: PCA's error before the first update, and levels that learn one after another."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from twofold import Autoencoder, Conv, Gaussian, Masking, Sparse, Variational
from twofold.data.sources import read
from twofold.data.table import Table
from twofold.errors import InterruptedWarning, OptionError
from twofold.inference import apply as inference
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training import pretraining as subject
from twofold.training import trainer
from twofold.training.batches import Selection, TrainingData
from twofold.training.config import TrainingConfig
from twofold.training.events import Event
from twofold.training.trainer import Trainer, evaluate

Array = NDArray[Any]
RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(400, 10)) @ RNG.normal(size=(10, 10)) + 7
DIGITS = (load_digits().data[:900] / 16).astype(np.float32)
QUICK: dict[str, Any] = {
    "hidden_layers": "halving",
    "shortcut": False,
    "activation": "selu",
    "epochs": 2,
    "random_state": 0,
    "n_components": 3,
    "patience": None,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore::twofold.errors.LosesToPCAWarning", "ignore::twofold.errors.CollapsedCodeWarning"
)


class Begun:
    """A network as pretraining leaves it, before the first update."""

    def __init__(self, rows: Any, how: str, **options: Any) -> None:
        given = {"validation_fraction": 0.0, **QUICK, **options}
        ae = Autoencoder(**given)
        settings = ae.get_params(deep=False)
        table = rows if isinstance(rows, Table) else Table(np.asarray(rows, dtype=np.float64))
        schema = Schema.infer(table, ae.likelihood, ae.kinds)
        hidden = (6,) if ae.hidden_layers == "halving" else ae.hidden_layers
        generator = torch.Generator().manual_seed(1)
        self.network = Network(
            schema.width,
            hidden,
            ae.n_components,
            tied=ae.tied,
            activation=ae.activation,
            code_activation=ae.code_activation,
            bottleneck=ae.bottleneck if not isinstance(ae.bottleneck, str) else None,
            generator=generator,
        ).double()
        adapts = isinstance(ae.bottleneck, Variational)
        self.objective = Objective(schema, adapts).double()
        self.x = torch.from_numpy(schema.to_matrix(table, np.float64))
        self.before = self.loss()
        n = len(self.x)
        data = TrainingData(
            Selection(self.x, torch.arange(n)), None, self.x, torch.arange(n), not self.has_holes
        )
        plan = TrainingConfig.resolve(settings, n, schema.width)
        subject.require_meaning(how, self.network)
        trainer = Trainer(self.network, self.objective, plan, generator)
        self.ended = subject.start(how, trainer, data, settings)

    @property
    def has_holes(self) -> bool:
        return bool(torch.isnan(self.x).any())

    def loss(self) -> float:
        return evaluate(self.network, self.objective, self.x)

    def ratio(self) -> float:
        """Squared error as a share of PCA's with as many components."""
        x = self.x.numpy()
        with torch.no_grad():
            found = inference.reconstruct(self.network, self.objective, self.x).numpy()
        pca = PCA(self.network.n_components).fit(x)
        best = pca.inverse_transform(pca.transform(x))
        return float(((found - x) ** 2).sum() / ((best - x) ** 2).sum())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("hidden", [(), (7,), (20, 5)], ids=str)
def test_a_linear_network_begins_at_the_error_of_pca(hidden: Any, tied: bool) -> None:
    begun = Begun(ROWS, "pca", hidden_layers=hidden, activation="identity", tied=tied)
    assert begun.ratio() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus"]
)
def test_activations_that_are_straight_somewhere_begin_near_pca(
    activation: str, tied: bool
) -> None:
    for hidden in ((8,), (20, 5)):
        begun = Begun(ROWS, "pca", hidden_layers=hidden, activation=activation, tied=tied)
        assert begun.ratio() < 1.05


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_bounded_activations_begin_near_pca_where_untied(activation: str) -> None:
    begun = Begun(ROWS, "pca", hidden_layers=(20, 5), activation=activation, tied=False)
    assert begun.ratio() < 1.05


@pytest.mark.parametrize("activation", ["selu", "relu", "softplus"])
def test_the_codes_activation_is_made_up_for(activation: str) -> None:
    assert Begun(ROWS, "pca", hidden_layers=(8,), code_activation=activation).ratio() < 1.05


def test_the_estimator_begins_at_the_error_of_pca() -> None:
    rows = ROWS.astype(np.float32)
    options = {"hidden_layers": (), "activation": "identity", "validation_fraction": 0.0}
    ae = Autoencoder(**QUICK | options | {"epochs": 1, "learning_rate": 1e-30}, pretraining="pca")
    assert ae.fit(rows).comparison_.ratio == pytest.approx(1, abs=1e-5)


def test_components_come_in_the_order_of_pca() -> None:
    begun = Begun(ROWS, "pca", hidden_layers=(9,), activation="identity")
    codes = begun.network.encode(begun.x)[0].detach().numpy()
    expected = PCA(3).fit_transform(begun.x.numpy())
    assert np.allclose(np.abs(codes), np.abs(expected), atol=1e-6)


def test_no_two_hidden_units_are_alike() -> None:
    weight = Begun(ROWS, "pca", hidden_layers=(20,)).network.pairs[0].weight.detach()
    alike = torch.nn.functional.normalize(weight) @ torch.nn.functional.normalize(weight).T
    assert (alike - torch.eye(20)).abs().max() < 0.99
    assert weight.norm(dim=1).min() > 0.05


def test_components_that_no_variance_is_left_for_can_learn() -> None:
    rows = ROWS[:, :2] @ RNG.normal(size=(2, 6))
    weight = Begun(rows, "pca", hidden_layers=(2,), n_components=4).network.pairs[-1].weight
    assert (weight.norm(dim=1) > 0).all()


def test_rows_with_holes_begin_finite() -> None:
    rows = ROWS.copy()
    rows[::3, 2] = np.nan
    begun = Begun(rows, "pca")
    assert begun.loss() < begun.before


def test_flags_begin_below_random_weights_and_below_pca() -> None:
    begun = Begun(DIGITS, "pca", hidden_layers=(32,), n_components=16)
    assert begun.ratio() < 1
    x = begun.x.numpy()
    pca = PCA(16).fit(x)
    p = pca.inverse_transform(pca.transform(x)).clip(0.01, 0.99)
    cross_entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p)).mean()
    assert begun.loss() < cross_entropy < 0.5 * begun.before


def table_of_all_kinds() -> pd.DataFrame:
    z = RNG.normal(size=(500, 2))
    noise = 0.3 * RNG.normal(size=(500, 3))
    return pd.DataFrame(
        {
            "a": z[:, 0] + noise[:, 0],
            "b": z[:, 0] - z[:, 1] + noise[:, 1],
            "flag": (z[:, 1] + noise[:, 2] > 0).astype(int),
            "kind": np.array(list("uvwxy"))[np.clip(z[:, 1] + 2, 0, 4).astype(int)],
            "count": RNG.poisson(np.exp(1 + 0.7 * z[:, 0])),
        }
    )


@pytest.mark.parametrize("likelihood", ["auto", "histogram", "student_t"])
def test_mixed_tables_begin_below_random_weights(likelihood: str) -> None:
    chosen: Any = likelihood if likelihood == "auto" else {"a": likelihood, "b": likelihood}
    options = QUICK | {"n_components": 2, "epochs": 1, "likelihood": chosen, "hidden_layers": (8,)}
    rows = table_of_all_kinds()
    slow = {"learning_rate": 1e-30}
    begun = Autoencoder(**options | slow, pretraining="pca").fit(rows)
    random = Autoencoder(**options | slow).fit(rows)
    ours, theirs = (ae.history_[0]["validation_loss"] for ae in (begun, random))
    assert ours < theirs - 0.2


def test_linear_normal_variational_codes_begin_at_probabilistic_pca() -> None:
    # Tipping and Bishop, 1999, eqs. 4 and 8; in units of the columns' standard deviations.
    begun = Begun(ROWS, "pca", hidden_layers=(), bottleneck=Variational())
    x = begun.x.numpy()
    covariance = np.cov(x.T, bias=True)
    left = np.sort(np.linalg.eigvalsh(covariance))[:-3]
    values, vectors = np.linalg.eigh(covariance)
    noise = left.mean()
    model = vectors[:, -3:] * (values[-3:] - noise) @ vectors[:, -3:].T + noise * np.eye(10)
    _, log_det = np.linalg.slogdet(model)
    # The loss leaves the constant out: half the log of two pi per cell.
    exact = 0.5 * (log_det + np.trace(np.linalg.solve(model, covariance))) / 10
    assert exact - 1e-3 < begun.loss() < exact + 0.05


def test_training_goes_on_from_there() -> None:
    options = QUICK | {"n_components": 8, "epochs": 5, "hidden_layers": (32,)}
    begun, random = (
        Autoencoder(**options, pretraining=how).fit(DIGITS).history_ for how in ("pca", None)
    )
    assert begun[0]["validation_loss"] < random[0]["validation_loss"]
    assert begun[-1]["validation_loss"] < begun[0]["validation_loss"]


def test_a_wide_table_begins_from_randomised_pca() -> None:
    rows = RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 2100))
    ae = Autoencoder(**QUICK | {"hidden_layers": (5,), "n_components": 2}, pretraining="pca")
    assert ae.fit(rows).comparison_.r2 > 0.95


# --- one level after another


def test_every_level_learns_before_the_whole_does() -> None:
    begun = Begun(ROWS, "layerwise:20", hidden_layers=(8, 5), learning_rate=0.01)
    assert begun.loss() < 0.7 * begun.before


@pytest.mark.parametrize(
    ("activation", "tied"), [("sigmoid", True), ("tanh", False), ("selu", True)]
)
def test_levels_give_back_what_hidden_layers_hold(activation: str, tied: bool) -> None:
    # Each level alone reconstructs the codes below it, so the stack does before it is trained.
    begun = Begun(
        ROWS[:, :6],
        "layerwise:60",
        hidden_layers=(6,),
        n_components=5,
        activation=activation,
        tied=tied,
        learning_rate=0.02,
    )
    level = subject._level(begun.network, 1)
    with torch.no_grad():
        codes = subject._below(begun.network, 1)(begun.x)
        given, _ = level(codes)
    assert float(((given - codes) ** 2).mean()) < 0.6 * float(codes.var(0).mean())


def test_events_name_the_level() -> None:
    events: list[Event] = []
    ae = Autoencoder(**QUICK | {"hidden_layers": (6, 4)}, pretraining="layerwise:3")
    ae.fit(ROWS, callbacks=[events.append])
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["level 1 of 3", "level 2 of 3", "level 3 of 3", ""]
    assert {event.epochs for event in events if event.stage} == {3}


def test_the_history_is_that_of_the_whole() -> None:
    ae = Autoencoder(**QUICK, pretraining="layerwise:3").fit(ROWS)
    assert [entry["epoch"] for entry in ae.history_] == [1, 2]


def test_levels_take_a_quarter_of_the_epochs() -> None:
    events: list[Event] = []
    Autoencoder(**QUICK | {"epochs": 12}, pretraining="layerwise").fit(
        ROWS, callbacks=[events.append]
    )
    assert {event.epochs for event in events if event.stage} == {3}


def test_the_log_tells_of_each_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "twofold.training.pretraining"):
        Autoencoder(**QUICK, pretraining="layerwise:2").fit(ROWS)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "level 1 of 2",
        "level 2 of 2",
    ]


def test_progress_shows_the_level(capfd: pytest.CaptureFixture[str]) -> None:
    Autoencoder(**QUICK, pretraining="layerwise:2", verbose=1).fit(ROWS)
    shown = "".join(capfd.readouterr())
    assert "level 1 of 2: epoch 1/2" in shown
    assert "\nepoch 1/2" in shown


@pytest.mark.parametrize("stage", ["level 1 of 2", "level 2 of 2"])
def test_an_interruption_of_a_level_ends_training(stage: str) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "epoch" and event.stage == stage:
            raise KeyboardInterrupt

    ae = Autoencoder(**QUICK, pretraining="layerwise:2")
    with pytest.warns(InterruptedWarning, match="after 0 of 2 epochs"):
        ae.fit(ROWS, callbacks=[interrupt])
    assert np.isfinite(ae.score_samples(ROWS)).all()
    assert (ae.history_, ae.n_iter_) == ([], 1)


def test_corruption_is_of_the_input_of_each_level(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    hide = Masking.__call__

    def spy(self: Masking, x: torch.Tensor, *others: Any) -> torch.Tensor:
        widths.append(x.shape[1])
        return hide(self, x, *others)

    monkeypatch.setattr(Masking, "__call__", spy)
    Autoencoder(
        **QUICK | {"hidden_layers": (6,)}, corruption=Masking(0.2), pretraining="layerwise:1"
    ).fit(ROWS)
    assert set(widths) == {10, 6}


def test_noise_on_codes_is_as_large_as_codes_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    noises = []
    make = trainer.make_step

    def noted(network: Any, objective: Any, config: TrainingConfig, **named: Any) -> Any:
        noises.append(config.corruption)
        return make(network, objective, config, **named)

    monkeypatch.setattr(trainer, "make_step", noted)
    x = 100 * np.random.default_rng(0).normal(size=(300, 6))
    ae = Autoencoder(
        n_components=2, hidden_layers=(4,), corruption="gaussian:0.5", pretraining="layerwise:1",
        epochs=1, learning_rate=1e-9, random_state=0,
    ).fit(x)  # fmt: skip
    below = ae.network_.path(torch.from_numpy(ae.schema_.to_matrix(read(x), np.float32)))[1]
    assert noises[0] == Gaussian(0.5)
    assert noises[1].scale == pytest.approx(0.5 * below.std(0).mean().item(), rel=0.1)


def test_denoising_levels_make_better_features_than_random_weights() -> None:
    # Vincent et al., 2010, section 6.1, in small: a linear classifier on the codes.
    labels = load_digits().target[:900]
    options = QUICK | {
        "n_components": 12,
        "hidden_layers": (40,),
        "epochs": 1,
        "learning_rate": 1e-30,
        "corruption": Masking(0.25),
    }
    accuracy = {}
    for how in (None, "layerwise:8"):
        # Nothing is learned but by the levels: theirs is the automatic learning rate.
        settings = options if how is None else options | {"learning_rate": "auto"}
        codes = Autoencoder(**settings, pretraining=how).fit(DIGITS).transform(DIGITS)
        model = LogisticRegression(max_iter=2000).fit(codes[:600], labels[:600])
        accuracy[how] = model.score(codes[600:], labels[600:])
    assert accuracy["layerwise:8"] > accuracy[None]


@pytest.mark.parametrize("bottleneck", [Variational(), Sparse("l1", hidden=True), "ordered"])
def test_the_last_level_has_the_bottleneck(bottleneck: Any) -> None:
    ae = Autoencoder(
        **QUICK | {"hidden_layers": (6,)}, bottleneck=bottleneck, pretraining="layerwise:2"
    )
    assert np.isfinite(ae.fit(ROWS).score_samples(ROWS)).all()


def test_convolutional_levels_learn_one_after_another() -> None:
    images = DIGITS[:100].reshape(-1, 8, 8)
    ae = Autoencoder(
        **QUICK | {"hidden_layers": (Conv(4, 3, 2), Conv(3, 3))}, pretraining="layerwise:2"
    )
    assert np.isfinite(ae.fit(images).score_samples(images)).all()


# --- both


@pytest.mark.parametrize("how", ["pca", "layerwise:2"])
def test_the_same_seed_gives_the_same_bits(how: str, untouched_random_state: None) -> None:
    first, second = (Autoencoder(**QUICK, pretraining=how).fit(ROWS) for _ in range(2))
    assert first.transform(ROWS).tobytes() == second.transform(ROWS).tobytes()


@pytest.mark.parametrize("how", ["pca", "layerwise:2"])
def test_only_fresh_weights_are_pretrained(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ae = Autoencoder(**QUICK, pretraining=how).partial_fit(ROWS)

    def refuse(how: str | None, *_: Any) -> bool:
        assert how is None
        return False

    monkeypatch.setattr(subject, "start", refuse)
    ae.partial_fit(ROWS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden_layers": (), "pretraining": "layerwise"}, "a single one, from the 10 inputs"),
        ({"activation": "tanh", "pretraining": "pca"}, "activation='tanh' is nearly straight"),
        (
            {"code_activation": "sigmoid", "pretraining": "pca"},
            "code_activation='sigmoid' is nearly straight, and with tied weights",
        ),
        ({"pretraining": "layerwise:0"}, "Expected pretraining to be 'pca', 'layerwise', None or"),
        ({"pretraining": "layerwise:many"}, "Expected pretraining to be"),
        ({"pretraining": True}, "Expected pretraining to be"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Autoencoder(**QUICK | {"hidden_layers": (6,)} | options).fit(ROWS)


def test_pca_of_convolutional_layers_is_refused() -> None:
    with pytest.raises(OptionError, match="lays principal components out in dense layers"):
        Autoencoder(**QUICK | {"hidden_layers": (Conv(4, 3),)}, pretraining="pca").fit(
            DIGITS[:50].reshape(-1, 8, 8)
        )


def test_pretraining_is_saved_with_the_options(tmp_path: Any) -> None:
    from twofold import load

    ae = Autoencoder(**QUICK, pretraining="pca").fit(ROWS)
    ae.save(tmp_path / "model")
    assert load(tmp_path / "model").pretraining == "pca"


def test_a_table_in_which_nothing_varies_begins_finite() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae = Autoencoder(**QUICK, pretraining="pca").fit(np.full((30, 5), 3.0))
    assert np.isfinite(ae.history_[0]["loss"])


# --- tables that begin as PCA


def begun_as_pca(rows: Array) -> Autoencoder:
    return Autoencoder(n_components=2, hidden_layers=(32,), epochs=40, random_state=0).fit(rows)


def test_where_luck_chose_the_epoch_the_network_stays_pca() -> None:
    # Of rows without any structure, nothing but noise can be learned.
    rows = np.random.default_rng(0).normal(size=(90, 6))
    ae = begun_as_pca(rows)
    assert ae.best_epoch_ == 0
    assert not ae.network_.encoder_gate.any()
    assert not ae.network_.decoder_gate.any()
    compared = ae.compare_pca(rows)
    assert compared.squared_error < 1.05 * compared.squared_error_pca


def test_what_is_clearly_learned_is_kept() -> None:
    t = np.random.default_rng(0).uniform(-2, 2, size=(150, 1))
    ae = begun_as_pca(np.column_stack([t, t**2, np.sin(3 * t), np.cos(2 * t)]))
    assert ae.best_epoch_ > 0
    assert ae.comparison_.squared_error < 0.5 * ae.comparison_.squared_error_pca


def test_the_linear_pair_is_fitted_once_where_the_network_beats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, begin = [], subject._start_shortcut

    def counted(*given: Any) -> None:
        calls.append(begin(*given))

    monkeypatch.setattr(subject, "_start_shortcut", counted)
    t = np.random.default_rng(0).uniform(-2, 2, size=(150, 1))
    assert begun_as_pca(np.column_stack([t, t**2, np.sin(3 * t), np.cos(2 * t)])).best_epoch_ > 0
    assert len(calls) == 1
