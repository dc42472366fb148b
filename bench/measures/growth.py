"""One point of the growth curves: time and memory of `fit` (one epoch) and `transform`."""

from __future__ import annotations

import statistics
import time
import warnings

import memory
import numpy as np
from channel import Channel

from twofold import Autoencoder
from twofold.training import Event

HIDDEN, CODE = 64, 16


def make_table(n_rows: int, n_columns: int) -> np.ndarray:
    """Return eight hidden causes mixed into all columns, plus noise, in float32."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((8, n_columns), dtype=np.float32)
    x = np.empty((n_rows, n_columns), dtype=np.float32)
    for start in range(0, n_rows, 1000):
        part = x[start : start + 1000]
        rng.standard_normal(out=part, dtype=np.float32)
        part += rng.standard_normal((len(part), 8), dtype=np.float32) @ mixing
    return x


def make_estimator() -> Autoencoder:
    return Autoencoder(
        hidden_layers=(HIDDEN,), n_components=CODE, batch_size=256, epochs=1, random_state=0
    )


def main() -> None:
    warnings.simplefilter("ignore")  # one epoch is no match for PCA, and fit says so
    channel = Channel()
    wanted = channel.settings
    make_estimator().fit(make_table(1000, 20)).transform(make_table(1000, 20))
    x = make_table(wanted["n_rows"], wanted["n_columns"])

    measured: dict[str, list[float]] = {"fit": [], "epoch": [], "transform": []}
    extra: dict[str, list[int]] = {"fit": [], "transform": []}
    begun = time.perf_counter()
    while not measured["fit"] or (
        len(measured["fit"]) < 5 and time.perf_counter() - begun < wanted["seconds"]
    ):
        ae = make_estimator()
        ends: list[float] = []
        before = memory.begin()
        start = time.perf_counter()

        def note(event: Event, ends: list[float] = ends) -> None:
            if event.kind == "epoch":
                ends.append(event.seconds)

        ae.fit(x, callbacks=[note])
        measured["fit"].append(time.perf_counter() - start)
        measured["epoch"].append(ends[-1])
        extra["fit"].append(memory.peak() - before)

        before = memory.begin()
        start = time.perf_counter()
        codes = ae.transform(x)
        measured["transform"].append(time.perf_counter() - start)
        extra["transform"].append(max(0, memory.peak() - before - codes.nbytes))
        del codes, ae
    channel.send(
        n_rows=wanted["n_rows"],
        n_columns=wanted["n_columns"],
        input_bytes=x.nbytes,
        seconds={name: statistics.median(values) for name, values in measured.items()},
        extra_bytes={name: max(values) for name, values in extra.items()},
        repeats=len(measured["fit"]),
    )


if __name__ == "__main__":
    main()
