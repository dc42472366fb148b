"""Folders in folders, tables that grew, tables of other formats, and files that change."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from twofold import Autoencoder, Files
from twofold.data import files, streams
from twofold.data.discovery import Place
from twofold.errors import DataError, DetectedWarning

ROWS = pa.table({"a": [1.0, 2.0], "b": ["x", "y"]})


def write(path: Path, table: Any = ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pq.write_table if path.suffix == ".parquet" else pa.csv.write_csv)(table, path)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("source", ["", "*/*/*", "year=*/"])
def test_names_of_folders_are_columns(
    suffix: str, stream: bool, source: str, tmp_path: Path
) -> None:
    for year in (2023, 2024):
        for place in ("a%20b", "__HIVE_DEFAULT_PARTITION__"):
            write(tmp_path / f"year={year}" / f"place={place}" / f"rows.{suffix}")
    pattern = {"*/*/*": f"*/*/*.{suffix}", "year=*/": f"year=*/place=*/rows.{suffix}"}
    found = Files(tmp_path / pattern.get(source, ""), stream=stream).open()
    table = found.load() if stream else found
    assert table.column_names == ["a", "b", "year", "place"]
    assert table["year"].to_pylist() == [2023] * 4 + [2024] * 4
    assert table["place"].to_pylist() == [None, None, "a b", "a b"] * 2
    if stream:
        assert pa.Table.from_batches(
            [b for part in found.parts for b in found.batches(part, 1)]
        ).equals(table)


def test_a_name_that_is_no_number_makes_all_of_them_text(tmp_path: Path) -> None:
    for key in ("1", "two"):
        write(tmp_path / f"key={key}" / "rows.parquet")
    assert files.load(tmp_path)["key"].to_pylist() == ["1", "1", "two", "two"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_column_that_came_later_is_missing_before(
    suffix: str, stream: bool, tmp_path: Path
) -> None:
    write(tmp_path / f"1.{suffix}")
    write(tmp_path / f"2.{suffix}", ROWS.append_column("c", pa.array([5.5, 6.5])))
    with pytest.warns(DetectedWarning, match=r"1 of 2 files have no column 'c'.*1\."):
        found = Files(tmp_path, stream=stream).open()
    table = found.load() if stream else found
    assert table["c"].to_pylist() == [None, None, 5.5, 6.5]
    assert table["b"].to_pylist() == ["x", "y"] * 2


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("_delta_log/0.txt", r"Delta table.*deltalake\.DeltaTable\(.*\)\.to_pyarrow_dataset\(\)"),
        ("metadata/v1.metadata.json", r"Iceberg table.*pass the table in its place"),
    ],
)
def test_files_of_other_tables_are_not_taken_for_their_rows(
    name: str, remedy: str, tmp_path: Path
) -> None:
    write(tmp_path / "part-0.parquet")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=remedy):
        Files(tmp_path).open()


def delta(folder: Path, *, partition_by: list[str] | None = None) -> Any:
    """Write a Delta table of ten rows, of which the last four are deleted: 6 are left."""
    deltalake = pytest.importorskip("deltalake")
    rows = pa.table({"a": np.arange(10.0), "b": np.arange(10) % 3, "part": ["x", "y z"] * 5})
    deltalake.write_deltalake(folder, rows, partition_by=partition_by)
    table = deltalake.DeltaTable(folder)
    table.delete("a >= 6")
    return table


@pytest.mark.parametrize("partition_by", [None, ["part"]])
@pytest.mark.parametrize("stream", [True, False])
def test_deleted_rows_of_a_delta_table_are_none(
    stream: bool, partition_by: list[str] | None, tmp_path: Path
) -> None:
    table = delta(tmp_path, partition_by=partition_by)
    found = Files(tmp_path, stream=stream).open()
    rows = found.load() if stream else found
    assert sorted(rows["a"].to_pylist()) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert {*zip(rows["a"].to_pylist(), rows["part"].to_pylist(), strict=True)} == {
        (float(i), "y z" if i % 2 else "x") for i in range(6)
    }
    assert streams.reader_of(table).read_all().num_rows == 6  # the object of its library, too


def test_a_delta_table_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    table = delta(tmp_path)
    Path(table.file_uris()[0].removeprefix("file://")).unlink()
    with pytest.raises(DataError, match=r"log names 1 file\(s\) that are not there"):
        Files(tmp_path).open()


def test_rows_that_a_delta_table_deletes_within_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = delta(tmp_path)
    asked = table.protocol()._replace(min_reader_version=3, reader_features=["deletionVectors"])
    monkeypatch.setattr(type(table), "protocol", lambda self: asked)
    with pytest.raises(DataError, match=r"to_pyarrow_dataset.*uses: deletionVectors"):
        Files(tmp_path).open()


def test_a_delta_table_without_its_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta(tmp_path)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(DataError, match=r"deleted.*twofold\[delta\]"):
        Files(tmp_path).open()


def test_a_list_of_paths_is_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        table = pa.table({name: rng.normal(size=20) for name in "ab"})
        write(tmp_path / f"{i}.parquet", table)
    paths = [str(tmp_path / "2.parquet"), tmp_path / "0.parquet"]
    found = files.load(paths)
    assert found.equals(pa.concat_tables([pq.read_table(path) for path in paths]))
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(paths)
    assert ae.transform(paths).shape == (40, 1)


def place_of(path: Path) -> Place:
    local = pa.fs.LocalFileSystem()
    return Place(local, local.get_file_info(str(path)), str(path))


@pytest.mark.parametrize("size", [100, 500_000])
def test_a_touched_file_is_what_it_was(size: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"x" * size)
    place = place_of(path)
    os.utime(path, (0, 0))
    with place.open() as stream:
        assert len(stream.read()) == size


@pytest.mark.parametrize("size", [100, 500_000])
def test_a_file_of_the_same_size_and_time_is_another_one(size: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"x" * size)
    place, before = place_of(path), path.stat()
    path.write_bytes(b"y" * size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"rows\.csv has changed"):
        place.open()


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xff.csv")
    with pytest.raises(DataError, match=r"Expected a name that is UTF-8.*Rename the file"):
        files.load(path)


def test_a_column_whose_name_begins_with_a_line_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "_day=3").mkdir()
    write(tmp_path / "_day=3" / "part.parquet")
    assert Files(tmp_path).open()["_day"].to_pylist() == [3, 3]
