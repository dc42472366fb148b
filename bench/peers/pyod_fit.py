"""PyOD's AutoEncoder with the nearest options it has, through its own training loop.

What differs: weights are untied, hidden layers have elu (it has no selu), the output layer is
linear with squared error, and the short last batch of an epoch is dropped.
"""

from __future__ import annotations

import numpy as np
import torch
from channel import Channel
from pyod.models.auto_encoder import AutoEncoder


class Timed(AutoEncoder):
    """Reports each epoch from the hook that PyOD calls after it."""

    channel: Channel
    last_loss = float("nan")

    def training_forward(self, batch_data: torch.Tensor) -> float:
        self.last_loss = super().training_forward(batch_data)
        return self.last_loss

    def epoch_update(self) -> None:
        self.channel.epoch_done(self.last_loss)


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]]
    detector = Timed(
        hidden_neuron_list=[392, 196],
        hidden_activation_name="elu",
        batch_norm=False,
        dropout_rate=0.0,
        preprocessing=False,
        optimizer_name="sgd",
        optimizer_params={},
        lr=0.1,
        epoch_num=1_000_000,
        batch_size=wanted["batch_size"],
        random_state=0,
        verbose=0,
    )
    detector.channel = channel
    channel.start(["pyod", "torch", "numpy"], torch.get_num_threads)
    detector.fit(x)


if __name__ == "__main__":
    main()
