"""Records are found by name, wherever they were registered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from twofold.errors import OptionError
from twofold.registry import LIKELIHOODS, Registry


def test_records_come_in_the_order_in_which_they_were_added() -> None:
    records: Registry[int] = Registry("number", "twofold.registry")
    records.add("two", 2)
    records.add("one", 1)
    assert dict(records) == {"two": 2, "one": 1}
    assert list(records) == ["two", "one"]


def test_a_name_that_was_removed_is_free() -> None:
    records: Registry[int] = Registry("number", "twofold.registry")
    records.add("one", 1)
    records.remove("one")
    records.add("one", 2)
    assert records["one"] == 2


@pytest.mark.parametrize("name", ["one", "auto", "none", "One", "a:b", ""])
def test_a_name_that_is_taken_or_no_word_is_refused(name: str) -> None:
    records: Registry[int] = Registry("number", "twofold.registry")
    records.add("one", 1)
    with pytest.raises(OptionError, match="number"):
        records.add(name, 2)


def test_the_records_of_the_package_are_there_whoever_asks_first() -> None:
    code = "from twofold.registry import LIKELIHOODS; print(*LIKELIHOODS)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == list(LIKELIHOODS)


def test_importing_the_registry_waits_for_nothing() -> None:
    code = "import sys, twofold.registry; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
