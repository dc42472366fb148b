"""The compiled library, compiled here where the package was not installed with it."""

from __future__ import annotations

import pytest

from twofold.training.native import build, library


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile the library where it is missing or of other sources; skip without a compiler."""
    if library.find("").library is None:
        try:
            build.compile_library()
        except build.NoCompilerError as error:
            pytest.skip(f"the native step cannot be compiled here: {error}")
        library.forget()
    found = library.find("")
    assert found.library is not None, found.reason
