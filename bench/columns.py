"""Which columns of mixed tables the default reconstructs worse than PCA with a code of its size.

    python bench/columns.py --only penguins,TitanicSurvival --seeds 5 \\
        --output bench/results/columns.json && python bench/readme.py

Tables are the mixed ones of `small_tables`; a fifth of the rows is for testing. PCA is that of the
network's inputs, and a category is the level whose input is the largest. Errors are the share of
wrong levels, and of numbers the root mean square in standard deviations.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from small_tables import SmallTable, tables

MARGIN = 0.005  # that errors have to differ by


def measure(table: SmallTable, seed: int) -> dict[str, list[float]]:
    """Return each column's two errors on test rows: the network's and PCA's."""
    from twofold import Autoencoder

    training, test = table.split(len(table.frame), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae = Autoencoder(random_state=seed).fit(table.frame.iloc[training])
    rows = ae.read(table.frame.iloc[test])
    own = ae.read(ae.reconstruct(table.frame.iloc[test]))
    matrix = ae.schema_.to_matrix(rows, np.float32)
    x_pca = ae.pca_.reconstruct(matrix)
    by_pca = ae.schema_.from_matrix(x_pca, observed=True, own=rows.values)
    found = {}
    for j, column in enumerate(ae.schema_.columns):
        known = ~np.isnan(rows.values[:, j])
        if not known.any() or not column.width:
            continue
        if column.kind == "category":
            true = ae.schema_.slots(rows, j)[known]
            answers = ae.schema_.slots(own, j), column.slots(by_pca[:, j], column.levels)
            found[column.name] = [float((cells[known] != true).mean()) for cells in answers]
        else:
            spread = np.nanstd(rows.values[:, j]) or 1.0
            found[column.name] = [
                float(np.sqrt(np.nanmean((cells[:, j] - rows.values[:, j]) ** 2)) / spread)
                for cells in (own.values, by_pca)
            ]
    return found


def markdown(result: dict[str, Any]) -> str:
    """Return the table of `docs/defaults.md`."""
    lines = ["| table | column | twofold | PCA |", "|---|---|--:|--:|"]
    for table, columns in result["tables"].items():
        for name, (own, pca) in columns.items():
            lines.append(f"| {table} | {name} | {own:.3f} | {pca:.3f} |")
    worse = sum(own > pca + MARGIN for t in result["tables"].values() for own, pca in t.values())
    total = sum(map(len, result["tables"].values()))
    return (
        "\n".join(lines)
        + f"\n\nSeeds: {result['seeds']}. Worse than PCA by over {MARGIN}: {worse} of {total}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-back", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names, found = given.only.split(",") if given.only else [], {}
    for table in tables():
        wanted = not names or any(name in table.name for name in names)
        if not table.is_mixed or table.is_held_back != given.held_back or not wanted:
            continue
        runs = [measure(table, seed) for seed in range(given.seeds)]
        found[table.name] = {
            name: np.mean([run[name] for run in runs if name in run], 0).tolist()
            for name in runs[0]
        }
    result = {"seeds": given.seeds, "tables": found}
    print(markdown(result))
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
