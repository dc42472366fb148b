"""Counts of what the service did, in the text format that Prometheus reads.

Source: Prometheus, "Exposition formats", version 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 8192.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.sum = bounds, 0.0
        self.counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        ends = [f"{bound:g}" for bound in self.bounds] + ["+Inf"]
        for end, count in zip(ends, accumulate(self.counts), strict=True):
            yield _line(f"{name}_bucket", (*labels, ("le", end)), count)
        yield _line(f"{name}_sum", labels, self.sum)
        yield _line(f"{name}_count", labels, sum(self.counts))


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    number = str(value) if isinstance(value, int) else repr(float(value))
    return f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Meter:
    """Counters and histograms of one service.

    Parameters
    ----------
    gauges : mapping of name to (help, function)
        What is asked for at the time of reading: the length of the queue, say.

    Examples
    --------
    >>> meter = Meter({"twofold_waiting": ("Requests that wait.", lambda: 2)})
    >>> meter.request("/score", 200, 0.004)
    >>> [line for line in meter.text().splitlines() if line.startswith("twofold_requests_total")]
    ['twofold_requests_total{route="/score",status="200"} 1']
    """

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._gauges = gauges
        self._requests: defaultdict[Labels, int] = defaultdict(int)
        self._rows: defaultdict[Labels, int] = defaultdict(int)
        self._seconds: defaultdict[Labels, _Histogram] = defaultdict(lambda: _Histogram(SECONDS))
        self._batches: defaultdict[Labels, _Histogram] = defaultdict(lambda: _Histogram(SIZES))
        self._batch_rows: defaultdict[Labels, _Histogram] = defaultdict(lambda: _Histogram(SIZES))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[("route", route), ("status", str(status))] += 1
        self._seconds[(("route", route),)].add(seconds)

    def rows(self, route: str, n_rows: int) -> None:
        """Count the rows of a request."""
        self._rows[(("route", route),)] += n_rows

    def call(self, verb: str, n_requests: int, n_rows: int) -> None:
        """Count a call of the library for so many rows, which begins so many requests' answers."""
        if n_requests:
            self._batches[(("verb", verb),)].add(n_requests)
        self._batch_rows[(("verb", verb),)].add(n_rows)

    def text(self) -> str:
        """Return everything in Prometheus's format."""
        lines: list[str] = []
        for name, described, counts in (
            ("twofold_requests_total", "Requests by route and status.", self._requests),
            ("twofold_rows_total", "Rows by route.", self._rows),
        ):
            lines += [f"# HELP {name} {described}", f"# TYPE {name} counter"]
            # Copied, since the thread that computes counts as well.
            lines += [_line(name, labels, count) for labels, count in sorted(counts.copy().items())]
        for name, described, histograms in (
            ("twofold_request_seconds", "Time from request to answer.", self._seconds),
            ("twofold_batch_requests", "Requests that shared a call.", self._batches),
            ("twofold_batch_rows", "Rows that shared a call.", self._batch_rows),
        ):
            lines += [f"# HELP {name} {described}", f"# TYPE {name} histogram"]
            for labels, histogram in sorted(histograms.copy().items()):
                lines += histogram.lines(name, labels)
        for name, (described, value) in self._gauges.items():
            lines += [
                f"# HELP {name} {described}",
                f"# TYPE {name} gauge",
                _line(name, (), value()),
            ]
        return "\n".join(lines) + "\n"
