"""How long a pass over a billion rows takes on 1 to 1,024 workers: measured constants, simulated.

Measured here, on one core: what training and reading a row cost (in processor time, so that other
work on the machine counts little), how large rows are, and how long two processes take to add their
gradients up. From these, and from what is assumed of the network between machines, a simulation of
updates gives the time of a pass: an update waits for the slowest worker and then for the sum.

    python bench/scaling.py             # about a minute
    python bench/scaling.py --table     # the last results as a table
    python bench/scaling.py --start-up  # what a start by Ray Train takes, two minutes
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from twofold import Autoencoder, Files
from twofold.data.table import Table
from twofold.distributed import launch
from twofold.distributed import ray as cluster
from twofold.estimators import validation
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training.autograd import AutogradStep
from twofold.training.config import TrainingConfig
from twofold.training.step import make_step

RESULTS = Path(__file__).parent / "results" / "scaling.json"
STARTED, REPEATS = 2, 5  # workers; starts of each sort, of which the median counts
COLUMNS, ROWS = 100, 10**9
HIDDEN, CODE = (50,), 25  # the default network for so many columns
BATCH = 65_536  # rows per update, of all workers together
WORKERS = [4**i for i in range(6)]
# Assumed: a 10 Gbit/s network, and workers that are not equally fast in every update.
BANDWIDTH, LATENCY = 1.25e9, 50e-6  # bytes per second; seconds per message
SPREAD, STALLS, STALL = 0.1, 1e-3, 3.0  # of a worker's time; how often; times as long
UPDATES = 2_000  # that are simulated
KNEE = 0.5  # share of the time that is spent on rows


def rows(n: int) -> np.ndarray:
    """Return rows with structure: 20 factors and noise, in 32 bits."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 20)) @ rng.normal(size=(20, COLUMNS)) + rng.normal(size=(n, COLUMNS))
    return x.astype(np.float32)


def training_rate(x: np.ndarray, batch: int, alone: bool) -> float:
    """Return rows per second of processor time, by the step of a single process or of a group's."""
    table = Table(x)
    schema = Schema.infer(table)
    objective = Objective(schema)
    matrix = torch.from_numpy(schema.to_matrix(table, np.float32))
    network = Network(COLUMNS, HIDDEN, CODE, generator=torch.Generator().manual_seed(0))
    plan = TrainingConfig("adam", 0.003, 0.0, False, "constant", batch, 1, 0.0, None)
    make = make_step if alone else AutogradStep
    step = make(network, objective, plan)
    best = np.inf
    for _ in range(5):
        started = time.thread_time()
        for part in matrix.split(batch):
            buffer = step.buffer(len(part))
            buffer.copy_(part)
            step.update(buffer, 0.003)
        best = min(best, time.thread_time() - started)
    return len(matrix) / best


def reading_rate(x: np.ndarray, folder: Path) -> tuple[float, float]:
    """Return rows read per second of processor time, and bytes per row on disk."""
    names = [f"x{i}" for i in range(COLUMNS)]
    table = pa.table(dict(zip(names, x.T, strict=True)))
    for i in range(4):
        part = table.slice(i * len(x) // 4, len(x) // 4)
        pq.write_table(part, folder / f"part-{i}.parquet", compression="zstd")
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    ae = Autoencoder(epochs=1, validation_fraction=0.0, random_state=0)
    generator = np.random.RandomState(0)
    stream = validation.training_rows(ae, Files(folder, stream=True), generator, 0.0, reset=True)
    schema = Schema.infer(stream.sample)
    drawn = stream.draw(schema, torch.float32, torch.device("cpu")).rows
    room, best = torch.empty(1024, COLUMNS), np.inf
    for _ in range(3):
        started = time.process_time()  # with the thread that reads ahead
        for _batch in drawn.batches(1024, torch.Generator(), lambda n: room[:n]):
            pass
        best = min(best, time.process_time() - started)
    return len(drawn) / best, n_bytes / len(x)


def _add_up(rank: int, folder: str, n: int, found: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    vector, times = torch.ones(n), []
    for _ in range(200):
        started = time.perf_counter()
        dist.all_reduce(vector)
        times.append(time.perf_counter() - started)
        vector.fill_(1)
    if rank == 0:
        found.put(min(times))


def summing_seconds(n: int) -> float:
    """Return the shortest time in which two processes of this machine add vectors up."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        pair = [context.Process(target=_add_up, args=(i, folder, n, found)) for i in range(2)]
        for process in pair:
            process.start()
        seconds = float(found.get(timeout=120))
        for process in pair:
            process.join(60)
    return seconds


def seconds_for(n_rows: float, rates: dict[int, float], reads: float) -> float:
    """Return how long a core reads and trains so many rows, at the rate for parts of this size."""
    sizes = np.log(list(rates))
    return n_rows / float(np.interp(np.log(n_rows), sizes, list(rates.values()))) + n_rows / reads


def simulate(n: int, rates: dict[int, float], reads: float, n_bytes: float) -> dict[str, float]:
    """Return the time of a pass by so many workers, and the share of it that rows take.

    An update takes as long as the slowest worker does for its rows, and then a ring's sum: every
    worker sends its vector twice but for one part in n, in 2 (n - 1) messages (Patarasuk and Yuan,
    2009, "Bandwidth Optimal All-reduce Algorithms", section 4).
    """
    rng = np.random.default_rng(n)
    each = seconds_for(BATCH / n, rates, reads)
    slowest = 0.0
    for _ in range(UPDATES):
        times = rng.lognormal(-(SPREAD**2) / 2, SPREAD, n)
        times[rng.random(n) < STALLS] *= STALL
        slowest += times.max() * each / UPDATES
    sums = 0.0 if n == 1 else 2 * (n - 1) / n * n_bytes / BANDWIDTH + 2 * (n - 1) * LATENCY
    seconds = (slowest + sums) * ROWS / BATCH
    return {
        "workers": n,
        "rows_per_worker_and_update": BATCH / n,
        "seconds_per_pass": round(seconds, 1),
        "speed_up": round(seconds_for(BATCH, rates, reads) * ROWS / BATCH / seconds, 1),
        "share_on_rows": round(each / (slowest + sums), 3),
        "share_waiting": round((slowest - each) / (slowest + sums), 3),
        "share_summing": round(sums / (slowest + sums), 3),
    }


def measure() -> dict[str, Any]:
    """Measure the constants, and simulate."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    watch = machine.Watch()
    x = rows(131_072)
    rates = {batch: training_rate(x, batch, alone=False) for batch in (64, 256, 1024, 4096, 16384)}
    alone = training_rate(x, 1024, alone=True)
    with tempfile.TemporaryDirectory() as folder:
        reads, on_disk = reading_rate(x, Path(folder))
    n_parameters = Network(COLUMNS, HIDDEN, CODE).n_parameters
    curve = [simulate(n, rates, reads, 4 * n_parameters) for n in WORKERS]
    fine = [simulate(n, rates, reads, 4 * n_parameters) for n in range(2, 257, 2)]
    return {
        "machine": machine.describe(sorted(os.sched_getaffinity(0))),
        "others": watch.stop(),
        "measured": {
            "trained_rows_per_core_second": {str(b): round(r) for b, r in rates.items()},
            "trained_rows_per_core_second_one_worker": round(alone),
            "read_rows_per_core_second": round(reads),
            "bytes_per_row_in_memory": 4 * COLUMNS,
            "bytes_per_row_in_parquet": round(on_disk, 1),
            "parameters": n_parameters,
            "bytes_summed_per_update": 4 * n_parameters,
            "sum_of_two_processes_seconds": summing_seconds(n_parameters),
        },
        "assumed": {
            "bandwidth": BANDWIDTH,
            "latency": LATENCY,
            "spread": SPREAD,
            "stalls": STALLS,
            "stall": STALL,
            "batch": BATCH,
            "rows": ROWS,
            "columns": COLUMNS,
        },
        "curve": curve,
        "knee": next((p["workers"] for p in fine if p["share_on_rows"] < KNEE), None),
    }


def bare_start() -> None:
    """Start workers by Ray Train that do nothing, as whoever uses it directly does."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory() as folder:
        TorchTrainer(
            lambda: None,
            scaling_config=ScalingConfig(num_workers=STARTED),
            run_config=RunConfig(storage_path=folder),
        ).fit()


def whole_fit() -> None:
    """Fit a model to next to nothing by as many workers."""
    ae = Autoencoder(n_components=1, epochs=1, random_state=0)
    launch.fit(ae, rows(200)[:, :4], workers=STARTED, address="auto")


def start_up() -> dict[str, Any]:
    """Time a bare start and a fit in turns, on a cluster that is up."""
    warnings.simplefilter("ignore")
    # Workers load what they run by its name, from where this file is.
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    watch, sorts = machine.Watch(), {"bare": bare_start, "fit": whole_fit}
    seconds: dict[str, list[float]] = {name: [] for name in sorts}
    with cluster.connected("local", STARTED):
        bare_start()  # what is loaded for the first time is not counted
        for _ in range(REPEATS):
            for name, run in sorts.items():
                begun = time.perf_counter()
                run()
                seconds[name].append(round(time.perf_counter() - begun, 2))
    return {"others": watch.stop(), "workers": STARTED, "seconds": seconds}


def starts(result: dict[str, Any]) -> str:
    """Return what starts take as a line."""
    found = result["start_up"]
    bare, fit = (statistics.median(found["seconds"][name]) for name in ("bare", "fit"))
    return (
        f"A bare `TorchTrainer` whose {found['workers']} workers do nothing takes {bare:.1f} s on "
        f"a cluster that is up, and a `fit` of 200 rows and one epoch {fit:.1f} s (medians of "
        f"{len(found['seconds']['fit'])} in turns, on one machine of two cores; load average "
        f"{found['others']['load_average']:.1f})."
    )


def measured(result: dict[str, Any]) -> str:
    """Return what was measured as a table."""
    found = result["measured"]
    trained = found["trained_rows_per_core_second"]
    lines = {
        "rows trained per second, in parts of 64 rows per worker and update": f"{trained['64']:,}",
        "... of 1,024 rows": f"{trained['1024']:,}",
        "... of 4,096 rows": f"{trained['4096']:,}",
        "rows trained per second by a single process, which needs no sum (1,024 rows)": (
            f"{found['trained_rows_per_core_second_one_worker']:,}"
        ),
        "rows read from Parquet files per second": f"{found['read_rows_per_core_second']:,}",
        "bytes per row in memory, as Parquet": (
            f"{found['bytes_per_row_in_memory']:,}, {found['bytes_per_row_in_parquet']:,.0f}"
        ),
        "bytes of gradients per update": f"{found['bytes_summed_per_update']:,}",
        "the sum of two processes on one machine": (
            f"{1000 * found['sum_of_two_processes_seconds']:.2f} ms"
        ),
    }
    rows = [f"| {what} | {figure} |" for what, figure in lines.items()]
    load = result["others"]["load_average"]
    return "\n".join(
        ["| measured on one core | |", "|---|---:|", *rows, "", f"Load average: {load:.1f}."]
    )


def table(result: dict[str, Any]) -> str:
    """Return the simulated curve as Markdown."""
    lines = [
        "| workers | rows per worker and update | one pass | times one worker | on rows |",
        "|---:|---:|---:|---:|---:|",
    ]
    for point in result["curve"]:
        seconds = point["seconds_per_pass"]
        text = f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
        lines.append(
            f"| {point['workers']:,} | {point['rows_per_worker_and_update']:,.0f} | {text} | "
            f"{point['speed_up']:g} | {point['share_on_rows']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--start-up", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    result = json.loads(given.output.read_text()) if given.output.exists() else {}
    if given.start_up:
        result["start_up"] = start_up()
    elif not given.table:
        result |= measure()
    if not given.table:
        given.output.write_text(json.dumps(result, indent=1) + "\n")
    if given.start_up:
        print(starts(result))
        return
    print(json.dumps(result["measured"], indent=1), file=sys.stderr)
    print(f"{table(result)}\n\nHalf of the time is spent on rows at {result['knee']} workers.")


if __name__ == "__main__":
    main()
