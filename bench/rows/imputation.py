"""Filling holes: error on cells that were hidden on purpose, and what must not change.

Methods are given the rows with holes; the complete ones stay with the judge.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sources
from holes import MECHANISMS
from methods.imputers import IMPUTERS
from methods.studies import read_frame
from trials import Array, Arrays, Entry, Rows, Settings, Trial

# Distances between all rows take too long for some of these.
METHODS = tuple(name for name in IMPUTERS if name != "nearest neighbours")
# A forest takes five minutes for one table of 57 columns.
WITHOUT_FOREST = tuple(name for name in METHODS if "forest" not in name)
MIXED = "california"
FILES = {  # name -> file, columns to skip, (mechanism, share) to hide by
    "letter": ("gain_letter.csv", 0, (("MCAR", 0.2), ("MAR", 0.3), ("MNAR", 0.3))),
    "spam": ("gain_spam.csv", 0, (("MCAR", 0.2), ("MAR", 0.3), ("MNAR", 0.3))),
    "wine": ("remasker_wine_white.csv", 1, (("MCAR", 0.2),)),
    "airfoil": ("remasker_airfoil.csv", 1, (("MCAR", 0.2),)),
}
QUICK = ("airfoil",)


def trials(settings: Settings) -> list[Trial]:
    made = []
    for seed in range(settings.count(2)):
        for name, (file, skip, ways) in FILES.items():
            if settings.quick and name not in QUICK:
                continue
            for mechanism, share in ways:
                if mechanism != "MCAR" and seed > 0:
                    continue  # once is enough for what is only reported
                make = partial(numeric_rows, file, skip, mechanism, share, seed)
                methods = METHODS if mechanism == "MCAR" and seed == 0 else WITHOUT_FOREST
                made.append(_trial(f"{name} {mechanism}", seed, methods, make))
        if not settings.quick and seed == 0:
            make = partial(mixed_rows, 0.2, seed)
            made.append(_trial(f"{MIXED} MCAR", seed, WITHOUT_FOREST, make))
        make = partial(own_holes, 500 if settings.quick else None)
        trial = Trial("imputation", MIXED, seed, "study", ("round trip",), make, judge_trip)
        made.append(trial)
    return made


def _trial(name: str, seed: int, methods: tuple[str, ...], make: Callable[[], Rows]) -> Trial:
    return Trial("imputation", name, seed, "imputer", methods, make, judge)


def numeric_rows(file: str, skip: int, mechanism: str, share: float, seed: int) -> Rows:
    """Hide cells of a complete table of numbers; every column keeps at least one cell."""
    x = sources.matrix(sources.file("imputation", file), skip)
    rng = np.random.RandomState(seed)
    hidden = MECHANISMS[mechanism](x, share, rng)
    facts = {"rows": len(x), "columns": x.shape[1], "hidden": float(hidden.mean())}
    return Rows({"X": np.where(hidden, np.nan, x)}, {"complete": x, "hidden": hidden}, facts)


def mixed_rows(share: float, seed: int) -> Rows:
    """Hide more cells of the numeric columns of a table that has holes and a column of text."""
    frame = read_frame(_mixed_table())
    numeric = frame.select_dtypes("number")
    x = numeric.to_numpy(dtype=np.float64)
    hidden = MECHANISMS["MCAR"](x, share, np.random.RandomState(seed)) & ~np.isnan(x)
    (text,) = [frame[name] for name in frame.columns if name not in numeric.columns]
    facts = {"rows": len(x), "columns": frame.shape[1], "hidden": float(hidden.mean())}
    given = {"X": np.where(hidden, np.nan, x), "text": text.to_numpy(dtype=np.str_)}
    return Rows(given, {"complete": x, "hidden": hidden}, facts)


def own_holes(n_rows: int | None) -> Rows:
    table = _mixed_table()
    if n_rows is not None:
        lines = table.tobytes().split(b"\n")[: n_rows + 1]
        table = np.frombuffer(b"\n".join(lines) + b"\n", dtype=np.uint8)
    return Rows({"table": table})


def _mixed_table() -> Array:
    return sources.raw(sources.file("tabular", "california_housing.csv"))


def judge(answer: Arrays, rows: Rows) -> dict[str, float]:
    """Return the error on the hidden cells, columns scaled to [0, 1] by their complete cells."""
    filled = answer["filled"]
    if filled.shape != rows.kept["complete"].shape:
        raise ValueError(f"it gave back {filled.shape} for {rows.kept['complete'].shape}")
    return {"rmse": rmse(filled, rows.kept["complete"], rows.kept["hidden"])}


def rmse(filled: Array, complete: Array, hidden: Array) -> float:
    """Root mean squared error on hidden cells after min-max scaling.

    Source: Yoon, Jordon and van der Schaar, 2018, "GAIN", section 5; its code scales by the
    complete table.
    """
    low, high = np.nanmin(complete, axis=0), np.nanmax(complete, axis=0)
    scaled = (filled - complete) / np.where(high > low, high - low, 1.0)
    error = float(np.sqrt(np.mean(scaled[hidden] ** 2)))
    if not np.isfinite(error):
        raise ValueError("hidden cells came back empty or infinite")
    return error


def judge_trip(answer: Arrays, rows: Rows) -> dict[str, Any]:
    return {name: value.item() for name, value in answer.items()}


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Return errors per set and method, and what the round trips kept."""
    result: dict[str, Any] = {"sets": {}, "round trip": {}}
    for entry in entries:
        if entry["method"] == "round trip":
            _add_trip(result["round trip"].setdefault(entry["set"], {"runs": 0}), entry)
            continue
        found = result["sets"].setdefault(entry["set"], {"methods": {}})
        found |= entry.get("facts", {})
        method = found["methods"].setdefault(entry["method"], {"rmse": [], "seconds": []})
        if "failed" in entry:
            method["failed"] = entry["failed"]
        else:
            method["rmse"].append(entry["result"]["rmse"])
            method["seconds"].append(entry["seconds"])
    for found in result["sets"].values():
        for method in found["methods"].values():
            errors = method["rmse"]
            method["mean"] = statistics.mean(errors) if errors else None
            method["spread"] = statistics.stdev(errors) if len(errors) > 1 else None
    return result


def _add_trip(trip: dict[str, Any], entry: Entry) -> None:
    if "failed" in entry:
        trip["failed"] = entry["failed"]
        return
    trip["runs"] += 1
    for name, value in entry["result"].items():
        if isinstance(value, bool):
            trip[name] = trip.get(name, True) and value
        else:
            trip[name] = max(trip.get(name, 0), value)
