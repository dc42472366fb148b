"""twofold with every option at its default: seconds until a validation loss is reached."""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from channel import Channel

from twofold import Autoencoder


class _Reached(Exception):
    pass


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]].reshape(-1, 28, 28)
    held_out = np.load(wanted["validation"]).reshape(-1, 28, 28)
    # Here the libraries start their threads; it is not timed.
    _fit(x[:2000], held_out[:500], 0, 1.0)
    channel.send(
        runs=[_fit(x, held_out, seed, wanted["target"]) for seed in wanted["seeds"]],
        whole_fit=_fit(x, held_out, 0, None) if wanted["whole"] else None,
        threads=torch.get_num_threads(),
    )


def _fit(x: np.ndarray, held_out: np.ndarray, seed: int, target: float | None) -> dict[str, object]:
    """Fit until the loss is `target`, or to the end where it is None."""
    epochs: list[dict[str, float]] = []
    ae = Autoencoder(random_state=seed)

    def on_event(event: object) -> None:
        if event.kind != "epoch":
            return
        loss = event.losses["validation_loss"]
        epochs.append({"epoch": event.epoch, "seconds": event.seconds, "validation_loss": loss})
        if target is not None and loss <= target:
            raise _Reached

    start = time.perf_counter()
    reached = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ae.fit(x, validation_data=held_out, on_event=on_event)
    except _Reached:
        reached = True
    return {
        "seed": seed,
        "reached": reached,
        "seconds": epochs[-1]["seconds"],
        "seconds_of_the_call": time.perf_counter() - start,
        "best_validation_loss": min(entry["validation_loss"] for entry in epochs),
        "epochs": epochs,
    }


if __name__ == "__main__":
    main()
