"""A million rows of mixed columns: seconds and memory of `fit` and `score_samples`."""

from __future__ import annotations

from typing import Any

import sources
from trials import Arrays, Entry, Rows, Settings, Trial


def trials(settings: Settings) -> list[Trial]:
    n_rows = 5_000 if settings.quick else 1_000_000
    return [
        Trial("large", container, 0, "script", ("large",), _nothing, _as_it_is, options, alone=True)
        for container in ("Arrow",)
        for options in [{"n_rows": n_rows, "container": container}]
    ]


def _nothing() -> Rows:
    return Rows({"generator": sources.raw(sources.HERE / "measures" / "large.py")})


def _as_it_is(answer: Arrays, rows: Rows) -> dict[str, Any]:
    return dict(answer)


def summary(entries: list[Entry]) -> dict[str, Any]:
    return {
        "tables": {
            entry["set"]: entry.get("result") or {"failed": entry["failed"]} for entry in entries
        }
    }
