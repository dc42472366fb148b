"""How many threads to compute with: no more than the machine grants, and fewer under load.

A parallel product waits for its slowest thread. Where another process takes one of two cores, each
of thousands of small products waits for a core that is busy elsewhere, and training with two
threads becomes many times slower than with one. So the count starts at what affinity and quota
grant, and is measured against a single thread again and again.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Self

import joblib
import torch
from threadpoolctl import threadpool_limits

_STRETCH_STEPS, _STRETCH_SECONDS = 16, 0.05  # of a measurement, whichever is less
_TRIAL_SECONDS = 0.004  # of steps at once with a count on trial, which may turn out 50 times slower
_STRETCHES = 3  # measurements whose median counts: one that an interrupt hit says nothing
_SOONEST, _LATEST = 0.5, 16.0  # seconds between two looks at the other count, longer as it loses
_WORTH_IT = 1.05  # the other count has to win by this much, or noise would flip the choice
_SMALL_STEP = 3e6  # multiplications per step below which a second thread costs more than it gives
_SMALL_WORK = 3e7  # multiplications that one thread does within a few milliseconds


def granted() -> int:
    """Return how many threads this process may keep busy.

    The least of PyTorch's own setting, the processors the process may run on, and the quota of its
    control group, rounded up; the last two are joblib's.
    """
    n_processors: int = joblib.cpu_count()
    return max(1, min(torch.get_num_threads(), n_processors))


def same_bits(shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, n_threads: int) -> bool:
    """Whether products of these shapes (rows, inner, columns) have the same bits with one thread.

    Only then may the count change while training without changing the result.
    """
    generator = torch.Generator().manual_seed(0)
    made: list[list[torch.Tensor]] = []
    factors = [
        (
            torch.randn(m, k, generator=generator, dtype=dtype),
            torch.randn(n, k, generator=generator, dtype=dtype),
        )
        for m, k, n in shapes
    ]
    before = torch.get_num_threads()
    try:
        for count in (1, n_threads):
            torch.set_num_threads(count)
            products = []
            for x, w in factors:
                h = x @ w.t()
                products += [h, h @ w, torch.cat([h, h]).t() @ torch.cat([x, x]), h.sum(0)]
            made.append(products)
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(a, b) for a, b in zip(*made, strict=True))


class _FewFor:
    """Compute with one thread where the largest product has few multiplications, `work`.

    On a busy machine each of many small operations would wait for a thread that has no core. With
    `libraries` that holds for those of linear algebra too, which takes some milliseconds to settle.

    PyTorch gives each thread of Python a count of its own, and a new one the last count that was
    set anywhere. The usual count is the one found when no other computation is here.
    """

    def __init__(self) -> None:
        self._lock, self._here = threading.Lock(), threading.local()
        self._callers, self._usual = 0, 1

    @contextmanager
    def __call__(self, work: float, libraries: bool = False) -> Iterator[None]:
        if work > _SMALL_WORK or getattr(self._here, "few", False):
            yield
            return
        with self._lock:
            if not self._callers:
                self._usual = torch.get_num_threads()
            self._callers += 1
            torch.set_num_threads(1)
        self._here.few = True
        try:
            with threadpool_limits(1) if libraries else nullcontext():
                yield
        finally:
            self._here.few = False
            with self._lock:
                self._callers -= 1
                torch.set_num_threads(self._usual)


few_for = _FewFor()


class Threads:
    """Set the thread count for a run of steps, and follow the load of the machine.

    Parameters
    ----------
    shapes : sequence of (rows, inner, columns)
        The products of one step. They decide whether threads pay at all, and whether the count may
        change on the way: where that would change bits, it stays what the shapes say.
    like : Tensor
        What the products are made of: its precision and device. Nothing is done where that is no
        processor of this machine.
    complete : bool
        The shapes are all of a step that bits depend on. Otherwise the count stays what they say.
    own : bool
        The step has kernels of its own, whose bits never depend on the count.

    Use it as a context manager around steps, and call `after_steps` after them.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        like: torch.Tensor,
        complete: bool = True,
        own: bool = False,
    ) -> None:
        self._most = granted() if like.device.type == "cpu" else 1
        work = 3 * sum(m * k * n for m, k, n in shapes)
        pays = self._most > 1 and work > _SMALL_STEP
        self._adaptive = pays and complete and (own or same_bits(shapes, like.dtype, self._most))
        # One thread is never a disaster, so that is what the search starts from.
        self.count = self._most if pays and not self._adaptive else 1
        self._clock = _Clock()
        self._rival: int | None = None
        self._paces: list[float] = []  # seconds per step in the latest stretches
        self._pace = math.inf  # their median, with the present count
        self._wait, self._next_trial = _SOONEST, 0.0

    def __enter__(self) -> Self:
        self._before = torch.get_num_threads()
        # A trial may have been cut by the end of an epoch; it goes on with the count on trial.
        torch.set_num_threads(self._rival or self.count)
        self._clock.restart()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._before)

    def most_steps(self, n: int) -> int:
        """Return how many of `n` steps may be taken at once: few while a count is measured."""
        if not self._adaptive:
            return n
        if self._rival is not None:
            return min(n, max(1, int(_TRIAL_SECONDS / max(self._pace, 1e-9))))
        return n if len(self._paces) == _STRETCHES else min(n, _STRETCH_STEPS)

    def after_steps(self, n: int = 1) -> None:
        """Take note of finished steps, and change the count where the other one is faster."""
        if not self._adaptive:
            return
        self._clock.steps += n
        if self._rival is not None:
            self._judge()
        elif self._clock.is_stretch():
            self._look_around()

    def _look_around(self) -> None:
        before, now = self._pace, time.perf_counter()
        self._paces = [*self._paces[1 - _STRETCHES :], self._clock.pace()]
        self._pace = statistics.median(self._paces)
        self._clock.restart()
        # A slump with several threads calls for a look at once.
        slump = self.count > 1 and self._pace > 1.5 * before
        if len(self._paces) == _STRETCHES and (now >= self._next_trial or slump):
            self._rival, self._paces = 1 if self.count > 1 else self._most, []
            torch.set_num_threads(self._rival)

    def _judge(self) -> None:
        steps = self._clock.steps
        # Cut short where it is hopeless: a single step on a busy machine may take as long as 50.
        hopeless = self._clock.elapsed() > self._pace * (1.2 * steps + _STRETCH_STEPS)
        if not hopeless and not self._clock.is_stretch():
            return
        self._paces.append(self._clock.pace())
        self._clock.restart()
        if not hopeless and len(self._paces) < _STRETCHES:
            return
        assert self._rival is not None
        pace = statistics.median(self._paces)
        if not hopeless and pace * _WORTH_IT < self._pace:
            self.count, self._pace, self._wait = self._rival, pace, _SOONEST
        else:
            self._wait = min(_LATEST, 2 * self._wait)
        torch.set_num_threads(self.count)
        self._rival, self._paces = None, []
        self._next_trial = time.perf_counter() + self._wait


class _Clock:
    """Seconds and steps since the last restart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.steps, self._start = 0, time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def is_stretch(self) -> bool:
        """Whether this has gone on for as long as a measurement takes."""
        return self.steps >= _STRETCH_STEPS or self.elapsed() >= _STRETCH_SECONDS

    def pace(self) -> float:
        return self.elapsed() / max(1, self.steps)
