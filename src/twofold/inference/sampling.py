"""What was never observed: cells for the holes of a row, new rows, and where chance comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.errors import OptionError
from twofold.inference.apply import Function, complete, impute
from twofold.nn.network import Network
from twofold.nn.objective import Objective, observed

Array = NDArray[Any]
_CHUNK_ROWS = 4096


def random_state(seed: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return the generator that a seed stands for, or the generator itself.

    Raises
    ------
    OptionError
        Where the seed is out of the range that numpy takes.
    """
    if isinstance(seed, np.random.RandomState):
        return seed
    try:
        # Not scikit-learn's check_random_state: for None that one draws from numpy's global state.
        return np.random.RandomState(seed)
    except ValueError as error:
        raise OptionError(f"random_state={seed!r} is no seed. {error}.") from error


def torch_generator(rng: np.random.RandomState) -> torch.Generator:
    """Return a generator of torch that `rng` seeds."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def imputer(generator: torch.Generator | None = None) -> Function:
    """Return the function that fills a batch's holes: by best values, or by draws where given one.

    Draws follow a chain that goes from the row to its code and back to cells drawn from their
    likelihoods, which are put into the holes again and again; its stationary law is the one of the
    holes given the rest (Rezende, Mohamed and Wierstra, 2014, "Stochastic Backpropagation",
    appendix F). It is as long as the best values are refined, for it would run off where they do.
    """

    def fill(network: Network, objective: Objective, x: Tensor) -> Tensor:
        if generator is None:
            return impute(network, objective, x)
        _, seen = observed(x)
        if seen is None:
            return x
        filled = complete(network, objective, x)
        for _ in range(int(objective.rounds)):
            theta = network.decode(network.encode(filled, seen=seen)[0])
            filled = torch.where(seen, filled, objective.draw(theta, generator))
        return filled

    return fill


@torch.no_grad()
def code_moments(network: Network) -> tuple[Array, Array]:
    """Return each component's mean and standard deviation over training codes, or of the prior."""
    density = network.bottleneck.density
    if density is None:
        return np.zeros(network.n_components), np.ones(network.n_components)
    mean, spread = density.moments()
    return np.asarray(mean.cpu()), np.asarray(spread.cpu())


def interpolation(ends: Sequence[Array], steps: int) -> Array:
    """Return `steps` codes on the straight line from the first of two codes to the second.

    Raises
    ------
    OptionError
        If an end is not a single code, or `steps` is less than 2.
    """
    if steps < 2 or any(len(codes) != 1 for codes in ends):
        raise OptionError(
            f"Expected tables of one row each and at least 2 steps, got {len(ends[0])} and "
            f"{len(ends[1])} rows and steps={steps}."
        )
    way = np.linspace(0, 1, steps, dtype=ends[0].dtype)[:, None]
    return np.asarray((1 - way) * ends[0] + way * ends[1])


def traversal(
    network: Network, code: Array, component: int, steps: int, reach: float
) -> tuple[Array, Array]:
    """Return values of one component around its mean, and the code with each of them in its place.

    Raises
    ------
    OptionError
        If `code` is not a single one, it has no such component, or `steps` is less than 2.
    """
    if len(code) != 1 or steps < 2:
        raise OptionError(
            f"Expected a table of one row and at least 2 steps, got {len(code)} rows and "
            f"steps={steps}."
        )
    if not 0 <= component < code.shape[1]:
        raise OptionError(
            f"component must be an integer from 0 to {code.shape[1] - 1}, got {component}."
        )
    mean, spread = code_moments(network)
    values = mean[component] + reach * spread[component] * np.linspace(-1, 1, steps)
    moved = np.repeat(code, steps, axis=0)
    moved[:, component] = values
    return values.astype(code.dtype), moved


def sample(
    network: Network, objective: Objective, n_rows: int, generator: torch.Generator
) -> Array:
    """Draw new rows, `(n_rows, width)`: codes from their density, cells from their likelihoods."""
    return np.concatenate(list(batches(network, objective, n_rows, generator)))


def batches(
    network: Network, objective: Objective, n_rows: int, generator: torch.Generator
) -> Iterator[Array]:
    """Draw new rows some at a time, as `sample` does.

    Raises
    ------
    OptionError
        If `n_rows` is less than 1.
    """
    if n_rows < 1:
        raise OptionError(f"n must be an integer of at least 1, got {n_rows}.")
    most = min(_CHUNK_ROWS, network.rows_per_pass)
    for start in range(0, n_rows, most):
        with torch.no_grad():
            code = network.bottleneck.sample(min(most, n_rows - start), generator)
            drawn = objective.draw(network.decode(code), generator)
        yield np.asarray(drawn.cpu())
