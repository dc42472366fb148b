"""How real the rows look that `Autoencoder().fit(X).sample(n)` draws, with nothing said.

    python bench/samples.py --peers PYTHON --output visible.json
    python bench/samples.py --peers PYTHON --held-back --join visible.json \\
        --output bench/results/samples.json && python bench/readme.py

The first are tables that choices may be made on. PYTHON is one of an environment with sdmetrics and
sdv before its version 2. Tables are mixed ones of `small_tables`: their complete rows, 300 of them
at least, with two categories and two numbers at least. As many rows are drawn as there are. Judged
are sdmetrics' quality score (0 to 1: how alike columns and pairs of columns are), and the share of
rows that have a pair of levels which no real row has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from small_tables import tables

LEAST_ROWS, MOST_ROWS, LEAST_EACH = 300, 2_000, 2
MODELS = "GaussianCopula,CTGAN,TVAE"


def chosen(held_back: bool, most: int) -> list[tuple[str, pd.DataFrame]]:
    """Return up to `most` tables, in the order of a hash of their names."""
    found = []
    for table in tables():
        frame = table.frame.dropna()
        frame = frame.loc[:, frame.nunique() > 1]
        n_numbers = frame.select_dtypes("number").shape[1]
        few = min(n_numbers, frame.shape[1] - n_numbers)
        if table.is_held_back == held_back and few >= LEAST_EACH and len(frame) >= LEAST_ROWS:
            found.append((table.name, frame.head(MOST_ROWS).reset_index(drop=True)))
    return sorted(found, key=lambda one: hashlib.sha256(one[0].encode()).digest())[:most]


def draw(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, float]:
    """Return as many new rows as there are, and the seconds that takes."""
    from twofold import Autoencoder

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = Autoencoder(random_state=seed).fit(frame).sample(len(frame), random_state=seed)
    return rows, time.perf_counter() - start


def markdown(result: dict[str, Any]) -> str:
    """Return the table of the docs."""
    names = list(next(iter(result["tables"].values())))
    lines = [
        f"| table | {' | '.join(names)} |",
        f"|---|{'--:|' * len(names)}",
    ]
    for table, judged in result["tables"].items():
        cells = [
            f"{judged[n]['quality']:.3f}, {100 * judged[n]['impossible']:.1f} %" for n in names
        ]
        name = f"{table} (held back)" if table in result["held_back"] else table
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nsdmetrics' quality score, and rows with a pair of levels that no real row has."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="Python of an environment with sdv")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--held-back", action="store_true")
    parser.add_argument("--most", type=int, default=6, help="tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where rows are kept; peers' are drawn once")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--join", type=Path, help="results of other tables to put before these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.folder or Path(tempfile.mkdtemp())
    names, seconds = {}, {}
    for name, frame in chosen(given.held_back, given.most):
        place = folder / name.replace("/", " ")
        place.mkdir(parents=True, exist_ok=True)
        frame.to_csv(place / "real.csv", index=False)
        categories = list(frame.select_dtypes(exclude="number").columns)
        (place / "categories.json").write_text(json.dumps(categories))
        rows, seconds[name] = draw(frame, given.seed)
        rows.to_csv(place / "twofold.csv", index=False)
        names[name] = place
    script = Path(__file__).parent / "peers" / "sdv_samples.py"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([given.peers, script, folder, given.models], check=True, env=environment)
    found = {name: json.loads((at / "judged.json").read_text()) for name, at in names.items()}
    for name, judged in found.items():
        judged["twofold"]["seconds"] = seconds[name]
    held_back = list(found) if given.held_back else []
    if given.join:
        before = json.loads(given.join.read_text())
        found = before["tables"] | found
        held_back = before["held_back"] + held_back
    result = {"seed": given.seed, "held_back": held_back, "tables": found}
    print(markdown(result))
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
