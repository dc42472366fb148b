"""Results are written whole or not at all, and never over what is there."""

from __future__ import annotations

import builtins
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from twofold.data import convert, files, output, sources
from twofold.errors import DataError, OutputExistsError, TwofoldError

ROWS = np.array([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]])


def csv_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def values_of(source: Any) -> Any:
    return sources.read(files.load(source)).values


NAMES = ["size, cm", 'say "hi"', "größe", " b "]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".CSV"])
def test_table_comes_back_from_its_file(tmp_path: Path, suffix: str, dtype: Any) -> None:
    values = (1000 * np.random.default_rng(0).normal(size=(50, 4))).astype(dtype)
    path = tmp_path / "deep" / f"x{suffix}"
    output.write(convert.to_arrow(values, NAMES), path)
    again = sources.read(files.load(path))
    np.testing.assert_array_equal(again.values.astype(dtype), values)
    assert again.names == (None if suffix == ".npy" else tuple(NAMES))


MIXED = pa.table(
    {
        "text": pa.array(["größe, cm", None, 'say "hi"\n']),
        "category": pa.array(["b", None, "a"]).dictionary_encode(),
        "flag": [True, None, False],
        "count": pa.array([1, None, 3], pa.int16()),
        "real": [1.5, None, -2e300],
        "day": pa.array([18_000, None, -1], pa.date32()),
        "moment": pa.array([1_700_000_000_123_456, None, -1], pa.timestamp("us")),
        "instant": pa.array([1_700_000_000, None, -1], pa.timestamp("ms", "Asia/Tokyo")),
        "time of day": pa.array([3600 * 10**6, None, 0], pa.time64("us")),
        "duration": pa.array([1_500, None, -1], pa.duration("ms")),
        "view": pa.array(["b", None, "a"], pa.string_view()),
        "none": pa.nulls(3),
    }
)


def test_mixed_table_comes_back_from_parquet(tmp_path: Path) -> None:
    output.write(MIXED, tmp_path / "x.parquet")
    assert files.load(tmp_path / "x.parquet").equals(MIXED)


def test_cells_of_a_mixed_table_come_back_from_csv(tmp_path: Path) -> None:
    output.write(MIXED, tmp_path / "x.csv")
    before, after = sources.read(MIXED), sources.read(files.load(tmp_path / "x.csv"))
    assert before.formats is not None
    assert after.formats is not None
    assert [f.type for f in after.formats] == [f.type for f in before.formats]
    codes = [before.names.index(name) for name in ("category",) if before.names]
    np.testing.assert_array_equal(
        np.delete(after.values, codes, axis=1), np.delete(before.values, codes, axis=1)
    )
    assert files.load(tmp_path / "x.csv")["category"].to_pylist() == ["b", None, "a"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_frame_of_any_container_is_written_and_read_again(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"city": ["Rome", None], "n": [1, 2], "c": pd.Categorical(["x", None])})
    table = sources.read(frame)
    path = tmp_path / f"x{suffix}"
    output.write(convert.to_arrow(table.values, table.names or (), table.formats), path)
    assert files.load(path).to_pydict() == {"city": ["Rome", None], "n": [1, 2], "c": ["x", None]}


def test_array_file_holds_numbers_and_booleans_only(tmp_path: Path) -> None:
    numbers = pa.table({"a": [True, None], "b": [1, 2], "c": pa.nulls(2)})
    output.write(numbers, tmp_path / "x.npy")
    np.testing.assert_array_equal(
        files.load(tmp_path / "x.npy"), [[1, 1, np.nan], [np.nan, 2, np.nan]]
    )
    with pytest.raises(DataError, match=r"hold something else: 'text', 'category', 'day'"):
        output.write(MIXED.select(["text", "real", "category", "day"]), tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_binary_files_keep_the_precision(tmp_path: Path, suffix: str) -> None:
    output.write(convert.to_arrow(ROWS.astype(np.float32), ["a", "b"]), tmp_path / f"x{suffix}")
    assert values_of(tmp_path / f"x{suffix}").dtype == np.float32


def test_array_goes_into_npy_in_its_own_shape(tmp_path: Path) -> None:
    output.write(np.zeros((2, 3, 4)), tmp_path / "x.npy")
    assert files.load(tmp_path / "x.npy").shape == (2, 3, 4)


TABLE = convert.to_arrow(ROWS, ["a", "b"])


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", "mine")
    with pytest.raises(OutputExistsError, match=f"{path}. already exists.*--force"):
        output.write(TABLE, path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_existing_file_is_overwritten_when_asked(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", "mine")
    output.write(TABLE, path, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("a,b\n")


def test_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        output.write(TABLE, tmp_path / "x.csv", overwrite=True)


@pytest.mark.parametrize("name", ["x.txt", "x"])
def test_unknown_output_type_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"outputs are \.csv, \.parquet, \.npy"):
        output.require_free_table(tmp_path / name, overwrite=False)


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    csv_file(tmp_path / "x", "a file")
    with pytest.raises(DataError, match="is not a folder"):
        output.require_free_table(tmp_path / "x" / "deep" / "y.csv", overwrite=False)


def test_output_where_one_may_not_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="you may not write to the folder"):
        output.require_free_table(tmp_path / "y.csv", overwrite=False)


def test_new_file_may_be_read_by_whom_the_user_lets(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    output.write(TABLE, tmp_path / "x.csv")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "x.csv")]
    assert modes[0] == modes[1]


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


class FullFile:
    """A file on a full disk: the first bytes go in, then no more."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, content: bytes) -> int:
        self.file.write(bytes(content)[:10])
        return int(no_space())

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def fill_disk_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open
    monkeypatch.setattr(
        output, "open", lambda path, mode: FullFile(real(path, mode)), raising=False
    )


def fill_disk_while_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)


def fill_disk_while_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "open", no_space, raising=False)


def fill_disk_while_making_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.tempfile, "TemporaryDirectory", no_space)


@pytest.mark.parametrize(
    "fill",
    [
        fill_disk_while_writing,
        fill_disk_while_syncing,
        fill_disk_while_opening,
        fill_disk_while_making_folders,
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_full_disk_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    fill: Callable[[pytest.MonkeyPatch], None],
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"mine")
    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(
            TwofoldError, match=r"No space left on device\. Nothing there was changed"
        ):
            output.write(TABLE, path, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\r=x"]
HARMLESS = ["-5", "+1.5e-3", "-1 234,5", "-12%", "-inf", "a=b", "-", "", "it's", "x\n=1"]


def test_formulas_are_marked_in_csv_on_request(tmp_path: Path) -> None:
    table = pa.table({"=a": FORMULAS + HARMLESS, "n": -np.arange(16.0)})
    output.write(table, tmp_path / "safe.csv", csv_safe=True)
    found = pa.csv.read_csv(
        tmp_path / "safe.csv",
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types={"'=a": pa.string()}),
    )
    assert found["'=a"].to_pylist() == [f"'{cell}" for cell in FORMULAS] + HARMLESS
    assert found["n"].to_pylist() == table["n"].to_pylist()


def test_cells_stay_as_they_are_unless_formulas_are_to_be_marked(tmp_path: Path) -> None:
    table = pa.table({"=a": FORMULAS[:4]})
    output.write(table, tmp_path / "plain.csv")
    output.write(table, tmp_path / "safe.parquet", csv_safe=True)
    assert pa.csv.read_csv(tmp_path / "plain.csv").equals(table)
    assert pa.parquet.read_table(tmp_path / "safe.parquet").equals(table)
