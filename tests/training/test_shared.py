"""Workers that add their gradients up make the update that one process makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.training.test_fused import PLANS, parts, rows
from twofold.training.config import TrainingConfig
from twofold.training.process_group import SingleProcess
from twofold.training.shared import SharedStep
from twofold.training.step import make_step


class Threads:
    """Workers that are threads of this process."""

    def __init__(self, size: int) -> None:
        self._size, self._given = size, [list[Tensor]() for _ in range(size)]
        self._meeting = threading.Barrier(size)

    def worker(self, rank: int) -> SingleProcess:
        every = self

        class Worker(SingleProcess):
            def all_reduce_mean(
                self, gradients: list[Tensor], loss: Tensor, count: Callable[[], float | Tensor]
            ) -> tuple[list[Tensor], Tensor]:
                n = torch.as_tensor(count(), dtype=loss.dtype)
                every._given[rank] = [n, *(n * each for each in (loss, *gradients))]
                every._meeting.wait(5)
                total, *sums = [sum(each) for each in zip(*every._given, strict=True)]
                every._meeting.wait(5)
                mean, *found = [each / total for each in sums]
                return found, mean

        return Worker(rank, self._size)


def train(plan: TrainingConfig, x: Tensor, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Take three updates by so many workers; return the weights of the first one."""
    group, complete = Threads(size), not bool(x.isnan().any())

    def work(rank: int) -> list[Tensor]:
        network, objective = parts(dtype=dtype)
        step = make_step(network, objective, plan, complete=complete, workers=group.worker(rank))
        if complete or dtype == torch.float32:  # neither native nor fused covers the rest
            assert (size > 1) == isinstance(step, SharedStep)
        for batch in x.split([8, 8, 1]):
            own = batch.tensor_split(size)[rank]  # of one row, the second worker gets none
            buffer = step.buffer(len(own))
            buffer.copy_(own)
            step.update(buffer, plan.learning_rate)
        return [parameter.detach() for parameter in network.parameters()]

    with ThreadPoolExecutor(size) as pool:
        first, *others = list(pool.map(work, range(size)))
    for other in others:
        assert all(map(torch.equal, other, first))
    return first


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "incomplete"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_workers_make_the_updates_of_one(plan: str, holes: bool, dtype: torch.dtype) -> None:
    x = rows(dtype)[:17].clone()
    if holes:
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.2] = torch.nan
    tight = 1e-9 if dtype == torch.float64 else 2e-4
    for ours, theirs in zip(
        train(PLANS[plan], x, 2, dtype), train(PLANS[plan], x, 1, dtype), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tight, atol=tight)


def test_what_is_remembered_is_that_of_the_optimizer() -> None:
    network, objective = parts()
    plan = replace(PLANS["adam"], batch_size=17)
    step = make_step(network, objective, plan, workers=Threads(1).worker(0))
    shared = SharedStep(network, objective, plan, Threads(1).worker(0), lambda c: step)
    assert shared.state_dict().keys() == step.state_dict().keys()
