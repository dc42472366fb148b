"""What a model makes of rows, a part at a time, and the summary that is shown at the end.

The same for one process and for a cluster, whose tasks send their summaries to the driver. Rows are
those of an array or an Arrow table, which may be many times what can be explained at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold.data import notation
from twofold.data.chunks import taken
from twofold.data.convert import to_arrow
from twofold.estimators.autoencoder import Autoencoder
from twofold.formatting import cell, shortened, table
from twofold.inference.explain import Explanation
from twofold.metrics import Scores, by_rank
from twofold.verbs import EXPLANATION_COLUMNS, SCORE_COLUMNS, VERBS

Array = NDArray[Any]
Progress = Callable[[str], object]
_CELLS = 200_000  # explained at a time: a few seconds' work, and little memory
_PROGRESS_SECONDS = 5.0  # between two lines of progress
_NAMED_COLUMNS = 3  # per anomaly
_SHOWN_ROWS = 5
AnomalyLine = tuple[float, tuple[str, ...]]  # the score, and the cells of a line about the row


@dataclass
class Summary:
    """What is shown about the rows that are done.

    Attributes
    ----------
    n_rows, n_columns : int
        Those written; columns are counted where their number is not that of the rows read.
    n_anomalies, most_anomalous
        Of scored rows: how many are labelled -1, and the lines about the lowest scores.
    n_missing, n_left : int
        Of imputed rows: missing cells there were, and cells still missing.
    n_restarted : int
        Files that were begun and left by processes that ended.
    """

    n_rows: int = 0
    n_columns: int = 0
    n_anomalies: int = 0
    most_anomalous: list[AnomalyLine] = field(default_factory=list)
    n_missing: int = 0
    n_left: int = 0
    n_restarted: int = 0

    @classmethod
    def of_imputed(cls, rows: Any, filled: Any) -> Summary:
        """Return the summary of rows whose missing cells were filled."""
        return cls(len(rows), n_missing=missing_cells(rows), n_left=missing_cells(filled))

    def add(self, other: Summary) -> None:
        """Add the summary of other rows."""
        self.n_rows += other.n_rows
        self.n_columns = other.n_columns
        self.n_anomalies += other.n_anomalies
        self.most_anomalous += other.most_anomalous
        self.n_missing += other.n_missing
        self.n_left += other.n_left

    def anomaly_table(self) -> str:
        """Lay out the most anomalous of the rows, and say how many more anomalies there are."""
        return anomaly_table(self.most_anomalous, self.n_anomalies)


def missing_cells(rows: Any) -> int:
    """Count the missing cells of an array or an Arrow table."""
    if isinstance(rows, np.ndarray):
        return int(np.isnan(rows).sum())
    return sum(map(_missing_in, rows.schema, rows.columns))


def _missing_in(field: Any, cells: Any) -> int:
    """Count the missing cells of a column, words for missing ones among them."""
    missing = pc.is_null(cells, nan_is_null=True)
    written = notation.of_field(field) if notation.is_as_written(field) else None
    if written is not None:
        missing = pc.or_(missing, written.is_missing(cells))
    return pc.sum(missing).as_py() or 0


class ScoredRows:
    """Rows of a source with their scores, explained a few at a time.

    Attributes
    ----------
    scores : Scores
        With p-values and labels.
    """

    def __init__(self, ae: Autoencoder, rows: Any, first_row: int = 0) -> None:
        self._ae, self._rows, self._first = ae, rows, first_row
        names = _names_of(ae, rows)
        self._names = None if names is None else names[0]
        self.scores = Scores.of(ae.score_samples(rows), ae.calibration_scores_, ae.offset_)

    def __len__(self) -> int:
        return len(self.scores.score)

    def explained(
        self, chosen: NDArray[np.int64], progress: Progress | None = None
    ) -> Iterator[Explanation]:
        """Explain the chosen rows, a few at a time, reporting progress now and then."""
        step = max(1, _CELLS // self._ae.schema_.width)
        started = reported = time.perf_counter()
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            yield replace(self._ae.explain(taken(self._rows, part)), rows=part)
            now, done = time.perf_counter(), start + len(part)
            if progress is None or now - reported <= _PROGRESS_SECONDS or done == len(chosen):
                continue
            left = (now - started) * (len(chosen) - done) / done
            progress(f"explained {done:,} of {len(chosen):,} rows  {left:.0f} s left")
            reported = now

    def reasons(self, progress: Progress | None = None) -> list[str | None]:
        """Name, for each anomaly, the columns that contribute most; None for the other rows."""
        reasons: list[str | None] = [None] * len(self)
        for part in self.explained(self.scores.anomalies, progress):
            for i, row in enumerate(part.rows):
                reasons[row] = "; ".join(part.top(i, _NAMED_COLUMNS))
        return reasons

    def arrow(self, reasons: list[str | None]) -> Any:
        """Return rows, scores, p-values, labels and reasons as an Arrow table."""
        found = self.scores
        row = self._first + np.arange(len(self))
        texts = pyarrow.array(reasons, pyarrow.string())
        columns = (row, found.score, found.p_value, found.label, texts)
        return pyarrow.table(dict(zip(SCORE_COLUMNS, columns, strict=True)))

    def lines(self, reasons: list[str | None]) -> list[AnomalyLine]:
        """Return the lines about the most anomalous of the anomalies, the lowest score first."""
        shown = self.scores.most_anomalous(min(_SHOWN_ROWS, len(self.scores.anomalies)))
        ranks = by_rank(self.scores.score)
        return [
            (
                float(ranks[row]),
                (self._label(row), *self._figures(row), reasons[row] or ""),
            )
            for row in shown
        ]

    def describe(self, row: int) -> str:
        """Return a row's number, score and p-value."""
        score, p_value = self._figures(row)
        return f"row {self._label(row)}: score {score}, p-value {p_value}"

    def _label(self, row: int) -> str:
        """Return a row's number, and its name if it has one."""
        name = None if self._names is None else self._names[int(row)].as_py()
        return f"{self._first + row}" + (f" ({shortened(str(name), 30)})" if name else "")

    def _figures(self, row: int) -> tuple[str, str]:
        return f"{self.scores.score[row]:.6g}", f"{self.scores.p_value[row]:.3g}"


def anomaly_table(lines: Iterable[AnomalyLine], n_anomalies: int) -> str:
    """Lay out the most anomalous of some rows, out of so many anomalies."""
    shown = sorted(lines, key=lambda line: line[0])[:_SHOWN_ROWS]
    cells = [line for _, line in shown]
    text = table(("row", "score", "p-value", "anomalous columns"), cells, (0, 1, 2))
    more = n_anomalies - len(shown)
    return text + (f"\nand {more:,} more" if more else "")


class ExplanationReport:
    """Explained rows as text: some columns of each for the reader, and all of them for a file."""

    def __init__(self, ae: Autoencoder, n_columns: int) -> None:
        forms = [column.format for column in ae.schema_.columns]
        self._dtypes = ["" if form is None else form.dtype for form in forms]
        self._notations = [None if form is None else form.notation for form in forms]
        self._marked = any(n is not None and not n.is_plain for n in self._notations)
        self._seen = np.array([column.width > 0 for column in ae.schema_.columns])
        self._n_columns = n_columns
        self._lines: list[tuple[int, tuple[str, ...]]] = []
        self._record: dict[str, list[Any]] = {name: [] for name in EXPLANATION_COLUMNS}

    def show(self, part: Explanation) -> None:
        """Take the columns of each row that contribute most to the table for the reader."""
        for i, row in enumerate(part.rows):
            order = np.argsort(-part.contribution[i], kind="stable")
            for j in order[self._seen[order]][: self._n_columns]:
                cells = (part.observed[i, j], part.expected[i, j])
                observed, expected = (self._text(c, j) or "(missing)" for c in cells)
                share = f"{part.contribution[i, j]:.2f}"
                self._lines.append((int(row), (f"  {part.columns[j]}", observed, expected, share)))

    def keep(self, part: Explanation) -> None:
        """Take all columns of each row to the record, the largest contribution first."""
        text = self._marked or object in (part.observed.dtype, part.expected.dtype)
        for i, row in enumerate(part.rows):
            order = np.argsort(-part.contribution[i], kind="stable")
            self._record["row"] += [int(row)] * len(order)
            self._record["column"] += [part.columns[j] for j in order]
            self._record["contribution"] += part.contribution[i, order].tolist()
            for name, side in (("observed", part.observed), ("expected", part.expected)):
                values = side[i, order].tolist()
                if text:
                    at = zip(values, order, strict=True)
                    values = [self._text(value, j, exact=True) for value, j in at]
                self._record[name] += values

    def _text(self, value: Any, j: int, exact: bool = False) -> str | None:
        """Write a cell as the training file does, or else as readers know it."""
        written = self._notations[j]
        if written is None or written.type == "text" or value is None or value != value:
            return cell(value, self._dtypes[j], exact)
        if isinstance(value, datetime):
            cells = pyarrow.array([value], pyarrow.timestamp("us"))
        else:
            cells = pyarrow.array([value]).cast(pyarrow.float64())
        if written.is_clock:
            cells = written.of_seconds(cells)
        text: str = written.write(cells.cast(written.kind, safe=False))[0].as_py()
        return text

    def table(self, scored: ScoredRows) -> str:
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
        columns = [pyarrow.array(values, from_pandas=True) for values in self._record.values()]
        return pyarrow.Table.from_arrays(columns, names=list(self._record))


def _encode(ae: Autoencoder, rows: Any, first_row: int, progress: Progress | None) -> Any:
    codes = ae.transform(rows)
    return codes, Summary(len(codes), codes.shape[1])


def _reconstruct(ae: Autoencoder, rows: Any, first_row: int, progress: Progress | None) -> Any:
    made = ae.reconstruct(rows)
    if isinstance(made, pyarrow.Table):  # written as the rows are: their delimiter, say
        made = made.replace_schema_metadata(rows.schema.metadata)
    return made, Summary(len(rows))


def _score(ae: Autoencoder, rows: Any, first_row: int, progress: Progress | None) -> Any:
    scored = ScoredRows(ae, rows, first_row)
    reasons = scored.reasons(progress)
    n_anomalies = len(scored.scores.anomalies)
    return scored.arrow(reasons), Summary(
        len(rows), n_anomalies=n_anomalies, most_anomalous=scored.lines(reasons)
    )


def _impute(ae: Autoencoder, rows: Any, first_row: int, progress: Progress | None) -> Any:
    filled = ae.impute(rows)
    return filled, Summary.of_imputed(rows, filled)


APPLY: dict[str, Callable[[Autoencoder, Any, int, Progress | None], tuple[Any, Summary]]] = {
    "encode": _encode,
    "impute": _impute,
    "reconstruct": _reconstruct,
    "score": _score,
}


def apply(
    verb: str,
    ae: Autoencoder,
    rows: Any,
    first_row: int = 0,
    progress: Progress | None = None,
    *,
    named: bool = True,
) -> tuple[Any, Summary]:
    """Apply a verb to a part of the rows.

    Parameters
    ----------
    verb : str
        One of `twofold.verbs.VERBS` that works part by part.
    ae : Autoencoder
    rows : array or Arrow table
    first_row : int
        Number of the part's first row.
    progress : callable, optional
        Called with a line now and then.
    named : bool
        Whether the column that names the rows is kept.

    Returns
    -------
    rows : array or Arrow table
        With the columns `VERBS[verb].columns(ae)`, and the one that names the rows if there is one.
    summary : Summary
    """
    made, summary = APPLY[verb](ae, rows, first_row, progress)
    return (_with_names(ae, rows, made) if named else made), summary


def _names_of(ae: Autoencoder, rows: Any) -> tuple[Any, Any] | None:
    """Return the column that names the rows, and its field; None if there is none."""
    name = ae.schema_.id_column
    if name is None or not isinstance(rows, pyarrow.Table) or name not in rows.column_names:
        return None
    return rows.column(name), rows.schema.field(name)


def _with_names(ae: Autoencoder, rows: Any, made: Any) -> Any:
    """Return results with the column that names the rows, as it is in the rows read."""
    names = _names_of(ae, rows)
    if names is None:
        return made
    column, field = names
    name = field.name
    if isinstance(made, np.ndarray):
        made = to_arrow(made, VERBS["encode"].columns(ae))
    if name in made.column_names:
        return made.set_column(made.column_names.index(name), field, column)
    place = 1 if made.column_names[0] == SCORE_COLUMNS[0] else 0
    return made.add_column(place, field, column)
