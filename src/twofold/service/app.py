"""The service: one fitted model over HTTP, a route per verb.

`create_app` makes an ordinary FastAPI application. Routes and middleware that are added to it
later stand behind the same token.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from twofold import __version__, options
from twofold.data import json as cells
from twofold.errors import MissingExtraError, OptionError, TwofoldError
from twofold.estimators.autoencoder import Autoencoder
from twofold.service import model as verbs
from twofold.service import openapi as contract
from twofold.service import responses
from twofold.service.batching import Verb, Worker
from twofold.service.bodies import ARROW, JSON, PARQUET, Limits, Reader, whole_number
from twofold.service.errors import Refusal
from twofold.service.jsonrows import JsonRows
from twofold.service.metrics import CONTENT_TYPE, Meter
from twofold.service.middleware import (
    HELD,
    OPEN,
    Guard,
    InPieces,
    Memory,
    json_answer,
    nobody,
    refused,
)
from twofold.service.model import Verbs
from twofold.service.responses import FORMATS, NUMBERS, Answer

try:
    from fastapi import FastAPI, Request, Response
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
except ImportError as missing:
    raise MissingExtraError(
        "The service needs FastAPI and uvicorn, which are not installed. Install "
        "'twofold[service]'."
    ) from missing

logger = logging.getLogger(__name__)
_SMALL_BODY, _SMALL_STREAM = 2**15, 2**20  # bytes that are read at once, without a thread
_SMALL_ANSWER = 10_000  # cells that are written at once
_LOOSE_ROWS = 256  # of a JSON body, that stay cells until it is known which are computed together
_HELD_BODIES = 4  # as many of the largest bodies may be held at a time
Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    model: Autoencoder,
    *,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    max_rows: int = Limits.rows,
    max_bytes: int = Limits.bytes,
    timeout: float = Limits.seconds,
    batch_seconds: float = 0.002,
) -> FastAPI:
    """Make a web application that answers what a fitted model's methods do.

    Parameters
    ----------
    model : Autoencoder
        A fitted model; it is left as it is.
    token : str, optional
        What a client has to send as `Authorization: Bearer ...` on every route but `/healthz`.
    hosts : sequence of str, optional
        Names that the service may be called by; None takes every name. A page elsewhere can make
        its own name lead to this machine, and is refused by this.
    max_rows : int, default=100000
        Rows that one request may send or ask for.
    max_bytes : int, default=33554432
        Bytes that a request's body may have; rows times columns may not be more either.
    timeout : float, default=30
        Seconds that a request may take to arrive, and again to be answered.
    batch_seconds : float, default=0.002
        How long a request may wait for others to share its call of the library, while calls follow
        upon each other; 0 joins none. A request that finds the service idle does not wait.

    Returns
    -------
    FastAPI
        With the service as `app.state.service`.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> from twofold.service import create_app
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> app = create_app(Autoencoder(n_components=2, epochs=2, random_state=0).fit(X))
    >>> sorted(app.openapi()["paths"])[:3]
    ['/decode', '/encode', '/explain']
    """
    limits = Limits(max_rows, max_bytes, timeout)
    _check(limits, batch_seconds, token)
    service = Service(model, limits, batch_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        yield
        service.close()

    app = _App(service, token is not None, hosts is not None, lifespan)
    for path, handler in service.routes().items():
        methods = ["POST"] if path in contract.ANSWERS else ["GET"]
        app.add_route(path, _endpoint(handler, service.names), methods=methods)
    app.add_exception_handler(HTTPException, _refuse_politely)
    app.add_middleware(Guard, service=service, token=token, hosts=hosts)
    app.state.service = service
    return app


def _check(limits: Limits, batch_seconds: float, token: str | None) -> None:
    for name, value in {"max_rows": limits.rows, "max_bytes": limits.bytes}.items():
        if value < 1:
            raise OptionError(f"{name} must be a whole number of at least 1; got {value}.")
    if not limits.seconds > 0:
        raise OptionError(f"timeout must be a number of seconds above 0; got {limits.seconds}.")
    if not 0 <= batch_seconds < 1:
        raise OptionError(f"batch_seconds must lie between 0 and 1; got {batch_seconds}.")
    if token is not None and (not token.strip() or token != token.strip()):
        raise OptionError("token is empty, or has blanks around it. Choose a long random word.")


class _App(FastAPI):
    """FastAPI with the service's own document."""

    def __init__(self, service: Service, with_token: bool, with_hosts: bool, lifespan: Any) -> None:
        # The pages that FastAPI offers for the document load their scripts from elsewhere.
        super().__init__(
            title="twofold", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan
        )
        self._service = service
        self._guarded = [s for s, asked in (("401", with_token), ("421", with_hosts)) if asked]
        service.document = self.openapi

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            served = self._service
            self.openapi_schema = contract.document(
                served.model.schema_,
                len(served.verbs.code_names),
                served.limits,
                served.examples(),
                self._guarded,
            )
        return self.openapi_schema


class Service:
    """A model's verbs as handlers of requests.

    Attributes
    ----------
    model : Autoencoder
        The model, whose rows come and go as Arrow tables or arrays.
    worker : Worker
        Where the library is called: `await worker.call(function)` takes its turn with the verbs.
    """

    def __init__(self, model: Autoencoder, limits: Limits, batch_seconds: float) -> None:
        self.verbs = Verbs(model)
        self.model, self.limits = self.verbs.model, limits
        self.names = list(self.verbs.names)
        self.reader = Reader(self.model.schema_, self.verbs.named, self.verbs.code_names, limits)
        self.paths = frozenset(self.routes())
        self.memory = Memory(_HELD_BODIES * limits.bytes)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "twofold_waiting_requests": (
                "Requests that wait for their turn.",
                lambda: self.worker.n_waiting,
            ),
            "twofold_held_bytes": ("Bytes of long bodies in hand.", lambda: self.memory.used),
        }
        self.meter = Meter(gauges)
        self.worker = Worker(limits.seconds, batch_seconds, self.meter.call)
        self.document: Callable[[], dict[str, Any]] = dict
        self._desk: ThreadPoolExecutor | None = None
        most, few = self.verbs.most_rows, self.verbs.most_explained
        self._encode = _verb(self.verbs.encode, most)
        self._decode = _verb(self.verbs.decode, most)
        self._reconstruct = _verb(self.verbs.reconstruct, most)
        self._score = _verb(self.verbs.score, most)
        self._explain = _verb(self.verbs.explain, few)
        self._impute = _verb(self.verbs.impute, most, _without_levels)

    def open(self) -> None:
        """Take requests."""
        self.worker.open()

    def close(self) -> None:
        """Finish what was accepted, and end the threads."""
        self.worker.close()
        if self._desk is not None:
            self._desk.shutdown()
            self._desk = None

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
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }

    async def encode(self, request: Request) -> Response:
        """Answer with the codes of the rows."""
        wanted = self._wanted(request, NUMBERS)
        found = await self.worker.run(self._encode, await self._rows(request))
        return await self._respond(
            responses.of_codes(found["codes"], self.verbs.code_names), wanted
        )

    async def decode(self, request: Request) -> Response:
        """Answer with the rows of the codes."""
        wanted = self._wanted(request, NUMBERS)
        given = await self._given(request, ("codes",))
        found = await self.worker.run(self._decode, given["codes"])
        return await self._respond(self._answer(found["rows"]), wanted)

    async def reconstruct(self, request: Request) -> Response:
        """Answer with what the network makes of the rows."""
        wanted = self._wanted(request, NUMBERS)
        found = await self.worker.run(self._reconstruct, await self._rows(request))
        return await self._respond(self._answer(found["rows"]), wanted)

    async def score(self, request: Request) -> Response:
        """Answer with scores, p-values and labels."""
        wanted = self._wanted(request)
        found = await self.worker.run(self._score, await self._rows(request))
        return await self._respond(responses.of_scores(found, self.model.offset_), wanted)

    async def explain(self, request: Request) -> Response:
        """Answer with each column's share of minus the score, and what was expected."""
        wanted = self._wanted(request)
        found = await self.worker.run(self._explain, await self._rows(request))
        return await self._respond(responses.of_explanation(found, self.names), wanted)

    async def impute(self, request: Request) -> Response:
        """Answer with the rows, their holes filled."""
        wanted = self._wanted(request)
        given = await self._given(request, ("rows", "n_draws", "random_state"))
        rows = _table(given["rows"])
        n_draws, random_state = _draws(given)
        if n_draws == 1:
            found = await self.worker.run(self._impute, rows)
            return await self._respond(self._answer(found["rows"]), wanted)
        self.reader.bounds.check_rows(len(rows) * n_draws)
        drawn = await self.worker.call(lambda: self.verbs.draws(rows, n_draws, random_state))
        names = self._names_of(drawn[0]) if drawn else self.names
        answer = responses.of_draws(drawn, names, self.model.schema_.row_shape)
        return await self._respond(answer, wanted)

    async def sample(self, request: Request) -> Response:
        """Answer with new rows."""
        wanted = self._wanted(request)
        given = await self._given(request, ("n", "random_state"), bodies=(JSON,))
        if "n" not in given:
            raise Refusal(422, "The body lacks the field 'n'.", 'Send {"n": 10}, for ten rows.')
        n = whole_number("n", given["n"])
        self.reader.bounds.check_rows(n)
        _, random_state = _draws(given)
        drawn = await self.worker.call(lambda: self.verbs.sample(n, random_state))
        return await self._respond(self._answer(drawn), wanted)

    async def about(self, request: Request) -> Response:
        """Answer with what the model is."""
        versions = {
            "twofold": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        }
        return json_answer(verbs.describe(self.model, versions))

    async def columns(self, request: Request) -> Response:
        """Answer with what the columns are."""
        return json_answer(verbs.describe_columns(self.model))

    async def healthy(self, request: Request) -> Response:
        """Answer at all."""
        return json_answer({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Answer with the counts."""
        return Response(self.meter.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document, whose examples are made when it is first asked for."""
        return json_answer(await self.worker.call(self.document))

    def examples(self) -> dict[str, tuple[Any, Answer]]:
        """Return a body for each verb, and the answer to it."""
        own, drawn = self.verbs, self.verbs.sample(2, 0)
        rows = contract.example_rows(cells.rows(self._answer(drawn).table()), self.names)
        body = {"rows": rows}
        given = _table(self.reader.read(JSON, cells.dumps(body), ("rows",))["rows"])
        encoded = own.encode(given)["codes"]
        codes = contract.short(encoded.tolist())
        return {
            "/encode": (body, responses.of_codes(encoded, own.code_names)),
            "/decode": ({"codes": codes}, self._answer(own.decode(np.array(codes))["rows"])),
            "/reconstruct": (body, self._answer(own.reconstruct(given)["rows"])),
            "/score": (body, responses.of_scores(own.score(given), self.model.offset_)),
            "/explain": (body, responses.of_explanation(own.explain(given), self.names)),
            "/impute": (body, self._answer(own.impute(given)["rows"])),
            "/sample": ({"n": 2, "random_state": 0}, self._answer(drawn)),
        }

    def _answer(self, rows: Any) -> Answer:
        return responses.of_rows(rows, self._names_of(rows), self.model.schema_.row_shape)

    def _names_of(self, rows: Any) -> list[str]:
        return list(rows.column_names) if isinstance(rows, pa.Table) else self.names

    def _wanted(self, request: Request, *more: str) -> str:
        return responses.chosen(request.headers.get("accept", ""), (*FORMATS, *more))

    async def _rows(self, request: Request) -> Any:
        return (await self._given(request, ("rows",)))["rows"]

    async def _given(
        self,
        request: Request,
        fields: Sequence[str],
        bodies: Sequence[str] = (JSON, ARROW, PARQUET),
    ) -> dict[str, Any]:
        """Return what a request gives: rows or codes as table or array, and parameters."""
        asked = _parameters(request, fields)
        media_type = _media_type(request, bodies)
        body = await self._body(request)
        small = len(body) <= (_SMALL_STREAM if media_type == ARROW else _SMALL_BODY)

        def read() -> dict[str, Any]:
            given = self.reader.read(media_type, body, fields)
            if twice := given.keys() & asked.keys():
                name = min(twice)
                raise Refusal(422, f"{name} is given twice.", "Give it in one place.")
            rows = given.get("rows")
            if isinstance(rows, JsonRows) and len(rows) > _LOOSE_ROWS:
                given["rows"] = rows.table()
            return given | asked

        given = read() if small else await self._at_desk(read)
        if fields[0] in ("rows", "codes"):
            self.meter.rows(request.scope["path"], len(given[fields[0]]))
        return given

    async def _body(self, request: Request) -> bytes:
        """Read a body, within the limits of size and time."""
        most, held = self.limits.bytes, request.scope.get(HELD)
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
                        if held is not None:
                            held.grow_to(size)
                        parts.append(part)
        except TimeoutError:
            raise Refusal(
                408,
                f"The body did not arrive within {self.limits.seconds:g} seconds.",
                "Send it faster, or start the service with a larger --timeout.",
                headers={"Connection": "close"},
            ) from None
        if size > most:
            raise Refusal(
                413,
                f"The body is larger than {most:,} bytes.",
                "Send the rows in parts, or start the service with a larger --max-bytes.",
            )
        return b"".join(parts)

    async def _respond(self, answer: Answer, wanted: str) -> Response:
        headers = answer.headers(wanted)
        pieces = answer.pieces(wanted)
        if answer.n_cells <= _SMALL_ANSWER:
            return Response(b"".join(pieces), headers=headers, media_type=wanted)
        first = await self._at_desk(lambda: next(pieces))
        return InPieces(first, pieces, self._at_desk, self.limits.seconds, headers, wanted)

    async def _at_desk(self, work: Callable[[], Any]) -> Any:
        """Read or write something long in a thread, so that the event loop stays free."""
        if self._desk is None:
            self._desk = ThreadPoolExecutor(1, thread_name_prefix="twofold-desk")
        return await asyncio.get_running_loop().run_in_executor(self._desk, work)


def _endpoint(handler: Handler, names: Sequence[str]) -> Handler:
    """Give a handler's errors their answers."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(refusal)
        except TwofoldError as error:
            return refused(Refusal.of(error, names))
        except ClientDisconnect:
            return nobody()
        except Exception:
            logger.exception("a request failed that should not have")
            return refused(
                Refusal(500, "The service failed at this request.", "Report what was sent.")
            )

    return endpoint


async def _refuse_politely(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    fix = "GET /openapi.json tells the routes and their methods."
    text = f"{request.method} {request.url.path[:200]}: {error.detail}."
    return refused(Refusal(error.status_code, text, fix, headers=error.headers))


def _verb(
    run: Callable[[Any], dict[str, Any]],
    most_rows: int,
    joins: Callable[[Any], bool] = lambda rows: True,
) -> Verb:
    return Verb(run.__name__, lambda rows: run(_table(rows)), most_rows, joins)


def _table(rows: Any) -> Any:
    return rows.table() if isinstance(rows, JsonRows) else rows


def _without_levels(rows: Any) -> bool:
    """Whether rows share no dictionary with others, in which an answer would show theirs."""
    return not isinstance(rows, pa.Table) or not any(map(pa.types.is_dictionary, rows.schema.types))


def _draws(given: dict[str, Any]) -> tuple[int, int | None]:
    """Return the number of draws and the seed."""
    n_draws = whole_number("n_draws", given.get("n_draws", 1))
    seed = given.get("random_state")
    random_state = None if seed is None else whole_number("random_state", seed)
    options.check({"random_state": random_state})
    return n_draws, random_state


def _parameters(request: Request, fields: Sequence[str]) -> dict[str, Any]:
    """Return what the query string gives."""
    known = [name for name in fields if name not in ("rows", "codes")]
    found: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in known or name in found:
            takes = f"takes {' and '.join(known)}" if known else "takes none"
            raise Refusal(
                422,
                f"The query string has {name[:100]!r}; this route {takes}, each once.",
                "Leave it out, or correct its name.",
            )
        found[name] = value
    return found


def _media_type(request: Request, bodies: Sequence[str]) -> str:
    encoding = request.headers.get("content-encoding", "identity").lower()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in bodies or encoding != "identity":
        came = f"{media_type!r}" if encoding == "identity" else f"content encoding {encoding!r}"
        raise Refusal(
            415,
            f"The body came as {came[:200]}, which is not read here.",
            f"Send it as it is, with the content type {' or '.join(bodies)}.",
        )
    return media_type
