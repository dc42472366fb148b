"""A request that is refused: its status, and the text that says what came and what to do about it.

The library's own errors keep their words; the sentences that say what to do, and the column they
speak of, are given apart as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from twofold.errors import TwofoldError

_MOST_TEXT = 10_000  # letters; a cell that a message quotes may be as long as a request
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z'\"])")
_NOT_ADVICE = ("Column ", "So it is with ", "It has ", "Its columns are ", "Feature names ")
_QUOTED = re.compile(r"[Cc]olumn '(.*?)'(?=[ ,.:;]|$)")
_NUMBERED = re.compile(r"[Cc]olumn (\d+) ")
_LISTED = re.compile(r"^- (.+)$", re.MULTILINE)  # as scikit-learn lists names that do not fit
_CORRECT = (
    "Correct what the error names, and send the request again; GET /schema lists the columns."
)


class RequestError(Exception):
    """A request that is refused: HTTP status, what came and why, what to do, and which column."""

    def __init__(
        self,
        status: int,
        error: str,
        fix: str,
        column: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.fix, self.column = status, _short(error), _short(fix), column
        self.headers = dict(headers or {})

    @classmethod
    def busy(cls, error: str) -> RequestError:
        """Return the refusal of a request that there is no room for now."""
        return cls(503, error, "Try again later.", headers={"Retry-After": "1"})

    @classmethod
    def too_large(cls, error: str, option: str) -> RequestError:
        """Return the refusal of a request that an option of the service limits."""
        fix = f"Send the rows in parts, or start the service with a larger {option}."
        return cls(413, error, fix)

    @classmethod
    def of(cls, error: TwofoldError, names: Sequence[str] = ()) -> RequestError:
        """Return the refusal that an error of the library is; `names` are the model's columns.

        Examples
        --------
        >>> from twofold.errors import DataError
        >>> text = "Column 'age' holds infinity in row 3. Replace it by a number."
        >>> RequestError.of(DataError(text), ["age"]).document()["fix"]
        'Replace it by a number.'
        """
        text = str(error)
        advice = [s for s in _SENTENCES.split(text)[1:] if not s.startswith(_NOT_ADVICE)]
        return cls(422, text, " ".join(advice) or _CORRECT, _column(text, names))

    def document(self) -> dict[str, Any]:
        """Return the answer's body."""
        return {"error": self.error, "column": self.column, "fix": self.fix}


def _column(text: str, names: Sequence[str]) -> str | None:
    """Return the first column that an error speaks of."""
    if found := _QUOTED.search(text):
        if found[1] in names:
            return found[1]
        # A name may hold quotes itself.
        return next((name for name in names if f"olumn '{name}'" in text), found[1])
    if (found := _NUMBERED.search(text)) and int(found[1]) < len(names):
        return names[int(found[1])]
    listed = _LISTED.search(text)
    return listed[1] if listed else None


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
