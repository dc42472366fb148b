"""Applying a stack: chunks change nothing, precision follows the rows, memory stays flat."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch

from twofold.data import sources
from twofold.data.table import Format, Table
from twofold.inference import apply as inference
from twofold.inference import calibration
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.schema.schema import Schema
from twofold.schema.tensors import tensor


@pytest.fixture
def parts() -> tuple[Table, Schema, Network, Scorer]:
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(300, 12)).astype(np.float32)
    table = Table(rows)
    schema = Schema.infer(table)
    network = Network(12, (8,), 4, generator=torch.Generator().manual_seed(0))
    return table, schema, network, Scorer(schema).float()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("function", [inference.encode, inference.reconstruct])
def test_what_a_row_gets_depends_on_no_other_row(
    parts: tuple[Table, Schema, Network, Scorer], function: inference.Function
) -> None:
    table, schema, network, scorer = parts
    whole = inference.apply_to_table(function, network, scorer, schema, table)
    for at in (slice(0, 1), slice(5, 40), slice(299, 300)):
        alone = inference.apply_to_table(function, network, scorer, schema, table.slice(at))
        np.testing.assert_array_equal(alone, whole[at])


@pytest.mark.parametrize("function", [inference.encode, inference.log_density])
def test_chunks_give_what_the_whole_gives(
    parts: tuple[Table, Schema, Network, Scorer],
    function: inference.Function,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, schema, network, scorer = parts
    whole = inference.apply_to_table(function, network, scorer, schema, table)
    pieces = iter([slice(0, 7), slice(7, 8), slice(8, 300)])
    monkeypatch.setattr(inference, "row_chunks", lambda *_: pieces)
    parted = inference.apply_to_table(function, network, scorer, schema, table)
    np.testing.assert_allclose(parted, whole, rtol=1e-5, atol=1e-5)


def test_64_bit_rows_are_computed_in_64_bit(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    _, _, network, scorer = parts
    x = np.random.default_rng(1).normal(size=(5, 12))
    found = inference.apply(inference.encode, network, scorer, x)
    expected = network.double().encode(torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_network_keeps_its_own_precision(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    _, _, network, scorer = parts
    inference.apply(inference.encode, network, scorer, np.zeros((2, 12)))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_an_error_in_a_later_chunk_names_the_row_of_the_table(
    parts: tuple[Table, Schema, Network, Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, schema, network, scorer = parts
    table.values[250, 3] = np.inf
    monkeypatch.setattr(inference, "row_chunks", lambda *_: iter([slice(0, 200), slice(200, 300)]))
    with pytest.raises(ValueError, match="column 3 holds infinity in row 250"):
        inference.apply_to_table(inference.encode, network, scorer, schema, table)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("function", [inference.encode, inference.log_density])
def test_threads_that_take_chunks_give_the_same_bits(
    parts: tuple[Table, Schema, Network, Scorer],
    function: inference.Function,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, schema, network, scorer = parts
    table = holed(table)
    pieces = [slice(start, start + 20) for start in range(0, 300, 20)]
    monkeypatch.setattr(inference, "row_chunks", lambda *_: iter(pieces))
    alone = inference.apply_to_table(function, network, scorer, schema, table)
    started, together = set(), threading.Barrier(3)

    def watched(network: Network, scorer: Scorer, x: torch.Tensor) -> torch.Tensor:
        if threading.get_ident() not in started:
            started.add(threading.get_ident())
            together.wait(60)
        return function(network, scorer, x)

    monkeypatch.setattr(inference, "granted", lambda: 3)
    threads_before = torch.get_num_threads()
    parted = inference.apply_to_table(watched, network, scorer, schema, table)
    assert len(started) == 3
    assert torch.get_num_threads() == threads_before
    np.testing.assert_array_equal(parted, alone)


@pytest.mark.usefixtures("compiled")
def test_of_several_errors_that_of_the_first_row_is_told(
    parts: tuple[Table, Schema, Network, Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, schema, network, scorer = parts
    table.values[[70, 250], 3] = np.inf
    pieces = [slice(start, start + 20) for start in range(0, 300, 20)]
    monkeypatch.setattr(inference, "row_chunks", lambda *_: iter(pieces))
    monkeypatch.setattr(inference, "granted", lambda: 3)
    with pytest.raises(ValueError, match="column 3 holds infinity in row 70"):
        inference.apply_to_table(inference.encode, network, scorer, schema, table)


def test_chunks_get_smaller_as_rows_get_wider() -> None:
    sizes = [next(sources.row_chunks(10**6, width)).stop for width in (10, 1000, 100_000)]
    assert sizes == sorted(sizes, reverse=True)


def test_memory_does_not_grow_with_the_rows(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    _, schema, network, scorer = parts

    def extra(n_rows: int) -> int:
        table = Table(np.ones((n_rows, 12), dtype=np.float32))
        tracemalloc.start()
        inference.apply_to_table(inference.encode, network, scorer, schema, table)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - n_rows * 4 * 4

    assert extra(160_000) < extra(16_000) + 100_000


def holed(table: Table, share: float = 0.2) -> Table:
    hidden = np.random.default_rng(9).uniform(size=table.values.shape) < share
    return Table(np.where(hidden, np.float32(np.nan), table.values))


@pytest.mark.parametrize("rounds", [1, 3])
def test_cells_that_are_there_are_not_touched_by_filling(
    parts: tuple[Table, Schema, Network, Scorer], rounds: int
) -> None:
    table, schema, network, scorer = parts
    x = torch.from_numpy(schema.to_matrix(holed(table), np.float32))
    filled = inference.complete(network, scorer, x, rounds)
    seen = ~x.isnan()
    assert torch.equal(filled[seen], x[seen])
    assert not filled.isnan().any()


def test_holes_are_filled_by_the_reconstruction_of_the_row_with_its_last_filling(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    table, schema, network, scorer = parts
    x = torch.from_numpy(schema.to_matrix(holed(table), np.float32))
    last, filled = (inference.complete(network, scorer, x, rounds) for rounds in (2, 3))
    x_hat = inference.decode(network, scorer, network.encode(last)[0])
    torch.testing.assert_close(filled[x.isnan()], x_hat[x.isnan()])


def test_rows_without_holes_are_handed_on(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    table, schema, network, scorer = parts
    x = torch.from_numpy(schema.to_matrix(table, np.float32))
    assert inference.complete(network, scorer, x) is x


def test_holes_in_other_rows_do_not_change_a_row(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    table, schema, network, _ = parts
    x = torch.from_numpy(schema.to_matrix(table, np.float64))
    scorer = calibration.fit_scorer(network.double(), schema, x, torch.arange(300))
    beside = x.clone()
    beside[1::2, 3] = torch.nan
    for function in (inference.encode, inference.log_density):
        alone = function(network, scorer, x)
        found = function(network, scorer, beside)
        torch.testing.assert_close(found[::2], alone[::2], rtol=1e-12, atol=1e-12)
        assert not torch.isclose(found[1::2], alone[1::2]).all()


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        (None, np.float64),
        (["number", "number"], np.float64),
        (["number", "boolean"], np.float64),
        (["number", "text"], np.float32),
        (["time", "number"], np.float32),
    ],
)
def test_text_and_times_alone_do_not_ask_for_64_bits(types: list[str] | None, dtype: type) -> None:
    formats = None if types is None else tuple(Format(name, "") for name in types)
    assert inference.dtype_of(Table(np.zeros((3, 2)), formats=formats)) == dtype
    narrow = Table(np.zeros((3, 2), dtype=np.float32), formats=formats)
    assert inference.dtype_of(narrow) == np.float32


def test_read_only_rows_are_taken() -> None:
    rows = np.ones((2, 3), dtype=np.float32)
    rows.flags.writeable = False
    assert torch.equal(tensor(rows), torch.ones(2, 3))
