"""What every request passes before its route: one class per concern, each plain ASGI.

Routes that are added to the application stand behind all of them, websockets too.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twofold.data import json as cells
from twofold.service.errors import RequestError
from twofold.service.memory import Account, Share
from twofold.service.metrics import Metrics

logger = logging.getLogger(__name__)
OPEN = "/healthz"  # the one route that needs no token
SHARE = "twofold.share"  # where a request finds its share of the memory
GONE = 499  # the status that nginx counts if a client went away
_HOST = re.compile(r"(\[[0-9a-f:.]*\]|[^:\[\]]*)(:[0-9]*)?")
Check = Callable[[Scope], RequestError | None]


def refused(error: RequestError) -> Response:
    """Return the answer that a refused request gets."""
    return Response(cells.dumps(error.document()), error.status, error.headers, "application/json")


class CountRequests:
    """Counts requests by route and status, and how long they took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            status = 500  # the application answers it outside of what it is made of
            raise
        finally:
            path = scope["path"] if "endpoint" in scope else ""
            route = path if path in self._paths else "other"
            self._metrics.request(route, status, time.perf_counter() - started)


class Gate:
    """Lets requests pass that no check finds anything against, in the order of the checks."""

    def __init__(self, app: ASGIApp, checks: Sequence[Check]) -> None:
        self._app, self._checks = app, checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        error = None
        if scope["type"] in ("http", "websocket"):
            error = next((e for check in self._checks if (e := check(scope))), None)
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refused(error)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.error[:100]})


class HoldMemory:
    """Gives each request its share of the memory, and takes it back when it is answered."""

    def __init__(self, app: ASGIApp, account: Account) -> None:
        self._app, self._account = app, account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request hold memory."""
        share = scope[SHARE] = Share(self._account)
        try:
            await self._app(scope, receive, send)
        finally:
            share.release()
            if self._account.is_trimmable:
                await asyncio.to_thread(self._account.trim)


class CutOff:
    """Leaves clients that are gone, or stop taking their answer; the server ends the connection."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send within the time, piece by piece."""

        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                logger.warning("a client stopped taking its answer")
                raise ClientDisconnect from None

        with suppress(ClientDisconnect):
            await self._app(scope, receive, timed if scope["type"] == "http" else send)


def header(scope: Scope, name: bytes) -> str:
    """Return the values of a header, which may be there more than once."""
    return ",".join(text.decode("latin-1") for key, text in scope["headers"] if key == name)


def require_framing(scope: Scope) -> RequestError | None:
    """Refuse requests whose end proxies may see in different places (RFC 9112, section 6.1)."""
    if not {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        return None
    error = "Expected Content-Length or Transfer-Encoding, got both."
    return RequestError(400, error, "Send one of them.", headers={"Connection": "close"})


def require_host(hosts: Sequence[str]) -> Check:
    """Return what refuses requests for other names than these."""
    known = {host.lower() for host in hosts}

    def check(scope: Scope) -> RequestError | None:
        given = header(scope, b"host")
        host = _HOST.fullmatch(given.lower())
        if host is not None and host[1] in known:
            return None
        fix = f"Use one of the allowed hosts: {', '.join(sorted(known))}."
        error = f"Expected a host that is allowed, got {given[:200]!r}."
        return RequestError(421, error, fix)

    return check


def require_token(token: str) -> Check:
    """Return what refuses requests without the token."""

    def check(scope: Scope) -> RequestError | None:
        scheme, _, given = header(scope, b"authorization").partition(" ")
        # In a time that does not depend on how much of it is right.
        right = secrets.compare_digest(given.strip().encode("latin-1"), token.encode())
        if (right and scheme.lower() == "bearer") or scope["path"] == OPEN:
            return None
        fix = "Send the header 'Authorization: Bearer TOKEN'."
        asks = {"WWW-Authenticate": "Bearer"}
        return RequestError(401, "Missing or invalid bearer token.", fix, headers=asks)

    return check
