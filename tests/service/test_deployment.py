"""One model is replaced by another as a whole."""

from __future__ import annotations

from starlette.applications import Starlette

from tests.service.client import ask, good
from twofold import Autoencoder


def test_model_is_described(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/model"))
    assert found["options"]["epochs"] == 2
    assert found["offset"] == mixed.offset_
    assert found["layers"][0]["width"] == mixed.schema_.width
    assert found["comparison"]["r2"] == mixed.comparison_.r2
    assert len(found["training"]["history"]) == 2
    assert found["versions"]["twofold"]
