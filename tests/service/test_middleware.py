"""Who may ask the service."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.service.client import JSON, Serve, ask, good, post, refused
from twofold import Autoencoder
from twofold.errors import DataError
from twofold.service import server


def test_no_cors_header_is_ever_sent(people_app: Starlette) -> None:
    answer = ask(people_app, "GET", "/healthz", headers={"origin": "http://elsewhere"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_token_is_asked_for(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, token="a secret")
    for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "a secret"}):
        for method, path in (("POST", "/score"), ("GET", "/model"), ("GET", "/nowhere")):
            answer = ask(app, method, path, headers=headers)
            refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} a secret"}
        good(post(app, "/score", {"rows": [[1, 2, 3]]}, headers=headers))
    good(ask(app, "GET", "/healthz"))


def test_routes_that_are_added_stand_behind_the_token(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, token="a-secret")
    app.router.routes.append(Route("/more", app.state.service.routes()["/healthz"]))
    refused(ask(app, "GET", "/more"), 401)
    good(ask(app, "GET", "/more", headers={"authorization": "Bearer a-secret"}))


@pytest.mark.parametrize(
    ("raised", "status"), [(DataError("Expected 3, got 4. Send 3."), 422), (ValueError("x"), 500)]
)
def test_errors_of_routes_that_are_added_have_the_form_of_all(
    serve: Serve, floats: Autoencoder, raised: Exception, status: int
) -> None:
    def fail(request: Request) -> Response:
        raise raised

    app = serve(floats)
    app.router.routes.append(Route("/more", fail))
    refused(ask(app, "GET", "/more"), status)
    assert f'status="{status}"' in ask(app, "GET", "/metrics").text


def test_other_names_of_the_host_are_refused(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, hosts=server.own_names("127.0.0.1"))
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        good(ask(app, "GET", "/healthz", headers={"host": host}))
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        refused(ask(app, "GET", "/healthz", headers={"host": host}), 421)
    assert server.own_names("0.0.0.0") is None


@pytest.mark.parametrize(
    "host", ["[::1].evil.example", "localhost.", "localhost:80:80", "127.0.0.1:x", "a@localhost"]
)
def test_hosts_that_begin_like_an_own_name_are_refused(
    serve: Serve, floats: Autoencoder, host: str
) -> None:
    app = serve(floats, hosts=server.own_names("127.0.0.1"))
    error = refused(ask(app, "GET", "/healthz", headers={"host": host}), 421)["error"]
    assert "Expected a host that is allowed" in error


def test_request_with_two_lengths_is_refused(serve: Serve, floats: Autoencoder) -> None:
    headers = {"content-type": JSON, "content-length": "3", "transfer-encoding": "chunked"}
    answer = ask(serve(floats), "POST", "/score", content=b"{} ", headers=headers)
    refused(answer, 400)
    assert answer.headers["connection"] == "close"


def test_no_path_is_redirected(people_app: Starlette) -> None:
    answer = ask(people_app, "GET", "/healthz/", headers={"host": "evil.example"})
    refused(answer, 404)
    assert "location" not in answer.headers


def test_websockets_that_are_added_stand_behind_token_and_host(
    serve: Serve, floats: Autoencoder
) -> None:
    async def greet(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    app = serve(floats, token="a-secret", hosts=["testserver"])
    app.router.routes.append(WebSocketRoute("/more", greet))
    right = {"authorization": "Bearer a-secret"}
    client = TestClient(app)
    for headers in ({}, {**right, "host": "evil.example"}):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/more", headers=headers):
            pass
    with client.websocket_connect("/more", headers=right) as socket:
        assert socket.receive_text() == "hello"
