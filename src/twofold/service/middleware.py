"""Who may ask the service, how much memory their requests take, and how answers leave it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twofold.data import json as cells
from twofold.errors import MissingExtraError
from twofold.service.errors import Refusal
from twofold.service.metrics import Meter

try:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as missing:
    raise MissingExtraError(
        "The service needs FastAPI and uvicorn, which are not installed. Install "
        "'twofold[service]'."
    ) from missing

logger = logging.getLogger(__name__)
OPEN = "/healthz"  # the one route that needs no token
HELD = "twofold.held"  # where a request finds what it holds
_FREE_BYTES = 2**16  # of each request, which do not count
_GONE = 499  # the status that nginx counts where a client went away


def json_answer(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer in JSON."""
    return Response(cells.dumps(document), status, headers, "application/json")


def refused(refusal: Refusal) -> Response:
    """Return the answer that a refusal is."""
    return json_answer(refusal.document(), refusal.status, refusal.headers)


def nobody() -> Response:
    """Return the answer to a client that has gone."""
    return Response(status_code=_GONE)


class Memory:
    """The bytes that long bodies may take together.

    Attributes
    ----------
    used : int
    """

    def __init__(self, most: int) -> None:
        self._most, self.used = most, 0

    def take(self, n_bytes: int) -> None:
        """Take more of it, or raise Refusal."""
        if self.used + n_bytes > self._most:
            raise Refusal(
                503,
                "The service holds as many long bodies as it can.",
                "Try again later.",
                headers={"Retry-After": "1"},
            )
        self.used += n_bytes


class Held:
    """The part of the memory that one request's body takes."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._bytes = memory, 0

    def grow_to(self, size: int) -> None:
        """Hold a body of this size, or raise Refusal."""
        more = max(0, size - _FREE_BYTES - self._bytes)
        self._memory.take(more)
        self._bytes += more

    def release(self) -> None:
        """Give everything back."""
        self._memory.used -= self._bytes
        self._bytes = 0


class Guarded(Protocol):
    """What the guard needs of a service."""

    meter: Meter
    memory: Memory
    paths: frozenset[str]


class Guard:
    """Asks every request for the token, counts it, and gives back what it held."""

    def __init__(
        self, app: ASGIApp, service: Guarded, token: str | None, hosts: Sequence[str] | None
    ) -> None:
        self._app, self._service = app, service
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), _GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        held = scope[HELD] = Held(self._service.memory)
        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, counted)
            else:
                await refused(refusal)(scope, receive, counted)
        finally:
            held.release()
            path = scope["path"] if "endpoint" in scope else ""
            route = path if path in self._service.paths else "other"
            self._service.meter.request(route, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = dict(scope["headers"])
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
            if name not in self._hosts:
                return Refusal(
                    421,
                    f"The service is not called {name[:200]!r}.",
                    f"Call it by {' or '.join(sorted(self._hosts))}.",
                )
        if self._token is None or scope["path"] == OPEN:
            return None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # In a time that does not tell how much of it is right.
        if secrets.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer":
            return None
        return Refusal(
            401,
            "The service asks for its token, and none came or another one.",
            "Send the header 'Authorization: Bearer TOKEN'.",
            headers={"WWW-Authenticate": "Bearer"},
        )


class InPieces(Response):
    """An answer that is written while it is sent, to a client that keeps taking it."""

    def __init__(
        self,
        first: Any,
        pieces: Iterator[Any],
        at_desk: Callable[[Callable[[], Any]], Awaitable[Any]],
        seconds: float,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self._first, self._pieces = first, pieces
        self._at_desk, self._seconds = at_desk, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        piece = self._first
        try:
            while piece is not None:
                async with asyncio.timeout(self._seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await self._at_desk(lambda: next(self._pieces, None))
        except TimeoutError:
            logger.warning("a client stopped taking its answer")
            return  # the server ends the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})
