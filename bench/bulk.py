"""Does every row come out once, and the same, where a worker of a cluster is killed midway?

A folder of files is encoded by a Ray cluster of this machine, one of whose processes is ended by
SIGKILL while it works, and once more by a single process. The codes are compared by a hash of their
bytes, in the order of the rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twofold import Autoencoder

RESULTS = Path(__file__).parent / "results" / "bulk.json"
COLUMNS, WORKERS = 16, 2
KILL_AT = 0.4  # of all files


def make(folder: Path, n_rows: int, n_files: int) -> None:
    """Write files of random rows."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(np.diff(np.linspace(0, n_rows, n_files + 1).astype(int)).tolist()):
        cells = rng.random((size, COLUMNS), dtype=np.float32)
        table = pa.table({f"x{j}": cells[:, j] for j in range(COLUMNS)})
        pq.write_table(table, folder / f"rows-{i:03d}.parquet")


def tables(path: Path) -> Iterator[pa.Table]:
    """Give the row groups of a file, or of all files of a folder in the order of their names."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        opened = pq.ParquetFile(file)
        for i in range(opened.num_row_groups):
            yield opened.read_row_group(i)


def digest(path: Path) -> tuple[str, int]:
    """Return a hash of all cells, column by column, and the number of rows."""
    found: dict[str, Any] = {}
    n_rows = 0
    for table in tables(path):
        n_rows += len(table)
        for name in table.column_names:
            cells = np.ascontiguousarray(table[name].to_numpy())
            found.setdefault(name, hashlib.sha256()).update(cells.tobytes())
    joined = "".join(f"{name} {part.hexdigest()}" for name, part in found.items())
    return hashlib.sha256(joined.encode()).hexdigest(), n_rows


def below(top: int) -> Iterator[tuple[int, str]]:
    """Give the processes that a process has started, and those that they have, with their names."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, words = (entry / "stat").read_text(), (entry / "cmdline").read_text()
            except OSError:
                continue  # it ended meanwhile
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            names[int(entry.name)] = words
    own = {top}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    yield from ((pid, names[pid]) for pid in sorted(own) if pid in names)


def kill_midway(top: int, begun: list[Path], written: list[Path], n_files: int) -> int | None:
    """End a process at work on a file, once enough of them are there; return how many were."""
    if len(written) < KILL_AT * n_files or not begun:
        return None
    working = [pid for pid, name in below(top) if name.startswith("ray::apply")]
    if not working:
        return None
    os.kill(working[0], signal.SIGKILL)
    return len(written)


def encode(model: Path, rows: Path, output: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own."""
    twofold = Path(sys.executable).with_name("twofold")
    words = [twofold, "encode", model, rows, "--output", output, "--quiet", *flags]
    # One thread each, as a worker of the cluster has: bits can depend on how many there are.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(word) for word in words], env=environment)


def by_cluster(model: Path, rows: Path, output: Path, n_tasks: int) -> dict[str, Any]:
    """Encode by a cluster, and kill one of its processes."""
    started, killed_after = time.perf_counter(), None
    tries: dict[str, set[str]] = {}
    process = encode(
        model, rows, output, "--stream", "--address", "local", "--workers", str(WORKERS)
    )
    try:
        while process.poll() is None:
            begun = list(output.parent.glob(".codes.*/.part-*"))
            for path in begun:  # .part-00003.parquet.<a name for this try>
                tries.setdefault(path.stem, set()).add(path.suffix)
            if killed_after is None:
                written = list(output.parent.glob(".codes.*/part-*"))
                killed_after = kill_midway(process.pid, begun, written, n_tasks)
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise SystemExit("the cluster has failed")
    if killed_after is None:
        raise SystemExit("no process was killed: it was done too soon")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "killed_after_files": killed_after,
        "restarts": sum(len(names) - 1 for names in tries.values()),
    }


def main() -> None:
    """Run both, compare, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    scratch, watch = Path(tempfile.mkdtemp(prefix="twofold-bulk-")), machine.Watch()
    try:
        rows, model = scratch / "rows", scratch / "model"
        make(rows, given.rows, given.files)
        some = np.random.default_rng(1).random((5000, COLUMNS), dtype=np.float32)
        names = [f"x{j}" for j in range(COLUMNS)]
        table = pa.table(dict(zip(names, some.T, strict=True)))
        Autoencoder(n_components=4, epochs=2, random_state=0).fit(table).save(model)
        found = by_cluster(model, rows, scratch / "codes", given.files)
        started = time.perf_counter()
        if encode(model, rows, scratch / "codes.parquet", "--stream").wait():
            raise SystemExit("the single process has failed")
        alone = round(time.perf_counter() - started, 1)
        (ours, n_rows), (theirs, _) = digest(scratch / "codes"), digest(scratch / "codes.parquet")
        result = {
            "machine": machine.describe(sorted(os.sched_getaffinity(0))),
            "others": watch.stop(),
            "versions": {"python": platform.python_version(), "ray": version("ray")},
            "rows": n_rows,
            "columns": COLUMNS,
            "files": given.files,
            "workers": WORKERS,
            **found,
            "files_written": len(list((scratch / "codes").iterdir())),
            "seconds_of_one_process": alone,
            "same_hash": ours == theirs,
            "sha256": ours,
        }
    finally:
        shutil.rmtree(scratch)
    given.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), file=sys.stderr)
    if not result["same_hash"] or n_rows != given.rows:
        raise SystemExit("the codes differ")


if __name__ == "__main__":
    main()
