"""Counts of what the service did, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of what generate_latest writes
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 8192.0)


class Metrics:
    """Counters and histograms of one service, and of its process.

    `waiting` and `held` give the number of requests that wait, and the bytes that requests hold.

    Examples
    --------
    >>> metrics = Metrics(lambda: 2, lambda: 0)
    >>> metrics.request("/score", 200, 0.004)
    >>> [line for line in metrics.text().decode().splitlines() if "requests_total{" in line]
    ['twofold_requests_total{route="/score",status="200"} 1.0']
    """

    def __init__(self, waiting: Callable[[], float], held: Callable[[], float]) -> None:
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)

        def histogram(name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"twofold_{name}", text, [label], registry=own, buckets=buckets)

        self._requests = Counter(
            "twofold_requests", "Requests by route and status.", ["route", "status"], registry=own
        )
        self._rows = Counter("twofold_rows", "Rows by route.", ["route"], registry=own)
        text = "Time from request to answer."
        self._seconds = histogram("request_seconds", text, "route", _SECONDS)
        text = "Requests that shared a call."
        self._batches = histogram("batch_requests", text, "verb", _SIZES)
        self._batch_rows = histogram("batch_rows", "Rows of a call.", "verb", _SIZES)
        for name, text, value in (
            ("twofold_waiting_requests", "Requests that wait for their turn.", waiting),
            ("twofold_held_bytes", "Bytes of bodies, decoded rows and results.", held),
        ):
            Gauge(name, text, registry=own).set_function(value)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def rows(self, route: str, n_rows: int) -> None:
        """Count the rows of a request."""
        self._rows.labels(route).inc(n_rows)

    def call(self, verb: str, n_requests: int, n_rows: int) -> None:
        """Count a call of the library for so many rows, which begins so many requests' answers."""
        if n_requests:
            self._batches.labels(verb).observe(n_requests)
        self._batch_rows.labels(verb).observe(n_rows)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
