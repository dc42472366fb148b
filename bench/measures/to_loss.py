"""twofold with every option at its default: seconds until a validation loss is reached."""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from channel import Channel

from twofold import Autoencoder


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]].reshape(-1, 28, 28)
    held_out = np.load(wanted["validation"]).reshape(-1, 28, 28)
    # Here the libraries start their threads; it is not timed.
    _fit(x[:2000], held_out[:500], 0, "float32", 1.0, 2)
    channel.send(
        **{
            precision: [
                _fit(x, held_out, seed, precision, wanted["target"], wanted["epochs"])
                for seed in wanted["seeds"]
            ]
            for precision in ("float32", "auto")
        },
        threads=torch.get_num_threads(),
    )


def _fit(
    x: np.ndarray,
    held_out: np.ndarray,
    seed: int,
    precision: str,
    target: float,
    n_epochs: int | str,
) -> dict[str, object]:
    """Fit to the end, and tell when the held-out loss first was `target` or less.

    Seconds count from the call, and so hold what is done before the first update.
    """
    epochs: list[dict[str, float]] = []
    ae = Autoencoder(random_state=seed, precision=precision, epochs=n_epochs)

    def on_event(event: object) -> None:
        if event.kind == "epoch":
            loss = event.losses["validation_loss"]
            seconds = time.perf_counter() - start
            epochs.append({"seconds": seconds, "validation_loss": loss})

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ae.fit(x, validation_data=held_out, callbacks=[on_event])
    reached = [n for n, epoch in enumerate(epochs) if epoch["validation_loss"] <= target]
    return {
        "seed": seed,
        "seconds": epochs[reached[0]]["seconds"] if reached else None,
        "epoch": reached[0] + 1 if reached else None,
        "training_seconds": epochs[-1]["seconds"],
        "seconds_of_the_call": time.perf_counter() - start,
        "best_validation_loss": min(epoch["validation_loss"] for epoch in epochs),
        "epochs": epochs,
    }


if __name__ == "__main__":
    main()
