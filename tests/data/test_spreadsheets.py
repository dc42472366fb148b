"""Spreadsheets are read as the CSV files of their tables are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.everyday import sheet, workbook
from twofold import Files
from twofold.errors import DataError

DATA: list[list[object]] = [[f"site {i % 3}", 1.5 * i, i % 7] for i in range(12)]
NAMES: list[object] = ["Site", "Temp", "Flow"]


def read(path: Path, content: bytes) -> Any:
    path = path / "book.xlsx"
    path.write_bytes(content)
    return Files(path).open()


@pytest.mark.parametrize(
    ("above", "below", "said"),
    [
        ([NAMES], [], ""),
        ([["Weather"], [], NAMES], [], "2 lines above the header left out"),
        ([[None, "Weather"], NAMES], [], "1 line above the header left out"),
        ([["Made by", "me"], ["at", "home"], [], NAMES], [], "3 lines above the header left out"),
        ([NAMES, [None, "\N{DEGREE SIGN}C", "m3/s"]], [], "1 line of units or names"),
        ([NAMES], [[], ["Source: the office"]], "1 line below the rows left out"),
        ([NAMES], [[], [None, None, None]], ""),
    ],
    ids=["plain", "title", "centred", "titles", "units", "source", "blank"],
)
def test_what_stands_around_a_table_is_left_out(
    above: list[list[object]], below: list[list[object]], said: str, tmp_path: Path
) -> None:
    table = read(tmp_path, sheet([*above, *DATA, *below]))
    assert table.column_names == NAMES
    assert table.num_rows == len(DATA)
    assert table.column("Temp").to_pylist() == [row[1] for row in DATA]
    assert said in table.schema.metadata[b"twofold.understood"].decode()


def test_names_in_merged_cells_are_joined_to_those_below(tmp_path: Path) -> None:
    above: list[Sequence[object]] = [
        ["Site", "2021", None, "2022"],
        [None, "Sales", "Cost", "Sales"],
    ]
    rows = [[*row, i] for i, row in enumerate(DATA)]
    table = read(tmp_path, sheet([*above, *rows], merged=["A1:A2", "B1:C1"]))
    assert table.column_names == ["Site", "2021 Sales", "2021 Cost", "2022 Sales"]
    assert table.column("2022 Sales").to_pylist() == list(range(len(DATA)))


def test_a_cell_that_spans_rows_counts_in_each(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["A" if i == 0 else "B" if i == 4 else None, i, 2] for i in range(8)
    ]
    table = read(tmp_path, sheet([NAMES, *rows], merged=["A2:A5", "A6:A9"]))
    assert table.column("Site").to_pylist() == ["A"] * 4 + ["B"] * 4


@pytest.mark.parametrize(
    ("sheets", "hidden"),
    [
        ({"Read me": [["About"], ["these rows"]], "Data": [NAMES, *DATA]}, []),
        ({"Empty": [], "Data": [NAMES, *DATA]}, []),
        ({"Lists": [["a", "b"], ["x", "y"]], "Data": [NAMES, *DATA]}, ["Lists"]),
    ],
    ids=["cover", "empty", "hidden"],
)
def test_the_first_sheet_that_is_a_table_is_read(
    sheets: dict[str, list[list[object]]], hidden: list[str], tmp_path: Path
) -> None:
    table = read(tmp_path, workbook(sheets, hidden=hidden))
    assert table.column_names == NAMES
    assert "sheet 'Data'" in table.schema.metadata[b"twofold.understood"].decode()


def test_a_sheet_without_a_header_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="header"):
        table = read(tmp_path, sheet(DATA))
    assert table.num_rows == len(DATA)


def test_cells_are_texts_numbers_flags_and_times(tmp_path: Path) -> None:
    rows = [[i, i / 8, bool(i % 2), datetime(2021, 1, i + 1, 6), f'a,{i}\n"b"'] for i in range(9)]
    table = read(tmp_path, sheet([["n", "x", "flag", "at", "text"], *rows]))
    found = zip(*(column.to_pylist() for column in table.columns), strict=True)
    assert [list(row) for row in found] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no workbook", "cannot be read as a spreadsheet"),
        (sheet([]), "has no sheet with rows"),
        (sheet([NAMES]), "holds a header, 'Site', 'Temp', 'Flow', and nothing below it"),
    ],
    ids=["other", "empty", "header"],
)
def test_a_workbook_without_rows_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)
