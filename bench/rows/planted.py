"""Errors planted into California housing: are they flagged, and is the right column named?

`methods.corruption` says what an error is, `methods.studies.planted_errors` what a run is.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import sources
from methods.corruption import MOVED, WAYS
from methods.studies import read_frame
from trials import Array, Arrays, Entry, Rows, Settings, Trial

N_ROWS = 500
QUICK_LINES = 2_001


def trials(settings: Settings) -> list[Trial]:
    options = {"n_rows": 100 if settings.quick else N_ROWS}
    make = partial(rows, settings.quick)
    return [
        Trial("planted", "california", seed, "study", ("planted errors",), make, judge, options)
        for seed in range(settings.count(3))
    ]


def rows(quick: bool) -> Rows:
    table: Array = sources.raw(sources.file("tabular", "california_housing.csv"))
    if quick:
        table = table[: sum(map(len, table.tobytes().splitlines(keepends=True)[:QUICK_LINES]))]
    names = list(read_frame(table[: 1 << 16]).columns)
    return Rows({"table": table}, facts={"columns": names})


def judge(answer: Arrays, rows: Rows) -> dict[str, Any]:
    """Count, per column and way of being wrong: planted, flagged, and flagged and named."""
    flagged = answer["flagged"].astype(bool)
    right = flagged & (answer["blamed"] == answer["columns"])
    counts: dict[str, list[int]] = {}
    for j, way, a, b in zip(answer["columns"], answer["ways"], flagged, right, strict=True):
        name = rows.facts["columns"][j] + ("" if way == MOVED else f", {WAYS[way]}")
        found = counts.setdefault(name, [0, 0, 0])
        for i, yes in enumerate((True, a, b)):
            found[i] += int(yes)
    return {
        "flagged": float(flagged.mean()),
        "named": float(right.sum() / max(1, flagged.sum())),
        "flagged_before": float(answer["flagged_before"]),
        "counts": counts,
    }


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Return shares over all seeds, with their spread, and per column."""
    good = [entry["result"] for entry in entries if "result" in entry]
    if not good:
        return {"failed": entries[0]["failed"]}
    result: dict[str, Any] = {"seeds": len(good)}
    for name in ("flagged", "named", "flagged_before"):
        values = [found[name] for found in good]
        result[name] = statistics.mean(values)
        result[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else None
    totals: dict[str, list[int]] = {}
    for found in good:
        for name, counts in found["counts"].items():
            total = totals.setdefault(name, [0, 0, 0])
            totals[name] = [a + b for a, b in zip(total, counts, strict=True)]
    order = entries[0]["facts"]["columns"]
    result["columns"] = dict(
        sorted(totals.items(), key=lambda item: order.index(item[0].partition(", ")[0]))
    )
    return result
