"""What is fitted after training: the scorer, the threshold, and the comparison with PCA."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

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
from twofold.nn.cell_model import observed
from twofold.nn.corruption import Masking
from twofold.nn.native.stack import applied
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.nn.scorer import Scorer
from twofold.nn.threads import few_for
from twofold.schema.schema import Schema
from twofold.schema.tensors import Rows

Array = NDArray[Any]
_MOST_ROUNDS = 20  # of imputation; after so many, further ones change little
_ROUND_ROWS, _HIDDEN = 2_000, 0.2  # rows, and their share of cells, that rounds are tried on
_FIT_ROWS = 100_000  # enough to fit residual spreads and the density of the codes
_FIT_CELLS = 20_000_000  # as many inputs as may be held twice for that: 160 MB
_LEAST_ROWS = 2_000
_DENSITY_ROWS, _DENSITY_CELLS = 10_000, 4_000_000  # enough for clusters of a twentieth
_ALPHA = 0.05  # contamination="auto": probability of flagging a normal row
_FREQUENT = 0.005  # share of the rows that are equal to one, which is then not flagged
_ROUNDING = 1e-4  # share of a score that 32 bits may lose
_MOST_ROWS = 100_000  # rows enough for a threshold and a comparison
_MOST_SCORES = 4_000_000  # of rows that stay on disk: a share of 1 % is then true to 0.01 %
_CUT_CELLS = 200_000_000  # reconstructed cells, over all code sizes, that tell what components keep


@dataclass(frozen=True)
class Calibration:
    """What was fitted on the held-out rows, or on training rows if none were held out.

    Attributes
    ----------
    scorer : Scorer
        Scores rows; fitted to the training rows.
    pca : PCA
        The baseline of the same code size, fitted to the training rows.
    comparison : Comparison
        The network compared with that baseline.
    offset : float
        Score below which a row is an anomaly, in nats.
    scores : array
        Scores of the rows, in order.
    explained_variance_ratio : array or None
        Share of the variance that each component of an ordered code adds.
    cells : TrainingCells
        What draws know of training cells.
    """

    scorer: Scorer
    pca: metrics.PCA
    comparison: metrics.Comparison
    offset: float
    scores: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64] | None
    cells: TrainingCells


class FittingRows(Protocol):
    """The rows of a training that are in memory."""

    @property
    def x(self) -> Rows:
        """Rows as the network sees them."""

    @property
    def positions(self) -> Tensor:
        """Positions of the training rows in `x`, in random order."""

    @property
    def held_out(self) -> Rows | None:
        """Held-out rows, if any."""


def calibrate(
    network: Network,
    schema: Schema,
    data: FittingRows,
    tables: Iterable[Table],
    sample: Table,
    *,
    donors: int,
    contamination: float | str,
    rng: np.random.RandomState,
    generator: torch.Generator,
) -> Calibration:
    """Fit the scorer to the training rows, and the rest to held-out rows.

    `tables` hold all rows, and are scored if a share of them is to be flagged; `sample` holds those
    of `data.x`. `donors` is how many training rows lend their cells to draws.
    """
    x, train, validation = data.x, data.positions, data.held_out
    # Hundreds of passes over some thousand rows: a second thread gains little, and on a busy
    # machine each of them would wait for it.
    with few_for(0.0, libraries=True):
        quick = applied(network)
        scorer = fit_scorer(quick, schema, x, train, generator)
        known = _training_cells(quick, scorer, schema, sample, x, train[:donors])
    few = train[:_MOST_ROWS]
    if isinstance(x, Tensor):
        matrix, used = x.cpu().numpy(), train.numpy()
    else:
        matrix, used = x[few].cpu().numpy(), None
    pca = metrics.fit_pca(matrix, network.n_components, rng, rows=used)
    held = x[few.to(x.device)] if validation is None else validation[:_MOST_ROWS]
    held_out = held.cpu().numpy()
    scores = inference.apply(inference.log_density, network, scorer, held_out)
    if contamination == "auto":
        offset = metrics.conformal_offset(scores, _ALPHA)
        often = _frequent_rows(sample.values) if schema.is_table else []
        if often:
            rows = x[torch.tensor(often, device=x.device)].cpu().numpy()
            own = float(inference.apply(inference.log_density, network, scorer, rows).min())
            offset = min(offset, own - _ROUNDING * (1 + abs(own)))
    else:
        of_all = _scores(network, scorer, schema, tables)
        offset = float(np.percentile(of_all, 100 * float(contamination)))
    ratio = None
    if network.bottleneck.is_ordered:
        n = max(2, _CUT_CELLS // (network.n_components * network.width))
        kept = inference.variance_kept(network, scorer, held[:n]).cpu().numpy()
        if network.bottleneck.sizes is not None:
            # What a size that was not taught keeps tells nothing: it counts as the one below.
            taught = np.isin(np.arange(1, len(kept) + 1), network.bottleneck.sizes)
            kept = np.maximum.accumulate(np.where(taught, kept, 0.0))
        ratio = np.diff(kept, prepend=0.0)
    comparison = compare(network, scorer, schema, pca, held_out)
    ordered = np.sort(scores.astype(np.float64))
    return Calibration(scorer, pca, comparison, offset, ordered, ratio, known)


@torch.no_grad()
def _best_rounds(network: Network, scorer: Scorer, x: Tensor) -> int:
    """Return after how many rounds hidden cells of these rows are imputed best.

    One round is best for a network that has learned from incomplete rows. Others gain by more, but
    only as long as a step does not make errors larger, which feed the next step.
    """
    given = Masking(_HIDDEN)(x, scorer, torch.Generator().manual_seed(0))
    hidden = torch.isnan(given) & ~torch.isnan(x)
    part, seen = observed(given)
    least = math.inf
    for number in range(_MOST_ROUNDS):
        x_hat = inference.decode(network, scorer, network.encode(part, seen=seen)[0])
        error = float(((x_hat - x)[hidden] ** 2).mean())
        if not error < least:
            return max(number, 1)
        least, part = error, x_hat if seen is None else torch.where(seen, part, x_hat)
    return _MOST_ROUNDS


def unfitted_scorer(network: Network, schema: Schema) -> Scorer:
    """Return a scorer where the network is, and as precise; it does for reconstructions."""
    parameter = next(network.parameters())
    return Scorer(schema).to(device=parameter.device, dtype=parameter.dtype)


@torch.no_grad()
def fit_scorer(
    network: Network,
    schema: Schema,
    x: Rows,
    rows: Tensor,
    generator: torch.Generator | None = None,
) -> Scorer:
    """Fit a scorer, and the density of the codes, to rows of `x`, which come in random order."""
    scorer = unfitted_scorer(network, schema)
    n = min(_FIT_ROWS, max(_LEAST_ROWS, _FIT_CELLS // network.width))
    scorer.rounds.fill_(_best_rounds(network, scorer, x[rows[:_ROUND_ROWS].to(x.device)]))
    codes, thetas, inputs = [], [], []
    for part in rows[:n].split(min(4096, network.rows_per_pass)):
        cells = x[part.to(x.device)]
        path = network.path(inference.complete(network, scorer, cells), network.seen(cells))
        codes.append(network.bottleneck.code(path))
        # What cells are explained from is what the decoder makes of a code as it is drawn.
        draws = network.bottleneck.draws(path, 1, torch.Generator().manual_seed(0))
        thetas.append(network.decode(next(draws)[0]))
        inputs.append(cells)
    theta, cells = torch.cat(thetas), torch.cat(inputs)
    scorer.fit_spread(theta, cells)
    scorer.fit_typical(theta, cells)
    few = max(_LEAST_ROWS, min(_DENSITY_ROWS, _DENSITY_CELLS // network.width))
    generator = generator or torch.Generator().manual_seed(0)
    scorer.fit_density(theta[:few], cells[:few], generator)
    whole = cells[:few][~torch.isnan(cells[:few]).any(1)]
    if len(whole):
        best = inference.row_log_prob(network, scorer, whole, whole).argmax()
        scorer.mode.copy_(whole[best])
    if network.bottleneck.density is not None:
        network.bottleneck.density.fit(torch.cat(codes))
    return scorer


def _frequent_rows(values: Array) -> list[int]:
    """Return a position of each row that many rows are equal to: normal, whatever it scores."""
    few = values[:_MOST_ROWS] + 0.0  # so that 0 and -0 have the same bytes
    few[np.isnan(few)] = np.nan
    rows = [row.tobytes() for row in few]
    counts = Counter(rows)
    least = max(2, _FREQUENT * len(rows))
    first = {row: i for i, row in reversed(list(enumerate(rows))) if counts[row] >= least}
    return sorted(first.values())


def _training_cells(
    network: Network,
    scorer: Scorer,
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
        fit_donors(network, scorer, schema, values, rows), LevelPairs.fit(schema, sample)
    )


def _scores(
    network: Network, scorer: Scorer, schema: Schema, tables: Iterable[Table]
) -> NDArray[Any]:
    """Return the scores of all rows, or, of many millions, of every so many-th."""
    step, parts = 1, list[Array]()
    for table in tables:
        scores = inference.apply_to_table(inference.log_density, network, scorer, schema, table)
        parts.append(scores[::step])
        if len(parts) > 1 and sum(map(len, parts)) > _MOST_SCORES:
            parts, step = [np.concatenate(parts)[::2]], 2 * step
    return np.concatenate(parts)


def compare(
    network: Network, scorer: Scorer, schema: Schema, pca: metrics.PCA, x: Array
) -> metrics.Comparison:
    """Compare the reconstructions of the inputs `x`, `(n_rows, width)`, with those of PCA.

    Where columns have several likelihoods, PCA's reconstructions are taken for the means of these,
    and both weigh squared errors against other losses as their own residuals say.
    """
    x_hat = inference.apply(inference.reconstruct, network, scorer, x)
    found = metrics.compare(x, x_hat, pca)
    if not scorer.needs_weights:
        return found
    theta = inference.apply(_parameters, network, scorer, x)
    linear = _linear_parameters(scorer, pca, x)
    return replace(found, loss=_loss(schema, theta, x), loss_pca=_loss(schema, linear, x))


def _parameters(network: Network, scorer: Scorer, x: Tensor) -> Tensor:
    return network.decode(inference.encode(network, scorer, x))


def _linear_parameters(scorer: Scorer, pca: metrics.PCA, x: Array) -> Array:
    mean = torch.from_numpy(pca.reconstruct(x))
    theta = torch.empty_like(mean)
    for likelihood, at in scorer.groups:
        theta[:, at] = likelihood.theta_at(mean[:, at])
    return theta.numpy()


def _loss(schema: Schema, theta: Array, x: Array) -> float:
    """Return the training loss of rows in nats per cell, with what it learns settled on them."""
    objective, rows = Objective(schema), torch.from_numpy(x.astype(np.float32))
    given = torch.from_numpy(theta.astype(np.float32))
    objective.adapt(given, rows)
    return float(objective.reconstruction(given, rows))
