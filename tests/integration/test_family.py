"""Every kind of bottleneck, with every other choice, works whole or is refused with a reason."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twofold import Autoencoder, Conv, Ordered, Plain, Recurrent, Sparse, Variational, load
from twofold.errors import DataError, OptionError

RNG = np.random.default_rng(3)
ANGLES = RNG.uniform(0, 6, size=(80, 1))
# Rows of 3 x 4 cells: images for convolutions, sequences of 4 channels for recurrent layers.
ROWS = (0.5 + 0.4 * np.sin(ANGLES * np.arange(1, 13) / 6)).reshape(80, 3, 4).astype(np.float32)
BOTTLENECKS = (
    Plain(), Sparse("l1"), Sparse("kl"), Sparse("topk", k=2), Variational(),
    Variational(n_samples=3), Ordered(),
)  # fmt: skip
LAYERS: dict[str, tuple[Any, ...]] = {
    "dense": (6,),
    "conv": (Conv(3, 2),),
    "recurrent": (Recurrent(5),),
}


def made(bottleneck: Any, **options: Any) -> Autoencoder:
    activation = "sigmoid" if bottleneck == Sparse("kl") else "identity"
    settings = {"epochs": 2, "random_state": 0, "n_components": 3, "patience": None}
    return Autoencoder(
        **settings | {"bottleneck": bottleneck, "code_activation": activation} | options
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=repr)
def test_the_grid(bottleneck: Any, layers: str, tied: bool, tmp_path: Path) -> None:
    noises = [None, "gaussian:0.3", "masking:0.2", *(["warp:0.5"] if layers != "recurrent" else [])]
    ways = itertools.product(enumerate(noises), enumerate([None, "layerwise:1", "pca"]))
    for (i, corruption), (j, pretraining) in ways:
        # A Latin square: a third of the ways for each stack, and all of them for each bottleneck.
        kind = list(LAYERS).index(layers)
        if (i + j + kind + tied) % 3:
            continue
        # Of the slow stacks each takes half of its noises, the other half with the next bottleneck.
        if layers != "dense" and (i + kind + BOTTLENECKS.index(bottleneck)) % 2:
            continue
        ae = made(
            bottleneck,
            hidden_layers=LAYERS[layers],
            tied=tied,
            corruption=corruption,
            pretraining=pretraining,
        )
        if pretraining == "pca" and (layers != "dense" or (tied and bottleneck == Sparse("kl"))):
            with pytest.raises(OptionError, match="pretraining='pca'"):
                ae.fit(ROWS)
            continue
        ae.fit(ROWS)
        scores = ae.score_samples(ROWS)
        assert np.isfinite(scores).all()
        ae.save(tmp_path / "model", overwrite=True)
        assert np.array_equal(load(tmp_path / "model").score_samples(ROWS), scores)
        found = ae.explain(ROWS[:4])
        total = found.base + found.contribution.sum(axis=1)
        np.testing.assert_allclose(total, -scores[:4], rtol=1e-3, atol=1e-3)
        assert ae.reconstruct(ROWS[:2]).shape == ae.sample(2, 0).shape == (2, 3, 4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=repr)
def test_holes_copies_and_single_rows(bottleneck: Any) -> None:
    rows = ROWS.reshape(80, 12).astype(np.float64)
    holed = rows.copy()
    holed[::3, 2] = np.nan
    ae = made(bottleneck, hidden_layers=(6,)).fit(holed)
    one_by_one = np.concatenate([ae.score_samples(holed[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(one_by_one, ae.score_samples(holed[:6]), rtol=1e-6)
    assert np.isfinite(ae.impute(holed)).all()
    ae.partial_fit(rows)
    assert np.isfinite(ae.score_samples(rows)).all()


def test_penalties_of_the_tutorials_sparse_net() -> None:
    module = Sparse("kl", target=0.1, weight=2.0).module(3, 5)
    activity = torch.full((4, 3), 0.1)
    _, penalties = module(activity, [])
    torch.testing.assert_close(penalties["sparsity"], torch.zeros(4), atol=1e-6, rtol=0)
    _, penalties = module(torch.full((4, 3), 0.5), [])
    expected = 2 * 3 * (0.1 * np.log(0.1 / 0.5) + 0.9 * np.log(0.9 / 0.5))
    torch.testing.assert_close(penalties["sparsity"], torch.full((4,), expected))


def test_noise_that_was_learned_may_reach_beyond_the_range() -> None:
    grey = RNG.integers(0, 256, (400, 1)) / 255 * RNG.uniform(0.5, 1, 6)
    options: dict[str, Any] = {"n_components": 1, "epochs": 3, "batch_size": 50, "patience": None}
    ae = Autoencoder(**options, likelihood="bernoulli", corruption="gaussian:0.2", random_state=0)
    noisy = grey[:50] + 0.2 * RNG.standard_normal((50, 6))
    again = ae.fit(grey).reconstruct(noisy)
    assert again.min() >= 0
    assert again.max() <= 1
    with pytest.raises(DataError, match="lay between 0 and 1 in training"):
        ae.reconstruct(255 * noisy)
    before = ae.history_[-1]["loss"]
    assert 0 <= ae.partial_fit(noisy).history_[-1]["loss"] < 2 * before
