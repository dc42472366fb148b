"""A training step by every way there is, in turn, next to the most that the processor can do.

The ways take turns of a few steps within one process, so that what else the machine does meets all
of them alike, and each case reports medians, the fastest turn and ratios within rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from channel import Channel

from twofold.nn.native import library
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Column, Schema
from twofold.training.autograd import AutogradStep, Step, TakesMany
from twofold.training.config import TrainingConfig
from twofold.training.fused import FusedStep
from twofold.training.native import NativeStep

_TURN_ROWS = 1600


@dataclass(frozen=True)
class Case:
    """A stack and how it is trained."""

    widths: tuple[int, ...] = (784, 392, 196)
    batch: int = 32
    optimizer: str = "sgd"
    tied: bool = True
    activation: str = "selu"
    likelihood: str = "bernoulli"

    @property
    def flop_per_row(self) -> int:
        """Multiplications and additions: forward, back and gradients, none for the inputs."""
        sizes = [a * b for a, b in zip(self.widths, self.widths[1:], strict=False)]
        return 2 * (6 * sum(sizes) - sizes[0])

    def parts(self) -> tuple[Network, Objective, TrainingConfig]:
        """Make the network, its objective and how to train it."""
        width, *hidden, code = self.widths
        columns = tuple(Column(f"x{i}", "real", self.likelihood) for i in range(width))
        network = Network(
            width,
            hidden,
            code,
            tied=self.tied,
            activation=self.activation,
            generator=torch.Generator().manual_seed(0),
        )
        rate = 0.1 if self.optimizer == "sgd" else 1e-3
        config = TrainingConfig(
            optimizer=self.optimizer,
            learning_rate=rate,
            momentum=0.0,
            nesterov=False,
            schedule="constant",
            batch_size=self.batch,
            epochs=1,
            weight_decay=0.0,
            patience=None,
        )
        return network, Objective(Schema(columns, (width,))), config


CASES = {
    "tied": Case(),
    "untied": Case(tied=False),
    "tied, batch 128": Case(batch=128),
    "tied, batch 1024": Case(batch=1024),
    "tied, Adam": Case(optimizer="adam"),
    "untied, Adam": Case(optimizer="adam", tied=False),
    "tied, Adam, batch 128": Case(optimizer="adam", batch=128),
    "2048-1024-256, tied": Case(widths=(2048, 1024, 256)),
    "2048-1024-256, untied": Case(widths=(2048, 1024, 256), tied=False),
    "table 20-128-64-5": Case((20, 128, 64, 5), 64, "adam", True, "relu", "gaussian"),
}


def ways(threads: int) -> dict[str, tuple[int, Callable[..., Step]]]:
    """Return each way to train with its number of threads."""
    found: dict[str, tuple[int, Callable[..., Step]]] = {}
    for n in sorted({1, threads}):
        for name in library.instruction_sets()[-2:]:
            found[f"native {name}, {n}"] = (n, _native(name))
        found[f"fused, {n}"] = (n, FusedStep)
        found[f"autograd, {n}"] = (n, AutogradStep)
    return found


def _native(name: str) -> Callable[..., Step]:
    return lambda *parts: NativeStep(*parts, instruction_set=name)


def seconds_per_row(step: Step, x: torch.Tensor, case: Case) -> float:
    """Take some steps and return their time."""
    rate = 0.1 if case.optimizer == "sgd" else 1e-3
    batches = x.split(case.batch)
    # As in training, rows are in another order, and are read where they lie.
    places = torch.randperm(len(x), generator=torch.Generator().manual_seed(2)).split(case.batch)
    start = time.perf_counter()
    if isinstance(step, TakesMany):
        for at in range(0, len(places), step.n_ahead):
            ahead = places[at : at + step.n_ahead]
            step.update_many(ahead, [rate] * len(ahead), x)
    else:
        for batch in batches:
            buffer = step.buffer(len(batch))
            buffer.copy_(batch)
            float(step.update(buffer, rate))
    return (time.perf_counter() - start) / len(x)


def measure(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Let the ways take turns."""
    x = torch.rand(
        max(_TURN_ROWS, 2 * case.batch), case.widths[0], generator=torch.Generator().manual_seed(1)
    )
    steps = {name: (n, make(*case.parts())) for name, (n, make) in ways(threads).items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, (n, step) in steps.items():
            torch.set_num_threads(n)
            seconds = seconds_per_row(step, x, case)
            if number:  # the first turn warms up
                times[name].append(seconds)
    base = f"native {library.instruction_sets()[-1]}, {threads}"
    flop = case.flop_per_row
    return {
        name: {
            "microseconds_per_step": statistics.median(found) * case.batch * 1e6,
            "least": min(found) * case.batch * 1e6,
            "gflops": flop / statistics.median(found) / 1e9,
            "most_gflops": flop / min(found) / 1e9,
            "ratio_to_native": statistics.median(
                a / b for a, b in zip(found, times[base], strict=True)
            ),
        }
        for name, found in times.items()
    }


def main() -> None:
    """Measure all cases, the peak before and after them."""
    channel = Channel()
    wanted = channel.settings
    channel.send(**result(wanted["threads"], wanted["rounds"]))


def result(threads: int, rounds: int, cases: dict[str, Case] = CASES) -> dict[str, Any]:
    """Return the peak and the kernel's speed by instruction set, and the cases."""
    found = {name: library.find(name) for name in library.instruction_sets()}
    peaks, kernels = {}, {}
    for name, it in found.items():
        assert it.library is not None
        peaks[name] = it.library.twofold_peak(it.isa, 0.5)
        kernels[name] = it.library.twofold_kernel_speed(it.isa, 64, 128, 0.5)
    return {
        "peak_gflops_one_thread": peaks,
        "kernel_gflops_one_thread": kernels,
        "cases": {name: measure(case, threads, rounds) for name, case in cases.items()},
    }


if __name__ == "__main__":
    main()
