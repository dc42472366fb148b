"""Errors are one family, and every class says what it is for."""

from __future__ import annotations

import inspect

import pytest

from twofold import errors

CLASSES = [member for _, member in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_are_of_the_family_and_warnings_are_for_users(kind: type[Exception]) -> None:
    assert issubclass(
        kind, UserWarning if kind.__name__.endswith("Warning") else errors.TwofoldError
    )


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_has_a_sentence(kind: type[Exception]) -> None:
    assert (kind.__doc__ or "").endswith(".")


def test_callers_that_know_only_python_catch_them_too() -> None:
    assert issubclass(errors.TwofoldError, ValueError)
    assert issubclass(errors.MissingExtraError, ImportError)
