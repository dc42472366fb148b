"""What the measures ran on, and whether anything else was running there meanwhile."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
# Field positions in man 5 proc_stat: the aggregate line of /proc/stat, and /proc/<pid>/stat after
# the command's closing parenthesis.
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7
_PARENT, _OWN_AND_REAPED = 1, slice(11, 15)

# Above this share of one core, others were at work while a measure ran.
QUIET_BELOW = 0.1


def describe(cores: Sequence[int]) -> dict[str, Any]:
    """Return processor, cores used, memory and system, as far as this system tells."""
    return {
        "processor": _processor(),
        "cores_used": len(cores),
        "cores_present": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Return the model's name and its widest vector instructions."""
    try:
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    family = f"family {fields['cpu family']} model {fields['model']}" if "model" in fields else ""
    flags = fields.get("flags", "").split()
    widest = next((flag for flag in ("amx_bf16", "avx512f", "avx2", "avx") if flag in flags), "")
    return ", ".join(part for part in (name, family, widest) if part)


class Watch:
    """Measures, from start to stop, how busy processes other than the bench's kept the cores."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._before = _snapshot()

    def stop(self) -> dict[str, float]:
        """Return the cores that others used, and that the host took, on average since the start."""
        after, wall = _snapshot(), time.perf_counter() - self._wall
        if self._before is None or after is None:
            return {}
        busy, own, stolen = (b - a for a, b in zip(self._before, after, strict=True))
        return {
            "cores_used_by_others": round(max(0.0, busy - own) / _TICKS / wall, 3),
            "cores_taken_by_host": round(stolen / _TICKS / wall, 3),
            "load_average": os.getloadavg()[0],
            "seconds": wall,
        }


def _snapshot() -> tuple[int, int, int] | None:
    """Return ticks that all processes, the bench's own, and the host's other guests have used."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    busy = sum(ticks[i] for i in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ))
    return busy, _own_ticks(), ticks[_STEAL]


def _own_ticks() -> int:
    """Return ticks that this process, its descendants, and those that ended have used."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(folder.name)
        parents[pid] = int(fields[_PARENT])
        used[pid] = sum(int(word) for word in fields[_OWN_AND_REAPED])
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(used.get(pid, 0) for pid in own)


def verdict(loads: Iterable[dict[str, float]]) -> dict[str, Any]:
    """Sum up the loads of all measures: was the machine quiet?"""
    known = [load for load in loads if load]
    if not known:
        return {"quiet": None, "words": "this system does not say what else was running"}
    others = [load["cores_used_by_others"] for load in known]
    taken = [load["cores_taken_by_host"] for load in known]
    disturbed = sum(
        a >= QUIET_BELOW or b >= QUIET_BELOW for a, b in zip(others, taken, strict=True)
    )
    quiet = disturbed <= 0.05 * len(known)
    words = (
        f"other processes used {statistics.median(others):.2f} cores (median over "
        f"{len(known)} measures; at most {max(others):.2f}), the host took at most {max(taken):.2f}"
    )
    return {
        "quiet": quiet,
        "words": words,
        "measures": len(known),
        "disturbed_measures": disturbed,
        "cores_used_by_others_median": statistics.median(others),
        "cores_used_by_others_most": max(others),
        "cores_taken_by_host_most": max(taken),
        "load_average_most": max(load["load_average"] for load in known),
    }
