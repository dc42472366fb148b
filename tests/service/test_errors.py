"""A refused request is told what to do."""

from __future__ import annotations

import pytest

from twofold.errors import TwofoldError
from twofold.service.errors import RequestError


@pytest.mark.parametrize(
    ("text", "column", "fix"),
    [
        ("Column 'a b' holds x. Do this. And that.", "a b", "Do this. And that."),
        ("Column 'it's' is bad: y. Correct it.", "it's", "Correct it."),
        ("Column 1 holds infinity in row 2. Replace it.", "it's", "Replace it."),
        ("Column 'a b' is x. Column 'z' is y. Drop them.", "a b", "Drop them."),
        ("Names do not match:\n- z\n- y\n", "z", "Correct what the error names"),
        ("X has 2 features, but 5 are expected.", None, "Correct what the error names"),
    ],
)
def test_advice_and_column_are_found_in_errors(text: str, column: str | None, fix: str) -> None:
    found = RequestError.of(TwofoldError(text), ["a b", "it's"]).document()
    assert found["error"] == text
    assert found["column"] == column
    assert found["fix"].startswith(fix)
