"""The service's OpenAPI document: every route with its bodies, answers, statuses and examples.

It is written for one model: rows have that model's columns, and examples are rows drawn from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from twofold import __version__
from twofold.data import json as cells
from twofold.data.json import dumps, loads
from twofold.schema.column import Column
from twofold.schema.schema import Schema
from twofold.service.deployment import Deployment
from twofold.service.requests import ARROW, JSON, Limits
from twofold.service.responses import NUMBERS, PARQUET, Answer
from twofold.verbs import VERBS

_MOST_PROPERTIES = 200  # columns that are described one by one
_NUMBER = {"type": ["number", "null"]}
_CELL = {"type": ["number", "string", "boolean", "null"]}
_CELL_OF_TYPE: dict[str, dict[str, Any]] = {
    "number": {"type": ["number", "boolean", "null"]},
    "boolean": {"enum": [True, False, 0, 1, None]},
    "text": {"type": ["string", "number", "boolean", "null"]},
    "time": {"type": ["string", "null"], "format": "date-time"},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERRORS = {
    "400": "The body cannot be read.",
    "401": "Missing or invalid bearer token.",
    "406": "No accepted type is available for the answer.",
    "408": "The body did not arrive in time.",
    "413": "The body, or what it asks for, is too large.",
    "415": "The body has an unsupported type.",
    "421": "This host is not allowed.",
    "422": "Invalid rows or parameters; the text is that of the Python library.",
    "500": "Internal error.",
    "503": "Too much is waiting; try again later.",
    "504": "The request was not done in time.",
}
_PARAMETERS = {p.name: p for verb in VERBS.values() for p in verb.parameters}
_WITH_ROWS = ("400", "406", "408", "413", "415", "422", "500", "503", "504")


def _object(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    found: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    return {**found, "required": required, "additionalProperties": False}


def _list(items: Mapping[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **bounds}


_ERROR = _object(
    {"error": {"type": "string"}, "column": {"type": ["string", "null"]}, "fix": {"type": "string"}}
)
_NAMES = _list({"type": "string"})
_TABLE = _list(_list(_CELL))
_MATRIX = _list(_list(_NUMBER))
_ROWS_ANSWER = _object(
    {"columns": _NAMES, "row_shape": _list({"type": "integer"}), "rows": _TABLE}, ["row_shape"]
)
ANSWERS: dict[str, dict[str, Any]] = {
    "/encode": _object({"names": _NAMES, "codes": _MATRIX}),
    "/decode": _ROWS_ANSWER,
    "/reconstruct": _ROWS_ANSWER,
    "/score": _object(
        {
            "score": _list(_NUMBER),
            "p_value": _list({"type": "number", "minimum": 0, "maximum": 1}),
            "label": _list({"enum": [1, -1]}),
            "offset": _NUMBER,
        }
    ),
    "/explain": _object(
        {
            "columns": _NAMES,
            "base": _list(_NUMBER),
            "score": _list(_NUMBER),
            "observed": _TABLE,
            "expected": _TABLE,
            "contribution": _MATRIX,
        }
    ),
    "/impute": _object(
        {
            "columns": _NAMES,
            "row_shape": _list({"type": "integer"}),
            "rows": _TABLE,
            "draws": _list(_TABLE),
        },
        ["row_shape", "rows", "draws"],
    ),
    "/sample": _ROWS_ANSWER,
}


def document(deployment: Deployment, limits: Limits, guarded: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a model's service.

    `guarded` holds the statuses of requests that middleware refuses.
    """
    schema, n_components = deployment.schema, len(deployment.served.code_names)
    paths: dict[str, Any] = {}
    for path, (body, answer) in examples(deployment).items():
        paths[path] = {"post": _verb(path, schema, n_components, limits, body, answer)}
    for path, (summary, media_type, about) in _READING.items():
        paths[path] = {"get": _get(path, summary, media_type, about)}
    for path, methods in paths.items():
        for operation in methods.values():
            for status in guarded:
                if status == "401" and path == "/healthz":
                    continue
                operation["responses"][status] = _error(status)
                if status == "401":
                    operation["security"] = [{"token": []}]
    scheme = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "twofold",
            "version": __version__,
            "description": "One fitted autoencoder: codes, reconstructions, scores with their "
            "reasons, imputed and new rows. Missing cells are null; NaN and infinity, which JSON "
            "has no words for, are written as null as well.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            **({"securitySchemes": scheme} if "401" in guarded else {}),
        },
    }


def examples(deployment: Deployment) -> dict[str, tuple[Any, Answer]]:
    """Return a body for each verb, and the answer to it."""
    served, names = deployment.served, deployment.names
    drawn = deployment.answer("sample", {"rows": served.model.sample(2, 0)})
    rows = loads(dumps(_short(cells.rows(drawn.table(slice(0, 2))))))
    if len(names) <= _MOST_PROPERTIES:
        rows = [dict(zip(names, row, strict=True)) for row in rows]
    given = deployment.reader.read_now({"rows": rows}, "rows")
    found = {
        name: deployment.answer(name, verb.run(given))
        for name, verb in deployment.verbs.items()
        if name != "decode"
    }
    codes = _short(found["encode"].parts["codes"].tolist())
    bodies: dict[str, Any] = {f"/{name}": ({"rows": rows}, a) for name, a in found.items()}
    decoded = deployment.answer("decode", served.decode(np.array(codes)))
    bodies["/decode"] = ({"codes": codes}, decoded)
    return bodies | {"/sample": ({"n": 2, "random_state": 0}, drawn)}


def _verb(
    path: str,
    schema: Schema,
    n_components: int,
    limits: Limits,
    body: Any,
    answer: Answer,
) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": _BODIES[path](schema, n_components, limits)}}
    content[JSON]["example"] = body
    parameters = []
    if path != "/sample":
        content[ARROW] = _BINARY
    if path == "/impute":
        parameters = [_parameter(name) for name in ("n_draws", "random_state")]
    result = loads(b"".join(answer.pieces(JSON)))
    found: dict[str, Any] = {JSON: {"schema": ANSWERS[path], "example": result}}
    found |= {ARROW: _BINARY, PARQUET: _BINARY}
    success: dict[str, Any] = {"description": "Done.", "content": found}
    if path in ("/encode", "/decode", "/reconstruct"):
        found[NUMBERS] = _BINARY
        success["headers"] = {
            "X-Shape": {
                "description": f"Of {NUMBERS}, which is float32, little-endian, row by row: rows "
                f"and columns.",
                "schema": {"type": "string", "pattern": r"^\d+,\d+$"},
            }
        }
    return {
        "operationId": path.removeprefix("/"),
        "summary": VERBS[path[1:]].help,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": success, **{status: _error(status) for status in _WITH_ROWS}},
    }


def _parameter(name: str) -> dict[str, Any]:
    described, least = _PARAMETERS[name].help, _PARAMETERS[name].least
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"{described} For bodies that are not JSON, which has its own field.",
        "schema": {"type": "integer", "minimum": least, "maximum": 1000},
    }


def _error(status: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": _ERRORS[status], "content": content}


def _rows(schema: Schema, limits: Limits) -> dict[str, Any]:
    columns = schema.columns
    most = limits.most_rows(len(columns))
    described = {c.name: _cell(c) for c in columns} if len(columns) <= _MOST_PROPERTIES else None
    if described is None:
        by_name: dict[str, Any] = {
            "type": "object",
            "additionalProperties": _CELL,
            "minProperties": len(columns),
            "maxProperties": len(columns),
        }
    else:
        by_name = _object(described)
    if described is not None and not schema.is_image:
        # Cell by cell, so that each has the type of its column.
        in_order: dict[str, Any] = {"type": "array", "prefixItems": list(described.values())}
        in_order |= {"items": False, "minItems": len(columns), "maxItems": len(columns)}
    else:
        in_order = _list(_CELL, minItems=len(columns), maxItems=len(columns))
    either = [_list(by_name, minItems=1, maxItems=most), _list(in_order, minItems=1, maxItems=most)]
    return {"anyOf": either}


def _cell(column: Column) -> dict[str, Any]:
    kind = "number" if column.format is None else column.format.type
    return _CELL_OF_TYPE[kind] if column.kind != "ignored" else _CELL


def _rows_body(schema: Schema, n_components: int, limits: Limits) -> dict[str, Any]:
    return _object({"rows": _rows(schema, limits)})


def _impute_body(schema: Schema, n_components: int, limits: Limits) -> dict[str, Any]:
    fields = {name: _whole(name) for name in ("n_draws", "random_state")}
    return _object({"rows": _rows(schema, limits), **fields}, list(fields))


def _codes_body(schema: Schema, n_components: int, limits: Limits) -> dict[str, Any]:
    row = _list({"type": "number"}, minItems=n_components, maxItems=n_components)
    most = limits.most_rows(len(schema.columns))
    return _object({"codes": _list(row, minItems=1, maxItems=most)})


def _sample_body(schema: Schema, n_components: int, limits: Limits) -> dict[str, Any]:
    n = _whole("n") | {"maximum": limits.most_rows(len(schema.columns))}
    return _object({"n": n, "random_state": _whole("random_state")}, ["random_state"])


def _whole(name: str) -> dict[str, Any]:
    described, least = _PARAMETERS[name].help, _PARAMETERS[name].least
    found: dict[str, Any] = {"type": ["integer", "null"], "minimum": least}
    found |= {"description": described, "maximum": 2**32 - 1}
    return found if name != "n" else found | {"type": "integer"}


_BODIES: dict[str, Callable[[Schema, int, Limits], dict[str, Any]]] = {
    "/encode": _rows_body,
    "/decode": _codes_body,
    "/reconstruct": _rows_body,
    "/score": _rows_body,
    "/explain": _rows_body,
    "/impute": _impute_body,
    "/sample": _sample_body,
}
_OBJECT = {"type": "object"}
_READING: dict[str, tuple[str, str, dict[str, Any]]] = {
    "/model": (
        "The model: version, options, layers, training, comparison with PCA, threshold.",
        JSON,
        {
            "type": "object",
            "properties": {
                "options": _OBJECT,
                "layers": _list(_OBJECT),
                "training": _OBJECT,
                "comparison": _OBJECT,
                "offset": _NUMBER,
                "versions": _OBJECT,
            },
            "required": ["options", "layers", "training", "comparison", "offset", "versions"],
        },
    ),
    "/schema": (
        "The columns, and the shape of a row.",
        JSON,
        {
            "type": "object",
            "properties": {
                "columns": _list(
                    {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "kind": {"type": "string"}},
                        "required": ["name", "kind", "likelihood", "type", "levels", "range"],
                    }
                ),
                "row_shape": _list({"type": "integer"}),
            },
            "required": ["columns", "row_shape"],
        },
    ),
    "/healthz": (
        "Whether the service is up; needs no token.",
        JSON,
        _object({"status": {"const": "ok"}}),
    ),
    "/metrics": ("Counts for Prometheus.", "text/plain", {"type": "string"}),
    "/openapi.json": ("This document.", JSON, _OBJECT),
}


def _get(path: str, summary: str, media_type: str, about: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": {"description": "Done.", "content": {media_type: {"schema": about}}}}
    if path == "/openapi.json":  # whose examples are computed when it is first asked for
        responses |= {status: _error(status) for status in ("500", "503", "504")}
    return {
        "operationId": path.removeprefix("/").replace(".", "_"),
        "summary": summary,
        "responses": responses,
    }


def _short(value: Any) -> Any:
    """Return an example with numbers of a few digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return [_short(part) for part in value]
    return value
