"""How active the components of a code are: what each one does over the rows of a table."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.table import Table
from twofold.errors import CollapsedCodeWarning
from twofold.inference import apply as inference
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.schema.schema import Schema

Array = NDArray[Any]
_LEAST_VARIANCE = 0.01  # of a posterior mean that follows the rows, where the prior's is 1
_LEAST_SHARE = 1e-3  # of the largest component, below which one counts as still


@dataclass(frozen=True)
class CodeStatistics:
    """What the components of a code do over some rows; arrays are `(n_components,)`.

    Attributes
    ----------
    mean, std : array
        Mean and standard deviation of the codes; of a variational network, of their means.
    active : array
        Share of the rows in which a component is active: larger in size than a thousandth of what
        the most active component is on average.
    kl : array or None
        Nats that a component of a variational code tells about a row, on average: its divergence
        from the prior. None for other codes.
    n_active : int
        Components that tell rows apart. Of a variational code those whose mean varies by more than
        0.01 (Burda, Grosse and Salakhutdinov, 2016, "Importance Weighted Autoencoders", section 5),
        of others those whose standard deviation exceeds a thousandth of the largest one.
    """

    mean: Array
    std: Array
    active: Array
    kl: Array | None
    n_active: int

    def to_frame(self) -> Any:
        """Return a pandas frame with one line per component."""
        import pandas

        columns = {"mean": self.mean, "std": self.std, "active": self.active}
        if self.kl is not None:
            columns["kl"] = self.kl
        return pandas.DataFrame(columns).rename_axis(index="component")


def of_table(network: Network, scorer: Scorer, schema: Schema, table: Table) -> CodeStatistics:
    """Return what the components do over the rows of a table."""
    return _statistics(
        network,
        inference.apply_to_table(_codes_and_divergences, network, scorer, schema, table),
    )


def warn_if_collapsed(network: Network, scorer: Scorer, x: Tensor) -> None:
    """Warn where a variational network has left its code unused on the rows `x`.

    Then the decoder makes the same of every row, since codes cost more nats than they save.
    """
    if not network.bottleneck.has_posterior:
        return
    with torch.inference_mode():
        found = _codes_and_divergences(network, scorer, x).double().cpu().numpy()
    if _statistics(network, found).n_active:
        return
    warnings.warn(
        "The code is not used: no component of it tells rows apart, and all rows are "
        "reconstructed alike. Its divergence from the prior costs more than it saves. Try a "
        "smaller beta, more epochs, or pretraining='pca'.",
        CollapsedCodeWarning,
        stacklevel=4,
    )


def _codes_and_divergences(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    """Return the codes, and of a variational one also each component's divergence."""
    filled = inference.complete(network, scorer, x)
    path = network.path(filled, network.seen(x))
    code, divergence = network.bottleneck.code(path), network.bottleneck.divergence(path)
    return code if divergence is None else torch.cat([code, divergence], 1)


def _statistics(network: Network, found: Array) -> CodeStatistics:
    k = network.n_components
    codes = found[:, :k].astype(np.float64)
    size, std = np.abs(codes), codes.std(axis=0)
    active = (size > _LEAST_SHARE * size.mean(axis=0).max()).mean(axis=0)
    kl = None
    if network.bottleneck.has_posterior:
        kl = found[:, k:].mean(axis=0, dtype=np.float64)
        telling = std**2 > _LEAST_VARIANCE
    else:
        telling = std > _LEAST_SHARE * std.max()
    return CodeStatistics(codes.mean(axis=0), std, active, kl, int(telling.sum()))
