"""Does "p-value at most 1 %" flag at most 1 % of fresh normal rows?

Each repetition fits a model with default options to 1,000 rows of a random half of a table's normal
rows, and gives p-values to fresh rows of the other half. Conformal p-values promise a share of at
most the stated one on average over repetitions; a single model may be above or below it.
"""

from __future__ import annotations

import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sources
from trials import Arrays, Entry, Rows, Settings, Trial

RATES = (0.01, 0.05, 0.10)
N_TABLES = 3
N_TRAIN, MOST_FRESH = 1_000, 5_000
REPETITIONS = 100


def trials(settings: Settings) -> list[Trial]:
    n = 3 if settings.quick else REPETITIONS
    return [
        Trial(
            "false-alarms",
            path.stem,
            seed,
            "study",
            ("p-values",),
            partial(rows, path, seed),
            judge,
        )
        for seed in range(n)
        for path in tables()
    ]


def tables() -> list[Path]:
    """Return the three tables with the most normal rows, no two of the same width."""
    sizes = []
    for path in sources.files("adbench", "*.npz"):
        x, y = sources.labelled(path)
        sizes.append((int(np.sum(y == 0)), x.shape[1], path))
    chosen: dict[int, Path] = {}
    for _, width, path in sorted(sizes, reverse=True):
        if len(chosen) < N_TABLES:
            chosen.setdefault(width, path)
    return list(chosen.values())


def rows(path: Path, seed: int) -> Rows:
    x, y = sources.labelled(path)
    normal = np.random.RandomState(seed).permutation(x[y == 0])
    half = len(normal) // 2
    given = {"train": normal[:half][:N_TRAIN], "fresh": normal[half:][:MOST_FRESH]}
    facts = {"columns": x.shape[1], "train": len(given["train"]), "fresh": len(given["fresh"])}
    return Rows(given, facts=facts)


def judge(answer: Arrays, rows: Rows) -> dict[str, float]:
    shares = {f"p<={rate}": float(np.mean(answer["p"] <= rate)) for rate in RATES}
    return {**shares, "predict": float(np.mean(answer["label"] == -1))}


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Return, per table and rate, the mean share over repetitions and its 95 % interval.

    Repetitions that failed are counted, and left out of the shares.
    """
    tables: dict[str, Any] = {}
    for entry in entries:
        table = tables.setdefault(entry["set"], {"shares": {}, "seconds": [], "failures": 0})
        if "failed" in entry:
            table["failures"] += 1
            table["failed"] = entry["failed"]
            continue
        table |= entry["facts"]
        table["seconds"].append(entry["seconds"])
        for name, share in entry["result"].items():
            table["shares"].setdefault(name, []).append(share)
    for table in tables.values():
        table["repetitions"] = len(table["seconds"])
        table["seconds"] = sum(table["seconds"])
        table["shares"] = {name: interval(found) for name, found in table["shares"].items()}
    return {"tables": tables}


def interval(values: list[float]) -> dict[str, float | None]:
    """Return the mean and the half-width of its 95 % interval (normal approximation)."""
    n = len(values)
    half_width = 1.96 * statistics.stdev(values) / math.sqrt(n) if n > 1 else None
    return {"mean": statistics.mean(values), "half_width": half_width}
