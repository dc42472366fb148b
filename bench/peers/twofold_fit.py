"""twofold itself: `Autoencoder.fit` with the tutorial's recipe, timed by its epoch events."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from channel import Channel

from twofold import Autoencoder


class _Done(Exception):
    pass


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]]
    x[x == 0] = wanted.get("nothing", 0.0)
    channel.start(["twofold", "torch", "numpy", "scikit-learn"], torch.get_num_threads)
    while True:
        channel.epoch_done(**_second_epoch(x, wanted["tied"], wanted["batch_size"]))


def _second_epoch(x: np.ndarray, tied: bool, batch_size: int) -> dict[str, object]:
    """Time the second epoch of a fit: in the first, buffers and thread counts settle.

    Every round has a fit of its own, since a fit that is paused between its epochs would see the
    pause as load and choose its thread count by it.
    """
    ends: list[float] = []
    losses: list[float] = []
    ae = Autoencoder(
        n_components=196,
        hidden_layers=(392,),
        activation="selu",
        code_activation="selu",
        tied=tied,
        likelihood="bernoulli",
        optimizer="sgd",
        learning_rate=1.5,
        schedule="constant",
        batch_size=batch_size,
        epochs=2,
        patience=None,
        validation_fraction=0.0,
        random_state=0,
    )

    def on_event(event: object) -> None:
        if event.kind == "epoch":
            ends.append(event.seconds)
            losses.append(event.losses["loss"])
        if len(ends) == 2:
            raise _Done

    with suppress(_Done):
        ae.fit(x, callbacks=[on_event])
    return {
        "loss": losses[1],
        "seconds": ends[1] - ends[0],
        "first_epoch_seconds": ends[0],
    }


if __name__ == "__main__":
    main()
