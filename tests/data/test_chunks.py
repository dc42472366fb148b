"""Rows that are taken by number out of files come as out of a table in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold import Files
from twofold.data import chunks
from twofold.data.files import OpenFiles

TABLE = pa.table({"a": np.arange(50), "b": [f"t{i}" for i in range(50)]})


@pytest.mark.parametrize("numbers", [[3], [49, 0, 17, 16], [20, 20, 5]])
def test_rows_of_files_are_taken_by_number(
    numbers: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=7)
    source = Files(tmp_path / "rows.parquet", stream=True).open()
    read: list[int] = []
    batches = OpenFiles.batches
    monkeypatch.setattr(
        OpenFiles, "batches", lambda s, p, *a: (read.append(p.at), batches(s, p, *a))[1]
    )
    at = np.array(numbers)
    assert chunks.taken(source, at).equals(TABLE.take(at))
    assert sorted(read) == sorted({number // 7 for number in numbers})


def test_rows_of_arrays_are_taken_by_number(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    np.save(tmp_path / "rows.npy", rows)
    at = np.array([4, 29, 0])
    source = Files(tmp_path / "rows.npy", stream=True).open()
    np.testing.assert_array_equal(chunks.taken(source, at), rows[at])
    np.testing.assert_array_equal(chunks.taken(rows, at), rows[at])


def test_rows_of_text_that_arrow_keeps_as_views_are_taken() -> None:
    table = pa.table({"s": pa.array(["a", "b", "c"]).cast(pa.string_view())})
    assert chunks.taken(table, np.array([2, 0])).to_pylist() == [{"s": "c"}, {"s": "a"}]
