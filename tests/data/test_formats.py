"""Files are read part by part, and are what they were when they were first seen."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from twofold.data import files
from twofold.data.formats import ArrayFile, ParquetFile, Place, TableFile, unpack
from twofold.errors import DataError

TABLE = pa.table({"a": list(range(100)), "b": [float(i) for i in range(100)]})


def place(path: Path) -> Place:
    local = pa.fs.LocalFileSystem()
    return Place(local, local.get_file_info(str(path)), str(path))


def rows_of(file: Any, schema: Any = None) -> list[Any]:
    return [b for part in file.parts(0) for b in file.batches(part, schema, 30)]


def test_row_groups_are_parts(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=40)
    file = ParquetFile(place(tmp_path / "x.parquet"))
    assert [part.n_rows for part in file.parts(0)] == [40, 40, 20]
    assert pa.Table.from_batches(rows_of(file, TABLE.schema)).equals(TABLE)


def test_an_array_is_read_in_its_own_type(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.int16).reshape(20, 2)
    np.save(tmp_path / "x.npy", rows)
    file = ArrayFile(place(tmp_path / "x.npy"))
    np.testing.assert_array_equal(np.concatenate(rows_of(file)), rows)


@pytest.mark.parametrize("packed", [False, True])
def test_lines_of_json_are_one_part(tmp_path: Path, packed: bool) -> None:
    text = "".join(f'{{"a": {i}, "b": {i}.0}}\n' for i in range(100)).encode()
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(text) if packed else text)
    file = TableFile(place(path))
    assert len(file.parts(0)) == 1
    assert pa.Table.from_batches(rows_of(file, TABLE.schema)).equals(TABLE)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "x.parquet")
    file = ParquetFile(place(tmp_path / "x.parquet"))
    (tmp_path / "x.parquet").write_bytes(b"other")
    with pytest.raises(DataError, match="has changed since its rows were counted"):
        rows_of(file, TABLE.schema)


@pytest.mark.parametrize("codec", ["zstd", "bz2", "lz4"])
def test_compressed_bytes_are_unpacked(codec: str) -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(b"a,b\n1,2\n")
    suffix = {"zstd": ".zst"}.get(codec, f".{codec}")
    assert unpack(bytes(sink.getvalue()), suffix) == b"a,b\n1,2\n"
    assert unpack(b"plain", "") == b"plain"


@pytest.mark.parametrize("form", ["list", "lines"])
def test_json_is_a_list_of_objects_or_one_in_each_line(tmp_path: Path, form: str) -> None:
    rows = [{"n": i, "text": "a,b"} for i in range(3)]
    lines = "\n".join(map(json.dumps, rows))
    text = json.dumps(rows, indent=1) if form == "list" else lines
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert files.load(tmp_path / "a.json").to_pylist() == rows


def test_a_list_of_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(DataError, match="holds a list, but not one of objects"):
        files.load(tmp_path / "a.json")


FLAT = [{"n": i, "who.name": f"u{i}", "tags": '["a"]' if i else "[]"} for i in range(3)]
NESTED = [{"n": i, "who": {"name": f"u{i}"}, "tags": ["a"] * (i > 0)} for i in range(3)]


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        (NESTED, FLAT),
        ({"status": "ok", "count": 3, "data": NESTED}, FLAT),
        ({"a": [1, 2], "b": ["x", "y"]}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}, [{"a": 1, "b": 3}, {"a": 2, "b": 4}]),
    ],
)
def test_json_of_other_forms_becomes_rows(tmp_path: Path, document: Any, rows: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    assert files.load(tmp_path / "a.json").to_pylist() == rows


def zipped(*names: str) -> Callable[[bytes], bytes]:
    def pack(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(name, content)
        return stream.getvalue()

    return pack


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("xz", lzma.compress), ("zip", zipped("rows.csv")), ("zip", zipped("a/", "__MACOSX/x", "b"))],
)
def test_packed_text_is_read(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / f"x.csv.{suffix}"
    path.write_bytes(pack(b"a,b\n1,2\n3,4\n"))
    assert files.load(path).to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def locked(content: bytes) -> bytes:
    """Return an archive whose file says that it needs a password."""
    archive = bytearray(zipped("a.csv")(content))
    for flags in (6, archive.index(b"PK\1\2") + 8):
        archive[flags] |= 1
    return bytes(archive)


@pytest.mark.parametrize(
    ("suffix", "pack", "said"),
    [
        ("zip", zipped("a.csv", "b.csv"), "as ZIP: Expected one file in it, got 2. Unpack it"),
        ("zip", locked, "as ZIP: Expected a file without a password. Unpack it"),
        ("zip", bytes, "as ZIP: File is not a zip file"),
        ("xz", bytes, "as XZ: Input format not supported"),
        ("xz", lambda content: lzma.compress(content)[:-20], "as XZ: Compressed data ended"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(
    suffix: str, pack: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.csv.{suffix}"
    path.write_bytes(pack(b"a,b\n1,2\n"))
    with pytest.raises(DataError, match=f"{path.name} cannot be read {said}"):
        files.load(path)
