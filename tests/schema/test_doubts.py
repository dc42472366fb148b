"""Rows of totals, and numbers that stand for missing values, are said and not dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold import Files
from twofold.data import sources
from twofold.schema.scan import scan
from twofold.schema.schema import Schema
from twofold.training.process_group import SingleProcess


def sales(last: list[Any]) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    columns = {"month": rng.choice(["Jan", "Feb"], 12), "sold": rng.integers(1, 90, 12)}
    frame = pd.DataFrame({**columns, "paid": rng.gamma(2, 40, 12).round(2)})
    return pd.concat([frame, pd.DataFrame([last], columns=frame.columns)], ignore_index=True)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (["Total", 1.0, 2.0], "row 12 looks like a row of totals ('Total' in column 'month')"),
        (["Summe:", None, None], "('Summe' in column 'month')"),
        ([None, "sold", "paid"], "(its numbers are the sums of those above)"),
        (["Jan", 4, 7.5], ""),
        ([None, "sold", 3.0], ""),
    ],
)
def test_a_row_of_totals_is_named(last: list[Any], said: str) -> None:
    above = sales(["Jan", 0, 0.0])
    frame = sales([above[cell].sum() if cell in ("sold", "paid") else cell for cell in last])
    found = Schema.infer(sources.read(frame)).understood
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize("last", ["Total,78,13.5", ",78,13.5", "b,78,2.5"])
def test_totals_of_a_streamed_file_are_named(tmp_path: Path, last: str) -> None:
    rows = [f"{'ab'[i % 2]},{i + 1},{1 + i % 3 / 8}" for i in range(12)]
    (tmp_path / "x.csv").write_text("\n".join(["month,sold,paid", *rows, last, ""]))
    found = scan(Files(tmp_path / "x.csv", stream=True).open(), 0, 0.2, SingleProcess())
    said = Schema.infer(found.sample, statistics=found.statistics).understood
    assert bool(said) == (not last.startswith("b"))
    assert not said or said.startswith("row 12 looks like a row of totals")


CODES = {
    "age": (999.0, range(18, 90), "8 of 80 cells hold 999, and all others are from 18 to 89"),
    "income": (-1.0, range(9000, 9072), "8 of 80 cells hold -1,"),
    "depth": (-999.0, np.arange(72) / 8, "8 of 80 cells hold -999, and all others are from 0 to"),
    "debt": (-999.0, range(-2000, 2016, 56), ""),
    "change": (-1.0, range(72), ""),
    "year": (2099.0, range(1950, 2022), ""),
}


@pytest.mark.parametrize("name", CODES)
def test_a_number_that_may_stand_for_missing_values_is_said(name: str) -> None:
    code, others, said = CODES[name]
    frame = pd.DataFrame({name: [*np.resize(others, 72).astype(float), *[code] * 8]})
    note = Schema.infer(sources.read(frame)).columns[0].note
    assert note.startswith(said)
    assert bool(note) == bool(said)


def test_a_day_that_may_stand_for_missing_values_is_said() -> None:
    days = pd.DataFrame({"day": pd.to_datetime(["2021-01-01", "2022-05-03", "2100-01-01"] * 9)})
    assert Schema.infer(sources.read(days)).columns[0].note == ""
    days.loc[:3, "day"] = pd.Timestamp("9999-12-31")
    assert "4 of 27 cells hold 9999-12-31" in Schema.infer(sources.read(days)).columns[0].note


@pytest.mark.parametrize(
    ("codes", "others", "said"),
    [
        ([-999, -888], [1000, 2000, 3000], "hold -999 or -888, and all others are from 1000"),
        ([98, 99], [1, 2, 3], "hold 99 or 98, and all others are from 1 to 3"),
        ([98, 99], list(range(97)), ""),
    ],
)
def test_several_codes_for_missing_values_are_named(
    codes: list[int], others: list[int], said: str
) -> None:
    frame = pd.DataFrame({"x": [*codes * 3, *others * 4], "y": 1.5})
    frame["y"] += np.arange(len(frame)) % 5
    note = Schema.infer(sources.read(frame)).columns[0].note
    assert said in note
    assert bool(note) == bool(said)
