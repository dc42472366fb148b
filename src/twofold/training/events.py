"""What happens in training, as events for progress bars, logs and whoever else calls back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from twofold.training.config import TrainingConfig

if TYPE_CHECKING:
    from twofold.training.batches import TrainingData
    from twofold.training.trainer import Trainer

_STEP_SECONDS = 0.1  # least time between two "step" events


@dataclass(frozen=True)
class Event:
    """One thing that happened in training.

    `kind` is "start", "step", "epoch" or "end". `losses` are in nats per cell, by name: `loss` is
    the mean over the epoch so far, `validation_loss` the loss on the held-out rows. `seconds` count
    from the start of training. `stage` names a part of pretraining, "level 1 of 3", or what follows
    the best weights, "cool-down". What has no epochs counts other things, whose `unit` it tells.
    """

    kind: str
    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Mapping[str, float]
    learning_rate: float
    seconds: float
    rows_per_second: float
    stage: str = ""
    unit: str = "epoch"


Callback = Callable[[Event], object]


@runtime_checkable
class Prepares(Protocol):
    """A callback that is also called before training, with the trainer and the rows."""

    def prepare(self, trainer: Trainer, data: TrainingData) -> None:
        """Look at the trainer before it begins, or change its `config`."""


class StopTraining(Exception):
    """Raised by a callback to end training after the epoch; its text says why."""


class EventEmitter:
    """Keeps time and calls back, for steps not more often than someone can read.

    Attributes
    ----------
    steps, total_steps : int
        Updates in an epoch, and in all.
    stopped : str
        Why a callback wants training to end; empty if none does.
    """

    def __init__(
        self, config: TrainingConfig, n_rows: int, callbacks: Sequence[Callback], stage: str = ""
    ) -> None:
        self.epochs, self.n_rows, self.callbacks = config.epochs, n_rows, callbacks
        self.steps = math.ceil(n_rows / config.batch_size)
        self.total_steps = self.steps * config.epochs
        self._batch_size, self._stage = config.batch_size, stage
        self.stopped = ""
        self._start = self._last = time.perf_counter()

    def seconds(self) -> float:
        """Return the time since training started."""
        return time.perf_counter() - self._start

    def continue_from(self, seconds: float) -> None:
        """Count the time of an interrupted run too."""
        self._start -= seconds

    def is_due(self) -> bool:
        """Whether anyone waits for a "step" event, and the last event is old enough."""
        return bool(self.callbacks) and time.perf_counter() - self._last > _STEP_SECONDS

    def emit(
        self, kind: str, epoch: int, step: int, losses: Mapping[str, float], rate: float
    ) -> None:
        """Call back with an event."""
        self._last = time.perf_counter()
        seconds = self.seconds()
        done = (max(epoch, 1) - 1) * self.n_rows + min(step * self._batch_size, self.n_rows)
        speed = done / seconds if seconds > 0 else 0.0
        event = Event(
            kind, epoch, self.epochs, step, self.steps, losses, rate, seconds, speed, self._stage
        )
        for callback in self.callbacks:
            try:
                callback(event)
            except StopTraining as request:
                self.stopped = str(request) or "a callback stopped it"
