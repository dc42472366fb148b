"""What a model is, in plain text."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, Sparse
from twofold.persistence import summary

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "height": RNG.normal(170, 8, 120),
        "town": np.array(["Bonn", "Kiel"])[RNG.integers(2, size=120)],
        "version": np.full(120, 3.0),
        "key": [f"k{i}" for i in range(120)],
    }
)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Autoencoder(n_components=2, epochs=2, random_state=0).fit(FRAME)


def test_options_that_were_changed_are_listed_as_the_command_line_takes_them() -> None:
    text = summary.changed_options({"epochs": 5, "tied": True, "hidden_layers": (64, 32)})
    assert text.splitlines() == [
        "epochs         5      default auto",
        "hidden_layers  64,32  default auto",
    ]


def test_a_value_is_listed_whole() -> None:
    assert "Sparse(kind='topk'" in summary.changed_options({"bottleneck": Sparse("topk", k=2)})


def test_no_changes_are_said_to_be_none() -> None:
    assert summary.changed_options({"tied": True}) == "none"


def test_columns_are_listed_with_what_the_network_sees(model: Autoencoder) -> None:
    lines = summary.columns(model).splitlines()
    assert lines[0].split() == [
        "column",
        "kind",
        "likelihood",
        "what",
        "the",
        "network",
        "sees",
        "note",
    ]
    assert any(line.startswith("height") and "gaussian" in line for line in lines)
    assert any(line.startswith("version") and line.endswith("constant") for line in lines)


def test_remarks_name_ignored_and_constant_columns(model: Autoencoder) -> None:
    ignored, constant = summary.remarks(model)
    assert "key" in ignored
    assert constant == "constant in training: version"


def test_training_says_which_epoch_was_best(model: Autoencoder) -> None:
    text = summary.training(model)
    assert "2 run" in text
    assert (f"epoch {model.best_epoch_}: " if model.best_epoch_ else "the start: no epoch") in text
    assert f"score below {model.offset_:.6g}" in text


def test_what_came_of_fitting_compares_with_pca(model: Autoencoder) -> None:
    lines = summary.fitted(model, len(FRAME))
    assert lines["rows"] == "120"
    assert "PCA with as many components" in lines["compared with PCA"]
