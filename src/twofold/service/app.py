"""The service: one fitted model over HTTP, a route per verb.

`create_app` makes an ordinary Starlette application. Routes that are added to it stand behind the
same token and host check, and what they raise is answered in the same form.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from twofold import options
from twofold.data import json as cells
from twofold.errors import OptionError, TwofoldError
from twofold.estimators.autoencoder import Autoencoder
from twofold.service import middleware, openapi, responses
from twofold.service.batching import BatchingExecutor, Steps
from twofold.service.errors import RequestError
from twofold.service.json_rows import JsonRows
from twofold.service.memory import Account
from twofold.service.metrics import CONTENT_TYPE, Metrics
from twofold.service.middleware import OPEN, SHARE, refused
from twofold.service.model import ServedModel
from twofold.service.requests import (
    ARROW,
    JSON,
    Limits,
    finished,
    integer,
    parameters,
    read_body,
    require_media_type,
)
from twofold.service.responses import Answer
from twofold.verbs import VERBS, Verb

_SMALL = {JSON: 2**15, ARROW: 2**19}  # bytes that are read at once, without a thread
_SMALL_ANSWER = 10_000  # cells that are written at once
_GONE_SECONDS = 0.1  # after which it is looked whether the client is still there, again and again
_BODIES = {"rows": ["rows"], "codes": ["codes"], "nothing": []}
Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    model: Autoencoder | str | os.PathLike[str],
    *,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    max_rows: int = Limits.rows,
    max_bytes: int = Limits.bytes,
    max_memory: int = Limits.memory,
    timeout: float = Limits.seconds,
    batch_seconds: float = 0.002,
) -> Starlette:
    """Make a web application that answers what a fitted model's methods do.

    Parameters
    ----------
    model : Autoencoder or path-like
        A fitted model, which is left as it is, or the folder of a saved one.
    token : str, optional
        What a client has to send as `Authorization: Bearer ...` on every route but `/healthz`.
    hosts : sequence of str, optional
        Names that the service may be called by; None takes every name. A page elsewhere can make
        its own name lead to this machine, and is refused by this.
    max_rows : int, default=100000
        Rows that one request may send or ask for.
    max_bytes : int, default=33554432
        Bytes that a request's body may have; rows times columns may not be more either.
    max_memory : int, default=536870912
        Bytes that bodies, decoded rows and results of all requests together may take.
    timeout : float, default=30
        Seconds that a request may take to arrive, to be decoded, and to be computed, each.
    batch_seconds : float, default=0.002
        How long a request may wait for others to share its call of the library, while calls follow
        upon each other; 0 joins none. A request that finds the service idle does not wait.

    Returns
    -------
    Starlette
        With the service as `app.state.service`.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> from twofold.service import create_app
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> app = create_app(Autoencoder(n_components=2, epochs=2, random_state=0).fit(X))
    >>> sorted(app.state.service.document()["paths"])[:3]
    ['/decode', '/encode', '/explain']
    """
    if not 0 <= batch_seconds < 1:
        raise OptionError(f"Expected batch_seconds to lie between 0 and 1, got {batch_seconds}.")
    if token is not None and (not token.strip() or token != token.strip()):
        raise OptionError(
            "Expected a token, got one that is empty or has blanks around it. Choose a long random "
            "word."
        )
    checks: list[middleware.Check] = [middleware.require_framing]
    guarded: list[str] = []
    if hosts is not None:
        checks.append(middleware.require_host(hosts))
        guarded.append("421")
    if token is not None:
        checks.append(middleware.require_token(token))
        guarded.append("401")
    limits = Limits(max_rows, max_bytes, timeout, max_memory)
    service = Service(model, limits, batch_seconds, guarded)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.open()
        yield
        service.close()

    handlers = service.routes()
    app = Starlette(
        routes=[
            Route(path, handler, methods=["POST" if path[1:] in VERBS else "GET"])
            for path, handler in handlers.items()
        ],
        middleware=[
            Middleware(middleware.CountRequests, service.metrics, frozenset(handlers)),
            Middleware(middleware.Gate, checks),
            Middleware(middleware.HoldMemory, service.account),
            Middleware(middleware.CutOff, timeout),
        ],
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(
            (HTTPException, RequestError, TwofoldError, Exception), service.refuse
        ),
    )
    app.router.redirect_slashes = False  # the Host header would choose where to
    app.state.service = service
    return app


class Service:
    """A model's verbs as handlers of requests.

    Attributes
    ----------
    current : ServedModel
        The model that is served, with what belongs to it.
    worker, reader : BatchingExecutor
        Where the library is called, and where bodies are read and answers written.
    account : Account
        What all requests together hold.
    """

    def __init__(
        self,
        model: Autoencoder | str | os.PathLike[str],
        limits: Limits,
        batch_seconds: float,
        guarded: Sequence[str],
    ) -> None:
        self.limits, self._guarded = limits, guarded
        self.current = ServedModel.of(model, limits)
        self.account = Account(limits.memory)
        self.metrics = Metrics(lambda: self.worker.n_waiting, lambda: self.account.used)
        self.worker = BatchingExecutor(limits.seconds, batch_seconds, self.metrics.call)
        self.reader = BatchingExecutor(limits.seconds)

    def open(self) -> None:
        """Take requests."""
        self.worker.open()
        self.reader.open()

    def close(self) -> None:
        """Refuse what is under way and what comes, and end the threads."""
        self.worker.close()
        self.reader.close()

    def reload(self) -> None:
        """Serve what the model's folder holds now; requests under way end with the old model.

        Raises
        ------
        TwofoldError
            If there is no folder, or it cannot be loaded: then the old model goes on.
        """
        self.current = self.current.reloaded()

    def routes(self) -> dict[str, Handler]:
        """Return the handler of each path."""
        documents: dict[str, Callable[[], Any]] = {
            "/model": lambda: self.current.describe(),
            "/schema": lambda: self.current.describe_columns(),
            OPEN: lambda: {"status": "ok"},
        }
        return {
            **{f"/{verb.name}": partial(self._verb, verb) for verb in VERBS.values()},
            **{path: partial(_document, make) for path, make in documents.items()},
            "/metrics": self._counts,
            "/openapi.json": self._openapi,
        }

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer a request that a route, or the router, raised an error at."""
        if isinstance(error, HTTPException):
            text = f"{request.method} {request.url.path[:200]}: {error.detail}."
            fix = "GET /openapi.json lists the routes and their methods."
            return refused(RequestError(error.status_code, text, fix, headers=error.headers))
        if isinstance(error, TwofoldError):
            return refused(RequestError.of(error, self.current.names))
        if isinstance(error, RequestError):
            return refused(error)
        text = "The service failed at this request."  # the server's log says why
        return refused(RequestError(500, text, "Report what was sent."))

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document of the model that is served."""
        current = self.current
        if current.document is None:
            current.document = openapi.document(current, self._guarded)
        return current.document

    async def _verb(self, verb: Verb, request: Request) -> Response:
        """Answer with what a verb makes of rows, of codes, or of nothing."""
        current, share, name = self.current, request.scope[SHARE], verb.name
        wanted = responses.chosen(request.headers.get("accept", ""))
        given = await self._given(request, current, verb)
        rows: Any = given.get(verb.takes)
        seed, n_draws = given.get("random_state"), given.get("n_draws", 1)
        if verb.takes == "nothing":
            self.limits.check_rows(given["n"], len(current.names))
            work = self.worker.call(current.sample(given["n"], seed, share))
        elif n_draws != 1:
            rows = rows.table() if isinstance(rows, JsonRows) else rows
            self.limits.check_rows(len(rows) * n_draws, len(current.names))
            work = self.worker.call(current.draws(rows, n_draws, seed, share))
        else:
            work = self.worker.run(current.verbs[name], rows, share)
        answer = current.answer(name, await self._here(request, work))
        return await self._respond(request, answer, wanted)

    async def _counts(self, request: Request) -> Response:
        """Answer with the metrics."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document, whose examples are made when it is first asked for."""
        return _json(await self.worker.call(_step(self.document)))

    async def _given(self, request: Request, current: ServedModel, verb: Verb) -> dict[str, Any]:
        """Return what a request gives: rows or codes as table or array, and parameters."""
        known = [parameter.name for parameter in verb.parameters]
        asked = parameters(request, known)
        bodies = (JSON,) if verb.takes == "nothing" else (JSON, ARROW)
        media_type = require_media_type(request, bodies)
        body = await read_body(request, self.limits, request.scope[SHARE])
        fields = [*_BODIES[verb.takes], *known]
        steps = current.read(media_type, body, fields, request.scope[SHARE])
        is_small = len(body) <= _SMALL[media_type]
        read = finished(steps) if is_small else await self._here(request, self.reader.call(steps))
        given = {name: value for name, value in read.items() if value is not None}
        for name in given.keys() & set(known):
            given[name] = integer(name, given[name])
            if name in asked:
                error = f"Expected {name} once, got it in the body and in the query string."
                raise RequestError(422, error, "Give it in one place.")
        if verb.takes in given:
            self.metrics.rows(request.scope["path"], len(given[verb.takes]))
        elif verb.takes == "nothing" and "n" not in given | asked:
            error = "Expected the number of rows as 'n', got none."
            raise RequestError(422, error, 'Send {"n": 10}, for ten rows.')
        options.check({"random_state": (given | asked).get("random_state")})
        return given | asked

    async def _here(self, request: Request, work: Awaitable[Any]) -> Any:
        """Return what work comes to, and give it up if the client goes away."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=_GONE_SECONDS))[0]:
                if await request.is_disconnected():
                    raise ClientDisconnect
            return task.result()
        finally:
            task.cancel()

    async def _respond(self, request: Request, answer: Answer, wanted: str) -> Response:
        pieces = answer.pieces(wanted)
        if answer.n_cells <= _SMALL_ANSWER:
            return Response(b"".join(pieces), media_type=wanted)
        first = await self._here(request, self._next_of(pieces))
        return StreamingResponse(self._rest(first, pieces), media_type=wanted)

    def _next_of(self, pieces: Iterator[bytes]) -> Awaitable[bytes | None]:
        return self.reader.call(_step(lambda: next(pieces, None)))

    async def _rest(self, piece: bytes | None, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Give an answer that is written while it is sent."""
        while piece is not None:
            yield piece
            try:
                piece = await self._next_of(pieces)
            except RequestError as error:  # the head is sent already
                raise ClientDisconnect from error


async def _document(make: Callable[[], Any], request: Request) -> Response:
    """Answer with what is known of the model."""
    return _json(make())


def _json(document: Any) -> Response:
    return Response(cells.dumps(document), media_type=JSON)


def _step(function: Callable[[], Any]) -> Steps:
    """Return a function as steps of one piece."""
    return function()
    yield
