"""Rows of a source: what lies beside them, how they are shown, compared and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from twofold.data.table import Table
from twofold.errors import DataError
from twofold.explorer.source import MOST_LEVELS, Source, SourceColumn
from twofold.schema.schema import Schema


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(10, 2, n),
            "town": rng.choice(["Oslo", "Porto", "Turin"], n, p=[0.2, 0.7, 0.1]),
            "new": rng.random(n) < 0.3,
            "sold": pd.date_range("2024-01-01", periods=n, freq="D"),
            "label": rng.integers(0, 3, n),
        }
    )


def schema_of(rows: Any) -> Schema:
    from twofold.data import sources

    return Schema.infer(sources.read(rows))


def source_of(rows: pd.DataFrame, own: tuple[str, ...] = ("size", "town", "new", "sold")) -> Source:
    return Source.read(rows, schema_of(rows[list(own)]))


def column(source: Source, name: str) -> SourceColumn:
    return next(c for c in (*source.own, *source.extras) if c.name == name)


def test_other_columns_lie_beside_the_models() -> None:
    source = source_of(frame())
    assert [c.name for c in source.own] == ["size", "town", "new", "sold"]
    assert [(c.name, c.own) for c in source.extras] == [("label", False)]


def test_columns_are_picked_by_name() -> None:
    rows = frame()
    source = Source.read(
        rows[["label", "sold", "new", "town", "size"]], schema_of(rows.iloc[:, :4])
    )
    assert source.cells(3)[0][:2] == [rows["size"][3], rows["town"][3]]


def test_a_column_that_is_missing_is_named() -> None:
    rows = frame()
    with pytest.raises(DataError, match="no column 'town'"):
        Source.read(rows.drop(columns="town"), schema_of(rows))


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    rows = frame()
    rows[["size"]].to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="rows.csv has no column 'town'"):
        Source.read(tmp_path / "rows.csv", schema_of(rows))


def test_columns_that_cannot_be_cells_are_left_out() -> None:
    rows = pa.table({"size": [1.0, 2.0, 3.0], "pair": [{"a": 1}, {"a": 2}, {"a": 3}]})
    assert Source.read(rows, schema_of(rows.select(["size"]))).extras == ()


def test_numbers_of_lists_are_columns() -> None:
    rows = pa.table({"size": [1.0, 2.0, 3.0], "list": [[1], [2], [3]]})
    (extra,) = Source.read(rows, schema_of(rows.select(["size"]))).extras
    assert (extra.name, extra.type) == ("list[0]", "number")


def test_arrays_beside_x_are_columns(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((5, 4, 4))
    names = np.array(["a", "b", "a", "a", "b"])
    np.savez(tmp_path / "rows.npz", X=images, digit=np.arange(5), name=names, mean=images.mean(0))
    source = Source.read(tmp_path / "rows.npz", schema_of(images))
    assert [c.name for c in source.extras] == ["digit", "name"]
    assert source.cells(1) == (images[1].ravel().tolist(), [1, "b"])


def test_pickled_arrays_beside_x_are_not_opened(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((5, 4))
    np.savez(tmp_path / "rows.npz", X=rows, odd=np.array([{}] * 5, dtype=object))
    assert Source.read(tmp_path / "rows.npz", schema_of(rows)).extras == ()


@pytest.mark.parametrize("container", ["pandas", "polars", "arrow"])
def test_frames_give_the_same_cells(container: str) -> None:
    rows = frame()
    given: Any = rows
    if container == "polars":
        given = pytest.importorskip("polars").from_pandas(rows)
    elif container == "arrow":
        given = pa.Table.from_pandas(rows)
    source = Source.read(given, schema_of(rows.iloc[:, :4]))
    sold = rows["sold"][7].isoformat()
    cells = [rows["size"][7], rows["town"][7], bool(rows["new"][7]), sold]
    assert source.cells(7) == (cells, [rows["label"][7]])


def test_missing_cells_are_null() -> None:
    rows = frame()
    rows.loc[3, ["size", "town"]] = None
    assert source_of(rows).cells(3)[0][:2] == [None, None]


def test_texts_are_levels_the_commonest_first() -> None:
    rows = frame()
    shades = source_of(rows).shades(SourceColumn("town", "text", True, 1))
    assert shades.levels == ("Porto", "Oslo", "Turin")
    assert shades.levels is not None
    assert [shades.levels[int(i)] for i in shades.values] == rows["town"].tolist()


def test_rare_levels_share_one_colour() -> None:
    rows = frame()
    rows["town"] = [f"town {min(i % 40, i % 23)}" for i in range(len(rows))]
    source = source_of(rows)
    shades = source.shades(column(source, "town"))
    assert shades.levels is not None
    assert len(shades.levels) == MOST_LEVELS
    assert shades.rest == MOST_LEVELS - 1
    assert shades.levels[-1] == f"{rows['town'].nunique() - MOST_LEVELS + 1} others"
    counts = rows["town"].value_counts()
    rare = ~rows["town"].isin(counts.index[: MOST_LEVELS - 1]).to_numpy()
    assert counts[shades.levels[0]] == (shades.values == 0).sum() == counts.max()
    assert rare.sum() == (shades.values == shades.rest).sum()


def test_few_whole_numbers_are_levels_in_order() -> None:
    source = source_of(frame())
    assert source.shades(column(source, "label")).levels == ("0", "1", "2")


def test_flags_are_levels() -> None:
    rows = frame()
    source = source_of(rows)
    shades = source.shades(column(source, "new"))
    assert shades.levels == ("False", "True")
    assert np.array_equal(shades.values == 1, rows["new"])


@pytest.mark.parametrize("name", ["size", "sold"])
def test_numbers_and_times_are_numbers(name: str) -> None:
    rows = frame()
    rows.loc[5, name] = None
    source = source_of(rows)
    shades = source.shades(column(source, name))
    assert shades.levels is None
    assert np.flatnonzero(np.isnan(shades.values)).tolist() == [5]


def test_a_column_without_a_cell_has_no_levels() -> None:
    rows = frame().assign(label=None)
    source = source_of(rows)
    assert np.isnan(source.shades(column(source, "label")).values).all()


def test_differences_of_numbers_are_in_standard_deviations() -> None:
    rows = frame()
    chosen = rows["size"].to_numpy() > 11
    found = {d.column.name: d for d in source_of(rows).differences(chosen)}["size"]
    assert found.here == pytest.approx(rows["size"][chosen].mean())
    assert found.everywhere == pytest.approx(rows["size"].mean())
    expected = (rows["size"][chosen].mean() - rows["size"].mean()) / rows["size"].std(ddof=0)
    assert found.difference == pytest.approx(expected)


def test_differences_of_levels_name_the_most_frequent_one() -> None:
    rows = frame()
    chosen = rows["town"].to_numpy() == "Oslo"
    first = source_of(rows).differences(chosen)[0]
    assert (first.column.name, first.level, first.here) == ("town", "Oslo", 1.0)
    assert first.everywhere == pytest.approx(chosen.mean())


def test_a_label_in_numbers_is_compared_by_its_levels() -> None:
    rows = frame()
    chosen = rows["label"].to_numpy() == 2
    first = source_of(rows).differences(chosen)[0]
    assert (first.column.name, first.level, first.here) == ("label", 2, 1.0)


def test_the_largest_difference_comes_first() -> None:
    rows = frame()
    sizes = [d.difference for d in source_of(rows).differences(rows["new"].to_numpy())]
    assert sizes == sorted(sizes, key=abs, reverse=True)


def test_differences_of_an_array_skip_holes() -> None:
    rows = np.random.default_rng(0).normal(5, 3, (300, 4))
    rows[::7, 1] = np.nan
    chosen = rows[:, 0] > 6
    found = {d.column.name: d for d in Source.read(rows, schema_of(rows)).differences(chosen)}["x1"]
    mean, spread = np.nanmean(rows[:, 1]), np.nanstd(rows[:, 1])
    assert found.difference == pytest.approx((np.nanmean(rows[chosen, 1]) - mean) / spread)


def test_images_are_compared_as_means() -> None:
    images = np.random.default_rng(0).integers(0, 255, (50, 4, 4), np.uint8)
    source = Source.read(images, schema_of(images))
    chosen = np.arange(50) < 10
    here, everywhere, spread = source.means(chosen)
    assert source.differences(chosen) == []
    assert np.allclose(here, images[:10].reshape(10, 16).mean(0))
    assert np.allclose(everywhere, images.reshape(50, 16).mean(0))
    assert np.allclose(spread, images.reshape(50, 16).std(0))


def test_spreads_of_a_frame() -> None:
    rows = frame()
    spreads = source_of(rows).spreads()
    assert spreads[0] == pytest.approx(rows["size"].std(ddof=0))
    assert spreads[1] == 0


def test_chosen_rows_are_kept_with_their_numbers() -> None:
    rows = frame()
    chosen = rows["size"].to_numpy() > 11
    scores = np.arange(len(rows), dtype=float)
    table = source_of(rows).table(chosen, {"score": scores})
    assert table.column_names == ["row", "size", "town", "new", "sold", "label", "score"]
    assert table["row"].to_pylist() == np.flatnonzero(chosen).tolist()
    assert table["town"].to_pylist() == rows["town"][chosen].tolist()
    assert table["score"].to_pylist() == scores[chosen].tolist()


def test_columns_of_the_same_name_are_told_apart() -> None:
    rows = frame().rename(columns={"size": "score", "label": "row"})
    source = source_of(rows, ("score", "town"))
    table = source.table(np.arange(len(rows)) < 2, {"score": np.zeros(len(rows))})
    assert table.column_names == ["row_", "score", "town", "new", "sold", "row", "score_"]


def test_an_array_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((10, 3, 3), np.uint8))
    source = Source.read(tmp_path / "rows.npy", Schema.infer(Table(np.eye(9), None, (3, 3))))
    assert not source.part(slice(0, 2)).flags.owndata


def test_rows_are_called_by_the_column_that_names_them() -> None:
    unnamed = frame(60)
    named = unnamed.assign(key=[f"K{i}" for i in range(60)])
    assert Source.read(named, schema_of(named)).name_of(17) == "K17"
    assert Source.read(unnamed, schema_of(unnamed)).name_of(17) is None
