"""The thread count: what the machine grants, and what the clock says."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from twofold import Autoencoder
from twofold.nn import row_density, threads
from twofold.nn.threads import Threads, few_for, granted, same_bits

SHAPES = [(64, 784, 392), (64, 392, 196)]
LIKE = torch.zeros(1)


@pytest.fixture
def two_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "granted", lambda: 2)


class Machine:
    """A pretended machine: each step takes what the present thread count costs on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: dict[int, float]) -> None:
        self.now, self.costs, self.count = 0.0, costs, 1
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(threads.torch, "set_num_threads", self._set)
        monkeypatch.setattr(threads.torch, "get_num_threads", lambda: self.count)
        monkeypatch.setattr(threads, "same_bits", lambda *_: True)

    def _set(self, count: int) -> None:
        self.count = count

    def run(self, crew: Threads, seconds: float, at_once: int = 1) -> float:
        """Work for some seconds; return the mean seconds per step."""
        start, steps = self.now, 0
        while self.now - start < seconds:
            n = crew.most_steps(at_once)
            self.now += n * self.costs[self.count]
            steps += n
            crew.after_steps(n)
        return (self.now - start) / steps


def test_never_more_than_pytorch_was_told() -> None:
    assert granted() <= torch.get_num_threads()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_never_more_than_the_processors_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert granted() == 1


def test_bits_with_one_thread_are_bits_with_one_thread() -> None:
    assert same_bits([(8, 6, 4)], torch.float32, 1)


def test_measuring_bits_leaves_the_count_alone() -> None:
    before = torch.get_num_threads()
    same_bits([(8, 6, 4)], torch.float64, 2)
    assert torch.get_num_threads() == before


def test_the_count_is_put_back(two_granted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 0.002, 2: 0.001})
    machine.count = 2
    with Threads(SHAPES, LIKE) as crew:
        machine.run(crew, 1.0)
    assert machine.count == 2


def test_small_products_get_one_thread(two_granted: None) -> None:
    assert Threads([(32, 10, 5)], LIKE).count == 1


def test_where_bits_would_change_the_count_stays(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 0.001, 2: 1.0})
    monkeypatch.setattr(threads, "same_bits", lambda *_: False)
    with Threads(SHAPES, LIKE) as crew:
        machine.run(crew, 10.0)
        assert machine.count == crew.count == 2


def test_a_second_thread_is_taken_where_it_pays(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 0.002, 2: 0.0012})
    with Threads(SHAPES, LIKE) as crew:
        assert machine.run(crew, 10.0) < 1.03 * 0.0012


def test_a_busy_machine_costs_a_few_percent(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 0.002, 2: 0.100})
    with Threads(SHAPES, LIKE) as crew:
        assert machine.run(crew, 60.0) < 1.05 * 0.002


@pytest.mark.parametrize("step", [0.0006, 0.02])
def test_steps_that_are_taken_many_at_a_time_are_few_on_trial(
    two_granted: None, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    machine = Machine(monkeypatch, {1: step, 2: 50 * step})
    with Threads(SHAPES, LIKE, own=True) as crew:
        machine.run(crew, 47 * step, at_once=50)
        assert machine.count == 2  # on trial
        before = machine.now
        machine.run(crew, 1e-9, at_once=50)
        assert machine.now - before <= max(50 * 0.004, 50 * step) * 1.001
        assert machine.count == 1  # hopeless


def test_a_second_thread_that_pays_is_taken_for_short_steps_too(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 4e-5, 2: 2.5e-5})
    with Threads(SHAPES, LIKE, own=True) as crew:
        machine.run(crew, 0.02, at_once=50)
        assert crew.count == 2


def test_load_that_comes_and_goes_is_followed(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 0.002, 2: 0.0012})
    with Threads(SHAPES, LIKE) as crew:
        machine.run(crew, 5.0)
        machine.costs = {1: 0.002, 2: 0.050}
        machine.run(crew, 2.0)
        assert crew.count == 1
        machine.costs = {1: 0.002, 2: 0.0012}
        machine.run(crew, 40.0)
        assert crew.count == 2


def test_a_trial_cut_by_the_end_of_an_epoch_measures_the_count_on_trial(
    two_granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {1: 0.002, 2: 0.0012})
    crew = Threads(SHAPES, LIKE)
    with crew:
        while crew._rival is None:
            machine.run(crew, 0.001)
    with crew:
        assert machine.count == crew._rival == 2


@pytest.fixture
def two_set() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_set")
def test_small_products_get_one_thread_and_large_ones_what_there_is() -> None:
    with few_for(1e3):
        assert torch.get_num_threads() == 1
        with few_for(1e3):
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with few_for(1e10):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), few_for(1e3):
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_set")
def test_callers_at_the_same_time_leave_the_count_as_it_was() -> None:
    inside, others = threading.Barrier(5), 4
    left: list[int] = []

    def call(first_out: bool) -> None:
        with few_for(1e3):
            inside.wait(20)
            if not first_out:
                inside.wait(20)
        if first_out:
            inside.wait(20)
        left.append(torch.get_num_threads())

    callers = [threading.Thread(target=call, args=(number == 0,)) for number in range(others)]
    for caller in callers:
        caller.start()
    inside.wait(20)
    inside.wait(20)
    for caller in callers:
        caller.join(20)
    assert left == [2] * others
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == 2


@pytest.mark.usefixtures("two_set")
def test_what_a_small_table_needs_after_training_waits_for_no_second_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, set[int]]] = []
    fit = row_density.RowDensity.fit

    def watched(*given: Any) -> None:
        seen.append((torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}))
        fit(*given)

    monkeypatch.setattr(row_density.RowDensity, "fit", watched)
    rows = np.random.default_rng(0).normal(size=(60, 4))
    Autoencoder(n_components=2, random_state=0).partial_fit(rows)
    assert seen == [(1, {1})]
    assert torch.get_num_threads() == 2
