"""How much memory this process may still take: what is free, and what limits leave it."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_UNKNOWN = 4 * 2**30  # bytes, where the system does not tell
_UNLIMITED = 2**60


def available() -> int:
    """Return how many bytes the process can take before the machine or a limit refuses.

    Counted are free memory, the limits of control groups (containers), and the process's own
    (`ulimit -v`, `ulimit -d`).
    """
    return max(0, min([_free(), *_left_by_groups(), *_left_by_limits()]))


def _free() -> int:
    found = _figures(Path("/proc/meminfo")).get("MemAvailable")
    if found is not None:
        return found
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _figures(path: Path) -> dict[str, int]:
    """Read lines such as "VmSize:  1024 kB" as bytes."""
    lines = _text(path).splitlines()
    parts = [line.split() for line in lines if line.endswith(" kB")]
    return {part[0].rstrip(":"): int(part[1]) * 1024 for part in parts if len(part) == 3}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _left_by_groups(root: Path = Path("/sys/fs/cgroup"), own: Path | None = None) -> list[int]:
    """Return what the control group and those around it leave (cgroups 2, and memory of 1)."""
    left = []
    for line in _text(own or Path("/proc/self/cgroup")).splitlines():
        _, kinds, place = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = root / kinds
        names = ("memory.max", "memory.current") if not kinds else _NAMES_OF_1
        folder = top / place.lstrip("/")
        # In a container, the path may be that of the machine outside: then only the top is there.
        for level in {folder, *folder.parents} & {top, *(top / p for p in _parents(place))}:
            most, used = (_text(level / name).strip() for name in names)
            if most.isdigit() and used.isdigit() and int(most) < _UNLIMITED:
                left.append(int(most) - int(used) + _reclaimable(level))
    return left


_NAMES_OF_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _parents(place: str) -> list[str]:
    parts = [part for part in place.split("/") if part]
    return ["/".join(parts[:n]) for n in range(len(parts) + 1)]


def _reclaimable(group: Path) -> int:
    """Return how much of a group's memory is files' pages that it can do without."""
    for line in _text(group / "memory.stat").splitlines():
        name, _, number = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(number)
    return 0


def _left_by_limits() -> list[int]:
    if resource is None:
        return []
    taken = _figures(Path("/proc/self/status"))
    left = []
    for name, size in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            left.append(limit - taken.get(size, 0))
    return left
