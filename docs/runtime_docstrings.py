"""The docstrings that a class has once it is made: `Autoencoder` lists its options only then."""

from __future__ import annotations

import inspect
from typing import Any

import griffe

from twofold import Autoencoder


class RuntimeDocstrings(griffe.Extension):
    """Takes the estimator's docstring from the class in place of its source."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Replace the docstring that is still a template."""
        if cls.name == Autoencoder.__name__ and cls.docstring is not None:
            cls.docstring.value = inspect.getdoc(Autoencoder) or ""
