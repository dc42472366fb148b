"""The explorer: a page on a model and the rows of a source, served to this machine's browser.

The page asks the service's verbs for all that the model works out. This module adds the page itself
and read-only routes on the rows: their places on the map, scores, columns, cells and selections.
Arrays go as bare little-endian numbers, in the order in which points are drawn.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import webbrowser
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data import json as cells
from twofold.data import output
from twofold.data.files import Files
from twofold.errors import MissingExtraError, OptionError
from twofold.estimators.autoencoder import Autoencoder
from twofold.explorer.code_map import CodeMap, Progress
from twofold.explorer.source import Difference, Shades, Source
from twofold.service import app as service
from twofold.service import server
from twofold.service.errors import RequestError
from twofold.service.requests import JSON, require_media_type

try:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as missing:
    raise MissingExtraError(
        "The explorer needs Starlette, uvicorn and prometheus-client, which are not installed. "
        "Install 'twofold[explore]'."
    ) from missing

HOST = "127.0.0.1"
_MEDIA = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Whatever a cell holds or an extension adds, the page runs no code but its own, and asks no one
    # but this service.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_SECONDS = 120.0  # that a request may take: a page of explanations of a wide table
_MOST_CORNERS = 5_000  # of a selection's polygon
_MOST_BODY = 2**20  # bytes of a selection
_MOST_ANOMALIES = 100  # of one answer
_DIFFERENCES = 30  # columns of a selection's summary
_KEPT_SELECTIONS = 4
_FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


def create_app(
    ae: Autoencoder,
    source: Any,
    *,
    title: str = "model",
    source_title: str = "rows",
    say: Progress | None = None,
) -> Starlette:
    """Make the explorer's web application; every row is encoded and scored before it returns.

    Parameters
    ----------
    ae : Autoencoder
        A fitted model.
    source : path-like, array or table
        Rows to explore. Columns that the model was not trained on, such as known labels, are shown
        besides those that it was.
    title, source_title : str
        What the page calls the model and the rows.
    say : callable, optional
        Receives a line now and then while rows are encoded.

    Raises
    ------
    DataError
        If the source cannot be read, or lacks a column of the model's.
    MissingExtraError
        If Starlette is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> from twofold.explorer import create_app
    >>> X = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    >>> app = create_app(Autoencoder(n_components=2, epochs=2, random_state=0).fit(X), X)
    """
    rows = CodeMap(ae, Source.read(source, ae.schema_), say)
    # A page elsewhere whose name is made to lead here gets no answer.
    app = service.create_app(ae, hosts=server.own_names(HOST), timeout=_SECONDS)
    app.router.routes.extend(_Pages(rows, title, source_title).routes())
    app.add_middleware(_Headers)
    return app


def run(
    ae: Autoencoder,
    source: Files,
    *,
    title: str,
    port: int,
    browser: bool,
    say: Progress,
    progress: Progress | None = None,
) -> None:
    """Serve the explorer until Ctrl-C, and open it in the browser."""
    # The port first: it is better to fail before the rows are encoded than after.
    with server.listen(HOST, port) as listener:
        name = Path(source.source).name or str(source.source)
        app = create_app(ae, source, title=title, source_title=name, say=progress)

        def started(address: str) -> None:
            say(f"The explorer is at {address} (Ctrl-C ends it).")
            if browser:
                webbrowser.open(address)

        server.serve(app, listener, timeout=_SECONDS, on_start=started)


class _Headers:
    """Adds the headers that keep the page to itself to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), text.encode()) for name, text in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class _Pages:
    """The routes of the page and of the rows. They are Starlette's: none of them is a verb."""

    def __init__(self, rows: CodeMap, title: str, source_title: str) -> None:
        self._rows, self._source = rows, rows.source
        folder = resources.files("twofold").joinpath("explorer", "page")
        self._files = {
            file.name: file.read_bytes()
            for file in folder.iterdir()
            if Path(file.name).suffix in _MEDIA
        }
        self._packed = {name: gzip.compress(file, mtime=0) for name, file in self._files.items()}
        self._shades = lru_cache(4)(self._source.shades)
        self._chosen = lru_cache(_KEPT_SELECTIONS)(self._choose)
        self._columns = {
            f"column{i}": column
            for i, column in enumerate((*self._source.own, *self._source.extras))
        }
        self._about = cells.dumps(self._describe(title, source_title))

    def routes(self) -> list[Route]:
        """Return one route per path, each run in a thread."""
        read = {
            "/": lambda request: self._file("index.html", request),
            "/explorer/{name}": lambda request: self._file(request.path_params["name"], request),
            "/rows": lambda _: Response(self._about, media_type="application/json"),
            "/rows/numbers": lambda request: _bare(self._order(request)),
            "/rows/values/{key}": self._values,
            "/rows/about/{key}": self._about_shade,
            "/rows/anomalies": self._anomalies,
            "/rows/{row:int}": self._row,
        }
        ask = {
            "/rows/selection": self._summary,
            "/rows/selection/mask": self._mask,
            "/rows/selection/export": self._export,
        }
        found = [Route(path, function) for path, function in read.items()]
        found += [Route(p, _with_body(f), methods=["POST"]) for p, f in ask.items()]
        return found

    def _file(self, name: str, request: Request) -> Response:
        if name not in self._files:
            raise RequestError(404, "There is no such file.", "GET / is the page.")
        content, headers = self._files[name], {"Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = self._packed[name], "gzip"
        return Response(content, media_type=_MEDIA[Path(name).suffix], headers=headers)

    def _describe(self, title: str, source_title: str) -> dict[str, Any]:
        rows, source, ae = self._rows, self._source, self._rows.ae
        schema = ae.schema_
        spreads = source.spreads()
        columns = []
        for key, column in self._columns.items():
            entry = {"key": key, "name": column.name, "type": column.type, "own": column.own}
            entry["position"] = column.position
            if column.own:
                known = schema.columns[column.position]
                note = known.note or ("constant in training" if known.constant else "")
                entry |= {"kind": known.kind, "seen": known.width > 0, "note": note}
                entry["spread"] = spreads[column.position]
            columns.append(entry)
        order = np.argsort(-rows.spreads, kind="stable").tolist()
        components = [axis for axis in rows.axes if axis.component is not None]
        return {
            "title": title,
            "source": source_title,
            "n_rows": source.n_rows,
            "n_anomalies": int(rows.scores.is_anomaly.sum()),
            "n_shown": len(rows.sample),
            "n_anomalies_shown": int(rows.scores.is_anomaly[rows.sample].sum()),
            "sampled": len(rows.sample) < source.n_rows,
            "n_columns": len(source.own),
            "n_components": rows.codes.shape[1],
            "offset": ae.offset_,
            "image": schema.is_image,
            "row_shape": list(schema.row_shape),
            "range": self._range(),
            "columns": columns,
            "shades": [
                {"key": "score", "title": "score"},
                {"key": "label", "title": "label"},
                {"key": "p_value", "title": "p-value"},
            ],
            "axes": [
                {
                    "key": axis.key,
                    "title": axis.title.replace(" component", "") + _shares(axis.share),
                    "label": axis.title + _shares(axis.share, " of the codes' variance"),
                    "component": axis.component,
                }
                for axis in rows.axes
            ],
            "default_axes": rows.default_axes,
            "mean_code": rows.mean.tolist(),
            "principal": rows.principal.tolist(),
            # Those that vary most come first: they change most.
            "components": [
                {
                    "name": components[i].title,
                    "position": i,
                    "low": float(rows.low[i]),
                    "high": float(rows.high[i]),
                }
                for i in order
            ],
            "model": {"facts": self._facts(), "summary": ae.summary()},
            "history": ae.history_,
            "best_epoch": ae.best_epoch_,
        }

    def _facts(self) -> dict[str, str]:
        ae, rows = self._rows.ae, self._rows
        comparison = ae.comparison_
        held_out = "validation_loss" in (ae.history_ or [{}])[-1]
        which = f"{comparison.n_rows:,} {'held-out' if held_out else 'training'} rows"
        return {
            "trained on": str(ae.schema_),
            "code": f"{rows.codes.shape[1]:,} components",
            "parameters": f"{ae.network_.n_parameters:,}",
            "variance kept": f"{100 * comparison.r2:.1f} % of {which}",
            "PCA keeps": f"{100 * comparison.r2_pca:.1f} % with a code of the same size",
            "anomalies": f"score below {ae.offset_:.6g} nats",
            "epochs": f"{len(ae.history_):,}, weights "
            + (f"of epoch {ae.best_epoch_:,}" if ae.best_epoch_ else "that training started with"),
        }

    def _range(self) -> list[float]:
        """Return what is black and what is white in an image."""
        schema = self._rows.ae.schema_
        if all(column.kind == "pixel" for column in schema.columns):
            return [0.0, max(column.scale for column in schema.columns)]
        if not schema.is_image or not self._source.is_array:
            return [0.0, 1.0]
        first = np.asarray(self._source.part(slice(0, min(1000, self._source.n_rows))))
        return [float(np.nanmin(first)), float(np.nanmax(first))]

    def _order(self, request: Request) -> NDArray[np.uint32]:
        """Return the row numbers of the points that are asked for."""
        points = request.query_params.get("points", "sample")
        if points not in ("sample", "all"):
            raise OptionError(f"Expected points to be 'sample' or 'all', got {points!r}.")
        return self._rows.sample if points == "sample" else self._rows.everything

    def _values(self, request: Request) -> Response:
        key, rows = request.path_params["key"], self._rows
        chosen = self._order(request)
        if key == "label":
            return _bare(np.where(rows.scores.is_anomaly[chosen], 0, 1).astype(np.float32))
        if key == "p_value":
            return _bare(rows.scores.p_value[chosen].astype(np.float32))
        if key in self._columns:
            return _bare(self._shade(key).values[chosen])
        return _bare(rows.along(key)[chosen])

    def _shade(self, key: str) -> Shades:
        return self._shades(self._columns[key])

    def _about_shade(self, request: Request) -> Response:
        key = request.path_params["key"]
        about: dict[str, Any] = {"key": key, "type": "number", "levels": None, "rest": None}
        if key in self._columns:
            column, shade = self._columns[key], self._shade(key)
            levels = None if shade.levels is None else list(shade.levels)
            about |= {"title": column.name, "type": column.type, "levels": levels}
            about["rest"] = shade.rest
        elif key == "label":
            about |= {"title": "label", "levels": ["anomaly", "normal"]}
        elif key == "p_value":
            about |= {"title": "p-value", "low_stands_out": True}
        else:
            self._rows.along(key)
            about |= {"title": key, "low_stands_out": key == "score"}
            if key == "score":
                # All anomalies have the colour at the end: normal rows differ by much less.
                about["low"] = self._rows.ae.offset_
        return _json(about)

    def _row(self, request: Request) -> Response:
        row = request.path_params["row"]
        if row >= self._source.n_rows:
            last = self._source.n_rows - 1
            raise OptionError(f"Expected a row from 0 to {last}, got {row}.")
        return _json(self._rows.describe(row))

    def _anomalies(self, request: Request) -> Response:
        asked = request.query_params
        start, count = (_whole(asked.get(name, "0"), name) for name in ("start", "count"))
        chosen = self._rows.anomalies(
            asked.get("order", "lowest"), start, min(count, _MOST_ANOMALIES)
        )
        total = int(self._rows.scores.is_anomaly.sum())
        return _json({"total": total, "rows": [self._rows.describe(row) for row in chosen]})

    def _choose(self, selection: str) -> NDArray[np.bool_]:
        """Return which rows a selection is: `{x, y, polygon}` on two axes, or `{label}`."""
        asked = json.loads(selection)
        if isinstance(asked, dict) and asked.get("label") in (-1, 1):
            wanted: NDArray[np.bool_] = self._rows.scores.is_anomaly == (asked["label"] == -1)
            return wanted
        try:
            x, y, polygon = str(asked["x"]), str(asked["y"]), asked["polygon"]
            corners = [[float(a), float(b)] for a, b in polygon]
        except (TypeError, KeyError, ValueError) as error:
            raise OptionError(
                "Expected a selection {x, y, polygon} with two axes and corners [a, b], or "
                "{label} with -1 or 1, got another."
            ) from error
        if len(corners) > _MOST_CORNERS:
            raise OptionError(f"Expected at most {_MOST_CORNERS:,} corners, got {len(corners):,}.")
        return self._rows.within(x, y, corners)

    def _mask(self, selection: str, _: Request) -> Response:
        return _bare(np.packbits(self._chosen(selection), bitorder="little"))

    def _summary(self, selection: str, _: Request) -> Response:
        chosen, rows = self._chosen(selection), self._rows
        count = int(chosen.sum())
        answer: dict[str, Any] = {
            "count": count,
            "n_anomalies": int((chosen & rows.scores.is_anomaly).sum()),
            "n_columns": 0,
            "columns": [],
        }
        if count:
            found = self._source.differences(chosen)
            answer["n_columns"] = len(found)
            answer["columns"] = [_difference(one) for one in found[:_DIFFERENCES]]
            if rows.ae.schema_.is_image and self._source.is_array:
                here, everywhere, _spread = self._source.means(chosen)
                answer["image"] = {"mean": here.tolist(), "mean_all": everywhere.tolist()}
        return _json(answer)

    def _export(self, selection: str, request: Request) -> Response:
        suffix = request.query_params.get("format", "csv")
        if suffix not in _FORMATS:
            raise OptionError(
                f"Expected format to be one of {', '.join(_FORMATS)}, got {suffix!r}."
            )
        rows = self._rows
        labels = rows.scores.label
        more = {"score": rows.scores.score, "p_value": rows.scores.p_value, "label": labels}
        table = self._source.table(self._chosen(selection), more)
        folder = tempfile.TemporaryDirectory(prefix="twofold-selection-")
        path = os.path.join(folder.name, f"selection.{suffix}")
        output.write(table, path, csv_safe=request.query_params.get("csv_safe") == "true")
        return FileResponse(
            path,
            media_type=_FORMATS[suffix],
            filename=f"selection.{suffix}",
            background=BackgroundTask(folder.cleanup),
        )


def _with_body(
    function: Callable[[str, Request], Response],
) -> Callable[[Request], Awaitable[Response]]:
    """Hand a route its body as JSON in one fixed form, and run it outside the event loop."""

    async def route(request: Request) -> Response:
        require_media_type(request, [JSON])
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BODY:
                raise RequestError(413, "The selection is too large.", "Draw it again.")
        try:
            selection = json.dumps(cells.loads(body), sort_keys=True)
        except ValueError:
            error = RequestError(400, "The selection is not JSON.", "Send an object.")
            raise error from None
        return await run_in_threadpool(function, selection, request)

    return route


def _json(content: Any) -> Response:
    return Response(cells.dumps(content), media_type="application/json")


def _bare(values: NDArray[Any]) -> Response:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    content = np.ascontiguousarray(little).tobytes()
    return Response(content, media_type="application/octet-stream")


def _difference(one: Difference) -> dict[str, Any]:
    column = one.column
    about = {"name": column.name, "type": column.type, "difference": one.difference}
    if one.level is not None:
        return {**about, "level": one.level, "share": one.here, "share_all": one.everywhere}
    return {**about, "mean": one.here, "mean_all": one.everywhere}


def _shares(share: float | None, of: str = "") -> str:
    return "" if share is None else f" ({100 * share:.1f} %{of})"


def _whole(text: str, name: str) -> int:
    if not text.isdecimal():
        raise OptionError(f"Expected {name} to be an integer, got {text!r}.")
    return int(text)
