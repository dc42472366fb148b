"""A real server starts, bounds its clients, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette
from typer.testing import CliRunner

from tests.service.client import JSON, Serve, ask, fitted, post, refused
from twofold import Autoencoder
from twofold.cli import main
from twofold.errors import OptionError
from twofold.service import server


def start(model: Path, *words: str, before: str = "pass") -> tuple[subprocess.Popen[str], int]:
    code = f"from twofold.cli.main import main; {before}; main()"
    command = [sys.executable, "-c", code, "serve", str(model)]
    process = subprocess.Popen(
        [*command, "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r" at http://127\.0\.0\.1:(\d+) ", line)
    if found is None:
        process.kill()
        pytest.fail(f"{line}{process.communicate()[1]}")
    return process, int(found[1])


def raw_request(rows: list[list[float]]) -> bytes:
    content = json.dumps({"rows": rows}).encode()
    head = f"POST /score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {JSON}\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answer_of(client: socket.socket) -> bytes:
    """Read one answer, or what comes until the connection is closed."""
    read = b""
    while part := client.recv(2**16):
        read += part
        head, _, rest = read.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(rest) == int(length[1]):
            break
    return read


def test_server_loads_the_model_again_and_drains_when_it_is_asked_to(
    floats: Autoencoder, tmp_path: Path
) -> None:
    floats.save(tmp_path / "model")
    process, port = start(tmp_path / "model")
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            before = client.get("/model").json()["version"]
            rng = np.random.default_rng(5)
            frame = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"])
            fitted(frame, n_components=1).save(tmp_path / "model", overwrite=True)
            process.send_signal(signal.SIGHUP)
            while client.get("/model").json()["version"] == before:
                assert process.poll() is None
        quick, accepted = (stack.enter_context(connect(port)) for _ in range(2))
        request = raw_request([[1.0, 2.0, 3.0]])
        accepted.sendall(request[:-5])
        quick.sendall(request)
        assert answer_of(quick).startswith(b"HTTP/1.1 200 OK")  # so the other has arrived too
        process.send_signal(signal.SIGTERM)
        while is_listening(port):
            assert process.poll() is None
        accepted.sendall(request[-5:])
        assert answer_of(accepted).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_server_gives_slow_clients_up(serve: Serve, floats: Autoencoder) -> None:
    request = raw_request([[1.0, 2.0, 3.0]])

    async def talk(port: int, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await reader.read()  # until the connection is closed
        writer.close()
        await writer.wait_closed()
        return answer

    async def run(port: int) -> list[bytes]:
        sent = (b"", b"POST /sc", request[:-5])
        return await asyncio.gather(*(talk(port, part) for part in sent))

    with server.running(serve(floats, timeout=0.3), timeout=0.3) as address:
        answers = asyncio.run(run(int(address.rpartition(":")[2])))
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["fix"]


def is_listening(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["--host", "127.0.0.1"], False),
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--token", "a-secret"], False),
    ],
)
def test_command_warns_where_everybody_may_ask(
    floats: Autoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    warned: bool,
) -> None:
    served: list[Starlette] = []
    monkeypatch.setattr(server, "serve", lambda app, listener, **settings: served.append(app))
    monkeypatch.setattr(server, "listen", lambda host, port: contextlib.nullcontext())
    floats.save(tmp_path / "model")
    result = CliRunner().invoke(main.app, ["serve", str(tmp_path / "model"), *words])
    assert result.exit_code == 0, result.output
    assert ("everyone who reaches 0.0.0.0 can use this service" in result.stderr) == warned
    hosts = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "any.example"}[words[1]]
    status = ask(served[0], "GET", "/model", headers={"host": hosts}).status_code
    assert status == (401 if "--token" in words else 200)


def test_command_takes_the_token_from_the_environment(
    floats: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Starlette] = []
    monkeypatch.setattr(server, "serve", lambda app, listener, **settings: served.append(app))
    monkeypatch.setattr(server, "listen", lambda host, port: contextlib.nullcontext())
    monkeypatch.setenv("TWOFOLD_TOKEN", "a-secret")
    floats.save(tmp_path / "model")
    words = ["serve", str(tmp_path / "model"), "--port", "0", "--max-rows", "2"]
    result = CliRunner().invoke(main.app, words)
    assert result.exit_code == 0, result.output
    headers = {"host": "localhost", "authorization": "Bearer a-secret"}
    answer = post(served[0], "/score", {"rows": [[1, 2, 3]] * 3}, headers=headers)
    assert "at most 2 rows" in refused(answer, 413)["error"]
    served[0].state.service.close()


def test_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match="between 0 and 65535"):
        server.listen("127.0.0.1", port)


def test_answers_are_sent_at_once() -> None:
    with server.listen("127.0.0.1", 0) as listener:
        # asyncio switches Nagle's algorithm off for sockets that say what they speak.
        assert listener.proto == socket.IPPROTO_TCP


def test_what_is_not_http_is_refused_in_the_form_of_all_errors(
    serve: Serve, floats: Autoencoder
) -> None:
    with server.running(serve(floats)) as address, connect(int(address.rpartition(":")[2])) as one:
        one.sendall(b"GET / HTTP/9.9\r\nbad header\r\n\r\n")
        head, _, body = answer_of(one).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert set(json.loads(body)) == {"error", "column", "fix"}


def test_too_many_connections_are_refused(
    serve: Serve, floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_most_connections", lambda: 1)
    with server.running(serve(floats)) as address, contextlib.ExitStack() as stack:
        port = int(address.rpartition(":")[2])
        first, second = (stack.enter_context(connect(port)) for _ in range(2))
        assert answer_of(second).startswith(b"HTTP/1.1 503 ")
        first.sendall(raw_request([[1.0, 2.0, 3.0]]))
        assert answer_of(first).startswith(b"HTTP/1.1 200 OK")


def test_collector_does_not_stop_requests_to_look_through_the_libraries(
    serve: Serve, floats: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, left_alone = serve(floats), list[int]()
    monkeypatch.setattr(
        server._Server, "run", lambda *_, **__: left_alone.append(gc.get_freeze_count())
    )
    with server.listen("127.0.0.1", 0) as listener:
        server.serve(app, listener, timeout=1.0)
    assert left_alone[0] > 100_000
    assert gc.get_freeze_count() == 0


def test_server_ends_in_time_whatever_is_under_way(floats: Autoencoder, tmp_path: Path) -> None:
    floats.save(tmp_path / "model")
    assert server.GRACE_SECONDS < server.END_SECONDS < 10  # as the documentation says
    sooner = "from twofold.service import server as s; s.GRACE_SECONDS, s.END_SECONDS = 0.5, 1.5"
    process, port = start(tmp_path / "model", before=sooner)
    with process, connect(port) as long:
        content = json.dumps({"rows": [[None] * 3], "n_draws": 100_000}).encode()
        head = f"POST /impute HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {JSON}\r\n"
        long.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content)
        with connect(port) as quick:
            quick.sendall(raw_request([[1.0, 2.0, 3.0]]))
            assert answer_of(quick).startswith(b"HTTP/1.1 200 OK")
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(10) == 0  # two seconds, on a machine with nothing else to do
        finally:
            process.kill()
