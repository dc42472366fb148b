"""Launching the kernels of a step on a GPU all at once, from a recording.

A step on a small stack is some fifty kernels, and a GPU runs most of them in less time than it
takes to launch one from Python. A CUDA graph launches them together, on the very memory that they
were recorded with (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So whatever
differs from step to step has to be put where it was then, and the work must not wait for the GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_log = logging.getLogger(__name__)
_WARM_UP = 3  # runs in which libraries set themselves up, as many as PyTorch takes for this

# Graphs whose recording failed; after the first one nothing more is recorded. They are kept because
# PyTorch before 2.12 may leave the allocator asking them where memory goes (its pull request
# #180395), and asking a graph that is gone would crash.
_failed: list[object] = []


def can_record(device: torch.device) -> bool:
    """Tell whether work on this device can be recorded at all."""
    return device.type == "cuda"


class Recording:
    """One piece of work on a GPU: run as it stands at first, then recorded, then replayed.

    Parameters
    ----------
    device : torch.device
        One that `can_record`.
    """

    def __init__(self, device: torch.device) -> None:
        # Libraries keep memory per stream: what is recorded on a stream was warmed up on it.
        self._stream = torch.cuda.Stream(device)
        self._addresses: list[int] = []
        self._n_runs = 0
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def run(self, work: Callable[[], Tensor], movable: Sequence[Tensor]) -> Tensor:
        """Do the work and return what it returns, until the next run writes over it.

        Parameters
        ----------
        work : callable
            The same at every run. All its memory stays where it is.
        movable : sequence of Tensor
            But not theirs: whoever owns them may give them other memory, which calls for a new
            recording.
        """
        addresses = [tensor.data_ptr() for tensor in movable]
        if addresses != self._addresses:
            self._addresses, self._n_runs, self._recorded = addresses, 0, None
        if self._recorded is None and not _failed:
            if self._n_runs < _WARM_UP:
                self._n_runs += 1
                return self._warm_up(work)
            self._record(work)
        if self._recorded is None:
            return work()
        graph, result = self._recorded
        graph.replay()
        return result

    def _warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        result.record_stream(current)  # whoever reads it does so there
        return result

    def _record(self, work: Callable[[], Tensor]) -> None:
        graph = None
        try:
            graph = torch.cuda.CUDAGraph()
            # The outer context is for failures: after them the inner one stays on its stream.
            # "thread_local" lets other threads go on using the GPU meanwhile.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                result = work()
        except RuntimeError as error:
            _failed.append(graph)
            _log.warning("training goes on without CUDA graphs, and slower: %s", error)
        else:
            self._recorded = graph, result
