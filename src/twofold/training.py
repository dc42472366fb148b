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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from twofold.corruption import Corruption, Masking
from twofold.errors import DivergenceError, InterruptedWarning
from twofold.network import Network
from twofold.objective import Objective, observed
from twofold.rows import Rows, pick, take
from twofold.rule import Rule
from twofold.threads import Threads

_CHUNK_ROWS = 4096  # rows per forward pass where nothing is learned
_LARGE_BATCH, _WIDE = 64, 256  # below, rounding copies cost more than bfloat16 products save
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
    from the start of training.
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


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Plan:
    """How to train: every option of training with its "auto" worked out."""

    optimizer: str
    learning_rate: float
    momentum: float
    nesterov: bool
    schedule: str
    batch_size: int
    epochs: int
    weight_decay: float
    patience: int | None
    bfloat16: bool = False

    @classmethod
    def resolve(cls, options: Mapping[str, Any], n_rows: int, width: int) -> Plan:
        """Work out what "auto" means for a table of `n_rows` rows and `width` inputs."""
        values = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        if values["batch_size"] == "auto":
            values["batch_size"] = automatic_batch_size(n_rows)
        if values["epochs"] == "auto":
            noise = options.get("corruption")
            fills = isinstance(noise, Masking) and noise.only_hidden
            values["epochs"] = automatic_epochs(n_rows, values["batch_size"], fills)
        if values["learning_rate"] == "auto":
            values["learning_rate"] = automatic_learning_rate(values["optimizer"], width)
        for name in ("learning_rate", "momentum", "weight_decay"):
            values[name] = float(values[name])  # numpy's numbers are no JSON
        bfloat16 = options["precision"] == "bfloat16" or (
            options["precision"] == "auto"
            and fast_in_bfloat16(options["device"])
            and values["batch_size"] >= _LARGE_BATCH
            and width >= _WIDE
        )
        return cls(**values, bfloat16=bfloat16)

    def rule(self, matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Rule:
        """Make the plan's update rule for these parameters."""
        how = (self.optimizer, self.momentum, self.nesterov, self.weight_decay)
        return Rule(*how, matrices, biases)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of update `step` out of `steps`, counted from 0.

        One-cycle rises linearly from a 25th of the peak over the first tenth of the run and
        falls along a cosine to zero (Smith and Topin, 2019, "Super-Convergence").
        """
        if self.schedule == "constant":
            return self.learning_rate
        rise = max(1, steps // 10)
        if step < rise:
            return self.learning_rate * (0.04 + 0.96 * step / rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def fast_in_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware: AVX-512 BF16, AMX, or a recent GPU."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def automatic_batch_size(n_rows: int) -> int:
    """Return a power of two between 32 and 1,024 that gives some hundred updates per epoch."""
    return int(min(1024, max(32, 2 ** math.floor(math.log2(max(n_rows, 1) / 400)))))


def automatic_epochs(n_rows: int, batch_size: int, fills: bool = False) -> int:
    """Return enough epochs for about 4,000 updates, between 10 and 200.

    A network that `fills` hidden cells, and learns from those alone, learns less from an update and
    goes on learning for longer: 150 epochs, and at least 1,000 and at most 12,000 updates.
    """
    if fills:
        steps = math.ceil(n_rows / batch_size)
        return max(1, math.ceil(min(12_000, max(1000, 150 * steps)) / steps))
    return int(min(200, max(10, math.ceil(4000 / math.ceil(n_rows / batch_size)))))


def automatic_learning_rate(optimizer: str, width: int) -> float:
    """Return a step size that suits the loss per cell.

    Adam's steps do not depend on the scale of the loss, but a unit adds up `width` of them, so
    they shrink with the square root of the width. The gradient of a mean over `width` cells shrinks
    with the width, so plain gradient descent makes up for it.
    """
    if optimizer == "sgd":
        return min(1.5, max(0.05, 0.01 * width))
    return min(0.02, max(0.001, 0.08 / math.sqrt(width)))


def split(x: Rows, rng: np.random.RandomState, fraction: float) -> tuple[Tensor, Rows | None]:
    """Hold out a share of the rows: the positions to train on, and the held-out rows, if any."""
    order = torch.from_numpy(rng.permutation(len(x)))
    if fraction == 0 or len(x) < 10:
        return order, None
    n = max(round(fraction * len(x)), min(_LEAST_HELD_OUT, len(x) // 4))
    n = min(n, len(x) - 2)
    return order[n:], pick(x, order[:n])


class Step(Protocol):
    """What turns one batch into one update of the weights."""

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update.

        The next update may write over that loss.
        """


class AutogradStep:
    """The plain step: autograd finds the gradient, the plan's rule applies it.

    Rows may have holes; `corruption`, with chance from `generator`, spoils what the network is
    given, and not what it has to give back.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        plan: Plan,
        corruption: Corruption | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.network, self.objective, self.bfloat16 = network, objective, plan.bfloat16
        self.corruption, self.generator = corruption, generator or torch.Generator()
        matrices = [p for p in network.parameters() if p.ndim > 1]
        biases = [p for p in network.parameters() if p.ndim <= 1]
        self._rule = plan.rule(matrices, biases)
        # A cell far from its histogram's mean would undo what many others have taught (Pascanu,
        # Mikolov and Bengio, 2013, "On the Difficulty of Training Recurrent Neural Networks",
        # algorithm 1).
        self._clips = any(name == "histogram" for name, _ in objective.groups)
        parameter = next(network.parameters())
        self._x = parameter.new_empty(plan.batch_size, network.width)

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows > len(self._x):
            self._x = self._x.new_empty(n_rows, self.network.width)
        return self._x[:n_rows]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        given, wanted = spoil(self.corruption, x, self.objective, self.generator)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            theta, penalties = self.network(observed(given)[0])
        loss = self.objective.reconstruction(theta.to(x.dtype), wanted)
        for penalty in penalties.values():
            loss = loss + penalty
        gradients = torch.autograd.grad(loss, self._rule.parameters)
        if self._clips:
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            gradients = torch._foreach_mul(gradients, (1 / norm).clamp_max(1.0))
        self._rule.follow_parameters()
        with torch.no_grad():
            self._rule.apply(gradients, learning_rate)
        return loss.detach()


def spoil(
    corruption: Corruption | None, x: Tensor, objective: Objective, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return what the network is given, and what it has to give back: (batch, width) each."""
    if corruption is None:
        return x, x
    given = corruption(x, objective.column, generator)
    if isinstance(corruption, Masking) and corruption.only_hidden:
        return given, torch.where(torch.isnan(given), x, torch.nan)
    return given, x


@dataclass
class History:
    """What training did: one dictionary per epoch, and how it ended.

    `ended` is "all epochs done", "no improvement" or "interrupted"; `best_epoch` is the epoch
    whose weights were kept, counted from 1 (0 where no epoch was finished).
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    ended: str = "all epochs done"
    best_epoch: int = 0

    def warn_if_interrupted(self, plan: Plan) -> None:
        """Warn where training ended before its time."""
        if self.ended == "interrupted":
            warnings.warn(
                f"Training was interrupted after {len(self.epochs)} of {plan.epochs} epochs; the "
                f"model holds the best weights until then.",
                InterruptedWarning,
                stacklevel=3,
            )


def fit(
    step: Step,
    network: Network,
    objective: Objective,
    plan: Plan,
    x: Rows,
    rows: Tensor,
    validation: Rows | None,
    generator: torch.Generator,
    on_event: OnEvent | None = None,
) -> History:
    """Train `network` on the given rows of `x`, and leave the best or the last weights in it.

    Parameters
    ----------
    step : Step
        Made for this network, objective and plan.
    x : Tensor of shape (n, width) or EncodedRows
        What the schema made of the table.
    rows : Tensor of int64
        Which rows of `x` to train on.
    validation : as x, or None
        Held-out rows. With `plan.patience`, training stops after that many epochs without a better
        loss on them, and the best weights are kept.
    generator : torch.Generator
        Draws the order of the rows.
    on_event : callable, optional
        Receives each `Event`.

    Raises
    ------
    DivergenceError
        Names the very step where the loss stopped being a finite number. On a GPU it comes a few
        steps later.
    """
    history = History()
    watch = _Watch(plan, len(rows), on_event)
    threads = Threads(_products(network, plan.batch_size), next(network.parameters()))
    best: dict[str, Tensor] | None = None
    best_loss = math.inf
    try:
        watch.tell("start", 0, 0, {}, plan.learning_rate_at(0, watch.total_steps))
        for epoch in range(1, plan.epochs + 1):
            with threads:
                loss, rate = _one_epoch(step, plan, x, rows, epoch, generator, watch, threads)
            losses = {"loss": loss}
            # The last update is in no batch's loss: the held-out rows, or a few others, tell.
            if objective.adapts:
                _adapt(network, objective, x[rows[:_CHUNK_ROWS].to(x.device)])
            probe = x[rows[: plan.batch_size].to(x.device)] if validation is None else validation
            probe_loss = evaluate(network, objective, probe, getattr(step, "corruption", None))
            _require_finite(probe_loss, epoch, watch.steps, plan)
            if validation is not None:
                losses["validation_loss"] = probe_loss
            history.epochs.append(
                {"epoch": epoch, **losses, "learning_rate": rate, "seconds": watch.seconds()}
            )
            if validation is None or plan.patience is None:
                history.best_epoch = epoch
            elif probe_loss < best_loss:
                best_loss, history.best_epoch = probe_loss, epoch
                best = copy.deepcopy(network.state_dict())
            # After the bookkeeping, so that whoever interrupts here loses nothing of the epoch.
            watch.tell("epoch", epoch, watch.steps, losses, rate)
            if plan.patience is not None and epoch - history.best_epoch >= plan.patience:
                history.ended = "no improvement"
                break
    except KeyboardInterrupt:
        history.ended = "interrupted"
    if best is not None:
        network.load_state_dict(best)
    watch.tell("end", len(history.epochs), watch.steps if history.epochs else 0, {}, 0.0)
    return history


def _one_epoch(
    step: Step,
    plan: Plan,
    x: Rows,
    rows: Tensor,
    epoch: int,
    generator: torch.Generator,
    watch: _Watch,
    threads: Threads,
) -> tuple[float, float]:
    """Pass once over the rows in a new order; return the mean loss and the last learning rate."""
    order = rows[torch.randperm(len(rows), generator=generator)].to(x.device)
    losses = _Losses(plan, epoch, every=1 if x.device.type == "cpu" else _STEPS_PER_LOOK)
    rate = plan.learning_rate
    for number, batch in enumerate(order.split(plan.batch_size), start=1):
        rate = plan.learning_rate_at((epoch - 1) * watch.steps + number - 1, watch.total_steps)
        buffer = step.buffer(len(batch))
        take(x, batch, buffer)
        losses.add(step.update(buffer, rate), len(batch))
        if watch.is_due():
            watch.tell("step", epoch, number, {"loss": losses.mean()}, rate)
        threads.after_step()
    return losses.mean(), rate


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


def _products(network: Network, batch_size: int) -> list[tuple[int, int, int]]:
    """List the matrix products of one step, as (rows, inner, columns)."""
    return [(batch_size, pair.n_in, pair.n_out) for pair in network.pairs]


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
    theta, _ = network(observed(x)[0])
    objective.adapt(theta, x)


@torch.no_grad()
def evaluate(
    network: Network, objective: Objective, x: Rows, corruption: Corruption | None = None
) -> float:
    """Return the loss of the rows `x`, in nats per cell, without learning from them.

    They are spoilt as in training, by the same chance at every call, so that losses compare.
    """
    total, generator = 0.0, torch.Generator().manual_seed(0)
    for rows in x.split(_CHUNK_ROWS):
        given, wanted = spoil(corruption, rows, objective, generator)
        theta, penalties = network(observed(given)[0])
        loss = objective.reconstruction(theta, wanted) + sum(penalties.values())
        total += float(loss) * len(rows)
    return total / len(x)
