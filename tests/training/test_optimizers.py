"""What Muon's steps are: see test_training for every optimizer's updates beside PyTorch's."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from twofold import Autoencoder
from twofold.training.optimizers import orthogonal

SHAPES = [(30, 30), (12, 40), (40, 12), (1, 5)]


def spread(rows: int, columns: int, least: float) -> Tensor:
    """Return a matrix whose singular values go from 1 down to `least`."""
    generator = torch.Generator().manual_seed(rows)
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(drawn, full_matrices=False)
    return u @ torch.logspace(0, torch.log10(torch.tensor(least)), len(s)).double().diag() @ v


@pytest.mark.parametrize("shape", SHAPES)
def test_an_orthogonal_step_takes_all_directions_alike(shape: tuple[int, int]) -> None:
    found = torch.linalg.svdvals(orthogonal(7 * spread(*shape, least=0.01)))
    assert 0.6 < float(found.min()) <= float(found.max()) < 1.25


@pytest.mark.parametrize("shape", SHAPES)
def test_an_orthogonal_step_keeps_directions_apart(shape: tuple[int, int]) -> None:
    matrix = spread(*shape, least=0.1)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    within = u.T @ orthogonal(matrix) @ v.T
    torch.testing.assert_close(within, within.diagonal().diag(), rtol=0, atol=1e-8)


def test_less_precision_changes_a_step_by_little() -> None:
    matrix = spread(30, 50, least=0.1)
    exact, rounded = orthogonal(matrix), orthogonal(matrix, bfloat16=True)
    assert rounded.dtype == exact.dtype
    assert float((exact - rounded).norm() / exact.norm()) < 0.05


def test_no_gradient_makes_no_step() -> None:
    assert not orthogonal(torch.zeros(4, 6)).any()


def test_an_epoch_teaches_more_than_adams() -> None:
    x = (load_digits().data / 16).astype("float32")
    ends = {
        optimizer: Autoencoder(
            n_components=10, hidden_layers=(60, 30), epochs=10, optimizer=optimizer, random_state=0
        )
        .fit(x)
        .history_[-1]["validation_loss"]
        for optimizer in ("adam", "muon")
    }
    assert ends["muon"] < ends["adam"]
