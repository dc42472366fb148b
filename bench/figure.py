"""Figures of the bench: cost against size, and what tying saves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

MOST_BYTES = 100_000


def growth(result: dict[str, Any], path: Path) -> None:
    """Draw the growth curves to a PNG, written whole or not at all."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col")
    for column, (by, title) in enumerate(
        [("n_rows", "rows ({n_columns:,} columns)"), ("n_columns", "columns ({n_rows:,} rows)")]
    ):
        points = result["rows" if by == "n_rows" else "columns"]
        if not points:
            continue
        x = [point[by] for point in points]
        time, memory = axes[0][column], axes[1][column]
        for name, colour in (("fit", "#1f5fa8"), ("transform", "#c8551b")):
            label = "fit, one epoch" if name == "fit" else name
            seconds = [point["seconds"][name] for point in points]
            time.loglog(x, seconds, "o-", color=colour, label=label)
            memory.loglog(
                x,
                [max(point["extra_bytes"][name], 1e5) / 1e6 for point in points],
                "o-",
                color=colour,
                label=f"{label}, beyond input and output",
            )
            _slope_one(time, x, seconds)
        memory.loglog(
            x, [p["input_bytes"] / 1e6 for p in points], "s:", color="#777777", label="the input"
        )
        memory.set_xlabel(title.format(**points[-1]))
        for axis, what in ((time, "seconds"), (memory, "megabytes")):
            axis.set_ylabel(what)
            axis.grid(True, which="major", alpha=0.3)
            axis.legend(frameon=False, fontsize=8)
    figure.suptitle("Cost against size; thin grey lines have slope one", fontsize=11)
    _save(figure, path)


def tying(points: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of a tied step over that of an untied one, by widths, batch and optimizer."""
    stacks = list(dict.fromkeys(tuple(point["widths"]) for point in points))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(stacks), sharey=True)
    for axis, widths in zip(axes, stacks, strict=True):
        for optimizer, colour, mark in (("sgd", "#1f5fa8", "o-"), ("adam", "#c8551b", "s-")):
            here = [p for p in points if (*p["widths"], p["optimizer"]) == (*widths, optimizer)]
            axis.semilogx(
                [p["batch"] for p in here],
                [p["ratio"] for p in here],
                mark,
                base=2,
                color=colour,
                label=optimizer,
            )
        axis.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        axis.set_title("-".join(map(str, widths)), fontsize=10)
        axis.set_xlabel("rows in a batch")
        batches = sorted({p["batch"] for p in points})
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("time of a tied step\nover an untied one")
    axes[0].set_ylim(0, None)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all."""
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=80)
    if part.stat().st_size > MOST_BYTES:
        figure.savefig(part, dpi=60)
    os.replace(part, path)


def _slope_one(axis: Any, x: list[int], y: list[float]) -> None:
    """Draw what exactly linear growth would be, through the last point."""
    axis.loglog(
        [x[0], x[-1]], [y[-1] * x[0] / x[-1], y[-1]], color="#999999", linewidth=0.8, zorder=0
    )
