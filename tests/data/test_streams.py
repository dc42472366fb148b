"""Rows of other libraries come as Arrow streams, and lists of numbers as columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from twofold import Autoencoder, load
from twofold.data import files, streams
from twofold.data.rows import opened
from twofold.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
RNG = np.random.default_rng(0)
TABLE = pa.table({name: RNG.normal(size=40) for name in "abc"})
DELETED = pa.table({name: np.full(3, 100.0) for name in "abc"})


class Relation:
    """What a database gives: nothing but Arrow's C stream."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return TABLE.__arrow_c_stream__(requested_schema)


MADE = {
    "reader": TABLE.to_reader,
    "data set": lambda: pa.dataset.dataset(TABLE),
    "scanner": lambda: pa.dataset.dataset(TABLE).scanner(),
    "lazy frame": lambda: pl.from_arrow(TABLE).lazy(),  # type: ignore[union-attr]
    "relation": Relation,
}


@pytest.mark.parametrize("kind", MADE)
def test_whatever_gives_an_arrow_stream_is_rows(kind: str) -> None:
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(MADE[kind]())
    assert list(ae.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(ae.score_samples(MADE[kind]()), ae.score_samples(TABLE))


def duckdb_relation(folder: Path) -> Any:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    connection = duckdb.connect()
    connection.register("rows", TABLE)
    return connection.sql("SELECT * FROM rows")


def hugging_face_dataset(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    return datasets.Dataset.from_dict(TABLE.to_pydict())


def chosen_rows_of_hugging_face(folder: Path) -> Any:
    whole = pa.concat_tables([DELETED, TABLE])
    return hugging_face_dataset(folder).from_dict(whole.to_pydict()).select(range(3, 43))


def rows_of_hugging_face_as_they_come(folder: Path) -> Any:
    return hugging_face_dataset(folder).to_iterable_dataset()


def iceberg_table(folder: Path) -> Any:
    """A table of two files, with a catalog of its own; rows of the first one are deleted."""
    catalogs = pytest.importorskip("pyiceberg.catalog.sql", reason="pyiceberg is not installed")
    named = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": folder.as_uri()}
    catalog = catalogs.SqlCatalog("local", **named)
    catalog.create_namespace("tables")
    table = catalog.create_table("tables.rows", schema=TABLE.schema)
    for rows in (pa.concat_tables([DELETED, TABLE[:20]]), TABLE[20:]):
        table.append(rows)
    table.delete("a > 99")
    return table


@pytest.mark.parametrize(
    "make",
    [
        duckdb_relation,
        hugging_face_dataset,
        chosen_rows_of_hugging_face,
        rows_of_hugging_face_as_they_come,
        iceberg_table,
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_tables_of_other_libraries_are_rows(make: Any, tmp_path: Path) -> None:
    rows = make(tmp_path)
    found = streams.reader_of(rows).read_all()
    assert found.sort_by("a").equals(TABLE.sort_by("a"))
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(rows)
    assert list(ae.feature_names_in_) == ["a", "b", "c"]


def test_a_stream_that_does_not_fit_into_memory_goes_to_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files.memory, "available", lambda: 100)
    rows = opened(TABLE.to_reader(max_chunksize=7))
    place = Path(rows.scratch.name)
    assert isinstance(rows, files.OpenFiles)
    assert rows.load().equals(TABLE)
    del rows
    assert not place.exists()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float64())])
def test_lists_of_numbers_are_columns(kind: Any, tmp_path: Path) -> None:
    lists = [*RNG.normal(size=(39, 3)).tolist(), None]
    table = TABLE.append_column("e", pa.array(lists, kind))
    pq.write_table(table, tmp_path / "rows.parquet")
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(tmp_path / "rows.parquet")
    assert list(ae.feature_names_in_) == ["a", "b", "c", "e[0]", "e[1]", "e[2]"]
    ae.save(tmp_path / "model")
    codes = ae.transform(table)
    np.testing.assert_array_equal(codes, load(tmp_path / "model").transform(table))
    np.testing.assert_array_equal(codes, ae.transform(tmp_path / "rows.parquet"))
    assert np.isnan(ae.read(table).values[39, 3:]).all()


def test_lists_of_several_lengths_are_refused() -> None:
    table = pa.table({"e": [[1.0, 2.0], [1.0], [1.0, 2.0]]})
    with pytest.raises(DataError, match=r"'e' holds lists of 1 to 2 numbers \(row 1 has 1\)"):
        streams.apart(table)


def test_cells_of_several_parts_are_refused_with_the_remedy() -> None:
    table = pa.table({"a": [{"x": 1, "y": 2}] * 12})
    with pytest.raises(DataError, match=r"Column 'a' holds \{'x': 1.*take it apart into columns"):
        Autoencoder().fit(table)
