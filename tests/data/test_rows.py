"""Rows that come once are kept, in memory or in files, and others stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from twofold.data.files import Files, OpenFiles
from twofold.data.rows import at_hand, opened

TABLE = pa.table({"x": np.arange(100.0), "y": [str(i % 3) for i in range(100)]})


def test_a_stream_becomes_a_table() -> None:
    rows, scratch = at_hand(TABLE.to_reader(max_chunksize=7))
    assert rows == TABLE
    assert scratch is None


def test_a_stream_that_is_too_long_becomes_files_as_long_as_they_are_needed() -> None:
    rows, scratch = at_hand(TABLE.to_reader(max_chunksize=7), most=200)
    assert isinstance(rows, Files)
    assert scratch is not None
    for _ in range(2):
        found = rows.open(stream=True)
        assert isinstance(found, OpenFiles)
        assert pa.concat_tables(part for _, part in found.chunks()).to_pydict() == TABLE.to_pydict()
    folder = Path(scratch.name)
    del found, scratch
    assert not folder.exists()


def test_other_rows_stay_what_they_are() -> None:
    for rows in (TABLE, TABLE.to_pandas(), np.zeros((3, 2)), Files("x.csv"), "x.csv"):
        assert at_hand(rows)[0] is rows


def test_what_is_opened_may_be_kept_first() -> None:
    assert opened(TABLE.to_reader()) == TABLE
