"""Odd rows and the reasons for it: explained a few at a time, and laid out for readers and files.

Rows are those of an array or an Arrow table, which may be many times what can be explained at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import metrics
from twofold.estimators.autoencoder import Autoencoder
from twofold.formatting import cell, table
from twofold.inference.explain import Explanation

Array = NDArray[Any]
_CELLS = 200_000  # explained at a time: a few seconds' work, and little memory
_TELL_SECONDS = 5.0  # between two lines of progress
_NAMED_COLUMNS = 3  # per anomaly
_SHOWN_ROWS = 5
OddRow = tuple[float, tuple[str, ...]]  # the score, and the cells of a line about the row
RECORD = ("row", "column", "observed", "expected", "contribution")


class Scored:
    """The rows of a source with their scores, p-values and labels.

    Attributes
    ----------
    scores, p_values, labels : arrays of shape (n_rows,)
    anomalies : array of int
        Numbers of the rows that are labelled -1.
    """

    def __init__(self, ae: Autoencoder, rows: Any, first_row: int = 0) -> None:
        self._ae, self._rows, self._first = ae, rows, first_row
        self.scores = ae.score_samples(rows)
        self.p_values = metrics.conformal_pvalue(self.scores, ae.calibration_scores_)
        # A row so far out that its score is no number is an anomaly.
        self.labels = np.where(self.scores - ae.offset_ >= 0, 1, -1)
        self.anomalies = np.flatnonzero(self.labels < 0)

    def oddest(self, n: int | None = None) -> NDArray[np.int64]:
        """Return the numbers of the rows with the lowest scores, the lowest first."""
        scores = np.where(np.isnan(self.scores), -np.inf, self.scores)
        return np.argsort(scores, kind="stable")[:n]

    def explained(
        self, chosen: NDArray[np.int64], say: Callable[[str], object] | None = None
    ) -> Iterator[Explanation]:
        """Explain the chosen rows, a few at a time, and say now and then how far it got."""
        step = max(1, _CELLS // self._ae.schema_.width)
        started = told = time.perf_counter()
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            yield replace(self._ae.explain(_taken(self._rows, part)), rows=part)
            now, done = time.perf_counter(), start + len(part)
            if say is not None and now - told > _TELL_SECONDS and done < len(chosen):
                left = (now - started) * (len(chosen) - done) / done
                say(f"explained {done:,} of {len(chosen):,} rows  {left:.0f} s left")
                told = now

    def reasons(self, say: Callable[[str], object] | None = None) -> list[str | None]:
        """Name, for each anomaly, the columns that make it odd; None for the other rows."""
        reasons: list[str | None] = [None] * len(self.scores)
        for part in self.explained(self.anomalies, say):
            for i, row in enumerate(part.rows):
                reasons[row] = "; ".join(part.top(i, _NAMED_COLUMNS))
        return reasons

    def arrow(self, reasons: list[str | None] | None) -> Any:
        """Return rows, scores, p-values, labels and, where given, reasons as an Arrow table."""
        import pyarrow

        columns: dict[str, Any] = {
            "row": self._first + np.arange(len(self.scores)),
            "score": self.scores,
            "p_value": self.p_values,
            "label": self.labels,
        }
        if reasons is not None:
            columns["columns"] = pyarrow.array(reasons, pyarrow.string())
        return pyarrow.table(columns)

    def table(self, reasons: list[str | None]) -> str:
        """Show the oddest of the anomalies."""
        return odd_table(self.lines(reasons), len(self.anomalies))

    def lines(self, reasons: list[str | None]) -> list[OddRow]:
        """Return the oddest of the anomalies, the oddest first."""
        shown = self.oddest(min(_SHOWN_ROWS, len(self.anomalies)))
        scores = np.where(np.isnan(self.scores), -np.inf, self.scores)
        return [
            (
                float(scores[row]),
                (str(self._first + row), *self._figures(row), reasons[row] or ""),
            )
            for row in shown
        ]

    def describe(self, row: int) -> str:
        """Return a row's number, score and p-value."""
        score, p_value = self._figures(row)
        return f"row {row}: score {score}, p-value {p_value}"

    def _figures(self, row: int) -> tuple[str, str]:
        return f"{self.scores[row]:.6g}", f"{self.p_values[row]:.3g}"


def odd_table(lines: Iterable[OddRow], n_anomalies: int) -> str:
    """Show the oddest of some rows out of so many anomalies."""
    shown = sorted(lines, key=lambda line: line[0])[:_SHOWN_ROWS]
    cells = [line for _, line in shown]
    text = table(("row", "score", "p-value", "odd columns"), cells, (0, 1, 2))
    more = n_anomalies - len(shown)
    return text + (f"\nand {more:,} more" if more else "")


def _taken(rows: Any, numbers: NDArray[np.int64]) -> Any:
    if isinstance(rows, np.ndarray):
        return rows[numbers]
    # Arrow may put all chunks of a column together first, so it sees no more of them than needed.
    first, last = int(numbers.min()), int(numbers.max())
    return rows.slice(first, last + 1 - first).take(numbers - first)


class Report:
    """Explained rows as text: some columns of each for the reader, and all of them for a file."""

    def __init__(self, ae: Autoencoder, n_columns: int) -> None:
        forms = [column.format for column in ae.schema_.columns]
        self._dtypes = ["" if form is None else form.dtype for form in forms]
        self._seen = np.array([column.width > 0 for column in ae.schema_.columns])
        self._n_columns = n_columns
        self._lines: list[tuple[int, tuple[str, ...]]] = []
        self._record: dict[str, list[Any]] = {name: [] for name in RECORD}

    def show(self, part: Explanation) -> None:
        """Take the columns of each row that contribute most to the table for the reader."""
        for i, row in enumerate(part.rows):
            order = np.argsort(-part.contribution[i], kind="stable")
            for j in order[self._seen[order]][: self._n_columns]:
                cells = (part.observed[i, j], part.expected[i, j])
                observed, expected = (cell(c, self._dtypes[j]) or "(missing)" for c in cells)
                share = f"{part.contribution[i, j]:.2f}"
                self._lines.append((int(row), (f"  {part.columns[j]}", observed, expected, share)))

    def keep(self, part: Explanation) -> None:
        """Take all columns of each row to the record, the largest contribution first."""
        text = object in (part.observed.dtype, part.expected.dtype)
        for i, row in enumerate(part.rows):
            order = np.argsort(-part.contribution[i], kind="stable")
            self._record["row"] += [int(row)] * len(order)
            self._record["column"] += [part.columns[j] for j in order]
            self._record["contribution"] += part.contribution[i, order].tolist()
            for name, side in (("observed", part.observed), ("expected", part.expected)):
                values = side[i, order].tolist()
                if text:
                    at = zip(values, order, strict=True)
                    values = [cell(value, self._dtypes[j], exact=True) for value, j in at]
                self._record[name] += values

    def table(self, scored: Scored) -> str:
        """Return the table for the reader, with a heading per row."""
        titles = ("column", "observed", "expected", "contribution")
        laid_out = table(titles, [line for _, line in self._lines], (3,)).split("\n")
        lines, last = laid_out[:2], -1
        for (row, _), line in zip(self._lines, laid_out[2:], strict=True):
            if row != last:
                lines.append(scored.describe(row))
            lines.append(line)
            last = row
        return "\n".join(lines)

    def arrow(self) -> Any:
        """Return the record as an Arrow table, with a line for each row and column."""
        import pyarrow

        columns = [pyarrow.array(values, from_pandas=True) for values in self._record.values()]
        return pyarrow.Table.from_arrays(columns, names=list(self._record))
