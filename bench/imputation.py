"""How well `Imputer()` with nothing said fills cells of ordinary small tables.

    python bench/imputation.py                    the tables that choices may be made on
    python bench/imputation.py --held-back        the others: for the final figures only
    python bench/imputation.py --held-back --join visible.json \\
        --output bench/results/imputation.json && python bench/readme.py

Tables are those of `small_tables`: their complete rows, at most 600 of them, with 4 to 24 columns.
A fifth of the cells is hidden, completely at random or at random (`holes`), and each method gets
the same rows. Errors are over hidden cells alone: of numbers, the root of their mean square, in
standard deviations of the complete column; of categories, the share of wrong ones. Numbers of two
values are flags, and count as categories: what a method fills in is the nearer one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from holes import MECHANISMS
from methods.imputers import IMPUTERS
from numpy.typing import NDArray
from small_tables import SmallTable, tables

Array = NDArray[Any]
LEAST_ROWS, MOST_ROWS, MOST_COLUMNS = 150, 600, 24
SHARE = 0.2
NAMES = {
    "column mean": "mean",
    "nearest neighbours": "kNN",
    "IterativeImputer, BayesianRidge": "ridge",
    "IterativeImputer, random forest": "forest",
}


def chosen(held_back: bool, most: int) -> Iterator[tuple[SmallTable, pd.DataFrame]]:
    """Give up to `most` tables, an even choice of those that are numeric and those that are not."""
    found = []
    for table in tables():
        frame = table.frame.dropna()
        frame = frame.loc[:, frame.nunique() > 1]
        fits = 4 <= frame.shape[1] <= MOST_COLUMNS and len(frame) >= LEAST_ROWS
        if table.is_held_back == held_back and fits:
            order = np.random.RandomState(0).permutation(len(frame))[:MOST_ROWS]
            found.append((table, frame.iloc[order].reset_index(drop=True)))
    found.sort(key=lambda one: hashlib.sha256(one[0].name.encode()).digest())
    yield from found[:most]


def hidden_cells(frame: pd.DataFrame, mechanism: str, seed: int) -> Array:
    """Return which cells to hide; every column keeps some, and so does every row."""
    codes = frame.copy()
    for name in frame.select_dtypes(exclude="number").columns:
        codes[name] = pd.factorize(frame[name], sort=True)[0]
    rng = np.random.RandomState(seed)
    hidden = MECHANISMS[mechanism](codes.to_numpy(dtype=np.float64), SHARE, rng)
    hidden[hidden.all(1), 0] = False
    return hidden


def errors(filled: pd.DataFrame, frame: pd.DataFrame, hidden: Array) -> dict[str, float]:
    """Return the two errors over hidden cells; each is left out if there are no such cells."""
    squares, wrong = [], []
    for j, name in enumerate(frame.columns):
        at, true, own = hidden[:, j], frame[name], filled[name]
        if not at.any():
            continue
        if pd.api.types.is_numeric_dtype(true) and true.nunique() == 2:
            low, high = true.min(), true.max()
            numbers = own.to_numpy(dtype=np.float64)[at]
            wrong.append(np.where(numbers > (low + high) / 2, high, low) != true[at])
        elif pd.api.types.is_numeric_dtype(true):
            gap = own.to_numpy(dtype=np.float64)[at] - true.to_numpy(dtype=np.float64)[at]
            squares.append((gap / true.std()) ** 2)
        else:
            wrong.append(own.to_numpy(dtype=object)[at] != true.to_numpy(dtype=object)[at])
    found = {}
    if squares:
        found["rmse"] = float(np.sqrt(np.concatenate(squares).mean()))
    if wrong:
        found["wrong"] = float(np.concatenate(wrong).mean())
    return found


def with_numbers_alone(fill: Callable[[Any, int], Array], frame: pd.DataFrame, seed: int) -> Any:
    """Fill a frame by a method that knows numbers: levels are columns of 0 and 1, the best wins."""
    parts, spans = [], []
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            part = frame[[name]].to_numpy(dtype=np.float64)
        else:
            dummies = pd.get_dummies(frame[name], dtype=float)
            part = dummies.to_numpy().copy()
            part[frame[name].isna()] = np.nan
            spans.append((name, sum(p.shape[1] for p in parts), dummies.columns))
        parts.append(part)
    # In standard deviations, which methods of distances and penalties want.
    x = np.concatenate(parts, 1)
    mean, spread = np.nanmean(x, 0), np.nanstd(x, 0)
    spread[spread == 0] = 1.0
    filled = fill((x - mean) / spread, seed) * spread + mean
    result, at = frame.copy(), 0
    for name, part in zip(frame.columns, parts, strict=True):
        own = filled[:, at : at + part.shape[1]]
        if pd.api.types.is_numeric_dtype(frame[name]):
            result[name] = own[:, 0]
        else:
            levels = next(levels for known, _, levels in spans if known == name)
            result[name] = np.array(levels, dtype=object)[own.argmax(1)]
        at += part.shape[1]
    return result


def measure(
    table: SmallTable, frame: pd.DataFrame, mechanism: str, seed: int, cache: Path
) -> dict[str, Any]:
    """Return every method's errors and seconds on one table with one set of hidden cells."""
    hidden = hidden_cells(frame, mechanism, seed)
    incomplete = frame.mask(hidden)
    digest = hashlib.sha256(pd.util.hash_pandas_object(incomplete).to_numpy().tobytes())
    path = cache / f"{digest.hexdigest()[:20]}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, short in NAMES.items():
        if short not in known:
            start = time.perf_counter()
            filled = with_numbers_alone(IMPUTERS[name].function, incomplete, seed)
            seconds = time.perf_counter() - start
            known[short] = {**errors(filled, frame, hidden), "seconds": seconds}
            path.write_text(json.dumps(known))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = IMPUTERS["twofold"].function(incomplete, seed)
    seconds = time.perf_counter() - start
    return {
        "table": table.name,
        "held_back": table.is_held_back,
        "mechanism": mechanism,
        "seed": seed,
        "n_rows": len(frame),
        "n_columns": frame.shape[1],
        "methods": {"twofold": {**errors(filled, frame, hidden), "seconds": seconds}, **known},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rows say together: means of errors, and how often the forest is beaten."""
    found: dict[str, Any] = {"tables": len({row["table"] for row in rows})}
    for error in ("rmse", "wrong"):
        with_it = [row["methods"] for row in rows if error in row["methods"]["twofold"]]
        if not with_it:
            continue
        means = {
            name: float(np.mean([methods[name][error] for methods in with_it]))
            for name in with_it[0]
        }
        pairs = [(methods["twofold"][error], methods["forest"][error]) for methods in with_it]
        found[error] = {
            "cases": len(pairs),
            "beats the forest": sum(own < forest for own, forest in pairs),
            "over the forest's": means["twofold"] / means["forest"],
            "means": means,
        }
    found["seconds"] = {
        name: float(np.mean([row["methods"][name]["seconds"] for row in rows]))
        for name in rows[0]["methods"]
    }
    return found


def markdown(result: dict[str, Any]) -> str:
    """Return the table of `docs/imputation.md`."""
    names = ["twofold", "forest", "ridge", "kNN", "mean"]
    lines = [
        f"| tables | cells | error of | cases | beats the forest | {' | '.join(names)} |",
        f"|---|---|---|--:|--:|{'--:|' * len(names)}",
    ]
    for held_back, words in ((False, "looked at"), (True, "held back")):
        for mechanism in ("MCAR", "MAR"):
            rows = [
                row
                for row in result["rows"]
                if row["held_back"] == held_back and row["mechanism"] == mechanism
            ]
            if not rows:
                continue
            found = summary(rows)
            for error, label in (("rmse", "numbers"), ("wrong", "categories")):
                if error in found:
                    part = found[error]
                    cells = " | ".join(f"{part['means'][name]:.3f}" for name in names)
                    lines.append(
                        f"| {words} | {mechanism} | {label} | {part['cases']} "
                        f"| {part['beats the forest']} | {cells} |"
                    )
    found = summary(result["rows"])
    seconds = ", ".join(f"{name} {found['seconds'][name]:.1f}" for name in names)
    seeds = len({row["seed"] for row in result["rows"]})
    words = "Seconds a table on a busy machine, mean, the methods not at the same time"
    return "\n".join(lines) + f"\n\nSeeds: {seeds}. {words}: {seconds}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-back", action="store_true")
    parser.add_argument("--most", type=int, default=16, help="tables")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--cache", type=Path, default=Path(".bench-cache/imputation"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--join", type=Path, help="results of other tables to put before these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    names, rows = given.only.split(",") if given.only else [], []
    for table, frame in chosen(given.held_back, given.most):
        if names and not any(name in table.name for name in names):
            continue
        for mechanism in ("MCAR", "MAR"):
            for seed in range(given.seeds):
                row = measure(table, frame, mechanism, seed, given.cache)
                rows.append(row)
                cells = "  ".join(
                    f"{name} {found.get('rmse', np.nan):.3f}/{found.get('wrong', np.nan):.3f}"
                    for name, found in row["methods"].items()
                )
                own = row["methods"]["twofold"]["seconds"]
                print(
                    f"{table.name:32} {len(frame):5} x {frame.shape[1]:2} {mechanism:4} {cells} "
                    f"{own:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
    if given.join:
        rows = [*json.loads(given.join.read_text())["rows"], *rows]
    found = {"summary": summary(rows), "rows": rows}
    print(json.dumps(found["summary"], indent=1))
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
