"""Figures of a fitted estimator and some rows: reconstructions, codes, traversals, history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from twofold.inference import apply as inference
from twofold.inference import neighbors, sampling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from twofold.estimators.autoencoder import Autoencoder


class Plots:
    """What an estimator can draw, with matplotlib, which is imported here when it does."""

    def plot_reconstructions(self, X: Any, n_rows: int = 10) -> Figure:
        """Draw the first rows of X over their reconstructions, as images or as profiles."""
        from twofold.report import plots

        ae = cast("Autoencoder", self)
        first = ae.read(X).slice(slice(n_rows))
        x = ae.schema_.to_matrix(first, np.float64)
        x_hat = ae._run(inference.reconstruct, first)
        return plots.matrices(ae.schema_, {"original": x, "reconstruction": x_hat})

    def plot_codes(
        self,
        X: Any,
        color: Any = None,
        method: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> Figure:
        """Draw the rows of X on a map of their codes, made as by `code_map`.

        `color` is a number or a word for each row, by default its score.
        """
        from twofold.report import plots

        ae = cast("Autoencoder", self)
        table, rng = ae.read(X), sampling.random_state(random_state)
        places = neighbors.on_a_map(ae._run(inference.encode, table), method, rng)
        titles = neighbors.axis_titles(ae.network_.n_components, method)
        if color is None:
            scores = ae._run(inference.log_density, table)
            return plots.places(places, scores, "score (nats)", titles)
        name = str(getattr(color, "name", None) or "")
        return plots.places(places, np.asarray(color), name, titles)

    def plot_importance(self, X: Any, n_columns: int = 10) -> Figure:
        """Draw how much each column contributes to the anomaly scores of X's rows, on average.

        Of anomalies, `X[ae.predict(X) == -1]`, it shows what makes them so; of a single row, its
        explanation. Values are those of `ae.explain(X).importance`.
        """
        from twofold.report import plots

        found = cast("Autoencoder", self).explain(X)
        of = "contribution" if len(found.rows) == 1 else "mean contribution"
        title = f"{of} to the anomaly score (nats)"
        return plots.bars(found.columns, found.importance, title, n_columns)

    def plot_traversals(
        self, row: Any, components: Sequence[int] | None = None, steps: int = 10
    ) -> Figure:
        """Draw what becomes of a row as some components change, by default each of the first 5."""
        from twofold.report import plots

        ae = cast("Autoencoder", self)
        check_is_fitted(ae, "network_")
        chosen = range(min(5, ae.network_.n_components)) if components is None else components
        rows = {f"component {i}": ae.read(ae.traverse(row, i, steps)[1]) for i in chosen}
        stacks = {title: ae.schema_.to_matrix(t, np.float64) for title, t in rows.items()}
        return plots.matrices(ae.schema_, stacks)

    def plot_history(self) -> Figure:
        """Draw the loss per epoch on training and held-out rows."""
        from twofold.report import plots

        ae = cast("Autoencoder", self)
        check_is_fitted(ae, "network_")
        return plots.history({"": ae.history_}, best_epoch=ae.best_epoch_)
