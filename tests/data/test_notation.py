"""Cells are read in their column's notation, and new ones are written in it."""

from __future__ import annotations

from datetime import date, datetime, time

import pyarrow as pa
import pytest

from twofold.data import notation
from twofold.data.notation import Notation


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


@pytest.mark.parametrize(
    ("written", "cells", "meant"),
    [
        (Notation("number", "double"), ["1.5", " 2 ", "+3", None], [1.5, 2, 3, None]),
        (Notation("number", "double", ","), ["1,5", "-0,25"], [1.5, -0.25]),
        (Notation("number", "double", ",", "."), ["1.234,5", "12,0"], [1234.5, 12]),
        (Notation("number", "int64", ".", ","), ["1,234", "(7)"], [1234, -7]),
        (Notation("number", "double", ".", " "), ["1\u00a0234.5", "1 000.0"], [1234.5, 1000]),
        (Notation("number", "double", prefix="$"), ["$5.25", "-$1.00", "$ 3"], [5.25, -1, 3]),
        (Notation("number", "double", suffix=" %"), ["4.5 %", "7%"], [4.5, 7]),
        (Notation("number", "int64", missing=("?",)), ["1", "?", None], [1, None, None]),
        (Notation("boolean", "bool", words=("TRUE", "FALSE")), ["TRUE", "false"], [True, False]),
        (
            Notation("time", "date32[day]", pattern="%d.%m.%Y"),
            ["05.10.2020", "5.1.2021"],
            [date(2020, 10, 5), date(2021, 1, 5)],
        ),
        (
            Notation("time", "timestamp[s]", pattern="%m/%d/%Y %H:%M"),
            ["10/05/2020 13:08"],
            [datetime(2020, 10, 5, 13, 8)],
        ),
        (
            Notation("time", "date32[day]", pattern="%d %B %Y", language="fr"),
            ["5 AOUT 2020", "1er février 2021"],
            [date(2020, 8, 5), date(2021, 2, 1)],
        ),
        (
            Notation("number", "time32[s]", pattern="%I:%M %p"),
            ["12:05 AM", "8:12 pm"],
            [time(0, 5), time(20, 12)],
        ),
        (
            Notation("number", "time64[us]", pattern="%H:%M:%S%f"),
            ["08:12:33.250"],
            [time(8, 12, 33, 250_000)],
        ),
        (
            Notation("number", "double", pattern="%j days %H:%M:%S"),
            ["1 day, 2:00:01", "0 days 00:00:05"],
            [93_601.0, 5.0],
        ),
    ],
)
def test_cells_are_read_as_they_are_meant(
    written: Notation, cells: list[str | None], meant: list[object]
) -> None:
    assert written.read(text(*cells)).to_pylist() == meant


@pytest.mark.parametrize(
    ("written", "cells"),
    [
        (Notation("number", "double"), "1,5"),
        (Notation("number", "double", ","), "1.5"),
        (Notation("number", "int64", ".", ","), "12,34"),
        (Notation("boolean", "bool"), "maybe"),
        (Notation("time", "date32[day]", pattern="%d.%m.%Y"), "2020-10-05"),
        (Notation("number", "time32[s]"), "25:00"),
        (Notation("number", "time32[s]", pattern="%I:%M %p"), "13:05 PM"),
        (Notation("number", "double", group=","), "1,2,345"),
        (Notation("time", "date32[day]", pattern="%d. %B %Y", language="de"), "5. Mai. 20"),
        (Notation("time", "date32[day]", pattern="%d. %b %Y", language="de"), "5. March 2020"),
    ],
)
def test_cells_that_are_written_otherwise_do_not_match(written: Notation, cells: str) -> None:
    assert written.matches(pa.array([cells])).to_pylist() == [False]


@pytest.mark.parametrize(
    ("written", "cells"),
    [
        (Notation("number", "double", ",", ".", suffix=" €", decimals=2), ["1.234,50 €", "0,10 €"]),
        (Notation("number", "double", prefix="$", group=",", decimals=2), ["$1,234.50", "-$0.10"]),
        (Notation("number", "int64", plus=True), ["+5", "-3", "0"]),
        (Notation("number", "double"), ["1.5", "1e+30", "2"]),
        (Notation("number", "time32[s]", pattern="%H:%M"), ["13:08", "00:00"]),
        (Notation("boolean", "bool", words=("TRUE", "FALSE")), ["TRUE", "FALSE"]),
        (Notation("time", "date32[day]", pattern="%b %d %Y", padded=False), ["Jan 5 1999"]),
        (Notation("time", "date32[day]", pattern="%m/%d/%y", padded=False), ["1/2/09", "11/30/10"]),
        (Notation("time", "date32[day]", pattern="%d-%b-%y", padded=False), ["4-Sep-09"]),
        (Notation("time", "date32[day]", pattern="%y.%m.%d", padded=False), ["09.1.2"]),
        (
            Notation("time", "timestamp[s]", pattern="%d.%m.%Y %H.%M", padded=False),
            ["5.3.2020 08.05"],
        ),
        (Notation("time", "timestamp[s]", pattern="%d.%m.%Y %H:%M:%S"), ["05.01.1999 07:08:09"]),
        (Notation(), ["0501", " x "]),
        (
            Notation("number", "double", group=",", indian=True, decimals=2, prefix="₹ "),
            ["₹ 12,34,567.50", "₹ 999.00", "₹ 1,00,000.25"],
        ),
        (
            Notation("time", "date32[day]", pattern="%A, %d. %B %Y", language="de", padded=False),
            ["Freitag, 5. März 2021", "Dienstag, 12. Mai 2020"],
        ),
        (
            Notation("time", "date32[day]", pattern="%d %b. %Y", language="fr", padded=False),
            ["3 févr. 2021", "12 mai 2020"],
        ),
        (
            Notation("time", "date32[day]", pattern="%B %d%o, %Y", language="en", padded=False),
            ["March 1st, 2021", "June 12th, 2020", "May 23rd, 2020"],
        ),
        (Notation("time", "date32[day]", pattern="%d-%b-%Y", case="upper"), ["05-MAR-2021"]),
        (
            Notation("time", "timestamp[s]", pattern="%m/%d/%Y %I:%M %P", hours_padded=False),
            ["03/05/2021 8:12 pm"],
        ),
        (
            Notation("number", "time32[s]", pattern="%I:%M %P", padded=False),
            ["8:12 am", "12:00 pm", "12:59 am"],
        ),
        (Notation("number", "double", pattern="%M:%S%f", decimals=3, padded=False), ["1:27.345"]),
        (
            Notation("number", "double", pattern="%M:%S", plus=True, padded=False),
            ["+0:23", "-1:05"],
        ),
        (Notation("number", "double", pattern="%J:%M:%S"), ["07:04:05", "102:03:45"]),
    ],
)
def test_new_cells_are_written_like_the_others(written: Notation, cells: list[str]) -> None:
    assert written.write(written.read(text(*cells))).to_pylist() == cells


def test_a_field_carries_its_notation() -> None:
    written = Notation("number", "double", ",", missing=("k.A.",), decimals=2)
    field = notation.field_of("price", written)
    assert (field.type, notation.of_field(field)) == (pa.float64(), written)
    assert not notation.is_as_written(field)
    assert notation.is_as_written(notation.field_of("price", written, as_written=True))
    assert notation.of_field(pa.field("x", pa.int64())) is None


def test_a_table_of_text_is_read_once() -> None:
    field = notation.field_of("price", Notation("number", "double", ","), as_written=True)
    table = pa.Table.from_arrays([text("1,5", None)], schema=pa.schema([field]))
    read = notation.read_table(table)
    assert read.column("price").to_pylist() == [1.5, None]
    assert notation.read_table(read) is read


@pytest.mark.parametrize("document", [{"arrow": "int7"}, {"type": "colour"}, {"decimal": 3}])
def test_a_document_that_is_not_a_notation_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a column is not written as"):
        Notation.from_json(document)
