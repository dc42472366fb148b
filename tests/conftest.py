"""What every test relies on: one thread, Ctrl-C, no window, no user's folders, shared fixtures."""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
from collections.abc import Iterator

# Set before anything reads them, and so that subprocesses inherit them: matrix products on one
# thread give the same bits everywhere, and nothing is written to the user's own folders.
_SCRATCH = tempfile.TemporaryDirectory(prefix="twofold-tests-")
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "KERAS_BACKEND": "torch",
    "KERAS_HOME": os.path.join(_SCRATCH.name, "keras"),
    "HYPOTHESIS_STORAGE_DIRECTORY": os.path.join(_SCRATCH.name, "hypothesis"),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nothing listens where others reach it
    "RAY_worker_niceness": "0",  # or whatever else runs here starves its workers
    "TWOFOLD_CACHE": os.path.join(_SCRATCH.name, "cache"),
}
# Or each of dozens of subprocesses would compile the package's sources for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twofold import datasets
from twofold.errors import DatasetUnavailable
from twofold.nn.activations import Activation, register_activation
from twofold.nn.native import build, library
from twofold.registry import ACTIVATIONS, BOTTLENECKS, LIKELIHOODS

torch.set_num_threads(1)
# What a script starts in its background ignores Ctrl-C, and hands that on to its own processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # PyTorch, its exporter and scikit-learn leave millions of objects behind, which the collector
    # would pass over again and again: two fifths of the tests' time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


def pytest_unconfigure() -> None:
    _SCRATCH.cleanup()


def _random_states() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the state to watch
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().tolist()


@pytest.fixture(scope="session")
def compiled() -> None:
    """Compile the native library where it is missing or old; skip without a compiler."""
    if library.find("").library is None:
        try:
            build.compile_library()
        except build.NoCompilerError as error:
            pytest.skip(f"the native library cannot be compiled here: {error}")
        library.forget()
    found = library.find("")
    assert found.library is not None, found.reason


@pytest.fixture(scope="module")
def own_activation() -> Iterator[str]:
    """An activation that is there by its value alone."""
    register_activation("own", Activation(torch.atan))
    yield "own"
    ACTIVATIONS.remove("own")


@pytest.fixture
def untouched_random_state() -> Iterator[None]:
    """Fail a test that moves Python's, numpy's or torch's global random state."""
    before = _random_states()
    yield
    names = ("random", "numpy.random", "torch")
    moved = [n for n, a, b in zip(names, before, _random_states(), strict=True) if a != b]
    assert not moved, f"the global random state of {', '.join(moved)} was touched"


@pytest.fixture(autouse=True, scope="module")
def same_registries() -> Iterator[None]:
    """Take away what the tests of a module have registered, so that others know nothing of it."""
    registries = ACTIVATIONS, BOTTLENECKS, LIKELIHOODS
    before = [set(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry) - names:
            registry.remove(name)


@pytest.fixture(scope="session")
def mnist() -> NDArray[np.float32]:
    """The first 5,000 training images of MNIST, flat: (5000, 784), from 0 to 1."""
    try:
        images = datasets.mnist(download=False)
    except DatasetUnavailable as error:
        pytest.skip(str(error))
    return images.train[:5000].reshape(5000, -1) / np.float32(255)
