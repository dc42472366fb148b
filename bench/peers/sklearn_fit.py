"""scikit-learn's MLPRegressor taught to give back its input, one `partial_fit` per epoch.

What differs: weights are untied, hidden layers have relu (it has no selu), the output layer is
linear with squared error.
"""

from __future__ import annotations

import os

import numpy as np
from channel import Channel
from sklearn.neural_network import MLPRegressor


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = np.load(wanted["train"])[: wanted["n_rows"]]
    net = MLPRegressor(
        hidden_layer_sizes=(392, 196, 392),
        activation="relu",
        solver="sgd",
        learning_rate_init=0.01,
        momentum=0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        batch_size=wanted["batch_size"],
        random_state=0,
    )
    channel.start(["scikit-learn", "numpy"], lambda: int(os.environ["OMP_NUM_THREADS"]))
    while True:
        net.partial_fit(x, x)
        channel.epoch_done(net.loss_)


if __name__ == "__main__":
    main()
