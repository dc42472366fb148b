"""Attack the running service, and see what it costs the others.

    python bench/attack.py                  every attack, to bench/results/attack.json
    python bench/attack.py --only draws     one of them, to standard output

Each attack meets a service of its own, in a process of its own, which serves the model of 30
columns of `bench/service.py`. Meanwhile `/healthz` and a single row are asked for again and again,
and the memory of the process is read. The last figure is the time from SIGTERM until the process
has ended, with the attack still under way.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import service

RESULTS = Path(__file__).parent / "results" / "attack.json"
ARROW, JSON, PARQUET = service.ARROW, service.JSON, "application/vnd.apache.parquet"
MAX_MEMORY = 512 * 2**20
N_COLUMNS = 30


def post(port: int, path: str, body: bytes, media_type: str = JSON, seconds: float = 90.0) -> int:
    """Send a request; return its status, 0 if there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, body, {"content-type": media_type})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):  # it refuses, or ends in the middle of an answer
        return 0
    finally:
        connection.close()


def at_once(n: int, function: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function, args=[i], daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    return threads


def draws(port: int) -> Any:
    """One row, and as many draws as may be asked for."""
    body = json.dumps({"rows": [[None] * N_COLUMNS], "n_draws": 100_000}).encode()
    return at_once(4, lambda _: post(port, "/impute", body))


def samples(port: int) -> Any:
    """As many new rows as may be asked for."""
    return at_once(4, lambda _: post(port, "/sample", b'{"n": 100000}'))


def explanations(port: int) -> Any:
    """As many rows as may be sent, to be explained."""
    body = arrow(100_000)
    return at_once(4, lambda _: post(port, "/explain", body, ARROW))


def arrow(n_rows: int, names: Any = None, **options: Any) -> bytes:
    import numpy as np
    import pyarrow as pa

    names = [f"c{i:03}" for i in range(N_COLUMNS)] if names is None else names
    table = pa.table({name: np.zeros(n_rows, np.float32) for name in names})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=options) as out:
        out.write_table(table)
    return sink.getvalue()


def parquet(port: int) -> Any:
    """Two megabytes that are 6,000 columns of 100,000 equal numbers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({f"x{i}": np.zeros(100_000, np.int8) for i in range(6_000)}), file)
    body = file.getvalue()
    return at_once(4, lambda _: post(port, "/score", body, PARQUET))


def compressed(port: int) -> Any:
    """Zeros that are compressed to nothing."""
    body = arrow(2_000_000, compression="zstd")
    return at_once(4, lambda _: post(port, "/score", body, ARROW))


def columns(port: int) -> Any:
    """Arrow with 40,000 columns of nothing."""
    import pyarrow as pa

    table, sink = pa.table({f"x{i}": pa.nulls(1) for i in range(40_000)}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return at_once(8, lambda _: post(port, "/score", sink.getvalue(), ARROW))


def names(port: int) -> Any:
    """A row of 800,000 names."""
    body = json.dumps({"rows": [{f"name{i}": 1 for i in range(800_000)}]}).encode()
    return at_once(8, lambda _: post(port, "/score", body))


def cell(port: int) -> Any:
    """One cell of 31 MB."""
    body = b'{"rows": [["' + b"x" * 31_000_000 + b'"]]}'
    return at_once(8, lambda _: post(port, "/score", body))


def json_rows(port: int) -> Any:
    """The longest bodies of good rows in JSON, and to be explained."""
    row = b"[" + b",".join([b"1.5"] * N_COLUMNS) + b"]"
    body = b'{"rows": [' + b",".join([row] * 100_000) + b"]}"
    paths = ("/score", "/explain", "/reconstruct", "/encode")
    return at_once(8, lambda i: post(port, paths[i % 4], body))


def empty_lists(port: int) -> Any:
    """Bodies that are lists of lists of nothing."""
    bodies = [b'{"rows": [' + b"[]," * 10_000_000 + b"[]]}", b"[" * 30_000_000]
    bodies += [b'{"rows": [[' + b"[" * 30_000_000, b'{"rows": ' + b"{" * 20_000_000]
    return at_once(8, lambda i: post(port, "/score", bodies[i % 4]))


def abandoned(port: int) -> Any:
    """Long requests whose clients go away at once, again and again."""
    body = arrow(100_000)
    head = f"POST /explain HTTP/1.1\r\nhost: x\r\ncontent-type: {ARROW}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def send(_: int) -> None:
        for _ in range(12):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as one:
                one.sendall(request)
                time.sleep(0.3)

    return at_once(6, send)


def slow(port: int) -> Any:
    """300 clients that send a byte a second, and 300 that send nothing."""

    def one(i: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            if i % 2:
                time.sleep(25)
                return
            for byte in b"POST /score HTTP/1.1\r\nhost: x\r\n":
                client.sendall(bytes([byte]))
                time.sleep(1)

    return at_once(600, one)


def untaken(port: int) -> Any:
    """Clients that ask for long answers, and do not take them."""
    body = b'{"n": 100000}'
    head = f"POST /sample HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def one(_: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(request)
            time.sleep(25)

    return at_once(20, one)


ATTACKS = (draws, samples, explanations, parquet, compressed, columns, names, cell)
ATTACKS += (json_rows, empty_lists, abandoned, slow, untaken)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Serve a model by the command; give its port and process."""
    command = [sys.executable, "-c", "from twofold.cli.main import main; main()", "serve"]
    command += [str(folder), "--port", "0", "--max-memory", str(MAX_MEMORY)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(line.split(" (")[0].rpartition(":")[2]), process
    finally:
        process.kill()
        process.wait()


def memory(pid: int, name: str) -> float:
    """Return a figure of /proc/PID/status in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(folder: Path, attack: Callable[[int], Any], seconds: float) -> dict[str, Any]:
    """Return what one attack does to the others, and to the memory."""
    row = json.dumps({"rows": [[0.5] * N_COLUMNS]}).encode()
    with serving(folder) as (port, process):
        for _ in range(20):
            assert post(port, "/score", row) == 200
        post(port, "/explain", row)
        loaded = memory(process.pid, "VmRSS")
        threads = attack(port)
        statuses: list[int] = []
        times: dict[str, list[float]] = {"/healthz": [], "/score": []}
        end = time.perf_counter() + seconds

        def ask(path: str) -> None:
            while time.perf_counter() < end:
                start = time.perf_counter()
                if path == "/score":
                    statuses.append(post(port, path, row))
                else:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request("GET", path)
                    connection.getresponse().read()
                    connection.close()
                times[path].append(time.perf_counter() - start)
                time.sleep(0.02)

        askers = [threading.Thread(target=ask, args=[path]) for path in times]
        for thread in askers:
            thread.start()
        for thread in askers:
            thread.join()
        peak, held = memory(process.pid, "VmHWM"), memory(process.pid, "VmRSS")
        under_way = sum(thread.is_alive() for thread in threads)
        if not under_way:
            threads = attack(port)
            time.sleep(0.5)
        start = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(60)
        except subprocess.TimeoutExpired:
            status = None
        ended = time.perf_counter() - start
    ordered = {path: sorted(found) for path, found in times.items()}
    return {
        "loaded_mb": round(loaded),
        "peak_mb": round(peak),
        "after_mb": round(held),
        "bound_mb": round(loaded + MAX_MEMORY / 2**20),
        "peak_of_bound": round(peak / (loaded + MAX_MEMORY / 2**20), 2),
        "healthz_most_ms": round(1000 * ordered["/healthz"][-1]),
        "row_p99_ms": round(1000 * ordered["/score"][int(0.99 * len(ordered["/score"]))]),
        "row_most_ms": round(1000 * ordered["/score"][-1]),
        "rows_asked": len(statuses),
        "rows_failed": sum(status != 200 for status in statuses),
        "end_seconds": round(ended, 1),
        "exit_status": status,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the results as a table."""
    lines = [
        "| attack | memory, of the bound | slowest `/healthz` | p99 of a row | rows refused | "
        "SIGTERM to the end |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for attack in ATTACKS:
        if found := result["attacks"].get(attack.__name__):
            what = (attack.__doc__ or "").rstrip(".")
            cells = (
                what,
                f"{found['peak_of_bound']:.2f}",
                f"{found['healthz_most_ms']:,} ms",
                f"{found['row_p99_ms']:,} ms",
                f"{found['rows_failed']:,} of {found['rows_asked']:,}",
                f"{found['end_seconds']:.1f} s",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=[attack.__name__ for attack in ATTACKS])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack (default 15)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="twofold-attack-") as name:
        service.fit(Path(name), ["table"], quick=True)
        watch = machine.Watch()
        for attack in ATTACKS:
            if given.only in (None, attack.__name__):
                found[attack.__name__] = measure(Path(name) / "table", attack, given.seconds)
                print(attack.__name__, json.dumps(found[attack.__name__]), flush=True)
        about = {"machine": machine.describe(sorted(os.sched_getaffinity(0)))}
        about["others"] = watch.stop()
    if given.only is None:
        service.write_atomically(
            given.output, json.dumps(about | {"attacks": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
