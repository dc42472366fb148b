"""The tutorial's net within the time that its script takes for 20 epochs, here and now.

The script on Keras and TensorFlow does some epochs before twofold's turn and some after it, and is
stopped meanwhile. twofold is granted 20 times the median of those before; a brief fit, which shows
how many epochs go into the rest, takes its part of that. `tutorial_seconds` is told of all epochs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import children
import numpy as np
from channel import Channel
from methods.family import unit
from numpy.typing import NDArray
from rows.family import images

from twofold import Autoencoder
from twofold.training.events import Event

EPOCHS = 20  # of the tutorial's script
MARGIN = 0.95  # of the time that is left is planned for: epochs do not all take equally long
Array = NDArray[Any]


class _Done(Exception):
    pass


def main() -> None:
    warnings.simplefilter("ignore")  # what fit warns of is not what is measured
    channel = Channel()
    wanted = channel.settings
    given = images("mnist", labels=False, quick=wanted["quick"]).given
    n = len(given["train"]) * 53 // 60
    x, held_out, test = unit(given["train"][:n]), unit(given["train"][n:]), unit(given["test"])
    options = wanted["recipe"] | {"random_state": wanted["seed"], "patience": None}
    options["hidden_layers"] = tuple(options["hidden_layers"])
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder:
        np.save(Path(folder) / "train.npy", x)
        with _script(wanted, Path(folder)) as script:
            script.epoch()  # graphs are made in the first one
            epochs = [script.epoch()["seconds"] for _ in range(wanted["rounds"])]
            measured = _within(EPOCHS * statistics.median(epochs), x, held_out, test, options)
            epochs += [script.epoch()["seconds"] for _ in range(wanted["rounds"])]
    # A machine's speed drifts: the time of all epochs may be less, or more, than what was granted.
    channel.send(tutorial_seconds=EPOCHS * statistics.median(epochs), **measured)


def _script(wanted: dict[str, Any], folder: Path) -> children.Child:
    python = children.python_of("keras-tensorflow", Path(wanted["venvs"]), print)
    threads = wanted["threads"]
    child = children.Child(
        python,
        "peers/keras_fit.py",
        {
            "threads": threads,
            "train": str(folder / "train.npy"),
            "n_rows": None,
            "tied": True,
            "batch_size": 32,
        },
        folder / "keras.log",
        children.thread_settings(threads) | {"KERAS_BACKEND": "tensorflow"},
    )
    child.answer(children.START_SECONDS)
    child.pause()
    return child


def _within(
    granted: float, x: Array, held_out: Array, test: Array, options: dict[str, Any]
) -> dict[str, float]:
    """Train for as many epochs as the time allows; return losses, and what was used of it."""
    start = time.perf_counter()
    first, second = _epoch_ends(x, held_out, options)
    left = MARGIN * (granted - (time.perf_counter() - start)) - first
    n_epochs = max(2, 1 + int(left / (second - first)))
    ends: list[float] = []
    losses: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "epoch":
            ends.append(time.perf_counter() - start)
            losses.append(event.losses["validation_loss"])

    ae = Autoencoder(**options, epochs=n_epochs)
    ae.fit(x, validation_data=held_out, callbacks=[watch])
    within = sum(end <= granted for end in ends)
    again = np.clip(ae.reconstruct(test).astype(np.float64), 1e-7, 1 - 1e-7)
    return {
        "validation": min(losses[:within], default=float("nan")),
        "test": float(-(test * np.log(again) + (1 - test) * np.log1p(-again)).mean()),
        "epochs": within,
        "seconds": ends[within - 1] if within else float("nan"),
    }


def _epoch_ends(x: Array, held_out: Array, options: dict[str, Any]) -> tuple[float, float]:
    """Return when the first two epochs of a fit end, in seconds since its call."""
    ends: list[float] = []
    start = time.perf_counter()

    def watch(event: Event) -> None:
        if event.kind == "epoch":
            ends.append(time.perf_counter() - start)
        if len(ends) == 2:
            raise _Done

    with suppress(_Done):
        Autoencoder(**options, epochs=2).fit(x, validation_data=held_out, callbacks=[watch])
    return ends[0], ends[1]


if __name__ == "__main__":
    main()
