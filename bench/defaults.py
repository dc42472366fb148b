"""How `Autoencoder()` with nothing said compares with PCA and with what one writes by hand.

    python bench/defaults.py                        the tables that choices may be made on
    python bench/defaults.py --held-back            the others: for the final figures only
    python bench/defaults.py --options '{"shortcut": false}' --only wine,spam

What docs/defaults.md says: five seeds of tables of up to 1,900 rows, and two of the larger ones.

    python bench/defaults.py --seeds 5 --most-rows 1900 --output a.json
    python bench/defaults.py --seeds 5 --most-rows 1900 --held-back --join a.json \\
        --output b.json
    python bench/defaults.py --seeds 2 --least-rows 1901 --join b.json --output c.json
    python bench/defaults.py --seeds 2 --least-rows 1901 --held-back --join c.json \\
        --output bench/results/defaults.json && python bench/readme.py

Tables are those of `small_tables`; numbers alone, in training rows and a fifth for testing. The
error is the squared error of a test row, summed over columns that are standardised by the training
rows, and PCA and the hand-written network have a code of the same size as the default.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from small_tables import SmallTable, tables
from torch import nn

Array = NDArray[Any]
EPOCHS, BATCH, RATE = 200, 64, 1e-3  # of the hand-written network
FEW_ROWS = 1_520  # training rows of a table of 1,900: smaller ones are measured under more seeds


def by_hand(train: Array, test: Array, k: int, seed: int) -> Array:
    """Return what forty lines of PyTorch reconstruct: 64-32-k, relu, Adam, standardised rows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        d = train.shape[1]
        net = nn.Sequential(
            nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, k),
            nn.Linear(k, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, d),
        )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    x = torch.tensor(train, dtype=torch.float32)
    for _ in range(EPOCHS):
        for at in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = ((net(x[at]) - x[at]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return np.asarray(net(torch.tensor(test, dtype=torch.float32)))


def by_pca(train: Array, test: Array, k: int) -> Array:
    """Return the test rows as PCA of the training rows reconstructs them."""
    mean = train.mean(0)
    _, _, loadings = np.linalg.svd(train - mean, full_matrices=False)
    return (test - mean) @ loadings[:k].T @ loadings[:k] + mean


def measure(table: SmallTable, seed: int, options: dict[str, Any], cache: Cache) -> dict[str, Any]:
    """Return the errors of the three on one table under one seed."""
    from twofold import Autoencoder

    x = table.numbers
    train_rows, test_rows = table.split(len(x), seed)
    train, test = x[train_rows], x[test_rows]
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1.0

    def error(x_hat: Array) -> float:
        return float((((x_hat - test) / spread) ** 2).sum(1).mean())

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae = Autoencoder(random_state=seed, **options).fit(train)
    seconds = time.perf_counter() - start
    k = ae.network_.n_components
    own = error(np.asarray(ae.reconstruct(test)))
    scaled, scaled_test = (train - mean) / spread, (test - mean) / spread
    pca = error(by_pca(scaled, scaled_test, k) * spread + mean)

    def hand() -> dict[str, float]:
        start = time.perf_counter()
        x_hat = by_hand(scaled, scaled_test, k, seed) * spread + mean
        return {"error": error(x_hat), "seconds": time.perf_counter() - start}

    hand_written = cache.get(f"{table.name} {seed} {k} {_digest(x)}", hand)
    return {
        "table": table.name,
        "held_back": table.is_held_back,
        "seed": seed,
        "n_rows": len(train),
        "n_columns": train.shape[1],
        "n_components": k,
        "twofold": own,
        "pca": pca,
        "by_hand": hand_written["error"],
        "variance": float((scaled_test**2).sum(1).mean()),
        "seconds": seconds,
        "seconds_by_hand": hand_written["seconds"],
        "best_epoch": ae.best_epoch_,
        "epochs": len(ae.history_),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all rows say together; a table's seeds are averaged first."""
    by_table: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_table.setdefault(row["table"], []).append(row)

    def mean_of(name: str) -> Array:
        return np.array([np.mean([row[name] for row in found]) for found in by_table.values()])

    own, pca, hand = mean_of("twofold"), mean_of("pca"), mean_of("by_hand")
    # What both reconstruct to a ten-thousandth of the variance is the same.
    matters = np.maximum(own, pca) > 1e-4 * mean_of("variance")
    to_pca, to_hand = own / pca, own / hand
    names = np.array(list(by_table))
    loses = matters & (to_pca > 1.02)
    return {
        "tables": len(by_table),
        "loses to PCA": [f"{n} {r:.3f}" for n, r in zip(names[loses], to_pca[loses], strict=True)],
        "over PCA, median": float(np.median(to_pca)),
        "over PCA, geometric mean": _geometric(to_pca[matters]),
        "over PCA, worst": float(to_pca[matters].max()),
        "by hand loses to PCA": int((hand > 1.02 * pca).sum()),
        "by hand over PCA, geometric mean": _geometric((hand / pca)[matters]),
        "over by hand, median": float(np.median(to_hand)),
        "over by hand, geometric mean": _geometric(to_hand),
        "over by hand, worst": [f"{names[i]} {to_hand[i]:.2f}" for i in np.argsort(-to_hand)[:4]],
        "seconds, mean": float(mean_of("seconds").mean()),
        "seconds, most": float(mean_of("seconds").max()),
    }


def _geometric(ratios: Array) -> float:
    return float(np.exp(np.log(np.maximum(ratios, 1e-12)).mean()))


def markdown(result: dict[str, Any]) -> str:
    """Return the table of `docs/defaults.md`."""
    lines = [
        "| training rows | | tables | loses to PCA by over 2 % | over PCA: median | geometric mean "
        "| worst | over by hand: median | geometric mean | s a fit |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    notes = []
    for few in (True, False):
        size = [row for row in result["rows"] if (row["n_rows"] <= FEW_ROWS) == few]
        if not size:
            continue
        numbers = [row["n_rows"] for row in size]
        rows_of = f"{min(numbers):,} to {max(numbers):,}"
        for held_back, words in ((False, "looked at"), (True, "held back")):
            rows = [row for row in size if row["held_back"] == held_back]
            if rows:
                lines.append(f"| {rows_of} | {words} {_cells(summary(rows))}")
        names = ", ".join(summary(size)["loses to PCA"]) or "none"
        seeds = len({row["seed"] for row in size})
        notes.append(f"{rows_of} rows, seeds: {seeds}. Lost to PCA: {names}.")
    lines += ["", "Tables of numbers; behind a name is the error over PCA's.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)])


def _cells(found: dict[str, Any]) -> str:
    return (
        f"| {found['tables']} | {len(found['loses to PCA'])} "
        f"| {found['over PCA, median']:.2f} | {found['over PCA, geometric mean']:.2f} "
        f"| {found['over PCA, worst']:.2f} | {found['over by hand, median']:.2f} "
        f"| {found['over by hand, geometric mean']:.2f} | {found['seconds, mean']:.1f} |"
    )


class Cache:
    """Keeps the hand-written network's results: they do not change with twofold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, make: Any) -> Any:
        if key not in self.found:
            self.found[key] = make()
            self.path.write_text(json.dumps(self.found))
        return self.found[key]


def _digest(x: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-back", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--least-rows", type=int, default=0)
    parser.add_argument("--most-rows", type=int, default=10**9)
    parser.add_argument("--cache", type=Path, default=Path(".bench-cache/by_hand.json"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--join", type=Path, help="results of other tables to put before these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    cache, rows = Cache(given.cache), []
    chosen = [t for t in tables() if t.is_numeric and t.is_held_back == given.held_back]
    names = given.only.split(",") if given.only else []
    for table in chosen[:: given.every]:
        if names and not any(name in table.name for name in names):
            continue
        if not given.least_rows <= len(table.numbers) <= given.most_rows:
            continue
        for seed in range(given.seeds):
            row = measure(table, seed, json.loads(given.options), cache)
            rows.append(row)
            print(
                f"{row['table']:32} {row['n_rows']:6} x {row['n_columns']:3} "
                f"k={row['n_components']:2} "
                f"over PCA {row['twofold'] / max(row['pca'], 1e-12):.3f} "
                f"over by hand {row['twofold'] / max(row['by_hand'], 1e-12):.3f} "
                f"{row['seconds']:.2f} s, epoch {row['best_epoch']} of {row['epochs']}",
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
