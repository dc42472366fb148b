"""A fit that fails, or that the user ends, leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Put everything back, weights included, where the body does not come to its end."""
    before = estimator.__dict__.copy()
    modules = [before[name] for name in ("network_", "_objective") if name in before]
    states = [deepcopy(module.state_dict()) for module in modules]
    try:
        yield
    except BaseException:
        for module, state in zip(modules, states, strict=True):
            module.load_state_dict(state)
        if "_step" in before:
            before["_step"] = None  # its memory of past gradients belongs to what was undone
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
