"""The trainer: one loop, read top to bottom, over the interface of a step.

The loop draws batches, sets the learning rate, calls the step, sums the losses, measures the
held-out rows, keeps the best weights and emits `Event`s. The step turns one batch into one update
of the weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from twofold.errors import DivergenceError, InterruptedWarning
from twofold.nn.cell_model import observed
from twofold.nn.corruption import Corruption
from twofold.nn.native.stack import applied
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.nn.threads import Threads, few_for
from twofold.schema.tensors import Rows
from twofold.training import dead_units
from twofold.training.autograd import Step, TakesMany, corrupt
from twofold.training.batches import Selection, TrainingData
from twofold.training.checkpoint import Checkpoint, Interruption
from twofold.training.config import TrainingConfig
from twofold.training.events import Callback, EventEmitter, Prepares
from twofold.training.process_group import current_workers
from twofold.training.step import make_step

_CHUNK_ROWS = 4096  # rows per forward pass where nothing is learned
_STEPS_PER_LOOK = 50  # on a GPU, whose losses are looked at together


@dataclass
class History:
    """What training did: one dictionary per epoch, and how it ended.

    `ended` is "all epochs done", "no improvement", "interrupted" or what a callback that stopped
    training says; `best_epoch` is the epoch whose weights were kept, counted from 1 (0 for the
    weights that training started with).
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    ended: str = "all epochs done"
    best_epoch: int = 0

    def entries(self, after: int = 0) -> list[dict[str, float]]:
        """Return the epochs, counted on after as many earlier ones."""
        return [{**entry, "epoch": entry["epoch"] + after} for entry in self.epochs]

    @property
    def is_interrupted(self) -> bool:
        """Whether training was interrupted."""
        return self.ended == "interrupted"

    def warn_if_interrupted(self, trainer: Trainer) -> None:
        """Warn if training was interrupted, and say how to continue."""
        if not self.is_interrupted:
            return
        saved = trainer.checkpoint
        remedy = "" if saved is None else f" To continue, resume from {saved.folder}."
        warnings.warn(
            f"Training was interrupted after {len(self.epochs)} of {trainer.config.epochs} epochs; "
            f"the model holds the best weights until then.{remedy}",
            InterruptedWarning,
            stacklevel=3,
        )


class Trainer:
    """Fits the weights of a network, in this process or with the current group of workers.

    Parameters
    ----------
    network : Network
        Updated in place.
    objective : Objective
        What training minimises.
    config : TrainingConfig
    generator : torch.Generator
        Draws the order of the rows, and what corruption and bottlenecks draw; the same one in all
        workers.
    callbacks : sequence of callable
        Called with each `Event`, in the main worker.
    checkpoint : Checkpoint, optional
        Where to write what a later run continues from, and what this one continues from; of the
        main worker alone.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        generator: torch.Generator,
        callbacks: Sequence[Callback] = (),
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network, self.objective, self.config = network, objective, config
        self.generator, self.checkpoint = generator, checkpoint
        self.workers = current_workers()
        self.callbacks = tuple(callbacks) if self.workers.is_main else ()
        self.stage = ""
        self.step: Step | None = None
        # Of each held-out row, as pretraining leaves the network, if it has measured them.
        self.start_losses: Tensor | None = None

    def part(self, stage: str, network: Network, objective: Objective) -> Trainer:
        """Return a trainer for a part of the network, whose events carry the name of the stage."""
        trainer = Trainer(network, objective, self.config, self.generator, self.callbacks)
        trainer.stage = stage
        return trainer

    @property
    def resumes(self) -> bool:
        """Whether training continues from a checkpoint."""
        saved = self.checkpoint
        return self.workers.broadcast(saved is not None and saved.found is not None)

    def step_for(self, data: TrainingData) -> Step:
        """Return the step of earlier calls, unless these rows need another one."""
        if self.step is None or not (self.step.takes_missing or data.complete):
            self.step = make_step(
                self.network,
                self.objective,
                self.config,
                complete=data.complete,
                generator=self.generator,
                workers=self.workers,
            )
        return self.step

    def fit(self, data: TrainingData) -> History:
        """Train on the rows, and leave the best or the last weights in the network.

        With held-out rows and `config.keeps_best`, the weights with the least loss on them are
        kept, those that training starts with among them; with `config.patience`, training stops
        after that many epochs without a better loss.

        Raises
        ------
        DivergenceError
            If the loss stops being a finite number; it names the step. On a GPU it comes a few
            steps later.
        """
        if not self.stage:
            for callback in self.callbacks:
                if isinstance(callback, Prepares):
                    callback.prepare(self, data)
            self.config = self.workers.broadcast(self.config)
        saved, run = self.checkpoint, _Run(self, data)
        found = None if saved is None or saved.found is None else saved.take()
        found = self.workers.broadcast(found)
        if found is not None:
            run.resume(*found)
        else:
            run.begin()
        history, events = run.history, run.events
        catches = saved is not None or self.workers.size > 1
        with Interruption(catches) as interruption:
            try:
                events.emit("start", 0, 0, {}, run.rate(1))
                while run.end() is None:
                    with run.threads:
                        for _ in run.updates():
                            if self.workers.should_stop(interruption.requested):
                                raise KeyboardInterrupt
                            if saved is not None and saved.is_due():
                                saved.write(*run.snapshot())
                    run.end_epoch()
                    if saved is not None and saved.is_due_between():
                        saved.write(*run.snapshot())
                history.ended = run.end() or ""
            except KeyboardInterrupt:
                history.ended = "interrupted"
        if saved is not None and run.is_whole:
            saved.write(*run.snapshot())
        run.keep_best()
        events.emit("end", len(history.epochs), events.steps if history.epochs else 0, {}, 0.0)
        return history

    def cool_down(self, data: TrainingData, history: History) -> None:
        """Go on from the best weights at a small, constant learning rate, for `config.cooldown`.

        These are those of one epoch at a higher rate, noise and all, with which the held-out rows
        chose them. Training rows alone average it out here. A run that resumes does all of it
        again, from the same weights.
        """
        part = self.part("cool-down", self.network, self.objective)
        part.config = self.config.cooled_down()
        run = _Run(part, data)
        catches = self.checkpoint is not None or self.workers.size > 1
        with Interruption(catches) as interruption:
            try:
                while run.end() is None:
                    with run.threads:
                        for _ in run.updates():
                            if self.workers.should_stop(interruption.requested):
                                raise KeyboardInterrupt
                    run.begin_epoch()
                    run.hear_callbacks()
            except KeyboardInterrupt:
                history.ended = "interrupted"
        history.ended = run.stopped or history.ended
        run.adapt()
        self.step = part.step  # the other one remembers gradients of other weights


class _Run:
    """One run of training, and where it stands.

    Attributes
    ----------
    epoch, n_steps : int
        The epoch that is under way, counted from 1, and its updates so far.
    is_whole : bool
        Whether weights, generators and what is noted here are of the same update.
    stops_after_each : bool
        Whether something is done after each update, rather than after some of them.
    stopped : str
        Why a callback wants training to end; empty if none does.
    """

    def __init__(self, trainer: Trainer, data: TrainingData) -> None:
        self.network, self.objective, self.config = (
            trainer.network,
            trainer.objective,
            trainer.config,
        )
        self.generator, self.workers = trainer.generator, trainer.workers
        self.step = trainer.step_for(data)
        self._applied = applied(self.network)
        self.rows = data.rows.share(self.workers.rank, self.workers.size)
        self._takes_many = self.step if isinstance(self.step, TakesMany) else None
        self._matrix = self._read_in_place()
        self.held_out = data.held_out
        self.events = EventEmitter(self.config, len(data.rows), trainer.callbacks, trainer.stage)
        self.threads = Threads(
            self.network.products(self.config.batch_size),
            next(self.network.parameters()),
            self.network.is_dense,
            own=self._takes_many is not None,
        )
        self.history, self.stopped = History(), ""
        self.epoch, self.n_steps, self.is_whole = 1, 0, True
        saved = trainer.checkpoint
        self.stops_after_each = saved is not None and saved.seconds == 0
        self._order = self.generator.get_state()  # before the epoch's order was drawn
        self._losses = self._new_losses()
        # With a patience, what training waited for in vain is not kept.
        self._keeps_best = self.config.keeps_best or self.config.patience is not None
        self._best: dict[str, Tensor] | None = None
        self._best_loss = math.inf

    def end(self) -> str | None:
        """Say why training is over, or None where it is not."""
        patience = self.config.patience
        if patience is not None and self.epoch - 1 - self.history.best_epoch >= patience:
            return "no improvement"
        if self.epoch > self.config.epochs:
            return "all epochs done"
        return self.stopped or None

    def updates(self) -> Iterator[int]:
        """Pass over the rest of the epoch's rows; give the number of updates whenever it grows."""
        events, many, size = self.events, self._takes_many, self.config.batch_size
        batches, n_ahead = self._batches(), 1
        if many is not None and not self.stops_after_each:
            n_ahead = many.n_ahead
        while ahead := list(islice(batches, self.threads.most_steps(n_ahead))):
            numbers = range(self.n_steps + 1, self.n_steps + 1 + len(ahead))
            rates = [self.rate(number) for number in numbers]
            self.is_whole = False
            if many is not None:
                losses = many.update_many(ahead, rates, self._matrix).tolist()
            else:
                losses = [self.step.update(ahead[0], rates[0])]
            # Batches are this worker's parts, and the losses those of all workers.
            for number, loss in zip(numbers, losses, strict=False):
                self._losses.add(loss, min(size, events.n_rows - (number - 1) * size))
            self.n_steps, self.is_whole = numbers[-1], True
            if events.is_due():
                so_far = {"loss": self._losses.mean()}
                events.emit("step", self.epoch, numbers[-1], so_far, rates[-1])
            self.threads.after_steps(len(ahead))
            yield numbers[-1]

    def rate(self, number: int) -> float:
        """Return the learning rate of the epoch's update `number`, counted from 1."""
        done = (self.epoch - 1) * self.events.steps
        return self.config.learning_rate_at(done + number - 1, self.events.total_steps)

    def _read_in_place(self) -> Tensor | None:
        """Return the matrix of the rows, where the step reads them there and needs no copies."""
        if self._takes_many is None or not isinstance(self.rows, Selection):
            return None
        x = self.rows.x
        return x if isinstance(x, Tensor) and self._takes_many.reads(x) else None

    def _batches(self) -> Iterator[Tensor]:
        now = self.generator.get_state()
        if not self.n_steps:
            self._order = now
        self.workers.begin_epoch(self._order, self.n_steps)
        if self.n_steps:
            self.generator.set_state(self._order)
        size, skip = self.config.batch_size, self.n_steps
        if self._matrix is None:
            batches = self.rows.batches(size, self.generator, self.step.buffer, skip)
        else:
            assert isinstance(self.rows, Selection)
            batches = self.rows.places(size, self.generator, skip)
        if self.n_steps:
            self.generator.set_state(now)
        return batches

    def end_epoch(self) -> None:
        """Measure how good the network has become, and note it."""
        network, config, held_out = self.network, self.config, self.held_out
        self.is_whole = False
        losses, rate = {"loss": self._losses.mean()}, self.rate(self.n_steps)
        probe = self.rows.head(config.batch_size) if held_out is None else held_out
        with few_for(network.work(min(_CHUNK_ROWS, len(probe)))):
            dead, probe_loss = self._look_at(probe)
        _require_finite(probe_loss, self.epoch, self.events.steps, config)
        if held_out is not None:
            losses["validation_loss"] = probe_loss
        epoch, seconds = self.epoch, self.events.seconds()
        entry = {"epoch": epoch, **losses, **dead, "learning_rate": rate, "seconds": seconds}
        self.history.epochs.append(entry)
        if held_out is None or not self._keeps_best:
            self.history.best_epoch = epoch
        elif probe_loss < self._best_loss:
            self._best_loss, self.history.best_epoch = probe_loss, epoch
            self._best = _copied(network)
        self.begin_epoch()
        self.is_whole = True
        # After the bookkeeping, so that whoever interrupts here loses nothing of the epoch.
        self.events.emit("epoch", epoch, self.events.steps, losses, rate)
        self.hear_callbacks()

    def hear_callbacks(self) -> None:
        """Note whether one of them wants training to end; workers do so together."""
        self.stopped = self.workers.broadcast(self.events.stopped)

    def begin_epoch(self) -> None:
        """Count the next epoch's updates from 0."""
        self.epoch, self.n_steps = self.epoch + 1, 0
        self._losses = self._new_losses()

    def begin(self) -> None:
        """Measure the network that training starts with: what is learned has to be better."""
        if self.held_out is None or not self._keeps_best:
            return
        with few_for(self.network.work(min(_CHUNK_ROWS, len(self.held_out)))):
            self.adapt()
            loss = self._loss_of(self.held_out)
        if math.isfinite(loss):
            self._best_loss, self._best = loss, _copied(self.network)

    def _loss_of(self, probe: Rows) -> float:
        turn = self.workers.rank, self.workers.size
        loss = _summed_loss(self._applied, self.objective, probe, self.config.corruption, turn)
        return self.workers.all_reduce_sum([loss])[0] / len(probe)

    def _look_at(self, probe: Rows) -> tuple[dict[str, float], float]:
        """Revive dead units, adapt likelihoods; return the number of dead and the probe's loss."""
        network, objective, workers = self.network, self.objective, self.workers
        early = self.epoch <= self.config.epochs // 2  # what is revived later has no time to learn
        dead = dead_units.revive_dead_units(
            self.step, network, objective, self.rows, early, self.generator
        )
        if early and dead.get("dead_units"):
            # Losses that differ by rounding may draw another row, and workers share one network.
            workers.synchronize(network)
        # The last update is in no batch's loss: the held-out rows, or a few others, say.
        self.adapt()
        return dead, self._loss_of(probe)

    def adapt(self) -> None:
        """Fit what the likelihoods learn besides the weights."""
        if not self.objective.learns_spread:
            return  # before rows are gathered for it
        adapt(
            self.network,
            self.objective,
            self.rows.head(min(_CHUNK_ROWS, self.network.rows_per_pass)),
            self.held_out if self._keeps_best else None,
            self.config.corruption,
        )

    def _new_losses(self) -> _Losses:
        every = 1 if self.rows.device.type == "cpu" else _STEPS_PER_LOOK
        return _Losses(self.config, self.epoch, every)

    def keep_best(self) -> None:
        """Put the best weights into the network, where any are better than others."""
        if self._best is not None:
            self.network.load_state_dict(self._best)
            self.adapt()

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state of the run, as tensors and plain data."""
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
            "seconds": self.events.seconds(),
            "finished": self.end() is not None,
            "stopped": self.stopped,
        }
        return tensors, document

    def resume(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Continue from a snapshot."""
        for name, part in self._parts().items():
            part.load_state_dict(_part(tensors, name))
        self.generator.set_state(tensors["generator.now"])
        self._order = tensors["generator.order"]
        self.epoch, self.n_steps = document["epoch"], document["n_steps"]
        self._losses = self._new_losses()
        self._losses.continue_from(document["losses"])
        self.history.epochs[:] = document["history"]
        self.history.best_epoch = document["best_epoch"]
        self.stopped = document.get("stopped", "")
        if document["best_loss"] is not None:
            self._best, self._best_loss = _part(tensors, "best"), document["best_loss"]
        self.events.continue_from(document["seconds"])

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "objective": self.objective, "step": self.step}


def _copied(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part, under its own names."""
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}


class _Losses:
    """Adds up the losses of an epoch's steps, and requires that they are finite.

    To look at a number is to wait until it is there. A GPU that is waited for at every step idles
    while the next one is prepared, so there the losses of `every` few steps are looked at together.
    """

    def __init__(self, config: TrainingConfig, epoch: int, every: int) -> None:
        self._config, self._epoch, self._every = config, epoch, every
        self._unseen: list[tuple[Tensor, int]] = []
        self._total, self._n_rows, self._step = 0.0, 0, 0

    def add(self, loss: Tensor | float, n_rows: int) -> None:
        """Take the next step's loss, the mean over `n_rows` rows."""
        if self._every == 1 or isinstance(loss, float):
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

    def continue_from(self, sums: tuple[float, int, int]) -> None:
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
        _require_finite(loss, self._epoch, self._step, self._config)
        self._total += loss * n_rows
        self._n_rows += n_rows


def _require_finite(loss: float, epoch: int, step: int, config: TrainingConfig) -> None:
    if math.isfinite(loss):
        return
    what = "NaN" if math.isnan(loss) else "infinite"
    raise DivergenceError(
        f"Expected a finite loss, got {what} at epoch {epoch}, step {step}. The likely cause is "
        f"learning_rate={config.learning_rate:g}: try {config.learning_rate / 10:g}."
    )


@torch.no_grad()
def adapt(
    network: Network,
    objective: Objective,
    x: Tensor,
    held_out: Rows | None = None,
    corruption: Corruption | None = None,
) -> None:
    """Fit what the likelihoods learn besides the weights to the training rows `x`.

    The noise of a table of several likelihoods is that of held-out rows, if there are any, with
    cells hidden as in training. Training rows are soon known by heart: their noise would make one
    number that is off count more than all categories.
    """
    if not objective.learns_spread:
        return
    others = held_out if objective.needs_weights else None
    if others is None or objective.counts_spread:
        filled, seen = observed(x)
        theta, _ = network(filled, torch.Generator().manual_seed(0), seen)
        objective.adapt(theta[: len(x)], x)
    if others is not None:
        few = others[: min(_CHUNK_ROWS, network.rows_per_pass)]
        theta, target, _ = next(_decoded(network, objective, few, corruption))
        objective.fit_noise(theta[: len(target)], target)


def evaluate(
    network: Network, objective: Objective, x: Rows, corruption: Corruption | None = None
) -> float:
    """Return the loss of the rows `x`, in nats per cell, without learning from them.

    They are corrupted as in training, from the same seed at every call, so that losses compare.
    """
    return _summed_loss(network, objective, x, corruption) / len(x)


@torch.no_grad()
def _summed_loss(
    network: Network,
    objective: Objective,
    x: Rows,
    corruption: Corruption | None,
    turn: tuple[int, int] = (0, 1),
) -> float:
    """Return the sum over the rows of `x` of their loss per cell; workers take turns at chunks."""
    total = 0.0
    for theta, target, penalties in _decoded(network, objective, x, corruption, turn):
        total += float(objective.loss(theta, target, penalties)) * len(target)
    return total


@torch.no_grad()
def row_losses(
    network: Network, objective: Objective, x: Rows, corruption: Corruption | None = None
) -> Tensor:
    """Return the loss of each row in nats, `(n_rows,)`, penalties left out."""
    parts = _decoded(network, objective, x, corruption)
    return torch.cat([objective.row_losses(theta, target) for theta, target, _ in parts])


def _decoded(
    network: Network,
    objective: Objective,
    x: Rows,
    corruption: Corruption | None,
    turn: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor, Mapping[str, Tensor]]]:
    """Give what comes out, what should, and the penalties, a few rows at a time."""
    generator, (rank, size) = torch.Generator().manual_seed(0), turn
    for number, rows in enumerate(x.split(min(_CHUNK_ROWS, network.rows_per_pass))):
        if number % size == rank:
            corrupted, target = corrupt(corruption, rows, objective, generator)
            filled, seen = observed(corrupted)
            theta, penalties = network(filled, generator, seen)
            yield theta, target, penalties
