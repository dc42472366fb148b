"""What every request passes before its route: one class per concern, each plain ASGI.

Routes that are added to the application stand behind all of them, websockets too.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence

from twofold.data import json as cells
from twofold.errors import MissingExtraError
from twofold.service.errors import RequestError
from twofold.service.memory import Account, Share
from twofold.service.metrics import Metrics

try:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as missing:
    raise MissingExtraError(
        "The service needs Starlette, uvicorn and prometheus-client, which are not installed. "
        "Install 'twofold[service]'."
    ) from missing

OPEN = "/healthz"  # the one route that needs no token
SHARE = "twofold.share"  # where a request finds its share of the memory
GONE = 499  # the status that nginx counts if a client went away
_HOST = re.compile(r"(\[[0-9a-f:.]*\]|[^:\[\]]*)(:[0-9]*)?")


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
        finally:
            path = scope["path"] if "endpoint" in scope else ""
            route = path if path in self._paths else "other"
            self._metrics.request(route, status, time.perf_counter() - started)


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


class _Gate:
    """Lets requests pass that a check finds nothing against."""

    def __init__(self, app: ASGIApp, check: Callable[[Scope], RequestError | None]) -> None:
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        error = self._check(scope) if scope["type"] in ("http", "websocket") else None
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refused(error)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.error[:100]})


def headers_of(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header, which may be there more than once."""
    return [text.decode("latin-1") for key, text in scope["headers"] if key == name]


class RequireFraming(_Gate):
    """Refuses requests whose end proxies may see in different places (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, self._error)

    @staticmethod
    def _error(scope: Scope) -> RequestError | None:
        names = {name for name, _ in scope["headers"]}
        if not {b"content-length", b"transfer-encoding"} <= names:
            return None
        return RequestError(
            400,
            "The request has both Content-Length and Transfer-Encoding.",
            "Send one of them.",
            headers={"Connection": "close"},
        )


class RequireHost(_Gate):
    """Refuses requests for other names than those of the service, if it knows its own."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        super().__init__(app, self._error)
        self._hosts = {host.lower() for host in hosts}

    def _error(self, scope: Scope) -> RequestError | None:
        given = ",".join(headers_of(scope, b"host"))
        host = _HOST.fullmatch(given.lower())
        if host is not None and host[1] in self._hosts:
            return None
        return RequestError(
            421,
            f"Host {given[:200]!r} is not allowed.",
            f"Use one of the allowed hosts: {', '.join(sorted(self._hosts))}.",
        )


class RequireToken(_Gate):
    """Refuses requests without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        super().__init__(app, self._error)
        self._token = token.encode()

    def _error(self, scope: Scope) -> RequestError | None:
        if scope["path"] == OPEN:
            return None
        scheme, _, token = ",".join(headers_of(scope, b"authorization")).partition(" ")
        # In a time that does not depend on how much of it is right.
        right = secrets.compare_digest(token.strip().encode("latin-1"), self._token)
        if right and scheme.lower() == "bearer":
            return None
        return RequestError(
            401,
            "Missing or invalid bearer token.",
            "Send the header 'Authorization: Bearer TOKEN'.",
            headers={"WWW-Authenticate": "Bearer"},
        )
