"""How much memory this process holds, and the most it held since a moment of choice (Linux)."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path


def begin() -> int:
    """Count the peak from now on, and return the bytes that this process holds now.

    What is free but still held is given back first, or later use of it would not be seen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # man 5 proc_pid_clear_refs: the value 5 resets the peak.
    Path("/proc/self/clear_refs").write_text("5")
    return _field("/proc/self/status", "VmRSS")


def peak() -> int:
    """Return the most bytes that it held since `begin`."""
    return _field("/proc/self/status", "VmHWM")


def available() -> int:
    """Return the bytes that processes can still claim without swapping."""
    return _field("/proc/meminfo", "MemAvailable")


def _field(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {name}")
