"""One client process of the service's load test: requests without a pause, over kept connections.

    python bench/load.py <<< '{"port": 8000, "requests": "requests.bin", "connections": 8, ...}'

Reads its settings from standard input, and writes what it saw to standard output. It speaks just
enough HTTP itself, so that little of a shared machine goes to the client.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any


class Seen:
    """What the requests of one process came to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: dict[str, int] = {}
        self.errors: dict[str, int] = {}

    def failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[str, int]:
    """Send a request, read the answer, and return its status and length."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    status = head[9:12].decode()
    lines = head.lower()
    at = lines.find(b"content-length:")
    if at >= 0:
        length = int(lines[at + 15 : lines.index(b"\r\n", at)])
        await reader.readexactly(length)
        return status, length
    length = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        length += size
    await reader.readexactly(2)
    return status, length


async def client(port: int, requests: list[bytes], start: float, end: float, seen: Seen) -> None:
    """Ask one after the other until the end; what is asked before the start does not count."""
    number, connection = 0, None
    while (now := time.perf_counter()) < end:
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
            status, _ = await asyncio.wait_for(
                ask(*connection, requests[number % len(requests)]), 120
            )
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            seen.failed(error)
            if connection is not None:
                connection[1].close()
            connection = None
            continue
        number += 1
        if now >= start:
            seen.seconds.append(time.perf_counter() - now)
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
    if connection is not None:
        connection[1].close()


async def load(settings: dict[str, Any]) -> dict[str, Any]:
    requests = [Path(name).read_bytes() for name in settings["requests"]]
    seen, start = Seen(), time.perf_counter() + settings["warm_seconds"]
    end = start + settings["seconds"]
    clients = [
        client(settings["port"], requests[i:] + requests[:i], start, end, seen)
        for i in range(settings["connections"])
    ]
    await asyncio.gather(*clients)
    return {"seconds": seen.seconds, "statuses": seen.statuses, "errors": seen.errors}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(json.load(sys.stdin)))))
