"""Figures of a fitted estimator: which rows, codes and components they show."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from twofold import Autoencoder
from twofold.report import plots

ROWS = np.random.default_rng(0).normal(size=(40, 8)) @ np.random.default_rng(1).normal(size=(8, 8))
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


@pytest.fixture(scope="module")
def ae() -> Autoencoder:
    return Autoencoder(n_components=6, epochs=1, random_state=0).fit(ROWS)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is handed to the plots: stacks of rows by title, or places and their shades."""
    found: dict[str, Any] = {}

    def matrices(schema: object, stacks: dict[str, Any]) -> Figure:
        found.update(stacks)
        return Figure()

    def places(points: Any, shades: Any, title: str, axis_titles: Any) -> Figure:
        found.update(points=points, shades=shades, title=title, axis_titles=axis_titles)
        return Figure()

    monkeypatch.setattr(plots, "matrices", matrices)
    monkeypatch.setattr(plots, "places", places)
    return found


def test_the_first_rows_are_drawn_over_their_reconstructions(
    ae: Autoencoder, drawn: dict[str, Any]
) -> None:
    ae.plot_reconstructions(ROWS, 3)
    assert {title: len(rows) for title, rows in drawn.items()} == {
        "original": 3,
        "reconstruction": 3,
    }


def test_codes_are_coloured_by_their_scores(ae: Autoencoder, drawn: dict[str, Any]) -> None:
    ae.plot_codes(ROWS, None, "pca", 0)
    np.testing.assert_allclose(drawn["shades"], ae.score_samples(ROWS))
    assert drawn["title"] == "score (nats)"


def test_a_column_of_colours_gives_its_name(ae: Autoencoder, drawn: dict[str, Any]) -> None:
    ae.plot_codes(ROWS, pd.Series(range(40), name="size"), "pca", 0)
    assert drawn["title"] == "size"


def test_importance_names_the_column_that_is_wrong(ae: Autoencoder) -> None:
    wrong = ROWS[:5].copy()
    wrong[:, 3] += 40
    axes = ae.plot_importance(wrong, 2).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x3", ANY, "6 other columns"]
    shown = sum(bar.get_width() for bar in axes.patches)
    np.testing.assert_allclose(shown, ae.explain(wrong).importance.sum())
    assert axes.get_xlabel() == "mean contribution to the anomaly score (nats)"


def test_the_first_five_components_are_traversed(ae: Autoencoder, drawn: dict[str, Any]) -> None:
    ae.plot_traversals(ROWS[:1], None, 7)
    assert list(drawn) == [f"component {i}" for i in range(5)]


def test_each_step_of_a_traversal_is_a_row(ae: Autoencoder, drawn: dict[str, Any]) -> None:
    ae.plot_traversals(ROWS[:1], [5], 7)
    assert {title: len(rows) for title, rows in drawn.items()} == {"component 5": 7}
