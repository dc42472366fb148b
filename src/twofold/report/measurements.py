"""What a report says about a fitted model and some rows, in numbers: fits, scores, shifts, codes.

Every row is scored. All else is measured on a random sample of the rows where they are many, and
explanations are made for the few most anomalous ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from twofold import metrics
from twofold.data import sources
from twofold.data.chunks import together
from twofold.data.files import OpenFiles
from twofold.data.rows import opened
from twofold.data.table import Table, cells
from twofold.inference import apply as inference
from twofold.inference.explain import Explanation
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.report.components import Components, row_errors, study
from twofold.schema.column import Column
from twofold.schema.schema import Schema

Array = NDArray[Any]
Rows = NDArray[np.int64]
Progress = Callable[[str], object]

SAMPLE_ROWS = 20_000
_SAMPLE_CELLS = 8_000_000  # inputs of the sample, which are held several times: 32 MB each
_SCORED_CELLS = 4_000_000  # inputs between two looks at the clock
_PROGRESS_SECONDS = 2.0
EXPLAINED = 10
_FEW_ROWS = 20  # fewer say little about a distribution
_APART = 0.1  # between two distributions of scores
_RARE_P_VALUE = 1e-3
_CAUSE_ROWS, _CAUSE_CELLS = 200, 40_000  # explained to tell what lowers the scores of all rows
_LEAST_EXPLAINED, _EXPLAINED_CELLS = 3, 200_000  # a few seconds' work
_LEAST_SIDE, _MOST_ASPECT = 4, 4
_MOST_TYPICAL = 100  # columns from either end whose typical error is worth the time
LEAST_CALIBRATION_ROWS = 10  # fewer do not show whether the model has seen these rows
_SAME_SCORE = 1e-6  # relative: rounding of the same row's score
_ALPHA = 0.05  # what contamination="auto" stands for


class Fitted(Protocol):
    """What a report needs of a fitted estimator."""

    schema_: Schema
    network_: Network
    history_: list[dict[str, float]]
    best_epoch_: int
    offset_: float
    calibration_scores_: NDArray[np.float64]
    comparison_: metrics.Comparison
    pca_: metrics.PCA
    scorer_: Scorer

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options."""

    def read(self, X: Any) -> Table:
        """Return rows as a table, checked against the training table."""

    def transform(self, X: Any) -> Any:
        """Return the codes of rows."""

    def score_samples(self, X: Any) -> Array:
        """Return the log-density of rows."""

    def explain(self, X: Any) -> Explanation:
        """Return what each column contributes to the anomaly score."""


@dataclass(frozen=True)
class ScoreComparison:
    """How rows score compared with the held-out ones.

    `rows` are all rows' scores; `expected` is the share of rows like the held-out ones that fall
    below the threshold; `distance` and `p_value` are those of the test of Kolmogorov and Smirnov,
    of these and the held-out scores.
    """

    rows: metrics.Scores
    held_out: NDArray[np.float64]
    threshold: float
    expected: float
    distance: float
    p_value: float

    @property
    def side(self) -> str:
        """Whether these scores are "lower" or "higher" than the held-out ones; "" if neither."""
        few = min(len(self.rows.score), len(self.held_out)) < _FEW_ROWS
        if few or self.distance < _APART or self.p_value > _RARE_P_VALUE:
            return ""
        middle = np.median(np.maximum(self.rows.score, -1e300))
        return "lower" if middle < np.median(self.held_out) else "higher"

    @property
    def n_anomalies(self) -> int:
        """Number of anomalies."""
        return len(self.rows.anomalies)


@dataclass(frozen=True)
class Columns:
    """How well each column comes back on the sampled rows: arrays of shape (n_columns,).

    `kept` and `kept_pca` are the shares of the column's variance that reconstructions keep, NaN
    where it does not vary; `typical` and `typical_pca` the median errors in the column's unit, or
    for categories and flags the shares of wrong cells, NaN where they are not shown. `missing` are
    the shares of missing cells; `variance` is in the network's units, and so is `mean`, per input.
    `shift` says how far the column's mean is from training's, in spreads of it, or for levels which
    share of the rows would have to change; `is_shifted` where that is significant; `unseen` counts
    cells with a category that training did not have.
    """

    kept: NDArray[np.float64]
    kept_pca: NDArray[np.float64]
    typical: NDArray[np.float64]
    typical_pca: NDArray[np.float64]
    missing: NDArray[np.float64]
    variance: NDArray[np.float64]
    mean: NDArray[np.float64]
    shift: NDArray[np.float64]
    is_shifted: NDArray[np.bool_]
    unseen: NDArray[np.int64]


@dataclass(frozen=True)
class Measurements:
    """Everything the report is made of.

    `sample` are the numbers of the sampled rows; `errors` their squared errors per row, and
    `comparison` these and PCA's. `observed` and `expected` are cells of the `shown` rows, which
    are positions in the sample, listed by what they stand for, and `off` their columns' errors, in
    spreads of the training rows. `causes`, where scores are lower than they were, are the columns'
    mean contributions to the anomaly score, in nats. `column_errors` are each column's mean
    squared errors, the network's and PCA's. `recurring` is the share of the calibration rows'
    scores that these rows have as well.
    """

    n_rows: int
    sample: Rows
    comparison: metrics.Comparison
    columns: Columns
    errors: NDArray[np.float64]
    column_errors: tuple[Array, Array]
    shown: dict[str, Rows]
    observed: Array
    expected: Array
    off: NDArray[np.float64]
    scores: ScoreComparison
    explanation: Explanation
    causes: NDArray[np.float64] | None
    components: Components
    seconds: float
    recurring: float


def examine(ae: Fitted, X: Any, progress: Progress | None = None) -> Measurements:
    """Measure all that a report says about a fitted model and rows of any source.

    Parameters
    ----------
    ae : fitted Autoencoder
    X : as in `Autoencoder.fit`
    progress : callable, optional
        Called with a line about the progress now and then, from two seconds on.
    """
    clock = _Clock(progress)
    source = _Source(ae, X)
    schema = ae.schema_
    rows = _scored(ae, source, clock)
    n_rows = len(rows.score)
    scores, sample = _compared(ae, rows), _sampled(n_rows, schema.width)
    few = max(_LEAST_EXPLAINED, _EXPLAINED_CELLS // schema.width)
    lowest = rows.most_anomalous(min(EXPLAINED, few))
    clock.report(f"reading {len(sample):,} rows")
    part, explained = source.take(sample, lowest)
    table = ae.read(part)
    codes = np.asarray(ae.transform(part))
    x = schema.to_matrix(table, codes.dtype)
    x_hat = _decoded(ae, codes).astype(codes.dtype, copy=False)
    x_pca = ae.pca_.reconstruct(x)
    squares, squares_pca = np.square(x - x_hat), np.square(x - x_pca)
    errors = row_errors(squares)
    clock.report("measuring columns and components")
    columns = _columns(ae, table, x, (x_hat, x_pca), (squares, squares_pca))
    components = study(
        codes,
        x,
        columns.mean,
        rows.score[sample],
        (np.asarray(ae.transform(explained)), rows.score[lowest]),
        lambda codes: _decoded(ae, codes),
        _products(ae.network_),
    )
    clock.report(f"explaining {len(lowest)} rows")
    shown = _shown(errors, 8 if is_picture(schema) else 3)
    chosen = np.concatenate([*shown.values()])
    own = table.values[chosen]
    observed = cells(own, table.formats)
    # As `reconstruct` gives them: in tables, values that their columns can have.
    possible = schema.from_matrix(x_hat[chosen], table.formats is not None, own)
    expected = cells(possible, schema.formats())
    return Measurements(
        n_rows=n_rows,
        sample=sample,
        comparison=metrics.compare(x, x_hat, ae.pca_),
        columns=columns,
        errors=errors,
        column_errors=(_per_column(squares, schema), _per_column(squares_pca, schema)),
        shown=shown,
        observed=observed,
        expected=expected,
        off=np.sqrt(_by_column(squares[chosen], schema)) / _spreads(ae),
        scores=scores,
        explanation=replace(ae.explain(explained), rows=lowest),
        causes=_causes(ae, part) if scores.side == "lower" else None,
        components=components,
        seconds=clock.seconds(),
        recurring=_recurring(rows.score, ae.calibration_scores_),
    )


def _causes(ae: Fitted, rows: Any) -> NDArray[np.float64] | None:
    """Return what each column adds to the anomaly score on average; None where it takes long.

    The largest tenth of a column's shares counts no more than the one before it: a few
    anomalous rows do not explain why all others score lower.
    """
    n = min(_CAUSE_ROWS, len(rows), _CAUSE_CELLS // ae.schema_.width)
    if n < _FEW_ROWS:
        return None
    chosen = np.random.default_rng(0).permutation(len(rows))[:n]
    shares = np.nan_to_num(ae.explain(taken(rows, np.sort(chosen))).contribution)
    return np.asarray(np.minimum(shares, np.quantile(shares, 0.9, axis=0)).mean(axis=0))


class _Clock:
    """Keeps time, and reports progress every two seconds."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._start = self._reported = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def report(self, line: str) -> None:
        now = time.perf_counter()
        if self._progress is not None and now - self._reported > _PROGRESS_SECONDS:
            self._progress(line)
            self._reported = now


def taken(source: Any, rows: Rows | slice) -> Any:
    """Return some of the rows of any source in memory, in its own container."""
    container = sources.container_of(source)
    if container == "pandas":
        return source.iloc[rows]
    if container == "arrow":
        if isinstance(rows, slice):
            return source.slice(rows.start, rows.stop - rows.start)
        return source.take(rows)
    if container == "torch" and not isinstance(rows, slice):
        return source[torch.from_numpy(rows).to(source.device)]
    return source[rows]


class _Source:
    """The rows of any source: part by part, and some of them; they may lie in open files."""

    def __init__(self, ae: Fitted, X: Any) -> None:
        rows = opened(
            X, getattr(ae, "feature_names_in_", None), formats=ae.schema_.training_formats
        )
        self._open = rows if isinstance(rows, OpenFiles) else None
        if self._open is not None:
            self.n_rows = self._open.n_rows
            return
        if sources.container_of(rows) == "numpy" and not isinstance(rows, np.ndarray):
            ae.read(rows)  # says what is wrong with lists that do not form a table
            rows = np.asanyarray(rows)
        self._rows = rows
        self.n_rows = 0 if getattr(rows, "shape", (1,)) == () else len(rows)

    def parts(self, step: int) -> Iterator[Any]:
        """Give all rows in order, about `step` at a time; those in files as they are read."""
        if self._open is not None:
            yield from (part for _, part in self._open.chunks())
        elif self.n_rows <= step:
            yield self._rows
        else:
            for start in range(0, self.n_rows, step):
                yield taken(self._rows, slice(start, min(start + step, self.n_rows)))

    def take(self, *many: Rows) -> list[Any]:
        """Return the rows of each list of numbers, in one pass over files."""
        if self._open is None:
            return [taken(self._rows, numbers) for numbers in many]
        every, held = np.unique(np.concatenate(many)), []
        for first, part in self._open.chunks():
            here = every[(every >= first) & (every < first + len(part))]
            if len(here):
                held.append(taken(part, here - first))
        rows = together(held)
        return [taken(rows, np.searchsorted(every, numbers)) for numbers in many]


def _scored(ae: Fitted, source: _Source, clock: _Clock) -> metrics.Scores:
    """Return every row's score; of a row so far out that it has none, minus infinity."""
    width = ae.schema_.width
    # A multiple of what is computed at once, so that the scores are those of the whole, bit by bit.
    at_once = next(sources.row_chunks(2**62, width)).stop
    step = at_once * max(1, _SCORED_CELLS // (at_once * width))
    parts, n_scored = [], 0
    for part in source.parts(step):
        parts.append(np.asarray(ae.score_samples(part)))
        n_scored += len(parts[-1])
        clock.report(f"scored {n_scored:,} of {source.n_rows:,} rows")
    scores = np.concatenate(parts)
    found = metrics.Scores.of(scores, ae.calibration_scores_, ae.offset_)
    return replace(found, score=metrics.by_rank(scores))


def _sampled(n_rows: int, width: int) -> Rows:
    """Return the numbers of the rows to measure on, in order: all, or a random sample."""
    most = min(SAMPLE_ROWS, max(500, _SAMPLE_CELLS // max(width, 1)))
    if n_rows <= most:
        return np.arange(n_rows)
    chosen = np.random.default_rng(0).choice(n_rows, most, replace=False, shuffle=False)
    return np.sort(chosen).astype(np.int64)


def _decoded(ae: Fitted, codes: Array) -> Array:
    # In the network's own precision, since it is copied for every other one.
    double = next(ae.network_.parameters()).dtype == torch.float64
    own = codes.astype(np.float64 if double else np.float32, copy=False)
    return inference.apply(inference.decode, ae.network_, ae.scorer_, own)


def _by_column(inputs: Array, schema: Schema) -> NDArray[np.float64]:
    """Sum over the inputs of each column: (n_rows, width) -> (n_rows, n_columns)."""
    if all(column.width == 1 for column in schema.columns):
        return inputs.astype(np.float64)
    result = np.full((len(inputs), len(schema.columns)), np.nan)
    for i, at in enumerate(schema.inputs):
        if at.stop > at.start:
            result[:, i] = inputs[:, at].sum(axis=1, dtype=np.float64)
    return result


def _per_column(squares: Array, schema: Schema) -> NDArray[np.float64]:
    """Return each column's mean squared error; NaN where no cell is known."""
    known = np.maximum((~np.isnan(squares)).sum(axis=0), 1)
    means = np.nansum(squares, axis=0, dtype=np.float64) / known
    return np.asarray(_by_column(means[None], schema)[0])


def _products(network: Network) -> int:
    """Return about how many products a row takes: one for each number, at each of its places."""
    return sum(layer.n_parameters * math.prod(layer.shape[:-1]) for layer in network.layers())


def _spreads(ae: Fitted) -> NDArray[np.float64]:
    """Return each column's standard deviation in training, in the network's units.

    Of a column that hardly varied, it is a tenth of what is usual: no error there is a large one.
    """
    unit = ae.scorer_.density.unit.detach().cpu().double().numpy()
    variance = _by_column(np.square(unit)[None], ae.schema_)[0]
    return np.asarray(np.sqrt(np.maximum(variance, 0.01 * np.nanmean(variance))))


def _columns(
    ae: Fitted, table: Table, x: Array, x_hats: tuple[Array, Array], squares: tuple[Array, Array]
) -> Columns:
    schema = ae.schema_
    n_known = (~np.isnan(x)).sum(axis=0)
    mean = np.nansum(x, axis=0, dtype=np.float64) / np.maximum(n_known, 1)
    variance = _per_column(np.square(x - mean), schema)
    rows_known = np.array(
        [n_known[at.start] if at.stop > at.start else 0 for at in schema.inputs], dtype=np.int64
    )
    varies = (rows_known > 1) & (variance > 1e-12)
    safe = np.where(varies, variance, np.nan)
    kept = [1 - _per_column(part, schema) / safe for part in squares]
    typical = [_typical(schema, x, part, kept[0]) for part in x_hats]
    shift, is_shifted = _shifts(ae, x, mean, n_known)
    return Columns(
        kept=kept[0],
        kept_pca=kept[1],
        typical=typical[0],
        typical_pca=typical[1],
        missing=np.isnan(table.values).mean(axis=0),
        variance=variance,
        mean=mean,
        shift=shift,
        is_shifted=is_shifted,
        unseen=_unseen(schema, table),
    )


def _typical(schema: Schema, x: Array, x_hat: Array, kept: Array) -> NDArray[np.float64]:
    """Return the columns' median errors, or for levels their shares of wrong cells.

    Of many columns only those that come back best and worst have one, and of images none.
    """
    result = np.full(len(schema.columns), np.nan)
    if is_picture(schema):
        return result
    observed, expected = schema.from_matrix(x), schema.from_matrix(x_hat)
    order = np.argsort(kept, kind="stable")
    comparable = order[: int(np.isfinite(kept).sum())]
    chosen = order if len(order) <= 2 * _MOST_TYPICAL else comparable
    for i in {*chosen[:_MOST_TYPICAL].tolist(), *chosen[-_MOST_TYPICAL:].tolist()}:
        column = schema.columns[i]
        # A cell of a pooled level is there, though no reconstruction can name it.
        known = ~np.isnan(x[:, min(schema.inputs[i].start, x.shape[1] - 1)])
        if column.width and known.any():
            observed_cells, decoded = observed[known, i].astype(np.float64), expected[known, i]
            if has_levels(column):
                if column.kind == "binary":  # scaled and back, a flag is 0 or 1 to rounding alone
                    decoded = np.rint(decoded.clip(0, 1))
                    observed_cells = np.rint(observed_cells)
                result[i] = np.mean(observed_cells != decoded)
            else:
                result[i] = np.median(np.abs(observed_cells - decoded))
    return result


def _shifts(
    ae: Fitted, x: Array, mean: Array, n_known: Array
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return how far each column's mean has moved since training, and whether significantly.

    Of numbers that is in spreads of training, more than a quarter of one and more than four and a
    half standard errors of a mean; of levels and knots the share of rows that would have to change
    (the total variation distance), more than a tenth and three times the average sampling error.
    """
    schema, density = ae.schema_, ae.scorer_.density
    before = density.center.detach().cpu().double().numpy()
    unit = density.unit.detach().cpu().double().numpy()
    shift = np.full(len(schema.columns), np.nan)
    moved = np.zeros(len(schema.columns), dtype=bool)
    for i, (column, at) in enumerate(zip(schema.columns, schema.inputs, strict=True)):
        if not column.width or n_known[at.start] < 2:
            continue
        n = int(n_known[at.start])
        if column.kind == "category" or column.knots:
            scale = column.share_scale if column.knots else 1.0
            shares = np.clip(before[at] * scale + np.array(column.shares or 0.0), 0, 1)
            shift[i] = 0.5 * scale * np.abs(mean[at] - before[at]).sum()
            sampling = 0.4 * np.sqrt(shares * (1 - shares) / n).sum()
            moved[i] = shift[i] > 0.1 + 3 * sampling
        else:
            shift[i] = (mean[at.start] - before[at.start]) / unit[at.start]
            moved[i] = abs(shift[i]) > max(0.25, 4.5 / math.sqrt(n))
    return shift, moved


def _unseen(schema: Schema, table: Table) -> NDArray[np.int64]:
    """Count each text column's cells whose level training did not have."""
    counts = np.zeros(len(schema.columns), dtype=np.int64)
    for i, column in enumerate(schema.columns):
        if column.kind == "category" and table.formats and table.formats[i].type == "text":
            known = {str(level) for level in column.levels}
            new = [j for j, level in enumerate(table.formats[i].levels) if str(level) not in known]
            counts[i] = int(np.isin(table.values[:, i], new).sum()) if new else 0
    return counts


def _compared(ae: Fitted, rows: metrics.Scores) -> ScoreComparison:
    """Compare scores with those of the held-out rows."""
    held_out = ae.calibration_scores_
    n = len(held_out)
    wanted = ae.get_params(deep=False)["contamination"]
    expected = max(1, math.floor(_ALPHA * (n + 1) + 1e-9)) / (n + 1)
    if wanted != "auto":
        expected = float(wanted)
    distance, p_value = _smirnov(rows.score, held_out)
    return ScoreComparison(
        rows=rows,
        held_out=held_out,
        threshold=ae.offset_,
        expected=expected,
        distance=distance,
        p_value=p_value,
    )


def _recurring(score: Array, calibration: Array) -> float:
    """Return the share of the calibration rows' scores that these rows have as well.

    Scores of other rows agree in six digits now and then; in nearly all, only if the rows are those
    that the model was calibrated on, which were held out of the training table.
    """
    if len(calibration) < LEAST_CALIBRATION_ROWS:
        return 0.0
    known = np.sort(score)
    tolerance = _SAME_SCORE * (1 + np.abs(calibration))
    first = np.searchsorted(known, calibration - tolerance, side="left")
    last = np.searchsorted(known, calibration + tolerance, side="right")
    return float((last > first).mean())


def _smirnov(a: Array, b: Array) -> tuple[float, float]:
    """Return the largest gap between two distribution functions, and its p-value.

    Smirnov, 1948, "Table for Estimating the Goodness of Fit of Empirical Distributions"; the
    correction for few rows is Stephens', 1970, "Use of the Kolmogorov-Smirnov ... Statistics".
    """
    a, b = np.sort(a), np.sort(b)
    every = np.concatenate([a, b])
    sides = [np.searchsorted(part, every, side="right") / len(part) for part in (a, b)]
    gap = float(np.abs(sides[0] - sides[1]).max())
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    size = (root + 0.12 + 0.11 / root) * gap
    if size < 0.2:  # where the series converges slowly, its sum is 1
        return gap, 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * size) ** 2) for k in range(1, 101))
    return gap, min(1.0, max(0.0, sum(terms)))


def _shown(errors: NDArray[np.float64], most: int) -> dict[str, Rows]:
    """Return positions of the worst, of typical and of the best rows, as far as there are some."""
    order = np.argsort(-errors, kind="stable")
    n = len(order)
    if n < 3:
        return {"worst": order[:1], "best": order[1:]}
    k = min(most, n // 3)
    middle = (n - k) // 2
    return {"worst": order[:k], "typical": order[middle : middle + k], "best": order[-k:][::-1]}


def is_picture(schema: Schema) -> bool:
    """Whether a row can be shown as an image: grey or in colour, and not too narrow a strip."""
    shape = schema.row_shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        return False
    short, long = sorted(shape[:2])
    return short >= _LEAST_SIDE and long <= _MOST_ASPECT * short


def has_levels(column: Column) -> bool:
    """Whether a column's errors are wrong cells, and not distances."""
    return column.kind in ("category", "binary")
