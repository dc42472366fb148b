"""Applying a trained stack: chunk by chunk, without autograd, in the precision of the rows."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.sources import row_chunks
from twofold.data.table import Table
from twofold.errors import OptionError
from twofold.nn.cell_model import observed
from twofold.nn.native.stack import AppliedNetwork, applied
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.nn.threads import few_for, granted
from twofold.options import require_integer
from twofold.schema.schema import Schema
from twofold.schema.tensors import tensor

Array = NDArray[Any]
Function = Callable[[Network, Scorer, Tensor], Tensor]


def encode(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the codes: (batch, width) -> (batch, n_components)."""
    return network.encode(complete(network, scorer, x), seen=network.seen(x))[0]


def decode(network: Network, scorer: Scorer, code: Tensor) -> Tensor:
    """Return the expected inputs: (batch, n_components) -> (batch, width)."""
    return scorer.mean(network.decode(code))


def reconstruct(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the expected inputs given the rows' own codes: (batch, width) -> (batch, width)."""
    return decode(network, scorer, encode(network, scorer, x))


def log_density(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the rows' log-density in nats: (batch, width) -> (batch,)."""
    return row_log_prob(network, scorer, complete(network, scorer, x), x)


def row_log_prob(network: Network, scorer: Scorer, filled: Tensor, x: Tensor) -> Tensor:
    """Return the log-density of the observed cells of `x`; `filled` has no missing ones.

    (batch, width) twice -> (batch,). Of a variational network it is the evidence lower bound, with
    the same draws for every row.
    """
    path = network.path(filled, network.seen(x))
    code = network.bottleneck.code(path)
    return network.bottleneck.log_density(code, path, network.decode, scorer, x)


def importance_sampler(n_samples: int, generator: torch.Generator) -> Function:
    """Return the function that estimates rows' log-density by so many weighted draws of the code.

    It is a lower bound in the mean, and the tighter the more draws (Burda, Grosse and
    Salakhutdinov, 2016, "Importance Weighted Autoencoders", theorem 1).

    Raises
    ------
    OptionError
        If `n_samples` is less than 1, or, in the call, if the bottleneck is not variational.
    """
    require_integer("n_samples", n_samples)

    def estimate(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
        if not network.bottleneck.has_posterior:
            raise OptionError(
                "Expected a variational bottleneck, from whose posterior log_likelihood draws "
                "codes, got another. Fit with bottleneck='variational', or use score_samples."
            )
        path = network.path(complete(network, scorer, x), network.seen(x))
        total = torch.full_like(path[-1][:, 0], -math.inf)
        for code, ratio in network.bottleneck.draws(path, n_samples, generator):
            cells = scorer.log_prob(network.decode(code), x).sum(1)
            total = torch.logaddexp(total, cells + ratio)
        return total - math.log(n_samples)

    return estimate


def complete(network: Network, scorer: Scorer, x: Tensor, rounds: int | None = None) -> Tensor:
    """Impute missing inputs, which are NaN, from the observed inputs of the same row.

    Starting from the columns' centres, its reconstructions are put into the missing cells again and
    again, so that filled cells inform each other. Without `rounds` it is once less than `impute`
    does: then the reconstruction of the result holds the imputed cells.
    """
    filled, seen = observed(x)
    if seen is None:
        return x
    # Complete rows stay as they are, and cost nothing.
    rows = torch.nonzero(~seen.all(1)).squeeze(1)
    part, there = filled[rows], seen[rows]
    for _ in range(int(scorer.rounds) - 1 if rounds is None else rounds):
        # Steps of a sequence that are missing stay so to the encoder, whatever fills them.
        x_hat = decode(network, scorer, network.encode(part, seen=there)[0])
        part = torch.where(there, part, x_hat)
    return filled.index_copy(0, rows, part)


def apply(function: Function, network: Network, scorer: Scorer, x: Array) -> Array:
    """Run the rows `x`, as the network sees them or codes, through `function`."""
    return _in_chunks(function, network, scorer, lambda at: x[at], len(x), x.dtype)


def apply_to_table(
    function: Function,
    network: Network,
    scorer: Scorer,
    schema: Schema,
    table: Table,
    first_row: int = 0,
) -> Array:
    """Run a table through `function`; only one chunk of it is a matrix at a time.

    `first_row` is the number of its first row, for messages.
    """
    dtype = dtype_of(table)

    def matrix(at: slice) -> Array:
        return schema.to_matrix(table.slice(at), dtype, first_row=first_row + at.start)

    return _in_chunks(function, network, scorer, matrix, table.n_rows, dtype)


def in_dtype(network: Network, scorer: Scorer, dtype: torch.dtype) -> tuple[Network, Scorer]:
    """Return both in the precision `dtype`: as they are, or copies."""
    if next(network.parameters()).dtype == dtype:
        return network, scorer
    return deepcopy(network).to(dtype), deepcopy(scorer).to(dtype)


def _in_chunks(
    function: Function,
    network: Network,
    scorer: Scorer,
    rows: Callable[[slice], Array],
    n_rows: int,
    dtype: np.dtype[Any],
) -> Array:
    wanted = torch.float64 if dtype == np.float64 else torch.float32
    network, scorer = in_dtype(network, scorer, wanted)
    device = next(network.parameters()).device
    network = applied(network)
    chunks = list(row_chunks(n_rows, network.widest)) or [slice(0, 0)]
    results, is_first = list[Array](), threading.Lock()

    def run(at: slice) -> None:
        with torch.inference_mode():  # which is each thread's own
            found = function(network, scorer, tensor(rows(at)).to(device)).cpu().numpy()
        with is_first:
            if not results:
                results.append(np.empty((n_rows, *found.shape[1:]), dtype=dtype))
        results[0][at] = found

    # Threads that take a chunk each wait for none, and share what has one thread only: checks of
    # the cells, memory that is touched for the first time. Where codes are drawn the order counts.
    n_threads = min(len(chunks), granted()) if isinstance(network, AppliedNetwork) else 1
    if n_threads == 1:
        with few_for(network.work(n_rows)):
            for at in chunks:
                run(at)
    else:
        with few_for(0.0), ThreadPoolExecutor(n_threads) as threads:
            for _ in threads.map(run, chunks):
                pass
    return results[0]


def impute(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the rows with missing cells filled: (batch, width) -> (batch, width)."""
    return complete(network, scorer, x, int(scorer.rounds))


@torch.no_grad()
def variance_kept(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the share of the variance that the first 1, 2, ... components keep, `(k,)`."""
    filled = complete(network, scorer, x)
    seen = ~torch.isnan(x)
    code = network.encode(filled, seen=seen)[0]
    cells = torch.where(seen, x, 0.0).double()
    centre = cells.sum(0) / seen.sum(0).clamp_min(1)
    whole = (torch.where(seen, cells - centre, 0.0) ** 2).sum().clamp_min(1e-30)
    shares = []
    for k in range(1, network.n_components + 1):
        first = torch.cat([code[:, :k], torch.zeros_like(code[:, k:])], 1)
        x_hat = decode(network, scorer, first).double()
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
            f"Expected a device that this machine can compute on, got device={name!r} "
            f"({str(error).splitlines()[0].rstrip('.')}). Try 'cpu' or 'auto'."
        ) from error
    return device
