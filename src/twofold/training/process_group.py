"""Processes that train one network together, by synchronous data parallelism.

Each worker is a process with the same network. It computes the gradient of its part of a batch, and
an all-reduce gives every worker the mean over all rows of the batch, so that all of them make the
same update: with N workers training is what it is with one, to rounding (Dean et al., 2012, "Large
Scale Distributed Deep Networks", with every update synchronous).

A process that trains alone has a `SingleProcess`, so that training never asks whether there are
other workers. `using` makes a group the one that `current_workers` returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

# The variables that say by which network interface gloo and NCCL find the other workers.
INTERFACE = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
Value = TypeVar("Value")
Count = Callable[[], int | float | Tensor]


@dataclass(frozen=True)
class SingleProcess:
    """A group of one: every exchange gives back what it was given.

    Attributes
    ----------
    rank, size : int
        Which worker this is, counted from 0, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker reports, writes checkpoints and finishes the model."""
        return True

    def generator(self, shared: torch.Generator) -> torch.Generator:
        """Return the generator of what a worker draws for its own rows, such as noise."""
        return shared

    def begin_epoch(self, order: Tensor, n_steps: int) -> None:
        """Reseed the worker's own generator from the state of the shared one."""

    def broadcast(self, value: Value) -> Value:
        """Return the main worker's value."""
        return value

    def gather(self, value: Value) -> list[Value] | None:
        """Return the values of all workers to the main one, None to the others."""
        return [value]

    def synchronize(self, *modules: nn.Module) -> None:
        """Give the modules the main worker's weights."""

    def synchronize_random_state(self, rng: np.random.RandomState) -> None:
        """Give the generator the main worker's state."""

    def all_reduce_mean(
        self, gradients: list[Tensor], loss: Tensor, count: Count
    ) -> tuple[list[Tensor], Tensor]:
        """Return the mean of gradients and losses over all workers, weighted by their counts."""
        return gradients, loss

    def all_reduce_sum(self, numbers: Iterable[float]) -> list[float]:
        """Return the sums of these numbers over all workers: the same bits for each of them."""
        return list(numbers)

    def should_stop(self, requested: bool) -> bool:
        """Whether all workers are to stop now; `requested` says whether this one was asked to."""
        return requested


class WorkerGroup:
    """The workers of PyTorch's default process group, as one of them sees it.

    Methods that `SingleProcess` has too are documented there.

    Attributes
    ----------
    rank, size : int
        Which worker this is, counted from 0, and how many there are.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._own = torch.Generator()
        self._stops, self._stop_requested = False, False

    @property
    def is_main(self) -> bool:
        """Whether this worker reports, writes checkpoints and finishes the model."""
        return self.rank == 0

    def generator(self, shared: torch.Generator) -> torch.Generator:
        """Return a generator of this worker's own, which `begin_epoch` seeds."""
        return self._own

    def begin_epoch(self, order: Tensor, n_steps: int) -> None:
        """Seed the worker's own generator: unlike those of others, and the same in a resumed run.

        `order` is the state of the generator that all workers share.
        """
        seed = hashlib.sha256(order.numpy().tobytes() + f"{n_steps} {self.rank}".encode())
        self._own.manual_seed(int.from_bytes(seed.digest()[:4]))

    def broadcast(self, value: Value) -> Value:
        """Return the main worker's value, to every worker."""
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Value) -> list[Value] | None:
        """Return the values of all workers to the main one, None to the others."""
        held: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, held)
        return held

    def synchronize(self, *modules: nn.Module) -> None:
        """Give the modules the main worker's weights: sums in another order differ by rounding."""
        for module in modules:
            # From the CPU: a worker that reads another one's GPU would take memory there.
            held = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
            module.load_state_dict(self.broadcast(held))

    def synchronize_random_state(self, rng: np.random.RandomState) -> None:
        """Give the generator the main worker's state."""
        rng.set_state(self.broadcast(rng.get_state()))

    def all_reduce_mean(
        self, gradients: Sequence[Tensor], loss: Tensor, count: Count
    ) -> tuple[list[Tensor], Tensor]:
        """Return the mean of gradients and losses over all workers, weighted by their counts.

        All numbers travel as one vector: what takes time in a small network is not their number but
        how often workers wait for each other. Requests to stop travel with them.
        """
        like = gradients[0]
        weight = torch.as_tensor(count(), dtype=like.dtype, device=like.device).reshape(1)
        parts = [*(g.reshape(-1) for g in gradients), loss.detach().reshape(1).to(like.dtype)]
        stop = weight.new_full((1,), float(self._stop_requested))
        flat = torch.cat([torch.cat(parts).mul_(weight), weight, stop])
        dist.all_reduce(flat)
        self._stops = bool(flat[-1] > 0)
        flat = flat[:-2].div_(flat[-2])
        *found, mean_loss = flat.split([part.numel() for part in parts])
        shaped = [f.view_as(g) for f, g in zip(found, gradients, strict=True)]
        return shaped, mean_loss.reshape(())

    def all_reduce_sum(self, numbers: Iterable[float]) -> list[float]:
        """Return the sums of these numbers over all workers: the same bits for each of them."""
        sums = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(number) for number in sums]

    def request_stop(self) -> None:
        """Ask all workers to stop after the next update."""
        self._stop_requested = True

    def should_stop(self, requested: bool) -> bool:
        """Whether all workers are to stop now: all after the same update, or none could go on."""
        self._stop_requested = self._stop_requested or requested
        # Alone, it exchanges nothing with which a request could travel.
        return self._stops or (self.size == 1 and self._stop_requested)


Workers = SingleProcess | WorkerGroup


def take_gpu(number: int, n_here: int, device: str = "auto") -> str:
    """Take a GPU for a machine's worker of this number, out of so many, and return the backend.

    Without GPUs, or with a device that is named, none is taken. NCCL wants a GPU for each worker;
    where they share one, gradients travel by gloo, as they do between CPUs.
    """
    n_gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if not n_gpus:
        return "gloo"
    torch.cuda.set_device(number % n_gpus)
    return "cpu:gloo,cuda:nccl" if n_here <= n_gpus else "gloo"


_current: ContextVar[Workers] = ContextVar("twofold.workers", default=SingleProcess())  # noqa: B039


def current_workers() -> Workers:
    """Return the workers that training in this context uses."""
    return _current.get()


@contextmanager
def using(workers: Workers) -> Iterator[Workers]:
    """Train with these workers in the body: `with using(workers): ae.fit(X)`."""
    token = _current.set(workers)
    try:
        yield workers
    finally:
        _current.reset(token)
