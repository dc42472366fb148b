"""Training: one loop, read top to bottom, over one small interface to the step.

The loop draws batches, sets the learning rate, calls the step, watches the loss, measures the
held-out rows, keeps the best weights and tells what happened in `Event`s. The step turns one batch
into one update of the weights.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from twofold.errors import DivergenceError, InterruptedWarning
from twofold.nn.corruption import Corruption
from twofold.nn.network import Network
from twofold.nn.objective import Objective, observed
from twofold.nn.threads import Threads, few_for
from twofold.schema.tensors import Rows, pick
from twofold.training import dead_units
from twofold.training.batches import TrainingRows
from twofold.training.checkpoint import Checkpoint, Interruption
from twofold.training.config import Plan
from twofold.training.process_group import Team

_CHUNK_ROWS = 4096  # rows per forward pass where nothing is learned
_EVENT_SECONDS = 0.1  # least time between two "step" events
# A threshold that 5 % of normal rows fall below takes 19 others, if not a quarter of all: with
# fewer, the lowest score is already too high a threshold.
_LEAST_HELD_OUT = 19
_STEPS_PER_LOOK = 50  # on a GPU, whose losses are looked at together


@dataclass(frozen=True)
class Event:
    """One thing that happened in training; the progress bar, the history and services consume it.

    `kind` is "start", "step", "epoch" or "end". `losses` are in nats per cell, by name: `loss` is
    the mean over the epoch so far, `validation_loss` the loss on the held-out rows. `seconds` count
    from the start of training. `stage` names what is trained before the whole: "level 1 of 3".
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


OnEvent = Callable[[Event], None]


def split(x: Rows, rng: np.random.RandomState, fraction: float) -> tuple[Tensor, Rows | None]:
    """Hold out a share of the rows: the positions to train on, and the held-out rows, if any."""
    order = torch.from_numpy(rng.permutation(len(x)))
    if fraction == 0 or len(x) < 10:
        return order, None
    n = max(round(fraction * len(x)), min(_LEAST_HELD_OUT, len(x) // 4))
    n = min(n, len(x) - 2)
    return order[n:], pick(x, order[:n])


class Step(Protocol):
    """What turns one batch into one update of the weights.

    Attributes
    ----------
    takes_missing : bool
        Whether rows may have missing cells.
    """

    @property
    def takes_missing(self) -> bool:
        """Whether rows may have missing cells."""

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update.

        The next update may write over that loss.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on beside the network, the objective and chance."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""


@runtime_checkable
class TakesMany(Protocol):
    """A step that takes up to `n_ahead` batches in one call, with the same results."""

    n_ahead: int

    def update_many(self, batches: Sequence[Tensor], learning_rates: Sequence[float]) -> Tensor:
        """Take one update after another; return the losses before each, until one is not finite."""


class AutogradStep:
    """The plain step: autograd finds the gradient, the plan's rule applies it.

    Rows may have holes; `corruption`, with chance from `generator`, spoils what the network is
    given, and not what it has to give back.
    """

    takes_missing = True

    def __init__(
        self,
        network: Network,
        objective: Objective,
        plan: Plan,
        corruption: Corruption | None = None,
        generator: torch.Generator | None = None,
        team: Team | None = None,
    ) -> None:
        self.network, self.objective, self.bfloat16 = network, objective, plan.bfloat16
        self.corruption, self.generator = corruption, generator or torch.Generator()
        self.team = team
        self._rule = plan.rule(network.parameters())
        # A cell far from its histogram's mean would undo what many others have taught (Pascanu,
        # Mikolov and Bengio, 2013, "On the Difficulty of Training Recurrent Neural Networks",
        # algorithm 1).
        # So would one sequence whose gradient grows from step to step.
        self._clips = network.is_recurrent or any(one.is_clipped for one, _ in objective.groups)
        parameter = next(network.parameters())
        self._x = parameter.new_empty(plan.batch_size, network.width)

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows > len(self._x):
            self._x = self._x.new_empty(n_rows, self.network.width)
        return self._x[:n_rows]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        gradients, loss, n_cells = self._gradient(x)
        if self.team is not None:
            gradients, loss = self.team.mean(gradients, loss, n_cells)
        if self._clips:
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            gradients = list(torch._foreach_mul(gradients, (1 / norm).clamp_max(1.0)))
        self._rule.follow_parameters()
        with torch.no_grad():
            self._rule.apply(gradients, learning_rate)
        return loss.detach()

    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Forget the past gradients of some rows of a parameter."""
        self._rule.forget(parameter, rows)

    def _gradient(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor | float]:
        """Return the gradient of the mean loss per cell, that loss, and the number of cells."""
        if not len(x):  # a worker's part of the last batch of an epoch
            return [torch.zeros_like(p) for p in self._rule.parameters], x.new_zeros(()), 0.0
        given, wanted = spoil(self.corruption, x, self.objective, self.generator)
        filled, seen = observed(given)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            theta, penalties = self.network(filled, self.generator, seen)
        loss = self.objective.loss(theta.to(x.dtype), wanted, penalties)
        n_cells = 1.0 if self.team is None else self.objective.n_cells(wanted)
        return list(torch.autograd.grad(loss, self._rule.parameters)), loss, n_cells

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on beside the network, the objective and chance."""
        return self._rule.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._rule.load_state_dict(state)


def spoil(
    corruption: Corruption | None, x: Tensor, objective: Objective, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return what the network is given, and what it has to give back: (batch, width) each."""
    if corruption is None:
        return x, x
    given = corruption(x, objective, generator)
    return given, corruption.wanted(given, x)


@dataclass
class History:
    """What training did: one dictionary per epoch, and how it ended.

    `ended` is "all epochs done", "no improvement" or "interrupted"; `best_epoch` is the epoch
    whose weights were kept, counted from 1 (0 where no epoch was finished).
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    ended: str = "all epochs done"
    best_epoch: int = 0

    def warn_if_interrupted(self, plan: Plan, checkpoint: Checkpoint | None = None) -> None:
        """Warn where training ended before its time, and tell how it can go on."""
        if self.ended == "interrupted":
            remedy = f" To go on, resume from {checkpoint.folder}." if checkpoint else ""
            warnings.warn(
                f"Training was interrupted after {len(self.epochs)} of {plan.epochs} epochs; the "
                f"model holds the best weights until then.{remedy}",
                InterruptedWarning,
                stacklevel=3,
            )


def fit(
    step: Step,
    network: Network,
    objective: Objective,
    plan: Plan,
    rows: TrainingRows,
    validation: Rows | None,
    generator: torch.Generator,
    on_event: OnEvent | None = None,
    checkpoint: Checkpoint | None = None,
    team: Team | None = None,
) -> History:
    """Train `network` on `rows`, and leave the best or the last weights in it.

    Parameters
    ----------
    step : Step
        Made for this network, objective and plan.
    rows : TrainingRows
        What the schema made of the table's rows.
    validation : Tensor of shape (n, width), EncodedRows or None
        Held-out rows. With `plan.patience`, training stops after that many epochs without a better
        loss on them, and the best weights are kept.
    generator : torch.Generator
        Draws the order of the rows.
    on_event : callable, optional
        Receives each `Event`.
    checkpoint : Checkpoint, optional
        Where to write what a later run goes on from, and what this one goes on from.
    team : Team, optional
        Workers that train the same network; `rows` are then this worker's share of them, and only
        the first worker has a `checkpoint` and an `on_event`.

    Raises
    ------
    DivergenceError
        Names the very step where the loss stopped being a finite number. On a GPU it comes a few
        steps later.
    """
    run = _Run(step, network, objective, plan, rows, validation, generator, on_event, team)
    found = None if checkpoint is None or checkpoint.found is None else checkpoint.take()
    found = found if team is None else team.of_first(found)
    if found is not None:
        run.resume(*found)
    history, watch = run.history, run.watch
    run.stops_after_each = checkpoint is not None and checkpoint.seconds == 0
    with nullcontext() if checkpoint is None and team is None else Interruption() as interruption:
        try:
            watch.tell("start", 0, 0, {}, plan.learning_rate_at(0, watch.total_steps))
            while run.end() is None:
                with run.threads:
                    for _ in run.updates():
                        if interruption is not None:
                            run.heed(interruption)
                        if checkpoint is not None and checkpoint.is_due():
                            checkpoint.write(*run.snapshot())
                run.end_epoch()
                if checkpoint is not None and checkpoint.is_due_between():
                    checkpoint.write(*run.snapshot())
            history.ended = run.end() or ""
        except KeyboardInterrupt:
            history.ended = "interrupted"
    if checkpoint is not None and run.is_whole:
        checkpoint.write(*run.snapshot())
    run.keep_best()
    watch.tell("end", len(history.epochs), watch.steps if history.epochs else 0, {}, 0.0)
    return history


class _Run:
    """One run of training, and where it stands.

    Attributes
    ----------
    epoch, n_steps : int
        The epoch that is under way, counted from 1, and its updates so far.
    is_whole : bool
        Whether weights, chance and what is noted here belong to the same moment.
    stops_after_each : bool
        Whether something is done after each update, rather than after some of them.
    """

    def __init__(
        self,
        step: Step,
        network: Network,
        objective: Objective,
        plan: Plan,
        rows: TrainingRows,
        validation: Rows | None,
        generator: torch.Generator,
        on_event: OnEvent | None,
        team: Team | None,
    ) -> None:
        self.team = team
        self.step, self.network, self.objective, self.plan = step, network, objective, plan
        self.rows, self.validation, self.generator = rows, validation, generator
        self.watch = _Watch(plan, len(rows), on_event)
        self.threads = Threads(
            network.products(plan.batch_size),
            next(network.parameters()),
            network.is_dense,
            own=isinstance(step, TakesMany),
        )
        self.history = History()
        self.epoch, self.n_steps, self.is_whole = 1, 0, True
        self.stops_after_each = False
        self._order = generator.get_state()  # before the epoch's order was drawn
        self._losses = self._new_losses()
        self._best: dict[str, Tensor] | None = None
        self._best_loss = math.inf

    def end(self) -> str | None:
        """Say why training is over, or None where it is not."""
        patience = self.plan.patience
        if patience is not None and self.epoch - 1 - self.history.best_epoch >= patience:
            return "no improvement"
        return "all epochs done" if self.epoch > self.plan.epochs else None

    def heed(self, interruption: Interruption) -> None:
        """Raise KeyboardInterrupt where this worker was asked to end, or any other one was."""
        if self.team is None:
            stops = interruption.wanted
        else:
            # After the same update everywhere, or those that go on would wait for the others.
            stops = self.team.stops
            if interruption.wanted:
                self.team.ask_to_stop()
        if stops:
            raise KeyboardInterrupt

    def updates(self) -> Iterator[int]:
        """Pass over the rest of the epoch's rows; give the number of updates whenever it grows."""
        watch, step, size = self.watch, self.step, self.plan.batch_size
        batches, n_ahead = self._batches(), 1
        if isinstance(step, TakesMany) and not self.stops_after_each:
            n_ahead = step.n_ahead
        while ahead := list(islice(batches, n_ahead)):
            numbers = range(self.n_steps + 1, self.n_steps + 1 + len(ahead))
            rates = [self._rate(number) for number in numbers]
            self.is_whole = False
            if isinstance(step, TakesMany):
                losses = list(step.update_many(ahead, rates))
            else:
                losses = [step.update(ahead[0], rates[0])]
            # Of a team, batches are this worker's parts, and the losses those of them all.
            for number, loss in zip(numbers, losses, strict=False):
                self._losses.add(loss, min(size, watch.n_rows - (number - 1) * size))
            self.n_steps, self.is_whole = numbers[-1], True
            if watch.is_due():
                watch.tell(
                    "step", self.epoch, numbers[-1], {"loss": self._losses.mean()}, rates[-1]
                )
            self.threads.after_steps(len(ahead))
            yield numbers[-1]

    def _rate(self, number: int) -> float:
        """Return the learning rate of the epoch's update `number`, counted from 1."""
        done = (self.epoch - 1) * self.watch.steps
        return self.plan.learning_rate_at(done + number - 1, self.watch.total_steps)

    def _batches(self) -> Iterator[Tensor]:
        size, buffer = self.plan.batch_size, self.step.buffer
        now = self.generator.get_state()
        if not self.n_steps:
            self._order = now
        if self.team is not None:
            self.team.begin_epoch(self._order, self.n_steps)
        if not self.n_steps:
            return self.rows.batches(size, self.generator, buffer)
        self.generator.set_state(self._order)
        batches = self.rows.batches(size, self.generator, buffer, skip=self.n_steps)
        self.generator.set_state(now)
        return batches

    def end_epoch(self) -> None:
        """Measure how good the network has become, and note it."""
        network, plan, validation = self.network, self.plan, self.validation
        self.is_whole = False
        losses, rate = {"loss": self._losses.mean()}, self._rate(self.n_steps)
        probe = self.rows.head(plan.batch_size) if validation is None else validation
        with few_for(network.work(min(_CHUNK_ROWS, len(probe)))):
            dead, probe_loss = self._look_at(probe)
        _require_finite(probe_loss, self.epoch, self.watch.steps, plan)
        if validation is not None:
            losses["validation_loss"] = probe_loss
        epoch, seconds = self.epoch, self.watch.seconds()
        entry = {"epoch": epoch, **losses, **dead, "learning_rate": rate, "seconds": seconds}
        self.history.epochs.append(entry)
        if validation is None or plan.patience is None:
            self.history.best_epoch = epoch
        elif probe_loss < self._best_loss:
            self._best_loss, self.history.best_epoch = probe_loss, epoch
            self._best = copy.deepcopy(network.state_dict())
        self.epoch, self.n_steps = epoch + 1, 0
        self._losses = self._new_losses()
        self.is_whole = True
        # After the bookkeeping, so that whoever interrupts here loses nothing of the epoch.
        self.watch.tell("epoch", epoch, self.watch.steps, losses, rate)

    def _look_at(self, probe: Rows) -> tuple[dict[str, float], float]:
        """Revive what is dead, adapt likelihoods, and return the dead and the loss of `probe`."""
        network, objective, team = self.network, self.objective, self.team
        early = self.epoch <= self.plan.epochs // 2  # what is revived later has no time to learn
        dead = dead_units.tend(
            self.step, network, objective, self.rows, early, self.generator, team
        )
        # The last update is in no batch's loss: the held-out rows, or a few others, tell.
        if objective.adapts:
            _adapt(network, objective, self.rows.head(min(_CHUNK_ROWS, network.rows_per_pass)))
        corruption = getattr(self.step, "corruption", None)
        return dead, evaluate(network, objective, probe, corruption, team)

    def _new_losses(self) -> _Losses:
        every = 1 if self.rows.device.type == "cpu" else _STEPS_PER_LOOK
        return _Losses(self.plan, self.epoch, every)

    def keep_best(self) -> None:
        """Put the best weights into the network, where any are better than others."""
        if self._best is not None:
            self.network.load_state_dict(self._best)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return where the run stands, as tensors and plain data."""
        tensors = {"generator.now": self.generator.get_state(), "generator.order": self._order}
        for name, part in self._parts().items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
        if self._best is not None:
            tensors |= {f"best.{key}": tensor for key, tensor in self._best.items()}
        document = {
            "epoch": self.epoch,
            "n_steps": self.n_steps,
            "losses": self._losses.sums(),
            "best_loss": None if self._best is None else self._best_loss,
            "history": self.history.epochs,
            "best_epoch": self.history.best_epoch,
            "seconds": self.watch.seconds(),
            "finished": self.end() is not None,
        }
        return tensors, document

    def resume(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Stand where a snapshot says."""
        for name, part in self._parts().items():
            part.load_state_dict(_part(tensors, name))
        self.generator.set_state(tensors["generator.now"])
        self._order = tensors["generator.order"]
        self.epoch, self.n_steps = document["epoch"], document["n_steps"]
        self._losses = self._new_losses()
        self._losses.go_on_from(document["losses"])
        self.history.epochs[:] = document["history"]
        self.history.best_epoch = document["best_epoch"]
        if document["best_loss"] is not None:
            self._best, self._best_loss = _part(tensors, "best"), document["best_loss"]
        self.watch.go_on_from(document["seconds"])

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "objective": self.objective, "step": self.step}


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part, under the names that it knows."""
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}


class _Losses:
    """Adds up the losses of an epoch's steps, and requires that they are finite.

    To look at a number is to wait until it is there. A GPU that is waited for at every step idles
    while the next one is prepared, so there the losses of `every` few steps are looked at together.
    """

    def __init__(self, plan: Plan, epoch: int, every: int) -> None:
        self._plan, self._epoch, self._every = plan, epoch, every
        self._unseen: list[tuple[Tensor, int]] = []
        self._total, self._n_rows, self._step = 0.0, 0, 0

    def add(self, loss: Tensor, n_rows: int) -> None:
        """Take the next step's loss, the mean over `n_rows` rows."""
        if self._every == 1:
            self._count(float(loss), n_rows)
            return
        self._unseen.append((loss.clone(), n_rows))  # the next step may write over its loss
        if len(self._unseen) == self._every:
            self._look()

    def mean(self) -> float:
        """Return the mean loss over all rows so far."""
        self._look()
        return self._total / self._n_rows

    def sums(self) -> tuple[float, int, int]:
        """Return the summed loss, the rows and the steps so far."""
        self._look()
        return self._total, self._n_rows, self._step

    def go_on_from(self, sums: tuple[float, int, int]) -> None:
        """Go on from what `sums` returned."""
        self._total, self._n_rows, self._step = sums

    def _look(self) -> None:
        if self._unseen:
            losses, counts = zip(*self._unseen, strict=True)
            self._unseen.clear()
            for loss, n_rows in zip(torch.stack(losses).tolist(), counts, strict=True):
                self._count(loss, n_rows)

    def _count(self, loss: float, n_rows: int) -> None:
        self._step += 1
        _require_finite(loss, self._epoch, self._step, self._plan)
        self._total += loss * n_rows
        self._n_rows += n_rows


def _require_finite(loss: float, epoch: int, step: int, plan: Plan) -> None:
    if math.isfinite(loss):
        return
    what = "NaN" if math.isnan(loss) else "infinite"
    raise DivergenceError(
        f"loss became {what} at epoch {epoch}, step {step}; learning_rate={plan.learning_rate:g} "
        f"is the likely cause: try {plan.learning_rate / 10:g}"
    )


class _Watch:
    """Keeps time and tells events, step events not more often than someone can read them."""

    def __init__(self, plan: Plan, n_rows: int, on_event: OnEvent | None) -> None:
        self.epochs, self.on_event, self.n_rows = plan.epochs, on_event, n_rows
        self.steps = math.ceil(n_rows / plan.batch_size)
        self.total_steps = self.steps * plan.epochs
        self._batch_size = plan.batch_size
        self._start = self._last = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def go_on_from(self, seconds: float) -> None:
        """Count the time of the run before this one too."""
        self._start -= seconds

    def is_due(self) -> bool:
        return self.on_event is not None and time.perf_counter() - self._last > _EVENT_SECONDS

    def tell(
        self, kind: str, epoch: int, step: int, losses: Mapping[str, float], rate: float
    ) -> None:
        self._last = time.perf_counter()
        if self.on_event is None:
            return
        seconds = self.seconds()
        done = (max(epoch, 1) - 1) * self.n_rows + min(step * self._batch_size, self.n_rows)
        speed = done / seconds if seconds > 0 else 0.0
        self.on_event(
            Event(kind, epoch, self.epochs, step, self.steps, losses, rate, seconds, speed)
        )


@torch.no_grad()
def _adapt(network: Network, objective: Objective, x: Tensor) -> None:
    """Let what the likelihoods learn beside the weights follow the training rows `x`."""
    filled, seen = observed(x)
    theta, _ = network(filled, torch.Generator().manual_seed(0), seen)
    objective.adapt(theta[: len(x)], x)


@torch.no_grad()
def evaluate(
    network: Network,
    objective: Objective,
    x: Rows,
    corruption: Corruption | None = None,
    team: Team | None = None,
) -> float:
    """Return the loss of the rows `x`, in nats per cell, without learning from them.

    They are spoilt as in training, by the same chance at every call, so that losses compare. The
    workers of a team take turns, and all get the same bits.
    """
    total, generator = 0.0, torch.Generator().manual_seed(0)
    for number, rows in enumerate(x.split(min(_CHUNK_ROWS, network.rows_per_pass))):
        if team is not None and number % team.size != team.rank:
            continue
        given, wanted = spoil(corruption, rows, objective, generator)
        filled, seen = observed(given)
        theta, penalties = network(filled, generator, seen)
        loss = objective.loss(theta, wanted, penalties)
        total += float(loss) * len(rows)
    if team is not None:
        (total,) = team.total([total])
    return total / len(x)
