"""twofold itself: `Autoencoder.fit` with the tutorial's recipe, timed between its epoch events."""

from __future__ import annotations

import numpy as np
import torch
from channel import Channel

from twofold import Autoencoder


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]]
    ae = Autoencoder(
        n_components=196,
        hidden_layers=(392,),
        activation="selu",
        code_activation="selu",
        tied=wanted["tied"],
        likelihood="bernoulli",
        optimizer="sgd",
        learning_rate=1.5,
        schedule="constant",
        batch_size=wanted["batch_size"],
        epochs=1_000_000,
        patience=None,
        validation_fraction=0.0,
        random_state=0,
    )

    def on_event(event: object) -> None:
        if event.kind == "epoch":
            channel.epoch_done(event.losses["loss"], step=type(ae._step).__name__)

    channel.start(["twofold", "torch", "numpy", "scikit-learn"], torch.get_num_threads)
    ae.fit(x, on_event=on_event)


if __name__ == "__main__":
    main()
