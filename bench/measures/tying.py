"""What tying saves: a step of a tied stack against one of an untied stack, in turn.

Both have the same widths, and so the same products. The tied one has half of the weights to read
and to update.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from channel import Channel
from steps import Case, seconds_per_row

from twofold.training.native import NativeStep

WIDTHS = ((100, 50, 25), (784, 392, 196), (2048, 1024, 256))
BATCHES = (8, 32, 128, 512)
_TURN_MULTIPLICATIONS = 6e9  # about 50 ms


def ratio(widths: tuple[int, ...], optimizer: str, batch: int, rounds: int) -> dict[str, Any]:
    """Return the times of both, and the median of their ratios within rounds."""
    cases = [Case(widths, batch, optimizer, tied) for tied in (True, False)]
    steps = [NativeStep(*case.parts()) for case in cases]
    n_batches = max(2, round(_TURN_MULTIPLICATIONS / (cases[0].flop_per_row / 2 * batch)))
    x = torch.rand(n_batches * batch, widths[0], generator=torch.Generator().manual_seed(1))
    times: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for step, case, own in zip(steps, cases, times, strict=True):
            seconds = seconds_per_row(step, x, case)
            if number:  # the first turn warms up
                own.append(seconds)
    tied, untied = times
    return {
        "widths": list(widths),
        "optimizer": optimizer,
        "batch": batch,
        "microseconds_per_step": [statistics.median(own) * batch * 1e6 for own in times],
        "ratio": statistics.median(a / b for a, b in zip(tied, untied, strict=True)),
    }


def main() -> None:
    """Measure every combination."""
    channel = Channel()
    torch.set_num_threads(channel.settings["threads"])
    channel.send(
        points=[
            ratio(widths, optimizer, batch, channel.settings["rounds"])
            for widths in WIDTHS
            for optimizer in ("sgd", "adam")
            for batch in BATCHES
        ]
    )


if __name__ == "__main__":
    main()
