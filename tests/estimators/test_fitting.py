"""What surrounds training: all or nothing, and the size of the code."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from twofold import Autoencoder, Files
from twofold.errors import IgnoredColumnsWarning, LosesToPCAWarning, OptionError, TwofoldError
from twofold.estimators import fitting, validation
from twofold.training.batches import InMemory, TrainingData

ROWS = np.random.default_rng(0).normal(size=(60, 3)) @ np.random.default_rng(1).normal(size=(3, 6))


def built(**options: object) -> Autoencoder:
    """An estimator with a schema and fresh weights."""
    ae = Autoencoder(**{"n_components": 2, "epochs": 1, "random_state": 0, **options})
    rng = np.random.RandomState(0)
    fitting.build(ae, validation.training_rows(ae, ROWS, rng, 0.0, reset=True), rng)
    return ae


def test_what_fails_leaves_attributes_and_weights_as_they_were() -> None:
    ae = built()
    weight = ae.network_.pairs[0].weight
    before = weight.detach().clone()

    def fail() -> None:
        with fitting.restore_on_failure(ae):
            ae.offset_ = 1.0
            weight.data.zero_()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not hasattr(ae, "offset_")
    assert torch.equal(weight, before)


VERBS: dict[str, Callable[[Autoencoder], Any]] = {
    "transform": lambda ae: ae.transform(ROWS),
    "inverse_transform": lambda ae: ae.inverse_transform(np.zeros((3, 2))),
    "score_samples": lambda ae: ae.score_samples(ROWS),
    "explain": lambda ae: ae.explain(ROWS[:2]),
    "impute": lambda ae: ae.impute(ROWS),
    "sample": lambda ae: ae.sample(3, random_state=0),
}


@pytest.mark.parametrize("verb", VERBS)
def test_another_thread_gets_no_answer_of_a_model_that_is_being_fitted(verb: str) -> None:
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(ROWS)
    found: list[BaseException | None] = []

    def ask(event: object) -> None:
        with ThreadPoolExecutor(1) as other:
            found.append(other.submit(VERBS[verb], ae).exception())

    ae.fit(ROWS, callbacks=[ask])
    assert found
    assert all(isinstance(error, TwofoldError) for error in found)
    assert "is being fitted" in str(found[0])
    VERBS[verb](ae)


@pytest.mark.parametrize("refit", [Autoencoder.fit, Autoencoder.partial_fit])
def test_no_answer_is_of_two_models(refit: Callable[[Autoencoder, Any], Any]) -> None:
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(ROWS)

    def slow(network: Any, scorer: Any, x: torch.Tensor) -> torch.Tensor:
        refit(ae, ROWS)
        return x

    with pytest.raises(TwofoldError, match="is being fitted"):
        ae._apply(slow, ROWS)


def test_fit_that_fails_leaves_a_model_that_answers() -> None:
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(ROWS)
    before = ae.transform(ROWS)
    with pytest.raises(TwofoldError):
        ae.fit(ROWS[:1])
    np.testing.assert_array_equal(ae.transform(ROWS), before)


def test_a_share_trains_a_few_more_components_than_pca_needs() -> None:
    ae = built()
    rows = validation.training_rows(ae, ROWS, rng := np.random.RandomState(0), 0.5, reset=True)
    size = fitting.n_components_to_train(0.99, ae.schema_, rows, rng)
    assert size is not None
    assert 3 < size <= 6


def test_a_code_that_was_cut_to_a_share_learns_on() -> None:
    ae = Autoencoder(n_components=0.8, epochs=2, random_state=0).fit(ROWS)
    kept = ae.transform(ROWS).shape
    assert ae.partial_fit(ROWS).transform(ROWS).shape == kept


def test_a_share_is_not_settled_before_training() -> None:
    with pytest.raises(OptionError, match=r"needs an integer n_components, got 0\.5"):
        fitting.require_settled_size(0.5)


def test_rows_are_held_out_or_given() -> None:
    ae = built()
    rng = np.random.RandomState(0)
    data = fitting.split(ae, validation.training_rows(ae, ROWS, rng, 0.5, reset=True))
    assert isinstance(data, TrainingData)
    assert data.held_out is not None
    assert (len(data.rows), len(data.held_out)) == (30, 30)
    given = fitting.split(ae, validation.training_rows(ae, ROWS, rng, 0.0, reset=True), ROWS[:7])
    assert given.held_out is not None
    assert (len(given.rows), len(given.held_out)) == (60, 7)


def weighted(weight: NDArray[Any], **options: Any) -> Autoencoder:
    settings = {"n_components": 2, "epochs": 20, "random_state": 0, **options}
    return Autoencoder(**settings).fit(ROWS, sample_weight=weight)


def test_rows_without_weight_might_as_well_not_be_there() -> None:
    weight = np.repeat([1, 0], 30)
    ae = weighted(weight)
    without = Autoencoder(n_components=2, epochs=20, random_state=0).fit(
        ROWS[:30], sample_weight=np.ones(30)
    )
    np.testing.assert_array_equal(ae.transform(ROWS), without.transform(ROWS))
    assert ae.offset_ == without.offset_


def test_weights_of_one_change_no_bit() -> None:
    ones, none = weighted(np.ones(60)), weighted(None)
    for name, tensor in none.network_.state_dict().items():
        assert torch.equal(ones.network_.state_dict()[name], tensor), name
    np.testing.assert_array_equal(ones.score_samples(ROWS), none.score_samples(ROWS))
    assert ones.offset_ == none.offset_


def test_whole_weights_are_repeated_rows() -> None:
    # On batches of all rows; the order of the rows in them changes sums by rounding.
    times = np.arange(60) % 3 + 1
    recipe = {"batch_size": 120, "validation_fraction": 0.0, "optimizer": "sgd"}
    recipe |= {"n_components": 2, "epochs": 5, "random_state": 0, "precision": "float64"}
    heavy = Autoencoder(**recipe).fit(ROWS, sample_weight=times)
    repeated = Autoencoder(**recipe).fit(np.repeat(ROWS, times, axis=0))
    np.testing.assert_allclose(heavy.transform(ROWS), repeated.transform(ROWS), rtol=1e-9)


def test_heavy_rows_are_reconstructed_better_and_move_the_scale() -> None:
    heavy = np.repeat([15, 1], 30)
    errors = []
    for weight in (heavy, heavy[::-1]):
        ae = weighted(weight)
        errors.append(((ae.reconstruct(ROWS) - ROWS) ** 2)[:30].sum())
        centre = np.average(ROWS, axis=0, weights=weight)
        np.testing.assert_allclose([column.center for column in ae.schema_.columns], centre)
    assert errors[0] < errors[1]


def test_copies_of_a_row_are_held_out_together() -> None:
    ae = built(validation_fraction=0.5)
    table = validation.table(ae, ROWS, reset=True)
    times = np.full(60, 3)
    data = fitting.split(ae, InMemory(table, np.random.RandomState(0), 0.5, times))
    assert data.held_out is not None
    trained = {row.tobytes() for row in data.rows.head(1000).numpy()}
    held = {row.tobytes() for row in data.held_out[:].numpy()}
    assert (len(data.rows), len(data.held_out), len(trained), len(held)) == (90, 90, 30, 30)
    assert not trained & held


def test_summary_shows_what_would_be_trained() -> None:
    ae = Autoencoder(n_components=2, epochs=1, random_state=0)
    before = ae.summary(ROWS)
    assert not hasattr(ae, "network_")
    assert before == ae.fit(ROWS).summary()


def test_a_mixed_table_is_compared_in_nats_and_a_loss_to_pca_is_told() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 200)
    frame = pd.DataFrame(
        {
            "group": np.array(["a", "b", "c"])[group],
            "x": group + 0.1 * rng.normal(size=200),
            "y": group - 0.1 * rng.normal(size=200),
        }
    )
    # With a linear pair next to the stack, it would begin as PCA.
    poor = Autoencoder(
        n_components=2, hidden_layers=(4,), shortcut=False, learning_rate=1e-6, epochs=1
    )
    with pytest.warns(LosesToPCAWarning, match="nats per cell"):
        poor.fit(frame)
    assert poor.comparison_.loss > poor.comparison_.loss_pca
    assert poor.compare_pca(frame).n_rows == 200


def test_columns_that_a_few_cells_keep_from_being_numbers_are_named(tmp_path: Path) -> None:
    rows = "".join(f"{i / 7:.3f},{i % 5}.5,{i % 7}\n" for i in range(60))
    (tmp_path / "x.csv").write_text(f"volts,y,z\n{rows}ERR,1.5,2\n", encoding="utf-8")
    ae = Autoencoder(n_components=1, epochs=1, random_state=0)
    with pytest.warns(IgnoredColumnsWarning, match="'volts' 60 of 61 cells are numbers; row 60"):
        ae.fit(tmp_path / "x.csv")
    ae.fit(Files(tmp_path / "x.csv", missing=("ERR",)))
    assert [column.kind for column in ae.schema_.columns] == ["real"] * 3
