"""Applying a trained stack: chunk by chunk, without autograd, in the precision of the rows."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data import row_chunks
from twofold.errors import OptionError
from twofold.network import Network
from twofold.objective import Objective
from twofold.schema import Schema, Table

Array = NDArray[Any]
Function = Callable[[Network, Objective, Tensor], Tensor]
_CALIBRATION_ROWS = 100_000  # enough to fit residual spreads and the density of the codes


def encode(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the codes: (batch, width) -> (batch, n_components)."""
    return network.encode(x)[0]


def decode(network: Network, objective: Objective, code: Tensor) -> Tensor:
    """Return the expected cells: (batch, n_components) -> (batch, width)."""
    return objective.mean(network.decode(code))


def reconstruct(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the expected cells given the rows' own codes: (batch, width) -> (batch, width)."""
    return decode(network, objective, encode(network, objective, x))


def log_density(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return log p(row given its code) + log p(code), in nats: (batch, width) -> (batch,)."""
    code = encode(network, objective, x)
    cells = objective.log_prob(network.decode(code), x)
    return cells.sum(1) + network.bottleneck.log_prob(code)


def apply(
    function: Function, network: Network, objective: Objective, x: Array, width: int
) -> Array:
    """Run the rows `x` through `function`; `width` is the result's, 0 for one number per row."""
    return _in_chunks(function, network, objective, lambda at: x[at], len(x), x.dtype, width)


def apply_to_table(
    function: Function,
    network: Network,
    objective: Objective,
    schema: Schema,
    table: Table,
    width: int,
) -> Array:
    """Run a table through `function`; only one chunk of it is a matrix at a time."""
    dtype = dtype_of(table)

    def matrix(at: slice) -> Array:
        part = Table(table.values[at], table.names, table.row_shape)
        return schema.to_matrix(part, dtype, first_row=at.start)

    return _in_chunks(function, network, objective, matrix, table.n_rows, dtype, width)


def _in_chunks(
    function: Function,
    network: Network,
    objective: Objective,
    rows: Callable[[slice], Array],
    n_rows: int,
    dtype: np.dtype[Any],
    width: int,
) -> Array:
    result = np.empty((n_rows, width) if width else n_rows, dtype=dtype)
    parameter = next(network.parameters())
    wanted = torch.float64 if dtype == np.float64 else torch.float32
    if parameter.dtype != wanted:
        network, objective = deepcopy(network).to(wanted), deepcopy(objective).to(wanted)
    with torch.inference_mode():
        for at in row_chunks(n_rows, network.width):
            x = tensor(rows(at)).to(parameter.device)
            result[at] = function(network, objective, x).cpu().numpy()
    return result


@torch.no_grad()
def calibrate(network: Network, objective: Objective, x: Tensor, rows: Tensor) -> None:
    """Fit what scores need after training: the residuals' spreads and the density of the codes.

    Both are fitted to the first of the training rows of `x`, which come in random order.
    """
    rows = rows[:_CALIBRATION_ROWS]
    codes, squares = [], torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part in rows.split(4096):
        cells = x[part.to(x.device)]
        code = encode(network, objective, cells)
        codes.append(code)
        residual = cells - decode(network, objective, code)
        squares += (residual**2).sum(0, dtype=torch.float64)
    objective.fit_scale(squares / len(rows))
    network.bottleneck.fit_density(torch.cat(codes))


def dtype_of(table: Table) -> np.dtype[Any]:
    """Return the precision to compute in: 64 bit for 64-bit rows, else 32."""
    return np.dtype(np.float64 if table.values.dtype == np.float64 else np.float32)


def tensor(array: Array) -> Tensor:
    """Return a tensor over the same memory where that may be written to, else over a copy."""
    # A read-only array (a memory map, a view of Arrow's buffers) cannot become a tensor as it is.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def find_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is a GPU where there is one.

    Raises
    ------
    OptionError
        Where this machine cannot compute on it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # a device may exist and yet hold no numbers
    except (RuntimeError, AssertionError) as error:
        raise OptionError(
            f"device={name!r} cannot be used here: {str(error).splitlines()[0].rstrip('.')}. Try "
            f"'cpu' or 'auto'."
        ) from error
    return device
