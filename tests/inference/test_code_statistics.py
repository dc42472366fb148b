"""What the components of a code do over rows, and a warning where they do nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, Plain, Sparse, Variational
from twofold.errors import CollapsedCodeWarning

RNG = np.random.default_rng(7)
ROWS = (RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 8)) + 0.3 * RNG.normal(size=(300, 8))) + 5
pytestmark = pytest.mark.filterwarnings(
    "ignore::twofold.errors.LosesToPCAWarning", "ignore::twofold.errors.CollapsedCodeWarning"
)


def made(kind: Any, **options: Any) -> Autoencoder:
    quick = {"n_components": 4, "epochs": 3, "random_state": 0, "patience": None}
    return Autoencoder(**{**quick, "bottleneck": kind, "code_activation": "identity", **options})


def test_a_code_that_is_not_used_is_told() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 6))
    with pytest.warns(CollapsedCodeWarning, match="no component of it tells rows apart"):
        ae = made(Variational(beta=20.0), epochs=40).fit(noise)
    assert ae.code_statistics(noise).n_active == 0


def test_statistics_are_those_of_the_codes() -> None:
    ae = made(Plain()).fit(ROWS)
    codes, found = ae.transform(ROWS), ae.code_statistics(ROWS)
    np.testing.assert_allclose(found.mean, codes.mean(0))
    np.testing.assert_allclose(found.std, codes.std(0))
    assert (found.n_active, found.kl) == (4, None)


def test_active_is_a_share_of_the_rows() -> None:
    ae = made(Sparse("topk", k=1)).fit(ROWS)
    assert ae.code_statistics(ROWS).active.sum() == pytest.approx(1, abs=0.01)


def test_statistics_become_a_frame() -> None:
    frame = made(Variational()).fit(ROWS).code_statistics(ROWS).to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["mean", "std", "active", "kl"]
    assert len(frame) == 4


def test_a_component_that_says_the_same_of_every_row_is_not_active() -> None:
    ae = made(Plain()).fit(ROWS)
    for pair in (ae.network_.pairs[-1], ae.network_.shortcut):
        for name, parameter in pair.named_parameters():
            if name in ("weight", "encoder_bias"):
                parameter.data[1] = 0
    found = ae.code_statistics(ROWS)
    assert (found.n_active, found.std[1], found.active[1]) == (3, 0, 0)
