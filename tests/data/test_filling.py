"""Missing cells of frames are filled, and all others stay as they are."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from twofold.data import filling, frames
from twofold.data.table import Format

NAN = np.nan


def exact_frames() -> dict[str, Any]:
    whole, ticks = [2**62 + 1, None], [1_700_000_000_123_456_789, None]
    decimals = [Decimal("1.000000000000000000001"), None]
    table = pa.table({"n": whole, "t": pa.array(ticks, pa.timestamp("ns")), "d": decimals})
    return {
        "arrow": table,
        "polars": pl.from_arrow(table),
        "pandas": pd.DataFrame(
            {
                "n": pd.array(whole, dtype="Int64"),
                "t": pd.to_datetime(ticks, unit="ns"),
                "d": pd.Series(decimals, dtype=object),
            }
        ),
    }


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_cells_that_no_float_holds_stay_exact(container: str) -> None:
    frame = exact_frames()[container]
    table = frames.read(frame, container)
    filled = filling.fill(frame, table, np.nan_to_num(table.values, nan=3.4))
    as_arrow = {"pandas": pa.Table.from_pandas, "polars": pl.DataFrame.to_arrow}
    rows = as_arrow.get(container, lambda same: same)(filled)
    assert [rows[name][0].as_py() for name in "nd"] == [2**62 + 1, Decimal("1." + "0" * 20 + "1")]
    assert rows["t"][0].value == 1_700_000_000_123_456_789
    assert (rows["n"][1].as_py(), float(rows["d"][1].as_py())) == (3, 3.4)


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_cell_without_a_number_stays_missing(container: str) -> None:
    frame = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}[container](
        {"a": [1.0, None, None], "b": ["x", None, None]}
    )
    table = frames.read(frame, container)
    wanted = np.array([[9, 9], [2, NAN], [NAN, 0]])
    found = frames.read(filling.fill(frame, table, wanted), container).values
    np.testing.assert_array_equal(found, [[1, 0], [2, NAN], [NAN, 0]])


OTHER = {
    "pandas text": pd.DataFrame({"c": ["b", None, None]}),
    "pandas category": pd.DataFrame(
        {"c": pd.Series(pd.Categorical.from_codes([0, -1, -1], ["b", "unused"], ordered=True))}
    ),
    "polars String": pl.DataFrame({"c": ["b", None, None]}),
    "polars Categorical": pl.DataFrame({"c": pl.Series(["b", None, None], dtype=pl.Categorical)}),
    "polars Enum": pl.DataFrame({"c": pl.Series(["b", None, None], dtype=pl.Enum(["b", "u"]))}),
    "arrow string": pa.table({"c": ["b", None, None]}),
    "arrow dictionary": pa.table({"c": pa.array(["b", None, None]).dictionary_encode()}),
}


@pytest.mark.parametrize("name", OTHER)
def test_text_may_be_counted_by_other_levels(name: str) -> None:
    frame = OTHER[name]
    table = frames.read(frame, name.split()[0])
    told = [Format("text", "str", ("a", "b", "c"))]
    filled = filling.fill(frame, table, np.array([[NAN], [2.0], [1.0]]), told)
    cells = filled["c"].to_pylist() if name.startswith("arrow") else list(filled["c"])
    assert cells == ["b", "c", "b"]
    if name == "pandas category":
        assert list(filled["c"].cat.categories) == ["b", "unused", "c"]
        assert filled["c"].cat.ordered
    if name == "polars Enum":
        assert filled.schema["c"] == pl.Enum(["b", "u", "c"])


def test_filled_frame_keeps_what_else_it_has() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), metadata={"unit": "m"})], {"about": "rows"})
    batch = pa.record_batch([pa.array([1, None], pa.int8())], schema=schema)
    filled = filling.fill(batch, frames.read(batch, "arrow"), np.array([[0.0], [2.0]]))
    assert isinstance(filled, pa.RecordBatch)
    assert filled.schema.equals(schema, check_metadata=True)
    frame = pd.DataFrame([[1.0, "x"], [NAN, None]], columns=["a", "a"], index=["p", "q"])
    frame.attrs["about"] = "rows"
    filled = filling.fill(frame, frames.read(frame, "pandas"), np.array([[0, 0], [2.0, 0]]))
    assert filled.values.tolist() == [[1.0, "x"], [2.0, "x"]]
    assert (list(filled.index), list(filled.columns), filled.attrs) == (
        ["p", "q"],
        ["a", "a"],
        {"about": "rows"},
    )


def test_nothing_to_fill_still_gives_a_copy() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    filled = filling.fill(frame, frames.read(frame, "pandas"), np.ones((2, 1)))
    filled.loc[0, "a"] = 7.0
    assert frame.loc[0, "a"] == 1.0
