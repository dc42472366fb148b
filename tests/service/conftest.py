"""Models that are served, and applications that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette

from tests.service.client import fitted, people
from twofold import Autoencoder
from twofold.service import app as service


@pytest.fixture(scope="module")
def mixed() -> Autoencoder:
    return fitted(people(), kinds={"visits": "count"})


@pytest.fixture(scope="module")
def array() -> Autoencoder:
    return fitted(np.random.default_rng(0).normal(size=(80, 4)), n_components=2)


@pytest.fixture(scope="module")
def images() -> Autoencoder:
    x = np.random.default_rng(0).random((60, 4, 5), dtype=np.float32)
    return fitted(x, n_components=3)


@pytest.fixture(scope="module")
def floats() -> Autoencoder:
    rng = np.random.default_rng(0)
    return fitted(pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"]), n_components=2)


@pytest.fixture
def serve() -> Iterator[Callable[..., Starlette]]:
    """Make applications whose threads end with the test."""
    made: list[Starlette] = []

    def make(ae: Autoencoder, **settings: Any) -> Starlette:
        made.append(service.create_app(ae, **settings))
        return made[-1]

    yield make
    for app in made:
        app.state.service.close()


@pytest.fixture(scope="module")
def people_app(mixed: Autoencoder) -> Iterator[Starlette]:
    app = service.create_app(mixed)
    yield app
    app.state.service.close()
