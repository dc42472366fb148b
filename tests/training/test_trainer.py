"""The trainer: updates are PyTorch's, the best weights stay, and events come at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tests.training.test_config import PLAN
from tests.training.test_fused import table as mixed_table
from twofold import Autoencoder
from twofold.errors import DivergenceError
from twofold.nn.corruption import Masking
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema, Table
from twofold.training import events as events_module
from twofold.training import trainer
from twofold.training.autograd import AutogradStep, Step
from twofold.training.batches import Selection, TrainingData
from twofold.training.config import TrainingConfig
from twofold.training.events import Callback, Event, StopTraining
from twofold.training.fused import FusedStep
from twofold.training.trainer import History

MakeStep = Callable[[Network, Objective, TrainingConfig], Step]
STEPS: dict[str, MakeStep] = {"autograd": AutogradStep, "fused": FusedStep}
ROWS = np.random.default_rng(2).normal(size=(40, 5)) @ np.random.default_rng(3).normal(size=(5, 5))


def parts(tied: bool = True, seed: int = 0) -> tuple[Network, Objective, Tensor]:
    """A tiny network in 64 bits, its objective and its matrix."""
    table = Table(ROWS)
    schema = Schema.infer(table)
    generator = torch.Generator().manual_seed(seed)
    network = Network(5, (4,), 2, tied=tied, activation="tanh", generator=generator).double()
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    return network, Objective(schema).double(), x


class Run:
    """One run of a trainer on 40 rows, the last 8 of them held out where asked for."""

    def __init__(
        self,
        plan: TrainingConfig = PLAN,
        held_out: bool = False,
        step: Step | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.network, self.objective, self.x = parts()
        self.events: list[Event] = []
        self.validation = self.x[32:] if held_out else None
        positions = torch.arange(32 if held_out else 40)
        data = TrainingData(
            Selection(self.x, positions), self.validation, self.x, positions, step is not None
        )
        run = trainer.Trainer(
            self.network,
            self.objective,
            plan,
            torch.Generator().manual_seed(1),
            [self.events.append, *callbacks],
        )
        run.step = step
        self.history = run.fit(data)


class StepSpy:
    """A step that learns nothing, notes its batches, and returns the losses it is given."""

    takes_missing = True

    def __init__(self, losses: Callable[[int], float] = lambda number: 1.0) -> None:
        self.losses, self.batches, self.rates = losses, list[Tensor](), list[float]()
        self.places: list[Tensor] = []

    def buffer(self, n_rows: int) -> Tensor:
        self.places.append(torch.empty(n_rows, 5, dtype=torch.float64))
        return self.places[-1]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        self.batches.append(x.clone())
        self.rates.append(learning_rate)
        return torch.tensor(self.losses(len(self.batches)))


OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[list[dict[str, Any]]], Any]]] = {
    "sgd": ({"optimizer": "sgd"}, lambda groups: torch.optim.SGD(groups, 0.05)),
    "sgd, decay": (
        {"optimizer": "sgd", "weight_decay": 0.1},
        lambda groups: torch.optim.SGD(groups, 0.05),
    ),
    "momentum": (
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        lambda groups: torch.optim.SGD(groups, 0.05, momentum=0.9),
    ),
    "nesterov": (
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True},
        lambda groups: torch.optim.SGD(groups, 0.05, momentum=0.8, nesterov=True),
    ),
    "adam": (
        {"optimizer": "adam", "weight_decay": 0.1},
        lambda groups: torch.optim.Adam(groups, 0.05),
    ),
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.1},
        lambda groups: torch.optim.AdamW(groups, 0.05),
    ),
    "muon": ({"optimizer": "muon", "weight_decay": 0.1}, lambda groups: _Muon(groups)),
}


class _Muon:
    """PyTorch's, for matrices, beside its Adam for biases."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        matrices, biases = groups
        how = {"weight_decay": matrices["weight_decay"], "adjust_lr_fn": "match_rms_adamw"}
        self._parts = (
            torch.optim.Muon(matrices["params"], 0.05, **how),
            torch.optim.Adam(biases["params"], 0.05),
        )

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self._parts:
            part.step()


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_update_is_that_of_torch_optim(
    name: str, tied: bool, make: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch's Muon rounds whatever the parameters have; here it is to be exact.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    settings, make_reference = OPTIMIZERS[name]
    plan = replace(PLAN, **settings)
    network, objective, x = parts(tied)
    # The same formula over plain tensors, each matrix once, written without the network's code.
    w = {name: t.detach().clone().requires_grad_() for name, t in network.named_parameters()}
    up, down = (
        (w["levels.0.weight"], w["levels.1.weight"]),
        (
            w["levels.0.weight" if tied else "levels.0.decoder_weight"],
            w["levels.1.weight" if tied else "levels.1.decoder_weight"],
        ),
    )
    reference = make_reference(
        [
            {"params": [t for t in w.values() if t.ndim == 2], "weight_decay": plan.weight_decay},
            {"params": [t for t in w.values() if t.ndim == 1], "weight_decay": 0.0},
        ]
    )
    step = make(network, objective, plan)
    for number in range(6):
        batch = x[number * 6 : number * 6 + 6]
        h = torch.tanh(batch @ up[0].T + w["levels.0.encoder_bias"])
        code = h @ up[1].T + w["levels.1.encoder_bias"]
        h = torch.tanh(code @ down[1] + w["levels.1.decoder_bias"])
        loss = 0.5 * ((h @ down[0] + w["levels.0.decoder_bias"] - batch) ** 2).mean()
        reference.zero_grad()
        loss.backward()
        reference.step()
        step.buffer(6).copy_(batch)
        found = step.update(step.buffer(6), 0.05)
        torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=0)
        for key, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach(), w[key].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_the_learning_rate_given_is_the_one_used(make: MakeStep) -> None:
    network, objective, x = parts()
    step, before = make(network, objective, PLAN), network.pairs[0].weight.detach().clone()
    step.buffer(8).copy_(x[:8])
    step.update(step.buffer(8), 0.0)
    assert torch.equal(network.pairs[0].weight, before)


def test_the_loop_follows_the_schedule() -> None:
    plan = replace(PLAN, schedule="one-cycle", epochs=4)
    spy = StepSpy()
    Run(plan, step=spy)
    assert spy.rates == [plan.learning_rate_at(step, 20) for step in range(20)]


def test_every_epoch_passes_once_over_every_row() -> None:
    spy = StepSpy()
    run = Run(replace(PLAN, batch_size=7), step=spy)
    epoch = torch.cat(spy.batches[:6])
    assert torch.equal(epoch.sort(0).values, run.x.sort(0).values)


def test_the_last_batch_holds_the_rows_that_are_left() -> None:
    spy = StepSpy()
    Run(replace(PLAN, batch_size=7), step=spy)
    assert [len(batch) for batch in spy.batches[:6]] == [7, 7, 7, 7, 7, 5]


def test_every_epoch_has_an_order_of_its_own() -> None:
    spy = StepSpy()
    Run(PLAN, step=spy)
    assert not torch.equal(torch.cat(spy.batches[:5]), torch.cat(spy.batches[5:10]))


def test_held_out_rows_are_never_trained_on() -> None:
    spy = StepSpy()
    run = Run(PLAN, held_out=True, step=spy)
    assert run.validation is not None
    seen = {tuple(row) for batch in spy.batches for row in batch.tolist()}
    assert not seen & {tuple(row) for row in run.validation.tolist()}


def test_an_epochs_loss_is_the_mean_over_its_rows() -> None:
    run = Run(replace(PLAN, batch_size=7), step=StepSpy(lambda n: 6.0 if n % 6 == 0 else 1.0))
    assert run.history.epochs[0]["loss"] == pytest.approx((35 * 1 + 5 * 6) / 40)


def test_training_lowers_the_loss() -> None:
    losses = [entry["loss"] for entry in Run(replace(PLAN, epochs=20)).history.epochs]
    assert losses[-1] < 0.7 * losses[0]


def test_the_validation_loss_is_the_mean_over_the_held_out_cells() -> None:
    run = Run(held_out=True)
    assert run.validation is not None
    theta = run.network(run.validation)[0].detach()
    expected = 0.5 * float(((run.validation - theta) ** 2).mean())
    assert run.history.epochs[-1]["validation_loss"] == pytest.approx(expected, rel=1e-12)


def test_evaluate_does_not_depend_on_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    network, objective, x = parts()
    whole = trainer.evaluate(network, objective, x)
    monkeypatch.setattr(trainer, "_CHUNK_ROWS", 7)
    assert trainer.evaluate(network, objective, x) == pytest.approx(whole, rel=1e-14)


# So large a rate that the loss on held-out rows goes up and down.
RESTLESS = replace(PLAN, learning_rate=1.2, epochs=40, patience=5)


def test_early_stopping_keeps_the_weights_of_the_least_validation_loss() -> None:
    run = Run(RESTLESS, held_out=True)
    losses = [entry["validation_loss"] for entry in run.history.epochs]
    assert run.validation is not None
    kept = trainer.evaluate(run.network, run.objective, run.validation)
    assert kept == min(losses) != losses[-1]


def passengers(seed: int, n: int) -> Any:
    """A table of numbers and categories, as lists of passengers are: 12 sorts, and an age."""
    rng = np.random.default_rng(seed)
    columns = {"sex": 2, "survived": 2, "class": 3}
    cells = {name: np.array(list("abc"))[rng.integers(0, k, n)] for name, k in columns.items()}
    age = rng.gamma(4, 8, n) + 10 * (cells["class"] == "a")
    return pd.DataFrame({**cells, "age": np.where(rng.random(n) < 0.04, np.nan, age)})


@pytest.fixture(scope="module")
def mixed() -> tuple[Autoencoder, Any]:
    held_out = passengers(1, 100)
    ae = Autoencoder(n_components=3, epochs=60, patience=60, random_state=0)
    return ae.fit(passengers(0, 500), validation_data=held_out), held_out


def test_noise_is_that_of_the_weights_that_were_kept(mixed: tuple[Autoencoder, Any]) -> None:
    ae, held_out = mixed
    x = ae._matrix(ae.read(held_out))
    kept = trainer.evaluate(ae.network_, ae._objective, x, Masking(0.05))  # as cells are missing
    losses = [entry["validation_loss"] for entry in ae.history_]
    assert kept == pytest.approx(min(losses), abs=1e-5)
    assert losses[ae.best_epoch_ - 1] == min(losses) < losses[0]


def test_no_column_of_a_mixed_table_is_worse_than_by_pca(mixed: tuple[Autoencoder, Any]) -> None:
    ae, _ = mixed
    rows = passengers(2, 300)
    x = ae._matrix(ae.read(rows)).numpy()
    by_pca = ae.schema_.from_matrix(ae.pca_.reconstruct(x))
    own = ae.read(ae.reconstruct(rows)).values
    true = ae.read(rows).values
    known = ~np.isnan(true[:, 3])
    for j in range(3):
        assert (own[:, j] != true[:, j]).mean() <= (by_pca[:, j] != true[:, j]).mean()
    gaps = [np.square(cells - true)[known, 3].mean() for cells in (own, by_pca)]
    assert gaps[0] < gaps[1]


def cool_down(
    monkeypatch: pytest.MonkeyPatch, step: StepSpy, callbacks: Sequence[Callback] = ()
) -> tuple[Tensor, History]:
    """Cool down for three epochs, 8 of 40 rows held out; return the rows and what happened."""
    network, objective, x = parts()
    monkeypatch.setattr(trainer, "make_step", lambda *_, **__: step)
    data = TrainingData(Selection(x, torch.arange(32)), x[32:], x, torch.arange(32), True)
    plan, history = replace(PLAN, schedule="one-cycle", cooldown=3), History()
    generator = torch.Generator().manual_seed(1)
    trainer.Trainer(network, objective, plan, generator, callbacks).cool_down(data, history)
    return x, history


def test_weights_cool_down_at_a_small_rate_over_training_rows_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = StepSpy()
    x, history = cool_down(monkeypatch, step)
    assert step.rates == [pytest.approx(PLAN.learning_rate / 50)] * 3 * 4
    assert torch.equal(torch.cat(step.batches).unique(dim=0), x[:32].unique(dim=0))
    assert history == History()


def test_a_cool_down_that_is_interrupted_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(number: int) -> float:
        if number == 6:
            raise KeyboardInterrupt
        return 1.0

    step = StepSpy(interrupt)
    _, history = cool_down(monkeypatch, step)
    assert (len(step.batches), history.is_interrupted) == (6, True)


def test_a_callback_ends_a_cool_down_after_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(event: Event) -> None:
        if (event.stage, event.epoch) == ("cool-down", 2):
            raise StopTraining("enough")

    monkeypatch.setattr(events_module, "_STEP_SECONDS", 0.0)
    step = StepSpy()
    _, history = cool_down(monkeypatch, step, [stop])
    assert (len(step.batches), history.ended) == (2 * 4, "enough")


def test_early_stopping_names_the_best_epoch() -> None:
    history = Run(RESTLESS, held_out=True).history
    losses = [entry["validation_loss"] for entry in history.epochs]
    assert history.best_epoch == 1 + int(np.argmin(losses))


def test_early_stopping_waits_for_patience_epochs_and_no_longer() -> None:
    history = Run(RESTLESS, held_out=True).history
    assert len(history.epochs) == history.best_epoch + 5 < 40
    assert history.ended == "no improvement"


def test_without_patience_every_epoch_runs_and_the_last_weights_stay() -> None:
    run = Run(replace(RESTLESS, patience=None), held_out=True)
    assert run.validation is not None
    last = trainer.evaluate(run.network, run.objective, run.validation)
    assert len(run.history.epochs) == run.history.best_epoch == 40
    assert last == run.history.epochs[-1]["validation_loss"]


def test_without_held_out_rows_patience_does_not_stop_training() -> None:
    history = Run(RESTLESS, held_out=False).history
    assert (len(history.epochs), history.best_epoch) == (40, 40)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_divergence_is_told_at_its_step_with_the_rate_and_what_to_try(
    value: float, word: str
) -> None:
    text = (
        rf"got {word} at epoch 2, step 3. The likely cause is learning_rate=0.05: "
        r"try 0.005\.$"
    )
    spy = StepSpy(lambda number: value if number == 8 else 1.0)
    with pytest.raises(DivergenceError, match=text):
        Run(PLAN, step=spy)
    assert len(spy.batches) == 8


@pytest.mark.parametrize("held_out", [True, False])
def test_divergence_by_the_very_last_update_is_told(held_out: bool) -> None:
    plan = replace(PLAN, learning_rate=1e200, epochs=1, batch_size=64)
    with pytest.raises(DivergenceError, match="at epoch 1, step 1"):
        Run(plan, held_out=held_out)


def look_every(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at losses as on a GPU: those of several steps together."""
    kind = trainer._Losses
    monkeypatch.setattr(trainer, "_Losses", lambda plan, epoch, every: kind(plan, epoch, n_steps))


@pytest.mark.parametrize("every", [1, 2, 3, 7, 50])
def test_the_mean_loss_does_not_depend_on_how_often_it_is_looked_at(every: int) -> None:
    losses = trainer._Losses(PLAN, 1, every)
    for loss, n_rows in [(4.0, 8), (3.0, 8), (2.0, 8), (9.0, 2)]:
        losses.add(torch.tensor(loss), n_rows)
    assert losses.mean() == (8 * 4 + 8 * 3 + 8 * 2 + 2 * 9) / 26


@pytest.mark.parametrize("every", [2, 50])
def test_a_loss_may_be_written_over_by_the_next_one(every: int) -> None:
    losses, loss = trainer._Losses(PLAN, 1, every), torch.zeros(())
    for number in range(5):
        losses.add(loss.fill_(number), 1)
    assert losses.mean() == 2.0


@pytest.mark.parametrize("every", [1, 2, 50])
def test_a_mean_in_between_changes_nothing(every: int) -> None:
    losses = trainer._Losses(PLAN, 1, every)
    means = []
    for number in range(5):
        losses.add(torch.tensor(float(number)), 1)
        means.append(losses.mean())
    assert means == [0.0, 0.5, 1.0, 1.5, 2.0]


class Unread(Tensor):
    """A number that must not be read."""

    def __float__(self) -> float:
        raise AssertionError


def test_losses_are_not_looked_at_before_it_is_time() -> None:
    losses = trainer._Losses(PLAN, 1, 3)
    bad = torch.tensor(math.nan)
    losses.add(bad.as_subclass(Unread), 8)
    losses.add(bad.as_subclass(Unread), 8)
    with pytest.raises(DivergenceError, match=r"at epoch 1, step 1\."):
        losses.add(bad, 8)


@pytest.mark.parametrize("every", [1, 2, 3, 50])
def test_a_late_look_names_the_very_step_that_diverged(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_every(every, monkeypatch)
    spy = StepSpy(lambda number: math.nan if number >= 8 else 1.0)
    with pytest.raises(DivergenceError, match=r"at epoch 2, step 3\."):
        Run(PLAN, step=spy)
    assert 8 <= len(spy.batches) <= min(10, 7 + every)


@pytest.mark.parametrize("every", [2, 3, 50])
def test_how_often_losses_are_looked_at_changes_no_history(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Run(held_out=True).history
    look_every(every, monkeypatch)
    found = Run(held_out=True).history
    for entries in (expected.epochs, found.epochs):
        for entry in entries:
            del entry["seconds"]
    assert found == expected


def test_a_step_event_is_up_to_date_however_seldom_losses_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "_STEP_SECONDS", -1.0)
    look_every(50, monkeypatch)
    events = Run(step=StepSpy(lambda number: float(number))).events
    assert [e.losses["loss"] for e in events if e.kind == "step"][:3] == [1.0, 1.5, 2.0]


def test_events_come_in_order() -> None:
    kinds = [e.kind for e in Run().events if e.kind != "step"]
    assert kinds == ["start", "epoch", "epoch", "epoch", "end"]


def test_step_events_come_between_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_STEP_SECONDS", -1.0)
    places = [(e.epoch, e.step) for e in Run().events if e.kind == "step"]
    assert places == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4, 5)]


def test_step_events_come_no_faster_than_can_be_read() -> None:
    run = Run(replace(PLAN, epochs=30))
    shown = sum(event.kind == "step" for event in run.events)
    assert shown <= run.events[-1].seconds / events_module._STEP_SECONDS


def test_a_step_event_holds_the_mean_loss_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_STEP_SECONDS", -1.0)
    events = Run(step=StepSpy(lambda number: float(number))).events
    assert [e.losses["loss"] for e in events if e.kind == "step"][:3] == [1.0, 1.5, 2.0]


def test_an_epoch_event_holds_what_the_history_holds() -> None:
    run = Run(held_out=True)
    told = [dict(e.losses) for e in run.events if e.kind == "epoch"]
    names = ("loss", "validation_loss")
    assert told == [{name: entry[name] for name in names} for entry in run.history.epochs]


def test_every_event_knows_how_much_there_is_to_do() -> None:
    assert {(event.epochs, event.steps) for event in Run().events} == {(3, 5)}


def test_the_time_of_events_never_goes_back() -> None:
    seconds = [event.seconds for event in Run().events]
    assert seconds == sorted(seconds)


def test_the_end_tells_the_speed_of_the_whole_run() -> None:
    run = Run()
    end = run.events[-1]
    assert end.rows_per_second * end.seconds == pytest.approx(3 * 40)


def interrupt_at(kind: str, epoch: int) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if (event.kind, event.epoch) == (kind, epoch):
            raise KeyboardInterrupt

    return on_event


@pytest.mark.parametrize(
    ("kind", "epoch", "finished"), [("start", 0, 0), ("epoch", 1, 1), ("epoch", 3, 3)]
)
def test_an_interruption_ends_training_with_the_epochs_finished(
    kind: str, epoch: int, finished: int
) -> None:
    history = Run(replace(PLAN, epochs=9), callbacks=[interrupt_at(kind, epoch)]).history
    assert (history.ended, len(history.epochs)) == ("interrupted", finished)


def test_an_interruption_within_an_epoch_counts_the_finished_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "_STEP_SECONDS", -1.0)
    history = Run(callbacks=[interrupt_at("step", 2)]).history
    assert (history.ended, len(history.epochs)) == ("interrupted", 1)


@pytest.mark.parametrize("epoch", range(1, 7))
def test_an_interruption_keeps_the_best_weights_until_then(epoch: int) -> None:
    run = Run(RESTLESS, held_out=True, callbacks=[interrupt_at("epoch", epoch)])
    assert run.validation is not None
    kept = trainer.evaluate(run.network, run.objective, run.validation)
    assert kept == min(entry["validation_loss"] for entry in run.history.epochs)


def test_the_history_of_no_epoch_is_empty() -> None:
    assert History() == History([], "all epochs done", 0)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:PCA with as many components")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_whole_fit_on_a_gpu_goes_as_on_the_cpu(optimizer: str, tied: bool) -> None:
    here, there = (
        Autoencoder(
            n_components=2,
            optimizer=optimizer,
            learning_rate=2.0**-7,
            epochs=20,
            batch_size=7,
            patience=None,
            tied=tied,
            device=device,
            random_state=0,
        ).fit(ROWS)
        for device in ("cpu", "cuda")
    )
    for ours, theirs in zip(there.history_, here.history_, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    np.testing.assert_allclose(there.transform(ROWS), here.transform(ROWS), rtol=0.01, atol=0.01)


@pytest.mark.gpu
def test_divergence_on_a_gpu_names_its_step() -> None:
    with pytest.raises(DivergenceError, match=r"got .* at epoch 1, step \d+\."):
        Autoencoder(optimizer="sgd", learning_rate=1e10, epochs=2, batch_size=4, device="cuda").fit(
            ROWS
        )


@pytest.mark.parametrize("likelihoods", [{"gaussian": 3, "categorical": 2}, {"student_t": 2}])
def test_training_rows_are_passed_through_only_where_their_spread_counts(
    likelihoods: dict[str, int],
) -> None:
    network, objective, x = mixed_table(0.2, likelihoods)
    twin, spread = copy.deepcopy(objective), objective.spread.clone()
    trainer.adapt(network, objective, x, x[:9])
    twin.adapt(network(torch.nan_to_num(x), torch.Generator(), ~torch.isnan(x))[0], x)
    trainer.adapt(network, twin, x, x[:9])
    assert objective.noise == twin.noise
    assert torch.equal(objective.spread, spread) is ("student_t" not in likelihoods)
    if "student_t" in likelihoods:
        assert torch.equal(objective.spread, twin.spread)
