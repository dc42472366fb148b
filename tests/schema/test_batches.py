"""Cells of batches are counted by the levels of all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from twofold.schema.batches import Texts


def test_a_text_that_was_not_there_has_the_last_position() -> None:
    texts = Texts(pa.string(), ["a", "b"], learning=False)
    cells = texts.read(pa.array(["b", "new", None, "a"]))
    np.testing.assert_array_equal(cells, [1, 2, np.nan, 0])
