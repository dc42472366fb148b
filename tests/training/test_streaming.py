"""Rows that stay on disk: each once a pass, in an order that a generator settles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from twofold import Autoencoder, Files
from twofold.estimators import validation
from twofold.schema.schema import Schema
from twofold.training.streaming import Stream

CPU = torch.device("cpu")


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """200 numbered rows in 5 parts, a quarter of them held out."""
    table = pa.table({"row": np.arange(200.0), "other": np.arange(200.0) % 7})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=40)
    return Stream(Files(tmp_path / "rows.parquet", stream=True).open(), 3, 0.25)


def passed(stream: Stream, seed: int, skip: int = 0) -> list[list[float]]:
    """The numbers of the rows in each batch of 32, as the network sees them."""
    rows = stream.draw(Schema.infer(stream.sample), torch.float64, CPU).rows
    room = torch.empty(32, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return [batch[:, 0].tolist() for batch in rows.batches(32, generator, lambda n: room[:n], skip)]


def test_every_row_that_trains_comes_once(stream: Stream) -> None:
    found = np.sort(np.concatenate(passed(stream, 0)))
    schema = Schema.infer(stream.sample)
    x = stream.draw(schema, torch.float64, CPU).x[:][:, 0]
    np.testing.assert_array_equal(found, np.sort(x.numpy()))


def test_the_last_batch_holds_the_rows_that_are_left(stream: Stream) -> None:
    assert [len(batch) for batch in passed(stream, 0)] == [32, 32, 32, 32, 22]


def test_the_generator_settles_the_order(stream: Stream) -> None:
    assert passed(stream, 0) == passed(stream, 0)
    assert passed(stream, 0) != passed(stream, 1)


@pytest.mark.parametrize("skip", [1, 3, 5])
def test_an_epoch_goes_on_with_the_same_batches(skip: int, stream: Stream) -> None:
    assert passed(stream, 0, skip) == passed(stream, 0)[skip:]


def test_all_rows_are_given_in_order(stream: Stream) -> None:
    rows = np.concatenate([table.values[:, 0] for table in stream.tables()])
    np.testing.assert_array_equal(rows, np.arange(200.0))


def test_workers_read_parts_of_their_own_where_there_are_many(tmp_path: Path) -> None:
    table = pa.table({"row": np.arange(960.0), "other": np.arange(960.0) % 7})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=30)
    files = Files(tmp_path / "rows.parquet", stream=True)
    model, rng = Autoencoder(), np.random.RandomState(0)
    stream = validation.training_rows(model, files, rng, 0.0, reset=True)
    schema = Schema.infer(stream.sample)
    drawn = stream.draw(schema, torch.float64, torch.device("cpu")).rows
    given: list[list[float]] = []
    for rank in range(2):
        room = torch.empty(50, 2, dtype=torch.float64)
        share = drawn.share(rank, 2).batches(100, torch.Generator(), lambda n, room=room: room[:n])
        batches = [batch[:, 0].clone() for batch in share]
        assert len(batches) == 10
        given.append(torch.cat(batches).tolist())
    # Parts are of one length, so nothing is left out, and nothing comes twice.
    assert len(set(given[0]) | set(given[1])) == 960
    assert len(given[0]) == len(given[1]) == 480
