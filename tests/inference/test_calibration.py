"""What is fitted after training: spreads, the score of a missing cell, the threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from twofold import metrics
from twofold.data.table import Table
from twofold.inference import apply as inference
from twofold.inference import calibration
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.schema.schema import Schema
from twofold.training.batches import Selection, TrainingData


@pytest.fixture
def parts() -> tuple[Table, Schema, Network, Scorer]:
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(300, 12)).astype(np.float32)
    table = Table(rows)
    schema = Schema.infer(table)
    network = Network(12, (8,), 4, generator=torch.Generator().manual_seed(0))
    return table, schema, network, Scorer(schema).float()


def test_calibration_finds_the_spread_of_each_column(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    table, schema, network, _ = parts
    x = torch.from_numpy(schema.to_matrix(table, np.float32))
    scorer = calibration.fit_scorer(network, schema, x, torch.arange(300))
    residual = x - inference.reconstruct(network, scorer, x)
    torch.testing.assert_close(scorer.spread, (residual**2).mean(0).sqrt().detach())


def test_calibration_finds_what_missing_cells_count(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    table, schema, network, _ = parts
    x = torch.from_numpy(schema.to_matrix(table, np.float32))
    scorer = calibration.fit_scorer(network, schema, x, torch.arange(300))
    cells = scorer.log_prob(network.decode(network.encode(x)[0]), x)
    torch.testing.assert_close(scorer.typical, cells.mean(0).detach())


def calibrated(
    parts: tuple[Table, Schema, Network, Scorer], contamination: float | str = "auto"
) -> tuple[calibration.Calibration, Tensor]:
    """What 200 training rows and 100 held-out ones give, and the latter."""
    table, schema, network, _ = parts
    x = torch.from_numpy(schema.to_matrix(table, np.float32))
    train = torch.arange(200)
    data = TrainingData(Selection(x, train), x[200:], x, train, complete=True)
    found = calibration.calibrate(
        network,
        schema,
        data,
        [table],
        table,
        donors=50,
        contamination=contamination,
        rng=np.random.RandomState(0),
        generator=torch.Generator().manual_seed(0),
    )
    return found, x[200:]


def test_the_scores_of_held_out_rows_set_the_threshold(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    found, held_out = calibrated(parts)
    with torch.inference_mode():
        scores = inference.log_density(parts[2], found.scorer, held_out).numpy()
    np.testing.assert_allclose(found.scores, np.sort(scores), rtol=1e-5)
    assert found.offset == pytest.approx(metrics.conformal_offset(scores, 0.05), rel=1e-5)


def test_a_share_is_of_all_rows(parts: tuple[Table, Schema, Network, Scorer]) -> None:
    found, _ = calibrated(parts, contamination=0.2)
    table, schema, network, _ = parts
    scores = inference.apply_to_table(inference.log_density, network, found.scorer, schema, table)
    assert (scores < found.offset).mean() == pytest.approx(0.2, abs=0.01)


def test_the_network_is_compared_with_pca_on_held_out_rows(
    parts: tuple[Table, Schema, Network, Scorer],
) -> None:
    found, held_out = calibrated(parts)
    assert found.comparison.n_rows == len(held_out)
    again = calibration.compare(parts[2], found.scorer, parts[0], found.pca, held_out.numpy())
    assert again == found.comparison
