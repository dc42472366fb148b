"""The OpenAPI document says what the service does."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from tests.service.client import JSON, Serve, ask, assert_close, good, post
from twofold import Autoencoder


def test_every_route_is_in_the_document(people_app: Starlette) -> None:
    document = good(ask(people_app, "GET", "/openapi.json"))
    routes = {route.path for route in people_app.routes if isinstance(route, Route)}
    assert set(document["paths"]) == routes
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "200" in operation["responses"]


@pytest.mark.parametrize("which", ["mixed", "array", "images"])
def test_examples_are_valid_and_true(
    serve: Serve, request: pytest.FixtureRequest, which: str
) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="it checks examples by their schemas")
    app = serve(request.getfixturevalue(which))
    for path, methods in app.state.service.document()["paths"].items():
        if "post" not in methods:
            continue
        given = methods["post"]["requestBody"]["content"][JSON]
        jsonschema.validate(given["example"], given["schema"])
        found = good(post(app, path, given["example"]))
        answer = methods["post"]["responses"]["200"]["content"][JSON]
        jsonschema.validate(answer["example"], answer["schema"])
        for name, values in found.items():
            assert_close(values, answer["example"][name])


def test_cells_are_described_as_they_are_taken(people_app: Starlette) -> None:
    document = people_app.state.service.document()
    body = document["paths"]["/score"]["post"]["requestBody"]["content"][JSON]["schema"]
    described = body["properties"]["rows"]["anyOf"][0]["items"]["properties"]
    assert described["age"] == {"type": ["number", "null"]}
    assert described["town"] == {"type": ["string", "null"]}
    assert described["joined"]["format"] == "date-time-local"
    assert described["smoker"] == {"enum": [True, False, 0, 1, None]}


def test_document_asks_for_the_token(serve: Serve, floats: Autoencoder) -> None:
    document = serve(floats, token="a-secret").state.service.document()
    assert document["paths"]["/score"]["post"]["security"] == [{"token": []}]
    assert "401" in document["paths"]["/score"]["post"]["responses"]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_answers_to_random_requests_keep_to_the_document(serve: Serve, mixed: Autoencoder) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="it makes requests from the document")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    app = serve(mixed, max_rows=50)
    schema = schemathesis.openapi.from_dict(app.state.service.document())
    schema.app = app
    # Two checks cannot hold: random bytes are no Arrow stream, and rows times draws are bounded.
    left_out = {"positive_data_acceptance", "negative_data_rejection"}
    registered = schemathesis.checks.CHECKS
    names = set(registered.get_all_names()) - left_out
    checks = [registered.get_one(name) for name in sorted(names)]
    seen: set[int] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=3,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def run(case: Any) -> None:
                answer = case.call()
                seen.add(answer.status_code)
                case.validate_response(answer, checks=checks)

            # Some routes take nothing that could be wrong.
            with contextlib.suppress(Unsatisfiable):
                run()
    assert {200, 422} <= seen
    assert max(seen) < 500


@pytest.mark.parametrize("which", ["mixed", "array", "images"])
def test_answers_can_be_sent_where_the_links_lead(
    serve: Serve, request: pytest.FixtureRequest, which: str
) -> None:
    app = serve(request.getfixturevalue(which))
    followed = set()
    for path, methods in app.state.service.document()["paths"].items():
        for operation in methods.values():
            for to, link in operation["responses"]["200"].get("links", {}).items():
                example = operation["requestBody"]["content"][JSON]["example"]
                answer = good(post(app, path, example))
                field, place = next(iter(link["requestBody"].items()))
                good(post(app, f"/{to}", {field: answer[place.removeprefix("$response.body#/")]}))
                followed.add((path, to))
    assert followed == {("/sample", "score"), ("/sample", "encode"), ("/encode", "decode")}
