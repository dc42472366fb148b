"""A process that trains alone is a group of one, and a context says which group trains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from twofold.training.process_group import (
    SingleProcess,
    WorkerGroup,
    current_workers,
    take_gpu,
    using,
)


def test_every_exchange_of_a_single_process_gives_back_what_it_got() -> None:
    alone, generator = SingleProcess(), torch.Generator()
    gradients, loss = [torch.ones(2)], torch.tensor(3.0)
    assert alone.is_main
    assert alone.broadcast("value") == "value"
    assert alone.generator(generator) is generator
    assert alone.all_reduce_mean(gradients, loss, lambda: 5) == (gradients, loss)
    assert alone.all_reduce_sum([1.0, 2.0]) == [1.0, 2.0]
    assert [alone.should_stop(requested) for requested in (True, False)] == [True, False]


def test_a_single_process_leaves_weights_and_random_states_as_they_are() -> None:
    module, rng = nn.Linear(2, 2), np.random.RandomState(0)
    weights, state = module.weight.clone(), rng.get_state()[1].copy()
    SingleProcess().synchronize(module)
    SingleProcess().synchronize_random_state(rng)
    assert torch.equal(module.weight, weights)
    assert np.array_equal(rng.get_state()[1], state)


def test_workers_are_those_of_the_innermost_context() -> None:
    assert current_workers() == SingleProcess()
    second = SingleProcess(1, 3)
    with using(second) as given:
        assert current_workers() is given is second
    assert current_workers() == SingleProcess()


def test_a_group_ends_with_an_error_in_its_body() -> None:
    before = current_workers()
    with pytest.raises(KeyError), using(SingleProcess(0, 1)):
        raise KeyError
    assert current_workers() is before


@pytest.mark.parametrize(
    ("n_gpus", "n_here", "taken", "backend"),
    [
        (0, 2, [], "gloo"),
        (1, 1, [0], "cpu:gloo,cuda:nccl"),
        (2, 2, [0, 1], "cpu:gloo,cuda:nccl"),
        (2, 5, [0, 1, 0, 1, 0], "gloo"),
    ],
)
def test_workers_of_a_machine_take_its_gpus_in_turns(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int, n_here: int, taken: list[int], backend: str
) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    assert {take_gpu(number, n_here) for number in range(n_here)} == {backend}
    assert found == taken
    assert take_gpu(0, 1, "cpu") == "gloo"
    assert found == taken


@pytest.fixture
def group(tmp_path: Path) -> Iterator[WorkerGroup]:
    """PyTorch's default process group, with one worker."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(minutes=1))
    yield WorkerGroup()
    dist.destroy_process_group()


def other(rank: int) -> WorkerGroup:
    """A worker of the same group as another process sees it."""
    found = WorkerGroup()
    found.rank = rank
    return found


def draw(workers: WorkerGroup, order: torch.Tensor, n_steps: int) -> float:
    workers.begin_epoch(order, n_steps)
    return float(torch.rand((), generator=workers.generator(torch.Generator())))


def test_the_mean_of_one_worker_is_its_gradient(group: WorkerGroup) -> None:
    gradients, loss = [torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])], torch.tensor(4.0)
    found, mean_loss = group.all_reduce_mean(gradients, loss, lambda: 8)
    torch.testing.assert_close([*found, mean_loss], [*gradients, loss])


def test_a_request_to_stop_is_followed_after_the_next_update(group: WorkerGroup) -> None:
    group.size = 2
    before = group.should_stop(True)
    group.all_reduce_mean([torch.ones(2)], torch.tensor(1.0), lambda: 1)
    assert (before, group.should_stop(False)) == (False, True)


def test_a_worker_without_others_stops_at_once(group: WorkerGroup) -> None:
    assert not group.should_stop(False)
    group.request_stop()
    assert group.should_stop(False)


def test_workers_draw_different_noise(group: WorkerGroup) -> None:
    order = torch.Generator().manual_seed(1).get_state()
    assert draw(group, order, 3) != draw(other(1), order, 3)


def test_a_resumed_run_draws_the_same_noise(group: WorkerGroup) -> None:
    order = torch.Generator().manual_seed(1).get_state()
    assert draw(group, order, 3) == draw(other(0), order, 3)


def test_only_the_first_worker_reports(group: WorkerGroup) -> None:
    assert [group.is_main, other(1).is_main] == [True, False]
