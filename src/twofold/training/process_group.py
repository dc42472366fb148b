"""Workers that train one network together: each takes its part of every batch, all take one step.

A worker is a process with the same network. After its part of a batch it hands over its gradient,
and gets the mean over all rows of the batch, so that all workers make the same update: with N
workers training is what it is with one, to rounding (Dean et al., 2012, "Large Scale Distributed
Deep Networks", with every update synchronous).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Message = dict[str, Any]  # what a worker tells whoever waits for it: plain data


@dataclass(frozen=True)
class Job:
    """What every worker is told: whom to train, on which rows, and where to keep what.

    `rows` and `validation` are what `Autoencoder.fit` takes; the model goes to the folder `output`.
    """

    options: Mapping[str, Any]
    rows: Any
    validation: Any
    folder: Path
    seconds: float
    output: Path


class Team:
    """The workers of PyTorch's default process group, as one of them sees it.

    Attributes
    ----------
    rank, size : int
        Which worker this is, counted from 0, and how many there are. The first one reports, writes
        checkpoints and finishes the model.
    chance : torch.Generator
        What this worker draws for itself, such as noise on its rows.
    stops : bool
        Whether any worker was asked to end, by the last mean that was taken.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.chance = torch.Generator()
        self.stops, self._wants_stop = False, False

    @property
    def leads(self) -> bool:
        """Whether this is the first worker."""
        return self.rank == 0

    def ask_to_stop(self) -> None:
        """Let all workers end after the next mean."""
        self._wants_stop = True

    def begin_epoch(self, order: Tensor, n_steps: int) -> None:
        """Draw from now on what no other worker draws, and what the same worker would draw again.

        `order` is the state of the chance that all workers share.
        """
        seed = hashlib.sha256(order.numpy().tobytes() + f"{n_steps} {self.rank}".encode())
        self.chance.manual_seed(int.from_bytes(seed.digest()[:4]))

    def mean(
        self, gradients: Sequence[Tensor], loss: Tensor, weight: Tensor | float
    ) -> tuple[list[Tensor], Tensor]:
        """Return the mean gradients and the mean loss of all workers, by their weights.

        All numbers travel as one vector: what takes time in a small network is not their number but
        how often workers wait for each other.
        """
        like = gradients[0]
        weight = torch.as_tensor(weight, dtype=like.dtype, device=like.device).reshape(1)
        parts = [*(g.reshape(-1) for g in gradients), loss.detach().reshape(1).to(like.dtype)]
        stop = weight.new_full((1,), float(self._wants_stop))
        flat = torch.cat([torch.cat(parts).mul_(weight), weight, stop])
        dist.all_reduce(flat)
        self.stops = bool(flat[-1] > 0)
        flat = flat[:-2].div_(flat[-2])
        sizes = [part.numel() for part in parts]
        *found, mean_loss = flat.split(sizes)
        shaped = [f.view_as(g) for f, g in zip(found, gradients, strict=True)]
        return shaped, mean_loss.reshape(())

    def total(self, numbers: Iterable[float]) -> list[float]:
        """Return the sums of these numbers over all workers: the same bits for each of them."""
        sums = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(number) for number in sums]

    def of_first(self, value: Any) -> Any:
        """Return what the first worker has, to every worker."""
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]


# A worker's part of a job: it is told the job and its team, and tells what there is to say.
Work = Callable[[Job, Team, Callable[[Message], None]], None]
