"""The service counts what it does."""

from __future__ import annotations

from tests.service.client import Serve, ask, post
from twofold import Autoencoder


def test_metrics_count(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats)
    post(app, "/score", {"rows": [[1, 2, 3]] * 4})
    post(app, "/score", {"rows": 3})
    ask(app, "GET", "/nowhere")
    text = ask(app, "GET", "/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    expected = {
        'twofold_requests_total{route="/score",status="200"}': 1,
        'twofold_requests_total{route="/score",status="422"}': 1,
        'twofold_requests_total{route="other",status="404"}': 1,
        'twofold_rows_total{route="/score"}': 4,
        'twofold_request_seconds_count{route="/score"}': 2,
        'twofold_batch_requests_count{verb="score"}': 1,
        'twofold_batch_rows_sum{verb="score"}': 4,
        "twofold_waiting_requests": 0,
        "twofold_held_bytes": 0,
    }
    assert {name: float(lines[name]) for name in expected} == expected
    assert float(lines["process_resident_memory_bytes"]) > 1e6
