"""The service's OpenAPI document: every route with its bodies, answers, statuses and examples.

It is written for one model: rows have that model's columns, and examples are rows drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from twofold import __version__
from twofold.data import arrow
from twofold.data.json import dumps, loads, rows
from twofold.schema.column import Column
from twofold.service.memory import Account, Share
from twofold.service.model import ServedModel
from twofold.service.requests import ARROW, JSON, finished
from twofold.service.responses import Answer
from twofold.verbs import VERBS, Parameter, Verb

_MOST_PROPERTIES = 200  # columns that are described one by one
_NUMBER = {"type": ["number", "null"]}
_CELL = {"type": ["number", "string", "boolean", "null"]}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERRORS = {
    "400": "The body cannot be read.",
    "406": "No accepted type is available for the answer.",
    "408": "The body did not arrive in time.",
    "413": "The body, or what it asks for, is too large.",
    "415": "The body has an unsupported type.",
    "422": "Invalid rows or parameters; the text is that of the Python library.",
    "500": "Internal error.",
    "503": "Too much is waiting; try again later.",
    "504": "The request was not done in time.",
}
_OF_GATES = {"401": "Missing or invalid bearer token.", "421": "This host is not allowed."}


def _object(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    found: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    return {**found, "required": required, "additionalProperties": False}


def _list(items: Mapping[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **bounds}


_TEXT = {"type": "string"}
_NAMES, _NUMBERS = _list(_TEXT), _list(_NUMBER)
_MATRIX, _TABLE = _list(_NUMBERS), _list(_list(_CELL))
_SHAPE = _list({"type": "integer"})
_ERROR = _object({"error": _TEXT, "column": {"type": ["string", "null"]}, "fix": _TEXT})
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_ROWS = {"columns": _NAMES, "row_shape": _SHAPE, "rows": _TABLE}
# What a verb answers, by what it returns; where there are several draws, they take the rows' place.
_ANSWERS: dict[str, dict[str, Any]] = {
    "codes": _object({"names": _NAMES, "codes": _MATRIX}),
    "rows": _object(_ROWS, ["row_shape"]),
    "draws": _object({**_ROWS, "draws": _list(_TABLE)}, ["row_shape", "rows", "draws"]),
    "scores": _object(
        {
            "score": _NUMBERS,
            "p_value": _list(_PROBABILITY),
            "label": _list({"enum": [1, -1]}),
            "offset": _NUMBER,
        }
    ),
    "explanation": _object(
        {
            "columns": _NAMES,
            "base": _NUMBERS,
            "score": _NUMBERS,
            "observed": _TABLE,
            "expected": _TABLE,
            "contribution": _MATRIX,
        }
    ),
}
# What an answer may be sent to next.
_AS_ROWS, _AS_CODES = {"rows": "$response.body#/rows"}, {"codes": "$response.body#/codes"}
_LINKS = {"sample": [("score", _AS_ROWS), ("encode", _AS_ROWS)], "encode": [("decode", _AS_CODES)]}
_OBJECT = {"type": "object"}
_MODEL = {
    **dict.fromkeys(("options", "training", "comparison", "versions"), _OBJECT),
    "layers": _list(_OBJECT),
    "offset": _NUMBER,
}
_COLUMN = {
    "type": "object",
    "properties": {"name": _TEXT, "kind": _TEXT},
    "required": ["name", "kind", "likelihood", "type", "levels", "range"],
}
_COLUMNS = {"columns": _list(_COLUMN), "row_shape": _SHAPE}
# Path -> summary, media type and schema of the answer.
_READING: dict[str, tuple[str, str, dict[str, Any]]] = {
    "/model": (
        "The model: version, options, layers, training, comparison with PCA, threshold.",
        JSON,
        {"type": "object", "properties": _MODEL, "required": list(_MODEL)},
    ),
    "/schema": (
        "The columns, and the shape of a row.",
        JSON,
        {"type": "object", "properties": _COLUMNS, "required": list(_COLUMNS)},
    ),
    "/healthz": (
        "Whether the service is up; needs no token.",
        JSON,
        _object({"status": {"const": "ok"}}),
    ),
    "/metrics": ("Counts for Prometheus.", "text/plain", _TEXT),
    "/openapi.json": ("This document.", JSON, _OBJECT),
}


def document(served: ServedModel, guarded: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a model's service.

    `guarded` holds the statuses of requests that do not pass the gates.
    """
    paths: dict[str, Any] = {}
    for name, (body, answer) in examples(served).items():
        paths[f"/{name}"] = {"post": _verb(VERBS[name], served, body, answer)}
    for path, (summary, media_type, about) in _READING.items():
        paths[path] = {"get": _get(path, summary, media_type, about)}
    for path, methods in paths.items():
        for operation in methods.values():
            asked = [status for status in guarded if (status, path) != ("401", "/healthz")]
            operation["responses"] |= {s: _refusal(_OF_GATES[s]) for s in asked}
            if "401" in asked:
                operation["security"] = [{"token": []}]
    components: dict[str, Any] = {"schemas": {"Error": _ERROR}}
    if "401" in guarded:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    description = (
        "One fitted autoencoder: codes, reconstructions, scores with their reasons, imputed and "
        "new rows. Missing cells are null; NaN and infinity, which JSON has no words for, are "
        "written as null as well."
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "twofold", "version": __version__, "description": description},
        "paths": paths,
        "components": components,
    }


def examples(served: ServedModel) -> dict[str, tuple[Any, Answer]]:
    """Return a body for each verb, and the answer to it."""
    drawn = served.answer("sample", {"rows": served.model.sample(2, 0)})
    given = loads(dumps(_short(rows(drawn.table(slice(0, 2))))))
    if len(served.names) <= _MOST_PROPERTIES:
        given = [dict(zip(served.names, row, strict=True)) for row in given]
    body = dumps({"rows": given})
    read = finished(served.read(JSON, body, ("rows",), Share(Account(8 * len(body)))))["rows"]
    codes = _short(served.verbs["encode"].call(read)["codes"].tolist())
    found: dict[str, tuple[Any, Answer]] = {"sample": ({"n": 2, "random_state": 0}, drawn)}
    for name, verb in served.verbs.items():
        sent = {"codes": codes} if name == "decode" else {"rows": given}
        computed = np.array(codes) if name == "decode" else read
        found[name] = (sent, served.answer(name, verb.call(computed)))
    return found


def _verb(verb: Verb, served: ServedModel, body: Any, answer: Answer) -> dict[str, Any]:
    fields = {p.name: _parameter(p) for p in verb.parameters}
    if verb.takes != "nothing":
        fields = {verb.takes: (_rows if verb.takes == "rows" else _codes)(served)} | fields
    else:
        fields["n"] |= {"type": "integer", "maximum": served.limits.most_rows(len(served.names))}
    optional = [p.name for p in verb.parameters if p.name != "n"]
    content: dict[str, Any] = {JSON: {"schema": _object(fields, optional), "example": body}}
    in_query = []
    if verb.takes != "nothing":
        content[ARROW] = _BINARY
        in_query = [_in_query(parameter) for parameter in verb.parameters]
    key = "draws" if verb.returns == "rows" and "n_draws" in fields else verb.returns
    sent = {"schema": _ANSWERS[key], "example": loads(b"".join(answer.pieces(JSON)))}
    success: dict[str, Any] = {"description": "Done.", "content": {JSON: sent, ARROW: _BINARY}}
    if then := _LINKS.get(verb.name):
        success["links"] = {to: {"operationId": to, "requestBody": body} for to, body in then}
    return {
        "operationId": verb.name,
        "summary": verb.help,
        "parameters": in_query,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": success, **{s: _refusal(text) for s, text in _ERRORS.items()}},
    }


def _get(path: str, summary: str, media_type: str, about: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": "Done.", "content": {media_type: {"schema": about}}}}
    if path == "/openapi.json":  # whose examples are computed when it is first asked for
        answers |= {status: _refusal(_ERRORS[status]) for status in ("500", "503", "504")}
    name = path.removeprefix("/").replace(".", "_")
    return {"operationId": name, "summary": summary, "responses": answers}


def _refusal(description: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, "content": content}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"type": ["integer", "null"], "minimum": parameter.least}
    return found | {"description": parameter.help, "maximum": 2**32 - 1}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    about = f"{parameter.help} For bodies that are not JSON, which has its own field."
    schema = {"type": "integer", "minimum": parameter.least, "maximum": 1000}
    found = {"name": parameter.name, "in": "query", "required": False}
    return {**found, "description": about, "schema": schema}


def _rows(served: ServedModel) -> dict[str, Any]:
    """Describe rows as objects and as lists, cell by cell if the columns are not too many."""
    n, columns = len(served.names), served.schema.columns
    by_name: dict[str, Any] = {"type": "object", "additionalProperties": _CELL}
    by_name |= {"minProperties": n, "maxProperties": n}
    in_order = _list(_CELL, minItems=n, maxItems=n)
    if n <= _MOST_PROPERTIES:
        described = {column.name: _cell(column) for column in columns}
        by_name = _object(described)
        if not served.schema.is_image:
            in_order |= {"prefixItems": list(described.values()), "items": False}
    most = served.limits.most_rows(n)
    return {"anyOf": [_list(row, minItems=1, maxItems=most) for row in (by_name, in_order)]}


def _cell(column: Column) -> dict[str, Any]:
    form = column.format
    if form is None or column.kind == "ignored":
        return _CELL if form is not None else {"type": ["number", "boolean", "null"]}
    if form.is_written:
        return {"type": ["string", "number", "null"]}
    if form.type == "number":
        return _NUMBER
    if form.type == "boolean":
        return {"enum": [True, False, 0, 1, None]}
    if form.type == "text":
        others = [level for level in form.levels if not isinstance(level, str)]
        text = {"type": ["string", "null"]}
        return {"anyOf": [text, {"enum": others}]} if others else text
    kind = arrow.kind_of(form)
    zoned = pa.types.is_timestamp(kind) and kind.tz
    # The second is of OpenAPI's registry of formats.
    return {"type": ["string", "null"], "format": "date-time" if zoned else "date-time-local"}


def _codes(served: ServedModel) -> dict[str, Any]:
    n = len(served.code_names)
    most = served.limits.most_rows(len(served.names))
    return _list(
        _list({"type": ["number", "boolean"]}, minItems=n, maxItems=n), minItems=1, maxItems=most
    )


def _short(value: Any) -> Any:
    """Return an example with numbers of a few digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return [_short(part) for part in value]
    return value
