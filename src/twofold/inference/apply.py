"""Applying a trained stack: chunk by chunk, without autograd, in the precision of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.sources import row_chunks
from twofold.data.table import Table
from twofold.errors import OptionError
from twofold.nn.corruption import Masking
from twofold.nn.network import Network
from twofold.nn.objective import Objective, observed
from twofold.nn.threads import few_for
from twofold.schema.schema import Schema
from twofold.schema.tensors import Rows, tensor

Array = NDArray[Any]
Function = Callable[[Network, Objective, Tensor], Tensor]
_MOST_ROUNDS = 20  # of filling holes; after so many, further ones change little
_ROUND_ROWS, _ROUND_HOLES = 2_000, 0.2  # rows, and their share of cells, that rounds are tried on
_CALIBRATION_ROWS = 100_000  # enough to fit residual spreads and the density of the codes
_CALIBRATION_CELLS = 20_000_000  # as many inputs as may be held twice for that: 160 MB
_LEAST_ROWS = 2_000
_DENSITY_ROWS, _DENSITY_CELLS = 10_000, 4_000_000  # enough for clusters of a twentieth


def encode(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the codes: (batch, width) -> (batch, n_components)."""
    return network.encode(complete(network, objective, x), seen=network.seen(x))[0]


def decode(network: Network, objective: Objective, code: Tensor) -> Tensor:
    """Return the expected inputs: (batch, n_components) -> (batch, width)."""
    return objective.mean(network.decode(code))


def reconstruct(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the expected inputs given the rows' own codes: (batch, width) -> (batch, width)."""
    return decode(network, objective, encode(network, objective, x))


def log_density(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the rows' log-density in nats: (batch, width) -> (batch,)."""
    return row_log_prob(network, objective, complete(network, objective, x), x)


def row_log_prob(network: Network, objective: Objective, filled: Tensor, x: Tensor) -> Tensor:
    """Return the log-density of the cells there are in `x`, whose holes are filled in `filled`.

    (batch, width) twice -> (batch,). Of a variational network it is the evidence lower bound, with
    the same draws for every row.
    """
    path = network.path(filled, network.seen(x))
    code = network.bottleneck.code(path)
    return network.bottleneck.log_density(code, path, network.decode, objective, x)


def importance_sampler(n_samples: int, generator: torch.Generator) -> Function:
    """Return the function that estimates rows' log-density by so many weighted draws of the code.

    It is a lower bound in the mean, and the tighter the more draws (Burda, Grosse and
    Salakhutdinov, 2016, "Importance Weighted Autoencoders", theorem 1).

    Raises
    ------
    OptionError
        If `n_samples` is less than 1, or, in the call, if the bottleneck is not variational.
    """
    if n_samples < 1:
        raise OptionError(f"n_samples must be an integer of at least 1, got {n_samples}.")

    def estimate(network: Network, objective: Objective, x: Tensor) -> Tensor:
        if not network.bottleneck.has_posterior:
            raise OptionError(
                "log_likelihood draws codes from the encoder's posterior, which only a variational "
                "bottleneck has. Fit with bottleneck='variational', or use score_samples."
            )
        path = network.path(complete(network, objective, x), network.seen(x))
        total = torch.full_like(path[-1][:, 0], -math.inf)
        for code, ratio in network.bottleneck.draws(path, n_samples, generator):
            cells = objective.log_prob(network.decode(code), x).sum(1)
            total = torch.logaddexp(total, cells + ratio)
        return total - math.log(n_samples)

    return estimate


def complete(
    network: Network, objective: Objective, x: Tensor, rounds: int | None = None
) -> Tensor:
    """Fill missing inputs, which are NaN, by what the rest of their row lets expect.

    Starting from the columns' centres, reconstructions of the row are put into its holes again and
    again, so that filled cells inform each other. Without `rounds` it is once less than `impute`
    does: then the reconstruction of the result holds the imputed cells.
    """
    filled, seen = observed(x)
    if seen is None:
        return x
    # Rows without holes stay as they are, and cost nothing.
    rows = torch.nonzero(~seen.all(1)).squeeze(1)
    part, there = filled[rows], seen[rows]
    for _ in range(int(objective.rounds) - 1 if rounds is None else rounds):
        # Steps of a sequence that are missing stay so to the encoder, whatever fills them.
        x_hat = decode(network, objective, network.encode(part, seen=there)[0])
        part = torch.where(there, part, x_hat)
    return filled.index_copy(0, rows, part)


def apply(function: Function, network: Network, objective: Objective, x: Array) -> Array:
    """Run the rows `x`, as the network sees them or codes, through `function`."""
    return _in_chunks(function, network, objective, lambda at: x[at], len(x), x.dtype)


def apply_to_table(
    function: Function,
    network: Network,
    objective: Objective,
    schema: Schema,
    table: Table,
) -> Array:
    """Run a table through `function`; only one chunk of it is a matrix at a time."""
    dtype = dtype_of(table)

    def matrix(at: slice) -> Array:
        return schema.to_matrix(table.slice(at), dtype, first_row=at.start)

    return _in_chunks(function, network, objective, matrix, table.n_rows, dtype)


def in_dtype(
    network: Network, objective: Objective, dtype: torch.dtype
) -> tuple[Network, Objective]:
    """Return both in the precision `dtype`: as they are, or copies."""
    if next(network.parameters()).dtype == dtype:
        return network, objective
    return deepcopy(network).to(dtype), deepcopy(objective).to(dtype)


def _in_chunks(
    function: Function,
    network: Network,
    objective: Objective,
    rows: Callable[[slice], Array],
    n_rows: int,
    dtype: np.dtype[Any],
) -> Array:
    result: Array | None = None
    parameter = next(network.parameters())
    wanted = torch.float64 if dtype == np.float64 else torch.float32
    network, objective = in_dtype(network, objective, wanted)
    with torch.inference_mode(), few_for(network.work(n_rows)):
        for at in row_chunks(n_rows, network.widest) if n_rows else (slice(0, 0),):
            x = tensor(rows(at)).to(parameter.device)
            found = function(network, objective, x)
            if result is None:
                result = np.empty((n_rows, *found.shape[1:]), dtype=dtype)
            result[at] = found.cpu().numpy()
    assert result is not None
    return result


def impute(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the rows with their holes filled: (batch, width) -> (batch, width)."""
    return complete(network, objective, x, int(objective.rounds))


@torch.no_grad()
def _best_rounds(network: Network, objective: Objective, x: Tensor) -> int:
    """Return after how many rounds cells that are hidden from these rows are filled best.

    One round is best for a network that has learned from rows with holes. Others gain by more, but
    only as long as a step does not make errors larger, which feed the next step.
    """
    given = Masking(_ROUND_HOLES)(x, objective, torch.Generator().manual_seed(0))
    hidden = torch.isnan(given) & ~torch.isnan(x)
    part, seen = observed(given)
    least = math.inf
    for number in range(_MOST_ROUNDS):
        x_hat = decode(network, objective, network.encode(part, seen=seen)[0])
        error = float(((x_hat - x)[hidden] ** 2).mean())
        if not error < least:
            return max(number, 1)
        least, part = error, x_hat if seen is None else torch.where(seen, part, x_hat)
    return _MOST_ROUNDS


@torch.no_grad()
def calibrate(
    network: Network,
    objective: Objective,
    x: Rows,
    rows: Tensor,
    generator: torch.Generator | None = None,
) -> None:
    """Fit what is needed after training: spreads of cells, the densities of rows and of codes.

    Before, it is found how often holes are to be filled.

    They are fitted to the first of the training rows of `x`, which come in random order.
    """
    n = min(_CALIBRATION_ROWS, max(_LEAST_ROWS, _CALIBRATION_CELLS // network.width))
    objective.rounds.fill_(_best_rounds(network, objective, x[rows[:_ROUND_ROWS].to(x.device)]))
    codes, thetas, inputs = [], [], []
    for part in rows[:n].split(min(4096, network.rows_per_pass)):
        cells = x[part.to(x.device)]
        path = network.path(complete(network, objective, cells), network.seen(cells))
        codes.append(network.bottleneck.code(path))
        # What cells are explained from is what the decoder makes of a code as it is drawn.
        draws = network.bottleneck.draws(path, 1, torch.Generator().manual_seed(0))
        thetas.append(network.decode(next(draws)[0]))
        inputs.append(cells)
    theta, cells = torch.cat(thetas), torch.cat(inputs)
    objective.fit_spread(theta, cells)
    objective.fit_typical(theta, cells)
    few = max(_LEAST_ROWS, min(_DENSITY_ROWS, _DENSITY_CELLS // network.width))
    generator = generator or torch.Generator().manual_seed(0)
    objective.fit_density(theta[:few], cells[:few], generator)
    if network.bottleneck.density is not None:
        network.bottleneck.density.fit(torch.cat(codes))


@torch.no_grad()
def variance_kept(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the share of the variance that the first 1, 2, ... components keep, `(k,)`."""
    filled = complete(network, objective, x)
    seen = ~torch.isnan(x)
    code = network.encode(filled, seen=seen)[0]
    cells = torch.where(seen, x, 0.0).double()
    centre = cells.sum(0) / seen.sum(0).clamp_min(1)
    whole = (torch.where(seen, cells - centre, 0.0) ** 2).sum().clamp_min(1e-30)
    shares = []
    for k in range(1, network.n_components + 1):
        first = torch.cat([code[:, :k], torch.zeros_like(code[:, k:])], 1)
        x_hat = decode(network, objective, first).double()
        shares.append(1 - (torch.where(seen, cells - x_hat, 0.0) ** 2).sum() / whole)
    return torch.stack(shares)


def dtype_of(table: Table) -> np.dtype[Any]:
    """Return the precision to compute in: 64 bit for 64-bit numbers, else 32.

    Tables with text or times are 64-bit arrays for the sake of those columns alone.
    """
    types = set() if table.formats is None else {form.type for form in table.formats}
    wide = table.values.dtype == np.float64 and types <= {"number", "boolean"}
    return np.dtype(np.float64 if wide else np.float32)


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
