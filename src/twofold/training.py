"""Training: one loop, read top to bottom, over one small interface to the step.

The loop draws batches, sets the learning rate, calls the step, watches the loss, measures the
held-out rows, keeps the best weights and tells what happened in `Event`s. The step turns one batch
into one update of the weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from twofold.errors import DivergenceError
from twofold.network import Network
from twofold.objective import Objective
from twofold.threads import Threads

_CHUNK_ROWS = 4096  # rows per forward pass where nothing is learned
_LARGE_BATCH, _WIDE = 64, 256  # below, rounding copies cost more than bfloat16 products save
_EVENT_SECONDS = 0.1  # least time between two "step" events


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
            values["epochs"] = automatic_epochs(n_rows, values["batch_size"])
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


def automatic_epochs(n_rows: int, batch_size: int) -> int:
    """Return enough epochs for about 4,000 updates, between 10 and 200."""
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


class Step(Protocol):
    """What turns one batch into one update of the weights."""

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""


class AutogradStep:
    """The plain step: autograd finds the gradient, an optimizer of PyTorch applies it."""

    def __init__(self, network: Network, objective: Objective, plan: Plan) -> None:
        self.network, self.objective, self.bfloat16 = network, objective, plan.bfloat16
        self.optimizer = _make_optimizer(network, plan)
        parameter = next(network.parameters())
        self._x = parameter.new_empty(plan.batch_size, network.width)

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows > len(self._x):
            self._x = self._x.new_empty(n_rows, self.network.width)
        return self._x[:n_rows]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            theta, penalties = self.network(x)
        loss = self.objective.reconstruction(theta.to(x.dtype), x)
        for penalty in penalties.values():
            loss = loss + penalty
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _make_optimizer(network: Network, plan: Plan) -> torch.optim.Optimizer:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(
            groups, plan.learning_rate, momentum=plan.momentum, nesterov=plan.nesterov
        )
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, plan.learning_rate)


@dataclass
class History:
    """What training did: one dictionary per epoch, and how it ended.

    `ended` is "all epochs done", "no improvement" or "interrupted"; `best_epoch` is the epoch
    whose weights were kept, counted from 1 (0 where no epoch was finished).
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    ended: str = "all epochs done"
    best_epoch: int = 0


def fit(
    step: Step,
    network: Network,
    objective: Objective,
    plan: Plan,
    x: Tensor,
    rows: Tensor,
    validation: Tensor | None,
    generator: torch.Generator,
    on_event: OnEvent | None = None,
) -> History:
    """Train `network` on the given rows of `x`, and leave the best or the last weights in it.

    Parameters
    ----------
    step : Step
        Made for this network, objective and plan.
    x : Tensor of shape (n, width)
        The matrix that the schema made.
    rows : Tensor of int64
        Which rows of `x` to train on.
    validation : Tensor of shape (m, width) or None
        Held-out rows. With `plan.patience`, training stops after that many epochs without a better
        loss on them, and the best weights are kept.
    generator : torch.Generator
        Draws the order of the rows.
    on_event : callable, optional
        Receives each `Event`.

    Raises
    ------
    DivergenceError
        At the very step where the loss stops being a finite number.
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
            probe = x[rows[: plan.batch_size].to(x.device)] if validation is None else validation
            probe_loss = evaluate(network, objective, probe)
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
    x: Tensor,
    rows: Tensor,
    epoch: int,
    generator: torch.Generator,
    watch: _Watch,
    threads: Threads,
) -> tuple[float, float]:
    """Pass once over the rows in a new order; return the mean loss and the last learning rate."""
    total, seen, rate = 0.0, 0, plan.learning_rate
    for number, batch in enumerate(_batches(rows, plan.batch_size, generator), start=1):
        rate = plan.learning_rate_at((epoch - 1) * watch.steps + number - 1, watch.total_steps)
        buffer = step.buffer(len(batch))
        torch.index_select(x, 0, batch.to(x.device), out=buffer)
        loss = float(step.update(buffer, rate))
        _require_finite(loss, epoch, number, plan)
        total += loss * len(batch)
        seen += len(batch)
        watch.after_step(epoch, number, total / seen, rate)
        threads.after_step()
    return total / seen, rate


def _products(network: Network, batch_size: int) -> list[tuple[int, int, int]]:
    """List the matrix products of one step, as (rows, inner, columns)."""
    return [(batch_size, pair.n_in, pair.n_out) for pair in network.pairs]


def _batches(rows: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    return iter(rows[torch.randperm(len(rows), generator=generator)].split(batch_size))


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

    def after_step(self, epoch: int, step: int, loss: float, rate: float) -> None:
        if self.on_event is not None and time.perf_counter() - self._last > _EVENT_SECONDS:
            self.tell("step", epoch, step, {"loss": loss}, rate)

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
def evaluate(network: Network, objective: Objective, x: Tensor) -> float:
    """Return the loss of the rows `x`, in nats per cell, without learning from them."""
    total = 0.0
    for rows in x.split(_CHUNK_ROWS):
        theta, penalties = network(rows)
        loss = objective.reconstruction(theta, rows) + sum(penalties.values())
        total += float(loss) * len(rows)
    return total / len(x)
