"""Text files as people have them are read, and written again as they were."""

from __future__ import annotations

import bz2
import gzip
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twofold import Autoencoder, Files
from twofold.data import files, notation, output, sources
from twofold.errors import DataError, DetectedWarning

# Two epochs learn little, and are not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
N = 40
RNG = np.random.default_rng(0)
NUMBERS = RNG.gamma(2, 800, N).round(2).tolist()
DAYS = [date(2019, 1, 1) + timedelta(days=int(d)) for d in RNG.integers(0, 900, N)]
COLUMNS: dict[str, list[str]] = {
    "number": [f"{x:.2f}" for x in NUMBERS],
    "whole": [str(int(x)) for x in NUMBERS],
    "comma": [f"{x:.1f}".replace(".", ",") for x in NUMBERS],
    "dollars": [f"${x:,.2f}" for x in NUMBERS],
    "euros": [f"{x:,.2f} €".translate(str.maketrans(",.", ".,")) for x in NUMBERS],
    "percent": [f"{x / 100:.1f}%" for x in NUMBERS],
    "codes": [f"{int(x) % 9:04d}" for x in NUMBERS],
    "telephones": [f"+4930{int(x) % 7:06d}" for x in NUMBERS],
    "long": [f"8949{int(x):016d}" for x in NUMBERS],
    "part": [("1e5", "2e7", "3E2")[i % 3] for i in range(N)],
    "flag": [("TRUE", "FALSE")[i % 2] for i in range(N)],
    "text flag": [("true", "false", "maybe")[i % 3] for i in range(N)],
    "land": [("NA", "US", "DE")[i % 3] for i in range(N)],
    "clock": [("13:08", "07:30")[i % 2] for i in range(N)],
    "day": [d.isoformat() for d in DAYS],
    "american": [d.strftime("%m/%d/%Y") for d in DAYS],
    "german": [d.strftime("%d.%m.%Y") for d in DAYS],
    "zoned": [f"{d.isoformat()}T01:00:00+0{1 + i % 2}:00" for i, d in enumerate(DAYS)],
    "quoted": [('say "hi"', "two\nlines", "a,b;c\td|e", "größe")[i % 4] for i in range(N)],
    "dash": ["-" if i % 5 == 0 else str(i) for i in range(N)],
    "none": ["" for _ in range(N)],
}


def written(
    path: Path,
    columns: dict[str, list[str]],
    delimiter: str = ",",
    encoding: str = "utf-8",
    end: str = "\n",
) -> Path:
    def quoted(cell: str) -> str:
        special = any(letter in cell for letter in f'{delimiter}"\r\n')
        return '"' + cell.replace('"', '""') + '"' if special else cell

    lines = [list(columns), *zip(*columns.values(), strict=True)]
    text = "".join(delimiter.join(map(quoted, line)) + end for line in lines)
    path.write_bytes(text.encode(encoding))
    return path


def as_written(path: Path, **given: Any) -> dict[str, list[str]]:
    table = Files(path, **given).open(stream=False, as_written=True)
    cells = {name: table.column(name).to_pylist() for name in table.column_names}
    return {name: ["" if c is None else c for c in column] for name, column in cells.items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_cell_is_there_in_every_dialect(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    path = written(tmp_path / "x.csv", COLUMNS, delimiter, encoding)
    assert as_written(path) == COLUMNS
    plain = written(tmp_path / "y.csv", COLUMNS)
    assert files.load(path).equals(files.load(plain))


def test_a_file_is_written_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", COLUMNS, ";")
    output.write(Files(path).open(stream=False, as_written=True), tmp_path / "y.csv")
    assert (tmp_path / "y.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_files_are_read(tmp_path: Path, pack: Any) -> None:
    path = written(tmp_path / "x.csv", COLUMNS)
    packed = tmp_path / f"x.csv.{'gz' if pack is gzip.compress else 'bz2'}"
    packed.write_bytes(pack(path.read_bytes()))
    assert files.load(packed).equals(files.load(path))


def test_rows_do_not_depend_on_files_and_parts(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", COLUMNS)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(4):
        part = {name: cells[i * 10 : i * 10 + 10] for name, cells in COLUMNS.items()}
        written(folder / f"{i}.csv", part, ";,"[i % 2])
    whole = files.load(path)
    assert files.load(folder).cast(whole.schema).equals(whole)
    streamed = Files(path, stream=True).open()
    assert streamed.load().equals(whole)


def test_line_of_another_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "1.0,2.5\n" * 60 + "1.0\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 62 has 1 cells and the header 2: '1.0'"):
        files.load(tmp_path / "x.csv")


def test_file_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("M,0.455,15\nF,0.53,7\nI,0.44,9\n" * 9, encoding="utf-8")
    with pytest.warns(DetectedWarning, match="seems to have no header"):
        table = files.load(tmp_path / "x.csv")
    assert table.column_names == ["column1", "column2", "column3"]
    assert table.num_rows == 27
    assert Files(tmp_path / "x.csv", header=False).open(stream=False).num_rows == 27
    assert Files(tmp_path / "x.csv", header=True).open(stream=False).num_rows == 26


def test_json_lines_and_arrow_files_are_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", None]})
    lines = '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n{}\n'
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    with (
        pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as w,
    ):
        w.write_table(table)
    assert files.load(tmp_path / "x.jsonl").equals(table)
    assert files.load(tmp_path / "x.arrow").equals(table)


def test_column_that_names_the_rows_is_kept_and_not_learnt(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", {k: COLUMNS[k] for k in ("codes", "number", "comma")}, ";")
    ae = Autoencoder(n_components=1, epochs=2, random_state=0)
    with np.errstate(all="ignore"):
        ae.fit(Files(path, id="codes"))
    assert ae.schema_.id_column == "codes"
    assert ae.schema_.columns[0].kind == "ignored"
    with pytest.raises(DataError, match="no column 'nobody' to name the rows by"):
        Files(path, id="nobody").open()


CELLS = st.sampled_from(sorted(COLUMNS))


@given(
    names=st.lists(CELLS, min_size=2, max_size=5, unique=True),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
    order=st.permutations(range(N)),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_cells_and_meanings_survive_any_dialect_and_order(
    tmp_path: Path, names: list[str], delimiter: str, encoding: str, end: str, order: list[int]
) -> None:
    columns = {name: [COLUMNS[name][i] for i in order] for name in names}
    cells = {n: [c.replace("\n", " ") for c in column] for n, column in columns.items()}
    path = written(tmp_path / "x.csv", cells, delimiter, encoding, end)
    assert as_written(path, header=True) == cells
    table = Files(path, header=True).open(stream=False)
    plain = written(tmp_path / "y.csv", {n: [COLUMNS[n][i] for i in range(N)] for n in names})
    expected = Files(plain, header=True).open(stream=False)
    assert table.schema.types == expected.schema.types
    read = notation.read_table(Files(path, header=True).open(stream=False, as_written=True))
    assert read.equals(table)
    assert sources.read(table).n_rows == N


def test_observed_cells_come_back_as_they_were(tmp_path: Path) -> None:
    names = ("codes", "euros", "german", "flag", "land", "long", "zoned", "clock", "number")
    columns = {name: list(COLUMNS[name]) for name in names}
    for i, name in enumerate(names):
        columns[name][i + 3] = ""
    path = written(tmp_path / "x.csv", columns, ";", "cp1252")
    ae = Autoencoder(n_components=2, epochs=2, random_state=0, kinds={"long": "ignored"})
    ae.fit(str(path))
    rows = Files(path).open(list(columns), False, ae.schema_.training_formats, as_written=True)
    output.write(ae.impute(rows), tmp_path / "y.csv")
    after = as_written(tmp_path / "y.csv")
    for name in names:
        pairs = zip(columns[name], after[name], strict=True)
        assert all(new == old or (old == "" and (new or name == "long")) for old, new in pairs)
    filled = after["german"][names.index("german") + 3]
    assert notation.Notation("time", "date32[day]", pattern="%d.%m.%Y").matches(
        pa.array([filled])
    ) == pa.array([True])
    shuffled = {name: cells[::-1] for name, cells in columns.items()}
    other = written(tmp_path / "z.csv", shuffled, ",", "utf-8")
    np.testing.assert_allclose(
        ae.score_samples(str(other))[::-1], ae.score_samples(str(path)), rtol=1e-5
    )


def test_a_messy_file_needs_no_option(tmp_path: Path) -> None:
    columns = {
        "kunde": [f"K{i:04d}" for i in range(N)],
        "größe": COLUMNS["comma"],
        "tag": COLUMNS["german"],
        "preis": COLUMNS["euros"],
    }
    path = written(tmp_path / "x.csv", columns, ";", "cp1252", "\r\n")
    ae = Autoencoder(n_components=1, epochs=2, random_state=0).fit(str(path))
    assert [column.kind for column in ae.schema_.columns] == ["ignored", "real", "time", "real"]
    assert ae.schema_.id_column == "kunde"
    said = ae.schema_.summary()
    assert len(said.splitlines()) == 5
    for part in ("semicolon", "encoding cp1252", "decimal ','", "%d.%m.%Y", "named by 'kunde'"):
        assert part in said


def test_notes_below_the_rows_are_left_out_and_reported(tmp_path: Path) -> None:
    rows = "".join(f"{name},{i % 7},{i % 5}.5\n" for i, name in enumerate("abc" * 20))
    path = tmp_path / "x.csv"
    path.write_text(f"place,a,b\n{rows}\n# counted twice\nSource: the office\n")
    found = files.load(path)
    assert (found.num_rows, found.column("a").type) == (60, pa.int64())
    said = found.schema.metadata[b"twofold.understood"].decode()
    assert "2 lines below the rows left out" in said


def test_a_row_that_was_cut_off_is_not_a_note(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("place,a,b\n" + "x y,1,2\n" * 20 + "New York")
    with pytest.raises(DataError, match="line 22 has 1 cells"):
        files.load(path)


@pytest.mark.parametrize(
    ("cell", "value", "again"),
    [
        ("(1,204.50)", -1204.5, "(1,204.50)"),
        ("$(340.00)", -340.0, "($340.00)"),
        ("12.50-", -12.5, "12.50-"),
    ],
)
def test_numbers_below_zero_as_accountants_write_them(
    tmp_path: Path, cell: str, value: float, again: str
) -> None:
    plain = cell.strip("()-").replace("$(", "$")
    path = tmp_path / "x.csv"
    path.write_text("x,y\n" + f'"{plain}",1\n' * 20 + f'"{cell}",2\n')
    column = files.load(path).schema.field("x")
    found = files.load(path).column("x")
    assert found[20].as_py() == value
    written = notation.of_field(column)
    assert written is not None
    assert written.write(found.slice(20)).to_pylist() == [again]


@pytest.mark.parametrize(
    "cell", ["2019-01-04T09:21:49+02:00", "2019-01-04T09:21:49", "2019-01-04 09:21", "5.817e-19"]
)
def test_new_cells_are_written_in_the_style_of_the_column(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("x,y\n" + f"{cell},1\n" * 20)
    table = files.load(path)
    written = notation.of_field(table.schema.field("x"))
    assert written is not None
    assert set(written.write(table.column("x").combine_chunks()).to_pylist()) == {cell}


def test_a_point_is_between_thousands_if_other_columns_have_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("price;n\n" + "".join(f"{i},5;{i}.{100 + i}\n" for i in range(1, 40)))
    assert files.load(path).column("n").to_pylist()[:2] == [1101, 2102]


def test_cells_with_escaped_quotes_and_line_breaks_are_whole(tmp_path: Path) -> None:
    cells = ['say "hi"', 'two\nlines, "x"', "plain"]
    lines = ['"' + c.replace('"', '\\"') + f'",{i}' for i, c in enumerate(cells * 20)]
    (tmp_path / "a.csv").write_text("text,n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for stream in (False, True):
        rows = Files(tmp_path / "a.csv", stream=stream).open()
        found = (
            pa.Table.from_batches([b for _, t in rows.chunks() for b in t.to_batches()])
            if stream
            else rows
        )
        assert found.column("text").to_pylist() == cells * 20


def test_a_file_in_apostrophes_has_its_cells_and_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("'a';'b'\n" + "'1;2';'it''s'\n" * 9, encoding="utf-8")
    rows = Files(path).open()
    assert rows.to_pylist() == [{"a": "1;2", "b": "it's"}] * 9
    path.write_text(path.read_text(encoding="utf-8") + "'1;2'\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 11 has 1 cells and the header 2"):
        Files(path).open()


@pytest.mark.parametrize("stream", [False, True])
def test_empty_lines_that_a_spreadsheet_leaves_are_no_rows(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n" + "1,2,3\n" * 9 + ",,\n" * 20_000, encoding="utf-8")
    rows = Files(path, stream=stream).open()
    assert len(rows) == 9
    assert notation.understood(rows.schema) == "20,000 empty lines below the rows left out"


def loaded(path: Path, text: str) -> tuple[Any, str]:
    path.write_text(text, encoding="utf-8")
    found = files.load(path)
    return found, found.schema.metadata[b"twofold.understood"].decode()


BODY = "".join(f"p{i},{i % 7},{i % 5}.5\n" for i in range(40))


@pytest.mark.parametrize("sep", [",", ";"])
@pytest.mark.parametrize(
    "below",
    [
        "\nDisclaimer:\nMade by hand.\n",
        "\nr = revised\nSource: Office, 2022\n(1) Provisional.\n",
        "_____\nThe office, in May\n",
        "{0}{0}\nNote: some are guessed{0}{0}\n",
    ],
)
def test_texts_below_an_empty_line_or_a_rule_are_no_rows(
    tmp_path: Path, sep: str, below: str
) -> None:
    found, said = loaded(
        tmp_path / "x.csv", f"place,a,b\n{BODY}".replace(",", sep) + below.format(sep)
    )
    assert found.num_rows == 40
    assert "below the rows left out" in said


def test_numbers_below_an_empty_line_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 43 has 2 cells"):
        loaded(tmp_path / "x.csv", f"place,a,b\n{BODY}\n4.5,2\n")


@pytest.mark.parametrize(
    "above", ["Account 17;;\nBalance of 31/12;1 234,56;\n\n", "Office;2021\n;;\n"]
)
def test_titles_above_an_empty_line_are_left_out(tmp_path: Path, above: str) -> None:
    found, said = loaded(tmp_path / "x.csv", above + f"place,a,b\n{BODY}".replace(",", ";"))
    assert (found.column_names, found.num_rows) == (["place", "a", "b"], 40)
    assert f"{above.count(chr(10))} lines above the header left out" in said


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (",Q1,\nShop,Sales,Cost\n", ["Shop", "Q1 Sales", "Q1 Cost"]),
        ("place,a,b\n---,:-:,---\n", ["place", "a", "b"]),
        ("place,a,b\nWhere?,How many?,How\n{1},{2},{3}\n", ["place", "a", "b"]),
    ],
)
def test_further_lines_of_names_are_joined_or_left_out(
    tmp_path: Path, head: str, names: list[str]
) -> None:
    found, said = loaded(tmp_path / "x.csv", head + BODY)
    assert (found.column_names, found.num_rows) == (names, 40)
    assert "of units or names below the header" in said


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_again_is_no_row(tmp_path: Path, stream: bool, mark: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"place,a,b\n{BODY}{mark}place,a,b\n{BODY}", encoding="utf-8")
    found = Files(path, stream=stream).open()
    assert len(found) == 80
    assert pa.types.is_integer(found.schema.field("a").type)
    said = found.schema.metadata[b"twofold.understood"].decode()
    assert "lines that repeat the header left out" in said
    path.write_text(f"place,a,b\n{BODY}place,a,b\n{BODY}7,5\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 83 has 2 cells"):
        len(Files(path, stream=stream).open())


def test_years_above_grouped_numbers_are_names(tmp_path: Path) -> None:
    rows = "".join(f'land {i},"{i + 3},004","12,{100 + i}"\n' for i in range(30))
    found, _ = loaded(tmp_path / "x.csv", f"land,2019,2020\n{rows}")
    assert found.column_names == ["land", "2019", "2020"]


def test_a_quoted_note_below_an_empty_line_is_no_row(tmp_path: Path) -> None:
    found, said = loaded(tmp_path / "x.csv", f'place,a,b\n{BODY}\n"The office, May, 2021"\n')
    assert (found.num_rows, "1 line below the rows left out" in said) == (40, True)


def test_a_table_above_another_one_is_no_title(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 12 has 1 cells|line 12 has 3 cells|has 3 cells"):
        loaded(tmp_path / "x.csv", "a,b\n" + "1,2\n" * 9 + "\nplace,a,b\n" + BODY)
