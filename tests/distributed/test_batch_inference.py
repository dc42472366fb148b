"""Rows are cut into tasks that hold each of them once, and folders are not overwritten."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from functools import partial
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
from twofold.errors import DataError, OptionError, OutputExistsError

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
        for first, table in source.chunks(*piece)
    ]
    assert [row for _, rows in found for row in rows] == list(np.arange(1200.0))
    assert [first for first, _ in found] == [int(rows[0]) for _, rows in found]


def test_rows_that_have_gone_are_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Files(folder, stream=True).open()
    batches = source.batches
    monkeypatch.setattr(source, "batches", lambda *given: (b[:-1] for b in batches(*given)))
    with pytest.raises(DataError, match="have 10 fewer rows than when they were counted"):
        list(source.chunks(600, 600, 64 * 10))
    with pytest.raises(DataError, match="have 20 fewer rows"):
        list(source.chunks())


class Inline:
    """What Ray offers, with tasks that are done at once; the driver ends after some of them.

    What is awaited is noted: the number of tasks, and of those on GPUs.
    """

    def __init__(self, n_tasks: float = np.inf, n_gpus: int = 0) -> None:
        self.n_tasks, self.n_done = n_tasks, 0
        self.results: dict[int, Any] = {}
        self.on_gpus: set[int] = set()
        self.awaited: set[tuple[int, int]] = set()
        self.resources = {"CPU": 1, "GPU": n_gpus}
        self.cluster_resources = self.available_resources = lambda: self.resources
        self.put, self.get = (lambda value: value), self.results.pop
        self.kill = self.cancel = lambda *_, **__: None

    def remote(self, **_: Any) -> Any:
        return lambda what: SimpleNamespace(remote=partial(self.start, what))

    def start(self, what: Any, *given: Any) -> Any:
        if isinstance(what, type):
            return SimpleNamespace(apply=SimpleNamespace(remote=partial(self.start, what.apply, 0)))
        if self.n_done >= self.n_tasks:
            raise SystemExit
        self.n_done += 1
        if what is batch_inference.GpuWorker.apply:
            self.on_gpus.add(self.n_done)
        self.results[self.n_done] = what(*given)
        return self.n_done

    def wait(self, refs: list[int], **_: Any) -> tuple[list[int], list[int]]:
        self.awaited.add((len(refs), len(self.on_gpus & set(refs))))
        return refs[:1], refs[1:]


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


@pytest.mark.parametrize(
    ("workers", "device", "n_gpus"), [(3, "auto", 2), (1, "cuda", 1), (3, "cpu", 0)]
)
def test_no_more_tasks_have_a_gpu_than_there_are(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    device: str,
    n_gpus: int,
) -> None:
    monkeypatch.setattr(files.OpenFiles, "chunk_rows", lambda _: 100)
    # What a GPU would do is done here.
    monkeypatch.setattr(batch_inference, "find_device", lambda _: "cpu")
    ray = Inline(n_gpus=2)
    monkeypatch.setattr(batch_inference.cluster, "connected", lambda *_: nullcontext(ray))
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(folder)
    batch_inference.write(
        ae, "encode", folder, tmp_path / "codes", address="auto", workers=workers, device=device
    )
    assert max(ray.awaited) == (workers, n_gpus)
    assert (len(ray.on_gpus) > n_gpus) == (n_gpus > 0)


def test_the_cluster_decides_which_gpu_it_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="device='cuda:1' must be one of auto, cpu, cuda"):
        batch_inference.write(
            Autoencoder(), "encode", folder, tmp_path / "codes", address="auto", device="cuda:1"
        )


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
