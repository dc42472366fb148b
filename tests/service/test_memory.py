"""All requests together hold no more than they may."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tests.service.client import ARROW, JSON, Serve, ask, body, good, post, refused
from twofold import Autoencoder
from twofold.service.memory import FREE_BYTES, Account, Share


def test_long_bodies_are_bounded_together(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_memory=800_000)
    held = Share(app.state.service.account)
    held.hold(800_000 + FREE_BYTES)
    body = b'{"rows": [[1,2,3]]' + b" " * 100_000 + b"}"
    answer = ask(app, "POST", "/score", content=body, headers={"content-type": JSON})
    refused(answer, 503)
    assert answer.headers["retry-after"] == "1"
    good(post(app, "/score", {"rows": [[1, 2, 3]]}))  # a short one goes through
    held.release()
    good(ask(app, "POST", "/score", content=body, headers={"content-type": JSON}))
    assert app.state.service.account.used == 0


def test_request_that_never_fits_is_refused_for_good(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_memory=1_000_000)
    rows = pa.table({name: np.zeros(60_000) for name in "abc"})
    answer = ask(app, "POST", "/explain", **body(rows, ARROW))
    assert "--max-memory" in refused(answer, 413)["fix"]
    assert app.state.service.account.used == 0


def test_results_are_counted_as_they_come(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, max_memory=1_000_000)
    answer = post(app, "/impute", {"rows": [[1, 2, None]] * 100, "n_draws": 900})
    assert "more than the 1,000,000 bytes" in refused(answer, 413)["error"]


def test_memory_is_given_back() -> None:
    account = Account(2**30)
    assert not account.is_trimmable
    share = Share(account)
    share.hold(2**25)
    share.release()
    assert account.is_trimmable
    account.trim()
    assert not account.is_trimmable
