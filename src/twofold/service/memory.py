"""How many bytes all requests together hold, and giving memory back to the operating system."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa

from twofold.service.errors import RequestError

FREE_BYTES = 2**16  # of each request, which do not count: a short request is always taken
_OBJECT_BYTES = 64  # of a cell that is a Python object
_TRIM_BYTES, _TRIM_SECONDS = 2**24, 0.5


class Account:
    """Counts the bytes that requests hold, at most `most`: bodies, decoded rows and results."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self._lock = threading.Lock()
        self._released, self._trimmed = 0, 0.0

    def take(self, n_bytes: int, held: int) -> None:
        """Take bytes for a request that holds `held`.

        Raises
        ------
        RequestError
            If there is no room: now (503), or ever for this request (413).
        """
        with self._lock:
            if self.used + n_bytes <= self.most:
                self.used += n_bytes
                return
        if held + n_bytes > self.most:
            raise RequestError.too_large(
                f"This request needs more than the {self.most:,} bytes that all requests together "
                f"may take.",
                "--max-memory",
            )
        raise RequestError.busy("The requests in progress take as much memory as they may.")

    def release(self, n_bytes: int) -> None:
        """Take note of bytes that are free again."""
        with self._lock:
            self.used -= n_bytes
            self._released += n_bytes

    @property
    def is_trimmable(self) -> bool:
        """Whether there is much that the process has freed, and some time has gone by."""
        waited = time.monotonic() - self._trimmed > _TRIM_SECONDS
        return self._released > _TRIM_BYTES and waited

    def trim(self) -> None:
        """Give freed memory back to the operating system."""
        self._released, self._trimmed = 0, time.monotonic()
        pa.default_memory_pool().release_unused()
        if _malloc_trim is not None:
            _malloc_trim(0)


class Share:
    """What one request holds of the account."""

    def __init__(self, account: Account) -> None:
        self._account, self._held, self._taken = account, 0, 0

    def hold(self, n_bytes: int) -> None:
        """Hold more bytes, or raise RequestError."""
        more = max(0, self._held + n_bytes - FREE_BYTES - self._taken)
        self._account.take(more, self._taken)
        self._taken += more
        self._held += n_bytes

    def release(self) -> None:
        """Give everything back."""
        taken, self._taken, self._held = self._taken, 0, 0
        self._account.release(taken)


def size_of(value: Any) -> int:
    """Return about how many bytes rows or results take.

    Examples
    --------
    >>> size_of({"score": np.zeros(10)}), size_of([pa.table({"a": [1.0, 2.0]})])
    (80, 16)
    """
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        return int(value.size * _OBJECT_BYTES)
    return int(getattr(value, "nbytes", 0))


try:
    _malloc_trim: Any = ctypes.CDLL(None).malloc_trim  # glibc alone has it
except (AttributeError, OSError, TypeError):
    _malloc_trim = None
