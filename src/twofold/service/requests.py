"""What a request may ask for, and how: limits, content types, parameters, and its body's bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from twofold.errors import OptionError
from twofold.service.errors import RequestError
from twofold.service.memory import Share

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_NAMES = {type(None): "null", list: "a list", dict: "an object", str: "text"}


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and all together may hold; `create_app` explains each."""

    rows: int = 100_000
    bytes: int = 32 * 2**20
    seconds: float = 30.0
    memory: int = 512 * 2**20

    def __post_init__(self) -> None:
        for name in ("rows", "bytes", "memory"):
            if (value := getattr(self, name)) < 1:
                raise OptionError(f"Expected max_{name} to be at least 1, got {value}.")
        if not self.seconds > 0:
            raise OptionError(f"Expected a timeout of more than 0 seconds, got {self.seconds}.")

    def most_rows(self, n_columns: int) -> int:
        """Return how many rows of so many columns are taken."""
        return max(1, min(self.rows, self.bytes // max(1, n_columns)))

    def check_rows(self, n_rows: int, n_columns: int) -> None:
        """Raise RequestError if these are more rows than are taken at a time."""
        if n_rows > (most := self.most_rows(n_columns)):
            raise RequestError.too_large(
                f"Expected at most {most:,} rows at a time, got a request for {n_rows:,}.",
                "--max-rows or --max-bytes",
            )


def finished(steps: Generator[Any, None, Any]) -> Any:
    """Return what steps come to, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def called(value: Any) -> str:
    """Name what JSON holds.

    Examples
    --------
    >>> called(None), called([1]), called(2.5), called(True)
    ('null', 'a list', 'a number', 'true')
    """
    return str(value).lower() if isinstance(value, bool) else _NAMES.get(type(value), "a number")


def integer(name: str, value: Any, *, text: bool = False) -> int:
    """Return a parameter that is an integer: as JSON has it, or as `text` of the query string."""
    if text and isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # as JSON Schema has it
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    shown = repr(value)[:80] if plain else called(value)
    fix = f"Give {name} as digits, or leave it out."
    raise RequestError(422, f"Expected an integer for {name}, got {shown}.", fix)


def parameters(request: Request, known: Sequence[str]) -> dict[str, int]:
    """Return what the query string gives; it may give each of the `known` once."""
    found: dict[str, int] = {}
    for name, value in request.query_params.multi_items():
        if name not in known or name in found:
            takes = f"{' and '.join(known)}, each once," if known else "no parameters"
            raise RequestError(
                422,
                f"Expected {takes} in the query string, got {name[:100]!r}.",
                "Leave it out, or correct its name.",
            )
        found[name] = integer(name, value, text=True)
    return found


def require_media_type(request: Request, bodies: Sequence[str]) -> str:
    """Return the content type of a body, or raise RequestError if it is not one of these."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in bodies or encoding != "identity":
        came = f"{media_type!r}" if encoding == "identity" else f"content encoding {encoding!r}"
        raise RequestError(
            415,
            f"Expected a body of type {' or '.join(bodies)}, got {came[:200]}.",
            f"Send it as it is, with the content type {' or '.join(bodies)}.",
        )
    return media_type


async def read_body(request: Request, limits: Limits, share: Share) -> bytes:
    """Read a body, within the limits of size and time.

    Raises
    ------
    RequestError
        If it is too large (413), or too slow (408).
    """
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(limits.seconds):
            if size <= limits.bytes:
                size = 0
                async for part in request.stream():
                    size += len(part)
                    if size > limits.bytes:
                        break
                    share.hold(len(part))
                    parts.append(part)
    except TimeoutError:
        raise RequestError(
            408,
            f"Expected the body within {limits.seconds:g} seconds, got a part of it.",
            "Send it faster, or start the service with a larger --timeout.",
            headers={"Connection": "close"},
        ) from None
    if size > limits.bytes:
        error = RequestError.too_large(
            f"Expected a body of at most {limits.bytes:,} bytes, got more.", "--max-bytes"
        )
        error.headers["Connection"] = "close"
        raise error
    if len(parts) > 1:
        share.hold(size)  # briefly it is there twice
    return b"".join(parts)
