"""One trial: the same rows for every method, and what is kept back to judge their answers by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
Entry = dict[str, Any]  # what the cache holds of one finished method: see pool.py


@dataclass(frozen=True)
class Rows:
    """What methods are given, what only the judge sees (labels, hidden cells), and facts to tell.

    Methods run in processes of their own, to which only `given` goes.
    """

    given: Arrays
    kept: Arrays = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a fingerprint of everything that the trial's result hangs on."""
        sha = hashlib.sha256()
        for part in (self.given, self.kept):
            for name, array in sorted(part.items()):
                sha.update(f"{name} {array.dtype} {array.shape};".encode())
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Trial:
    """One set under one seed, for all methods of a row.

    `call` says how methods are called: "detector" and "imputer" are the two sorts that have peers,
    "study" is a measure of twofold alone, "script" a process of its own. A trial that is `alone`
    has the machine for itself.
    """

    row: str
    set: str
    seed: int
    call: str
    methods: tuple[str, ...]
    make: Callable[[], Rows]
    judge: Callable[[Arrays, Rows], dict[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    quick: bool = False
    seeds: int | None = None

    def count(self, usual: int, quick: int = 1) -> int:
        """Return how many seeds a row has that usually has `usual`."""
        return self.seeds or (quick if self.quick else usual)


@dataclass(frozen=True)
class Row:
    """One row of the bench: its trials, and how their results are summed up."""

    trials: Callable[[Settings], list[Trial]]
    summary: Callable[[list[Entry]], dict[str, Any]]
