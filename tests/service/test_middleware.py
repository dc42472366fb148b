"""Who may ask the service."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route

from tests.service.client import Serve, ask, good, post, refused
from twofold import Autoencoder
from twofold.service import app as service
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
    app.router.routes.append(Route("/more", service._endpoint(app.state.service.healthy, [])))
    refused(ask(app, "GET", "/more"), 401)
    good(ask(app, "GET", "/more", headers={"authorization": "Bearer a-secret"}))


def test_other_names_of_the_host_are_refused(serve: Serve, floats: Autoencoder) -> None:
    app = serve(floats, hosts=server.own_names("127.0.0.1"))
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        good(ask(app, "GET", "/healthz", headers={"host": host}))
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        refused(ask(app, "GET", "/healthz", headers={"host": host}), 421)
    assert server.own_names("0.0.0.0") is None
