"""The kernels' tests need the compiled library."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _compiled(compiled: None) -> None:
    """Compile the library, or skip."""
