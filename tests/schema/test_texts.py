"""Columns of text in frames that are times or numbers are taken for such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from twofold import Autoencoder, load
from twofold.data import sources
from twofold.schema.texts import typed

N = 60
RNG = np.random.default_rng(0)
DAYS = [f"{d:02d}.{m:02d}.2021" for d, m in RNG.integers(1, (29, 13), (N, 2))]
PAID = [f"${v:,.2f}" for v in RNG.gamma(2, 900, N)]
CLOCKS = [f"{h:02d}:{m:02d}" for h, m in RNG.integers(0, (24, 60), (N, 2))]
ZONED = [f"2021-03-{d:02d}T0{d % 9}:00:00Z" for d in RNG.integers(1, 31, N)]


def kind_of(cells: list[Any], name: str = "x", **kinds: str) -> str:
    frame = pd.DataFrame({name: cells})
    formats = typed(sources.read(frame), kinds).formats
    assert formats is not None
    return formats[0].type


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (DAYS, "time"),
        (ZONED, "time"),
        (PAID, "number"),
        (CLOCKS, "number"),
        ([f"{v:.1f}%" for v in range(60)], "number"),
        ([f"{v / 7:.2f}" for v in range(60)], "number"),
        ([*DAYS, None, None], "time"),
        ([*PAID, "n/a"], "number"),
        ([f"{v}" for v in range(60)], "text"),
        ([f"{v:04d}" for v in range(60)], "text"),
        ([*DAYS, "unclear", "soon"], "text"),
        (["1.5", "2.5", "3.5"] * 20, "text"),
        (["yes", "no"] * 30, "text"),
    ],
)
def test_type_of_texts(cells: list[Any], kind: str) -> None:
    assert kind_of(cells) == kind


def test_kinds_settle_what_texts_are() -> None:
    assert kind_of(DAYS, x="category") == "text"
    assert kind_of(DAYS, x="ignored") == "text"
    assert kind_of([f"{v}" for v in range(60)], x="real") == "number"
    assert kind_of(["1.9", "1.10", "1.11", "2.0", "2.1", "2.2"] * 10, "version") == "text"


def test_declared_categories_stay_what_they_are() -> None:
    frame = pd.DataFrame({"x": pd.Categorical(DAYS)})
    table = sources.read(frame)
    assert typed(table) is table


MAKERS: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "objects": lambda cells: pd.DataFrame(cells, dtype=object),
    "pyarrow": lambda cells: pd.DataFrame(cells).convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.DataFrame,
    "arrow": pa.table,
}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))
def test_cells_stay_text_and_new_ones_are_written_alike(
    maker: Callable[[dict[str, list[Any]]], Any], tmp_path: Path
) -> None:
    cells: dict[str, list[Any]] = {"day": DAYS, "paid": PAID, "at": CLOCKS, "since": ZONED}
    gaps = {name: [None, *column[1:]] for name, column in cells.items()}
    X = maker(gaps)
    ae = Autoencoder(epochs=1, n_components=2, random_state=0).fit(X)
    kinds = [column.kind for column in ae.schema_.columns]
    assert kinds == ["time", "real", "real", "time"]
    ae.save(tmp_path / "model")
    for model in (ae, load(tmp_path / "model")):
        filled = columns_of(model.impute(X))
        assert {name: column[1:] for name, column in filled.items()} == {
            name: column[1:] for name, column in gaps.items()
        }
        for made in (filled, columns_of(model.reconstruct(X)), columns_of(model.sample(9))):
            assert all(len(cell) == 10 and cell[6:] == "2021" for cell in made["day"])
            assert all(cell[0] == "$" and cell[-3] == "." for cell in made["paid"])
            assert all(len(cell) == 5 and cell[2] == ":" for cell in made["at"])
            assert all(cell.startswith("2021-03-") and cell[-1] == "Z" for cell in made["since"])
        assert type(model.reconstruct(X)) is type(X)


def columns_of(frame: Any) -> dict[str, list[Any]]:
    if isinstance(frame, pa.Table):
        return {name: frame.column(name).to_pylist() for name in frame.column_names}
    return {name: frame[name].to_list() for name in frame.columns}


def test_rows_in_the_columns_own_types_mean_the_same() -> None:
    X = pd.DataFrame({"day": DAYS, "paid": PAID})
    ae = Autoencoder(epochs=1, n_components=1, random_state=0).fit(X)
    own = pd.DataFrame(
        {
            "day": pd.to_datetime(X["day"], format="%d.%m.%Y"),
            "paid": X["paid"].str.replace("[$,]", "", regex=True).astype(float),
        }
    )
    assert np.allclose(ae.score_samples(own), ae.score_samples(X))
    assert ae.reconstruct(own)["day"].dtype == own["day"].dtype
