"""A bench process's end of the talk: JSON lines out; in comes a line per epoch or per request."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Channel:
    """Tells what was measured, and waits for leave to do the next epoch.

    The clock runs from the leave to `epoch_done`, so that waiting for the other peers' turns costs
    nothing. `settings` is what the bench wants done.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = json.loads(sys.argv[1])
        self._out = os.fdopen(self.settings["answers"], "w", encoding="utf-8")
        self._threads: Callable[[], Any] | None = None
        self._begun = 0.0
        _end_with_parent()

    def send(self, **message: Any) -> None:
        """Send one answer."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def start(self, packages: Iterable[str], threads: Callable[[], Any], **notes: Any) -> None:
        """Say that everything is loaded, and wait for leave to begin the first epoch.

        `threads` is asked after every epoch: some libraries choose their number late.
        """
        self._threads = threads
        versions = {name: metadata.version(name) for name in packages}
        self.send(versions={"python": _python_version(), **versions}, **notes)
        self._wait()

    def epoch_done(self, loss: float, **more: Any) -> None:
        """Report the epoch that just ended, and wait for leave to begin the next."""
        seconds = time.perf_counter() - self._begun
        assert self._threads is not None
        self.send(**{"seconds": seconds, "loss": float(loss), "threads": self._threads(), **more})
        self._wait()

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield what is asked for, one after another, until nobody asks any more."""
        for line in sys.stdin:
            yield json.loads(line)

    def _wait(self) -> None:
        if not sys.stdin.readline():
            # No orderly end: some libraries take seconds to shut their threads down.
            os._exit(0)
        self._begun = time.perf_counter()


def _python_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _end_with_parent() -> None:
    """Ask Linux to end this process with its parent: a paused one would not notice otherwise."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
