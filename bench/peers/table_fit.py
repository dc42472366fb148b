"""One fit of a table of numbers with all defaults, by whoever `who` names, on one thread."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from channel import Channel


def made(who: str, n_columns: int) -> Any:
    """Return an estimator that is not fitted."""
    if who == "twofold":
        from twofold import Autoencoder

        return Autoencoder(random_state=0)
    if who == "pyod":
        from pyod.models.auto_encoder import AutoEncoder

        return AutoEncoder(random_state=0, verbose=0)
    if who == "pca":
        from sklearn.decomposition import PCA

        return PCA(n_columns // 4)
    from sklearn.neural_network import MLPRegressor

    widths = (64, 32, n_columns // 4, 32, 64)
    return MLPRegressor(hidden_layer_sizes=widths, max_iter=200, random_state=0)


def table(n_rows: int, n_columns: int) -> np.ndarray:
    """Return rows near a curved surface of five dimensions."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n_rows, 5))
    noise = 0.1 * rng.normal(size=(n_rows, n_columns))
    return np.tanh(hidden @ rng.normal(size=(5, n_columns))) + noise


def main() -> None:
    """Fit once per turn."""
    channel = Channel()
    wanted = channel.settings
    who, n_columns = wanted["who"], wanted["n_columns"]
    torch.set_num_threads(wanted["threads"])
    x = table(wanted["n_rows"], n_columns)
    warnings.simplefilter("ignore")
    made(who, n_columns).fit(*((x[:100], x[:100]) if who == "mlp" else (x[:100],)))
    channel.start(["torch", "numpy"], torch.get_num_threads)
    while True:
        made(who, n_columns).fit(*((x, x) if who == "mlp" else (x,)))
        channel.epoch_done(np.nan)


if __name__ == "__main__":
    main()
