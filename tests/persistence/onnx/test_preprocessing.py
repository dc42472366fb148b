"""Cells become inputs, and inputs cells, as the schema says, though nothing looks at the values."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from twofold import Autoencoder
from twofold.data.table import Table
from twofold.estimators import validation
from twofold.persistence.onnx.preprocessing import Cells, Inputs, holds_text
from twofold.schema.schema import Schema

N = 200
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "height": RNG.normal(170, 8, N),
        "flag": RNG.uniform(size=N) < 0.3,
        "visits": RNG.poisson(3.0, N),
        "town": ["rare", *RNG.choice(["Bonn", "Kiel", "Ulm"], N - 1, p=[0.5, 0.3, 0.2])],
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 40_000, N), "h"),
        "zip": RNG.choice([53111, 24103, 89073], N),
        "share": RNG.beta(0.3, 0.4, N) * 7 - 2,
        "grade": RNG.choice([1.0, 1.3, 2.7], N),
        "key": [f"k{i}" for i in range(N)],
    }
)
KINDS = {"zip": "category", "key": "ignored"}
LIKELIHOOD = {"share": "histogram", "grade": "histogram"}
FAR = FRAME.iloc[:4].assign(
    height=[1e6, -1e6, 170.0, 90.0],
    visits=[-3, 100_000, 0, 2],
    town=["Paris", "Bonn", "Ulm", "rare"],
    zip=[1, 53111, 2, 89073],
    share=[-50.0, 80.0, 5.0, -2.0],
    grade=[0.5, 1.15, 9.0, 1.3],
    since=pd.to_datetime(["1815-06-18", "2300-01-01", "2020-01-06", "1969-12-31"]),
)


def table(frame: Any) -> Table:
    return validation.table(Autoencoder(), frame, reset=True)


@pytest.fixture(scope="module")
def schema() -> Schema:
    """A schema with every kind of column."""
    return Schema.infer(table(FRAME), LIKELIHOOD, KINDS)


def cells(schema: Schema, rows: Table) -> torch.Tensor:
    """The cells of a table as `Inputs` takes them: texts by the number of their input."""
    values = rows.values.astype(np.float64)
    for i, column in enumerate(schema.columns):
        if holds_text(column):
            assert rows.formats is not None
            kept = [column.levels[p] for p in column.kept]
            slots = [kept.index(t) if t in kept else len(kept) for t in rows.formats[i].levels]
            known = ~np.isnan(values[:, i])
            values[known, i] = np.array(slots, dtype=float)[values[known, i].astype(int)]
    return torch.from_numpy(values)


def inputs_agree(schema: Schema, rows: Table) -> None:
    ours = Inputs(schema.columns)(cells(schema, rows)).numpy()
    np.testing.assert_allclose(ours, schema.to_matrix(rows, np.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("column", FRAME.columns.drop("key"))
def test_every_kind_of_column_becomes_the_schemas_inputs(column: str) -> None:
    rows = table(FRAME[[column]])
    inputs_agree(
        Schema.infer(rows, LIKELIHOOD.get(column, "auto"), KINDS.get(column, "auto")), rows
    )


@pytest.mark.parametrize("rows", [FRAME, FAR], ids=["training rows", "rows far out"])
def test_a_mixed_table_becomes_the_schemas_inputs(rows: pd.DataFrame, schema: Schema) -> None:
    inputs_agree(schema, table(rows))


def test_a_missing_cell_is_missing_in_all_its_inputs(schema: Schema) -> None:
    holes = FRAME.astype({"visits": "Int64", "flag": "boolean", "zip": "Int64"})
    inputs_agree(schema, table(holes.mask(RNG.uniform(size=FRAME.shape) < 0.2)))


@pytest.mark.parametrize("spread", [1.0, 8.0, 1e3])
def test_inputs_become_the_schemas_cells(spread: float, schema: Schema) -> None:
    x_hat = np.random.default_rng(1).normal(size=(50, schema.width)) * spread
    x_hat = x_hat.astype(np.float32)
    # The schema may compute with narrower numbers where they hold the cells.
    expected = schema.from_matrix(x_hat.astype(np.float64))
    ours = Cells(schema.columns)(torch.from_numpy(x_hat)).numpy()
    np.testing.assert_allclose(ours[:, -1], np.nan)
    np.testing.assert_allclose(ours[:, :-1], expected[:, :-1], rtol=1e-6, atol=1e-6)


def test_cells_of_a_graph_end_at_the_columns_limits(schema: Schema) -> None:
    wild = torch.full((1, schema.width), 1e30)
    for x_hat in (wild, -wild):
        ours = Cells(schema.columns)(x_hat)[0].tolist()
        for cell, column in zip(ours, schema.columns, strict=True):
            low, high = column.limits
            assert low <= cell <= high or column.kind == "ignored"


def test_cells_of_a_graph_go_on_as_far_as_a_rows_own(schema: Schema) -> None:
    rng = np.random.default_rng(2)
    x_hat = (30 * rng.normal(size=(50, schema.width))).astype(np.float32)
    own = 1e4 * rng.normal(size=(50, len(schema.columns)))
    own[rng.random(own.shape) < 0.2] = np.nan
    expected = schema.from_matrix(x_hat.astype(np.float64), own=own)
    ours = Cells(schema.columns)(torch.from_numpy(x_hat), torch.from_numpy(own)).numpy()
    np.testing.assert_allclose(ours[:, :-1], expected[:, :-1], rtol=1e-6, atol=1e-6)
    ends = schema.from_matrix(x_hat.astype(np.float64))
    assert ((expected != ends) & ~np.isnan(expected)).any()


@pytest.mark.parametrize(
    "rows",
    [
        RNG.normal(5, 2, (60, 4)),
        RNG.integers(0, 256, (60, 3, 3)).astype(np.uint8),
        RNG.uniform(size=(60, 2, 3)),
        np.array([[1.0, 1e9, np.nan], [2.0, 1e9 + 5, np.nan]] * 10),
    ],
    ids=["numbers", "bytes", "grey values", "far from zero, with a column of nothing"],
)
def test_arrays_go_there_and_back(rows: NDArray[Any]) -> None:
    read = table(rows)
    schema = Schema.infer(read)
    x = Inputs(schema.columns)(torch.from_numpy(read.values.astype(np.float64)))
    expected = schema.to_matrix(read, np.float64)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6, atol=1e-6)
    back = Cells(schema.columns)(torch.nan_to_num(x)).numpy()
    known = ~np.isnan(read.values)
    np.testing.assert_allclose(back[known], read.values[known].astype(float), rtol=1e-6)


def test_a_level_is_told_by_its_number_where_it_is_one() -> None:
    rows = table(FRAME[["zip"]])
    schema = Schema.infer(rows, kinds="category")
    back = Cells(schema.columns)(Inputs(schema.columns)(cells(schema, rows)))
    np.testing.assert_array_equal(back[:, 0], FRAME["zip"])


def test_the_one_rare_level_comes_back_and_of_several_none(schema: Schema) -> None:
    column = schema.columns[3]
    assert len(column.pooled) == 1
    x_hat = torch.tensor([[0.1] * len(column.kept) + [0.9]])
    assert column.levels[int(Cells([column])(x_hat))] == "rare"
    several = replace(column, levels=(*column.levels, "rarer"), counts=(*column.counts, 1))
    assert int(Cells([several])(x_hat)) == -1  # no text has this place, so it is missing
    numbers = replace(several, levels=tuple(map(float, range(5))), format=None)
    assert torch.isnan(Cells([numbers])(x_hat)).all()


def test_an_input_without_a_level_is_never_the_answer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = Schema.infer(table(pd.DataFrame({"town": ["Bonn", "Kiel"] * 30})))
    assert not schema.columns[0].pooled
    assert int(Cells(schema.columns)(torch.tensor([[0.1, 0.2, 0.7]]))) == schema.columns[0].kept[1]
