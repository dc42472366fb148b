"""Rows come back in the container that they came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from twofold.data import convert, sources
from twofold.data.table import Format

ROWS = np.array([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]])


@pytest.mark.parametrize("shape", [(3, 2), (2, 2)])
@pytest.mark.parametrize("container", ["pandas", "polars", "arrow", "torch", "numpy"])
def test_rows_go_back_as_they_came(container: str, shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    result = convert.give_back(values, container, ["a", "b c"], (2,))
    assert sources.container_of(result) == container
    table = sources.read(result)
    np.testing.assert_array_equal(table.values, values)
    assert table.values.dtype == np.float32
    assert table.names == (("a", "b c") if container in ("pandas", "polars", "arrow") else None)


def test_images_go_back_as_images() -> None:
    assert convert.give_back(np.zeros((5, 12)), "numpy", [], (3, 4)).shape == (5, 3, 4)


def test_columns_of_one_name_are_all_given_back() -> None:
    assert convert.to_arrow(ROWS, ["a", "a"]).num_columns == 2


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_columns_go_back_in_their_own_types(container: str) -> None:
    table = pa.table({"n": pa.array([1, None], pa.int8()), "t": ["x", None], "b": [True, None]})
    frame = {"pandas": lambda: table.to_pandas(types_mapper=pd.ArrowDtype), "arrow": lambda: table}
    source = frame.get(container, lambda: pl.from_arrow(table))()
    read = sources.read(source)
    again = convert.give_back(
        read.values, container, read.names or (), read.row_shape, read.index, read.formats
    )
    assert again.equals(source)


def test_formats_do_nothing_to_an_array() -> None:
    values = np.array([[0.5]])
    forms = [Format("text", "str", ("a",))]
    np.testing.assert_array_equal(
        convert.give_back(values, "numpy", ["c"], (1,), None, forms), values
    )


# Filling


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (np.array([[1, np.nan]], np.float16), np.array([[1, 7]], np.float16)),
        (np.array([[1, np.nan]], np.float32), np.array([[1, 7]], np.float32)),
        (np.array([[1, None]], object), np.array([[1, 7.0]], object)),
        (np.array([[1, 2]], np.int8), np.array([[1, 2]], np.int8)),
        (np.array([[1, 2]], np.uint8), np.array([[1, 2]], np.uint8)),
        ([[1, None]], np.array([[1.0, 7.0]])),
        ([[1, 2]], np.array([[1.0, 2.0]])),
        (((1.0, np.nan),), np.array([[1.0, 7.0]])),
    ],
)
def test_holes_of_an_array_are_filled(source: Any, expected: Any) -> None:
    filled = convert.fill(source, sources.read(source), np.full((1, 2), 7.0))
    assert filled.dtype == expected.dtype
    np.testing.assert_array_equal(filled, expected)


def test_masked_cells_of_whole_numbers_are_filled_by_whole_numbers() -> None:
    rows = np.ma.array([[1, 2]], mask=[[False, True]])
    table = sources.read(np.ma.filled(rows.astype(float), np.nan))
    filled = convert.fill(rows, table, np.array([[9.0, 6.7]]))
    assert filled.dtype == rows.dtype
    assert filled.tolist() == [[1, 7]]


def test_text_that_says_numbers_is_filled_as_numbers() -> None:
    rows = np.array([["1", "nan"]])
    np.testing.assert_array_equal(
        convert.fill(rows, sources.read(rows), np.full((1, 2), 2.5)), [[1, 2.5]]
    )


def test_holes_of_images_are_filled() -> None:
    images = np.arange(8.0).reshape(2, 2, 2)
    images[1, 0, 1] = np.nan
    filled = convert.fill(images, sources.read(images), np.full((2, 4), 9.0))
    assert filled.shape == (2, 2, 2)
    assert np.isnan(images[1, 0, 1])
    np.testing.assert_array_equal(filled.ravel(), [0, 1, 2, 3, 4, 9, 6, 7])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_holes_of_a_tensor_are_filled(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1.0, torch.nan], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    filled = convert.fill(tensor, sources.read(tensor), np.full((2, 2), 7.0))
    assert filled.dtype == dtype
    assert not filled.requires_grad
    assert filled.tolist() == [[1, 7], [3, 4]]
    assert torch.isnan(tensor[0, 1])


def test_hole_without_a_number_stays_one() -> None:
    rows = np.array([[np.nan, np.nan]])
    filled = convert.fill(rows, sources.read(rows), np.array([[np.nan, 2.0]]))
    np.testing.assert_array_equal(filled, [[np.nan, 2.0]])


def test_frames_are_filled_in_their_own_types() -> None:
    frame = pl.DataFrame({"a": [2**60 + 1, None], "b": ["x", None]})
    filled = convert.fill(frame, sources.read(frame), np.array([[0.0, 0.0], [2.6, 0.0]]))
    assert filled.equals(pl.DataFrame({"a": [2**60 + 1, 3], "b": ["x", "x"]}))
