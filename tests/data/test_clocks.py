"""Times of day and durations are seconds, and are written as they were."""

from __future__ import annotations

import pyarrow as pa
import pytest

from twofold.data import clocks


@pytest.mark.parametrize(
    ("pattern", "cells", "seconds"),
    [
        ("%H:%M:%S", ["13:08:05", "00:00:00"], [47_285, 0]),
        ("%I:%M %p", ["12:00 AM", "12:59 PM", "01:00 PM"], [0, 46_740, 46_800]),
        ("%J:%M:%S", ["100:00:01"], [360_001]),
        ("%j days %H:%M:%S", ["2 days 03:00:00"], [183_600]),
        ("%Hh%M", ["17h44", "07h05"], [63_840, 25_500]),
    ],
)
def test_seconds_come_back(pattern: str, cells: list[str], seconds: list[float]) -> None:
    found = clocks.read(pa.chunked_array([cells]), pattern).to_pylist()
    assert found == seconds
    assert clocks.write(found, pattern, True, -1, False) == cells


def test_the_last_second_of_a_day_is_not_the_next_day() -> None:
    assert clocks.write([86_399.9], "%H:%M", True, -1, False) == ["23:59"]
    assert clocks.write([86_399.9996], "%H:%M:%S%f", True, 3, False) == ["23:59:59.999"]
    assert clocks.write([59.9996], "%M:%S%f", False, 3, False) == ["1:00.000"]


def test_a_year_and_a_quarter_are_no_duration() -> None:
    cells = pa.chunked_array([["1978:2", "1:41.11", "9.58", "59", "1:60"]])
    for pattern in clocks.DURATIONS:
        assert clocks.read(cells, pattern).to_pylist()[0] is None
    assert clocks.read(cells, "%N:%S%f").to_pylist() == [None, 101.11, 9.58, 59.0, None]


@pytest.mark.parametrize(
    ("pattern", "cells", "seconds"),
    [
        ("%Jh %mm", ["2h 30m", "10h 5m", "3h 0m"], [9000, 36_300, 10_800]),
        ("%Jh %mm%?", ["2h 30m", "19h", "45m", "0m"], [9000, 68_400, 2700, 0]),
        ("%J hr %m min%?", ["2 hr 5 min", "3 hr"], [7500, 10_800]),
        ("%Jh%mm%?", ["2h30m", "2h"], [9000, 7200]),
    ],
)
def test_durations_in_words_come_back(pattern: str, cells: list[str], seconds: list[float]) -> None:
    found = clocks.read(pa.chunked_array([cells]), pattern).to_pylist()
    assert found == seconds
    assert clocks.write(found, pattern, False, -1, False) == cells
