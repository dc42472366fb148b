"""The service: one fitted model over HTTP, a route per verb.

`create_app` makes an ordinary Starlette application. Routes that are added to it stand behind the
same token and host check.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from twofold import __version__, options
from twofold.data import json as cells
from twofold.errors import MissingExtraError, OptionError, TwofoldError
from twofold.estimators.autoencoder import Autoencoder
from twofold.service import middleware, openapi, responses
from twofold.service.batching import BatchingExecutor, Steps
from twofold.service.deployment import Deployment
from twofold.service.errors import RequestError
from twofold.service.json_rows import JsonRows
from twofold.service.memory import Account, Share, size_of
from twofold.service.metrics import CONTENT_TYPE, Metrics
from twofold.service.middleware import GONE, OPEN, SHARE, refused
from twofold.service.model import describe_columns
from twofold.service.requests import ARROW, JSON, Limits, finished, integer
from twofold.service.responses import FORMATS, NUMBERS, Answer

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send
except ImportError as missing:
    raise MissingExtraError(
        "The service needs Starlette, uvicorn and prometheus-client, which are not installed. "
        "Install 'twofold[service]'."
    ) from missing

logger = logging.getLogger(__name__)
_SMALL_JSON, _SMALL_STREAM = 2**15, 2**19  # bytes that are read at once, without a thread
_SMALL_ANSWER = 10_000  # cells that are written at once
_GONE_SECONDS = 0.1  # after which it is looked whether the client is still there
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
    limits = Limits(max_rows, max_bytes, timeout, max_memory)
    _check(limits, batch_seconds, token)
    guarded = [s for s, asked in (("401", token), ("421", hosts)) if asked is not None]
    service = Service(model, limits, batch_seconds, guarded)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.open()
        yield
        service.close()

    routes = [
        Route(
            path,
            _endpoint(handler, service),
            methods=["POST" if path in openapi.ANSWERS else "GET"],
        )
        for path, handler in service.routes().items()
    ]
    layers = [
        Middleware(
            middleware.CountRequests, service.metrics, frozenset(route.path for route in routes)
        ),
        Middleware(middleware.RequireFraming),
        *([] if hosts is None else [Middleware(middleware.RequireHost, hosts)]),
        *([] if token is None else [Middleware(middleware.RequireToken, token)]),
        Middleware(middleware.HoldMemory, service.account),
    ]
    app = Starlette(
        routes=routes,
        middleware=layers,
        lifespan=lifespan,
        exception_handlers={HTTPException: _refuse_politely},
    )
    app.router.redirect_slashes = False  # the Host header would choose where to
    app.state.service = service
    return app


def _check(limits: Limits, batch_seconds: float, token: str | None) -> None:
    counts = {"max_rows": limits.rows, "max_bytes": limits.bytes, "max_memory": limits.memory}
    for name, value in counts.items():
        if value < 1:
            raise OptionError(f"{name} must be an integer of at least 1; got {value}.")
    if not limits.seconds > 0:
        raise OptionError(f"timeout must be a number of seconds above 0; got {limits.seconds}.")
    if not 0 <= batch_seconds < 1:
        raise OptionError(f"batch_seconds must lie between 0 and 1; got {batch_seconds}.")
    if token is not None and (not token.strip() or token != token.strip()):
        raise OptionError("token is empty, or has blanks around it. Choose a long random word.")


class Service:
    """A model's verbs as handlers of requests.

    Attributes
    ----------
    current : Deployment
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
        self.current = Deployment.of(model, limits)
        self.account = Account(limits.memory)
        self.metrics = Metrics(lambda: self.worker.n_waiting, lambda: self.account.used)
        self.worker = BatchingExecutor(limits.seconds, batch_seconds, self.metrics.call)
        self.reader = BatchingExecutor(limits.seconds)

    @property
    def model(self) -> Autoencoder:
        """The model, whose rows come and go as Arrow tables or arrays."""
        return self.current.served.model

    def open(self) -> None:
        """Take requests."""
        self.worker.open()
        self.reader.open()

    def drop(self) -> None:
        """Refuse what is under way and what comes."""
        self.worker.drop()
        self.reader.drop()

    def close(self) -> None:
        """Drop what is under way, and end the threads."""
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
        return {
            "/score": self.score,  # first, for they are tried in order
            "/explain": self.explain,
            "/encode": self.encode,
            "/decode": self.decode,
            "/reconstruct": self.reconstruct,
            "/impute": self.impute,
            "/sample": self.sample,
            "/model": self.about,
            "/schema": self.columns,
            OPEN: self.healthy,
            "/metrics": self.counts,
            "/openapi.json": self.openapi,
        }

    async def encode(self, request: Request) -> Response:
        """Answer with the codes of the rows."""
        return await self._rows_to(request, "encode", NUMBERS)

    async def reconstruct(self, request: Request) -> Response:
        """Answer with the reconstructions of the rows."""
        return await self._rows_to(request, "reconstruct", NUMBERS)

    async def score(self, request: Request) -> Response:
        """Answer with scores, p-values and labels."""
        return await self._rows_to(request, "score")

    async def explain(self, request: Request) -> Response:
        """Answer with each column's share of minus the score, and what was expected."""
        return await self._rows_to(request, "explain")

    async def decode(self, request: Request) -> Response:
        """Answer with the rows of the codes."""
        return await self._rows_to(request, "decode", NUMBERS, field="codes")

    async def impute(self, request: Request) -> Response:
        """Answer with the rows, their missing cells filled."""
        current, wanted = self.current, _wanted(request)
        given = await self._given(request, current, ("rows", "n_draws", "random_state"))
        rows, share = given["rows"], request.scope[SHARE]
        n_draws, random_state = _draws(given)
        if n_draws == 1:
            found = await self._here(request, self.worker.run(current.verbs["impute"], rows, share))
            return await self._respond(request, current.answer("impute", found), wanted)
        rows = rows.table() if isinstance(rows, JsonRows) else rows
        current.reader.check_rows(len(rows) * n_draws)
        steps = current.served.draws(rows, n_draws, random_state)
        drawn = await self._here(request, self.worker.call(_held(steps, share)))
        return await self._respond(request, current.answer_of_draws(drawn), wanted)

    async def sample(self, request: Request) -> Response:
        """Answer with new rows."""
        current, wanted = self.current, _wanted(request)
        given = await self._given(request, current, ("n", "random_state"), bodies=(JSON,))
        if given.get("n") is None:
            raise RequestError(422, "The field 'n' is missing.", 'Send {"n": 10}, for ten rows.')
        current.reader.check_rows(given["n"])
        request.scope[SHARE].hold(8 * max(0, given["n"]) * len(current.names))
        steps = current.served.sample(given["n"], _draws(given)[1])
        drawn = await self._here(request, self.worker.call(steps))
        return await self._respond(request, current.answer("sample", {"rows": drawn}), wanted)

    async def about(self, request: Request) -> Response:
        """Answer with what the model is."""
        versions = {
            "twofold": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        }
        return _json(self.current.describe(versions))

    async def columns(self, request: Request) -> Response:
        """Answer with what the columns are."""
        return _json(describe_columns(self.model))

    async def healthy(self, request: Request) -> Response:
        """Answer at all."""
        return _json({"status": "ok"})

    async def counts(self, request: Request) -> Response:
        """Answer with the metrics."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document, whose examples are made when it is first asked for."""
        return _json(await self.worker.call(_step(self.document)))

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document of the model that is served."""
        current = self.current
        if current.document is None:
            current.document = openapi.document(current, self.limits, self._guarded)
        return current.document

    async def _rows_to(
        self, request: Request, name: str, *more: str, field: str = "rows"
    ) -> Response:
        """Answer with what a verb makes of rows or codes."""
        current, wanted = self.current, _wanted(request, *more)
        rows = (await self._given(request, current, (field,)))[field]
        verb, share = current.verbs[name], request.scope[SHARE]
        found = await self._here(request, self.worker.run(verb, rows, share))
        return await self._respond(request, current.answer(name, found), wanted)

    async def _given(
        self,
        request: Request,
        current: Deployment,
        fields: Sequence[str],
        bodies: Sequence[str] = (JSON, ARROW),
    ) -> dict[str, Any]:
        """Return what a request gives: rows or codes as table or array, and parameters."""
        asked = _parameters(request, fields)
        media_type = require_media_type(request, bodies)
        body, share = await self._body(request), request.scope[SHARE]
        steps = current.reader.read(media_type, body, fields, share)
        if len(body) <= (_SMALL_STREAM if media_type == ARROW else _SMALL_JSON):
            given = finished(steps)
        else:
            given = await self._here(request, self.reader.call(steps))
        for name in fields:
            if name in ("n", "n_draws", "random_state") and given.get(name) is not None:
                given[name] = integer(name, given[name])
                if name in asked:
                    raise RequestError(422, f"{name} is given twice.", "Give it in one place.")
        if fields[0] in ("rows", "codes"):
            self.metrics.rows(request.scope["path"], len(given[fields[0]]))
        return asked | {name: value for name, value in given.items() if value is not None}

    async def _body(self, request: Request) -> bytes:
        """Read a body, within the limits of size and time."""
        most, share = self.limits.bytes, request.scope[SHARE]
        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.seconds):
                if size <= most:
                    size = 0
                    async for part in request.stream():
                        size += len(part)
                        if size > most:
                            break
                        share.hold(len(part))
                        parts.append(part)
        except TimeoutError:
            raise RequestError(
                408,
                f"The body did not arrive within {self.limits.seconds:g} seconds.",
                "Send it faster, or start the service with a larger --timeout.",
                headers={"Connection": "close"},
            ) from None
        if size > most:
            raise RequestError(
                413,
                f"The body is larger than {most:,} bytes.",
                "Send the rows in parts, or start the service with a larger --max-bytes.",
                headers={"Connection": "close"},
            )
        if len(parts) > 1:
            share.hold(size)  # briefly it is there twice
        return b"".join(parts)

    async def _here(self, request: Request, work: Awaitable[Any]) -> Any:
        """Return what work comes to, and give it up if the client goes away."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=_GONE_SECONDS)
            if not done:
                gone = asyncio.ensure_future(_disconnected(request))
                try:
                    await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    gone.cancel()
                if not task.done():
                    raise ClientDisconnect
            return task.result()
        finally:
            task.cancel()

    async def _respond(self, request: Request, answer: Answer, wanted: str) -> Response:
        headers, pieces = answer.headers(wanted), answer.pieces(wanted)
        if answer.n_cells <= _SMALL_ANSWER:
            return Response(b"".join(pieces), headers=headers, media_type=wanted)
        first = await self._here(request, self.reader.call(_step(lambda: next(pieces, b""))))
        return _InPieces(first, pieces, self, headers, wanted)


class _InPieces(Response):
    """An answer that is written while it is sent, to a client that keeps taking it."""

    def __init__(
        self,
        first: bytes,
        pieces: Iterator[bytes],
        service: Service,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self._first, self._pieces, self._service = first, pieces, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        head = {"type": "http.response.start", "status": self.status_code}
        await send(head | {"headers": self.raw_headers})
        piece, seconds = self._first, self._service.limits.seconds
        try:
            while piece is not None:
                async with asyncio.timeout(seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await self._service.reader.call(_step(lambda: next(self._pieces, None)))
        except (TimeoutError, RequestError):
            logger.warning("a client stopped taking its answer")
            return  # the server ends the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _endpoint(handler: Handler, service: Service) -> Handler:
    """Give a handler's errors their answers."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return refused(error)
        except TwofoldError as error:
            return refused(RequestError.of(error, service.current.names))
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Exception:
            logger.exception("a request failed that should not have")
            return refused(
                RequestError(500, "The service failed at this request.", "Report what was sent.")
            )

    return endpoint


async def _refuse_politely(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    fix = "GET /openapi.json lists the routes and their methods."
    text = f"{request.method} {request.url.path[:200]}: {error.detail}."
    return refused(RequestError(error.status_code, text, fix, headers=error.headers))


def _json(document: Any) -> Response:
    return Response(cells.dumps(document), media_type=JSON)


def _step(function: Callable[[], Any]) -> Steps:
    """Return a function as steps of one piece."""
    return function()
    yield


def _held(steps: Steps, share: Share) -> Steps:
    """Count what drawn tables take, of which there is one more after each piece."""
    while True:
        try:
            share.hold(size_of(next(steps)))
        except StopIteration as end:
            return end.value
        yield


async def _disconnected(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _wanted(request: Request, *more: str) -> str:
    return responses.chosen(request.headers.get("accept", ""), (*FORMATS, *more))


def _draws(given: dict[str, Any]) -> tuple[int, int | None]:
    """Return the number of draws and the seed."""
    random_state = given.get("random_state")
    options.check({"random_state": random_state})
    return given.get("n_draws", 1), random_state


def _parameters(request: Request, fields: Sequence[str]) -> dict[str, int]:
    """Return what the query string gives."""
    known = [name for name in fields if name not in ("rows", "codes")]
    found: dict[str, int] = {}
    for name, value in request.query_params.multi_items():
        if name not in known or name in found:
            takes = f"takes {' and '.join(known)}" if known else "takes none"
            raise RequestError(
                422,
                f"The query string has {name[:100]!r}; this route {takes}, each once.",
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
            f"A body of type {came[:200]} cannot be read here.",
            f"Send it as it is, with the content type {' or '.join(bodies)}.",
        )
    return media_type
