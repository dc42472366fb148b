"""The layout of a text file shows in its first lines."""

from __future__ import annotations

import pytest

from twofold.data import dialect
from twofold.data.dialect import Dialect, Layout
from twofold.errors import DataError

ROWS = "".join(f"{i},{i * i % 7},w{i % 3}\n" for i in range(20))


def detect(text: str | bytes, **given: object) -> Dialect:
    content = text.encode() if isinstance(text, str) else text
    return dialect.detect(content, Layout(**given), "x.csv", True)  # type: ignore[arg-type]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "~", "^", ":"])
def test_delimiter_is_what_makes_lines_of_one_length(delimiter: str) -> None:
    text = ("a,b,c\n" + ROWS).replace(",", delimiter)
    assert detect(text).delimiter == delimiter


def test_commas_before_decimals_separate_nothing() -> None:
    assert detect("a;b\n" + "1,5;2,25\n" * 9).delimiter == ";"


@pytest.mark.parametrize(
    "encoding", ["cp1251", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_encoding_is_told_by_the_bytes(encoding: str) -> None:
    text = "straße,größe\n" + "Zoë,1\nAnna,2\n" * 9
    if encoding == "cp1251":
        text = "город,цена\n" + "Москва,1\nКазань,2\n" * 9
    found = detect(text.encode(encoding))
    assert text.encode(encoding).decode(found.encoding).lstrip("\ufeff") == text


@pytest.mark.parametrize(
    ("above", "skip"),
    [("", 0), ("# exported\n", 1), ("Report 2020\n\n", 2), ("Quarter,,\n", 1), ("sep=,\n", 1)],
)
def test_lines_above_the_header_are_left_out(above: str, skip: int) -> None:
    found = detect(above + "a,b,c\n" + ROWS)
    assert (found.skip, found.has_header) == (skip, True)


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("a,b,c\n" + ROWS, True),
        (ROWS, False),
        ("M,0.455,15\n" * 3 + "F,0.53,7\n" * 3, False),
        ("2001,2002,2003\n1,2,3\n4,5,6\n", True),
        ("city,land\nRome,IT\nParis,FR\nRome,IT\nBonn,DE\nBern,CH\n", True),
        ("p,x\n" * 4 + "e,x\n" * 4, False),
        (",x\n0,1.5\n1,2.5\n", True),
        ("land,2019,2020\n" + "US,1.5,70\nDE,2.5,80\n" * 3, True),
        ("land,1992,1994,1995\n" + "US,5,70,1\nDE,25,80,3\n" * 3, True),
        ("Ann,3,7\n" + "Bob,4,8\nEve,1,9\nDan,3,5\n", False),
        ("#id\tx\n" + "a\t1.5\nb\t2.5\n" * 3, True),
    ],
)
def test_a_header_is_unlike_the_rows(text: str, has_header: bool) -> None:
    found = detect(text)
    assert found.has_header is has_header
    assert has_header is not any("no header" in said for said in found.said)


def test_what_is_given_is_not_detected() -> None:
    found = detect("a;b\n1;2\n3;4\n", delimiter=",", encoding="latin-1", header=False)
    assert (found.delimiter, found.encoding, found.has_header) == (",", "latin-1", False)


def test_columns_without_a_header_are_numbered() -> None:
    assert dialect.named(["M", "7"], Dialect(has_header=False)) == ["column1", "column2"]
    assert dialect.named(["a", "b", "a"], Dialect()) == ["a", "b", "a.1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"PK\x03\x04xl", "a spreadsheet or an archive"),
        (b"<!DOCTYPE html>\n<html>", "page of HTML"),
        (b"PAR1\x15", "a Parquet file, and not text. Name it .parquet"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b'[{"a": 1}, {"a": 2}]', "is JSON. Name it .json"),
    ],
)
def test_files_that_are_no_rows_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        detect(content)


def test_units_below_the_header_are_left_out() -> None:
    assert detect("time,temp,wind\ns,degC,m/s\n" + ROWS.replace("w", "")).below == 1
    assert detect("time,temp,wind\nNA,NA,NA\n" + ROWS.replace("w", "")).below == 0
    assert detect("time,temp,word\n" + ROWS).below == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"x","y"\n' + '"1",2.5,a\n"2",3.5,b\n' * 3, ["", "x", "y"]),
        ("x,y\n" + "2.5,a,\n3.5,b,\n" * 3, ["x", "y", ""]),
    ],
)
def test_a_column_that_the_header_lacks_has_no_name(text: str, names: list[str]) -> None:
    found = detect(text)
    assert dialect.named(dialect.first_row(text, found), found) == names


def test_quotes_with_a_backslash_belong_to_the_cell() -> None:
    assert detect('a,b\n"say \\"hi\\", she",1\n' * 3).escape == "\\"
    assert detect('a,b\n"C:\\dir\\",1\n"say ""hi""",2\n' * 3).escape == ""


def test_a_last_row_that_begins_like_a_comment_is_a_row() -> None:
    found = detect("a,b,c\n" + ROWS)
    tail = (ROWS + '#N/A,"1, 2",w\n').encode()
    assert dialect.footer(tail, found, 3) == (0, 0)
    assert dialect.footer(tail + b"# 21 rows\n", found, 3) == (10, 1)


def test_words_in_a_column_are_not_separated_by_their_spaces() -> None:
    assert detect("full name\n" + "Ann Lee\nBob Ray\n" * 5).delimiter == ","


def test_cells_that_spaces_align_have_one_space_between_them() -> None:
    text = '  a    b\n 1.5   "x  y"\n12.5\t z\n'
    assert dialect.single_spaced(text) == 'a b\n1.5 "x  y"\n12.5 z\n'


def test_the_names_of_the_training_table_tell_a_header() -> None:
    unnamed = ("column1", "column2")
    assert not detect("Ann,3\n", names=unnamed).has_header
    assert not detect("name,3\n" + "Ann,4\n" * 5, names=unnamed).has_header
    assert detect("column1,column2\nAnn,3\n", names=unnamed).has_header
    assert detect("p,x\n" * 5 + "e,x\n" * 4, names=("x", "p")).has_header


QUOTED = {
    "'": "'a;b','c','d'\n" + "'x,1','it''s','2'\n" * 9,
    "' where needed": "a,b,c\n" + "'x,1',y,2\nz,y,2\n" * 9,
    " '": "a, b, c\n" + "1, 'y, z', 2\n" * 9,
    ' "': '"a", "b", "c"\n' + '1, "y, z", 2\n' * 9,
    '"': 'a,b,c\n1,"y, z",2\n' * 9,
    '" and apostrophes in text': "a,b,c\n" + "1,'tis,2\n1,rock 'n' roll,2\n" * 9,
    '" and one cell in apostrophes': "a,b,c\n" + "1,'so',2\n" + "1,so,2\n" * 9,
}


@pytest.mark.parametrize("quoting", QUOTED)
def test_cells_may_be_quoted_otherwise(quoting: str) -> None:
    found = detect(QUOTED[quoting])
    assert (found.quoting, found.delimiter) == (quoting[: 1 + quoting.startswith(" ")], ",")
    if found.quoting != '"':
        again = dialect.requoted(QUOTED[quoting], ",", found.quoting)
        assert detect(again).quoting == '"'
        assert {len(dialect.first_row(line, found)) for line in again.splitlines()} == {3}


@pytest.mark.parametrize(
    ("tail", "width", "n"),
    [
        (",,\n,,\n", 3, 2),
        ('"",,""\n, ,\n\n,,', 3, 3),
        (",,\n", 3, 0),
        (",\n" * 4, 2, 0),
        (",\n" * 5, 2, 5),
        ("1,,\n", 3, 0),
    ],
)
def test_lines_without_cells_end_a_table(tail: str, width: int, n: int) -> None:
    found = dialect.empty_end(f"1,2,3\n4,5,6\n{tail}".encode(), Dialect(), width)
    assert found == (len(tail) * bool(n), n)
