"""The growth figure: seconds and memory against rows and columns, with lines of slope one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MOST_BYTES = 100_000


def growth(result: dict[str, Any], path: Path) -> None:
    """Draw the growth curves to a PNG, written whole or not at all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

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
