"""Rows, checkpoints, models and results on a local S3 server, with its requests counted.

    python bench/s3.py              to bench/results/s3.json, about four minutes
    python bench/s3.py --quick      less of it, to standard output

The server is moto's, in a thread of this process, on 127.0.0.1; `moto[server]` and `boto3` are to
be there. Every command is a process of its own. Counted are the GET requests for objects and the
bytes of their answers: of one process and of two workers that look at the rows and train for one
epoch. A run is ended by SIGKILL after its first checkpoint and goes on; its weights are compared
with those of a run that was not ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RESULTS = Path(__file__).parent / "results" / "s3.json"
BUCKET = "bucket"
GROUP_ROWS, N_COLUMNS, N_GROUPS, N_FILES = 7_500, 100, 4, 4  # of about 6 MB
FIT = ("--stream", "--n-components", "8", "--random-state", "0", "--device", "cpu", "-q")


class Counted:
    """The server, with the GET requests for objects and the bytes of their answers counted."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._serve = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.counts = {"GET": 0, "bytes": 0}

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        body = list(self._serve(environ, start))
        is_object = len(environ["PATH_INFO"].strip("/").split("/")) > 1
        if environ["REQUEST_METHOD"] == "GET" and is_object:
            with self._lock:
                self.counts["GET"] += 1
                self.counts["bytes"] += sum(map(len, body))
        return body

    def taken(self) -> dict[str, int]:
        """Return what was counted since the last call."""
        with self._lock:
            found, self.counts = self.counts, dict.fromkeys(self.counts, 0)
        return found


def command(*arguments: str | Path) -> list[str]:
    """Return a command of twofold as a process starts it."""
    code = "from twofold.cli.main import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(*arguments: str | Path, ends: int = 0) -> tuple[str, float]:
    """Run a command to its end, and return what it says and how long it took."""
    start = time.perf_counter()
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)
    if done.returncode != ends:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr, time.perf_counter() - start


def rows(folder: Path, n_files: int) -> None:
    """Write files of rows whose cells do not compress."""
    rng = np.random.default_rng(0)
    for i in range(n_files):
        z = rng.normal(size=(GROUP_ROWS * N_GROUPS, 8))
        x = z @ rng.normal(size=(8, N_COLUMNS)) + rng.normal(size=(len(z), N_COLUMNS))
        table = pa.table({f"x{j}": x[:, j] for j in range(N_COLUMNS)})
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=GROUP_ROWS)


def digests(client: Any, prefix: str) -> dict[str, str]:
    """Return what is under a prefix, by name."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    bodies = {
        one["Key"]: client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"] for one in listed
    }
    return {
        key.removeprefix(prefix): hashlib.sha256(body.read()).hexdigest()
        for key, body in bodies.items()
        if key.endswith(".safetensors")  # the document says when it was made
    }


def killed(client: Any, run_folder: str, *arguments: str) -> None:
    """Start a run, and end it by SIGKILL once it has written a checkpoint."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
    prefix = run_folder.removeprefix(f"s3://{BUCKET}/")
    while process.poll() is None:
        if client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("KeyCount", 0) > 1:
            break
        time.sleep(0.2)
    if process.poll() is not None:
        raise RuntimeError("the run ended before its first checkpoint")
    process.send_signal(signal.SIGKILL)
    process.wait()


def measure(folder: Path, n_files: int) -> dict[str, Any]:
    """Return all figures, from a server with rows in it."""
    import boto3
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counted = Counted()
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ.update(
        AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true",
    )  # fmt: skip
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket=BUCKET)
    local = folder / "rows"
    local.mkdir()
    rows(local, n_files)
    size = 0
    for path in sorted(local.iterdir()):
        client.upload_file(str(path), BUCKET, f"rows/{path.name}")
        size += path.stat().st_size
    groups = n_files * N_GROUPS
    source, address = f"s3://{BUCKET}/rows/", f"s3://{BUCKET}"
    counted.taken()
    found: dict[str, Any] = {"bytes of rows": size, "row groups": groups}

    for name, more in (("one process", ()), ("two workers", ("--workers", "2"))):
        _, seconds = run("fit", source, "-o", f"{address}/{name[:3]}", "--epochs", "1", *more, *FIT)
        taken = counted.taken()
        passes = taken["bytes"] / size
        found[name] = {
            **taken, "passes over the rows": round(passes, 2), "seconds": round(seconds, 1),
            "GET for each row group read": round(taken["GET"] / (passes * groups), 2),
        }  # fmt: skip
    found["bytes of two workers over one process"] = round(
        found["two workers"]["bytes"] / found["one process"]["bytes"], 3
    )

    train = ("fit", source, "--epochs", "3", *FIT)
    run(*train, "-o", f"{address}/whole")
    resumed = ("--checkpoint", f"{address}/run", "--checkpoint-seconds", "0.5")
    killed(client, f"{address}/run", *train, "-o", f"{address}/model", *resumed)
    run(*train, "-o", f"{address}/model", *resumed, "--resume")
    found["killed and resumed: same weights"] = digests(client, "model/") == digests(
        client, "whole/"
    )
    left = client.list_objects_v2(Bucket=BUCKET, Prefix="run").get("Contents", [])
    found["of the checkpoint left"] = [one["Key"] for one in left]

    for verb in ("score", "explain"):
        out = f"{address}/{verb}.parquet"
        run(verb, f"{address}/model", source, "-o", out, "--stream", "-q")
        run(verb, f"{address}/model", local, "-o", folder / f"{verb}.parquet", "-q")
        client.download_file(BUCKET, f"{verb}.parquet", str(folder / "there.parquet"))
        there = pq.read_table(folder / "there.parquet")
        here = pq.read_table(folder / f"{verb}.parquet")
        found[f"{verb}: as of local rows"] = there.num_rows == here.num_rows and all(
            _alike(a, b) for a, b in zip(there.columns, here.columns, strict=True)
        )

    server.shutdown()
    server.server_close()
    said, seconds = run("score", f"{address}/model", source, "-o", f"{address}/late.csv", ends=2)
    found["server gone"] = {"seconds": round(seconds, 1), "says": " ".join(said.split())[:400]}
    return found


def _alike(a: Any, b: Any) -> bool:
    if pa.types.is_floating(a.type):
        return bool(np.allclose(a.to_numpy(), b.to_numpy(), rtol=1e-4, atol=1e-4, equal_nan=True))
    return bool(a.equals(b))


def table(found: dict[str, Any]) -> str:
    """Return the table of docs/scale-out.md."""
    lines = [
        "| | passes over the rows | requests for each row group read | bytes, over one process |",
        "|---|--:|--:|--:|",
    ]
    for name, over in (
        ("one process", 1.0),
        ("two workers", found["bytes of two workers over one process"]),
    ):
        row = found[name]
        lines.append(
            f"| {name} | {row['passes over the rows']:.2f} "
            f"| {row['GET for each row group read']:.2f} | {over:.2f} |"
        )
    size = found["bytes of rows"] / found["row groups"] / 1e6
    same = all(value for name, value in found.items() if name.split(":")[0].endswith(
        ("killed and resumed", "score", "explain")
    ))  # fmt: skip
    lines += [
        "",
        f"{found['row groups']} row groups of {size:.0f} MB, one epoch; the passes are a look at "
        f"the first rows of up to 24 row groups, figures of all rows, and training. After "
        f"SIGKILL and `--resume` the weights are the same bits, and scores and explanations those "
        f"of local files: {'yes' if same else 'NO'}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        found = {
            "machine": machine.describe(sorted(os.sched_getaffinity(0))),
            **measure(folder, 1 if arguments.quick else N_FILES),
        }
    finally:
        shutil.rmtree(folder)
    text = json.dumps(found, indent=1)
    if arguments.quick:
        print(text)
    else:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
