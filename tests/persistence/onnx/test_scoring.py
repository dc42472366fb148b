"""A scorer says of rows what the scorer says, for every likelihood and every kind of network."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from twofold import Autoencoder
from twofold.inference import apply as inference
from twofold.persistence.onnx.scoring import TraceableScorer, log_gamma

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(150, 2))
NUMBERS = Z @ RNG.normal(size=(2, 6)) * 4 + 20 + RNG.normal(size=(150, 6))
COUNTS = RNG.poisson(np.exp(0.5 * Z @ RNG.normal(size=(2, 5))))
FLAGS = (RNG.uniform(size=(150, 5)) < 0.4) * 1.0
MIXED = np.hstack([NUMBERS[:, :3], COUNTS[:, :2], FLAGS[:, :2], COUNTS[:, 2:3] % 3])
IMAGES = RNG.integers(0, 256, (150, 4, 3)).astype(np.uint8)
KINDS = {"x7": "category", "x6": "binary"}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gaussian": (NUMBERS, {"likelihood": "gaussian"}),
    "student_t": (NUMBERS, {"likelihood": "student_t", "tied": False}),
    "histogram": (NUMBERS, {"likelihood": "histogram"}),
    "poisson": (COUNTS, {"likelihood": "poisson", "activation": "tanh"}),
    "negative_binomial": (COUNTS, {"likelihood": "negative_binomial"}),
    "bernoulli": (FLAGS, {}),
    "pixels": (IMAGES, {"likelihood": "bernoulli"}),
    "grey": (IMAGES, {"likelihood": "gaussian"}),
    "mixed": (MIXED, {"kinds": KINDS, "likelihood": {"x0": "student_t", "x1": "histogram"}}),
    "variational": (MIXED, {"kinds": KINDS, "bottleneck": "variational"}),
}


def fitted(name: str) -> Autoencoder:
    rows, options = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Autoencoder(n_components=2, epochs=2, random_state=0, **options).fit(rows)


def inputs(ae: Autoencoder, name: str, holes: float) -> torch.Tensor:
    x = ae._matrix(ae.read(CASES[name][0]))[:].clone()
    missing = torch.from_numpy(np.random.default_rng(1).uniform(size=(len(x), 99)) < holes)
    x[missing[:, ae.scorer_.column]] = torch.nan
    return x


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_it_says_what_the_scorer_says(name: str, holes: float) -> None:
    ae = fitted(name)
    scorer, x = ae.scorer_, inputs(ae, name, holes)
    every = name == "variational"
    traceable = TraceableScorer(scorer)
    with torch.no_grad():
        theta = ae.network_.decode(inference.encode(ae.network_, scorer, x))
        x_hat = traceable.mean(theta)
        whole = scorer.log_prob(theta, x).sum(1) if every else scorer.row_log_prob(theta, x)
        scores = traceable.log_prob(theta, x)[:, 0] if every else traceable.row_log_prob(theta, x)
    torch.testing.assert_close(x_hat, scorer.mean(theta), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scores.float(), whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("x", [0.01, 0.5, 1.0, 1.5, 2.0, 7.0, 1e2, 1e5, 1e9])
def test_the_logarithm_of_the_gamma_function(x: float) -> None:
    ours = log_gamma(torch.tensor(x, dtype=torch.float64)).item()
    assert ours == pytest.approx(math.lgamma(x), rel=1e-9, abs=1e-8)
