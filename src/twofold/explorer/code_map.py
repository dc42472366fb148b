"""The codes of a source's rows on a map: positions, scores, a sample to draw, and what lies where.

Codes of two components are the map themselves. Of longer codes the map shows the first two
principal components, any two components that are chosen, or neighbours near each other (t-SNE).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import metrics
from twofold.errors import DataError, OptionError
from twofold.estimators.autoencoder import Autoencoder
from twofold.explorer.source import Source
from twofold.inference import neighbors

Array = NDArray[Any]
Progress = Callable[[str], object]
NEIGHBOR_AXES = ("tsne1", "tsne2")
SAMPLE = 100_000  # points that stay fluid on a machine without a graphics card
_LEAST_NORMAL = SAMPLE // 2  # of a sample, however many anomalies there are
_CHUNK_CELLS = 8_000_000  # encoded at a time
_PROGRESS_SECONDS = 2.0
_IN_MEMORY = 2**28  # bytes of codes beyond which they lie in a temporary file
_STUDIED = 100_000  # codes enough for principal components and quantiles
_TAIL = 0.005  # of the codes on either side that sliders leave out
# t-SNE of so many rows takes some ten seconds of a core; others go among their nearest of these.
_LANDMARKS, _NEAREST = 3_000, 5
_LEAST_LANDMARKS = 10
_GRID = 256  # cells a side, over which a sample is spread


@dataclass(frozen=True)
class Axis:
    """What one side of the map can show; `share` is the part of the codes' variance along it."""

    key: str
    title: str
    share: float | None = None
    component: int | None = None


class CodeMap:
    """Rows of a source with their codes and scores, computed once.

    Attributes
    ----------
    codes : float32 array of shape (n_rows, n_components)
    scores : Scores
        With p-values and labels.
    mean : array of shape (n_components,)
        The mean code.
    principal : array of shape (2, n_components) or (0, n_components)
        The first two principal components of the codes; none where the codes are a map themselves.
    axes : tuple of Axis
    """

    def __init__(self, ae: Autoencoder, source: Source, progress: Progress | None = None) -> None:
        self.ae, self.source = ae, source
        self.codes, score = _computed(ae, source, progress)
        self.scores = metrics.Scores.of(score, ae.calibration_scores_, ae.offset_)
        self._placing = threading.Lock()
        self._placed: NDArray[np.float32] | None = None
        self._study()

    def _study(self) -> None:
        """Find means, quantiles and principal components of the codes."""
        n_rows, k = self.codes.shape
        step = -(-n_rows // _STUDIED)
        some = self.codes[::step].astype(np.float64)
        some = some[np.isfinite(some).all(axis=1)]
        if len(some) == 0:
            raise DataError(
                "Expected codes to draw a map of, got none that is finite. Check that the rows "
                "suit the model."
            )
        self.mean = some.mean(axis=0)
        variances = some.var(axis=0)
        total = float(variances.sum()) or 1.0
        self.spreads = np.sqrt(variances)
        self.low, self.high = np.quantile(some, [_TAIL, 1 - _TAIL], axis=0)
        axes = []
        self.principal = np.empty((0, k))
        if k > 2:
            values, vectors = np.linalg.eigh((some - self.mean).T @ (some - self.mean) / len(some))
            first = vectors[:, ::-1][:, :2].T
            # Which way a direction points is open; here its largest part is positive.
            largest = np.take_along_axis(first, np.abs(first).argmax(axis=1)[:, None], axis=1)
            self.principal = first * np.where(largest < 0, -1.0, 1.0)
            for i, value in enumerate(values[::-1][:2].tolist()):
                axes.append(Axis(f"pc{i + 1}", f"principal component {i + 1}", value / total))
        for i in range(k):
            axes.append(Axis(f"c{i}", f"component {i}", float(variances[i]) / total, i))
        if k > 2 and len(some) >= _LEAST_LANDMARKS and n_rows <= SAMPLE:
            axes += [Axis(key, f"t-SNE {key[-1]}") for key in NEIGHBOR_AXES]
        axes.append(Axis("score", "score"))
        self.axes = tuple(axes)
        self.default_axes = ("pc1", "pc2") if k > 2 else ("c0", "c1") if k == 2 else ("c0", "score")

    @cached_property
    def _principal_positions(self) -> NDArray[np.float32]:
        """The rows along the principal components: (2, n_rows)."""
        positions = np.empty((2, len(self.codes)), dtype=np.float32)
        step = max(1, _CHUNK_CELLS // self.codes.shape[1])
        for start in range(0, len(self.codes), step):
            part = self.codes[start : start + step]
            positions[:, start : start + step] = self.principal @ (part - self.mean).T
        return positions

    def along(self, key: str) -> NDArray[np.float32]:
        """Return where the rows lie along an axis, `(n_rows,)`.

        Raises
        ------
        OptionError
            If there is no such axis.
        """
        axis = next((axis for axis in self.axes if axis.key == key), None)
        if axis is None:
            known = ", ".join(axis.key for axis in self.axes[:4])
            raise OptionError(f"Expected an axis such as {known} or score, got {key!r}.")
        if axis.component is not None:
            return np.ascontiguousarray(self.codes[:, axis.component])
        if key == "score":
            return self.scores.score.astype(np.float32)
        if key in NEIGHBOR_AXES:
            along: NDArray[np.float32] = self._neighbor_positions()[NEIGHBOR_AXES.index(key)]
        else:
            along = self._principal_positions[int(key[2:]) - 1]
        return along

    def _neighbor_positions(self) -> NDArray[np.float32]:
        """Return the rows' places by their neighbours, (2, n_rows), worked out when first asked.

        A row that is not one of those that t-SNE places goes to the mean of its nearest of them.
        """
        with self._placing:
            if self._placed is None:
                finite = np.asarray(np.isfinite(self.codes).all(axis=1))
                order = self.everything[finite[self.everything]]
                # Half of them anomalies at most, the lowest scores; the others are a random sample.
                n_anomalies = min(int(self.scores.is_anomaly[order].sum()), _LANDMARKS // 2)
                n_normal = max(0, min(_LANDMARKS, len(order)) - n_anomalies)
                chosen = np.concatenate([order[:n_normal], order[len(order) - n_anomalies :]])
                codes = np.asarray(self.codes[chosen])
                places = neighbors.on_a_map(codes, "tsne", np.random.RandomState(0))
                placed = np.full((2, len(self.codes)), np.nan, dtype=np.float32)
                placed[:, chosen] = places.T
                finite[chosen] = False
                left = np.flatnonzero(finite)
                if len(left):
                    near = min(_NEAREST, len(chosen))
                    nearest = neighbors.nearest(self.codes[left], codes, near)[1]
                    placed[:, left] = places[nearest].mean(axis=1).T
                self._placed = placed
            return self._placed

    @cached_property
    def everything(self) -> NDArray[np.uint32]:
        """All row numbers as drawn: normal rows mixed, then anomalies, the lowest score last."""
        return self._in_drawing_order(np.flatnonzero(~self.scores.is_anomaly), self._anomalies)

    @cached_property
    def sample(self) -> NDArray[np.uint32]:
        """Row numbers of a sample that draws quickly, in drawing order; all rows if they are few.

        It holds every anomaly (of more than 100,000 of them, the lowest scores) and normal rows
        from all over the map, of each region its share.
        """
        if self.codes.shape[0] <= SAMPLE:
            return self.everything
        anomalies = self._anomalies[-SAMPLE:]
        normal = np.flatnonzero(~self.scores.is_anomaly)
        wanted = min(len(normal), max(_LEAST_NORMAL, SAMPLE - len(anomalies)))
        # Every so-many-th row, in the order of the map's cells, takes of each cell its share.
        cells = self._cells(normal)
        ordered = normal[np.argsort(cells, kind="stable")]
        chosen = ordered[((np.arange(wanted) + 0.5) * len(normal) / max(wanted, 1)).astype(int)]
        return self._in_drawing_order(chosen, anomalies)

    @cached_property
    def _anomalies(self) -> NDArray[np.int64]:
        """The anomalies, the lowest score last."""
        found = self.scores.anomalies
        return found[np.argsort(-metrics.by_rank(self.scores.score[found]), kind="stable")]

    @staticmethod
    def _in_drawing_order(normal: Array, anomalies: Array) -> NDArray[np.uint32]:
        # Mixed, since rows that a file lists last would hide those below; a seed of its own, so
        # that the same rows are drawn alike every time.
        mixed = np.random.default_rng(0).permutation(normal)
        return np.concatenate([mixed, anomalies]).astype(np.uint32)

    def _cells(self, rows: Array) -> NDArray[np.int64]:
        """Return the cell of a grid over the map that each row lies in, `(n_rows,)`."""
        cells = np.zeros(len(rows), dtype=np.int64)
        for key in self.default_axes:
            along = np.nan_to_num(self.along(key)[rows].astype(np.float64))
            # Equally many rows on every strip, so that a far row does not take the whole grid.
            edges = np.quantile(along, np.linspace(0, 1, _GRID + 1)[1:-1])
            cells = cells * _GRID + np.searchsorted(edges, along)
        return cells

    def anomalies(self, order: str, start: int, count: int) -> list[int]:
        """Return row numbers of anomalies by score, "lowest" or "highest" first, or by "row"."""
        orders = {
            "lowest": self._anomalies[::-1],
            "highest": self._anomalies,
            "row": self.scores.anomalies,
        }
        if order not in orders:
            raise OptionError(f"Expected order to be one of {', '.join(orders)}, got {order!r}.")
        return [int(row) for row in orders[order][start : start + count]]

    def within(self, x: str, y: str, polygon: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
        """Return which rows lie within a polygon of corners `(x, y)` on two axes, `(n_rows,)`.

        What a polygon that crosses itself encloses twice is outside.
        """
        corners = np.array(polygon, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
            raise OptionError(
                "Expected a polygon of at least three corners of two numbers, got another."
            )
        if not np.isfinite(corners).all():
            raise OptionError(
                "Expected corners of finite numbers, got others. Draw the selection again."
            )
        return within(self.along(x), self.along(y), corners)

    def describe(self, row: int) -> dict[str, Any]:
        """Return what there is to know of one row without asking the model."""
        cells, extras = self.source.cells(row)
        placed = self._placed is not None
        axes = [
            axis.key
            for axis in self.axes
            if axis.component is None and (placed or axis.key not in NEIGHBOR_AXES)
        ]
        return {
            "row": row,
            "name": self.source.name_of(row),
            "score": float(self.scores.score[row]),
            "p_value": float(self.scores.p_value[row]),
            "label": int(self.scores.label[row]),
            "code": self.codes[row].tolist(),
            "axes": {key: float(self.along(key)[row]) for key in axes},
            "cells": cells,
            "extras": extras,
        }


def within(x: Array, y: Array, corners: Array) -> NDArray[np.bool_]:
    """Return which points lie within a polygon: a ray to the left crosses an odd number of edges.

    Examples
    --------
    >>> triangle = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> within(np.array([0.5, 1.5]), np.array([0.5, 1.5]), triangle).tolist()
    [True, False]
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    # In the order of y, those on an edge's level are neighbours.
    near = near[np.argsort(y[near], kind="stable")]
    px, py = x[near].astype(np.float64), y[near].astype(np.float64)
    inside = np.zeros(len(near), dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay == by:
            continue
        start, stop = np.searchsorted(py, [min(ay, by), max(ay, by)])
        level = slice(start, stop)
        inside[level] ^= px[level] < ax + (py[level] - ay) * (bx - ax) / (by - ay)
    found = np.zeros(len(x), dtype=bool)
    found[near[inside]] = True
    return found


def _computed(ae: Autoencoder, source: Source, progress: Progress | None) -> tuple[Array, Array]:
    """Encode and score every row, part by part."""
    n_rows, k = source.n_rows, len(ae.get_feature_names_out())
    if n_rows == 0:
        raise DataError("Expected rows to explore, got a source without any.")
    codes: Array
    if n_rows * k * 4 <= _IN_MEMORY:
        codes = np.empty((n_rows, k), dtype=np.float32)
    else:
        with tempfile.TemporaryFile() as file:  # without a name, it goes when the codes do
            codes = np.memmap(file, np.float32, "w+", shape=(n_rows, k))
    scores = np.empty(n_rows)
    step = max(1_000, _CHUNK_CELLS // ae.schema_.width)
    started = reported = time.perf_counter()
    for start in range(0, n_rows, step):
        stop = min(n_rows, start + step)
        part = source.part(slice(start, stop))
        try:
            codes[start:stop] = ae.transform(part)
            scores[start:stop] = ae.score_samples(part)
        except DataError:
            if start == 0:
                raise
            # Once more, all rows at once, so that the message counts them from the first one.
            ae.transform(source.part(slice(0, n_rows)))
            raise
        now = time.perf_counter()
        if progress is not None and now - reported > _PROGRESS_SECONDS and stop < n_rows:
            left = (now - started) * (n_rows - stop) / stop
            progress(f"encoded {stop:,} of {n_rows:,} rows  {left:.0f} s left")
            reported = now
    return codes, scores
