"""Only notations that some cells have are worth a test."""

from __future__ import annotations

import pyarrow as pa

from twofold.data.candidates import Hints, candidates


def test_numbers_are_not_tried_as_dates() -> None:
    found = candidates(pa.array(["1.5", "2"]), Hints())
    assert not any(notation.pattern for notation in found)


def test_what_was_learned_in_training_comes_first() -> None:
    known = candidates(pa.array(["26:10", "3:15"]), Hints())
    durations = next(notation for notation in known if notation.is_duration)
    again = candidates(pa.array(["3:15", "4:10"]), Hints(known=durations))
    assert again[0] == durations
