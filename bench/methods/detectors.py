"""Anomaly detectors: each learns from training rows without labels and scores test rows.

`(train, test, seed) -> scores`, where higher is odder. All have their default options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.method import Method, Peer

Array = NDArray[Any]


def twofold(train: Array, test: Array, seed: int) -> Array:
    from twofold import Autoencoder

    return -Autoencoder(random_state=seed).fit(train).score_samples(test)


def isolation_forest(train: Array, test: Array, seed: int) -> Array:
    """scikit-learn's, which PyOD wraps: it shows that both environments see the same rows."""
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def probabilistic_pca(train: Array, test: Array, seed: int) -> Array:
    """Density of probabilistic PCA in closed form, with as many components as twofold's code has.

    Source: Tipping and Bishop, 1999, "Probabilistic Principal Component Analysis".
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    pca = PCA(math.ceil(train.shape[1] / 4), random_state=seed).fit(scaler.transform(train))
    return -pca.score_samples(scaler.transform(test))


def reconstruction_error_alone(train: Array, test: Array, seed: int) -> Array:
    """Squared error on standardised columns: what a plain autoencoder scores by."""
    from twofold import Autoencoder

    ae = Autoencoder(random_state=seed).fit(train)
    std = train.std(axis=0)
    residual = (test - ae.reconstruct(test)) / np.where(std > 0, std, 1.0)
    return np.sum(residual**2, axis=1)


def _with_density(**changes: Any) -> Callable[[Array, Array, int], Array]:
    """Return twofold with constants of `twofold.nn.row_density` changed."""

    def scores(train: Array, test: Array, seed: int) -> Array:
        from twofold.nn import row_density

        before = {name: getattr(row_density, name) for name in changes}
        try:
            for name, value in changes.items():
                setattr(row_density, name, value)
            return twofold(train, test, seed)
        finally:
            for name, value in before.items():
                setattr(row_density, name, value)

    return scores


def cells_and_codes(train: Array, test: Array, seed: int) -> Array:
    """log p(row given its code) + log p(code): no clusters of residuals, no floors, no trimming."""
    import torch

    from twofold import Autoencoder
    from twofold.inference import apply as inference

    ae = Autoencoder(random_state=seed).fit(train)
    x = torch.from_numpy(ae.schema_.to_matrix(ae.read(test), np.float32))
    with torch.inference_mode():
        code = inference.encode(ae.network_, ae.scorer_, x)
        cells = ae.scorer_.log_prob(ae.network_.decode(code), x).sum(1)
        return -(cells + ae.network_.bottleneck.density.log_prob(code)).double().numpy()


def density_alone(train: Array, test: Array, seed: int) -> Array:
    """The same density on the standardised columns themselves, without any network."""
    import torch

    from twofold.nn.row_density import RowDensity

    mean, std = train.mean(axis=0), train.std(axis=0)
    a, b = (
        torch.from_numpy(((x - mean) / np.where(std > 0, std, 1.0)).astype(np.float32))
        for x in (train, test)
    )
    density = RowDensity(a.shape[1], [])
    density.fit(a, a, None, [slice(None)], torch.Generator().manual_seed(seed))
    return -density.log_prob(b, b, None).double().numpy()


# twofold with one choice of its design switched off each; beside them stands twofold as it is.
ABLATIONS: dict[str, Callable[[Array, Array, int], Array]] = {
    "reconstruction error alone": reconstruction_error_alone,
    "cells and codes apart": cells_and_codes,
    "one cluster": _with_density(COMPONENTS=1),
    "nothing trimmed": _with_density(TRIMMED=0.0),
    "no floor": _with_density(FLOORS=(0.001,) * 4),
    "one fit, high floor": _with_density(FLOORS=(0.3,)),
    "the density without a network": density_alone,
}

OWN = {
    "twofold": Method(twofold),
    "scikit-learn IForest": Method(isolation_forest, uses="scikit-learn"),
    "probabilistic PCA": Method(probabilistic_pca, uses="scikit-learn"),
}
PEERS = {
    "PyOD AutoEncoder": Peer("pyod.models.auto_encoder:AutoEncoder", {"verbose": 0}),
    "PyOD VAE": Peer("pyod.models.vae:VAE", {"verbose": 0}),
    "PyOD IForest": Peer("pyod.models.iforest:IForest"),
    "PyOD PCA": Peer("pyod.models.pca:PCA"),
    "PyOD ECOD": Peer("pyod.models.ecod:ECOD", seeded=False),
    "PyOD CBLOF": Peer("pyod.models.cblof:CBLOF"),
}


def ablations() -> dict[str, Method]:
    return {name: Method(function) for name, function in ABLATIONS.items()}
