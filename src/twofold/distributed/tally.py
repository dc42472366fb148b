"""What a model makes of rows, a part at a time, and what there is to tell of it at the end.

The same for one process and for a cluster, whose tasks send their tallies home.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from twofold.distributed.reasons import OddRow, Scored
from twofold.estimators.autoencoder import Autoencoder

Say = Callable[[str], object]


@dataclass
class Tally:
    """What there is to tell of rows that are done.

    Attributes
    ----------
    n_rows, n_columns : int
        Those written; columns are counted where their number is not that of the rows read.
    n_anomalies, oddest
        Of scored rows: how many are labelled -1, and what to show of the oddest ones.
    n_missing, n_left : int
        Of imputed rows: missing cells there were, and cells still missing.
    n_restarted : int
        Files that were begun and left by processes that ended.
    """

    n_rows: int = 0
    n_columns: int = 0
    n_anomalies: int = 0
    oddest: list[OddRow] = field(default_factory=list)
    n_missing: int = 0
    n_left: int = 0
    n_restarted: int = 0

    def add(self, other: Tally) -> None:
        """Add what there is to tell of other rows."""
        self.n_rows += other.n_rows
        self.n_columns = other.n_columns
        self.n_anomalies += other.n_anomalies
        self.oddest += other.oddest
        self.n_missing += other.n_missing
        self.n_left += other.n_left


class Verb(NamedTuple):
    """What is made of rows, and what its columns are called.

    `apply(model, rows, first_row=0, say=None)` returns an array or an Arrow table, and its tally.
    """

    apply: Callable[..., tuple[Any, Tally]]
    columns: Callable[[Autoencoder], Sequence[str]]


def missing_cells(rows: Any) -> int:
    """Count the missing cells of an array or an Arrow table."""
    if isinstance(rows, np.ndarray):
        return int(np.isnan(rows).sum())
    return sum(pc.sum(pc.is_null(c, nan_is_null=True)).as_py() or 0 for c in rows.columns)


def imputed(rows: Any, filled: Any) -> Tally:
    """Return what there is to tell of rows whose missing cells were filled."""
    return Tally(len(rows), n_missing=missing_cells(rows), n_left=missing_cells(filled))


def _encode(
    ae: Autoencoder, rows: Any, first_row: int = 0, say: Say | None = None
) -> tuple[Any, Tally]:
    codes = ae.transform(rows)
    return codes, Tally(len(codes), codes.shape[1])


def _reconstruct(
    ae: Autoencoder, rows: Any, first_row: int = 0, say: Say | None = None
) -> tuple[Any, Tally]:
    return ae.reconstruct(rows), Tally(len(rows))


def _score(
    ae: Autoencoder, rows: Any, first_row: int = 0, say: Say | None = None
) -> tuple[Any, Tally]:
    found = Scored(ae, rows, first_row)
    reasons = found.reasons(say)
    table = found.arrow(reasons)
    return table, Tally(
        len(rows),
        n_anomalies=len(found.anomalies),
        oddest=found.lines(reasons),
    )


def _impute(
    ae: Autoencoder, rows: Any, first_row: int = 0, say: Say | None = None
) -> tuple[Any, Tally]:
    filled = ae.impute(rows)
    return filled, imputed(rows, filled)


def _row_names(ae: Autoencoder) -> Sequence[str]:
    return ae.schema_.names


def _code_names(ae: Autoencoder) -> Sequence[str]:
    return list(ae.get_feature_names_out())


VERBS = {
    "encode": Verb(_encode, _code_names),
    "impute": Verb(_impute, _row_names),
    "reconstruct": Verb(_reconstruct, _row_names),
    "score": Verb(_score, lambda ae: ()),
}
