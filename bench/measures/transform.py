"""`transform` of a large table: rows per second, and memory beyond its input and output."""

from __future__ import annotations

import time
import warnings

import memory
import numpy as np
import torch
from channel import Channel
from gemm_bound import Bound, encode_products, total

from twofold import Autoencoder

SIZES = (784, 392, 196)
CHUNKS = (1024, 4096, 8192)


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    n_rows = wanted["n_rows"]
    needed = n_rows * (784 + 196) * 4 + 1_000_000_000
    if memory.available() < needed:
        raise MemoryError(f"{n_rows:,} rows need {needed / 1e9:.1f} GB of memory")
    rng = np.random.default_rng(0)
    x = np.empty((n_rows, 784), dtype=np.float32)
    for start in range(0, n_rows, 10_000):
        rng.random(out=x[start : start + 10_000], dtype=np.float32)
    ae = Autoencoder(
        n_components=196,
        hidden_layers=(392,),
        code_activation="selu",
        likelihood="bernoulli",
        epochs=1,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae.fit(x[:2000])
    ae.transform(x[:20_000])

    seconds, extra = [], []
    for _ in range(wanted["rounds"]):
        before = memory.begin()
        begun = time.perf_counter()
        codes = ae.transform(x)
        seconds.append(time.perf_counter() - begun)
        extra.append(max(0, memory.peak() - before - codes.nbytes))
        del codes
    channel.send(
        n_rows=n_rows,
        seconds=seconds,
        extra_bytes=extra,
        input_bytes=x.nbytes,
        threads=torch.get_num_threads(),
        **_bound(n_rows, wanted["threads"], wanted["rounds"]),
    )


def _bound(n_rows: int, threads: int, rounds: int) -> dict[str, object]:
    """Return the least seconds that the products take, over several chunk sizes."""
    counts = {chunk: encode_products(SIZES, chunk) for chunk in CHUNKS}
    bound = Bound([product for each in counts.values() for product in each], threads)
    seconds = []
    for _ in range(rounds):
        measured = bound.measure()
        seconds.append(min(total(counts[c], measured) * n_rows / c for c in CHUNKS))
    return {"bound_seconds": seconds, "ways": bound.words()}


if __name__ == "__main__":
    main()
