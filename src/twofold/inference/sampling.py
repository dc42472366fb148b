"""What was never observed: cells for the holes of a row, new rows, and where chance comes from."""

from __future__ import annotations

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


@torch.no_grad()
def sample(
    network: Network, objective: Objective, n_rows: int, generator: torch.Generator
) -> Array:
    """Draw new rows, `(n_rows, width)`: codes from their density, cells from their likelihoods."""
    parts = []
    most = min(_CHUNK_ROWS, network.rows_per_pass)
    for start in range(0, n_rows, most):
        code = network.bottleneck.sample(min(most, n_rows - start), generator)
        parts.append(objective.draw(network.decode(code), generator))
    return np.asarray(torch.cat(parts).cpu())
