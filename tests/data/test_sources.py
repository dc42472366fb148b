"""Sources of every sort become tables of numbers, mistakes name their place, results go back."""

from __future__ import annotations

import os
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from twofold import Autoencoder
from twofold.data import files, output, sources
from twofold.errors import DataError

ROWS = np.array([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]])


def csv_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def values_of(source: Any) -> Any:
    return sources.read(files.load(source)).values


# Arrays


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.longdouble, np.float64),
        (np.uint8, np.uint8),
        (np.int8, np.float32),
        (np.int16, np.float32),
        (np.int32, np.float64),
        (np.int64, np.float64),
        (np.bool_, np.float32),
        (">f4", np.float32),
        (object, np.float64),
    ],
)
def test_numbers_of_an_array_keep_their_precision(given: Any, kept: Any) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(given)
    table = sources.read(array)
    assert table.values.dtype == kept
    np.testing.assert_array_equal(table.values, [[0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_array_is_not_copied(dtype: Any) -> None:
    array = np.zeros((100, 7), dtype)
    assert np.shares_memory(sources.read(array).values, array)


def test_part_of_an_array_is_not_copied() -> None:
    array = np.zeros((100, 8), np.float32)
    assert np.shares_memory(sources.read(array[::2, ::2]).values, array)


def test_images_are_not_copied() -> None:
    images = np.zeros((10, 5, 4), np.float32)
    assert np.shares_memory(sources.read(images).values, images)


def test_read_only_memory_map_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    table = sources.read(mapped)
    assert np.shares_memory(table.values, mapped)
    assert not table.values.flags.writeable


def test_images_become_flat_rows_of_known_shape() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    table = sources.read(images)
    assert table.row_shape == (3, 4)
    np.testing.assert_array_equal(table.values, images.reshape(2, 12))


def test_no_images_at_all_keep_their_shape() -> None:
    assert sources.read(np.zeros((0, 28, 28))).values.shape == (0, 784)


def test_lists_are_rows() -> None:
    np.testing.assert_array_equal(sources.read([[1, 2], [3, 4]]).values, [[1, 2], [3, 4]])


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(DataError, match="not all of one length"):
        sources.read([[1, 2], [3]])


def test_objects_that_are_numbers_are_numbers() -> None:
    table = sources.read(np.array([[Decimal("1.5"), True], [np.float32(2), 3]], dtype=object))
    np.testing.assert_array_equal(table.values, [[1.5, 1], [2, 3]])


def test_text_in_an_array_is_named_by_its_place() -> None:
    array = np.array([[1, "2.5"], [3, "n/a"]], dtype=object)
    with pytest.raises(DataError, match=r"Column 1 holds 'n/a' in row 1\."):
        sources.read(array)


@pytest.mark.parametrize(
    "array",
    [np.ones((2, 2), complex), np.zeros((2, 2), "datetime64[D]"), np.array([[{}]], dtype=object)],
)
def test_array_of_no_numbers_is_refused(array: Any) -> None:
    with pytest.raises(DataError, match="rows"):
        sources.read(array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.bfloat16])
def test_tensors_are_rows(dtype: torch.dtype) -> None:
    table = sources.read(torch.tensor([[1, 2], [3, 4]], dtype=dtype))
    assert table.container == "torch"
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])


def test_tensor_with_a_gradient_is_read_without_it() -> None:
    tensor = torch.ones(3, 2, requires_grad=True)
    assert np.shares_memory(sources.read(tensor).values, tensor.detach().numpy())


# Frames


def test_pandas_columns_of_many_types_are_numbers() -> None:
    frame = pd.DataFrame(
        {
            "float": [1.5, np.nan],
            "int": [1, 2],
            "bool": [True, False],
            "Int64": pd.array([1, None], dtype="Int64"),
            "Int64 whole": pd.array([1, 2], dtype="Int64"),
            "Float32": pd.array([1.5, None], dtype="Float32"),
            "boolean": pd.array([True, None], dtype="boolean"),
            "object": np.array([Decimal("2.5"), pd.NA], dtype=object),
            "arrow": pd.array([7, None], dtype=pd.ArrowDtype(pa.int32())),
        },
        index=["a", "b"],
    )
    table = sources.read(frame)
    nan = np.nan
    np.testing.assert_array_equal(
        table.values,
        [[1.5, 1, 1, 1, 1, 1.5, 1, 2.5, 7], [nan, 2, 0, nan, 2, nan, nan, nan, nan]],
    )
    assert table.names == tuple(frame.columns)
    assert list(table.index) == ["a", "b"]


@pytest.mark.parametrize(
    ("column", "kept"),
    [
        (np.array([1, 2], np.uint8), np.float32),
        (np.array([1, 2], np.int64), np.float64),
        (np.array([1, np.nan], np.float32), np.float32),
        (pd.array([1, None], dtype="Float32"), np.float32),
    ],
)
def test_pandas_columns_keep_their_precision(column: Any, kept: Any) -> None:
    assert sources.read(pd.DataFrame({"a": column})).values.dtype == kept


def test_columns_of_a_frame_may_hold_more_than_numbers() -> None:
    frame = pd.DataFrame(
        {
            "age": [31.5, np.nan],
            "city": ["Rome", None],
            "smoker": pd.array([None, True], dtype="boolean"),
            "joined": pd.to_datetime(["1970-01-02", None]),
        }
    )
    table = sources.read(frame)
    np.testing.assert_array_equal(
        table.values, [[31.5, 0, np.nan, 86400], [np.nan] * 2 + [1, np.nan]]
    )
    assert table.formats is not None
    assert [form.type for form in table.formats] == ["number", "text", "boolean", "time"]


def test_column_of_numbers_and_text_is_named() -> None:
    frame = pd.DataFrame({"fine": [1.0, 2.0, 3.0], "odd": pd.Series([1, None, "x"], dtype=object)})
    with pytest.raises(DataError, match=r"^Column 'odd' holds numbers and text \(row 2: 'x'\)\. "):
        sources.read(frame)


def test_array_has_no_formats() -> None:
    assert sources.read(ROWS).formats is None


def test_frame_without_columns_is_refused() -> None:
    with pytest.raises(DataError, match="no columns"):
        sources.read(pd.DataFrame(index=[1, 2]))


def test_polars_frame_is_read() -> None:
    frame = pl.DataFrame({"a": [1.5, None], "b": [1, 2], "c": [True, None]})
    table = sources.read(frame)
    assert (table.container, table.names) == ("polars", ("a", "b", "c"))
    np.testing.assert_array_equal(table.values, [[1.5, 1, 1], [np.nan, 2, np.nan]])


def test_chunks_of_an_arrow_table_are_joined() -> None:
    part = pa.table({"a": [1, None], "b": pa.array([0.5, 1.5], pa.float32())})
    table = sources.read(pa.concat_tables([part, part]))
    assert table.container == "arrow"
    np.testing.assert_array_equal(table.values[:, 0], [1, np.nan, 1, np.nan])


def test_arrow_record_batch_with_nulls_is_read() -> None:
    batch = pa.record_batch({"a": [1, None], "b": [True, False], "c": [None, True]})
    np.testing.assert_array_equal(sources.read(batch).values, [[1, 1, np.nan], [np.nan, 0, 1]])


# Files


def test_csv_has_a_header_and_rows(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", "a,b\n1,2\n3,4.5\n")
    table = sources.read(files.load(path))
    assert table.names == ("a", "b")
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4.5]])


def test_csv_may_be_quoted_and_marked_as_unicode(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", '\ufeff"size, cm","say ""hi"""\n"1",2\n')
    assert sources.read(files.load(path)).names == ("size, cm", 'say "hi"')


def test_csv_column_may_turn_to_fractions_late(tmp_path: Path) -> None:
    # More than one of the reader's blocks, which are 16 MB long.
    whole = "1000000,2000000\n" * 1_100_000
    path = csv_file(tmp_path / "x.csv", "a,b\n" + whole + "0.5,1\n")
    assert sources.read(files.load(path)).values[-1, 0] == 0.5


def test_empty_csv_cells_are_missing(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", "a,b\n1,\nNA,2\n")
    np.testing.assert_array_equal(values_of(path), [[1, np.nan], [np.nan, 2]])


@pytest.mark.parametrize(
    ("cells", "kind", "found"),
    [
        (["unknown", "", "3"], "text", ["unknown", None, "3"]),
        (
            ['"Smith, J"', '"say ""hi"""', '"two\nlines"'],
            "text",
            ["Smith, J", 'say "hi"', "two\nlines"],
        ),
        (['"x"', '""', "größe"], "text", ["x", None, "größe"]),
        (["true", "", "false"], "boolean", [1, None, 0]),
        (["1970-01-02", "", "1969-12-31"], "time", [86400, None, -86400]),
        (["1970-01-01T00:00:01.5", "", "1970-01-01 00:01"], "time", [1.5, None, 60]),
        (["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:07Z", ""], "time", [0, 7, None]),
        (["01:00:00", "", "00:00:07"], "number", [3600, None, 7]),
        (['"1"', '""', "2.5"], "number", [1, None, 2.5]),
        (["", "NA", "null"], "number", [None, None, None]),
    ],
)
def test_csv_cells_tell_the_type_of_their_column(
    tmp_path: Path, cells: list[str], kind: str, found: list[Any]
) -> None:
    path = csv_file(tmp_path / "x.csv", "c,n\n" + "".join(f"{cell},1\n" for cell in cells))
    table = sources.read(files.load(path))
    assert table.formats is not None
    form, column = table.formats[0], table.values[:, 0].tolist()
    assert form.type == kind
    looked_up = [form.levels[int(c)] if form.levels and c == c else c for c in column]
    assert [None if cell != cell else cell for cell in looked_up] == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as CSV: Empty CSV file"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells and the header 2: '3'"),
        ("version https://git-lfs.github.com/spec/v1\noid x\n", "a pointer of Git LFS"),
        ("<!DOCTYPE html><html></html>", "a page of HTML"),
    ],
)
def test_csv_that_makes_no_sense_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = csv_file(tmp_path / "x.csv", text)
    with pytest.raises(DataError, match=reason) as raised:
        files.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("header", ["0,1,2", "2001,2002,2003", "3,2,1", "9.5,9,8.5,8,7.5,7"])
def test_csv_header_of_ordered_numbers_is_a_header(tmp_path: Path, header: str) -> None:
    path = csv_file(tmp_path / "x.csv", f"{header}\n{header}\n")
    assert files.load(path).column_names == header.split(",")


def test_csv_in_another_encoding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("größe,b\n1,2\n".encode("latin-1"))
    assert files.load(path).column_names == ["größe", "b"]


def test_parquet_file_is_read(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1, 2], "b": [0.5, None]}), tmp_path / "x.parquet")
    np.testing.assert_array_equal(values_of(tmp_path / "x.parquet"), [[1, 0.5], [2, np.nan]])


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    pa.parquet.write_table(pa.table({"a": [1, 2], "b": [1, 2]}), folder / "part-0.parquet")
    pa.parquet.write_table(pa.table({"b": [3.5], "a": [3]}), folder / "part-1.parquet")
    return folder


@pytest.mark.parametrize(
    "pattern", ["rows", "rows/*.parquet", "rows/part-?.parquet", "*/*.parquet"]
)
def test_parquet_folder_or_pattern_is_one_table(parts: Path, pattern: str) -> None:
    np.testing.assert_array_equal(values_of(parts.parent / pattern), [[1, 1], [2, 2], [3, 3.5]])


def test_hidden_files_of_a_folder_are_no_rows(parts: Path) -> None:
    (parts / ".half-written.parquet").write_bytes(b"PAR1")
    (parts / "_SUCCESS").touch()
    assert len(values_of(parts)) == 3


def test_files_with_different_columns_are_refused(parts: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1], "c": [1]}), parts / "part-2.parquet")
    with pytest.raises(DataError, match="part-2.parquet: it has no column 'b', and has 'c'"):
        files.load(parts)


def test_files_with_different_types_are_refused(parts: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1], "b": ["x"]}), parts / "part-2.parquet")
    with pytest.raises(DataError, match="part-2.parquet: column"):
        files.load(parts)


def test_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    pa.parquet.write_table(pa.table({"a": [1, 2]}), folder / "x.parquet")
    assert files.load(folder / "x.parquet").column_names == ["a"]


def test_parquet_column_may_have_dots_in_its_name(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "a.b": [2], "c": [3]})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    assert files.load(tmp_path / "x.parquet", columns=["a.b", "a"]).to_pylist() == [
        {"a.b": 2, "a": 1}
    ]


def test_folder_of_mixed_files_is_refused(parts: Path) -> None:
    csv_file(parts / "x.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"holds files of type \.csv, \.parquet"):
        files.load(parts)


def test_folder_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"holds no \.csv, .*\.parquet"):
        files.load(tmp_path)


@pytest.mark.parametrize("name", ["x.csv", "*.parquet", "missing/x.npy"])
def test_missing_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="does not exist, and matches no file"):
        files.load(tmp_path / name)


def test_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    csv_file(tmp_path / "x.csv", "a,b\n1,2\n")
    assert len(files.load("~/x.csv")) == 1


def test_name_with_brackets_is_a_name_before_it_is_a_pattern(tmp_path: Path) -> None:
    csv_file(tmp_path / "x[1].csv", "a,b\n1,2\n")
    assert len(files.load(tmp_path / "x[1].csv")) == 1


def test_npy_file_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    loaded = files.load(tmp_path / "x.npy")
    assert isinstance(loaded, np.memmap)
    np.testing.assert_array_equal(loaded, ROWS)


def test_npz_rows_are_called_x_or_are_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", X=ROWS, y=np.zeros(3))
    np.savez_compressed(tmp_path / "alone.npz", rows=ROWS)
    np.testing.assert_array_equal(files.load(tmp_path / "named.npz"), ROWS)
    np.testing.assert_array_equal(files.load(tmp_path / "alone.npz"), ROWS)


def test_npz_with_several_arrays_needs_to_name_the_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=ROWS, b=ROWS)
    with pytest.raises(DataError, match="holds the arrays a, b; call the rows 'X'"):
        files.load(tmp_path / "x.npz")


def test_several_array_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.save(tmp_path / "b.npy", ROWS)
    with pytest.raises(DataError, match="matches 2 array files"):
        files.load(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x93NUMPY\x01"])
def test_broken_file_is_a_clear_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=f"{path} (cannot be read as {suffix[1:].upper()}: |is empty)"
    ):
        files.load(path)


def test_pickled_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as NPY"):
        files.load(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_are_picked_by_name_in_the_models_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    output.write(pa.table({"id": ["p", "q"], "a": [1, 2], "b": [3, 4]}), path)
    assert files.load(path, columns=("b", "a")).to_pydict() == {"b": [3, 4], "a": [1, 2]}


def test_dropped_columns_are_left_out(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", "id,a,b\np,1,2\n")
    assert files.load(path, drop=["id"]).column_names == ["a", "b"]


@pytest.mark.parametrize("choice", [{"columns": ["a", "z"]}, {"drop": ["z"]}])
def test_column_that_is_not_there_is_named(tmp_path: Path, choice: dict[str, Any]) -> None:
    path = csv_file(tmp_path / "x.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"has no column 'z'. It has 'a', 'b'\."):
        files.load(path, **choice)


def test_columns_of_an_array_cannot_be_dropped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(DataError, match="no names of columns to drop"):
        files.load(tmp_path / "x.npy", drop=["a"])


def test_what_is_no_path_is_handed_back() -> None:
    assert files.load(ROWS) is ROWS


def test_model_takes_its_columns_from_a_file_and_ignores_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    ae = Autoencoder(n_components=2, epochs=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ae.fit(frame)
    path = tmp_path / "x.csv"
    frame.assign(id="p")[["id", "c", "a", "b"]].to_csv(path, index=False)
    np.testing.assert_allclose(ae.transform(path), ae.transform(frame), rtol=1e-12)


# Going back


def test_chunks_cover_every_row_once() -> None:
    chunks = list(sources.row_chunks(20_001, 784))
    assert [row for chunk in chunks for row in range(20_001)[chunk]] == list(range(20_001))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match="which is a pipe or a device"):
        sources.resolve(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("x.dta", r"x\.dta is of type \.dta, which is not read\. Read it with pandas\.read_stata"),
        ("x.pkl", r"pandas\.read_pickle, and pass the frame"),
        ("x.zip", r"is of type \.zip, which is not read\. Unpack it"),
        ("x.log", r"If it holds text, call it \.csv"),
        ("x", r"x has no ending\. If it holds text, call it \.csv"),
    ],
)
def test_a_file_of_another_type_is_refused_with_what_to_do(
    name: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    with pytest.raises(DataError, match=remedy):
        sources.resolve(tmp_path / name)
