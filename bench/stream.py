"""Training on rows that do not fit the memory a process may take, beside training in memory.

`python bench/stream.py` makes a Parquet folder of random rows in a temporary folder. It trains on
it in processes whose data (`RLIMIT_DATA`: all private memory that can be written to) may grow by
256 MB after everything was imported, a twentieth of what the rows take, and in processes without a
limit that hold the rows in memory. `bench/results/stream.json` gets losses, rows/s, and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench import machine, memory

COLUMNS, FACTORS, ROWS_PER_FILE, GROUP_ROWS = 16, 4, 500_000, 50_000
RESULT = Path(__file__).parent / "results" / "stream.json"
OPTIONS: dict[str, Any] = {
    "n_components": 4,
    "hidden_layers": (128,),
    "batch_size": 1024,
    "epochs": 1,
    "random_state": 0,
}


def rows(number: int, n_rows: int) -> np.ndarray:
    """Return the rows of a file: random mixtures of a few factors, and noise."""
    mixture = np.random.default_rng(0).normal(size=(FACTORS, COLUMNS)).astype(np.float32)
    rng = np.random.default_rng((1, number))
    factors = rng.standard_normal((n_rows, FACTORS), dtype=np.float32)
    noise = rng.standard_normal((n_rows, COLUMNS), dtype=np.float32)
    return np.tanh(factors) @ mixture + np.float32(0.3) * noise


def make(folder: Path, n_files: int) -> None:
    """Write the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(n_files):
        cells = np.ascontiguousarray(rows(number, ROWS_PER_FILE).T)
        table = pa.table({f"c{i:02}": cells[i] for i in range(COLUMNS)})
        name = folder / f"part-{number:03}.parquet"
        pq.write_table(table, name, row_group_size=GROUP_ROWS, compression="zstd")


def child(how: str, folder: Path, n_files: int, allowed: int, threads: int) -> dict[str, Any]:
    """Train once in this process, and return figures."""
    import pyarrow as pa
    import torch

    from twofold import Autoencoder, Files
    from twofold.training.progress import Progress

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    names = [f"c{i:02}" for i in range(COLUMNS)]
    few = pa.table(dict(zip(names, rows(10_000, 3000).T, strict=True)))
    # Whatever is imported late, and threads, belong to the state before.
    Autoencoder(**OPTIONS).fit(few)
    held_out = pa.table(dict(zip(names, rows(9_999, 20_000).T, strict=True)))
    pattern = str(folder / "part-*.parquet")
    if n_files < len(list(folder.glob("part-*.parquet"))):  # the first tenth
        pattern = str(folder / "part-*0.parquet")
    found: dict[str, Any] = {"how": how, "rows": n_files * ROWS_PER_FILE}
    before = memory.begin()
    data = memory._field("/proc/self/status", "VmData")
    if how != "memory":
        resource.setrlimit(resource.RLIMIT_DATA, (data + allowed, data + allowed))
        found["allowed_mb"] = round(allowed / 1e6)
    ae = Autoencoder(**OPTIONS)
    started = time.perf_counter()
    if how == "refused":
        try:
            ae.fit(Files(pattern, stream=False), validation_data=held_out)
        except (MemoryError, RuntimeError, pa.ArrowMemoryError) as error:
            return found | {"error": type(error).__name__}
        return found | {"error": None}
    if how == "memory":
        # Into one array, for twice as many rows fit into memory then as by way of a table.
        table = np.empty((n_files * ROWS_PER_FILE, COLUMNS), np.float32)
        source = Files(pattern, stream=True).open()
        for at, chunk in source.chunks():
            for column, name in enumerate(names):
                table[at : at + len(chunk), column] = chunk[name]
        x: Any = table
        valid: Any = np.column_stack([held_out[name] for name in names])
    else:
        x, valid = Files(pattern), held_out
    loaded = time.perf_counter()
    with Progress() as progress:
        ae.fit(x, validation_data=valid, callbacks=[progress])
    last = ae.history_[-1]
    return found | {
        "validation_loss": last["validation_loss"],
        "rows_per_second": round(found["rows"] / last["seconds"]),
        "training_seconds": round(last["seconds"], 1),
        "seconds": round(time.perf_counter() - loaded, 1),
        "loading_seconds": round(loaded - started, 1),
        "peak_mb_beyond_imports": round((memory.peak() - before) / 1e6),
        "imports_mb": round(before / 1e6),
        "r2": round(ae.reconstruction_r2_, 4),
    }


def loader(folder: Path) -> dict[str, Any]:
    """Return how fast rows are read and made ready, when nothing is trained."""
    import torch

    from twofold import Files
    from twofold.schema.schema import Schema
    from twofold.training.streaming import Stream

    source = Files(str(folder / "part-*0.parquet"), stream=True).open()
    started = time.perf_counter()
    stream = Stream(source, 0, 0.0)
    surveyed = time.perf_counter()
    schema = Schema.infer(stream.sample, statistics=stream.statistics)
    drawn = stream.draw(schema, torch.float32, torch.device("cpu"))
    begun = time.perf_counter()
    n = sum(len(window) for window in drawn.rows._windows(1, 1024))
    size = n * COLUMNS * 4 / 1e6
    return {
        "rows": n,
        "survey_mb_per_second": round(size / (surveyed - started)),
        "loader_mb_per_second": round(size / (time.perf_counter() - begun)),
    }


def run(how: str, folder: Path, n_files: int, allowed: int) -> dict[str, Any]:
    """Run a child, and return its figures with the load of the machine."""
    words = [how, str(folder), str(n_files), str(allowed)]
    # The allocator that gives memory back at once, so that the limit is about what is in use.
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, __file__, "--child", *words]
    answer = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    if answer.returncode:
        return {"how": how, "rows": n_files * ROWS_PER_FILE, "failed": answer.returncode}
    figures: dict[str, Any] = json.loads(answer.stdout)
    figures["load_average"] = round(os.getloadavg()[0], 1)
    print(json.dumps(figures), flush=True)
    return figures


def markdown(result: dict[str, Any]) -> str:
    """Return the results as a table."""
    lines = [
        "| rows | from | validation loss | rows/s | memory beyond imports |",
        "|--:|---|--:|--:|--:|",
    ]
    runs = [found for found in result["runs"] if "how" in found]
    for number in sorted({found["rows"] for found in runs}):
        for how, words in (("stream", "files, memory limited"), ("memory", "an array in memory")):
            mine = [f for f in runs if f["how"] == how and f["rows"] == number and "r2" in f]
            if not mine:
                continue
            speed = median(found["rows_per_second"] for found in mine)
            most = max(found["peak_mb_beyond_imports"] for found in mine)
            loss = mine[0]["validation_loss"]
            lines.append(f"| {number:,} | {words} | {loss:.5f} | {speed:,.0f} | {most:,} MB |")
    allowed = next(found["allowed_mb"] for found in runs if "allowed_mb" in found)
    refused = [found["error"] for found in runs if found["how"] == "refused"]
    return (
        "\n".join(lines) + f"\n\nData may grow by {allowed} MB after the imports; the rows of all "
        f"files take {result['rows_bytes_per_allowed_byte']:g} times that. Read whole under the "
        f"same limit, a tenth of them ends in {' and '.join(map(str, refused))}."
    )


def main() -> None:
    """Make the folder, run all, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=160, help="of 500,000 rows each")
    parser.add_argument("--allowed", type=int, default=256, help="MB beyond what imports take")
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison of speeds")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.child:
        how, folder, n_files, allowed = given.child
        if how == "loader":
            found = loader(Path(folder))
        else:
            found = child(how, Path(folder), int(n_files), int(allowed), given.threads)
        print(json.dumps(found))
        return
    size = given.files * ROWS_PER_FILE * COLUMNS * 4
    allowed = given.allowed * 10**6
    tenth = given.files // 10
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make(folder, given.files)
        on_disk = sum(file.stat().st_size for file in folder.iterdir())
        runs = [run("loader", folder, tenth, 0), run("refused", folder, tenth, allowed)]
        for _ in range(given.repeats):
            runs += [run("stream", folder, tenth, allowed), run("memory", folder, tenth, allowed)]
        runs.append(run("stream", folder, given.files, allowed))
        runs.append(run("memory", folder, given.files, allowed))
    RESULT.write_text(
        json.dumps(
            {
                "machine": machine.describe(sorted(os.sched_getaffinity(0))),
                "versions": {n: version(n) for n in ("torch", "pyarrow", "numpy")},
                "rows_bytes": size,
                "rows_bytes_per_allowed_byte": round(size / allowed, 1),
                "folder_bytes": on_disk,
                "limit": f"RLIMIT_DATA: what the process had after imports + {allowed:,} bytes",
                "options": OPTIONS,
                "runs": runs,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
