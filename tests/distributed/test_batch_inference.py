"""Rows are cut into tasks that hold each of them once, and folders are not overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold import Files
from twofold.data import files
from twofold.distributed import batch_inference
from twofold.errors import DataError, OutputExistsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of 300 rows, in row groups of 70."""
    (tmp_path / "rows").mkdir()
    for i in range(4):
        table = pa.table({"x": np.arange(300.0) + 300 * i, "y": np.ones(300)})
        pq.write_table(table, tmp_path / "rows" / f"{i}.parquet", row_group_size=70)
    return tmp_path / "rows"


@pytest.mark.parametrize("most", [7, 64, 500])
@pytest.mark.parametrize("n_tasks", [1, 7, 64])
def test_tasks_hold_every_row_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most: int, n_tasks: int
) -> None:
    monkeypatch.setattr(batch_inference, "_LEAST_TASKS", n_tasks)
    monkeypatch.setattr(files.OpenFiles, "chunk_rows", lambda _: most)
    source = Files(folder, stream=True).open()
    found = [
        (first, table.column("x").to_pylist())
        for piece in batch_inference._pieces(source)
        for first, _, table in batch_inference._chunks(source, piece)
    ]
    assert [row for _, rows in found for row in rows] == list(np.arange(1200.0))
    assert [first for first, _ in found] == [int(rows[0]) for _, rows in found]


def test_a_name_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a cluster writes a folder"):
        batch_inference.require_free(tmp_path / "codes.parquet", False)


def test_an_existing_folder_needs_force(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").touch()
    with pytest.raises(OutputExistsError, match="already exists"):
        batch_inference.require_free(tmp_path, False)
    batch_inference.require_free(tmp_path, True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(OutputExistsError, match="left alone"):
        batch_inference.require_free(tmp_path, True)
