"""What a request sends: JSON, an Arrow stream or a Parquet file, read within limits.

Rows become an Arrow table with the training table's types where that was a frame, and an array
where it was one, so that they meet the same checks as rows in Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twofold.data import json as cells
from twofold.schema.schema import Schema
from twofold.service import jsonrows, uploads
from twofold.service.errors import Refusal
from twofold.service.jsonrows import Expected, called
from twofold.service.upload_limits import Bounds

JSON = "application/json"
ARROW = uploads.ARROW
PARQUET = uploads.PARQUET
_EXPANSION = 8  # bytes in memory per byte of the largest request: 64-bit floats of single bytes
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_HARMLESS = 2**20  # bytes of JSON: whatever they hold takes little memory


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for.

    Parameters
    ----------
    rows : int
        Rows sent, or asked for.
    bytes : int
        Bytes of the body; rows times columns may not be more either.
    seconds : float
        Time that a request may take to arrive, and again to be answered.
    """

    rows: int = 100_000
    bytes: int = 32 * 2**20
    seconds: float = 30.0

    def bounds(self, n_columns: int) -> Bounds:
        """Return how many rows of so many columns are taken, and how much memory they may take."""
        most = max(1, min(self.rows, self.bytes // max(1, n_columns)))
        return Bounds(most, _EXPANSION * self.bytes)


class Reader:
    """Reads the bodies that are sent to one model.

    Parameters
    ----------
    schema : Schema
        What the model's columns are.
    named : bool
        Whether the model knows its columns by name, and picks them so.
    code_names : sequence of str
        Names of the code's components.
    limits : Limits
    """

    def __init__(
        self, schema: Schema, named: bool, code_names: Sequence[str], limits: Limits
    ) -> None:
        self.limits, self.bounds = limits, limits.bounds(len(schema.columns))
        self._expected = Expected.of(schema)
        self._names = list(schema.names) if named else None
        self._code_names = list(code_names)
        # Lists that a row may open: an image has one for each of its lines.
        self._lists = 1 + math.prod(schema.row_shape[:-1])

    def read(self, media_type: str, body: bytes, fields: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a body: its rows or codes, and what goes with them.

        `fields` are the ones that the route knows. "rows" come back as an Arrow table, as
        `JsonRows` or as an array, "codes" as a table or an array, others as JSON has them.

        Raises
        ------
        Refusal
            Where the body cannot be read, or is too large.
        DataError
            Where its cells are none.
        """
        if media_type != JSON:
            read = uploads.READERS[media_type]
            wanted = self._code_names if fields[0] == "codes" else self._names
            return {fields[0]: read(body, wanted, self.bounds)}
        document = self._document(body, fields)
        if fields[0] in ("rows", "codes"):
            given = document.get(fields[0])
            if not isinstance(given, list):
                raise Refusal(
                    422,
                    f"'{fields[0]}' is {called(given)}, and must be a list of rows.",
                    f'Send {{"{fields[0]}": [[...], ...]}}, with a list of cells for each row.',
                )
            self.bounds.check_rows(len(given))
            reader = jsonrows.array if fields[0] == "codes" else self._expected.rows
            document[fields[0]] = reader(given)
        return document

    def _document(self, body: bytes, fields: Sequence[str]) -> dict[str, Any]:
        self._check_lists(body)
        try:
            document = cells.loads(body)
        except ValueError as error:
            raise Refusal(
                400,
                f"The body cannot be read as JSON: {error}.",
                "Send JSON in UTF-8, with null for a missing cell: JSON has no NaN.",
            ) from None
        if not isinstance(document, dict):
            raise Refusal(
                422,
                f"The body is {called(document)}, and must be an object with {_listed(fields)}.",
                f'Send {{"{fields[0]}": ...}}.',
            )
        for name in document:
            if name not in fields:
                raise Refusal(
                    422,
                    f"There is no field {name[:100]!r}; this route takes {_listed(fields)}.",
                    "Leave the field out, or correct its name.",
                )
        return document

    def _check_lists(self, body: bytes) -> None:
        """Raise Refusal where a long body opens more lists and objects than rows need.

        Empty ones take forty times the memory of their two letters.
        """
        if len(body) <= _HARMLESS:
            return
        if body.count(b"[") + body.count(b"{") > 2 * self._lists * self.bounds.rows:
            raise Refusal(
                413,
                f"This body holds more lists and objects than {self.bounds.rows:,} rows need, and "
                f"no more rows are taken at a time.",
                "Send the rows in parts, or start the service with a larger --max-rows.",
            )


def whole_number(name: str, value: Any) -> int:
    """Return a parameter that is a whole number, from JSON or from the query string."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Refusal(
        422,
        f"{name} must be a whole number; got {_shown(value)}.",
        f"Give {name} as digits, or leave it out.",
    )


def _shown(value: Any) -> str:
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    text = repr(value) if plain else called(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _listed(fields: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in fields)
