"""What is chosen by name: likelihoods, activations, bottlenecks, corruptions; a record for each.

Options and schemas lie below `nn`, which defines the records, and read names and a few facts of
them. So the registries are declared here, and each imports the module that fills it when it is
first read: neither `import twofold` nor `twofold --help` waits for PyTorch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from twofold.errors import OptionError

Record = TypeVar("Record")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class Registry(Mapping[str, Record], Generic[Record]):
    """Records by name, in the order in which they were added.

    Parameters
    ----------
    noun : str
        What the records are, for messages.
    module : str
        Full name of the module that adds the records that come with the package.
    """

    def __init__(self, noun: str, module: str) -> None:
        self.noun, self._module = noun, module
        self._records: dict[str, Record] = {}

    def add(self, name: str, record: Record) -> None:
        """Add a record.

        Raises
        ------
        OptionError
            If the name is taken, or cannot be an option's value.
        """
        if not _NAME.fullmatch(name) or name in ("auto", "none"):
            raise OptionError(
                f"Expected the name of a {self.noun} in lower-case letters, digits, hyphens and "
                f"underscores, got {name!r}. Choose another name."
            )
        if name in self._records:
            raise OptionError(
                f"Expected a new name for a {self.noun}, got {name!r}, which is taken. Choose "
                f"another."
            )
        self._records[name] = record

    def remove(self, name: str) -> None:
        """Remove a record, so that its name is free again."""
        del self._records[name]

    def __getitem__(self, name: str) -> Record:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, Record]:
        if self._module:
            importlib.import_module(self._module)
            self._module = ""
        return self._records


ACTIVATIONS: Registry[Any] = Registry("activation", "twofold.nn.activations")
BOTTLENECKS: Registry[Any] = Registry("bottleneck", "twofold.nn.bottlenecks")
CORRUPTIONS: Registry[Any] = Registry("corruption", "twofold.nn.corruption")
LIKELIHOODS: Registry[Any] = Registry("likelihood", "twofold.nn.likelihoods")
