"""How many requests and rows the service answers on this machine, beside the library alone.

    python bench/service.py                 everything, to bench/results/service.json
    python bench/service.py --quick         a second of each, to a temporary file
    python bench/service.py --minutes 10    keep it saturated, and watch its memory
    python bench/service.py --table         the last results, as tables

Two models: a table of 30 columns of 64-bit numbers, and images of 784 columns of 32-bit ones. The
service runs in a process of its own, and so do its clients, which send requests over kept
connections without a pause, one after the other on each; they share the machine's cores with it.
Each case runs with requests joined and with each computed apart (`batch_seconds=0`). The library
alone scores tables of 1,000 rows again and again, with one thread and with as many as it takes by
itself, whichever does more.

Saturated, 16 connections send single rows, 2 send 1,000 rows, one has 100 rows explained and one
1,000 reconstructed, all at once; the service's memory is read every few seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
KEPT = HERE / "results" / "service.json"
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
MODELS = ("table", "images")
JOINING = {"joined": 0.002, "apart": 0.0}
DIFFERENT = 16  # requests with rows of their own


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rows_of(model: str, n: int, seed: int) -> Any:
    """Return rows like the model's training rows, as an Arrow table."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(0)
    if model == "table":  # 30 columns of 64-bit numbers that hang together
        mixing = rng.normal(size=(6, 30))
        rng = np.random.default_rng(seed + 1)
        x = rng.normal(size=(n, 6)) @ mixing + 0.3 * rng.normal(size=(n, 30))
    else:  # 28 by 28 grey values in 32 bits: three strokes, and an empty rim
        rng = np.random.default_rng(seed + 1)
        at = np.arange(28)
        x = np.zeros((n, 28, 28), np.float32)
        for _ in range(3):
            place = rng.uniform(6, 22, (n, 2, 1))
            width = rng.uniform(1, 4, (n, 2, 1))
            strokes = np.exp(-(((at - place) / width) ** 2))
            x = np.maximum(x, strokes[:, 0, :, None] * strokes[:, 1, None, :])
        x = np.where(x < 0.05, 0, x).reshape(n, 784).astype(np.float32)
    return pa.table({f"c{i:03}": column for i, column in enumerate(np.ascontiguousarray(x.T))})


def fit(folder: Path, models: Sequence[str], quick: bool) -> None:
    """Fit and save the models that are served; how well they do does not matter here."""
    from twofold import Autoencoder
    from twofold.errors import LosesToPCAWarning

    warnings.simplefilter("ignore", LosesToPCAWarning)
    for model in models:
        ae = Autoencoder(epochs=2 if quick else 5, random_state=0)
        ae.fit(rows_of(model, 2_000 if quick else 10_000, 0)).save(folder / model)


def request(model: str, n: int, seed: int, media_type: str, verb: str = "score") -> bytes:
    """Return the bytes of a request for `n` rows."""
    import pyarrow as pa

    rows = rows_of(model, n, seed)
    if media_type == ARROW:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        body = sink.getvalue()
    else:
        body = json.dumps({"rows": list(zip(*rows.to_pydict().values(), strict=True))}).encode()
    head = (
        f"POST /{verb} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {media_type}\r\n"
        f"accept: {media_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def serving(folder: Path, batch_seconds: float) -> Iterator[tuple[int, int]]:
    """Serve a model in a process of its own; give its port and process id."""
    command = [sys.executable, str(HERE / "service.py"), "--serve", str(folder)]
    command += ["--batch-seconds", str(batch_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the service did not start")
        yield int(line.rpartition(":")[2]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def serve(folder: Path, batch_seconds: float) -> None:
    """Be the service."""
    from twofold import load
    from twofold.service import app as service
    from twofold.service import server

    app = service.create_app(load(folder), batch_seconds=batch_seconds)
    server.serve(
        app,
        server.listen("127.0.0.1", 0),
        timeout=30,
        on_start=lambda address: print(address, flush=True),
    )


def started(port: int, files: Sequence[Path], connections: int, seconds: float) -> Any:
    """Start a client process."""
    settings = {"port": port, "requests": [str(file) for file in files]}
    settings |= {"connections": connections, "seconds": seconds, "warm_seconds": min(1.0, seconds)}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "load.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(settings))
    process.stdin.close()
    return process


def finished(process: Any, rows: int, seconds: float) -> dict[str, Any]:
    """Return what a client process saw."""
    answer = json.loads(process.stdout.read())
    process.wait()
    times = sorted(answer["seconds"])
    n = len(times)
    good = answer["statuses"].get("200", 0)
    return {
        "requests": n,
        "requests_per_second": good / seconds,
        "rows_per_second": good * rows / seconds,
        "p50_ms": 1000 * times[n // 2] if n else None,
        "p99_ms": 1000 * times[min(n - 1, int(0.99 * n))] if n else None,
        "most_ms": 1000 * times[-1] if n else None,
        "statuses": answer["statuses"],
        "errors": answer["errors"],
    }


def library(folder: Path, model: str, seconds: float) -> dict[str, Any]:
    """Score 1,000 rows again and again without a service, in a process of its own."""
    command = [sys.executable, str(HERE / "service.py"), "--library", str(folder / model)]
    command += ["--model", model, "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def score_alone(folder: Path, model: str, seconds: float) -> dict[str, Any]:
    """Be that process."""
    import torch

    from twofold import load

    ae, found = load(folder), {}
    for name, n in {"1": 1, "1000": 1000}.items():
        tables = [rows_of(model, n, seed) for seed in range(DIFFERENT)]
        for threads in sorted({1, torch.get_num_threads()}):
            torch.set_num_threads(threads)
            ae.score_samples(tables[0])
            count, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds / 2:
                ae.score_samples(tables[count % DIFFERENT])
                count += 1
            measured = {"threads": threads, "calls_per_second": count / spent}
            measured["rows_per_second"] = n * count / spent
            # On a busy machine two threads may do less than one.
            if measured["rows_per_second"] > found.get(name, {}).get("rows_per_second", 0):
                found[name] = measured
    return found


CASES = [
    # rows of a request, body, connections
    (1, JSON, 1),
    (1, JSON, 32),
    (1, ARROW, 32),
    (1000, ARROW, 1),
    (1000, ARROW, 8),
    (1000, JSON, 8),
]


def measure(folder: Path, seconds: float, only: Sequence[str]) -> dict[str, Any]:
    """Measure every case of every model, with requests joined and apart."""
    found: dict[str, Any] = {}
    for model in only:
        watch = machine.Watch()
        alone = library(folder, model, seconds)
        alone["load"] = watch.stop()
        say(f"{model}, the library: {alone['1000']['rows_per_second']:,.0f} rows/s")
        cases = []
        for name, batch_seconds in JOINING.items():
            with serving(folder / model, batch_seconds) as (port, _):
                for rows, media_type, connections in CASES:
                    files = []
                    for seed in range(DIFFERENT):
                        file = folder / f"request-{seed}.bin"
                        file.write_bytes(request(model, rows, seed, media_type))
                        files.append(file)
                    watch = machine.Watch()
                    case = finished(started(port, files, connections, seconds), rows, seconds)
                    case |= {"rows": rows, "body": media_type, "connections": connections}
                    case |= {"joining": name, "load": watch.stop()}
                    if rows == 1000:
                        share = case["rows_per_second"] / alone["1000"]["rows_per_second"]
                        case["share_of_library"] = share
                    cases.append(case)
                    say("  " + line_of(case))
        found[model] = {"library": alone, "cases": cases}
    return found


def line_of(case: dict[str, Any]) -> str:
    kind = "Arrow" if case["body"] == ARROW else "JSON"
    share = case.get("share_of_library")
    figures = (
        f"{case['requests_per_second']:,.0f} requests/s, {case['rows_per_second']:,.0f} rows/s, "
        f"p50 {case['p50_ms'] or 0:.1f} ms, p99 {case['p99_ms'] or 0:.1f} ms"
    )
    text = f"{case['rows']} rows, {kind}, {case['connections']} connections, {case['joining']}: "
    return text + figures + (f", {100 * share:.0f} % of the library" if share else "")


def saturate(folder: Path, minutes: float) -> dict[str, Any]:
    """Keep the service busy with everything at once, and watch its memory."""
    model, seconds = "table", 60 * minutes
    mix = {
        "1 row, JSON": (1, JSON, "score", 16),
        "1,000 rows, Arrow": (1000, ARROW, "score", 2),
        "100 rows, JSON, explain": (100, JSON, "explain", 1),
        "1,000 rows, Arrow, reconstruct": (1000, ARROW, "reconstruct", 1),
    }
    with serving(folder / model, JOINING["joined"]) as (port, pid):
        clients = {}
        for number, (name, (rows, media_type, verb, connections)) in enumerate(mix.items()):
            files = []
            for seed in range(DIFFERENT):
                file = folder / f"saturate-{number}-{seed}.bin"
                file.write_bytes(request(model, rows, seed, media_type, verb))
                files.append(file)
            clients[name] = started(port, files, connections, seconds)
        start, memory, slowest = time.perf_counter(), [], 0.0
        while (now := time.perf_counter() - start) < seconds + 2:
            asked = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
                answer.read()
            slowest = max(slowest, time.perf_counter() - asked)
            memory.append({"seconds": round(now, 1), "rss_mb": resident(pid)})
            time.sleep(min(5.0, seconds / 20))
        found = {name: finished(c, mix[name][0], seconds) for name, c in clients.items()}
    failed = sum(
        sum(case["errors"].values()) + sum(n for s, n in case["statuses"].items() if s != "200")
        for case in found.values()
    )
    quarter = max(1, len(memory) // 4)
    settled = statistics.median(point["rss_mb"] for point in memory[quarter : 2 * quarter])
    last = statistics.median(point["rss_mb"] for point in memory[-quarter:])
    return {
        "minutes": minutes,
        "requests": sum(case["requests"] for case in found.values()),
        "failed": failed,
        "clients": found,
        "memory": memory,
        "memory_second_quarter_mb": settled,
        "memory_last_quarter_mb": last,
        "slowest_healthz_ms": 1000 * slowest,
    }


def resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def markdown(result: dict[str, Any]) -> str:
    """Return the results as tables."""
    lines = [
        "| model | rows | body | connections | requests | requests/s | rows/s | p50 ms | p99 ms | "
        "of the library |",
        "| --- | --: | --- | --: | --- | --: | --: | --: | --: | --: |",
    ]
    for model in MODELS:
        for case in result.get(model, {}).get("cases", []):
            share = case.get("share_of_library")
            cells = (
                model,
                f"{case['rows']:,}",
                "Arrow" if case["body"] == ARROW else "JSON",
                str(case["connections"]),
                case["joining"],
                f"{case['requests_per_second']:,.0f}",
                f"{case['rows_per_second']:,.0f}",
                *("–" if case[p] is None else f"{case[p]:.1f}" for p in ("p50_ms", "p99_ms")),
                f"{100 * share:.0f} %" if share else "",
            )
            lines.append("| " + " | ".join(cells) + " |")
    if run := result.get("saturated"):
        lines += [
            "",
            f"Saturated for {run['minutes']:g} minutes: {run['requests']:,} requests, "
            f"{run['failed']:,} failed; {run['memory_second_quarter_mb']:.0f} MB in the second "
            f"quarter, {run['memory_last_quarter_mb']:.0f} MB in the last; /healthz took at most "
            f"{run['slowest_healthz_ms']:.0f} ms.",
        ]
    return "\n".join(lines)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="a second of each, to see that everything runs")
    add("--minutes", type=float, help="only keep it saturated for so long; goes with the rest")
    add("--seconds", type=float, default=5.0, help="seconds per case (default 5)")
    add("--only", choices=MODELS, help="measure this model")
    add("--output", type=Path, help="the JSON file")
    add("--table", action="store_true", help="measure nothing; print the last results")
    add("--serve", type=Path, help=argparse.SUPPRESS)
    add("--batch-seconds", type=float, default=0.002, help=argparse.SUPPRESS)
    add("--library", type=Path, help=argparse.SUPPRESS)
    add("--model", choices=MODELS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    if given.serve:
        return serve(given.serve, given.batch_seconds)
    if given.library:
        return print(json.dumps(score_alone(given.library, given.model, given.seconds)))
    output = given.output or KEPT
    kept = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    if given.table:
        return print(markdown(kept))
    if given.quick or given.only:
        kept, output = {}, given.output or Path(tempfile.mkdtemp()) / "service.json"
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as name:
        folder = Path(name)
        models = ["table"] if given.minutes else [given.only] if given.only else list(MODELS)
        fit(folder, models, given.quick)
        about = {
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine.describe(cores),
            "versions": {
                package: metadata.version(package)
                for package in ("twofold", "torch", "pyarrow", "starlette", "uvicorn")
            },
        }
        if given.minutes:
            kept["saturated"] = saturate(folder, given.minutes) | {"about": about}
        else:
            seconds = 1.0 if given.quick else given.seconds
            found = measure(folder, seconds, models)
            loads = [case["load"] for model in found.values() for case in model["cases"]]
            kept |= {**about, "seconds": seconds, **found, "quiet": machine.verdict(loads)}
        write_atomically(output, json.dumps(kept, indent=1) + "\n")
    print(markdown(kept))
    say(f"written to {output}")


if __name__ == "__main__":
    main()
