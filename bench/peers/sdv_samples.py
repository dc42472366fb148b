"""New rows by SDV's models, and sdmetrics' judgement of all; runs in an environment of its own.

    python sdv_samples.py FOLDER GaussianCopula,CTGAN,TVAE

FOLDER holds one folder per table with `real.csv`, `categories.json` (names of columns) and what
others drew, as `NAME.csv`. Written are `GaussianCopula.csv` and so on, and `judged.json`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from itertools import combinations
from pathlib import Path

import pandas as pd
from sdmetrics.reports.single_table import QualityReport
from sdv.metadata import Metadata
from sdv.single_table import CTGANSynthesizer, GaussianCopulaSynthesizer, TVAESynthesizer

MODELS = {
    "GaussianCopula": GaussianCopulaSynthesizer,
    "CTGAN": CTGANSynthesizer,
    "TVAE": TVAESynthesizer,
}


def read(path: Path, categories: list[str]) -> pd.DataFrame:
    """Return a table whose categories are text."""
    return pd.read_csv(path, dtype=dict.fromkeys(categories, str), keep_default_na=False)


def impossible(rows: pd.DataFrame, real: pd.DataFrame, categories: list[str]) -> float:
    """Return the share of rows with a pair of levels that no real row has."""
    wrong = pd.Series(False, index=rows.index)
    for a, b in combinations(categories, 2):
        seen = set(zip(real[a], real[b], strict=True))
        pairs = zip(rows[a], rows[b], strict=True)
        wrong |= pd.Series([pair not in seen for pair in pairs], index=rows.index)
    return float(wrong.mean())


def main() -> None:
    folder, models = Path(sys.argv[1]), sys.argv[2].split(",") if sys.argv[2] else []
    warnings.simplefilter("ignore")
    for table in sorted(path for path in folder.iterdir() if path.is_dir()):
        categories = json.loads((table / "categories.json").read_text())
        real = read(table / "real.csv", categories)
        columns = {
            name: {"sdtype": "categorical" if name in categories else "numerical"} for name in real
        }
        path = table / "judged.json"
        judged = json.loads(path.read_text()) if path.exists() else {}
        for name in models:
            if (table / f"{name}.csv").exists():
                continue
            metadata = Metadata.load_from_dict({"tables": {"table": {"columns": columns}}})
            start = time.perf_counter()
            model = MODELS[name](metadata)
            model.fit(real)
            model.sample(len(real)).to_csv(table / f"{name}.csv", index=False)
            judged[name] = {"seconds": time.perf_counter() - start}
        for drawn in sorted(table.glob("*.csv")):
            if drawn.stem == "real":
                continue
            rows, report = read(drawn, categories), QualityReport()
            report.generate(real, rows, {"columns": columns}, verbose=False)
            parts = report.get_properties().set_index("Property")["Score"]
            judged[drawn.stem] = {
                **judged.get(drawn.stem, {}),
                "quality": report.get_score(),
                "shapes": float(parts["Column Shapes"]),
                "pairs": float(parts["Column Pair Trends"]),
                "impossible": impossible(rows, real, categories),
            }
        path.write_text(json.dumps(judged))
        cells = (
            f"{k} {v['quality']:.3f} ({v['shapes']:.3f} {v['pairs']:.3f}) {v['impossible']:.3f}"
            for k, v in judged.items()
        )
        print(table.name, "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
