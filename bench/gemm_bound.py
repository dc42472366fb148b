"""The least time that the matrix products of a training step or of `transform` can take here.

Every product is timed alone, in every memory layout of its three matrices, in each library at
hand and with one thread and all of them; the fastest way counts. No step can be faster with these
libraries, and none can reach it: real steps move data between products and do more than multiply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from threadpoolctl import threadpool_limits

Call = Callable[[], object]
_BLOCK_SECONDS = 0.004


@dataclass(frozen=True)
class Product:
    """`(m, k) @ (k, n)`: one shape that a step needs."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


@dataclass(frozen=True)
class Way:
    """How a product was fastest: library and layouts in words, threads, and the call."""

    words: str
    threads: int
    call: Call


def step_products(sizes: Sequence[int], batch: int, tied: bool) -> dict[Product, float]:
    """Return how often a training step of a symmetric stack needs each product.

    Going back through `decode` has the shape of `encode` and the other way round; the input needs
    no gradient. The gradient of a tied matrix is one product over twice the batch.
    """
    counts: dict[Product, float] = {}

    def add(product: Product, times: float) -> None:
        counts[product] = counts.get(product, 0) + times

    for level, (n_in, n_out) in enumerate(pairwise(sizes)):
        add(Product(batch, n_in, n_out), 2)
        add(Product(batch, n_out, n_in), 2 if level else 1)
        add(Product(n_out, 2 * batch, n_in) if tied else Product(n_out, batch, n_in), 2 - tied)
    return counts


def encode_products(sizes: Sequence[int], rows: int) -> dict[Product, float]:
    """Return the products that encode `rows` rows."""
    return {Product(rows, a, b): 1.0 for a, b in pairwise(sizes)}


class Bound:
    """Finds the fastest way of each product once, and times those ways when asked.

    Parameters
    ----------
    products : iterable of Product
    threads : int
        Most threads that a product may use.
    """

    def __init__(self, products: Iterator[Product] | Sequence[Product], threads: int) -> None:
        self.best: dict[Product, tuple[float, Way]] = {}
        for product in dict.fromkeys(products):
            timed = []
            for n in sorted({1, threads}):
                with threads_set(n):
                    timed += [(_seconds(way.call, 3), way) for way in _ways(product, n)]
            self.best[product] = min(timed, key=lambda pair: pair[0])

    def measure(self) -> dict[Product, float]:
        """Return the seconds of each product, its fastest way timed again."""
        result = {}
        for product, (_, way) in self.best.items():
            with threads_set(way.threads):
                result[product] = _seconds(way.call, 8)
        return result

    def words(self) -> list[dict[str, object]]:
        """Say how each product was fastest, and at which rate."""
        return [
            {
                "shape": [product.m, product.k, product.n],
                "way": way.words,
                "threads": way.threads,
                "gflops_per_second": round(product.flops / seconds / 1e9, 1),
            }
            for product, (seconds, way) in self.best.items()
        ]


def total(counts: dict[Product, float], seconds: dict[Product, float]) -> float:
    """Return the seconds of all products of a step."""
    return sum(times * seconds[product] for product, times in counts.items())


class threads_set:  # noqa: N801
    """Both libraries use `n` threads inside this context."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        self._limits = threadpool_limits(self.n, user_api="blas")
        torch.set_num_threads(self.n)

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()
        torch.set_num_threads(self._before)


def _ways(product: Product, threads: int) -> Iterator[Way]:
    m, k, n = product.m, product.k, product.n
    rng = np.random.default_rng(0)
    for layout in range(8):
        order = ["F" if layout >> bit & 1 else "C" for bit in range(3)]
        a = np.asarray(rng.random((m, k), dtype=np.float32), order=order[0])
        b = np.asarray(rng.random((k, n), dtype=np.float32), order=order[1])
        out = np.zeros((m, n), dtype=np.float32, order=order[2])
        words = "layouts " + "".join(order)
        yield Way(f"numpy, {words}", threads, _numpy_call(a, b, out))
        ta, tb, to = (torch.from_numpy(array) for array in (a, b, out))
        yield Way(f"torch.mm, {words}", threads, _torch_call(ta, tb, to))
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if onednn is not None and torch.backends.mkldnn.is_available():
        x, w = torch.rand(m, k), torch.rand(n, k)
        yield Way("oneDNN linear", threads, lambda: onednn(x, w, None, "none", [], ""))


def _numpy_call(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Call:
    return lambda: np.matmul(a, b, out=out)


def _torch_call(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Call:
    return lambda: torch.mm(a, b, out=out)


@torch.inference_mode()
def _seconds(call: Call, blocks: int) -> float:
    """Return the seconds of one call, in the fastest of several blocks of calls."""
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    times = max(1, int(_BLOCK_SECONDS / max(once, 1e-7)))
    fastest = once
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(times):
            call()
        fastest = min(fastest, (time.perf_counter() - start) / times)
    return fastest
