"""One pass over rows on disk: figures of all of them, random ones kept, and work done ahead."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold import Files
from twofold.data import files
from twofold.errors import DataError
from twofold.schema import scan as scanning
from twofold.schema.scan import RowSampler, ScanResult, scan
from twofold.training.process_group import SingleProcess

LEVELS = ["pear", "apple", "fig", "apple"]


def scanned(path: Path, table: pa.Table, fraction: float = 0.25, seed: int = 3) -> ScanResult:
    pq.write_table(table, path / "rows.parquet", row_group_size=40)
    return scan(Files(path / "rows.parquet", stream=True).open(), seed, fraction, SingleProcess())


def numbered(n_rows: int = 200) -> pa.Table:
    return pa.table({"row": np.arange(float(n_rows)), "fruit": LEVELS * (n_rows // 4)})


def test_every_row_is_in_the_sample_or_held_out(tmp_path: Path) -> None:
    found = scanned(tmp_path, numbered())
    rows = np.concatenate([found.sample.values[:, 0], found.held_out.values[:, 0]])
    np.testing.assert_array_equal(np.sort(rows), np.arange(200.0))


def test_the_share_asked_for_is_held_out(tmp_path: Path) -> None:
    found = scanned(tmp_path, numbered())
    assert (found.held_out.n_rows, found.n_train) == (50, 150)


def test_figures_are_those_of_all_rows(tmp_path: Path) -> None:
    found = scanned(tmp_path, numbered()).statistics
    assert (found.n[0], found.low[0], found.high[0]) == (200, 0, 199)
    assert found.mean[0] == pytest.approx(99.5)
    assert found.std[0] == pytest.approx(np.arange(200.0).std())


def test_levels_are_sorted_and_counted(tmp_path: Path) -> None:
    found = scanned(tmp_path, numbered())
    assert found.sample.formats is not None
    assert found.sample.formats[1].levels == ("apple", "fig", "pear")
    assert found.statistics.counts[1].tolist() == [100, 50, 50, 0]


def test_a_row_keeps_its_level_when_levels_are_sorted(tmp_path: Path) -> None:
    sample = scanned(tmp_path, numbered()).sample
    assert sample.formats is not None
    found = [sample.formats[1].levels[int(code)] for code in sample.values[:, 1]]
    assert found == [LEVELS[int(row) % 4] for row in sample.values[:, 0]]


def test_an_infinite_cell_is_named_with_its_row(tmp_path: Path) -> None:
    cells = np.arange(200.0)
    cells[123] = np.inf
    with pytest.raises(DataError, match="123"):
        scanned(tmp_path, pa.table({"row": cells}))


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        scanned(tmp_path, numbered(0))


def test_a_row_is_held_out_whatever_batch_it_is_read_in() -> None:
    sampler = RowSampler.of(5, 100, 20, 30)
    apart = np.concatenate([sampler.numbers(0, 33), sampler.numbers(33, 67)])
    np.testing.assert_array_equal(apart, sampler.numbers(0, 100))


@pytest.mark.parametrize(("held_out", "sampled"), [(20, 30), (0, 100), (100, 0), (60, 60)])
def test_as_many_rows_are_drawn_as_are_asked_for(held_out: int, sampled: int) -> None:
    sampler = RowSampler.of(5, 100, held_out, sampled)
    numbers = sampler.numbers(0, 100)
    assert int((~sampler.trains(numbers)).sum()) == held_out
    assert int(sampler.in_sample(numbers).sum()) == min(sampled, 100 - held_out)


class Workers:
    """Workers that are threads of this process."""

    def __init__(self, size: int) -> None:
        self.size, self._held = size, list[Any](range(size))
        self._meeting = threading.Barrier(size)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._held[rank] = value
        self._meeting.wait(10)
        every = list(self._held)
        self._meeting.wait(10)
        return every

    def worker(self, rank: int) -> Any:
        return SimpleNamespace(
            rank=rank,
            size=self.size,
            broadcast=lambda value: self.exchange(rank, value)[0],
            gather=lambda value: (
                every if (every := self.exchange(rank, value)) and not rank else None
            ),
        )


@pytest.mark.parametrize("size", [2, 5])
def test_workers_share_a_pass_and_find_what_one_finds(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    x[::7] = np.nan
    texts = [f"level {i // 50}" for i in range(600)]  # later parts have others than the first
    cells = pa.array(x, from_pandas=True)
    table = pa.table({"x": cells, "t": texts, "n": rng.integers(9, size=600)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=40)
    source = Files(tmp_path / "rows.parquet", stream=True).open()
    one = scan(source, 3, 0.1, SingleProcess())
    read: list[int] = []
    batches = files.OpenFiles.batches
    usual = scanning._usual(source, 3)
    monkeypatch.setattr(scanning, "_usual", lambda *_: usual)
    monkeypatch.setattr(
        files.OpenFiles, "batches", lambda s, p, *a: (read.append(p.at), batches(s, p, *a))[1]
    )
    group = Workers(size)
    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(lambda rank: scan(source, 3, 0.1, group.worker(rank)), range(size)))
    assert sorted(read) == list(range(15))  # each part once, by one of them
    for each in found:
        assert each.n_train == one.n_train
        for ours, theirs in ((each.sample, one.sample), (each.held_out, one.held_out)):
            np.testing.assert_array_equal(ours.values, theirs.values)
            assert ours.formats == theirs.formats
        for name in ("n", "mean", "std", "low", "high", "only_01"):
            ours, theirs = (getattr(at, name)[[0, 2]] for at in (each.statistics, one.statistics))
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        for i, counts in one.statistics.counts.items():
            np.testing.assert_array_equal(each.statistics.counts[i], counts)


def test_what_one_worker_finds_wrong_is_raised_by_all(tmp_path: Path) -> None:
    cells = np.ones(100)
    cells[95] = np.inf
    pq.write_table(pa.table({"x": cells}), tmp_path / "rows.parquet", row_group_size=20)
    source, group = Files(tmp_path / "rows.parquet", stream=True).open(), Workers(2)

    def attempt(rank: int) -> str:
        with pytest.raises(DataError) as caught:
            scan(source, 0, 0.0, group.worker(rank))
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(attempt, range(2))
    assert first == second
    assert "'x' holds infinity in row 95" in first
