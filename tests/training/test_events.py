"""Events say how far training is, and come no faster than someone can read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.test_fused import PLAN
from twofold.training import events
from twofold.training.events import Event, EventEmitter

CONFIG = replace(PLAN, epochs=4, batch_size=8)


def test_an_event_holds_where_training_is() -> None:
    seen: list[Event] = []
    emitter = EventEmitter(CONFIG, 20, [seen.append], stage="level 1 of 2")
    emitter.emit("epoch", 2, 3, {"loss": 0.5}, 0.01)
    (event,) = seen
    assert (event.epoch, event.epochs, event.step, event.steps) == (2, 4, 3, 3)
    assert (event.losses, event.stage, event.learning_rate) == ({"loss": 0.5}, "level 1 of 2", 0.01)
    assert event.rows_per_second == pytest.approx(40 / event.seconds)
    assert emitter.total_steps == 12


def test_every_callback_gets_every_event() -> None:
    seen: list[str] = []
    callbacks = [lambda e, i=i: seen.append(f"{e.kind} {i}") for i in range(2)]
    emitter = EventEmitter(CONFIG, 20, callbacks)
    emitter.emit("start", 0, 0, {}, 0.1)
    emitter.emit("end", 4, 3, {}, 0.0)
    assert seen == ["start 0", "start 1", "end 0", "end 1"]


def test_step_events_are_due_where_someone_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_STEP_SECONDS", -1.0)
    assert EventEmitter(CONFIG, 20, [print]).is_due()
    assert not EventEmitter(CONFIG, 20, []).is_due()


def test_the_time_of_an_interrupted_run_counts() -> None:
    emitter = EventEmitter(CONFIG, 20, [])
    emitter.continue_from(100.0)
    assert emitter.seconds() >= 100.0
