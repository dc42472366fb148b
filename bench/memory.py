"""How much memory this process holds, and the most it held since a moment of choice (Linux)."""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Return the bytes that this process holds now."""
    return _status("VmRSS")


def peak() -> int:
    """Return the most bytes that it held since it began, or since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Count the peak from now on (man 5 proc_pid_clear_refs: the value 5)."""
    Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """Return the bytes that processes can still claim without swapping."""
    return _field("/proc/meminfo", "MemAvailable")


def _status(name: str) -> int:
    return _field("/proc/self/status", name)


def _field(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {name}")
