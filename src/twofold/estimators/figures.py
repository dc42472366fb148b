"""Figures of a fitted estimator and some rows: reconstructions, codes, traversals, history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from twofold.inference import apply as inference
from twofold.inference import neighbors, sampling
from twofold.report import plots

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder


def reconstructions(ae: Autoencoder, X: Any, n_rows: int) -> Figure:
    """Draw the first rows of X over their reconstructions."""
    first = ae.read(X).slice(slice(n_rows))
    x, x_hat = ae.schema_.to_matrix(first, np.float64), ae._run(inference.reconstruct, first)
    return plots.matrices(ae.schema_, {"original": x, "reconstruction": x_hat})


def codes(
    ae: Autoencoder,
    X: Any,
    color: Any,
    method: str,
    random_state: int | np.random.RandomState | None,
) -> Figure:
    """Draw the rows of X on a map of their codes, coloured by their scores or by `color`."""
    table = ae.read(X)
    rng = sampling.random_state(random_state)
    places = neighbors.on_a_map(ae._run(inference.encode, table), method, rng)
    titles = neighbors.axis_titles(ae.network_.n_components, method)
    if color is None:
        scores = ae._run(inference.log_density, table)
        return plots.places(places, scores, "score (nats)", titles)
    name = str(getattr(color, "name", None) or "")
    return plots.places(places, np.asarray(color), name, titles)


def traversals(ae: Autoencoder, row: Any, components: Sequence[int] | None, steps: int) -> Figure:
    """Draw what becomes of a row as some components change, by default each of the first 5."""
    chosen = range(min(5, ae.network_.n_components)) if components is None else components
    rows = {f"component {i}": ae.read(ae.traverse(row, i, steps)[1]) for i in chosen}
    stacks = {title: ae.schema_.to_matrix(t, np.float64) for title, t in rows.items()}
    return plots.matrices(ae.schema_, stacks)
