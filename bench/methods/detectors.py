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


# twofold with one choice of its design switched off each; beside them stands twofold as it is.
ABLATIONS: dict[str, Callable[[Array, Array, int], Array]] = {
    "reconstruction error alone": reconstruction_error_alone,
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
