"""The service as a process: it listens, serves until SIGTERM, and then ends in a bounded time.

uvicorn speaks HTTP. What is added here: bounds on connections and on the time that a client may
take for the head of a request, the service's form of errors for what is not HTTP, a time after
which the process ends whatever is under way, and SIGHUP, which loads the model again.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from twofold.data import json as cells
from twofold.errors import OptionError
from twofold.service.errors import RequestError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
GRACE_SECONDS = 5  # for requests under way after SIGTERM
END_SECONDS = 8.0  # after which the process is over
_SWITCH_SECONDS = 0.001  # that a thread has before another that waits takes its turn
_MOST_CONNECTIONS = 1_000
_LEFT_FILES = 64  # that the process may open besides its connections
_ANSWER = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
_ANSWER += b"content-length: %d\r\n\r\n%s"


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
        raise OptionError(f"Expected a --port between 0 and 65535, got {port}.")
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
    """Serve an application until SIGTERM or Ctrl-C, and exit with 0 within 10 seconds.

    Until then requests under way are answered if they are done within 5 seconds. SIGHUP loads the
    model again from its folder.

    Parameters
    ----------
    app : Starlette
    listener : socket
        What `listen` gave.
    timeout : float
        Seconds that the head of a request may take to arrive.
    on_start : callable, optional
        Receives the address, once the service answers.
    """
    handlers: dict[int, Any] = {signal.SIGTERM: _leave, signal.SIGINT: _leave}
    if hasattr(signal, "SIGHUP"):
        reload = partial(_reload, app.state.service)
        handlers[signal.SIGHUP] = lambda *_: threading.Thread(target=reload, daemon=True).start()
    # uvicorn raises the signal again once it is done, which ends the process: as it should.
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # The libraries stay for good: to look through them for garbage stops every thread for 0.2 s.
    gc.freeze()
    try:
        _Server(app, listener, timeout, on_start, END_SECONDS).run(sockets=[listener])
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
        for number, handler in before.items():
            signal.signal(number, handler)


def _reload(service: Any) -> None:
    try:
        service.reload()
    except Exception:
        logger.exception("the model could not be loaded again; the one before is served")


@contextmanager
def running(app: Any, *, port: int = 0, timeout: float = 30.0) -> Iterator[str]:
    """Serve an application on this machine, in a thread, as long as the context lasts.

    Gives the address. For notebooks and tests; a service of its own is `twofold serve`.

    Parameters
    ----------
    app : Starlette
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
        server = _Server(app, listener, timeout, addresses.put)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                addresses.put("")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        address = addresses.get()
        if not address:
            raise OptionError("The service did not start; the log says why.")
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(END_SECONDS)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: to collect what is left, Python may take seconds."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which says where it listens, and ends in time."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        timeout: float,
        on_start: Callable[[str], object],
        end_seconds: float | None = None,
    ) -> None:
        protocol = type("_Protocol", (_Bounded, H11Protocol), {"head_seconds": timeout})
        config = uvicorn.Config(
            app,
            http=protocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=GRACE_SECONDS + 1,
        )
        super().__init__(config)
        self._service, self._listener = app.state.service, listener
        self._on_start, self._end_seconds = on_start, end_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        self._on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._end_seconds is not None:
            # Whatever a thread or a client does, the process is over in time.
            timer = threading.Timer(self._end_seconds, os._exit, [0])
            timer.daemon = True
            timer.start()
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._service.close)
        await super().shutdown(sockets)


class _Bounded:
    """An HTTP protocol of uvicorn's with a bound on connections, and on the time of a head."""

    head_seconds = 30.0
    connections: set[Any]
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        if len(self.connections) > _most_connections():
            self._refuse(RequestError.busy("Too many connections."))
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        super().connection_lost(error)  # type: ignore[misc]

    def send_400_response(self, message: str) -> None:
        """Answer what is not HTTP in the form that all errors have."""
        self._refuse(RequestError(400, message, "Send a request as RFC 9112 describes it."))

    def _watch(self) -> None:
        """Start the clock if a head is incomplete, and stop it if a request has begun."""
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
        if self.cycle is None or self.cycle.response_complete:
            error = "The request did not arrive in time."
            self._refuse(RequestError(408, error, "Send it faster."))

    def _refuse(self, error: RequestError) -> None:
        if not self.transport.is_closing():
            text, status = cells.dumps(error.document()), HTTPStatus(error.status)
            line = f"{status.value} {status.phrase}".encode()
            self.transport.write(_ANSWER % (line, len(text), text))
            self.transport.close()


@lru_cache(1)
def _most_connections() -> int:
    if resource is None:
        return _MOST_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limited = files != resource.RLIM_INFINITY
    return max(1, min(_MOST_CONNECTIONS, files - _LEFT_FILES)) if limited else _MOST_CONNECTIONS
