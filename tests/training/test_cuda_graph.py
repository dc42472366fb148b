"""Recorded steps: what they learn, when they are recorded, and what happens where that fails.

No GPU is needed: one is played on the CPU. What runs while it records is noted and undone, as a GPU
would not have run it, and a replay does the same to the same tensors once more.
"""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.test_fused import BATCHES, PLANS, assert_equal_networks, parts, rows
from twofold.training import cuda_graph, fused
from twofold.training.config import TrainingConfig
from twofold.training.cuda_graph import Recording, can_record
from twofold.training.fused import FusedStep

CPU = torch.device("cpu")


def tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Graph:
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.n_replays = 0

    def replay(self) -> None:
        self.n_replays += 1
        for function, args, kwargs, results in self.calls:
            again = function(*args, **kwargs)
            for result, new in zip(tensors(results), tensors(again), strict=True):
                if result.data_ptr() != new.data_ptr():  # neither a view nor written in place
                    result.copy_(new)


class Capture(TorchDispatchMode):
    """Notes what is called, and at the end undoes what it wrote."""

    def __init__(self, graph: Graph, breaks: bool) -> None:
        super().__init__()
        self.graph, self.breaks = graph, breaks
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self.breaks and len(self.graph.calls) == 5:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
        given |= kwargs or {}
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors(given[argument.name]):
                    storage = tensor.untyped_storage()
                    self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        results = func(*args, **(kwargs or {}))
        self.graph.calls.append((func, args, kwargs or {}, results))
        return results

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for storage, content in self.before.values():
            storage.copy_(content)


class Stream:
    def __init__(self, gpu: Gpu, name: str) -> None:
        self.gpu, self.name, self.device = gpu, name, CPU

    def wait_stream(self, other: Stream) -> None:
        self.gpu.log.append(f"{self.name} waits for {other.name}")


class Gpu:
    """Stands for `torch.cuda`; `breaks_at` is "begin", "work" or "end" of a recording."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.graphs: list[Graph] = []
        self.breaks_at = ""
        self.n_warm_ups = 0
        self.current = self.main = Stream(self, "main")
        patch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "side"))
        patch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", self.capture)
        patch.setattr(Tensor, "record_stream", self.note_warm_up)
        patch.setattr(fused, "can_record", lambda device: True)
        patch.setattr(cuda_graph, "_failed", [])

    def note_warm_up(self, stream: Stream) -> None:
        assert stream is self.main
        self.n_warm_ups += 1

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        if self.breaks_at == "begin":
            raise RuntimeError("no memory")
        before, self.current = self.current, stream
        with Capture(graph, self.breaks_at == "work"):
            yield
        if self.breaks_at == "end":  # the stream stays, as PyTorch's does
            raise RuntimeError("nothing was recorded")
        self.current = before
        self.graphs.append(graph)

    @property
    def n_replays(self) -> list[int]:
        return [graph.n_replays for graph in self.graphs]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


class Counter:
    """Work that adds 1 to its memory and returns ten times that."""

    def __init__(self) -> None:
        self.memory, self.n_calls = torch.zeros(()), 0

    def __call__(self) -> Tensor:
        self.n_calls += 1
        return self.memory.add_(1) * 10


def test_only_work_on_a_gpu_can_be_recorded() -> None:
    assert [can_record(torch.device(name)) for name in ("cpu", "cuda:1", "meta")] == [
        False,
        True,
        False,
    ]


def test_every_run_does_the_work_once(gpu: Gpu) -> None:
    recording, work = Recording(CPU), Counter()
    found = [float(recording.run(work, [])) for _ in range(7)]
    assert found == [10, 20, 30, 40, 50, 60, 70]


def test_work_is_warmed_up_recorded_once_and_then_replayed(gpu: Gpu) -> None:
    recording, work = Recording(CPU), Counter()
    for _ in range(7):
        recording.run(work, [])
    assert (gpu.n_warm_ups, work.n_calls, gpu.n_replays) == (3, 4, [4])


def test_a_replay_writes_over_the_last_result(gpu: Gpu) -> None:
    recording, work = Recording(CPU), Counter()
    results = [recording.run(work, []) for _ in range(6)]
    assert results[-1] is results[-2]


def test_the_streams_wait_for_each_other_around_a_warm_up(gpu: Gpu) -> None:
    recording = Recording(CPU)
    recording.run(lambda: gpu.log.append(f"on {gpu.current.name}") or torch.zeros(()), [])
    assert gpu.log == ["side waits for main", "on side", "main waits for side"]


def test_memory_that_moved_is_recorded_anew(gpu: Gpu) -> None:
    recording, work, weight = Recording(CPU), Counter(), torch.zeros(3)
    for _ in range(5):
        recording.run(work, [weight])
    weight.data = weight.data.clone()
    found = [float(recording.run(work, [weight])) for _ in range(5)]
    assert found == [60, 70, 80, 90, 100]
    assert gpu.n_replays == [2, 2]


def test_a_failure_is_told_once_and_not_tried_again(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.breaks_at = "begin"
    works = [Counter(), Counter()]
    with caplog.at_level(logging.WARNING):
        for work in works:
            recording = Recording(CPU)
            for _ in range(6):
                recording.run(work, [])
    assert [record.getMessage() for record in caplog.records] == [
        "training goes on without CUDA graphs, and slower: no memory"
    ]
    assert [work.n_calls for work in works] == [6, 6]


def test_what_is_recorded_already_outlives_the_failure_of_another(gpu: Gpu) -> None:
    recording, work = Recording(CPU), Counter()
    for _ in range(5):
        recording.run(work, [])
    gpu.breaks_at = "end"
    other = Recording(CPU)
    for _ in range(5):
        other.run(Counter(), [])
    recording.run(work, [])
    assert (work.n_calls, gpu.n_replays) == (4, [3])


def test_a_mistake_in_the_work_is_no_failure_to_record(gpu: Gpu) -> None:
    def work() -> Tensor:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        Recording(CPU).run(work, [])


def learn(plan: TrainingConfig, tied: bool = True) -> tuple[list[float], FusedStep]:
    """Take 30 steps at a rate that changes with every one."""
    dtype = torch.float32 if plan.bfloat16 else torch.float64
    net, objective = parts(tied=tied, dtype=dtype)
    step = FusedStep(net, objective, plan, capturable=True)
    return go_on(step), step


def go_on(step: FusedStep, n_steps: int = 30) -> list[float]:
    batches = rows(step.network.pairs[0].weight.dtype).split(BATCHES)
    rates = [0.02 * (1 + number % 4) for number in range(n_steps)]
    return [float(step.update(batches[i % 3], rate)) for i, rate in enumerate(rates)]


RECORDED = PLANS | {"bfloat16": replace(PLANS["adamw"], bfloat16=True)}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("plan", RECORDED.values(), ids=list(RECORDED))
def test_a_recorded_step_learns_what_the_step_does(
    plan: TrainingConfig, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, plain = learn(plan, tied)
    gpu = Gpu(monkeypatch)
    losses, step = learn(plan, tied)
    assert losses == expected
    assert_equal_networks(step.network, plain.network)
    assert gpu.n_replays == [17, 7]  # of 20 full batches and 10 smaller ones


@pytest.mark.parametrize("place", ["begin", "work", "end"])
def test_where_recording_fails_the_step_learns_all_the_same(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, plain = learn(PLANS["adam"])
    gpu = Gpu(monkeypatch)
    gpu.breaks_at = place
    losses, step = learn(PLANS["adam"])
    assert losses == expected
    assert_equal_networks(step.network, plain.network)
    assert (gpu.current, gpu.n_replays) == (gpu.main, [])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_a_recorded_step_records_its_own(
    copied: Callable[[FusedStep], FusedStep], gpu: Gpu
) -> None:
    _, step = learn(PLANS["adam"])
    twin = copied(step)
    assert go_on(twin) == go_on(step)
    assert_equal_networks(twin.network, step.network)
    assert gpu.n_replays == [17 + 20, 7 + 10, 17, 7]


def test_parameters_that_moved_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = learn(PLANS["momentum"])
    expected = go_on(plain)
    gpu = Gpu(monkeypatch)
    _, step = learn(PLANS["momentum"])
    for parameter in step.network.parameters():
        parameter.data = parameter.data.clone()
    assert go_on(step) == expected
    assert gpu.n_replays == [17, 7, 17, 7]


def test_weights_loaded_in_place_need_no_new_recording(gpu: Gpu) -> None:
    _, step = learn(PLANS["sgd"])
    start = copy.deepcopy(step.network.state_dict())
    losses = go_on(step)
    step.network.load_state_dict(start)
    assert go_on(step) == losses
    assert len(gpu.graphs) == 2


def test_a_cast_network_is_recorded_anew(gpu: Gpu) -> None:
    _, step = learn(PLANS["adam"])
    step.network.float()
    losses = go_on(step)
    assert losses[-3] < losses[0]
    assert gpu.n_replays == [17, 7, 17, 7]


@pytest.mark.parametrize("optimizer", PLANS)
def test_another_batch_size_leaves_recorded_memory_where_it_is(optimizer: str, gpu: Gpu) -> None:
    step = FusedStep(*parts(), PLANS[optimizer])
    step.buffer(8)

    def used() -> list[int]:
        rule = step._updates.optimizer
        memory = [rule.moments, step._updates._gradients, rule._n_updates, step._rate]
        return [tensor.data_ptr() for tensor in tensors([*memory, rule.parameters])]

    before = used()
    step.buffer(3)
    assert used() == before
