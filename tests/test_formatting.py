"""Plain text stays in line, whatever letters and however long the cells, and on any terminal."""

from __future__ import annotations

import io
import os
from datetime import datetime
from typing import Any

import pytest

from twofold.formatting import Text, cell, html_table, listed, pairs, plain_number, shortened, table

ROWS = [("age", "400", "12.5"), ("城市", "Zürich", "-0.1"), ("e\u0301", "x", "3.0")]


def test_cells_line_up_by_the_places_they_take() -> None:
    lines = table(("column", "observed", "share"), ROWS, right=(2,)).splitlines()
    assert lines == [
        "column  observed  share",
        "-----------------------",
        "age     400        12.5",
        "城市    Zürich     -0.1",
        "e\u0301       x           3.0",
    ]


def test_pairs_are_never_cut() -> None:
    assert pairs({"a": "b" * 500, "long": "c"}) == f"a     {'b' * 500}\nlong  c"
    assert pairs({}) == ""


@pytest.mark.parametrize("width", [40, 52, 79])
def test_table_fits_a_terminal(width: int) -> None:
    rows = [("n" * 50, "observed " * 10, "1234567.89"), ("ß長" * 20, "x", "1")]
    lines = table(("column", "observed", "share"), rows, right=(2,), width=width).splitlines()
    assert len(lines[1]) == width
    assert lines[2].endswith("…  1234567.89")


def test_terminal_too_narrow_keeps_the_numbers() -> None:
    text = table(("column", "share"), [("n" * 50, "1234567.89")], right=(1,), width=5)
    assert text.splitlines()[2] == "n" * 11 + "…  1234567.89"


def test_width_is_the_terminals_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "30")
    rows = [("n" * 50, "1")]
    assert len(table(("column", "share"), rows, (1,)).splitlines()[1]) == 60 + 2 - 10 + 5
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr(
        "shutil.get_terminal_size", lambda fallback=(80, 24): os.terminal_size((30, 9))
    )
    assert len(table(("column", "share"), rows, (1,)).splitlines()[1]) == 30


def test_long_cell_is_cut_without_a_terminal_too() -> None:
    (_, _, line) = table(("a",), [("x" * 100_000,)]).splitlines()
    assert line == "x" * 59 + "…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\t", r"two\nlines\t"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("Zürich 城", "Zürich 城"),
    ],
)
def test_text_is_one_line_that_commands_nothing(text: str, shown: str) -> None:
    assert shortened(text) == shown


def test_many_names_are_cut_short() -> None:
    assert listed([f"c{i}" for i in range(2000)], 2) == "c0, c1 and 1,998 more"
    assert listed(["a"], 2) == "a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (41.26, "41.26"),
        (1 / 3, "0.333333"),
        (123456.789, "123457"),
        (98765432101234.0, "98765432101234"),
        (-1.5e-9, "-1.5e-09"),
        (2e300, "2e+300"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_as_many_digits_as_one_reads(value: float, text: str) -> None:
    assert plain_number(value) == text


MOMENT = datetime(2024, 5, 17, 21, 30, 12, 345_678)


@pytest.mark.parametrize(
    ("value", "dtype", "text", "exact"),
    [
        (None, "string", None, None),
        (float("nan"), "double", None, None),
        ("a,\nb", "string", "a,\nb", "a,\nb"),
        (True, "category", "True", "True"),
        (8006.0, "int64", "8006", "8006"),
        (25.28004123, "double", "25.28", "25.28004123"),
        (float("inf"), "double", "inf", "inf"),
        (1e300, "double", "1e+300", None),
        (MOMENT, "timestamp[us]", "2024-05-17 21:30:12", "2024-05-17 21:30:12.345678"),
        (MOMENT, "timestamp[us, tz=UTC]", "2024-05-17 21:30:12Z", None),
        (MOMENT, "datetime64[us, UTC]", "2024-05-17 21:30:12Z", None),
        (MOMENT, "Datetime(time_unit='us', time_zone='UTC')", "2024-05-17 21:30:12Z", None),
        (MOMENT, "Datetime(time_unit='us', time_zone=None)", "2024-05-17 21:30:12", None),
        (MOMENT, "date32[day]", "2024-05-18", "2024-05-18"),
        (MOMENT, "Date", "2024-05-18", "2024-05-18"),
        (datetime.max, "date32[day]", "9999-12-31", "9999-12-31"),
        (34_200.5, "time64[us]", "09:30:00", "09:30:00.500000"),
        (34_200.0, "Time", "09:30:00", "09:30:00"),
        (90_000.0, "time32[s]", "90000", "90000"),
    ],
)
def test_cells_read_as_in_their_table(
    value: Any, dtype: str, text: str | None, exact: str | None
) -> None:
    assert cell(value, dtype) == text
    if exact is not None:
        assert cell(value, dtype, exact=True) == exact


def test_a_text_is_shown_as_it_is() -> None:
    text = Text("a <b>\n  c")
    assert repr(text) == text == "a <b>\n  c"
    assert text._repr_html_() == "<pre>a &lt;b&gt;\n  c</pre>"


def test_cells_of_a_table_for_notebooks_are_text() -> None:
    html = html_table(("column", "share"), [("<script>", "0.5")], right=(1,), note="a & b")
    assert '<td style="text-align:left">&lt;script&gt;</td>' in html
    assert '<td style="text-align:right">0.5</td>' in html
    assert html.endswith("<p>a &amp; b</p>")
