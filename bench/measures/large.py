"""One large table of mixed columns: time and memory of `fit` and `score_samples`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import memory
import numpy as np
import pyarrow as pa
from channel import Channel
from scipy.special import expit, ndtr

from twofold import Autoencoder

CHUNK = 100_000
N_REAL, N_COUNTS, N_CATEGORIES, N_FLAGS, N_DATES, N_HOLES = 20, 10, 10, 5, 2, 3
CAUSES = 8
HOLES = (0.05, 0.2, 0.4)  # share of missing cells in the columns that have any


def make_table(n_rows: int, seed: int) -> pa.Table:
    """Return 50 columns that eight hidden causes per row drive, with noise of their own.

    20 real ones (half of them bent), 10 counts, 10 texts of 3 to 100 levels, 5 flags, 2 dates, and
    3 real ones with 5, 20 and 40 % of their cells missing.
    """
    rng = np.random.default_rng(seed)
    n_columns = N_REAL + N_COUNTS + N_CATEGORIES + N_FLAGS + N_DATES + N_HOLES
    weights = rng.standard_normal((CAUSES, n_columns)) / np.sqrt(CAUSES)
    sizes = np.geomspace(3, 100, N_CATEGORIES).round().astype(int)
    levels = [[f"level {i}" for i in rng.permutation(size)] for size in sizes]
    starts = range(0, n_rows, CHUNK)
    batches = [
        pa.record_batch(dict(_columns(min(CHUNK, n_rows - start), weights, levels, rng)))
        for start in starts
    ]
    return pa.Table.from_batches(batches)


def _columns(
    n: int, weights: np.ndarray, levels: list[list[str]], rng: np.random.Generator
) -> Iterator[tuple[str, pa.Array]]:
    signals = iter((rng.standard_normal((n, CAUSES)) @ weights).T)
    noise = rng.standard_normal
    for i in range(N_REAL):
        signal = next(signals)
        bent = np.sin(2 * signal) if i % 2 else signal
        yield f"real_{i}", pa.array(bent + 0.3 * noise(n))
    for i in range(N_COUNTS):
        yield f"count_{i}", pa.array(rng.poisson(np.exp(1 + 0.7 * next(signals))))
    for i in range(N_CATEGORIES):
        # Evenly filled levels that follow the signal, in an order that says nothing.
        size = len(levels[i])
        place = ndtr((next(signals) + 0.3 * noise(n)) / np.hypot(1, 0.3))
        codes = np.minimum((size * place).astype(np.int32), size - 1)
        coded = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(levels[i]))
        yield f"category_{i}", coded.cast(pa.string())
    for i in range(N_FLAGS):
        yield f"flag_{i}", pa.array(rng.uniform(size=n) < expit(3 * next(signals)))
    for i in range(N_DATES):
        days = (3000 * ndtr(next(signals)) + 7 * noise(n)).astype("timedelta64[D]")
        stamps = np.datetime64("2015-01-01", "s") + days
        yield f"date_{i}", pa.array(stamps, mask=rng.uniform(size=n) < 0.1 * i)
    for i, share in enumerate(HOLES):
        cells = next(signals) + 0.3 * noise(n)
        yield f"holed_{i}", pa.array(cells, mask=rng.uniform(size=n) < share)


def main() -> None:
    warnings.simplefilter("ignore")
    channel = Channel()
    wanted = channel.settings
    small = make_table(2_000, 1)
    _held(small, wanted["container"])
    Autoencoder(epochs=1, random_state=0).fit(small).score_samples(small)  # imports, threads
    table = make_table(wanted["n_rows"], wanted["seed"])
    size = table.nbytes
    table = _held(table, wanted["container"])

    ae = Autoencoder(random_state=wanted["seed"])
    measured: dict[str, Any] = {}
    for name, call in (("fit", ae.fit), ("score_samples", ae.score_samples)):
        before = memory.begin()
        start = time.perf_counter()
        call(table)
        measured[name] = {
            "seconds": time.perf_counter() - start,
            "extra_bytes": memory.peak() - before,
        }
    channel.send(
        n_rows=wanted["n_rows"],
        n_columns=len(small.column_names),
        table_bytes=size,
        width=ae.schema_.width,
        epochs=ae.n_iter_,
        threads=wanted["threads"],
        seconds=sum(found["seconds"] for found in measured.values()),
        **measured,
    )


def _held(table: pa.Table, container: str) -> Any:
    return table.to_pandas() if container == "pandas" else table


if __name__ == "__main__":
    main()
