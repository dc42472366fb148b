"""What is settled on rows after training: densities, the threshold, and the comparison with PCA."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold import metrics
from twofold.data.table import Table
from twofold.inference import apply as inference
from twofold.inference.donors import fit_donors
from twofold.inference.level_pairs import LevelPairs
from twofold.inference.sampling import TrainingCells
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.schema.tensors import Rows

Array = NDArray[Any]
_ALPHA = 0.05  # contamination="auto": probability of flagging a normal row
_MOST_ROWS = 100_000  # rows enough for a threshold and a comparison
_MOST_SCORES = 4_000_000  # of rows that stay on disk: a share of 1 % is then true to 0.01 %
_CUT_CELLS = 200_000_000  # reconstructed cells, over all code sizes, that tell what components keep


@dataclass(frozen=True)
class Calibration:
    """What was settled on the held-out rows, or on training rows where none were held out.

    Attributes
    ----------
    pca : PCA
        The baseline of the same code size, fitted to the training rows.
    comparison : Comparison
        The network beside that baseline.
    offset : float
        Score below which a row is an anomaly, in nats.
    scores : array
        Scores of the rows, in order.
    explained_variance_ratio : array or None
        Share of the variance that each component of an ordered code adds.
    cells : TrainingCells
        What draws know of training cells.
    """

    pca: metrics.PCA
    comparison: metrics.Comparison
    offset: float
    scores: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64] | None
    cells: TrainingCells


def calibrate(
    network: Network,
    objective: Objective,
    schema: Schema,
    tables: Iterable[Table],
    sample: Table,
    x: Rows,
    train: Tensor,
    validation: Rows | None,
    *,
    donors: int,
    contamination: float | str,
    rng: np.random.RandomState,
    generator: torch.Generator,
) -> Calibration:
    """Fit what scores need, and settle the rest on held-out rows.

    `x` is what the network sees of the rows of `sample`, and `train` are the training rows'
    positions in it; `tables` hold all rows, and are used if a share of them is to be flagged.
    `donors` is how many training rows lend their cells to draws.
    """
    inference.calibrate(network, objective, x, train, generator)
    known = _training_cells(network, objective, schema, sample, x, train[:donors])
    few = train[:_MOST_ROWS]
    if isinstance(x, Tensor):
        matrix, used = x.cpu().numpy(), train.numpy()
    else:
        matrix, used = x[few].cpu().numpy(), None
    pca = metrics.fit_pca(matrix, network.n_components, rng, rows=used)
    held = x[few.to(x.device)] if validation is None else validation[:_MOST_ROWS]
    held_out = held.cpu().numpy()
    scores = inference.apply(inference.log_density, network, objective, held_out)
    if contamination == "auto":
        offset = metrics.conformal_offset(scores, _ALPHA)
    else:
        of_all = _scores(network, objective, schema, tables)
        offset = float(np.percentile(of_all, 100 * float(contamination)))
    ratio = None
    if network.bottleneck.is_ordered:
        n = max(2, _CUT_CELLS // (network.n_components * network.width))
        kept = inference.variance_kept(network, objective, held[:n]).cpu().numpy()
        if network.bottleneck.sizes is not None:
            # What a size that was not taught keeps tells nothing: it counts as the one below.
            taught = np.isin(np.arange(1, len(kept) + 1), network.bottleneck.sizes)
            kept = np.maximum.accumulate(np.where(taught, kept, 0.0))
        ratio = np.diff(kept, prepend=0.0)
    comparison = compare(network, objective, pca, held_out)
    ordered = np.sort(scores.astype(np.float64))
    return Calibration(pca, comparison, offset, ordered, ratio, known)


def _training_cells(
    network: Network,
    objective: Objective,
    schema: Schema,
    sample: Table,
    x: Rows,
    donors: Tensor,
) -> TrainingCells:
    """Keep what draws need of training cells: of the rows at `donors`, and which levels meet."""
    if not schema.is_table:
        donors = donors[:0]
    values = sample.values[donors.numpy()]
    rows = x[donors.to(x.device)]
    return TrainingCells(
        fit_donors(network, objective, schema, values, rows), LevelPairs.fit(schema, sample)
    )


def _scores(
    network: Network, objective: Objective, schema: Schema, tables: Iterable[Table]
) -> NDArray[Any]:
    """Return the scores of all rows, or, where these are many millions, of every so many-th."""
    step, parts = 1, list[Array]()
    for table in tables:
        scores = inference.apply_to_table(inference.log_density, network, objective, schema, table)
        parts.append(scores[::step])
        if len(parts) > 1 and sum(map(len, parts)) > _MOST_SCORES:
            parts, step = [np.concatenate(parts)[::2]], 2 * step
    return np.concatenate(parts)


def compare(
    network: Network, objective: Objective, pca: metrics.PCA, x: Array
) -> metrics.Comparison:
    """Set the reconstructions of the inputs `x`, `(n_rows, width)`, beside those of PCA."""
    x_hat = inference.apply(inference.reconstruct, network, objective, x)
    return metrics.compare(x, x_hat, pca)
