"""The kernels run near the processor's own limit, which numbers alone would not show."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
import torch

from tests.training.test_fused import PLAN
from twofold.nn.native import library
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Column, Schema
from twofold.training.native import NativeStep

WIDTHS, BATCH = (784, 392, 196), 32
CONFIG = replace(PLAN, batch_size=BATCH)
STEP, KERNEL = 0.6, 0.7  # least shares of the peak


def peak(name: str) -> float:
    found = library.find(name)
    assert found.library is not None
    return float(found.library.twofold_peak(found.isa, 0.02))


def step_speed(name: str) -> float:
    """GFLOP/s of the tutorial's tied network on one thread, by the time that this thread had."""
    n_in, n_hidden, n_code = WIDTHS
    columns = tuple(Column(f"x{i}", "real", "bernoulli") for i in range(n_in))
    net = Network(n_in, (n_hidden,), n_code, generator=torch.Generator().manual_seed(0))
    step = NativeStep(net, Objective(Schema(columns, (n_in,))), CONFIG, instruction_set=name)
    batches = list(torch.rand(3, BATCH, n_in, generator=torch.Generator().manual_seed(1)))
    # Forward, back and gradients, twice each for a tied matrix; inputs need no gradient.
    weights = n_in * n_hidden + n_hidden * n_code
    flop = len(batches) * BATCH * 2 * (6 * weights - n_in * n_hidden)
    start = time.thread_time()
    step.update_many(batches, [0.1] * len(batches))
    return flop / (time.thread_time() - start) / 1e9


def require(share: float, least: float) -> None:
    """Others that compute on the same core can explain a low share, so then it says nothing."""
    if share < least and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        pytest.skip(f"the machine is loaded: {share:.0%} of its peak")
    assert share >= least


@pytest.mark.parametrize("name", ["avx2", "avx512", "neon"])
def test_the_kernel_is_near_the_peak(name: str) -> None:
    if name not in library.instruction_sets():
        pytest.skip(f"this processor has no {name}")
    found = library.find(name)
    assert found.library is not None
    speeds = [found.library.twofold_kernel_speed(found.isa, 64, 128, 0.01) for _ in range(10)]
    require(max(speeds) / max(peak(name) for _ in range(5)), KERNEL)


@pytest.mark.parametrize("name", ["avx2", "avx512", "neon"])
def test_a_step_on_one_thread_is_near_the_peak(name: str) -> None:
    if name not in library.instruction_sets():
        pytest.skip(f"this processor has no {name}")
    best = max(step_speed(name) for _ in range(20))
    require(best / max(peak(name) for _ in range(5)), STEP)
