"""One model is replaced by another as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette

from tests.service.client import Serve, ask, fitted, good, post
from twofold import Autoencoder
from twofold.errors import OptionError, TwofoldError


def test_model_is_described(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(ask(people_app, "GET", "/model"))
    assert found["options"]["epochs"] == 2
    assert found["offset"] == mixed.offset_
    assert found["layers"][0]["width"] == mixed.schema_.width
    assert found["comparison"]["r2"] == mixed.comparison_.r2
    assert len(found["training"]["history"]) == 2
    assert found["versions"]["twofold"]
    assert (found["version"], found["replaced"]) == (None, False)


def test_replaced_folder_is_noticed_and_loaded_again(
    serve: Serve, floats: Autoencoder, tmp_path: Path
) -> None:
    floats.save(tmp_path / "model")
    app = serve(tmp_path / "model")
    rows = {"rows": [[1, 2, 3]]}
    before = good(ask(app, "GET", "/model"))
    assert before["version"]
    assert not before["replaced"]
    rng = np.random.default_rng(5)
    other = fitted(pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"]), n_components=1)
    other.save(tmp_path / "model", overwrite=True)
    assert good(ask(app, "GET", "/model"))["replaced"]
    first = good(post(app, "/score", rows))["score"]
    app.state.service.reload()
    after = good(ask(app, "GET", "/model"))
    assert after["version"] != before["version"]
    assert not after["replaced"]
    assert good(post(app, "/score", rows))["score"] != first
    assert len(good(post(app, "/encode", rows))["names"]) == 1


def test_folder_that_cannot_be_loaded_leaves_the_model(
    serve: Serve, floats: Autoencoder, tmp_path: Path
) -> None:
    floats.save(tmp_path / "model")
    app = serve(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{")
    with pytest.raises(TwofoldError):
        app.state.service.reload()
    assert good(ask(app, "GET", "/model"))["replaced"]
    good(post(app, "/score", {"rows": [[1, 2, 3]]}))


def test_model_from_memory_is_not_loaded_again(serve: Serve, floats: Autoencoder) -> None:
    with pytest.raises(OptionError, match="from memory"):
        serve(floats).state.service.reload()
