"""The service as a process: it listens, serves until it is told to stop, and finishes what it took.

uvicorn speaks HTTP. What is added here is a bound on the time that a client may take for the head
of a request, and an exit status of 0 where the process is asked to end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from twofold.errors import MissingExtraError, OptionError

try:
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
except ImportError as missing:
    raise MissingExtraError(
        "The service needs FastAPI and uvicorn, which are not installed. Install "
        "'twofold[service]'."
    ) from missing

_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s"
)
_TEXT = b'{"error":"The request did not arrive in time.","column":null,"fix":"Send it faster."}'


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service that listens on `host`.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> list[str] | None:
    """Return the names that a browser here may call the service by; None where others reach it."""
    if not is_loopback(host):
        return None
    shown = f"[{host}]" if ":" in host else host
    return list(dict.fromkeys([shown.lower(), "localhost", "127.0.0.1", "[::1]"]))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free.

    Raises
    ------
    OptionError
        Where that cannot be.
    """
    if not 0 <= port < 65_536:
        raise OptionError(f"--port must lie between 0 and 65535; got {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol said, for else asyncio does not send at once, and each answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two services share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"Port {port} of {host} cannot be used: {error.strerror or error}. Choose another one "
            f"with --port, or 0 for any that is free."
        ) from error
    return listener


def serve(
    app: Any,
    listener: socket.socket,
    *,
    timeout: float,
    on_start: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve an application until SIGTERM or Ctrl-C, then answer what was accepted, and exit with 0.

    Parameters
    ----------
    app : FastAPI
    listener : socket
        What `listen` gave.
    timeout : float
        Seconds that a request may take to arrive, and again to be answered.
    on_start : callable, optional
        Told the address, once the service answers.
    """
    # uvicorn raises the signal again once it is done, which ends the process: as it should.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server_of(app, listener, timeout, on_start).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_of(
    app: Any, listener: socket.socket, timeout: float, on_start: Callable[[str], object]
) -> uvicorn.Server:
    """Return the server that `serve` runs."""
    protocol = type("_Protocol", (_Patient, AutoHTTPProtocol), {"head_seconds": timeout})
    config = uvicorn.Config(
        app,
        http=protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(2 * timeout) + 5,
    )
    return _Server(config, listener, on_start)


@contextmanager
def running(app: Any, *, port: int = 0, timeout: float = 30.0) -> Iterator[str]:
    """Serve an application on this machine, in a thread, as long as the context lasts.

    Gives the address. For notebooks and tests; a service of its own is `twofold serve`.

    Parameters
    ----------
    app : FastAPI
    port : int, default=0
        0 takes any that is free.
    timeout : float, default=30
        Seconds that a request may take to arrive, and again to be answered.

    Examples
    --------
    >>> import urllib.request
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> from twofold.service import create_app, running
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> app = create_app(Autoencoder(n_components=2, epochs=2, random_state=0).fit(X))
    >>> with running(app) as address:
    ...     with urllib.request.urlopen(address + "/healthz") as answer:
    ...         print(answer.read().decode())
    {"status":"ok"}
    """
    with listen("127.0.0.1", port) as listener:
        addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
        server = server_of(app, listener, timeout, addresses.put)
        thread = threading.Thread(target=_run, args=(server, listener, addresses), daemon=True)
        thread.start()
        address = addresses.get()
        if not address:
            raise OptionError("The service did not start; the log says why.")
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()


def _run(
    server: uvicorn.Server, listener: socket.socket, addresses: queue.SimpleQueue[str]
) -> None:
    try:
        server.run(sockets=[listener])
    finally:
        addresses.put("")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which tells where it listens."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        on_start: Callable[[str], object],
    ) -> None:
        super().__init__(config)
        self._listener, self._on_start = listener, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        self._on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")


class _Patient:
    """An HTTP protocol of uvicorn's that does not wait for the head of a request without end."""

    head_seconds = 30.0
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        super().connection_lost(error)  # type: ignore[misc]

    def _watch(self) -> None:
        """Start the clock where a head is incomplete, and stop it where a request has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if not self.transport.is_closing():
            self.transport.write(_TOO_LATE % (len(_TEXT), _TEXT))
            self.transport.close()
