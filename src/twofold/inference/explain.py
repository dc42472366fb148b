"""Why a row scores as it does: each column's share of minus the score, and what was expected.

For a row x and the row e that its code leads to, minus the score grows from s(e) to s(x) along the
straight path between them. A column's contribution is the integral of its own part of the gradient
along that path (Aumann and Shapley, 1974; Sundararajan, Taly and Yan, 2017, "Axiomatic Attribution
for Deep Networks", eq. 1), and the integral of all parts is the difference itself: the shares add
up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.sources import row_chunks
from twofold.data.table import Table, cells
from twofold.formatting import cell, counted, html_table, table
from twofold.inference.apply import complete, in_dtype, row_log_prob
from twofold.nn.cell_model import observed
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.nn.threads import few_for
from twofold.schema.schema import Schema
from twofold.schema.tensors import tensor
from twofold.verbs import EXPLANATION_COLUMNS

if TYPE_CHECKING:
    import pandas

Array = NDArray[Any]
_STEPS_TO_MODE = (0.25, 0.5, 0.75, 1.0)
_ROUNDS = 10  # of finding the expected row
_PATH_CELLS = 1_000_000  # inputs that one pass computes on
_SHOWN_ROWS, _SHOWN_COLUMNS = 10, 5


@dataclass(frozen=True, repr=False)
class Explanation:
    """Per row and column: what was observed, what was expected, and its share of minus the score.

    Attributes
    ----------
    columns : tuple of str
        The table's own columns; arrays below have one column for each.
    observed, expected : array of shape (n_rows, n_columns)
        Cells in their own units: numbers, or objects where the table holds text or times. A missing
        cell is NaN or None.
    contribution : array of shape (n_rows, n_columns)
        Nats by which the cell lowers the row's score; 0 for a missing cell.
    base : array of shape (n_rows,)
        Minus the score of the expected row: `base + contribution.sum(axis=1)` is minus the score.
    rows : array of shape (n_rows,)
        The rows' numbers in the table that was explained, from 0.
    """

    columns: tuple[str, ...]
    observed: Array
    expected: Array
    contribution: Array
    base: Array
    rows: NDArray[np.int64]

    @property
    def importance(self) -> NDArray[np.float64]:
        """Mean contribution of each column over these rows, in nats, `(n_columns,)`.

        All together are by how much the rows score below their expected rows, on average. Of rows
        that are anomalies, they say which columns make them so: global feature importance.
        """
        return np.asarray(self.contribution.mean(axis=0))

    def top(self, row: int, n: int = 3) -> list[str]:
        """Name the columns that contribute most to the row at position `row`, the first one most.

        Columns that raise the row's score are left out.
        """
        order = np.argsort(-self.contribution[row], kind="stable")[:n]
        return [self.columns[i] for i in order if self.contribution[row, i] > 0]

    def __repr__(self) -> str:
        titles, lines, note = self._lines()
        return table(titles, lines, (0, 4)) + (f"\n{note}" if note else "")

    def _repr_html_(self) -> str:
        titles, lines, note = self._lines()
        return html_table(titles, lines, (0, 4), note)

    def _lines(self) -> tuple[Sequence[str], list[Sequence[str]], str]:
        """Return the columns that contribute most to the first rows, as text."""
        lines: list[Sequence[str]] = []
        for i, row in enumerate(self.rows[:_SHOWN_ROWS]):
            for j in np.argsort(-self.contribution[i], kind="stable")[:_SHOWN_COLUMNS]:
                values = (self.observed[i, j], self.expected[i, j])
                texts = (cell(value) or "(missing)" for value in values)
                share = f"{self.contribution[i, j]:.2f}"
                lines.append((str(row), self.columns[j], *texts, share))
        n, k = self.contribution.shape
        hidden = n > _SHOWN_ROWS or k > _SHOWN_COLUMNS
        shape = f"{counted(n, 'row')} of {counted(k, 'column')}"
        note = f"Contributions are in nats. {shape}; to_frame() has all." if hidden else ""
        return EXPLANATION_COLUMNS, lines, note

    def to_frame(self, top: int | None = None) -> pandas.DataFrame:
        """Return a pandas frame with one line per row and column, the largest contribution first.

        `top` keeps so many columns per row.
        """
        import pandas as pd

        lines = []
        for i, row in enumerate(self.rows):
            for j in np.argsort(-self.contribution[i], kind="stable")[:top]:
                share = self.contribution[i, j]
                lines.append(
                    (int(row), self.columns[j], self.observed[i, j], self.expected[i, j], share)
                )
        return pd.DataFrame(lines, columns=list(EXPLANATION_COLUMNS))


def explain(
    network: Network,
    scorer: Scorer,
    schema: Schema,
    table: Table,
    offset: float = -math.inf,
) -> Explanation:
    """Explain every row of a table, chunk by chunk in float64.

    Expected rows score at least `offset`, so that columns explain why a row scores less.
    """
    network, scorer = in_dtype(network, scorer, torch.float64)
    device = next(network.parameters()).device
    parts = []
    with few_for(scorer.density.n_nodes * network.work(table.n_rows)):
        for at in row_chunks(table.n_rows, network.widest):
            x = schema.to_matrix(table.slice(at), np.float64, first_row=at.start)
            parts.append(attribute(network, scorer, tensor(x).to(device), offset))
    every = [torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)]
    expected, contribution, base = every
    return Explanation(
        columns=schema.names,
        observed=cells(table.values, table.formats),
        expected=cells(schema.observed(schema.from_matrix(expected)), schema.formats()),
        contribution=contribution,
        base=base,
        rows=np.arange(table.n_rows),
    )


def attribute(
    network: Network, scorer: Scorer, x: Tensor, offset: float = -math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """Return expected inputs, contributions per column, and minus the score of the expected rows.

    (batch, width) -> (batch, width), (batch, n_columns), (batch,). Network, scorer and rows in
    float64 make the sums exact to rounding.
    """
    filled, seen = observed(x)
    if seen is not None:
        filled = complete(network, scorer, x).detach()
    expected = scorer.density.settled(expect(network, scorer, x, filled))
    expected = _made_normal(network, scorer, expected, filled, seen, offset)
    start = expected if seen is None else torch.where(seen, expected, filled)
    span = filled - start
    n = max(1, _PATH_CELLS // (scorer.density.n_nodes * network.widest))
    parts = []
    for at in range(0, len(x), n):
        rows = slice(at, at + n)
        there = None if seen is None else seen[rows]
        parts.append(_integrate(network, scorer, start[rows], span[rows], there))
    shares, base = (torch.cat(part) for part in zip(*parts, strict=True))
    return expected, scorer.per_column(shares), base


@torch.no_grad()
def expect(network: Network, scorer: Scorer, x: Tensor, filled: Tensor) -> Tensor:
    """Return the inputs that the trustworthy cells of each row let expect, `(batch, width)`.

    A row's own reconstruction gives way to the very cell that is wrong. So cells count the less the
    more they surprise, as in robust regression by reweighting (Holland and Welsch, 1977): a cell
    gives way to its reconstruction, an anomalous reconstruction to the mean of the row's
    cluster, and the row is reconstructed again.
    """
    seen = observed(x)[1]
    current, expected = filled, filled
    for _ in range(_ROUNDS):
        theta = network.decode(network.encode(current, seen=seen)[0])
        x_hat = scorer.mean(theta)
        middle, doubt = scorer.density.typical(x_hat, filled, seen)
        doubt = scorer.per_column(doubt)
        expected = middle + scorer.per_input(1 / (1 + doubt)) * (x_hat - middle)
        surprise = (scorer.typical - scorer.log_prob(theta, x)).clamp_min(0)
        trust = scorer.per_input(1 / (1 + surprise + doubt))
        current = expected + trust * (filled - expected)
    return expected


@torch.no_grad()
def _made_normal(
    network: Network,
    scorer: Scorer,
    expected: Tensor,
    filled: Tensor,
    seen: Tensor | None,
    offset: float,
) -> Tensor:
    """Return the expected rows, those that score below `offset` nearer to the most normal row.

    They go as far towards that training row as is needed, in four steps; the last is the row.
    """

    def scores(rows: Tensor, at: Tensor) -> Tensor:
        there = None if seen is None else seen[at]
        rows = rows if there is None else torch.where(there, rows, filled[at])
        return -_oddness(network, scorer, rows, there)

    if offset == -math.inf:
        return expected
    far = torch.arange(len(expected), device=expected.device)
    found = expected
    for step in _STEPS_TO_MODE:
        far = far[scores(found[far], far) < offset]
        if not len(far):
            break
        nearer = torch.lerp(expected[far], scorer.mode.expand(len(far), -1), step)
        found = found.index_copy(0, far, scorer.density.settled(nearer))
    return found


def _integrate(
    network: Network, scorer: Scorer, start: Tensor, span: Tensor, seen: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Integrate the gradient of minus the score from `start` to `start + span`."""
    nodes, weights = np.polynomial.legendre.leggauss(scorer.density.n_nodes)
    ends = [0.0, 1.0]
    at = torch.tensor([*(0.5 * (nodes + 1)), *ends], dtype=start.dtype, device=start.device)
    share = torch.tensor(0.5 * weights, dtype=start.dtype, device=start.device)
    path = (start + at[:, None, None] * span).reshape(-1, start.shape[1]).requires_grad_()
    there = None if seen is None else seen.repeat(len(at), 1)
    values = _oddness(network, scorer, path, there)
    (gradient,) = torch.autograd.grad(values.sum(), path)
    gradient = gradient.reshape(len(at), *start.shape)[: len(nodes)]
    shares = (share[:, None, None] * gradient).sum(0) * span
    first, last = values.detach().reshape(len(at), -1)[-2:]
    # What the quadrature leaves over goes where the changes are.
    size = shares.abs()
    total = size.sum(1, keepdim=True)
    even = torch.full_like(size, 1 / size.shape[1])
    part = torch.where(total > 0, size / total.clamp_min(1e-300), even)
    remainder = (last - first) - shares.sum(1)
    return shares + part * remainder[:, None], first


def _oddness(network: Network, scorer: Scorer, x: Tensor, seen: Tensor | None) -> Tensor:
    """Return minus the score of complete rows, of which only the cells in `seen` are counted."""
    # Missing cells are NaN; the code has been made from what fills them.
    given = x if seen is None else torch.where(seen, x, torch.nan)
    return -row_log_prob(network, scorer, x, given)
