"""Rows are cut into tasks that hold each of them once, and folders are not overwritten."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold import Autoencoder, Files
from twofold.data import files
from twofold.distributed import batch_inference
from twofold.errors import DataError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


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


class Inline:
    """What Ray offers, with tasks that are done at once; the driver ends after some of them."""

    def __init__(self, n_tasks: float = np.inf) -> None:
        self.n_tasks, self.n_done = n_tasks, 0
        self.put = self.get = lambda value, **_: value

    def cluster_resources(self) -> dict[str, int]:
        return {"CPU": 1}

    def remote(self, **_: Any) -> Any:
        def declare(task: Any) -> Any:
            def run(*given: Any) -> Any:
                if self.n_done >= self.n_tasks:
                    raise SystemExit
                self.n_done += 1
                return task(*given)

            return SimpleNamespace(remote=run)

        return declare

    def wait(self, refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def cancel(self, ref: Any, **_: Any) -> None:
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_driver_that_died_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.OpenFiles, "chunk_rows", lambda _: 100)
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(folder)

    def write(output: str, ray: Inline) -> Any:
        monkeypatch.setattr(batch_inference.cluster, "connected", lambda *_: nullcontext(ray))
        return batch_inference.write(ae, "score", folder, tmp_path / output, address="auto")

    whole = write("whole", every := Inline())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # who is killed removes nothing
        with pytest.raises(SystemExit):
            write("codes", Inline(5))
    went_on = write("codes", rest := Inline())
    assert every.n_done - 5 <= rest.n_done < every.n_done
    assert contents(tmp_path / "codes") == contents(tmp_path / "whole")
    assert (went_on.n_rows, went_on.n_anomalies) == (whole.n_rows, whole.n_anomalies)
    assert went_on.anomaly_table() == whole.anomaly_table()
    assert {path.name for path in tmp_path.iterdir()} == {"rows", "whole", "codes"}


def test_an_address_is_refused_before_any_work(folder: Path) -> None:
    with pytest.raises(DataError, match="got the address s3://bucket/codes"):
        batch_inference.write(Autoencoder(), "encode", folder, "s3://bucket/codes", address="auto")


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
