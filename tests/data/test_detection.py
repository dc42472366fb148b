"""What a column's cells are shows in all of them, in whatever order they come."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from twofold.data.candidates import Hints
from twofold.data.detection import Detector
from twofold.data.notation import Notation


def settled(cells: list[str | None], hints: Hints | None = None, n_parts: int = 1) -> Notation:
    detector = Detector("c", hints)
    ends = np.linspace(0, len(cells), n_parts + 1).astype(int)
    for start, end in pairwise(ends):
        detector.add(pa.chunked_array([pa.array(cells[start:end], pa.string())]))
    return detector.settle()


KINDS = {
    "numbers": (["1.5", "2", "-3e5"], "number", "double"),
    "whole numbers": (["1", "-2", None], "number", "int64"),
    "codes": (["0501", "0502", "12"], "text", "string"),
    "twenty digits": (["89490000000000000001", "89490000000000000002"], "text", "string"),
    "telephones": (["+4912345001", "+4912345002"], "text", "string"),
    "signed changes": (["+1.5", "-0.5", "+3"], "number", "double"),
    "amounts": (["$1,234.50", "$12.00"], "number", "double"),
    "decimal commas": (["1,5", "12,25"], "number", "double"),
    "german amounts": (["1.234,50 €", "12,00 €"], "number", "double"),
    "percent": (["4.5%", "12%"], "number", "double"),
    "degrees": (["12.5°C", "7.0°C"], "number", "double"),
    "units next to numbers": (["12.5cm", "7cm"], "number", "double"),
    "codes that end in letters": (["012ab", "007ab"], "text", "string"),
    "swiss": (["1’234.50", "12.00"], "number", "double"),
    "no day": (["0000-00-00", "2020-01-31"], "time", "date32[day]"),
    "days long ago": (["1401-01-31", "9999-12-31"], "time", "date32[day]"),
    "units": (["12 kg", "7.5 kg"], "number", "double"),
    "dash for none": (["-", "3", "4"], "number", "int64"),
    "question mark": (["?", "3.5"], "number", "double"),
    "blank": ([" ", "3.5"], "number", "double"),
    "flags": (["TRUE", "FALSE"], "boolean", "bool"),
    "flags and more": (["true", "false", "unknown"], "text", "string"),
    "days": (["2020-01-31", "2020-02-01"], "time", "date32[day]"),
    "instants": (
        ["2024-03-30T01:00:00+01:00", "2024-03-30T01:00:00Z"],
        "time",
        "timestamp[s, tz=UTC]",
    ),
    "american": (["12/31/1999", "1/5/2000"], "time", "date32[day]"),
    "german": (["31.12.1999", "05.01.2000"], "time", "date32[day]"),
    "words": (["Jan 5 1999", "Feb 12 2001"], "time", "date32[day]"),
    "compact days": (["20210131", "19991231", "20200229"], "time", "date32[day]"),
    "no compact days": (["20210131", "19991231", "20200230"], "number", "int64"),
    "compact days and a blank": (["20210131", "-", "19991231", "20200229"], "time", "date32[day]"),
    "days of the week": (["Sun, 28 Mar 2021", "Mon, 5 Apr 2021"], "time", "date32[day]"),
    "a zone that all have": (
        ["2021/01/28 3:10:00 PM GMT+1", "2021/02/01 11:09:10 AM GMT+1"],
        "time",
        "timestamp[s]",
    ),
    "hexadecimal": (["0x1A", "0x2B"], "text", "string"),
    "leading zero, then a decimal comma": (["0,125", "-0,500"], "number", "double"),
    "twenty digits and a blank": (["89490000000000000001", " "], "text", "string"),
    "clock": (["13:08", "07:00"], "number", "time32[s]"),
    "half days": (["8:12 AM", "12:05 PM"], "number", "time32[s]"),
    "fractions of seconds": (["08:12:33.250", "12:00:00.001"], "number", "time64[us]"),
    "laps": (["1:27.345", "61:02.001"], "number", "double"),
    "longer than days": (["26:10", "3:15"], "number", "double"),
    "lakhs": (["12,34,567.5", "1,000.0"], "number", "double"),
    "german months": (["5. März 2021", "12. Mai 2020"], "time", "date32[day]"),
    "french months": (["12 mai 2020", "1er juin 2020", "3 août 2021"], "time", "date32[day]"),
    "spanish months": (["5 de marzo de 2021", "12 de mayo de 2020"], "time", "date32[day]"),
    "polish months": (["5 marca 2021", "12 maja 2020"], "time", "date32[day]"),
    "weekdays of Italy": (["lun 5 apr 2021", "mar 6 apr 2021"], "time", "date32[day]"),
    "ordinals": (["March 5th, 2021", "May 1st, 2020"], "time", "date32[day]"),
    "september of four letters": (["Sept 5, 2021", "May 1, 2020"], "time", "date32[day]"),
    "web servers": (["01/Mar/2022:00:07:00 +0000"] * 3, "time", "timestamp[s]"),
    "thousands as K": (["1.9K", "12.5K"], "number", "double"),
    "classes": (["1st", "1st"], "text", "string"),
    "books": (["261511570X", "0064376891"], "text", "string"),
    "months": (["Mar-21", "May-20"], "time", "date32[day]"),
    "seasons": (["2009-10", "2010-11"], "text", "string"),
    "scores": (["2-1", "3-0"], "text", "string"),
    "names": (["Anna", "Ben"], "text", "string"),
    "nothing": ([None, None], "number", "null"),
}


@pytest.mark.parametrize("n_parts", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_settle_their_column(kind: str, n_parts: int) -> None:
    cells, expected, arrow = KINDS[kind]
    for order in (cells, cells[::-1]):
        found = settled(order * 20, n_parts=n_parts)
        assert (found.type, found.arrow) == (expected, arrow)
        read = found.read(pa.chunked_array([pa.array(cells, pa.string())]))
        assert read.type == found.kind


def test_a_code_in_the_last_part_makes_text_of_all() -> None:
    assert settled(["1", "2"] * 50 + ["A501"], n_parts=4).type == "text"


def test_a_country_called_na_is_a_level() -> None:
    assert settled(["NA", "US", "DE", "FR"] * 9).missing == ()
    assert settled(["NA", "Rome", "Paris"] * 9).missing == ("NA",)


def test_a_column_that_is_nearly_numbers_says_which_cell_is_not() -> None:
    found = settled([*map(str, range(40)), "Total"])
    assert found.type == "text"
    assert found.note == (
        "40 of 41 cells are numbers; row 40 holds 'Total'. Add it to missing=, or set "
        "kinds={'c': 'real'}"
    )
    wanted = settled([*map(str, range(40)), "Total"], Hints(wanted="number"))
    assert (wanted.type, wanted.missing) == ("number", ("Total",))


def test_dates_that_could_be_others_are_said() -> None:
    found = settled(["01/02/1999", "03/04/2000"] * 9)
    assert found.pattern == "%m/%d/%Y"
    assert "could be %d/%m/%Y" in found.note
    assert settled(["01/02/1999"] * 9, Hints(date_format="%d/%m/%Y")).pattern == "%d/%m/%Y"


def test_words_for_missing_values_can_be_given() -> None:
    found = settled(["1", "999", "2"], Hints(missing=("999",)))
    assert (found.type, found.missing) == ("number", ("999",))


def test_cells_of_the_models_column_stay_what_they_were() -> None:
    known = Hints(known=Notation("number", "double", ",", "."))
    assert settled(["1.234", "2.500"] * 9, known).group == "."
    assert settled(["01", "02"] * 9, Hints(known=Notation("number", "int64"))).type == "number"


def written(cells: list[str], new: pa.Array) -> list[str]:
    notation = settled(list(cells))
    found: list[str] = notation.write(new.cast(notation.kind)).to_pylist()
    return found


def test_new_times_are_padded_as_the_others_are() -> None:
    new = pa.array([1609491605], pa.timestamp("s"))  # 2021-01-01 09:00:05
    assert written(["4/25/2021 10:52:00", "12/5/2021 9:05:07"], new) == ["1/1/2021 9:00:05"]
    assert written(["04/25/2021 10:52:00", "12/05/2021 09:05:07"], new) == ["01/01/2021 09:00:05"]
    assert written(["04/25/2021 10:52:00", "12/05/2021 9:05:07"], new) == ["01/01/2021 9:00:05"]


def test_new_numbers_have_the_space_and_the_exponent_of_the_others() -> None:
    assert written(["1\u202f234,5", "12,5"], pa.array([4321.5])) == ["4\u202f321,5"]
    assert written(["1,25e-07", "3,50e-08"], pa.array([2.5e-8])) == ["2,50e-08"]
    assert written(["−1.5", "2.5"], pa.array([-3.5])) == ["−3.5"]
    assert written([".250", ".300"], pa.array([0.275])) == [".275"]
    assert written(["12.50°C", "7.00°C"], pa.array([3.5])) == ["3.50°C"]


NUMBERS = [f"{i / 8:.2f}" for i in range(2, 40)]


@pytest.mark.parametrize(
    ("cells", "number", "example"),
    [
        (["<0.05", "< 0.05", ">9"], 0.05, "<0.05"),
        (["≥4.5 *"], 4.5, "≥4.5 *"),
        (["1,204r"], 1204, "1,204r"),
        (["ca. 3.5", "~2"], 3.5, "ca. 3.5"),
        (["2.5±0.3", "2.5 ± 1"], 2.5, "2.5±0.3"),
        (["7.25 [a]", "3(1)"], 7.25, "7.25 [a]"),
    ],
)
@pytest.mark.parametrize("n_parts", [1, 3])
def test_marks_next_to_numbers_are_left_out_and_counted(
    cells: list[str], number: float, example: str, n_parts: int
) -> None:
    found = settled([*NUMBERS, "NA", *cells], n_parts=n_parts)
    said = f"{len(cells)} of {38 + len(cells)} cells have a mark, such as {example!r}"
    assert (found.type, found.arrow, said in found.note) == ("number", "double", True)
    assert found.read(pa.chunked_array([cells]))[0].as_py() == number
    assert found.write(pa.array([number]))[0].as_py()[0].isdigit()


@pytest.mark.parametrize("cells", [["0", "1", "2", "3+"] * 9, [*NUMBERS, "12a", "b7"]])
def test_a_few_levels_and_other_texts_are_not_numbers_with_marks(cells: list[str | None]) -> None:
    assert settled(cells).type == "text"


@pytest.mark.parametrize(
    ("cells", "meant"),
    [
        (["４１", "３．５", "－６"], None),
        (["٩٣٤", "٩٦٢"], [934, 962]),
        (["117\u2009692", "4\u2009384\u2009380"], [117692, 4384380]),
        (["9,0\u00a0%", "3,6\u00a0%"], [9.0, 3.6]),
        (["15,457円", "1,200円"], [15457, 1200]),
        (["R$ 1.234,50", "R$ 2,00"], [1234.5, 2.0]),
        (["$40.3 million", "$7.2 million"], [40.3, 7.2]),
        (["$1.25M", "$3.40M"], [1.25, 3.4]),
    ],
)
def test_numbers_in_other_digits_spaces_and_currencies_are_written_so(
    cells: list[str | None], meant: list[float] | None
) -> None:
    found = settled(cells)
    read = found.read(pa.chunked_array([cells]))
    assert read.to_pylist() == (meant or [41.0, 3.5, -6.0])
    assert meant is None or found.write(read.combine_chunks()).to_pylist() == cells


def test_cells_without_the_unit_of_the_others_are_said() -> None:
    found = settled(["65.4%", "0.228", "1.2%", "0.5%"] * 5)
    assert "5 of 20 cells, such as '0.228', lack the '%' of the others" in found.note


@pytest.mark.parametrize("cells", [["$2.73", "€4.38", "£1.23"], ["3.66 m", "67 cm", "2.5 m"]])
def test_numbers_in_several_units_are_text_and_said(cells: list[str]) -> None:
    various = [cell.replace(".", f"{i}.") for i in range(9) for cell in cells]
    found = settled(list(various))
    assert (found.type, "numbers in several units" in found.note) == ("text", True)


def test_versions_are_not_numbers() -> None:
    detector = Detector("app_version")
    detector.add(pa.chunked_array([["1.9", "1.10", "2.0"]]))
    assert (detector.settle().type, settled(["1.9", "1.10", "2.0"]).type) == ("text", "number")


@pytest.mark.parametrize(
    "cells",
    [
        ["2021-03-04 10:00:05,407", "2021-03-04 10:01:05,371"],
        ["2021-01-01 10:00:00 CET", "2021-07-02 11:30:00 CET"],
        ["2021年01月31日", "2021年12月01日"],
        ["2021年1月31日", "2021年12月1日"],
        ["9:33 a.m.", "10:06 p.m.", "12:20 a.m."],
        ["50.19", "1:06.03", "9.58", "1:41.11"],
    ],
)
def test_times_are_read_and_written_as_people_write_them(cells: list[str | None]) -> None:
    found = settled(cells)
    read = found.read(pa.chunked_array([cells]))
    assert found.type != "text"
    assert found.write(read.combine_chunks()).to_pylist() == cells


@pytest.mark.parametrize("word", ["unbekannt", "N.D.", "not available", "k. A.", "Unknown", ":"])
def test_words_for_missing_values_among_numbers(word: str) -> None:
    assert settled([*NUMBERS, word]).missing == (word,)


@pytest.mark.parametrize(
    ("cells", "meant"),
    [
        (["€38.5M", "€950.0K", "€1.5M"], [38.5e6, 950e3, 1.5e6]),
        (["7.4k", "669", "1.2M"], [7400, 669, 1.2e6]),
        (["26k", "71k"], [26, 71]),
    ],
)
def test_letters_for_powers_of_ten_count_where_they_differ(
    cells: list[str | None], meant: list[float]
) -> None:
    found = settled(cells)
    read = found.read(pa.chunked_array([cells]))
    assert read.to_pylist() == meant
    assert found.write(read.combine_chunks()).to_pylist() == cells


@pytest.mark.parametrize("form", ["{} b", "{} (±0.25)", "{} [1.5-2.75]", "{}g", '{}"', "{} *"])
def test_marks_and_units_of_all_cells(form: str) -> None:
    cells: list[str | None] = [form.format(cell) for cell in NUMBERS]
    found = settled(cells)
    assert found.read(pa.chunked_array([cells])).to_pylist() == list(map(float, NUMBERS))


@pytest.mark.parametrize("marks", [(" s", " d"), ("p", "e"), (" (kg)", " (lb)")])
def test_units_that_differ_are_not_marks(marks: tuple[str, str]) -> None:
    cells = [f"{20 + i}{marks[i % 3 > 0]}" for i in range(40)]
    detector = Detector("c")
    detector.add(pa.chunked_array([pa.array(cells)]))
    assert detector.settle().type == "text"


def test_intervals_may_stand_in_all_cells() -> None:
    cells = [f"{20 + i}.5 [{10 + i}.1-{30 + i}.2]" for i in range(40)]
    detector = Detector("c")
    detector.add(pa.chunked_array([pa.array(cells)]))
    assert detector.settle().type == "number"


@pytest.mark.parametrize(
    ("cells", "pattern"),
    [
        ([f"2021{m:02d}" for m in range(1, 13)], "%Y%m"),
        ([f"2021{m:02d}15" for m in range(1, 13)], "%Y%m%d"),
        ([f"2021{m:02d}" for m in range(1, 14)], ""),
        ([f"3021{m:02d}" for m in range(1, 13)], ""),
        (["202101", "202102"] * 9, ""),
        (["2h 45m", "19h", "45m"] * 9, "%Jh %mm%?"),
        (["2h 45m", "10h 5m"] * 9, "%Jh %mm"),
        (["17h44", "07h05"] * 9, "%Hh%M"),
        (["45m", "10m", "5m"] * 9, ""),
    ],
)
def test_months_and_durations_in_words(cells: list[str], pattern: str) -> None:
    detector = Detector("x")
    detector.add(pa.chunked_array([cells]))
    assert detector.settle().pattern == pattern


@pytest.mark.parametrize("sign", "~≈±")
def test_signs_that_all_numbers_have_are_written_before_new_ones(sign: str) -> None:
    detector = Detector("x")
    detector.add(pa.chunked_array([[f"{sign}{i * 7}" for i in range(1, 40)]]))
    found = detector.settle()
    assert (found.type, found.prefix, found.marked) == ("number", sign, False)
    assert found.write(pa.array([12.0])).to_pylist() == [f"{sign}12"]


def test_classes_that_begin_at_numbers_are_not_below_0() -> None:
    for cells in (["50-", "55-", "60-"] * 9, ["18+", "21+", "65+"] * 9):
        detector = Detector("age")
        detector.add(pa.chunked_array([cells]))
        assert detector.settle().type == "text"
    detector = Detector("paid")
    detector.add(pa.chunked_array([["50-", "55", "60-", "1"] * 9]))
    assert detector.settle().minus == "1-"
