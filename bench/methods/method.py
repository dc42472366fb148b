"""What a method is: a function here, or a class of PyOD's in its own environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A function that runs in twofold's environment.

    `uses` is the package that does the work, `helpers` are functions of the bench that it calls,
    `constants` what else of the bench its answer hangs on.
    """

    function: Callable[..., Any]
    uses: str = "twofold"
    helpers: tuple[Callable[..., Any], ...] = ()
    constants: tuple[Any, ...] = ()
    script: str = "measures/run_method.py"

    def code(self) -> str:
        """Return the text that a cached result depends on, beside the package's."""
        texts = [inspect.getsource(part) for part in (self.function, *self.helpers)]
        return "".join([*texts, *map(repr, self.constants)])


@dataclass(frozen=True)
class Peer:
    """A detector of PyOD with its default options; `seeded` ones take a random_state."""

    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seeded: bool = True
    uses: str = "pyod"
    script: str = "peers/pyod_scores.py"

    def code(self) -> str:
        return f"{self.path} {sorted(self.options.items())} {self.seeded}"
